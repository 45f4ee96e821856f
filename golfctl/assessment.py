"""What a handful of scores shows against a number or other scores: the test, the margin in every reading, and its power. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from golfctl import stats

BYTES_PER_TOKEN = {"sp1024": 2.43592, "sp4096": 3.31966, "sp8192": 3.72661, "caseops": 3.15715, "bytes": 1.0}
"""Bytes of the field's validation text over its tokens, by tokenizer: what a margin in nats per token comes to."""

TARGET_POWER = 0.8


@dataclass(frozen=True)
class Reading:
    """The margin under one reading, in bpb, and what the test says of a gain beyond it.

    answer: PASS (p < alpha), FAIL (short of it beyond the noise) or INCONCLUSIVE. power: the chance that as many seeds show the
    measured gain, were it the true one. seeds: so many (on each side, for Welch's) have TARGET_POWER for it; None: no number has.
    """

    name: str
    margin: float
    t: float
    p: float
    answer: str
    power: float
    seeds: int | None


@dataclass(frozen=True)
class Assessment:
    """gain: the test without a margin. detectable: the true gain beyond a margin that is shown with TARGET_POWER, in bpb."""

    alpha: float
    own: stats.Sample
    other: stats.Sample | None
    baseline: float
    gain: stats.Comparison
    readings: tuple[Reading, ...]
    detectable: float


def assess(
    values: Sequence[float],
    baseline: float | Sequence[float],
    margin_nats: float = 0.005,
    bytes_per_token: float | None = None,
    alpha: float = 0.01,
    paired: bool = False,
) -> Assessment:
    """values against a number (one-sample t) or scores (Welch t; one value: prediction t; paired: one-sample t of differences).

    The readings are those of `stats.margin_readings`, smallest margin first. Raises ValueError where no test is possible: too few
    values, no noise at all, or pairs that do not match.
    """
    others = None if isinstance(baseline, int | float) else list(baseline)
    bare = _test(values, baseline, 0.0, alpha, paired)
    if bare.se == 0:
        raise ValueError("the values do not differ: without noise there is no test; does the code read the seed?")
    readings = {"any gain": 0.0} | dict(
        sorted(stats.margin_readings(margin_nats, bytes_per_token).items(), key=lambda item: item[1])
    )
    other = stats.summarise(others) if others is not None else None
    return Assessment(
        alpha=alpha,
        own=stats.summarise(values),
        other=other,
        baseline=other.mean if other is not None else float(baseline),  # type: ignore[arg-type]  # a number, as tested above
        gain=bare,
        readings=tuple(
            _reading(name, margin, _test(values, baseline, margin, alpha, paired), other, alpha)
            for name, margin in readings.items()
        ),
        detectable=stats.detectable(lambda effect: _power(bare, other, effect, alpha), bare.se, TARGET_POWER),
    )


def _test(
    values: Sequence[float], baseline: float | Sequence[float], margin: float, alpha: float, paired: bool
) -> stats.Comparison:
    confidence = 1 - alpha
    if isinstance(baseline, int | float):
        if paired:
            raise ValueError("pairs need scores on both sides")
        return stats.one_sample(values, baseline - margin, confidence)
    if paired:
        if len(values) != len(baseline):
            raise ValueError(f"{len(values)} and {len(baseline)} values make no pairs")
        differences = [own - other for own, other in zip(values, baseline, strict=True)]
        return replace(stats.one_sample(differences, -margin, confidence), test="paired t")
    if len(values) == 1:
        return stats.one_against_sample(values[0], baseline, margin, confidence)
    return stats.welch(values, baseline, margin, confidence)


def _reading(name: str, margin: float, test: stats.Comparison, other: stats.Sample | None, alpha: float) -> Reading:
    answer = "PASS" if test.p < alpha else "FAIL" if test.p_worse < alpha else "INCONCLUSIVE"
    if test.test in {"one-sample t", "paired t"}:
        seeds = stats.seeds_needed(test.effect, test.sd, alpha, TARGET_POWER)
    else:
        beside = other.sd if other and other.sd is not None else test.sd
        seeds = stats.seeds_needed_each(test.effect, test.sd, beside, alpha, TARGET_POWER)
    return Reading(name, margin, test.t, test.p, answer, _power(test, other, test.effect, alpha), seeds)


def _power(test: stats.Comparison, other: stats.Sample | None, effect: float, alpha: float) -> float:
    """The chance that the same test with the same noise shows a true effect."""
    if test.test == "Welch t" and other is not None and other.sd is not None:
        return stats.welch_power(effect, test.sd, test.n, other.sd, other.n, alpha)
    return stats.shown(effect, test.se, test.df, alpha)
