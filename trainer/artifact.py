"""The artifact: a trained model as one file that anyone can check before trusting. No pickle, no code.

    offset  bytes  content (little endian)
         0      8  magic "GOLFART\\n"
         8      4  version, 1
        12      8  length of the compressed body
        20      8  length of the body once decompressed
        28     32  sha256 of everything else: bytes 0-27, then the compressed body
        60         the body, one zstd frame at level 22, up to the end of the file

The body is a 4-byte length, that many bytes of JSON, and the payload. The JSON object holds `config` (every setting that shapes
the model or its score), `vocab_size`, `meta` and `tensors`: a table of {name, shape, scheme, offset, bytes} whose entries
fill the payload in order without gap. Schemes: int8 and int6 (one int8 a value, row by row, then one float16 scale a row; see
trainer.quant.rowwise), fp16 and fp32. The same weights and settings give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zstandard
from torch import Tensor

from trainer.config import Config, SettingsError, from_values
from trainer.contract import write_file
from trainer.model.gpt import GPT
from trainer.model.roles import EMBED, HEAD, MATRIX, TABLE, role
from trainer.quant.rowwise import LEVELS, dequantise, quantise

MAGIC = b"GOLFART\n"
VERSION = 1
LEVEL = 22
LARGEST_BODY = 1 << 30
"""Bytes a body may claim: 60 times what any artifact under the contest's cap needs, and still bearable if it is a lie."""
LARGEST_FILE = 1 << 29

_PREFIX = struct.Struct("<8sIQQ")
_HEADER = struct.Struct("<I")
_DIGEST = hashlib.sha256().digest_size
_BODY_AT = _PREFIX.size + _DIGEST

