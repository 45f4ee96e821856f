"""Formulas with a gradient of their own: the plain formula's value, and its gradient."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck

from trainer.config import from_values
from trainer.model import branches, causal, kernels
from trainer.model.gpt import GPT
from trainer.model.rotary import rotary_tables, rotate


def draw(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    random = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=random, dtype=dtype).requires_grad_()


def tables(dims: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return rotary_tables(3, dims, 100.0, device=torch.device("cpu"), dtype=dtype)


def same(ours: Callable[..., object], plain: Callable[..., object], *shapes: tuple[int, ...]) -> None:
    """Values and gradients agree to the rounding of float64, the gradient of `ours` also with finite differences."""
    given = [draw(*shape) for shape in shapes]
    assert gradcheck(ours, given, fast_mode=True)
    found, wanted = ours(*given), plain(*given)
    found, wanted = ((r if isinstance(r, tuple) else (r,)) for r in (found, wanted))
    outcome = [draw(*part.shape).detach() for part in wanted]
    a, b = torch.autograd.grad(found, given, outcome), torch.autograd.grad(wanted, given, outcome)
    torch.testing.assert_close((*found, *a), (*wanted, *b), rtol=1e-12, atol=1e-13)


TARGETS = torch.tensor([[1, 2, 0], [0, 4, 4]])
Formula = Callable[..., Tensor]
CASES: dict[str, tuple[Formula, Formula, tuple[tuple[int, ...], ...]]] = {
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
    same(ours, plain, *shapes)


def test_loss_with_gradient_is_the_softcapped_loss() -> None:
    """What torch.compile gets on a CPU gives the loss and the gradient of the plain formula, also for logits at the cap."""
    _, plain, shapes = CASES["loss"]

    def ours(z: Tensor) -> Tensor:
        return kernels.LossWithGradient.apply(z.flatten(0, 1), TARGETS.flatten(), 3.0)

    same(ours, plain, *shapes)
    same(lambda z: ours(50 * z), lambda z: plain(50 * z), *shapes)


def test_norm_is_that_of_torch() -> None:
    """The length is taken in one pass, so values may differ from torch's in the last bit."""
    same(kernels.rms, lambda x: F.rms_norm(x, (8,)), (2, 3, 8))
    tiny = torch.full((1, 8), 1e-4, dtype=torch.float64)  # eps counts
    torch.testing.assert_close(kernels.rms(tiny.float()), F.rms_norm(tiny.float(), (8,)))


@pytest.mark.parametrize("dims", [8, 4, 0])
def test_normed_rotated_is_norm_then_rotation_then_gain(dims: int) -> None:
    """All, half or none of the dimensions rotate; a gain of zero is one, too. Pairs come side by side."""

    def plain(x: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
        together = rotate(F.rms_norm(x, (8,)), *tables(dims, x.dtype))[..., kernels.paired(8, dims)]
        query, key = together.split([3, 2], dim=2)
        return query * gain.unsqueeze(-1), key

    def ours(x: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
        return kernels.normed_rotated(x, gain, *tables(dims, x.dtype))

    same(ours, plain, (2, 3, 5, 8), (3,))
    x = draw(2, 3, 5, 8)
    torch.testing.assert_close(ours(x, torch.zeros(3).double()), plain(x, torch.zeros(3).double()))


def turned_by_hand(x: Tensor, gain: Tensor, dims: int) -> tuple[Tensor, Tensor]:
    return kernels.normed_rotated(x, gain, *tables(dims, x.dtype))


@pytest.mark.parametrize(("rows", "slope"), [(1, 0.5), (4, 0.0), (100, 0.5)])
def test_branches_are_the_formulas_of_a_block(rows: int, slope: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the pieces: MLP branch, added product, and what attention reads (4 query heads on 2 key heads of width 4)."""
    monkeypatch.setattr(branches, "ROWS", rows)

    def think(x: Tensor, up: Tensor, down: Tensor, scale: Tensor) -> Tensor:
        return x + scale * F.linear(kernels.squared(F.linear(kernels.rms(x), up), slope), down)

    same(lambda *a: branches.think(*a, slope), think, (3, 3, 8), (6, 8), (8, 6), (8,))
    same(branches.added, lambda x, s, y, w: x + s * F.linear(y, w), (3, 3, 8), (8,), (3, 3, 8), (8, 8))

    def read(x: Tensor, x0: Tensor, mix: Tensor, q: Tensor, k: Tensor, v: Tensor, gain: Tensor) -> tuple[Tensor, ...]:
        stream = mix[0] * x + mix[1] * x0
        joint = F.linear(kernels.rms(stream), torch.cat([q, k, v])).view(3, 3, 8, 4)
        return stream, *turned_by_hand(joint[:, :, :6], gain, 2), joint[:, :, 6:]

    shapes = ((3, 3, 16), (3, 3, 16), (2, 16), (16, 16), (8, 16), (8, 16), (4,))
    same(lambda x, x0, mix, q, k, v, g: branches.read(x, x0, mix, (q, k, v), g, tables(2, x.dtype)), read, *shapes)


@pytest.mark.parametrize("length", [32, 128])
def test_block_in_pieces_equals_the_formulas_to_the_last_bit(length: int) -> None:
    """An adapter that adds nothing takes the other way through a block: scores may not depend on it."""
    model = GPT(from_values({"NUM_LAYERS": 3, "MODEL_DIM": 32, "ROPE_FRACTION": 0.5}), 256)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=random), alpha=0.1)
    ids = torch.randint(0, 256, (40, length), generator=random)  # more than one piece
    plain = model(ids, lambda name, x: None)
    assert torch.equal(model(ids), plain)


@pytest.mark.parametrize("fit", [1, 1 << 17])
@pytest.mark.parametrize(("length", "heads", "groups"), [(1, 2, 1), (5, 4, 2), (64, 3, 3), (65, 4, 1), (130, 2, 2)])
def test_causal_attention_is_that_of_torch(
    length: int, heads: int, groups: int, fit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows of a part of a block, of one, of some; several query heads on one key; one head at a time or all."""
    monkeypatch.setattr(causal, "FIT", fit)

    def plain(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        by_head = (x.transpose(1, 2) for x in (query, key, value))
        return F.scaled_dot_product_attention(*by_head, is_causal=True, enable_gqa=True).transpose(1, 2)

    same(causal.attend, plain, (3, length, heads, 4), (3, length, groups, 4), (3, length, groups, 4))


def test_causal_attention_keeps_nothing_where_no_gradient_is_wanted() -> None:
    """The result is the same to the last bit, and what comes later changes none of what comes before."""
    query, key, value = (draw(2, 200, 4, 8, dtype=torch.float32).detach() for _ in range(3))
    free = causal.attend(query, key, value)
    held = causal.attend(query.clone().requires_grad_(), key, value)
    assert [x.numel() for x in held.grad_fn.saved_tensors[3:]] == [8 * 64 * 64, 8 * 64 * 128, 8 * 64 * 192, 8 * 8 * 200]
    assert torch.equal(free, held)
    key[:, 150], value[:, 150] = 9.0, 9.0
    other = causal.attend(query, key, value)
    assert torch.equal(other[:, :150], free[:, :150])
    assert not torch.equal(other[:, 150:], free[:, 150:])


def test_kernels_leave_other_devices_alone() -> None:
    """A model without values, as it is described before it is trained, goes through the plain formulas."""
    x = torch.empty(2, 3, 8, device="meta")
    assert not kernels.by_hand(x)
    assert kernels.rms(x).shape == kernels.squared(x).shape == x.shape
