"""Formulas with a gradient of their own: the plain formula's value to the last bit, and its gradient."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck

from trainer.model import kernels
from trainer.model.rotary import rotary_tables, rotate


def draw(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    random = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=random, dtype=dtype).requires_grad_()


def tables(dims: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return rotary_tables(3, dims, 100.0, device=torch.device("cpu"), dtype=dtype)


TARGETS = torch.tensor([[1, 2, 0], [0, 4, 4]])
Formula = Callable[..., Tensor]
CASES: dict[str, tuple[Formula, Formula, tuple[tuple[int, ...], ...]]] = {
    "rms": (kernels.rms, lambda x: F.rms_norm(x, (8,)), ((3, 8),)),
    "relu": (kernels.squared, lambda z: F.relu(z).square(), ((30,),)),
    "leaky": (lambda z: kernels.squared(z, 0.5), lambda z: torch.maximum(z, 0.5 * z).square(), ((30,),)),
    "sum": (kernels.scaled_sum, lambda x, s, y: x + s * y, ((2, 3, 4), (4,), (2, 3, 4))),
    "blend": (kernels.blend, lambda s, x, y: s[0] * x + s[1] * y, ((2, 4), (2, 3, 4), (2, 3, 4))),
    "loss": (
        lambda z: kernels.softcapped_loss(z, TARGETS, 3.0),
        lambda z: F.cross_entropy((3.0 * torch.tanh(z / 3.0)).flatten(0, 1), TARGETS.flatten()),
        ((2, 3, 5),),
    ),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", CASES)
def test_kernel_equals_its_formula_to_the_last_bit(name: str, dtype: torch.dtype) -> None:
    """The hand-written step changes no forward result, so artifacts and scores do not depend on which one ran."""
    ours, plain, shapes = CASES[name]
    given = [draw(*shape, dtype=dtype) for shape in shapes]
    assert torch.equal(ours(*given), plain(*given))


@pytest.mark.parametrize("name", CASES)
def test_kernel_gradient_is_that_of_its_formula(name: str) -> None:
    """Against finite differences and against autograd of the plain formula, in float64."""
    ours, plain, shapes = CASES[name]
    given = [draw(*shape) for shape in shapes]
    assert gradcheck(ours, given)
    outcome = draw(*plain(*given).shape).detach()
    for a, b in zip(
        torch.autograd.grad(ours(*given), given, outcome),
        torch.autograd.grad(plain(*given), given, outcome),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("dims", [8, 4, 0])
def test_normed_rotated_is_norm_then_rotation_then_gain(dims: int) -> None:
    """All, half or none of the dimensions rotate; bits of the forward pass, and finite differences of the backward pass."""

    def plain(x: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
        query, key = rotate(F.rms_norm(x, (8,)), *tables(dims, x.dtype)).split([3, 2], dim=2)
        return query * gain.unsqueeze(-1), key

    for dtype in (torch.float32, torch.float64):
        x, gain = draw(2, 3, 5, 8, dtype=dtype), draw(3, dtype=dtype)
        found = kernels.normed_rotated(x, gain, *tables(dims, dtype))
        assert all(torch.equal(a, b) for a, b in zip(found, plain(x, gain), strict=True))
    assert gradcheck(lambda x, gain: kernels.normed_rotated(x, gain, *tables(dims, torch.float64)), (x, gain))


def test_kernels_leave_other_devices_alone() -> None:
    """A model without values, as it is described before it is trained, goes through the plain formulas."""
    x = torch.empty(2, 3, 8, device="meta")
    assert not kernels.by_hand(x)
    assert kernels.rms(x).shape == kernels.squared(x).shape == x.shape
