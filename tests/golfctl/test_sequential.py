"""Boundaries for several looks at t statistics: against published limits, an independent computation, and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import ndtri, stdtr, stdtrit
from scipy.stats import t as student
from scipy.stats import ttest_ind

from golfctl import sequential

LARGE = range(2000, 10_001, 2000)


@pytest.mark.parametrize("m", [None, 10**7])
def test_large_samples_tend_to_the_published_pocock_constant(m: int | None) -> None:
    """Two-sided 0.05, five looks: 2.413; Welch's the same, against a base so large that its mean is known."""
    levels = sequential.nominal_alpha(0.025, 5, "pocock", LARGE, m)
    assert len(set(levels)) == 1
    assert -ndtri(levels[0]) == pytest.approx(2.413, abs=0.005)


def test_large_samples_tend_to_the_published_obrien_fleming_constant() -> None:
    """Two-sided 0.05, five looks: 2.040 at the last look, times sqrt(5 / k) at look k."""
    levels = sequential.nominal_alpha(0.025, 5, "obrien-fleming", LARGE)
    z = [-float(ndtri(level)) for level in levels]
    assert z[-1] == pytest.approx(2.040, abs=0.006)
    assert z == pytest.approx([z[-1] * math.sqrt(5 / k) for k in range(1, 6)])


def test_eight_looks_at_three_to_ten_seeds_agree_with_the_known_level() -> None:
    """A constant nominal 0.0021 restores 1 % for a one-sample t after every seed from 3 to 10."""
    assert sequential.nominal_alpha(0.01, 8, "pocock", range(3, 11))[0] == pytest.approx(0.0021, abs=5e-5)


def test_two_looks_one_seed_apart_agree_with_quadrature() -> None:
    """With sum S and squares Q of n values, u = S / sqrt(Q) and the next value over sqrt(Q) are independent: one integral."""
    n, alpha = 3, 0.01
    level = sequential.nominal_alpha(alpha, 2, "pocock", (n, n + 1))[0]
    first, second = stdtrit(n - 1, level), stdtrit(n, level)
    bound = second * math.sqrt(
        (n + 1) / (n + second * second)
    )  # what u at n + 1 has to be below: (u + w) / sqrt(1 + w * w)
    assert bound < -1

    def late(t: float) -> float:
        """P(the second look crosses | t at the first). w * sqrt(n) is a t with n degrees of freedom."""
        u = t * math.sqrt(n / (n - 1 + t * t))
        if u > 0 or u * u + 1 <= bound * bound:
            return 0.0
        root = -bound * math.sqrt(u * u + 1 - bound * bound)
        low, high = sorted(((u - root) / (bound * bound - 1), (u + root) / (bound * bound - 1)))
        return float(stdtr(n, high * math.sqrt(n)) - stdtr(n, low * math.sqrt(n)))

    tail, _ = quad(lambda t: late(t) * student.pdf(t, n - 1), first, 0, limit=400)
    assert level + tail == pytest.approx(alpha, abs=2e-4)


@pytest.mark.parametrize("m", [None, 3])
def test_total_error_is_alpha(m: int | None) -> None:
    """Plain samples, plain formulas, other random numbers: 1 % of 300,000 campaigns, within four standard errors."""
    sizes, campaigns = (3, 5, 8), 300_000
    level = sequential.nominal_alpha(0.01, 3, "pocock", sizes, m)[0]
    rng = np.random.default_rng(7)
    x, y = rng.normal(size=(campaigns, 8)), rng.normal(size=(campaigns, m or 2))
    hit = np.zeros(campaigns, bool)
    for n in sizes:
        a = x[:, :n].var(axis=1, ddof=1) / n
        if m is None:
            hit |= x[:, :n].mean(axis=1) / np.sqrt(a) < stdtrit(n - 1, level)
        else:
            b = y.var(axis=1, ddof=1) / m
            df = (a + b) ** 2 / (a**2 / (n - 1) + b**2 / (m - 1))
            hit |= stdtr(df, (x[:, :n].mean(axis=1) - y.mean(axis=1)) / np.sqrt(a + b)) < level
    assert hit.mean() == pytest.approx(0.01, abs=4 * math.sqrt(0.01 / campaigns))


@pytest.mark.parametrize("m", [None, 2, 3, 4, 5])
def test_one_look_keeps_all_of_alpha(m: int | None) -> None:
    """Nothing to share; Welch's test of three seeds against up to five accepts less than it says."""
    assert sequential.nominal_alpha(0.01, 1, "pocock", [3], m) == (0.01,)


@pytest.mark.parametrize("m", [6, 10, 30])
def test_one_look_against_many_base_seeds_gets_the_level_that_keeps_alpha(m: int) -> None:
    """Plain Welch of three against ten accepts 1.6 %; at this level scipy's accepts 1 %, within four standard errors."""
    (level,) = sequential.nominal_alpha(0.01, 1, "pocock", [3], m)
    assert level < 0.0097
    rng = np.random.default_rng(9)
    x, y = rng.normal(size=(100_000, 3)), rng.normal(size=(100_000, m))
    p = ttest_ind(x, y, axis=1, equal_var=False, alternative="less").pvalue
    assert (p < level).mean() == pytest.approx(0.01, abs=4 * math.sqrt(0.01 / 100_000))


@pytest.mark.parametrize(
    ("alpha", "sizes", "m"),
    [(0.01, (1, 2), None), (0.01, (3, 3), None), (0.01, (3,), None), (0.5, (3, 6), None), (0.01, (3, 6), 1)],
)
def test_impossible_designs_are_refused(alpha: float, sizes: tuple[int, ...], m: int | None) -> None:
    """One value has no noise, looks without new seeds are none, and half of all is no error rate."""
    with pytest.raises(ValueError, match="rising sizes|not within|sizes of the base"):
        sequential.nominal_alpha(alpha, 2, "pocock", sizes, m)
