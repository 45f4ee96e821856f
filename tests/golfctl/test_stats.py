"""Statistics against scipy, published figures and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as reference

from golfctl import stats


def test_one_sample_agrees_with_scipy() -> None:
    """t, p and the interval are those of scipy's one-sided test."""
    values = [1.2146, 1.2120, 1.2174, 1.2166]
    ours = stats.one_sample(values, 1.2244)
    theirs = reference.ttest_1samp(values, 1.2244, alternative="less")
    assert ours.t == pytest.approx(theirs.statistic)
    assert ours.p == pytest.approx(theirs.pvalue)
    low, high = reference.ttest_1samp(values, 1.2244).confidence_interval(0.95)
    assert (ours.low, ours.high) == pytest.approx((low, high))


def test_welch_agrees_with_scipy() -> None:
    """Unequal variances and sizes, one-sided."""
    a, b = [1.11, 1.13, 1.12], [1.15, 1.16, 1.14, 1.19]
    theirs = reference.ttest_ind(a, b, equal_var=False, alternative="less")
    ours = stats.welch(a, b)
    assert (ours.t, ours.p, ours.df) == pytest.approx((theirs.statistic, theirs.pvalue, theirs.df))


def test_welch_margin_shifts_the_bound() -> None:
    """A gain that equals the margin has p = 0.5."""
    assert stats.welch([1.0, 1.2], [1.1, 1.3], margin=0.1).p == pytest.approx(0.5)


def test_prediction_holds_its_level_under_the_null() -> None:
    """One new run against three: 10 % of runs of the same distribution pass at alpha 0.10."""
    draws = np.random.default_rng(1).normal(size=(4000, 4))
    hits = sum(stats.one_against_sample(row[0], list(row[1:])).p < 0.10 for row in draws)
    assert hits / 4000 == pytest.approx(0.10, abs=0.015)


@pytest.mark.parametrize(("n", "expected"), [(3, 0.23), (5, 0.73), (8, 0.98)])
def test_power_reproduces_the_published_figures(n: int, expected: float) -> None:
    """sd .001, true gain .007, bar .005, alpha .01: the field's figures."""
    assert stats.power(-0.002, 0.001, n, 0.01) == pytest.approx(expected, abs=0.006)


@pytest.mark.parametrize(("n", "sd", "m"), [(3, 1.0, 3), (3, 0.5, 4), (6, 2.0, 2)])
def test_power_of_welch_agrees_with_simulation(n: int, sd: float, m: int) -> None:
    """Few seeds, unlike noise: where an approximation by 2n - 2 degrees of freedom is nine points off."""
    rng = np.random.default_rng(5)
    x, y = rng.normal(-2, sd, (40_000, n)), rng.normal(size=(40_000, m))
    hits = reference.ttest_ind(x, y, axis=1, equal_var=False, alternative="less").pvalue < 0.01
    assert stats.welch_power(-2, sd, n, 1.0, m, 0.01) == pytest.approx(hits.mean(), abs=0.01)


def test_detectable_gain_has_the_wanted_power() -> None:
    """Not less, and not more."""
    gain = stats.detectable(lambda effect: stats.power(effect, 0.001, 4, 0.01), 0.0005)
    assert stats.power(-gain, 0.001, 4, 0.01) == pytest.approx(0.8)


def test_holm_agrees_with_the_step_down_rule() -> None:
    """Smallest times 3, next times 2, last times 1, never falling: a tie with a smaller p keeps its bound."""
    assert stats.holm([0.02, 0.004, 0.03]) == pytest.approx([0.04, 0.012, 0.04])
    assert stats.holm([0.5, 0.6]) == [1.0, 1.0]
    assert stats.holm([]) == []


def test_seeds_needed_is_the_smallest_sufficient_number() -> None:
    """One seed fewer has less than the wanted power."""
    needed = stats.seeds_needed(-0.0003, 0.0006, 0.01)
    assert needed == 43
    assert stats.power(-0.0003, 0.0006, needed - 1, 0.01) < 0.8


def test_seeds_needed_refuses_the_wrong_direction() -> None:
    """An effect that points the wrong way is settled by no number of seeds; a tiny one by none up to the limit."""
    assert stats.seeds_needed(0.001, 0.001, 0.01) is None
    assert stats.seeds_needed(-1e-6, 0.001, 0.01) is None


def test_identical_values_decide_by_sign_alone() -> None:
    """With sd 0 there is no division by zero and no false certainty at the bound itself."""
    assert stats.one_sample([1.0, 1.0, 1.0], 1.1).p == 0.0
    assert stats.one_sample([1.0, 1.0, 1.0], 1.0).p == 0.5
    assert stats.one_sample([1.0, 1.0, 1.0], 0.9).p == 1.0


@pytest.mark.parametrize("values", [[], [math.nan], [1.0, math.inf]])
def test_summarise_refuses_what_is_no_sample(values: list[float]) -> None:
    """A nan or an infinity is never averaged."""
    with pytest.raises(ValueError, match="no values|not finite"):
        stats.summarise(values)


def test_margin_has_three_readings() -> None:
    """0.005 nats: 0.00721 bpb per byte, 0.00296 per sp1024 token, 0.005 as bpb."""
    readings = stats.margin_readings(0.005, 2.43592)
    assert readings["nats per byte"] == pytest.approx(0.00721, abs=5e-6)
    assert readings["nats per token"] == pytest.approx(0.00296, abs=5e-6)
    assert readings["bpb"] == 0.005
    assert "nats per token" not in stats.margin_readings(0.005, None)
