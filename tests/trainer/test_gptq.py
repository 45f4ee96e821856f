"""GPTQ: what it must leave as it is, what it may never make worse, and inputs that are no use."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.trainer.calib import SCHEMES, hessian, inputs, matrix, nearest
from tests.trainer.tiny import settings
from trainer.config import SettingsError
from trainer.quant import gptq
from trainer.quant.calibrated import points_of, refined
from trainer.quant.gptq import Inputs, inverse_factor, rounded, weighted_error
from trainer.quant.grid import limits
from trainer.quant.stored import SYMBOLS, restore

DAMP = 0.01
GPTQ = settings(GPTQ=1)
ROWWISE = [scheme for scheme in SCHEMES if scheme != "ternary"]


def by_gptq(weight: Tensor, scheme: str, h: Tensor) -> Tensor:
    """GPTQ's symbols, whether or not they are better than the nearest."""
    return rounded(weight, points_of(nearest(scheme)(weight)), h, DAMP)


@pytest.mark.parametrize("scheme", ROWWISE)
@pytest.mark.parametrize("columns", [1, 5, 128, 300])
def test_gptq_with_inputs_that_do_not_correlate_is_round_to_nearest(scheme: str, columns: int) -> None:
    """H = I, or any diagonal: no rounding can be made up for by another column, so each takes the nearest symbol."""
    weight = matrix(7, columns)
    plain = torch.from_numpy(nearest(scheme)(weight).streams[SYMBOLS])
    assert torch.equal(by_gptq(weight, scheme, torch.eye(columns)), plain)
    assert torch.equal(by_gptq(weight, scheme, torch.diag(torch.rand(columns) + 0.1)), plain)


def test_gptq_equals_the_formula_column_by_column() -> None:
    """Blocks, layout and the way to the factor change nothing: the textbook loop over columns in float64 gives the same."""
    weight, h = matrix(6, 200), hessian(200, 150)
    stored = nearest("int4")(weight)
    unit = points_of(stored).unit.double()
    order = torch.argsort(h.diagonal(), descending=True)
    exact = h.double() + DAMP * h.double().diagonal().mean() * torch.eye(200)
    upper = torch.linalg.cholesky(torch.linalg.inv(exact[order][:, order]), upper=True)
    left, expected = weight.double()[:, order], torch.zeros(6, 200, dtype=torch.int8)
    for j in range(200):
        q = torch.round(left[:, j] / unit[:, order[j]]).clamp(-7, 7)
        error = (left[:, j] - q * unit[:, order[j]]) / upper[j, j]
        left[:, j:] -= error[:, None] * upper[j, j:]
        expected[:, order[j]] = q.to(torch.int8)
    found = by_gptq(weight, "int4", h)
    assert (found != expected).float().mean() < 0.01  # float32 against float64: a tie may fall the other way
    assert (found != torch.from_numpy(stored.streams[SYMBOLS])).float().mean() > 0.1


@pytest.mark.parametrize("scheme", SCHEMES)
def test_gptq_is_never_worse_than_round_to_nearest(scheme: str) -> None:
    """||(W - W^) H^1/2|| over many shapes, spreads and ranks of H; what is kept is on the grid, and mostly GPTQ's."""
    better = 0
    for seed in range(25):
        draw = np.random.default_rng(seed)
        rows, columns, seen = (int(draw.integers(1, high)) for high in (20, 150, 200))
        weight, given = matrix(rows, columns, seed), inputs(columns, seen, seed)
        plain, best = nearest(scheme)(weight), refined(weight, nearest(scheme), given, GPTQ)
        lost, least = (weighted_error(weight - restore(item), given.hessian) for item in (plain, best))
        assert least <= lost
        better += least < lost
        low, high = limits(scheme)
        symbols = best.streams[SYMBOLS]
        assert symbols.min() >= low
        assert symbols.max() <= high
        assert best.scheme == scheme
        assert not (symbols % 4).any() or scheme != "int8x4"
        np.testing.assert_array_equal(best.streams["scale"], plain.streams["scale"])
    assert better > 18


def test_gptq_gains_a_lot_where_inputs_correlate() -> None:
    """With many columns of few directions the weighted error falls to less than half."""
    weight, given = matrix(32, 256), inputs(256, 64)
    plain, best = nearest("int4")(weight), refined(weight, nearest("int4"), given, GPTQ)
    lost, least = (weighted_error(weight - restore(item), given.hessian) for item in (plain, best))
    assert least < 0.5 * lost
    assert best.by == "gptq"


