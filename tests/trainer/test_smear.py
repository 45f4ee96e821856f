"""SmearGate against its two definitions."""

from __future__ import annotations

import pytest
import torch

from tests.trainer.switches import VOCAB, built, text
from tests.trainer.tiny import settings
from trainer.model.gpt import GPT
from trainer.model.smear import ChannelSmear, GatedSmear

X = torch.randn(2, 6, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
STARTS = torch.tensor([[1, 0, 0, 1, 0, 0]], dtype=torch.bool).expand(2, 6)


def test_channel_smear_equals_its_formula() -> None:
    """g x_t + (1 - g) x_{t-1}, and g x_t at the start of a document."""
    layer = ChannelSmear(settings()).double()
    with torch.no_grad():
        layer.smear_mix.copy_(torch.linspace(-2, 2, 16))
    g, found = torch.sigmoid(layer.smear_mix), layer(X, STARTS)
    for t in range(6):
        before = X[:, t - 1] if t not in (0, 3) else 0.0
        torch.testing.assert_close(found[:, t], g * X[:, t] + (1 - g) * before)


def test_channel_smear_keeps_all_of_the_own_token_for_a_large_share() -> None:
    """s -> infinity is the identity, and the model is born with s = 3."""
    layer = ChannelSmear(settings()).double()
    with torch.no_grad():
        layer.smear_mix.fill_(1e3)
    assert torch.equal(layer(X, STARTS), X)
    assert GPT(settings(SMEAR_GATE="channel"), VOCAB).smear.smear_mix.eq(3).all()


def test_gated_smear_equals_its_formula() -> None:
    """x_t + lambda sigmoid(w x_t[:12]) x_{t-1}, and x_t itself at the start of a document."""
    layer = GatedSmear(settings()).double()
    with torch.no_grad():
        layer.smear_gate.copy_(torch.linspace(-2, 2, 12))
        layer.smear_scale.fill_(0.7)
    found = layer(X, STARTS)
    for t in range(6):
        gate = torch.sigmoid(X[:, t, :12] @ layer.smear_gate).unsqueeze(-1)
        before = X[:, t - 1] if t not in (0, 3) else 0.0
        torch.testing.assert_close(found[:, t], X[:, t] + 0.7 * gate * before)
    assert torch.equal(found[:, 3], X[:, 3])


def test_gated_smear_is_born_as_identity_and_learns() -> None:
    """At init the model computes the baseline's bits, and lambda has a gradient (w follows once lambda is not zero)."""
    plain, with_gate = GPT(settings(), VOCAB), GPT(settings(SMEAR_GATE="token"), VOCAB)
    assert torch.equal(plain(text(2)), with_gate(text(2)))
    with_gate(text(2)).square().sum().backward()
    assert with_gate.smear.smear_scale.grad.abs() > 0


@pytest.mark.parametrize("form", ["channel", "token"])
def test_smear_reaches_one_token_back(form: str) -> None:
    """In a model whose blocks are silent, a logit depends on its own id and the one before, and no other."""
    model = built(settings(SMEAR_GATE=form, NUM_LAYERS=1))
    with torch.no_grad():
        for name in ("attention_scale", "mlp_scale"):
            getattr(model.blocks[0], name).zero_()
    ids = text(1, length=8) % (VOCAB - 1) + 1
    changed = ids.clone()
    changed[0, 3] = ids[0, 3] % (VOCAB - 1) + 1
    differs = (model(ids) != model(changed)).any(-1)[0].tolist()
    assert differs == [False] * 3 + [True] * 2 + [False] * 3
