"""Witten-Bell interpolated byte n-gram models, as arrays: what counting alone reaches on the same bytes.

p_k(c | h) = (count(h, c) + D(h) * p_{k-1}(c | h')) / (count(h) + D(h)),  D(h) = number of different bytes seen after
h, h the last k bytes and h' the last k - 1; an unseen h falls through to p_{k-1}; p_{-1} = 1/256. (Witten and Bell
1991; the interpolated form of Chen and Goodman 1998.) "Order k" means k bytes of context.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

HIGHEST = 6
"""Bytes of context that fit, with the predicted byte, into 63 bits."""


@dataclass(frozen=True)
class _Level:
    """Counts of one order. Contexts and (context, byte) pairs are sorted int64 keys."""

    contexts: np.ndarray
    totals: np.ndarray
    kinds: np.ndarray
    pairs: np.ndarray
    counts: np.ndarray


class WittenBell:
    """Counts of a training text for the orders 0 to `order`."""

    def __init__(self, text: bytes, order: int) -> None:
        """Raises ValueError for an order outside 0..6 or an empty text."""
        if not 0 <= order <= HIGHEST or not text:
            raise ValueError(
                f"order={order} with {len(text)} bytes: allowed are orders 0 to {HIGHEST} and at least 1 byte"
            )
        self.order = order
        symbols = np.frombuffer(text, dtype=np.uint8).astype(np.int64)
        self._levels = [_count(keys, symbols) for keys in _contexts(text, order)]

    def probabilities(self, text: bytes) -> np.ndarray:
        """Probability of every byte of `text` under each order, float64 (order + 1, N).

        Before the text stand zero bytes, the separator of documents, as they do in training.
        """
        return self._probabilities(_contexts(text, self.order), np.frombuffer(text, dtype=np.uint8).astype(np.int64))

    def distribution(self, context: bytes) -> np.ndarray:
        """Probability of each of the 256 bytes after `context` under each order, float64 (order + 1, 256)."""
        padded = bytes(self.order) + context
        symbols = np.arange(256, dtype=np.int64)
        keys = [int.from_bytes(padded[len(padded) - k :], "big") for k in range(self.order + 1)]
        return self._probabilities([np.full(256, key, dtype=np.int64) for key in keys], symbols)

    def _probabilities(self, contexts: Sequence[np.ndarray], symbols: np.ndarray) -> np.ndarray:
        lower = np.full(len(symbols), 1 / 256)
        rows = []
        for level, keys in zip(self._levels, contexts, strict=True):
            total, kinds = _look_up(level.contexts, [level.totals, level.kinds], keys)
            (count,) = _look_up(level.pairs, [level.counts], keys << 8 | symbols)
            seen = total > 0
            lower = np.where(seen, (count + kinds * lower) / np.where(seen, total + kinds, 1), lower)
            rows.append(lower)
        return np.stack(rows)


def _contexts(text: bytes, order: int) -> list[np.ndarray]:
    """For k = 0..order the k bytes before each byte of the text as one int64 (N,), the nearest byte lowest."""
    padded = np.frombuffer(bytes(order) + text, dtype=np.uint8).astype(np.int64)
    keys = [np.zeros(len(text), dtype=np.int64)]
    for k in range(1, order + 1):
        keys.append(keys[-1] | padded[order - k : order - k + len(text)] << 8 * (k - 1))
    return keys


def _count(keys: np.ndarray, symbols: np.ndarray) -> _Level:
    pairs, counts = np.unique(keys << 8 | symbols, return_counts=True)
    contexts, first, kinds = np.unique(pairs >> 8, return_index=True, return_counts=True)
    return _Level(contexts, np.add.reduceat(counts, first), kinds, pairs, counts)


def _look_up(sorted_keys: np.ndarray, columns: list[np.ndarray], wanted: np.ndarray) -> list[np.ndarray]:
    """The columns' values at each wanted key, 0 where the key is absent."""
    at = np.searchsorted(sorted_keys, wanted)
    at[at == len(sorted_keys)] = 0
    hit = sorted_keys[at] == wanted
    return [np.where(hit, column[at], 0) for column in columns]
