"""The artifact: a trained model as one file that anyone can check before trusting. No pickle, no code.

    offset  bytes  content (little endian)
         0      8  magic "GOLFART\n"
         8      4  version, 2
        12      8  bytes of the body, all that follows from offset 60 on
        20      4  bytes of the header as it lies there, one zstd frame at level 22
        24      4  bytes of the header once decompressed
        28     32  sha256 of everything else: bytes 0-27, then the body
        60         the header, then the sections, one after the other

The header is a JSON object: `config` (every setting that shapes the model or its score), `vocab_size`, `meta`, `tensors` (the
name and scheme of each weight, in the model's order) and `sections` (codec, shuffled and bytes of each). What a section holds
follows from the shapes of the model and the schemes: see `trainer.packing.sections`. The same weights and settings give the same
bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
import stat
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainer.config import Config, SettingsError, from_values
from trainer.contract import write_file
from trainer.model.gpt import GPT
from trainer.model.roles import ATTENTION, EMBED, HEAD, MATRIX, MLP, TABLE, role
from trainer.packing import codecs
from trainer.packing.blocks import width_of
from trainer.packing.rans import DamagedError
from trainer.packing.sections import Kind, Section, kinds_of, pack, unpack
from trainer.packing.target import land
from trainer.quant.calibrated import told
from trainer.quant.clip import Clip
from trainer.quant.gptq import Inputs
from trainer.quant.grid import TERNARY
from trainer.quant.pipeline import quantised
from trainer.quant.qat import Rounded
from trainer.quant.stored import VALUES, Stored, Stream, restore, streams_of

MAGIC = b"GOLFART\n"
VERSION = 2
LARGEST_FILE = 1 << 29
LARGEST_HEADER = 1 << 24
LONGEST_COMPLAINT = 400
"""Characters of what is said about a file's settings."""
FREE_SYMBOLS, SYMBOLS_A_BYTE = 1 << 25, 64
"""Symbols that a file of any size may claim, and for each of its bytes: what is beyond is no trained model."""

_PREFIX = struct.Struct("<8sIQII")
_DIGEST = hashlib.sha256().digest_size
_BODY_AT = _PREFIX.size + _DIGEST

_ENTRY = {"codec": str, "shuffled": bool, "bytes": int}
_LOCAL = {
    "DATA_PATH",
    "OUT_DIR",
    "TRAIN_LOG_EVERY",
    "VAL_LOSS_EVERY",
    "CPU_THREADS",
    "DEVICE",
    "ATTENTION_BACKEND",
    "COMPILE_OPTIMIZER",
    "COMPILE",
    "REFERENCE_SCORES",
}
"""Settings that say where and how loudly a run works; leaving them out keeps artifacts of equal runs equal."""


class ArtifactError(ValueError):
    """A file is not an artifact this version reads. The message is one line and names the file."""


@dataclass(frozen=True)
class Artifact:
    """What a file holds: settings, alphabet size, weights by name (float32, CPU), and notes of the run that made it."""

    config: Config
    vocab_size: int
    state: dict[str, Tensor]
    meta: dict[str, Any]


def scheme_name(config: Config) -> str:
    """How the bulk of a model is stored, as log lines call it, such as `int8+zstd` or `int6+int8+auto`."""
    names = ["blocks.0.attention.query", "blocks.0.mlp.up", "embed"]
    if config.ngram_max_order or config.bigram_rows:
        names.append("ngrams.tables")
    return "+".join([*sorted({scheme_of(name, config) for name in names}), config.codec])


def scheme_of(name: str, config: Config) -> str:
    """How the parameter with this dotted name is stored (see trainer.quant.stored). Raises KeyError for a foreign name."""
    kind, leaf = role(name), name.rpartition(".")[2]
    bits = {EMBED: config.embed_bits, HEAD: config.embed_bits, TABLE: config.table_bits}.get(kind, 16)
    if kind == MATRIX:
        own = config.attn_bits if leaf in ATTENTION else config.mlp_bits if leaf in MLP else 0
        bits = own or config.matrix_bits
        if bits == 8 and config.int8_step > 1:
            return f"int8x{config.int8_step}"
    return {16: "fp16", 2: TERNARY}.get(bits, f"int{bits}")


def clip_of(name: str, config: Config) -> Clip:
    """How the rows of this parameter are clipped, if its scheme has rows. Raises KeyError for a foreign name."""
    kind, leaf = role(name), name.rpartition(".")[2]
    sigmas = {EMBED: config.embed_clip_sigmas, HEAD: config.embed_clip_sigmas, TABLE: config.table_clip_sigmas}.get(
        kind
    )
    if sigmas is None:
        own = config.attn_clip_sigmas if leaf in ATTENTION else config.mlp_clip_sigmas if leaf in MLP else 0.0
        sigmas = own or config.matrix_clip_sigmas
    return Clip(config.quant_clip, config.clip_quantile, sigmas)


