"""Bytes on demand: the clip of the grids, k times a row's spread, at which a model packs to just under a number of bytes.

A larger k makes the steps coarser, so that symbols carry fewer bits: about one bit a weight for each doubling.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

TOLERANCE = 0.002
"""Share of the target that may stay unused."""
FINEST, COARSEST = 2.5, 128.0
"""k below which clipping costs more than finer steps win, and k at which nearly every symbol is 0."""
_MOST_TRIES = 24


@dataclass(frozen=True)
class Landing:
    """k, the bytes it gives, and how many k were tried. Bytes below the tolerance: the finest grid does not fill the target."""

    k: float
    size: int
    tries: int


def land(size_of: Callable[[float], int], target: int, start: float) -> Landing:
    """The k that fills `target` bytes best without going beyond. size_of: bytes for a k, falling with it.

    Interpolates between the nearest sizes on either side, in the logarithm of k. Raises ValueError if even the coarsest grid is
    too large, with the smallest size there is.
    """
    low, high = math.log(FINEST), math.log(COARSEST)
    over: tuple[float, int] | None = None  # log k and bytes of the coarsest grid that is too large
    under: tuple[float, int] | None = None  # the same of the finest that fits
    place, best = min(max(math.log(start), low), high), None
    for tried in range(1, _MOST_TRIES + 1):
        size = size_of(math.exp(place))
        if size <= target and (best is None or size > best[1]):
            best = place, size
        if target * (1 - TOLERANCE) < size <= target or (place == low and size <= target):
            break
        if size > target:
            if place == high:
                raise ValueError(
                    f"MODEL_BYTES_TARGET={target} is out of reach: the coarsest grid (k {COARSEST:g}) still takes {size} bytes"
                )
            over = (place, size) if over is None or place > over[0] else over
        else:
            under = (place, size) if under is None or place < under[0] else under
        place = _next(over, under, target, tried, low, high)
    assert best is not None, "the coarsest grid was tried or something fitted"
    return Landing(math.exp(best[0]), best[1], tried)


def _next(
    over: tuple[float, int] | None, under: tuple[float, int] | None, target: int, tried: int, low: float, high: float
) -> float:
    if over is None or under is None:
        known = over or under
        assert known is not None
        step = math.log(2) if over is not None else -math.log(2)
        return min(max(known[0] + step * max(1, tried - 1), low), high)
    share = (over[1] - target * (1 - TOLERANCE / 2)) / max(over[1] - under[1], 1)
    if tried % 4 == 0:  # a curve that is bent would be approached from one side alone
        share = 0.5
    return over[0] + (under[0] - over[0]) * min(max(share, 0.02), 0.98)
