"""Adam against torch's, and the split of parameters over optimisers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.trainer.tiny import settings
from trainer.model.gpt import GPT
from trainer.optim.adam import Adam
from trainer.optim.groups import Optimizers, check_cover, clip_gradients


def seeded(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("betas", [(0.9, 0.95), (0.0, 0.999)])
def test_adam_equals_torchs_adam(fused: bool, betas: tuple[float, float], decay: float) -> None:
    """Five steps at changing rates give torch's AdamW, with and without the fused kernel."""
    shapes = [(7, 5), (11,)]
    ours = [seeded(*shape) for shape in shapes]
    theirs = [torch.nn.Parameter(weight.clone()) for weight in ours]
    mine = Adam(ours, lr=0.03, betas=betas, eps=1e-6, weight_decay=decay)
    assert mine._fused is not None
    if not fused:
        mine._fused = None
    oracle = torch.optim.AdamW(theirs, lr=0.03, betas=betas, eps=1e-6, weight_decay=decay)
    for step in range(5):
        scale = 1.0 - step / 6
        oracle.param_groups[0]["lr"] = 0.03 * scale
        for index, (weight, other) in enumerate(zip(ours, theirs, strict=True)):
            weight.grad = seeded(*weight.shape, seed=10 * step + index)
            other.grad = weight.grad.clone()
        mine.step(scale=scale)
        oracle.step()
    for weight, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(weight, other.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "switches",
    [
        {},
        {"NGRAM_MAX_ORDER": 4},
        {"NGRAM_MAX_ORDER": 4, "NGRAM_LOGITS": 1, "ADAM_WD": 0.1},
        {"OPTIMIZER": "soap", "MUON_WD": 0.1},
        {"MUON_COEFFICIENTS": "polar_express", "MUON_ROW_NORM": 1},
    ],
)
def test_groups_cover_every_parameter_and_each_one_moves(switches: dict[str, object]) -> None:
    """Every parameter is in exactly one group, and one step moves all of them."""
    config = settings(**switches)
    model = GPT(config, 256)
    optimizers = Optimizers(model, config)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizers.step(scale=1.0, momentum=0.9)
    assert all(not torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())
    optimizers.clear()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_groups_use_their_own_rates() -> None:
    """A rate of zero holds its group still and no other."""
    rates = {
        "MATRIX_LR": "blocks.0.mlp.up",
        "EMBED_LR": "embed",
        "TABLE_LR": "ngrams.tables",
        "HEAD_LR": "head",
        "SCALAR_LR": "skip_scale",
    }
    for silent in rates:
        config = settings(NGRAM_MAX_ORDER=2, TIE_EMBEDDINGS=0, **{silent: 0})
        model = GPT(config, 256)
        optimizers = Optimizers(model, config)
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizers.step(scale=1.0, momentum=0.9)
        now = dict(model.named_parameters())
        assert [torch.equal(now[name], before[name]) for name in rates.values()] == [name == silent for name in rates]


def test_groups_notice_a_parameter_left_out_or_held_twice() -> None:
    """The check fails for a missing, a doubled and a foreign parameter."""
    one, two, other = torch.zeros(1), torch.zeros(1), torch.zeros(1)
    check_cover([[one], [two]], [two, one])
    for groups in ([[one]], [[one, two], [one]], [[one, other]]):
        with pytest.raises(AssertionError):
            check_cover(groups, [one, two])


def test_clip_limits_the_joint_norm() -> None:
    """Gradients beyond the limit shrink together; smaller ones stay as they are."""
    weights = [torch.zeros(3), torch.zeros(2, 2)]
    for weight, value in zip(weights, (3.0, 4.0), strict=True):
        weight.grad = torch.full_like(weight, value)
    norm = clip_gradients(weights, 1.0)
    assert norm.item() == pytest.approx((3 * 9 + 4 * 16) ** 0.5)
    assert sum(float(w.grad.square().sum()) for w in weights) == pytest.approx(1.0, rel=1e-5)
    assert weights[0].grad[0] / weights[1].grad[0, 0] == pytest.approx(0.75)
    kept = [w.grad.clone() for w in weights]
    clip_gradients(weights, 2.0)
    assert all(torch.equal(w.grad, before) for w, before in zip(weights, kept, strict=True))