def test_gptq_commutes_with_an_order_of_inputs() -> None:
    """Columns in another order, and H with them, give the same symbols in that order, to the last bit."""
    weight, h = matrix(9, 150), hessian(150, 100)
    order = torch.randperm(150, generator=torch.Generator().manual_seed(3))
    found = by_gptq(weight[:, order], "int5", h[order][:, order])
    assert torch.equal(found, by_gptq(weight, "int5", h)[:, order])


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (1, 4), (2, 130)])
def test_gptq_bears_useless_hessians(scheme: str, shape: tuple[int, int]) -> None:
    """Zero, of rank one, with dead columns, tiny, huge, slightly indefinite: a result on the grid, never worse."""
    weight, columns = matrix(*shape), shape[1]
    dead = hessian(columns, 50)
    dead[0], dead[:, 0] = 0.0, 0.0
    one = torch.ones(columns, columns)
    for h in (torch.zeros_like(one), one, dead, 1e-30 * one, 1e30 * one, one - 1e-3 * torch.eye(columns)):
        given = Inputs(h, torch.ones(columns))
        plain, best = nearest(scheme)(weight), refined(weight, nearest(scheme), given, GPTQ)
        assert torch.isfinite(restore(best)).all()
        assert weighted_error(weight - restore(best), h) <= weighted_error(weight - restore(plain), h)


def test_gptq_rounds_columns_without_input_to_the_nearest() -> None:
    """They teach nothing, and nothing is made up for in them."""
    weight, h = matrix(5, 40), hessian(40, 30)
    h[7], h[:, 7] = 0.0, 0.0
    plain = torch.from_numpy(nearest("int6")(weight).streams[SYMBOLS])
    assert torch.equal(by_gptq(weight, "int6", h)[:, 7], plain[:, 7])


def test_gptq_leaves_weights_on_the_grid_alone() -> None:
    """What was rounded before has no error to spread: the nearest symbols stay."""
    weight = restore(nearest("int6")(matrix(8, 60)))
    best = refined(weight, nearest("int6"), inputs(60, 50), GPTQ)
    assert best.by == "nearest"
    assert torch.equal(restore(best), weight)


def test_gptq_refuses_a_hessian_that_is_not_finite() -> None:
    """A model that overflows on its own training text is not rounded by chance."""
    h = torch.eye(4)
    h[1, 2] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        refined(matrix(3, 4), nearest("int6"), Inputs(h, torch.ones(4)), GPTQ)


def test_inverse_factor_is_one() -> None:
    """U^T U H = I for the damped H."""
    h = hessian(30, 100).double()
    upper = inverse_factor(h, DAMP)
    damped = h + DAMP * h.diagonal().mean() * torch.eye(30)
    torch.testing.assert_close(upper.T @ upper @ damped, torch.eye(30, dtype=torch.float64))
    assert torch.equal(upper, upper.triu())


def test_weighted_error_is_the_error_on_the_inputs() -> None:
    """The trace is the sum of squares of E x over the inputs."""
    x, error = torch.randn(20, 6, dtype=torch.float64), torch.randn(4, 6, dtype=torch.float64)
    assert weighted_error(error, x.T @ x) == pytest.approx(float((x @ error.T).square().sum()))


def test_gptq_blocks_are_smaller_than_the_matrices_tested() -> None:
    """Otherwise the correction across blocks would be tried by nobody."""
    assert gptq.BLOCK < 130


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"GPTQ": 1, "GPTQ_RESERVE_SECONDS": 2}, "needs MAX_WALLCLOCK_SECONDS"),
        ({"GPTQ": 1, "GPTQ_RESERVE_SECONDS": 5, "MAX_WALLCLOCK_SECONDS": 5}, "leaves nothing of"),
        ({"GPTQ_RESERVE_SECONDS": 1, "MAX_WALLCLOCK_SECONDS": 5}, "nothing would be calibrated"),
        ({"LQER_RANK": 2, "MATRIX_BITS": 16, "EMBED_BITS": 16}, "nothing would be rounded"),
        ({"GPTQ_DAMP": 0}, "GPTQ_DAMP"),
        ({"AWQ_ALPHA": 1.5}, "AWQ_ALPHA"),
    ],
)
def test_calibration_settings_that_can_not_work_are_refused(values: dict[str, object], told: str) -> None:
    """One line, with the setting and why."""
    with pytest.raises(SettingsError, match=told):
        settings(**values)
