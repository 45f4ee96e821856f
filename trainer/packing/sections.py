"""The body of an artifact: streams of one role and kind lie together in a section, each in the codec that made it smallest.

Which sections there are, and what lies in them, follows from the shapes and schemes of the weights; the file only adds the codec
and the length of each. A section is a checksum of its symbols (crc32, 4 bytes) and what its codec made of them.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trainer.model.roles import role
from trainer.packing import codecs
from trainer.packing.blocks import Layout, arrays_of, layout_of, shuffled, symbols_of, unshuffled
from trainer.packing.codecs import GENERAL, RANS
from trainer.packing.rans import DamagedError
from trainer.quant.stored import Stored, Stream, streams_of

AUTO = "auto"
TRIED = ("zlib", "zstd", "lzma")
"""What `auto` tries beside the range coder: what every machine has, so that the same weights give the same file everywhere."""
RANS_FROM = 4096
"""Below so many symbols `auto` leaves the range coder out: its tables would weigh more than it wins."""
SCREENED, SAMPLE = 1 << 19, 1 << 17
"""From so many bytes on, `auto` asks a sample which general codecs are worth their time: lzma takes seconds for a million."""
_CRC = struct.Struct("<I")

Key = tuple[str, str, str, int, int]


@dataclass(frozen=True)
class Kind:
    """What a section holds. parts: (tensor, stream) names in order; streams: their shapes."""

    role: str
    stream: str
    parts: Sequence[tuple[str, str]]
    streams: Sequence[Stream]

    @property
    def key(self) -> Key:
        """What its streams have in common."""
        stream = self.streams[0]
        return self.role, self.stream, stream.dtype, stream.low, stream.high


@dataclass(frozen=True)
class Section:
    """A section as it lies in the file. shuffled: first bytes of all values first (values of several bytes only)."""

    kind: Kind
    codec: str
    shuffled: bool
    content: bytes

    @property
    def coded(self) -> bytes:
        """What the codec made, without the checksum."""
        return self.content[_CRC.size :]

    def entry(self) -> dict[str, object]:
        """Its line in the header."""
        return {"codec": self.codec, "shuffled": self.shuffled, "bytes": len(self.content)}


def kinds_of(tensors: Mapping[str, Mapping[str, Stream]]) -> list[Kind]:
    """Sections for tensors' streams, in the order of the file."""
    found: dict[Key, list[tuple[str, str]]] = {}
    for name, streams in tensors.items():
        for kind, stream in streams.items():
            found.setdefault((role(name), kind, stream.dtype, stream.low, stream.high), []).append((name, kind))
    return [Kind(key[0], key[1], parts, [tensors[name][kind] for name, kind in parts]) for key, parts in found.items()]


def pack(stored: Mapping[str, Stored], codec: str, like: Sequence[Section] | None = None) -> list[Section]:
    """All streams of a model. codec: one for all, or `auto`. like: sections of the same model, whose codecs are taken.

    Raises ValueError if a value is beyond its scheme, or for brotli where it is not installed.
    """
    kinds = kinds_of({name: streams_of(item.scheme, item.shape) for name, item in stored.items()})
    # By what they hold: calibrated weights may have other streams each time they are rounded.
    before = {section.kind.key: [(section.codec, section.shuffled)] for section in like or ()}
    found = []
    for kind in kinds:
        symbols = symbols_of(kind.streams, [stored[name].streams[stream] for name, stream in kind.parts])
        layout = layout_of(kind.streams)
        tried = before.get(kind.key) or _tried(codec, symbols, layout)
        coded = [(name, mixed, _coded(name, mixed, symbols, layout)) for name, mixed in tried]
        name, mixed, content = min(coded, key=lambda item: len(item[2]))
        found.append(Section(kind, name, mixed, _CRC.pack(zlib.crc32(symbols)) + content))
    return found


def _tried(codec: str, symbols: np.ndarray, layout: Layout) -> list[tuple[str, bool]]:
    """Codecs to try on a section, each with whether its bytes are shuffled."""
    if not layout.count:
        return [("zlib", False)]
    wide = layout.width > 1
    if codec != AUTO:
        return [(codec, mixed) for mixed in (False, True) if fits(codec, mixed, layout)]
    found = [(name, mixed) for name in TRIED for mixed in (False, True) if fits(name, mixed, layout)]
    if layout.count > SCREENED:
        at = (layout.count - SAMPLE) // 2 // layout.width * layout.width
        sizes = {way: len(_packed(*way, symbols[at : at + SAMPLE], layout.width)) for way in found}
        found = [way for way in found if sizes[way] <= 1.02 * min(sizes.values())]
    return [(RANS, wide), *found] if layout.count >= RANS_FROM else found


def _packed(codec: str, mixed: bool, symbols: np.ndarray, width: int) -> bytes:
    """By a general codec."""
    return codecs.pack(codec, (shuffled(symbols, width) if mixed else symbols).tobytes(), 1 if mixed else width)


def _coded(codec: str, mixed: bool, symbols: np.ndarray, layout: Layout) -> bytes:
    if codec == RANS:
        return codecs.encode(shuffled(symbols, layout.width) if mixed else symbols, layout)
    return _packed(codec, mixed, symbols, layout.width)


def unpack(section: Section) -> list[np.ndarray]:
    """The arrays of a section's parts. Raises DamagedError for what no encoder wrote, ValueError for brotli where it is not
    installed."""
    kind = section.kind
    return arrays_of(kind.streams, symbols_in(section))


def symbols_in(section: Section) -> np.ndarray:
    """The symbols of a section, (N,) uint8, value after value. Raises as `unpack` does."""
    layout, mixed = layout_of(section.kind.streams), section.shuffled
    if not fits(section.codec, mixed, layout):
        raise DamagedError(f"codec {section.codec[:80]!r} does not fit {layout.count} symbols of {layout.width} bytes")
    if len(section.content) < _CRC.size:
        raise DamagedError(f"{len(section.content)} bytes are too few for a section")
    if section.codec == RANS:
        symbols = codecs.decode(section.coded, layout)
    else:
        raw = codecs.unpack(section.codec, section.coded, layout.count, 1 if mixed else layout.width)
        symbols = np.frombuffer(raw, np.uint8)
    if mixed:
        symbols = unshuffled(symbols, layout.width)
    if zlib.crc32(symbols) != _CRC.unpack_from(section.content)[0]:
        raise DamagedError("the checksum does not match")
    return symbols


def fits(codec: str, mixed: bool, layout: Layout) -> bool:
    """Whether a section may be written like this: bytes are shuffled where there are several, and by the range coder always."""
    if codec == RANS:
        return layout.count > 0 and mixed == (layout.width > 1)
    return codec in GENERAL and (not mixed or layout.width > 1)
