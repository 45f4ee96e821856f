"""AWQ: scaling columns before rounding changes what rounding loses, and nothing else."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.trainer.calib import SCHEMES, inputs, matrix, nearest
from tests.trainer.tiny import settings
from trainer.quant.awq import channel_scales
from trainer.quant.calibrated import refined
from trainer.quant.clip import Clip
from trainer.quant.gptq import Inputs, weighted_error
from trainer.quant.pipeline import quantised
from trainer.quant.stored import CHANNELS, restore, streams_of


def outliers(columns: int, seen: int = 200) -> Inputs:
    """Inputs that do not correlate, a few of them a hundred times larger than the others."""
    x = torch.randn(seen, columns, generator=torch.Generator().manual_seed(7))
    x[:, ::16] *= 100
    return Inputs(x.T @ x, x.abs().mean(0))


def test_awq_alpha_zero_is_the_identity() -> None:
    """All scales are 1."""
    assert torch.equal(channel_scales(torch.rand(9) * 50, 0.0), torch.ones(9))


@pytest.mark.parametrize("alpha", [0.25, 0.5, 1.0])
def test_awq_scales_are_the_power_of_the_mean_input(alpha: float) -> None:
    """Up to one factor, and to what float16 keeps; the largest and the smallest multiply to about 1."""
    magnitude = torch.tensor([0.5, 1.0, 2.0, 8.0])
    scales = channel_scales(magnitude, alpha)
    torch.testing.assert_close(scales / scales[1], magnitude**alpha, rtol=2e-3, atol=0)
    assert float(scales.max() * scales.min()) == pytest.approx(1, rel=2e-3)
    assert torch.equal(scales, scales.half().float())


@pytest.mark.parametrize("alpha", [0.25, 0.5, 1.0])
def test_awq_leaves_the_function_as_it_is(alpha: float) -> None:
    """W x = (W diag(s)) (x / s) before anything is rounded."""
    weight, seen = matrix(12, 40).double(), inputs(40, 30)
    scales = channel_scales(seen.magnitude, alpha).double()
    x = torch.randn(5, 40, dtype=torch.float64)
    torch.testing.assert_close(F.linear(x / scales, weight * scales), F.linear(x, weight))


@pytest.mark.parametrize("magnitude", [[0.0], [0.0, 0.0], [0.0, 1.0], [1e-30, 1e30], []])
def test_awq_scales_are_positive_and_finite(magnitude: list[float]) -> None:
    """Columns without input, or with inputs beyond all bounds, have a scale to divide by."""
    scales = channel_scales(torch.tensor(magnitude), 1.0)
    assert scales.shape == (len(magnitude),)
    assert bool(((scales > 0) & scales.isfinite()).all())


@pytest.mark.parametrize("gptq", [0, 1])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_awq_is_never_worse(scheme: str, gptq: int) -> None:
    """Over many matrices the best alpha loses no more than none, alone and under GPTQ."""
    alone, both = settings(GPTQ=gptq), settings(GPTQ=gptq, AWQ_ALPHA=1)
    for seed in range(8):
        weight, seen = matrix(8, 20 + 10 * seed, seed), inputs(20 + 10 * seed, 60, seed)
        lost = [
            weighted_error(weight - restore(refined(weight, nearest(scheme), seen, how)), seen.hessian)
            for how in (alone, both)
        ]
        assert lost[1] <= lost[0]


def test_awq_gains_where_few_columns_see_large_inputs() -> None:
    """The scheme says so, the scales are stored and folded back; the error falls to less than half."""
    weight, seen = matrix(16, 64), outliers(64)
    best = refined(weight, nearest("int4"), seen, settings(AWQ_ALPHA=1))
    assert best.scheme == "int4+awq"
    assert best.streams[CHANNELS].shape == streams_of("int4+awq", (16, 64))[CHANNELS].shape == (64,)
    lost, least = (weighted_error(weight - restore(w), seen.hessian) for w in (nearest("int4")(weight), best))
    assert least < 0.5 * lost


def test_awq_stays_off_where_it_gains_nothing() -> None:
    """A matrix whose inputs are alike keeps its plain scheme."""
    weight = matrix(16, 64)
    best = refined(weight, nearest("int4"), Inputs(torch.eye(64), torch.ones(64)), settings(AWQ_ALPHA=1))
    assert best.scheme == "int4"
    assert CHANNELS not in best.streams


@pytest.mark.parametrize("switch", [{"GPTQ": 1}, {"AWQ_ALPHA": 1}, {"LQER_RANK": 2}])
def test_calibration_that_is_not_finite_is_refused_by_every_method(switch: dict[str, object]) -> None:
    """None of them falls back to the nearest points without a word; the weight is named."""
    seen = inputs(16, 40)
    name, weight, config = "blocks.0.mlp.up", matrix(4, 16), settings(MATRIX_BITS=4, **switch)
    for bad in (
        Inputs(seen.hessian * float("inf"), seen.magnitude),
        Inputs(seen.hessian, seen.magnitude * float("nan")),
    ):
        with pytest.raises(ValueError, match=r"blocks\.0\.mlp\.up: .* not finite"):
            quantised([(name, weight)], {name: "int4"}, {name: Clip()}, config, inputs={name: bad})
