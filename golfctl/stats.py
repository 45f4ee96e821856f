"""Tests, intervals and power for a handful of seeds. Pure: numbers in, numbers out; scipy is imported at first use.

All tests are one-sided towards "smaller is better" (bits per byte). The sample standard deviation (n - 1) is used throughout.
docs/statistics.md holds the formulas.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

SEED_LIMIT = 10_000
"""Beyond this many seeds an effect is called too small to settle."""


@dataclass(frozen=True)
class Sample:
    """n values with their mean and sample sd (None for one value)."""

    n: int
    mean: float
    sd: float | None

    @property
    def sem(self) -> float:
        """Standard error of the mean. Raises ValueError for n < 2."""
        if self.sd is None:
            raise ValueError("one value has no standard error")
        return self.sd / math.sqrt(self.n)


@dataclass(frozen=True)
class Comparison:
    """A one-sided test of `mean < bound` (or mean difference < bound), with the matching two-sided interval.

    effect: mean minus bound (negative is better). p: probability of a t at least this small if the truth were at the bound.
    p_worse: the same for the other side. low, high: confidence interval of the mean (or difference) at `confidence`.
    """

    test: str
    n: int
    mean: float
    sd: float
    bound: float
    effect: float
    se: float
    df: float
    t: float
    p: float
    p_worse: float
    confidence: float
    low: float
    high: float


def summarise(values: Sequence[float]) -> Sample:
    """Mean and sample sd. Raises ValueError without values or with a value that is not finite."""
    if not values:
        raise ValueError("no values")
    if not all(map(math.isfinite, values)):
        raise ValueError("a value is not finite")
    n = len(values)
    mean = math.fsum(values) / n
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1)) if n > 1 else None
    return Sample(n, mean, sd)


def one_sample(values: Sequence[float], bound: float, confidence: float = 0.95) -> Comparison:
    """Student's t of H0 `mean >= bound` against `mean < bound`. Raises ValueError for fewer than two values."""
    sample = summarise(values)
    if sample.sd is None:
        raise ValueError("a t-test needs at least two values")
    return _compare(
        "one-sample t", sample.n, sample.mean, sample.sd, sample.mean, bound, sample.sem, sample.n - 1, confidence
    )


def welch(
    values: Sequence[float], others: Sequence[float], margin: float = 0.0, confidence: float = 0.95
) -> Comparison:
    """Welch's t of H0 `mean(values) - mean(others) >= -margin`; the interval is that of the difference.

    Degrees of freedom by Welch-Satterthwaite. Raises ValueError for fewer than two values on a side.
    """
    a, b = summarise(values), summarise(others)
    if a.sd is None or b.sd is None:
        raise ValueError("Welch's test needs at least two values on each side")
    va, vb = a.sem**2, b.sem**2
    spread = va**2 / (a.n - 1) + vb**2 / (b.n - 1)
    df = (va + vb) ** 2 / spread if spread else float(a.n + b.n - 2)
    return _compare("Welch t", a.n, a.mean, a.sd, a.mean - b.mean, -margin, math.sqrt(va + vb), df, confidence)


def one_against_sample(
    value: float, others: Sequence[float], margin: float = 0.0, confidence: float = 0.95
) -> Comparison:
    """One new value against a sample: is it below their mean by more than their noise explains?

    The prediction form of the t-test: se = sd * sqrt(1 + 1/n) with the sd of the others, df = n - 1; it assumes that the new
    run's noise is the others' noise. Raises ValueError for fewer than two others.
    """
    b = summarise(others)
    if b.sd is None:
        raise ValueError("the noise needs at least two reference values")
    se = b.sd * math.sqrt(1 + 1 / b.n)
    return _compare("prediction t", 1, value, b.sd, value - b.mean, -margin, se, b.n - 1, confidence)


def _compare(
    test: str, n: int, mean: float, sd: float, estimate: float, bound: float, se: float, df: float, confidence: float
) -> Comparison:
    from scipy.special import stdtr, stdtrit

    effect = estimate - bound
    if se == 0:  # identical values: the sign of the effect is all there is
        t = math.copysign(math.inf, effect) if effect else 0.0
        p, p_worse = (0.5, 0.5) if not effect else ((0.0, 1.0) if effect < 0 else (1.0, 0.0))
        half = 0.0
    else:
        t = effect / se
        p, p_worse = float(stdtr(df, t)), float(stdtr(df, -t))
        half = float(stdtrit(df, 0.5 + confidence / 2)) * se
    return Comparison(
        test, n, mean, sd, bound, effect, se, df, t, p, p_worse, confidence, estimate - half, estimate + half
    )