_LOCAL = {
    "DATA_PATH",
    "OUT_DIR",
    "TRAIN_LOG_EVERY",
    "VAL_LOSS_EVERY",
    "CPU_THREADS",
    "DEVICE",
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
    """How the bulk of a model is stored, as log lines call it, such as `int8+zstd22` or `int6+int8+zstd22`."""
    bits = {config.matrix_bits, config.embed_bits}
    if config.ngram_max_order or config.bigram_rows:
        bits.add(config.table_bits)
    return "+".join([*(f"int{b}" for b in sorted(bits)), f"zstd{LEVEL}"])


def scheme_of(name: str, config: Config) -> str:
    """How the parameter with this dotted name is stored: int8, int6 or fp16. Raises KeyError for a foreign name."""
    bits = {MATRIX: config.matrix_bits, EMBED: config.embed_bits, HEAD: config.embed_bits, TABLE: config.table_bits}
    width = bits.get(role(name))
    return f"int{width}" if width else "fp16"


def stored_bytes(shape: tuple[int, ...], scheme: str) -> int:
    """Bytes of a tensor before the entropy coder: fp16, fp32, or one a value and two a row for the scale."""
    values = math.prod(shape)
    return values + 2 * shape[0] if scheme.startswith("int") else {"fp16": 2, "fp32": 4}[scheme] * values


def write(path: Path | str, model: GPT, config: Config, vocab_size: int, meta: dict[str, Any]) -> int:
    """Quantise and write a model; the file appears complete or not at all. Returns its size in bytes.

    `meta` must be JSON. Raises ValueError if a weight is not finite, OSError if the file can't be written.
    """
    table, payload = [], bytearray()
    for name, parameter in model.named_parameters():
        scheme = scheme_of(name, config)
        try:
            content = _encode(parameter.detach(), scheme)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        shape = list(parameter.shape)
        entry = {"name": name, "shape": shape, "scheme": scheme, "offset": len(payload), "bytes": len(content)}
        table.append(entry)
        payload += content
    settings = {name: value for name, value in config.as_settings().items() if name not in _LOCAL}
    header = {"config": settings, "vocab_size": vocab_size, "meta": meta, "tensors": table}
    text = json.dumps(header, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    content = seal(_HEADER.pack(len(text)) + text + bytes(payload))
    write_file(Path(path), content)
    return len(content)


def seal(body: bytes) -> bytes:
    """A whole file around a body. One thread and a fixed level: the same body gives the same file."""
    packed = zstandard.ZstdCompressor(level=LEVEL).compress(body)
    prefix = _PREFIX.pack(MAGIC, VERSION, len(packed), len(body))
    return prefix + hashlib.sha256(prefix + packed).digest() + packed


def read(path: Path | str) -> Artifact:
    """Read and check a file. Raises ArtifactError on anything malformed, OSError if it can't be opened."""
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE:
            raise ArtifactError(f"{size} bytes; at most {LARGEST_FILE} are read")
        return _parse(_unseal(path.read_bytes()))
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from None


def load_model(path: Path | str, device: torch.device | str = "cpu") -> tuple[GPT, Artifact]:
    """The model a file holds, on a device, with the file's other contents. Raises as `read` does."""
    artifact = read(path)
    with torch.device("meta"):
        model = GPT(artifact.config, artifact.vocab_size)
    model.load_state_dict(artifact.state, strict=True, assign=True)
    return model.to(device), artifact


def _encode(weight: Tensor, scheme: str) -> bytes:
    if scheme.startswith("int"):
        q, scale = quantise(weight, int(scheme[3:]))
        return q.numpy().tobytes() + scale.numpy().astype("<f2").tobytes()
    values = weight.float().cpu().numpy().astype("<f2" if scheme == "fp16" else "<f4")
    if not np.isfinite(values).all():
        raise ValueError("weights are not finite, or too large for float16")
    return values.tobytes()


def _unseal(content: bytes) -> bytes:
    """The body of a file, its lengths and hash checked before anything is decompressed."""
    if len(content) < _BODY_AT:
        raise ArtifactError(f"{len(content)} bytes are too few for an artifact; at least {_BODY_AT} are needed")
    magic, version, packed_length, body_length = _PREFIX.unpack_from(content)
    if magic != MAGIC:
        raise ArtifactError(f"not an artifact: it begins with {magic!r}, not {MAGIC!r}")
    if version != VERSION:
        raise ArtifactError(f"version {version}; this trainer reads version {VERSION}")
    packed = content[_BODY_AT:]
    if len(packed) != packed_length:
        raise ArtifactError(
            f"the body has {len(packed)} bytes where {packed_length} are announced: cut off or overlong"
        )
    if body_length > LARGEST_BODY:
        raise ArtifactError(f"a body of {body_length} bytes is announced; at most {LARGEST_BODY} are read")
    if hashlib.sha256(content[: _PREFIX.size] + packed).digest() != content[_PREFIX.size : _BODY_AT]:
        raise ArtifactError("the sha256 does not match: the file is damaged")
    try:
        if zstandard.frame_content_size(packed) != body_length:
            raise ArtifactError("the zstd frame and the file announce different body lengths")
        # In one shot: the output is allocated once, at the size just checked, and the frame can't grow past it.
        body = zstandard.ZstdDecompressor().decompress(packed, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ArtifactError(f"the body is not one zstd frame ({error})") from None
    if len(body) != body_length:
        raise ArtifactError(f"the zstd frame gives {len(body)} bytes where {body_length} are announced")
    return body


def _parse(body: bytes) -> Artifact:
    """Header and tensors of a body."""
    if len(body) < _HEADER.size or _HEADER.unpack_from(body)[0] > len(body) - _HEADER.size:
        raise ArtifactError("the header is longer than the body")
    end = _HEADER.size + _HEADER.unpack_from(body)[0]
    header = _header(body[_HEADER.size : end])
    config, vocab_size, table = _settings(header), header["vocab_size"], header["tensors"]
    expected = _shapes(config, vocab_size, len(table))
    payload, state, used = memoryview(body)[end:], {}, 0
    for entry in table:
        name, count = _check_entry(entry, expected, config, used)
        if name in state:
            raise ArtifactError(f"tensor {name} appears twice")
        if count > len(payload) - used:
            raise ArtifactError(f"tensor {name} ends behind the payload of {len(payload)} bytes")
        state[name] = _decode(name, payload[used : used + count], tuple(entry["shape"]), entry["scheme"])
        used += count
    if used != len(payload):
        raise ArtifactError(f"{len(payload) - used} bytes of payload belong to no tensor")
    if missing := sorted(expected.keys() - state.keys()):
        raise ArtifactError(f"tensor {missing[0]} is missing" + (f", and {len(missing) - 1} more" * (len(missing) > 1)))
    return Artifact(config, vocab_size, state, header["meta"])


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
    kinds = {"config": dict, "vocab_size": int, "meta": dict, "tensors": list}
    if not isinstance(header, dict) or header.keys() != kinds.keys():
        raise ArtifactError(f"the header must hold exactly {', '.join(kinds)}")
    for key, kind in kinds.items():
        if not isinstance(header[key], kind) or isinstance(header[key], bool):
            raise ArtifactError(f"{key} in the header is not of type {kind.__name__}")
    if not 2 <= header["vocab_size"] <= 1 << 16:
        raise ArtifactError(f"vocab_size {header['vocab_size']}: allowed are 2 to {1 << 16}")
    return header


def _settings(header: dict[str, Any]) -> Config:
    if local := sorted(_LOCAL & header["config"].keys()):
        raise ArtifactError(f"setting {local[0]} says where a run works and can't come from a file")
    try:
        return from_values(header["config"])
    except SettingsError as error:
        raise ArtifactError(f"settings: {'; '.join(str(error).splitlines())}") from None


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


def _check_entry(entry: Any, expected: dict[str, torch.Size], config: Config, offset: int) -> tuple[str, int]:
    """Name and byte count of one line of the tensor table, checked against the model the settings describe."""
    if not isinstance(entry, dict) or entry.keys() != {"name", "shape", "scheme", "offset", "bytes"}:
        raise ArtifactError("a tensor entry must hold exactly name, shape, scheme, offset, bytes")
    name, shape, scheme = entry["name"], entry["shape"], entry["scheme"]
    if not isinstance(name, str) or name not in expected:
        raise ArtifactError(f"tensor {str(name)[:80]!r} does not belong to this model")
    # A list of ints, and nothing that compares equal to one (true == 1, 2.0 == 2).
    if type(shape) is not list or any(type(n) is not int for n in shape) or shape != list(expected[name]):
        raise ArtifactError(f"tensor {name} has shape {str(shape)[:80]}, the model needs {list(expected[name])}")
    values = math.prod(shape)
    matrix = len(shape) == 2
    lengths = {"fp16": 2 * values, "fp32": 4 * values}
    if matrix:
        lengths |= {f"int{bits}": values + 2 * shape[0] for bits in LEVELS}
    if not isinstance(scheme, str) or scheme not in lengths:
        raise ArtifactError(f"tensor {name} has scheme {str(scheme)[:80]!r}; allowed are {', '.join(sorted(lengths))}")
    if type(entry["bytes"]) is not int or entry["bytes"] != lengths[scheme]:
        raise ArtifactError(f"tensor {name} takes {str(entry['bytes'])[:80]} bytes, {scheme} needs {lengths[scheme]}")
    if type(entry["offset"]) is not int or entry["offset"] != offset:
        raise ArtifactError(f"tensor {name} begins at {str(entry['offset'])[:80]}, the one before ends at {offset}")
    return name, lengths[scheme]


def _decode(name: str, content: memoryview, shape: tuple[int, ...], scheme: str) -> Tensor:
    if not scheme.startswith("int"):
        values = np.frombuffer(content, "<f2" if scheme == "fp16" else "<f4").astype(np.float32)
        if not np.isfinite(values).all():
            raise ArtifactError(f"tensor {name} holds values that are not finite")
        return torch.from_numpy(values).view(shape)
    rows, columns = shape
    q = np.frombuffer(content[: rows * columns], np.int8).reshape(shape)
    scale = np.frombuffer(content[rows * columns :], "<f2").astype(np.float16)
    levels = LEVELS[int(scheme[3:])]
    if q.size and (q.max() > levels or q.min() < -levels):
        raise ArtifactError(f"tensor {name} holds values beyond {levels}, the limit of {scheme}")
    if not np.isfinite(scale).all() or (scale <= 0).any():
        raise ArtifactError(f"tensor {name} holds scales that are not finite and positive")
    return dequantise(torch.from_numpy(q.copy()), torch.from_numpy(scale))