def as_stored(model: GPT, config: Config) -> Rounded:
    """The model as it will compute once it was written and read, for training (QAT_START)."""
    names = [name for name, _ in model.named_parameters()]
    return Rounded(model, {n: scheme_of(n, config) for n in names}, {n: clip_of(n, config) for n in names})


def stored_bytes(shape: tuple[int, ...], scheme: str) -> int:
    """Bytes of a tensor before the entropy coder."""
    return sum(np.dtype(s.dtype).itemsize * math.prod(s.shape) for s in streams_of(scheme, shape).values())


def stored_weights(
    model: GPT, config: Config, inputs: Mapping[str, Inputs] | None = None, clip_k: float | None = None
) -> dict[str, Stored]:
    """Every parameter by name as the settings have it stored. inputs, clip_k: see `quantised`. Raises ValueError as it does."""
    names = [name for name, _ in model.named_parameters()]
    schemes, clips = {n: scheme_of(n, config) for n in names}, {n: clip_of(n, config) for n in names}
    return quantised(model.named_parameters(), schemes, clips, config, clip_k=clip_k, inputs=inputs)


def write(
    path: Path | str,
    model: GPT,
    config: Config,
    vocab_size: int,
    meta: dict[str, Any],
    inputs: Mapping[str, Inputs] | None = None,
    say: Callable[[str], None] = lambda line: None,
    *,
    fit: bool = True,
) -> int:
    """Quantise and write a model; the file appears complete, read back and compared, or not at all. Returns its size in bytes.

    inputs: what calibration saw (see `trainer.calibrate`), for GPTQ, AWQ and LQER. `meta` must be JSON. say hears how often they
    won, and how MODEL_BYTES_TARGET was met; fit=False leaves that target aside. Raises ValueError if a weight is not finite, the
    target out of reach or the codec not installed, OSError if the file can't be written.
    """
    settings = {name: value for name, value in config.as_settings().items() if name not in _LOCAL}
    header = {"config": settings, "vocab_size": vocab_size, "meta": meta}
    if config.model_bytes_target and fit:
        stored, content = _to_target(model, config, header, inputs, say)
    else:
        stored = stored_weights(model, config, inputs)
        content = _content(header, stored, pack(stored, config.codec))
    if inputs:
        say(told(stored, inputs))
    _verify(content, stored)
    write_file(Path(path), content)
    return len(content)


def _to_target(
    model: GPT,
    config: Config,
    header: dict[str, Any],
    inputs: Mapping[str, Inputs] | None,
    say: Callable[[str], None],
) -> tuple[dict[str, Stored], bytes]:
    """Stored weights and file content that fill MODEL_BYTES_TARGET. The first k tried decides the codecs of all."""
    began, target = time.perf_counter(), config.model_bytes_target
    sections: list[Section] | None = None
    best: tuple[dict[str, Stored], bytes] | None = None

    def size_of(k: float) -> int:
        nonlocal sections, best
        stored = stored_weights(model, config, inputs, clip_k=k)
        sections = pack(stored, config.codec, like=sections)
        content = _content(header, stored, sections)
        if len(content) <= target and (best is None or len(content) > len(best[1])):
            best = stored, content
        return len(content)

    landing = land(size_of, target, config.matrix_clip_sigmas)
    say(
        f"model_bytes_target:{target} model_bytes:{landing.size} clip_k:{landing.k:.4f} tries:{landing.tries} "
        f"target_time:{(time.perf_counter() - began) * 1e3:.0f}ms"
    )
    assert best is not None, landing
    return best


