"""Parallel residuals in both forms, LN scale and the untied head."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.trainer.switches import VOCAB, built, text
from tests.trainer.tiny import settings
from trainer.model.block import Block, ParallelBlock
from trainer.model.gpt import GPT
from trainer.model.lanes import LaneBlock, joined
from trainer.model.parts import Pass, rms
from trainer.model.roles import HEAD, role

GPTJ = {"PARALLEL_RESIDUAL": "gptj", "PARALLEL_START_LAYER": 1}
LANES = {"PARALLEL_RESIDUAL": "lanes", "PARALLEL_START_LAYER": 1}


def copied(source: GPT, **values: object) -> GPT:
    """A model with other settings and the weights of `source`; what it has more is as it is born."""
    model = GPT(settings(**values), VOCAB).double()
    missing, foreign = model.load_state_dict(source.state_dict(), strict=False)
    assert not foreign and all("lane" in name for name in missing)
    return model


def test_parallel_block_equals_its_formula() -> None:
    """x + a Attention(rms x) + b MLP(rms x), from block PARALLEL_START_LAYER on."""
    model = built(settings(NUM_LAYERS=3, **GPTJ))
    assert [type(block) for block in model.blocks] == [Block, ParallelBlock, ParallelBlock]
    block = model.blocks[1]
    x, x0 = torch.randn(2, 2, 5, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    shared = Pass(x0, *model._positions(5, x))
    mixed = block.resid_mix[0] * x + block.resid_mix[1] * x0
    attended = block.attention_scale * block.attention(rms(mixed), shared)
    thought = block.mlp_scale * block.mlp(rms(mixed), shared)
    torch.testing.assert_close(block(x, shared), mixed + attended + thought)


@pytest.mark.parametrize("final", ["mean", "mlp"])
def test_lanes_born_equal_are_the_gptj_form(final: str) -> None:
    """With r = 1, p = 1, no share of the embedding and no skip in between, two lanes carry what one would."""
    plain = built(settings(NUM_LAYERS=3, SKIP_CONNECTIONS=0, **GPTJ))
    with torch.no_grad():
        for block in plain.blocks:
            block.resid_mix.copy_(torch.tensor([[1.0], [0.0]]).expand(2, 16))
    lanes = copied(plain, NUM_LAYERS=3, SKIP_CONNECTIONS=0, PARALLEL_FINAL_LANE=final, **LANES)
    assert [type(block) for block in lanes.blocks] == [Block, LaneBlock, LaneBlock]
    torch.testing.assert_close(lanes(text(2)), plain(text(2)))


def test_lane_block_equals_its_formula() -> None:
    """Attention reads lane 0 with its share of x0, the MLP lane 1; each lane keeps r of itself and takes p of both."""
    model = built(settings(NUM_LAYERS=2, **LANES))
    block = model.blocks[1]
    x, other, x0 = torch.randn(3, 2, 5, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    shared = Pass(x0, *model._positions(5, x), lane=other)
    attended = block.attention_scale * block.attention(rms(block.resid_mix[0] * x + block.resid_mix[1] * x0), shared)
    thought = block.mlp_scale * block.mlp(rms(other), shared)
    found = block(x, shared)
    for k, (before, after) in enumerate(((x, found), (other, shared.lane))):
        expected = block.lane_keep[k] * before + block.lane_attention[k] * attended + block.lane_mlp[k] * thought
        torch.testing.assert_close(after, expected)


def test_lanes_get_skips_in_lane_0_only() -> None:
    """A U-Net skip is added to the stream that blocks hand on, never to the MLP's lane."""
    model = built(settings(NUM_LAYERS=4, PARALLEL_RESIDUAL="lanes"))
    seen: dict[int, tuple[Tensor, Tensor | None]] = {}
    for number, block in enumerate(model.blocks):
        block.register_forward_pre_hook(lambda _, given, n=number: seen.update({n: (given[0], given[1].lane)}))
    left: dict[int, tuple[Tensor, Tensor | None]] = {}
    for number, block in enumerate(model.blocks):
        block.register_forward_hook(lambda _, given, x, n=number: left.update({n: (x, given[1].lane)}))
    model(text(1))
    assert seen[0][1] is None
    assert torch.equal(seen[1][0], left[0][0])
    for number in (2, 3):  # block 2 pops block 1's, block 3 block 0's
        skipped = left[number - 1][0] + model.skip_scale[number - 2] * left[3 - number][0]
        torch.testing.assert_close(seen[number][0], skipped)
        assert seen[number][1] is left[number - 1][1]


def test_ln_scale_divides_what_a_block_reads() -> None:
    """Branches of block l see rms(x) / sqrt(l + 1); without the switch rms(x) to the last bit."""
    scaled, plain = (GPT(settings(NUM_LAYERS=4, LN_SCALE=on), VOCAB) for on in (1, 0))
    x = torch.randn(1, 3, 16, generator=torch.Generator().manual_seed(0))
    for number in range(4):
        torch.testing.assert_close(scaled.blocks[number].normed(x), rms(x) / (number + 1) ** 0.5)
        assert torch.equal(plain.blocks[number].normed(x), rms(x))


def test_untied_head_is_its_own_and_starts_at_zero() -> None:
    """Logits are softcap(rms(x) H^T) with H apart from E and zero at init; set to E it gives the tied model."""
    tied = built(settings())
    untied = GPT(settings(TIE_EMBEDDINGS=0), VOCAB).double()
    assert untied(text(1)).abs().max() == 0
    assert [name for name, _ in untied.named_parameters() if role(name) == HEAD] == ["head"]
    missing, foreign = untied.load_state_dict(tied.state_dict(), strict=False)
    assert (missing, foreign) == (["head"], [])
    with torch.no_grad():
        untied.head.copy_(tied.embed)
    assert torch.equal(untied(text(2)), tied(text(2)))


def test_lanes_end_in_their_mean_or_the_mlps() -> None:
    """The head reads what PARALLEL_FINAL_LANE says, and the one stream where there is no second."""
    x, other = torch.ones(1, 2, 3), torch.full((1, 2, 3), 5.0)
    two, one = Pass(x, x, x, lane=other), Pass(x, x, x)
    assert torch.equal(joined(x, two, mlp_lane=False), torch.full((1, 2, 3), 3.0))
    assert joined(x, two, mlp_lane=True) is other
    assert joined(x, one, mlp_lane=True) is x
    assert [GPT(settings(PARALLEL_FINAL_LANE=lane), VOCAB).mlp_lane for lane in ("mean", "mlp")] == [False, True]
