"""What the range coder knows of its symbols: a few histograms, and which of them each row follows.

Weights of one row look like draws from one distribution, whose width against the row's scale differs from row to row (and some
rows of a table were never trained). So rows are sorted into at most MOST classes by what they cost (k-means with code lengths for
distances); how many classes pay is counted, their tables and the rows' labels included.

All sums are of whole numbers, exact in float64 in any order: the same weights give the same bytes on every number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from trainer.packing.rans import TOTAL, overhead

MOST = 32
"""Classes at most."""
SAMPLED_ROWS = 8192
"""Rows that the classes are made from; then every row is sorted in."""
_PASSES = 8
_TABLE_ENTRY_BYTES = 0.6
"""What a symbol that occurs costs in a class's table, measured; only chooses the number of classes."""
_BITS = 256.0
"""Costs are whole numbers of 1/256 bit."""


@dataclass(frozen=True)
class Classes:
    """labels: (R,) uint8, the class of each row. codes: (K, A) uint8, each class's histogram (see `frequencies_of`)."""

    labels: np.ndarray
    codes: np.ndarray


def classify(symbols: np.ndarray, rows: np.ndarray, alphabet: int) -> Classes:
    """Classes for uint8 symbols (N,) that lie row after row; rows: (R,), the length of each. N must not be 0."""
    picked = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), SAMPLED_ROWS)).astype(np.int64))
    sample = _gather(symbols, rows, alphabet, picked)
    share = len(rows) / len(picked)
    best = _best(sample, share)
    if len(picked) == len(rows):
        labels = best
    else:
        costs = _costs(_sums(sample, best), np.bincount(best))
        labels = np.concatenate(
            [(part @ costs[0] + costs[1]).argmin(1) for part in _histograms(symbols, rows, alphabet)]
        )
    labels = np.unique(labels, return_inverse=True)[1].astype(np.uint8)  # no class without rows
    counts = np.zeros((labels.max() + 1, alphabet), np.int64)
    done = 0
    for part in _histograms(symbols, rows, alphabet):
        np.add.at(counts, labels[done : done + len(part)], part.astype(np.int64))
        done += len(part)
    return Classes(labels, np.stack([codes_of(row) for row in counts]))


# --- histograms as bytes -------------------------------------------------------------------------------------------------
def codes_of(counts: np.ndarray) -> np.ndarray:
    """A histogram (A,) as one byte a symbol: 0 for none, else its share with three bits behind the leading one."""
    share = np.maximum(counts * TOTAL // max(int(counts.sum()), 1), 1)
    exponent = np.maximum(np.floor(np.log2(share)).astype(np.int64) - 3, 0)
    half = np.where(exponent > 0, 1 << np.maximum(exponent - 1, 0), 0)
    mantissa = (share + half) >> exponent  # 16 at most, and then it reads as 8 of the next exponent
    return np.where(counts > 0, np.where(share < 8, share, 8 * exponent + mantissa), 0).astype(np.uint8)


def frequencies_of(codes: np.ndarray) -> np.ndarray:
    """(K, A) bytes -> (K, A) int64 with sum TOTAL in every row. Raises ValueError for a row of zeros."""
    code = codes.astype(np.int64)
    values = np.where(code < 8, code, (8 + code % 8) << np.maximum(code // 8 - 1, 0))
    sums = values.sum(axis=1, keepdims=True)
    if not sums.all():
        raise ValueError("a histogram without symbols")
    found = np.where(values > 0, np.maximum(values * TOTAL // sums, 1), 0)
    largest = found.argmax(axis=1)
    found[np.arange(len(found)), largest] += TOTAL - found.sum(axis=1)
    assert found.min() >= 0
    return found


# --- sorting rows into classes -------------------------------------------------------------------------------------------
def _best(rows: np.ndarray, share: float) -> np.ndarray:
    """Labels with as many classes as pay; the search ends when two steps in a row did not."""
    best, least, worse = np.zeros(len(rows), np.int64), np.inf, 0
    for count in (1, 2, 3, 4, 6, 8, 12, 16, 24, MOST):
        labels = _k_means(rows, min(count, len(rows)))
        size = _size(rows, labels, share)
        worse = 0 if size < least else worse + 1
        if size < least:
            best, least = labels, size
        if worse == 2 or count >= len(rows):
            break
    return best


def _k_means(rows: np.ndarray, count: int) -> np.ndarray:
    """Labels of histograms (R, A) in at most `count` classes."""
    costs, _ = _costs(rows.sum(axis=0, keepdims=True), np.ones(1))
    surprise = (rows @ costs).ravel() / np.maximum(rows.sum(axis=1), 1)
    labels = np.empty(len(rows), np.int64)
    labels[surprise.argsort(kind="stable")] = np.arange(len(rows)) * count // len(rows)
    for _ in range(_PASSES if count > 1 else 0):
        costs, side = _costs(_sums(rows, labels), np.bincount(labels))
        before, labels = labels, np.unique((rows @ costs + side).argmin(axis=1), return_inverse=True)[1]
        if np.array_equal(before, labels):
            break
    return labels


def _sums(rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(R, A) -> (K, A), whole numbers in float64."""
    return (labels == np.arange(labels.max() + 1)[:, None]).astype(np.float64) @ rows


def _costs(sums: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cost of each symbol under each class, (A, K), and of each class's label, (K,), in whole 1/256 bits."""
    smooth = sums * 64 + 1
    code = -np.log2(smooth / smooth.sum(axis=1, keepdims=True))
    return np.rint(code.T * _BITS), np.rint(-np.log2(sizes / sizes.sum()) * _BITS)


def _size(rows: np.ndarray, labels: np.ndarray, share: float) -> float:
    """Bytes that all rows will take with these classes; rows are one in `share` of them."""
    sums, sizes = _sums(rows, labels), np.bincount(labels).astype(float)
    tables = _TABLE_ENTRY_BYTES * np.count_nonzero(sums)
    side = overhead(int(len(rows) * share)) + 12 if len(sizes) > 1 else 0
    return share * (_entropy(sums) + _entropy(sizes[None])) / 8 + tables + side


def _entropy(counts: np.ndarray) -> float:
    """Bits of all draws behind histograms (K, A)."""
    total = counts.sum(axis=1, keepdims=True)
    return float(-(counts * np.log2(np.where(counts > 0, counts / np.maximum(total, 1), 1))).sum())


def _gather(symbols: np.ndarray, rows: np.ndarray, alphabet: int, picked: np.ndarray) -> np.ndarray:
    """Histograms of the picked rows, (len(picked), A) float64."""
    found, done = [], 0
    for part in _histograms(symbols, rows, alphabet):
        here = picked[(picked >= done) & (picked < done + len(part))] - done
        found.append(part[here])
        done += len(part)
    return np.concatenate(found)


def _histograms(symbols: np.ndarray, rows: np.ndarray, alphabet: int) -> Iterator[np.ndarray]:
    """Histograms of all rows in order, some thousand at a time: (?, A) float64."""
    ends = np.concatenate([[0], np.cumsum(rows)])
    step = max(1, min(4096, (1 << 22) // max(int(rows.max()), 1)))
    for first in range(0, len(rows), step):
        lengths = rows[first : first + step]
        part = symbols[ends[first] : ends[first + len(lengths)]]
        index = np.repeat(np.arange(len(lengths)) * alphabet, lengths) + part
        yield np.bincount(index, minlength=len(lengths) * alphabet).reshape(len(lengths), alphabet).astype(np.float64)