def _content(header: dict[str, Any], stored: Mapping[str, Stored], sections: Sequence[Section]) -> bytes:
    """A whole file."""
    tensors = [[name, item.scheme] for name, item in stored.items()]
    whole = header | {"tensors": tensors, "sections": [section.entry() for section in sections]}
    text = json.dumps(whole, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    return seal(text, b"".join(section.content for section in sections))


def seal(header: bytes, sections: bytes) -> bytes:
    """A file around the text of a header and its sections."""
    packed = codecs.pack("zstd", header, 1)
    prefix = _PREFIX.pack(MAGIC, VERSION, len(packed) + len(sections), len(packed), len(header))
    body = packed + sections
    return prefix + hashlib.sha256(prefix + body).digest() + body


def _verify(content: bytes, stored: Mapping[str, Stored]) -> None:
    """That reading gives back what was written, to the bit. It does, or the coder is at fault: better no file than that one."""
    back = parse(content).stored
    for name, item in stored.items():
        same = name in back and back[name].scheme == item.scheme
        if not (same and all(np.array_equal(array, back[name].streams[k]) for k, array in item.streams.items())):
            raise AssertionError(f"{name} is read back as something else")  # no assert: python -O would take it out


@dataclass(frozen=True)
class Parts:
    """A file taken apart, its sections decoded and not yet turned into weights. header_bytes: as they lie in the file."""

    config: Config
    vocab_size: int
    meta: dict[str, Any]
    stored: dict[str, Stored]
    sections: list[Section]
    header_bytes: int
    size: int


def read_parts(path: Path | str) -> Parts:
    """Read and check a file. Raises ArtifactError on anything malformed, OSError if it can't be opened."""
    path = Path(path)
    try:
        facts = path.stat()
        if not (stat.S_ISREG(facts.st_mode) or stat.S_ISDIR(facts.st_mode)):  # of a folder the system says it itself
            raise ArtifactError("a pipe or device; files alone have a size to check before they are read")
        if facts.st_size > LARGEST_FILE:
            raise ArtifactError(f"{facts.st_size} bytes; at most {LARGEST_FILE} are read")
        return parse(path.read_bytes())
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from None


def read(path: Path | str) -> Artifact:
    """The settings and weights of a file. Raises ArtifactError on anything malformed, OSError if it can't be opened."""
    parts = read_parts(path)
    try:
        state = {name: _weight(name, item) for name, item in parts.stored.items()}
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from None
    return Artifact(parts.config, parts.vocab_size, state, parts.meta)


def load_model(path: Path | str, device: torch.device | str = "cpu") -> tuple[GPT, Artifact]:
    """The model a file holds, on a device, with the file's other contents. Raises as `read` does."""
    artifact = read(path)
    with torch.device("meta"):
        model = GPT(artifact.config, artifact.vocab_size)
    model.load_state_dict(artifact.state, strict=True, assign=True)
    return model.to(device), artifact


def parse(content: bytes) -> Parts:
    """A file's parts, everything in it checked. Raises ArtifactError."""
    header, body = _unseal(content)
    config, vocab_size, tensors = _settings(header), header["vocab_size"], header["tensors"]
    streams = _streams(tensors, _shapes(config, vocab_size, len(tensors)))
    kinds = kinds_of({name: found for name, (_, _, found) in streams.items()})
    claimed = sum(math.prod(stream.shape) * width_of(stream) for kind in kinds for stream in kind.streams)
    if claimed > FREE_SYMBOLS + SYMBOLS_A_BYTE * len(content):
        raise ArtifactError(f"{claimed} symbols are claimed by a file of {len(content)} bytes")
    sections = _sections(header["sections"], kinds, body)
    arrays: dict[str, dict[str, np.ndarray]] = {name: {} for name in streams}
    for number, section in enumerate(sections):
        try:
            unpacked = unpack(section)
        except ValueError as error:
            raise ArtifactError(f"section {number} ({section.kind.role} {section.kind.stream}): {error}") from None
        for (name, kind), array in zip(section.kind.parts, unpacked, strict=True):
            arrays[name][kind] = array
    stored = {name: Stored(scheme, shape, arrays[name]) for name, (scheme, shape, _) in streams.items()}
    used = _PREFIX.unpack_from(content)[3]
    return Parts(config, vocab_size, header["meta"], stored, sections, used, len(content))


def _unseal(content: bytes) -> tuple[dict[str, Any], memoryview]:
    """Header and sections of a file, its lengths and hash checked before anything is decompressed."""
    if len(content) < _BODY_AT:
        raise ArtifactError(f"{len(content)} bytes are too few for an artifact; at least {_BODY_AT} are needed")
    magic, version, length, packed, header = _PREFIX.unpack_from(content)
    if magic != MAGIC:
        raise ArtifactError(f"not an artifact: it begins with {magic!r}, not {MAGIC!r}")
    if version != VERSION:
        raise ArtifactError(
            f"version {version}; this trainer reads version {VERSION}: score the file with the trainer that wrote it"
        )
    body = memoryview(content)[_BODY_AT:]
    if len(body) != length:
        raise ArtifactError(f"the body has {len(body)} bytes where {length} are announced: cut off or overlong")
    if hashlib.sha256(content[: _PREFIX.size] + body).digest() != content[_PREFIX.size : _BODY_AT]:
        raise ArtifactError("the sha256 does not match: the file is damaged")
    if packed > length or header > LARGEST_HEADER:
        raise ArtifactError(
            f"a header of {packed} bytes, {header} decompressed, is announced; at most {length} and {LARGEST_HEADER} are read"
        )
    try:
        text = codecs.unpack("zstd", bytes(body[:packed]), header, 1)
    except DamagedError as error:
        raise ArtifactError(f"the header: {error}") from None
    return _header(text), body[packed:]


def _header(text: bytes) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a key appears twice")
        return found

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is not a number")

    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=once, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"the header is not JSON ({error})") from None
    kinds = {"config": dict, "vocab_size": int, "meta": dict, "tensors": list, "sections": list}
    if not isinstance(header, dict) or header.keys() != kinds.keys():
        raise ArtifactError(f"the header must hold exactly {', '.join(kinds)}")
    for key, kind in kinds.items():
        if not isinstance(header[key], kind) or isinstance(header[key], bool):
            raise ArtifactError(f"{key} in the header is not of type {kind.__name__}")
    made_with = header["meta"].get("tokenizer_sha256", "")
    if type(made_with) is not str or not made_with.isprintable():  # compared and quoted by the score
        raise ArtifactError(f"tokenizer_sha256 in meta is no hash: {str(made_with)[:80]!r}")
    if not 2 <= header["vocab_size"] <= 1 << 16:
        raise ArtifactError(f"vocab_size {header['vocab_size']}: allowed are 2 to {1 << 16}")
    return header