def power(effect: float, sd: float, n: int, alpha: float) -> float:
    """Probability that a one-sample one-sided t at `alpha` sees a true effect (mean - bound, negative is better).

    Raises ValueError for n < 2 or sd <= 0.
    """
    if n < 2 or sd <= 0:
        raise ValueError("power needs n >= 2 and sd > 0")
    return shown(effect, sd / math.sqrt(n), n - 1, alpha)


def shown(effect: float, se: float, df: float, alpha: float) -> float:
    """Probability that a one-sided t at `alpha` with this standard error and degrees of freedom shows a true effect.

    Noncentral t with noncentrality effect / se.
    """
    from scipy.special import nctdtr, stdtrit

    return float(nctdtr(df, effect / se, float(stdtrit(df, alpha))))


def welch_power(effect: float, sd: float, n: int, other_sd: float, m: int, alpha: float) -> float:
    """The same of Welch's test with n values against m. Raises ValueError for n or m < 2, or without noise on either side.

    Exact: once it is known which share of all squares (each in units of its variance; a beta variable) lies on the own side, the
    degrees of freedom are fixed and t is a multiple of a noncentral t with n + m - 2; that is integrated over the share.
    """
    import numpy as np
    from scipy.special import betaincinv, nctdtr, roots_legendre, stdtrit

    if min(n, m) < 2 or max(sd, other_sd) <= 0:
        raise ValueError("power needs two values on each side and sd > 0")
    points, weights = roots_legendre(64)
    share = betaincinv((n - 1) / 2, (m - 1) / 2, (1 + points) / 2)
    own, other = sd**2 * share / (n * (n - 1)), other_sd**2 * (1 - share) / (m * (m - 1))
    df = (own + other) ** 2 / (own**2 / (n - 1) + other**2 / (m - 1))
    se = math.sqrt(sd**2 / n + other_sd**2 / m)
    critical = stdtrit(df, alpha) * np.sqrt((own + other) * (n + m - 2)) / se
    return float(weights @ nctdtr(n + m - 2, effect / se, critical)) / 2


def detectable(power_of: Callable[[float], float], se: float, target: float = 0.8) -> float:
    """The smallest gain (a positive number; its effect is its negative) whose power reaches the target. se: where to begin."""
    from scipy.optimize import brentq

    most = se
    while power_of(-most) < target:
        most *= 2
    return float(brentq(lambda gain: power_of(-gain) - target, 0.0, most))


def seeds_needed(effect: float, sd: float, alpha: float, target: float = 0.8) -> int | None:
    """Smallest n at which `power` reaches the target; None if the effect has the wrong sign or SEED_LIMIT is not enough."""
    if effect >= 0:
        return None
    return 2 if sd == 0 else _smallest(lambda n: power(effect, sd, n, alpha) >= target)


def seeds_needed_each(effect: float, sd: float, other_sd: float, alpha: float, target: float = 0.8) -> int | None:
    """Seeds on each of two sides at which Welch's t at `alpha` sees a true difference `effect` (negative is better).

    sd, other_sd: of the two sides. None as in `seeds_needed`.
    """
    if effect >= 0:
        return None
    if sd == 0 and other_sd == 0:
        return 2
    return _smallest(lambda n: welch_power(effect, sd, n, other_sd, n, alpha) >= target)


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's adjusted p of each: below alpha exactly where the step-down test of them all together rejects at alpha."""
    adjusted, floor = [0.0] * len(ps), 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=lambda index: ps[index])):
        floor = max(floor, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = floor
    return adjusted


def _smallest(enough: Callable[[int], bool]) -> int | None:
    """Smallest n from 2 to SEED_LIMIT with `enough(n)`, which must be monotone."""
    low, high = 2, 2
    while not enough(high):
        low, high = high + 1, high * 2
        if high > SEED_LIMIT:
            return None
    while low < high:
        middle = (low + high) // 2
        if enough(middle):
            high = middle
        else:
            low = middle + 1
    return low


def margin_readings(nats: float, bytes_per_token: float | None) -> dict[str, float]:
    """A margin given in nats, in bpb, under each of the field's three readings.

    Per byte: nats / ln 2. Per token: nats / ln 2 / bytes_per_token (absent when unknown). As bpb: the number itself.
    """
    readings = {"nats per byte": nats / math.log(2), "bpb": nats}
    if bytes_per_token:
        readings["nats per token"] = nats / math.log(2) / bytes_per_token
    return readings
