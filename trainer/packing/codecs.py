"""The entropy coders an artifact's sections may be written with: four that everybody has, and our own range coder.

How many symbols come out is known before a byte is read, from the shapes of the model; no codec gives or allocates more.
"""

from __future__ import annotations

import lzma
import struct
import zlib
from importlib.util import find_spec
from types import ModuleType

import numpy as np
import zstandard

from trainer.packing import rans
from trainer.packing.blocks import Layout
from trainer.packing.histograms import MOST, Classes, classify, codes_of, frequencies_of
from trainer.packing.rans import TOTAL, DamagedError

GENERAL = ("zlib", "zstd", "lzma", "brotli")
RANS = "rans"
ZSTD_LEVEL = 22
_DICTIONARY = 1 << 23
"""Weights repeat nothing over long distances, and 64 MiB would cost the encoder 700 MiB of memory."""
_HEAD = struct.Struct("<BHI")
"""Of the range coder: classes less one, bytes of their tables, bytes of the rows' labels."""


# --- general codecs ------------------------------------------------------------------------------------------------------
def pack(codec: str, raw: bytes, width: int) -> bytes:
    """Bytes in fewer bytes. width: of the values they are made of. Raises ValueError for brotli where it is not installed."""
    if codec == "zlib":
        packer = zlib.compressobj(9, zlib.DEFLATED, -15, 9)
        return packer.compress(raw) + packer.flush()
    if codec == "zstd":
        return zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(raw)
    if codec == "lzma":
        return lzma.compress(raw, lzma.FORMAT_RAW, filters=_filters(len(raw), width))
    return _brotli().compress(raw, quality=11, lgwin=24)


def unpack(codec: str, content: bytes, count: int, width: int) -> bytes:
    """The `count` bytes that `pack` was given. Raises DamagedError for anything else."""
    if codec == "zstd":
        return _unzstd(content, count)
    if codec == "brotli":
        raw, done = _unbrotli(content, count)
    else:
        unpacker = (
            zlib.decompressobj(-15)
            if codec == "zlib"
            else lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_filters(count, width))
        )
        try:
            raw = unpacker.decompress(content, count + 1)  # one byte more shows that there is more
        except (zlib.error, lzma.LZMAError, EOFError) as error:
            raise DamagedError(f"{codec}: {error}") from None
        done = unpacker.eof and not unpacker.unused_data
    if not done or len(raw) != count:
        raise DamagedError(f"{codec}: not one stream of {count} bytes")
    return raw


