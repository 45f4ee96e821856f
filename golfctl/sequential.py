"""Levels for t-tests of a few seeds: at which level each of several looks may test, so that all together keep alpha.

Published boundaries (Pocock, O'Brien-Fleming) are made for z; used on t at n = 3..10 they accept several times alpha. Here the
joint distribution of the t statistics themselves is drawn: nested samples under the null, by their means and squares, a fixed
stream of DRAWS paths, both signs of each counted. docs/statistics.md says how exact that is. numpy and scipy are imported late.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from enum import StrEnum
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

from golfctl import stats

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

DRAWS = 1 << 20
"""Paths; each counts with both signs. The total level of 1 % is then met within 0.01 points."""

MIN_ALPHA, MAX_ALPHA = 0.0001, 0.15
"""Below, too few paths cross to tell where; above is no error rate that anybody declares."""

_CHUNK = 1 << 17
_SEED = 20261121


class Kind(StrEnum):
    """How alpha is spread. POCOCK: one level for all looks. OBRIEN_FLEMING: little at first, nearly all at the last."""

    POCOCK = "pocock"
    OBRIEN_FLEMING = "obrien-fleming"


def nominal_alpha(
    alpha: float, looks: int, kind: str, n_per_look: Sequence[int], m: int | Sequence[int] | None = None
) -> tuple[float, ...]:
    """One-sided nominal level of each look; testing p < level at every look accepts a true null with probability alpha in all.

    n_per_look: seeds in all at each look, rising, the first at least 2. m: None for a one-sample (or paired) t; for Welch's the
    base's seeds, one number if they stay the same (their noise is shared by all looks), or their number at each look. Both sides
    are taken to have one sd. One look has alpha itself, less where Welch's test does not keep it (see `welch_alpha`). Raises
    ValueError for sizes that do not fit, or an alpha outside MIN_ALPHA..MAX_ALPHA.
    """
    sizes = tuple(n_per_look)
    base = (m,) * looks if isinstance(m, int) else None if m is None else tuple(m)
    if not MIN_ALPHA <= alpha <= MAX_ALPHA:
        raise ValueError(f"alpha {alpha:g} is not within {MIN_ALPHA}..{MAX_ALPHA}")
    if len(sizes) != looks or looks < 1 or sizes[0] < 2 or any(a >= b for a, b in pairwise(sizes)):
        raise ValueError(f"{looks} looks need as many rising sizes from 2 on, not {list(sizes)}")
    if base is not None and (len(base) != looks or base[0] < 2 or any(a > b for a, b in pairwise(base))):
        raise ValueError(f"{looks} looks need as many sizes of the base from 2 on, not {list(base)}")
    if looks == 1:
        return (alpha if base is None else welch_alpha(alpha, sizes[0], base[0]),)
    return _levels(alpha, Kind(kind), sizes, base)


@lru_cache(maxsize=64)
def welch_alpha(alpha: float, n: int, m: int) -> float:
    """The level at which Welch's test of n values against m accepts a true null with probability alpha at most.

    One sd on both sides. The test is an approximation: with 3 values against 10 it accepts 1.6 % instead of 1 %. Where it accepts
    less, alpha stays.
    """
    from scipy.optimize import brentq

    def excess(log: float) -> float:
        return stats.welch_power(0.0, 1.0, n, 1.0, m, math.exp(log)) - alpha

    most = math.log(alpha)
    return alpha if excess(most) <= 0 else math.exp(float(brentq(excess, most - 30, most)))


@lru_cache(maxsize=64)
def _levels(alpha: float, kind: Kind, sizes: tuple[int, ...], base: tuple[int, ...] | None) -> tuple[float, ...]:
    """The levels that a share of alpha of all paths crosses at some look."""
    import numpy as np
    from scipy.special import ndtr, ndtri

    rng = np.random.Generator(np.random.PCG64(_SEED))
    weights = [1.0 if kind is Kind.POCOCK else math.sqrt(n / sizes[-1]) for n in sizes]
    pilot = _far(rng, -float(ndtri(3 * alpha)), weights, sizes, base)
    # What 2 alpha of the first paths go beyond lies well below the boundary; only what goes further is kept of all.
    low = float(np.sort(pilot.max(axis=1))[::-1][min(round(4 * alpha * _CHUNK), len(pilot) - 1)])
    rest = [_far(rng, low, weights, sizes, base) for _ in range(DRAWS // _CHUNK - 1)]
    far = np.concatenate([pilot[pilot.max(axis=1) > low], *rest])
    furthest = np.sort(far.max(axis=1))[::-1]

    def levels(share: float) -> tuple[float, ...]:
        constant = float(furthest[round(share * 2 * DRAWS)])
        return tuple(float(ndtr(-constant / weight)) for weight in weights)

    guess = levels(alpha)
    known = [
        level if base is None else stats.welch_power(0.0, 1.0, n, 1.0, base[look], level)
        for look, (n, level) in enumerate(zip(sizes, guess, strict=True))
    ]
    return levels(
        alpha + _excess(far > [-ndtri(level) * weight for level, weight in zip(guess, weights, strict=True)], known)
    )


def _excess(crossed: NDArray[np.bool_], known: Sequence[float]) -> float:
    """By how much these paths cross at some look more often than all possible ones.

    crossed: (paths that went far, looks); known: how often paths cross at each look, exactly. What is too much at the single
    looks tells, by regression, what is too much at any of them (control variates): the error of 2 * DRAWS paths is halved.
    """
    import numpy as np

    count = 2 * DRAWS
    each, some = crossed.sum(axis=0) / count, crossed.any(axis=1).sum() / count
    among = crossed.T.astype(float) @ crossed / count - np.outer(each, each)
    slopes = np.linalg.lstsq(among, each - some * each, rcond=1e-9)[0]
    return float(slopes @ (each - known))


def _far(
    rng: np.random.Generator, low: float, weights: Sequence[float], sizes: Sequence[int], base: Sequence[int] | None
) -> Array:
    """Weighted normal scores of p at each look, (paths, looks), of those of _CHUNK paths, both signs, that go beyond low once."""
    import numpy as np
    from scipy.special import ndtri, stdtr

    down = np.zeros((_CHUNK, len(sizes)))
    for look, (weight, (t, df)) in enumerate(zip(weights, _paths(rng, sizes, base), strict=True)):
        some = np.abs(t) > 1  # p of the others is above MAX_ALPHA: no boundary lies there
        down[some, look] = ndtri(stdtr(df[some], -np.abs(t[some]))) * weight * np.sign(t[some])  # positive where t < 0
    return np.concatenate([down[down.max(axis=1) > low], -down[down.min(axis=1) < -low]])


def _paths(rng: np.random.Generator, sizes: Sequence[int], base: Sequence[int] | None) -> Iterator[tuple[Array, Array]]:
    """t and its degrees of freedom at each look of _CHUNK paths under the null; one-sample, or Welch's against the base."""
    import numpy as np

    own = _nested(rng, sizes)
    if base is None:
        for n, (mean, variance) in zip(sizes, own, strict=True):
            yield mean / variance**0.5, np.full(_CHUNK, n - 1.0)
        return
    for n, m, (mean, a), (other, b) in zip(sizes, base, own, _nested(rng, base), strict=True):
        yield (mean - other) / (a + b) ** 0.5, (a + b) ** 2 / (a**2 / (n - 1) + b**2 / (m - 1))


def _nested(rng: np.random.Generator, sizes: Sequence[int]) -> Iterator[tuple[Array, Array]]:
    """Mean and squared standard error of _CHUNK growing standard normal samples: each look adds a block to the one before.

    A block of g values is drawn as its mean (normal) and its squares about it (chi-squared, g - 1): all that t needs.
    """
    import numpy as np

    mean, squares, n = np.zeros(_CHUNK), np.zeros(_CHUNK), 0
    for size in sizes:
        if g := size - n:
            block = rng.standard_normal(_CHUNK) / math.sqrt(g)
            squares = squares + (block - mean) ** 2 * (n * g / size)
            if g > 1:
                squares = squares + rng.chisquare(g - 1, _CHUNK)
            mean, n = (n * mean + g * block) / size, size
        yield mean, squares / ((size - 1) * size)
