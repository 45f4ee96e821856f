"""Artifacts spoilt in every way we can think of: the lab of the fuzz tests.

A spoilt file must be refused in one line, or be read with the very weights of the file it came from; quickly, in little memory,
and without a pickle.
"""

from __future__ import annotations

import json
import random
import resource
import struct
import sys
import time
from pathlib import Path
from typing import Any

import torch
import zstandard

from trainer import artifact
from trainer.artifact import ArtifactError

ODD = [
    0,
    1,
    -1,
    2**31,
    2**63,
    10**30,
    1.5,
    True,
    None,
    "",
    "rans",
    "zstd",
    "fp32",
    "int6",
    "ternary+awq+lqer4",
    [],
    {},
    [[]],
    "\0",
]
SECONDS = 5.0
MEMORY = 1 << 30

_watched = {"on": False, "seen": ""}


def _audit(event: str, _: object) -> None:
    if _watched["on"] and event.startswith(("pickle.", "marshal.load", "os.system", "subprocess.", "socket.connect")):
        _watched["seen"] = event


sys.addaudithook(_audit)


def spoil(rng: random.Random, samples: list[bytes]) -> bytes:
    """A mutation of one of the samples. All but the first three kinds have lengths and hash made right again."""
    content = rng.choice(samples)
    kind = rng.randrange(10)
    if kind == 0:
        return _flipped(rng, content, 0, len(content))
    if kind == 1:
        return content[: rng.randrange(len(content))] + bytes(rng.randrange(3))
    if kind == 2:
        other = rng.choice(samples)
        return content[: rng.randrange(len(content))] + other[rng.randrange(len(other)) :]
    header, sections = taken_apart(content)
    if kind == 3:
        return artifact.seal(_flipped(rng, header, 0, len(header)), sections)
    if kind == 4:
        return artifact.seal(header, _flipped(rng, sections, 0, len(sections)))
    if kind == 5:
        return artifact.seal(_edited(rng, header), sections)
    if kind == 6:
        return _lied(rng, content)
    starts = _starts(header)
    begin = rng.choice(starts[:-1])
    if kind == 7:  # heads and tables of codecs lie at the start of a section, behind its checksum
        return artifact.seal(header, _flipped(rng, sections, begin + 4, min(begin + 60, len(sections))))
    if kind == 8:
        end = starts[starts.index(begin) + 1]
        noise = rng.randbytes(end - begin - 4) if rng.randrange(2) else bytes(end - begin - 4)
        return artifact.seal(header, sections[: begin + 4] + noise + sections[end:])
    other = taken_apart(rng.choice(samples))[1]
    return artifact.seal(header, sections[:begin] + other[begin:])


def taken_apart(content: bytes) -> tuple[bytes, bytes]:
    """Text of the header, and the sections, of a valid file."""
    (length,) = struct.unpack_from("<I", content, 20)
    return zstandard.ZstdDecompressor().decompress(content[60 : 60 + length]), content[60 + length :]


def _flipped(rng: random.Random, content: bytes, low: int, high: int) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        changed[rng.randrange(low, max(high, low + 1))] ^= rng.randrange(1, 256)
    return bytes(changed)


def _edited(rng: random.Random, header: bytes) -> bytes:
    """One value somewhere in the header is another."""
    whole = json.loads(header)
    place: Any = whole
    while True:
        key = rng.choice(list(place) if isinstance(place, dict) else range(len(place)))
        if isinstance(place[key], dict | list) and place[key] and rng.randrange(10):
            place = place[key]
            continue
        near = [place[key] + 1, place[key] - 1, place[key] * 2] if type(place[key]) is int else []
        place[key] = rng.choice(ODD + 4 * near)
        return json.dumps(whole).encode()


def _lied(rng: random.Random, content: bytes) -> bytes:
    """Other lengths in front, and a hash that fits them."""
    prefix, body = bytearray(content[:28]), content[60:]
    at, size = rng.choice(((12, "<Q"), (20, "<I"), (24, "<I")))
    value = rng.choice([0, 1, 2**31, 2**32 - 1, struct.unpack_from(size, prefix, at)[0] + rng.choice((-1, 1, 7))])
    struct.pack_into(size, prefix, at, value % 2**32)
    return bytes(prefix) + artifact.hashlib.sha256(bytes(prefix) + body).digest() + body


def _starts(header: bytes) -> list[int]:
    found = [0]
    for entry in json.loads(header)["sections"]:
        found.append(found[-1] + entry["bytes"])
    return found


def trial(folder: Path, seed: int, samples: list[bytes], states: list[dict[str, torch.Tensor]]) -> str:
    """Read one spoilt file: "refused" or "equal". Fails with what went wrong."""
    rng = random.Random(seed)
    path = folder / "spoilt.golf"
    path.write_bytes(spoil(rng, samples))
    began, _watched["on"] = time.process_time(), True
    try:
        found = artifact.read(path)
    except ArtifactError as error:
        assert len(str(error).splitlines()) == 1, (seed, str(error))
        outcome = "refused"
    else:
        same = [state for state in states if state.keys() == found.state.keys()]
        equal = any(all(torch.equal(state[name], found.state[name]) for name in state) for state in same)
        assert equal, f"seed {seed}: other weights were read"
        outcome = "equal"
    finally:
        _watched["on"] = False
    assert not _watched["seen"], f"seed {seed}: {_watched['seen']}"
    assert time.process_time() - began < SECONDS, f"seed {seed}: too slow"
    return outcome


def resident() -> int:
    """The most memory this process ever held, in bytes (Linux counts KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