def _unzstd(content: bytes, count: int) -> bytes:
    try:
        if zstandard.frame_content_size(content) != count:
            raise DamagedError(f"zstd: not one frame of {count} bytes")
        # In one shot: the output is allocated once, at the size just checked, and the frame can't grow past it.
        return zstandard.ZstdDecompressor().decompress(content, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise DamagedError(f"zstd: {error}") from None


def _filters(count: int, width: int) -> list[dict[str, int]]:
    """No header is written, so both sides must agree: on a dictionary as long as the content, and on where values begin."""
    size, place = min(max(4096, 1 << count.bit_length()), _DICTIONARY), width.bit_length() - 1
    preset = 9 | lzma.PRESET_EXTREME
    return [{"id": lzma.FILTER_LZMA2, "preset": preset, "dict_size": size, "lc": 0, "lp": place, "pb": place}]


def _unbrotli(content: bytes, count: int) -> tuple[bytes, bool]:
    brotli = _brotli()
    unpacker, raw, given = brotli.Decompressor(), b"", content
    try:
        while len(raw) <= count and not unpacker.is_finished():
            piece = unpacker.process(given, output_buffer_limit=count + 1 - len(raw))
            if not piece and not given:
                break
            raw, given = raw + piece, b""
    except brotli.error as error:
        raise DamagedError(f"brotli: {error}") from None
    return raw, unpacker.is_finished()


def installed(codec: str) -> bool:
    """Whether this machine can write and read it."""
    return codec != "brotli" or find_spec("brotli") is not None


def _brotli() -> ModuleType:
    """The one codec that is not everywhere; nothing needs it but a file written with it."""
    try:
        import brotli
    except ImportError:
        raise ValueError("the codec brotli is not installed here (pip install 'brotli>=1.2')") from None
    return brotli


# --- our range coder -----------------------------------------------------------------------------------------------------
def encode(symbols: np.ndarray, layout: Layout) -> bytes:
    """uint8 symbols (N,), N not 0, as classes of rows (see `histograms`), the label of each row, and coded symbols.

    A class with one symbol needs no code: rows that were never trained cost their label.
    """
    classes = classify(symbols, layout.rows, layout.alphabet)
    frequencies = frequencies_of(classes.codes)
    tables = pack("zlib", np.diff(classes.codes, axis=1, prepend=np.uint8(0)).tobytes(), 1)
    labels = _labels(classes)
    models, open_ = _models(classes.labels, frequencies, layout.rows)
    coded = rans.encode(symbols[open_], models[open_], frequencies)
    return _HEAD.pack(len(classes.codes) - 1, len(tables), len(labels)) + tables + labels + coded


def decode(content: bytes, layout: Layout) -> np.ndarray:
    """The symbols that `encode` was given. Raises DamagedError for anything that it does not write."""
    classes, coded = read_classes(content, layout)
    frequencies = frequencies_of(classes.codes)
    models, open_ = _models(classes.labels, frequencies, layout.rows)
    symbols = frequencies.argmax(axis=1).astype(np.uint8)[models]
    symbols[open_] = rans.decode(coded, models[open_], frequencies)
    return symbols


def read_classes(content: bytes, layout: Layout) -> tuple[Classes, bytes]:
    """Classes of the rows, and the coded symbols behind them. Raises DamagedError."""
    if len(content) < _HEAD.size:
        raise DamagedError(f"rans: {len(content)} bytes are too few")
    most, length, side = _HEAD.unpack_from(content)
    count, tables, labels = most + 1, _HEAD.size + length, _HEAD.size + length + side
    if count > MOST or labels > len(content):
        raise DamagedError(f"rans: {count} classes, tables of {length} and labels of {side} bytes are impossible")
    deltas = np.frombuffer(unpack("zlib", content[_HEAD.size : tables], count * layout.alphabet, 1), np.uint8)
    codes = np.cumsum(deltas.reshape(count, layout.alphabet), axis=1, dtype=np.uint8)
    if not codes.any(axis=1).all():
        raise DamagedError("rans: a class without symbols")
    return Classes(_read_labels(content[tables:labels], len(layout.rows), count), codes), content[labels:]


def _labels(classes: Classes) -> bytes:
    """Each row's label, under a histogram of its own."""
    if len(classes.codes) == 1:
        return b""
    codes = codes_of(np.bincount(classes.labels, minlength=len(classes.codes)))
    models = np.zeros(len(classes.labels), np.uint8)
    return codes.tobytes() + rans.encode(classes.labels, models, frequencies_of(codes[None]))


def _read_labels(content: bytes, rows: int, count: int) -> np.ndarray:
    if count == 1:
        if content:
            raise DamagedError("rans: labels of a single class")
        return np.zeros(rows, np.uint8)
    codes = np.frombuffer(content[:count], np.uint8)
    if len(codes) < count or not codes.any():
        raise DamagedError("rans: the labels have no histogram")
    return rans.decode(content[count:], np.zeros(rows, np.uint8), frequencies_of(codes[None]))


def _models(labels: np.ndarray, frequencies: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray | slice]:
    """The class of every symbol, (N,), and which symbols are coded: those of classes with more than one."""
    single = (frequencies == TOTAL).any(axis=1)
    models = np.repeat(labels, rows)
    return models, ~single[models] if single.any() else slice(None)


def cost(content: bytes, symbols: np.ndarray, layout: Layout) -> np.ndarray:
    """Bits that a perfect coder needs for each symbol, (N,): -log2 p under the tables in what `encode` wrote, and the row's label
    with its first symbol."""
    classes, _ = read_classes(content, layout)
    bits = -np.log2(np.maximum(frequencies_of(classes.codes), 1) / TOTAL)
    found = bits[np.repeat(classes.labels, layout.rows), symbols]
    counts = np.bincount(classes.labels)
    found[np.cumsum(layout.rows) - layout.rows] += -np.log2(counts / counts.sum())[classes.labels]
    return found