def _settings(header: dict[str, Any]) -> Config:
    if local := sorted(_LOCAL & header["config"].keys()):
        raise ArtifactError(f"setting {local[0]} says where a run works and can't come from a file")
    try:
        return from_values(header["config"])
    except SettingsError as error:
        said = "; ".join(str(error).splitlines())[:LONGEST_COMPLAINT]  # may hold the file's own words
        raise ArtifactError(f"settings: {''.join(c if c.isprintable() else '?' for c in said)}") from None


def _shapes(config: Config, vocab_size: int, tensors: int) -> dict[str, torch.Size]:
    """Name to shape of every weight the settings call for, found without allocating any."""
    if config.num_layers > tensors:  # so a lie about layers can't keep us building
        raise ArtifactError(f"NUM_LAYERS={config.num_layers}, but there are {tensors} tensors")
    try:
        with torch.device("meta"):
            model = GPT(config, vocab_size)
    except (RuntimeError, TypeError, OverflowError, ValueError) as error:  # what torch says about absurd sizes
        raise ArtifactError(f"the settings describe an impossible model ({str(error).splitlines()[0]})") from None
    return {name: parameter.shape for name, parameter in model.named_parameters()}


def _streams(
    tensors: list[Any], shapes: dict[str, torch.Size]
) -> dict[str, tuple[str, tuple[int, ...], dict[str, Stream]]]:
    """Scheme, shape and streams of every weight: those of the model the settings describe, in its order."""
    found = {}
    for entry, name in zip(tensors, shapes, strict=False):
        if type(entry) is not list or len(entry) != 2 or not all(type(word) is str for word in entry):
            raise ArtifactError(f"tensors in the header must be pairs of name and scheme, not {str(entry)[:80]}")
        if entry[0] != name:
            raise ArtifactError(f"tensor {entry[0][:80]!r} stands where the model has {name}")
        try:
            found[name] = entry[1], tuple(shapes[name]), streams_of(entry[1], tuple(shapes[name]))
        except ValueError as error:
            raise ArtifactError(f"tensor {name}: {str(error)[:200]}") from None
    if len(tensors) != len(shapes):
        raise ArtifactError(f"{len(tensors)} tensors, the model has {len(shapes)}")
    return found


def _sections(entries: list[Any], kinds: list[Kind], body: memoryview) -> list[Section]:
    """The sections the header speaks of, cut out of the body."""
    if len(entries) != len(kinds):
        raise ArtifactError(f"{len(entries)} sections, the tensors fill {len(kinds)}")
    found, used = [], 0
    for entry, kind in zip(entries, kinds, strict=True):
        if type(entry) is not dict or {key: type(value) for key, value in entry.items()} != _ENTRY:
            raise ArtifactError("a section's entry must hold exactly codec (text), shuffled (true or false) and bytes")
        if not 0 <= entry["bytes"] <= len(body) - used:
            raise ArtifactError(f"a section of {str(entry['bytes'])[:80]} bytes, {len(body) - used} are left")
        content = bytes(body[used : used + entry["bytes"]])
        found.append(Section(kind, entry["codec"], entry["shuffled"], content))
        used += entry["bytes"]
    if used != len(body):
        raise ArtifactError(f"{len(body) - used} bytes belong to no section")
    return found


def _weight(name: str, stored: Stored) -> Tensor:
    """The weight a model computes with, every number in it finite."""
    for kind, array in stored.streams.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ArtifactError(f"tensor {name} holds {kind} that are not finite")
        if array.dtype.kind == "f" and kind != VALUES and (array <= 0).any():
            raise ArtifactError(f"tensor {name} holds {kind} that are not positive")
    weight = restore(stored)
    if not torch.isfinite(weight).all():
        raise ArtifactError(f"tensor {name} holds weights that are not finite")
    return weight
