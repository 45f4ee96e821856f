"""U-Net skips, plain and gated."""

from __future__ import annotations

import pytest
import torch

from tests.trainer.switches import VOCAB, built, text
from tests.trainer.tiny import settings
from trainer.model.gpt import GPT
from trainer.model.skips import join

X, SKIP = torch.randn(2, 2, 5, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
SCALE, GATE = torch.randn(2, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_join_equals_its_formulas() -> None:
    """x + w skip without a gate; (1 - s) w skip + s x with s = sigmoid(g)."""
    share = torch.sigmoid(GATE)
    torch.testing.assert_close(join(X, SKIP, SCALE, None), X + SCALE * SKIP)
    torch.testing.assert_close(join(X, SKIP, SCALE, GATE), (1 - share) * SCALE * SKIP + share * X)


def test_gate_far_open_keeps_the_stream_alone() -> None:
    """A model whose gates are all at infinity is the plain stack."""
    gated, plain = (
        built(settings(NUM_LAYERS=4, **more)) for more in ({"SKIP_GATES_ENABLED": 1}, {"SKIP_CONNECTIONS": 0})
    )
    with torch.no_grad():
        gated.skip_gate.fill_(1e4)
        gated.load_state_dict(plain.state_dict(), strict=False)
    torch.testing.assert_close(gated(text(2)), plain(text(2)))


def test_gates_are_born_as_equal_mix() -> None:
    """g = 0: half the stream, half the weighted skip."""
    model = GPT(settings(NUM_LAYERS=4, SKIP_GATES_ENABLED=1), VOCAB)
    assert not model.skip_gate.any()
    assert model.skip_scale.eq(1).all()
    torch.testing.assert_close(join(X, SKIP, SCALE, torch.zeros(16)), (X + SCALE * SKIP) / 2)


@pytest.mark.parametrize("gates", [0, 1])
def test_each_skip_has_weights_of_its_own(gates: int) -> None:
    """Block half + k reads the block before, joined with the output of block half - 1 - k by row k."""
    model = built(settings(NUM_LAYERS=6, SKIP_GATES_ENABLED=gates))
    given: list[torch.Tensor] = []
    out: list[torch.Tensor] = []
    for block in model.blocks:
        block.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
        block.register_forward_hook(lambda _, inputs, result: out.append(result))
    model(text(2))
    for k in range(3):
        gate = model.skip_gate[k] if gates else None
        torch.testing.assert_close(given[3 + k], join(out[2 + k], out[2 - k], model.skip_scale[k], gate))
