"""What a codec sees: rows of symbols, one byte each, of one alphabet. Whole numbers are shifted, anything else cut into bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trainer.packing.rans import DamagedError
from trainer.quant.stored import Stream

LONGEST_ROW = 1 << 16
"""A longer row is cut, so that the memory a codec needs is bounded."""


@dataclass(frozen=True)
class Layout:
    """What is known of a block before its symbols are. rows: (R,) int64, the length of each row. width: bytes of a value."""

    rows: np.ndarray
    alphabet: int
    width: int

    @property
    def count(self) -> int:
        """How many symbols it has."""
        return int(self.rows.sum())


def shuffled(symbols: np.ndarray, width: int) -> np.ndarray:
    """Values of `width` bytes each, as all first bytes, then all second ones..."""
    return symbols.reshape(-1, width).T.ravel()


def unshuffled(symbols: np.ndarray, width: int) -> np.ndarray:
    """The way back."""
    return symbols.reshape(width, -1).T.ravel()


def narrow(stream: Stream) -> bool:
    """Whether the stream is whole numbers that a byte can tell apart."""
    return stream.low < stream.high <= stream.low + 255


def alphabet_of(stream: Stream) -> int:
    """Symbols the stream is written with: its whole numbers, or bytes."""
    return stream.high - stream.low + 1 if narrow(stream) else 256


def width_of(stream: Stream) -> int:
    """Symbols a value takes."""
    return 1 if narrow(stream) else np.dtype(stream.dtype).itemsize


def layout_of(streams: Sequence[Stream]) -> Layout:
    """How streams of one kind lie: row by row of their matrices, or where a value takes several bytes as one plane for each."""
    width = width_of(streams[0])
    values = [(math.prod(stream.shape), stream.shape) for stream in streams]
    if width == 1:
        cuts = [(shape[0] if len(shape) > 1 else 1, count) for count, shape in values if count]
    else:
        cuts = [(width, width * sum(count for count, _ in values))]
    return Layout(
        np.concatenate([np.empty(0, np.int64), *(_cut(*cut) for cut in cuts)]), alphabet_of(streams[0]), width
    )


def _cut(count: int, symbols: int) -> np.ndarray:
    """Lengths of `count` equal rows, none longer than LONGEST_ROW."""
    length = symbols // count
    pieces = [LONGEST_ROW] * (length // LONGEST_ROW) + [length % LONGEST_ROW] * bool(length % LONGEST_ROW)
    return np.tile(np.array(pieces, np.int64), count)


def symbols_of(streams: Sequence[Stream], arrays: Sequence[np.ndarray]) -> np.ndarray:
    """The arrays of streams of one kind as uint8 symbols, (N,). Raises ValueError for a whole number outside its range."""
    parts = [np.empty(0, np.uint8)]
    for stream, array in zip(streams, arrays, strict=True):
        assert array.shape == stream.shape, (array.shape, stream)
        assert array.dtype == np.dtype(stream.dtype), (array.dtype, stream)
        flat = np.ascontiguousarray(array).reshape(-1)
        if not narrow(stream):
            parts.append(flat.view(np.uint8))
            continue
        if flat.size and (flat.min() < stream.low or flat.max() > stream.high):
            raise ValueError(f"values beyond [{stream.low}, {stream.high}]")
        parts.append((flat.astype(np.int64) - stream.low).astype(np.uint8))
    return np.concatenate(parts)


def arrays_of(streams: Sequence[Stream], symbols: np.ndarray) -> list[np.ndarray]:
    """The way back. symbols: as many as the streams need. Raises DamagedError for a symbol outside the alphabet."""
    if symbols.size and symbols.max() >= alphabet_of(streams[0]):
        raise DamagedError("a value is outside its alphabet")
    found, used = [], 0
    for stream in streams:
        count = math.prod(stream.shape) * width_of(stream)
        part, used = symbols[used : used + count], used + count
        array = (
            part.astype(stream.dtype) + np.array(stream.low, stream.dtype)
            if narrow(stream)
            else part.view(stream.dtype)
        )
        found.append(array.reshape(stream.shape))
    return found
