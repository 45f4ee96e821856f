"""The contest's shard format: 256 int32 header words, then uint16 tokens, all little endian.

Word 0 is the magic number 20240520, word 1 the version 1, word 2 the number of tokens; the others are 0 (contest baseline, after
the nanoGPT speedrun).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trainer.contract import write_file
from trainer.data.errors import DataError

MAGIC = 20240520
VERSION = 1
HEADER_BYTES = 256 * 4
MOST_TOKENS = 2**31 - 1  # the count is an int32


def paths(folder: Path, part: str) -> list[Path]:
    """The shards of "train" or "val" in a folder, in order. A byte sidecar (fineweb_val_bytes_*.bin) is no shard of tokens."""
    return sorted(folder.glob(f"fineweb_{part}_[0-9]*.bin"))


def write(path: Path, tokens: np.ndarray) -> None:
    """Write a flat stream of tokens (0..65535) as one shard. Raises DataError if it does not fit the format."""
    tokens = np.asarray(tokens)
    if tokens.ndim != 1 or not 0 < tokens.size <= MOST_TOKENS:
        raise DataError(f"{path}: a shard holds 1 to {MOST_TOKENS} tokens in one dimension, not shape {tokens.shape}")
    if tokens.dtype != np.uint16 and (tokens.min() < 0 or tokens.max() > 65535):
        raise DataError(f"{path}: tokens must lie in 0..65535, found {tokens.min()}..{tokens.max()}")
    header = np.zeros(256, dtype="<i4")
    header[:3] = MAGIC, VERSION, tokens.size
    write_file(path, header.tobytes() + tokens.astype("<u2").tobytes())


def announced(head: bytes) -> int | None:
    """The number of tokens that the first HEADER_BYTES of a shard announce; None if they are not those of a shard."""
    magic, version, count = (int(word) for word in np.frombuffer(head[:12], dtype="<i4"))
    return max(count, 0) if (magic, version) == (MAGIC, VERSION) else None


def read(path: Path) -> np.ndarray:
    """The tokens of one shard as a read-only memory map, uint16 (N,).

    Raises DataError for a file that is missing, empty, cut off, too long, or not a shard of this version.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            header = np.frombuffer(file.read(HEADER_BYTES), dtype="<i4") if size >= HEADER_BYTES else None
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror})") from None
    if header is None:
        raise DataError(f"{path}: {size} bytes, but a shard begins with a header of {HEADER_BYTES} bytes")
    magic, version, count = (int(word) for word in header[:3])
    if (magic, version) != (MAGIC, VERSION):
        raise DataError(
            f"{path}: not a token shard (magic {magic} version {version}, allowed {MAGIC} version {VERSION})"
        )
    if count < 1:
        raise DataError(f"{path}: the header announces {count} tokens; at least 1 is needed")
    if size != HEADER_BYTES + 2 * count:
        raise DataError(
            f"{path}: {size} bytes, but {count} tokens need {HEADER_BYTES + 2 * count}: cut off or overwritten"
        )
    return np.asarray(np.memmap(path, dtype="<u2", mode="r", offset=HEADER_BYTES, shape=(count,)))


class Stream:
    """Several shards read as one flat uint16 array: `len`, `size`, `shape`, `dtype` and slices with step 1, never a copy of all.

    Eighty shards of the contest are 16 GB; each rank touches only the windows it trains on.
    """

    dtype = np.dtype(np.uint16)

    def __init__(self, parts: Sequence[np.ndarray]) -> None:
        self._parts = [part for part in parts if part.size]
        self._ends = np.cumsum([part.size for part in self._parts])
        self.size = int(self._ends[-1]) if self._parts else 0
        self.shape = (self.size,)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, key: slice) -> np.ndarray:
        if not isinstance(key, slice) or key.step not in (None, 1):
            raise TypeError("a token stream is read by slices with step 1")
        start, stop, _ = key.indices(self.size)
        found = []
        number = int(np.searchsorted(self._ends, start, side="right"))
        while start < stop:
            part, end = self._parts[number], int(self._ends[number])
            begin = end - part.size
            found.append(part[start - begin : min(stop, end) - begin])
            start, number = end, number + 1
        if len(found) == 1:
            return found[0]
        return np.concatenate(found) if found else np.empty(0, dtype=np.uint16)

    def blocks(self, size: int = 1 << 22) -> list[np.ndarray]:
        """The stream in pieces of at most `size` tokens, in order, as views."""
        return [part[at : at + size] for part in self._parts for at in range(0, part.size, size)]
