"""Quantisation per row: error bound, fixed point, limits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from trainer.quant.rowwise import LEVELS, SMALLEST_SCALE, dequantise, quantise

weights = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.integers(1, 9)),
    elements=st.floats(-(2.0**20), 2.0**20, width=32, allow_subnormal=False),
)


@given(weights, st.sampled_from([6, 8]))
def test_quantise_stays_within_half_a_scale(array: np.ndarray, bits: int) -> None:
    """No entry is off by more than half its row's scale, and no value leaves the levels."""
    weight = torch.from_numpy(array)
    q, scale = quantise(weight, bits)
    assert q.dtype == torch.int8
    assert scale.dtype == torch.float16
    assert int(q.abs().max()) <= LEVELS[bits]
    error = (dequantise(q, scale).double() - weight.double()).abs()
    assert (error <= scale.double().unsqueeze(1) * 0.5 * (1 + 1e-6)).all()


@given(weights, st.sampled_from([6, 8]))
def test_quantise_has_dequantised_weights_as_fixed_points(array: np.ndarray, bits: int) -> None:
    """Quantising what was dequantised changes nothing, not even for tiny or zero rows."""
    q, scale = quantise(torch.from_numpy(array), bits)
    again, scale_again = quantise(dequantise(q, scale), bits)
    assert torch.equal(q, again)
    assert torch.equal(scale, scale_again)


def test_quantise_treats_rows_alone() -> None:
    """A huge row does not coarsen its neighbour."""
    small = torch.linspace(-1, 1, 9).unsqueeze(0)
    alone = dequantise(*quantise(small, 8))
    together = dequantise(*quantise(torch.cat([small, small * 1e4]), 8))
    assert torch.equal(alone[0], together[0])


def test_quantise_is_symmetric_and_keeps_zero_and_peaks() -> None:
    """-w gives -q; zero stays zero; a row's largest entry takes the outermost level."""
    weight = torch.tensor([[0.0, 0.5, -1.27, 0.3]])
    q, scale = quantise(weight, 8)
    assert torch.equal(quantise(-weight, 8)[0], -q)
    assert q[0, 0] == 0
    assert q[0, 2] == -127
    assert scale[0].item() == pytest.approx(0.01, rel=1e-3)


def test_quantise_gives_zero_rows_the_smallest_scale() -> None:
    """A row of zeros has a positive, finite scale and comes back as zeros."""
    q, scale = quantise(torch.zeros(2, 3), 6)
    assert scale.tolist() == [SMALLEST_SCALE] * 2
    assert torch.equal(dequantise(q, scale), torch.zeros(2, 3))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_quantise_refuses_what_it_can_not_hold(bad: float) -> None:
    """Weights that are not finite, or beyond float16 scales, are an error and not a silent clamp."""
    with pytest.raises(ValueError, match="not finite"):
        quantise(torch.tensor([[1.0, bad]]), 8)


def test_quantise_with_more_bits_is_finer() -> None:
    """Eight bits err about four times less than six."""
    weight = torch.randn(50, 200, generator=torch.Generator().manual_seed(0))
    error = {bits: (dequantise(*quantise(weight, bits)) - weight).square().mean().sqrt() for bits in (6, 8)}
    assert 3.8 < error[6] / error[8] < 4.4
