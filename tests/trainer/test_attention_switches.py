"""XSA, gates, value residual, value embedding and key offset: each does what its definition says."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.trainer.switches import VOCAB, built, text
from tests.trainer.tiny import settings
from trainer.config import SettingsError, from_values
from trainer.model.attention import Attention
from trainer.model.exclusive import exclude_own_value
from trainer.model.gates import HeadGate
from trainer.model.gpt import GPT
from trainer.model.parts import Pass, rms
from trainer.model.rotary import rotary_tables, rotate
from trainer.model.values import offset_keys


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def same_weights(source: GPT, **values: object) -> GPT:
    """A model with other settings and, where names agree, the weights of `source`."""
    model = built(settings(**values))
    model.load_state_dict({k: v for k, v in source.state_dict().items() if k in model.state_dict()}, strict=False)
    return model


def test_xsa_leaves_nothing_along_the_own_value() -> None:
    """y . v = 0 for every head and its group's value, groups being consecutive heads; all else of y stays."""
    y, value = drawn(2, 5, 6, 4), drawn(2, 5, 3, 4, seed=1)
    left = exclude_own_value(y, value)
    own = value.repeat_interleave(2, dim=2)
    assert (left * own).sum(-1).abs().max() < 1e-12
    share = (y * own).sum(-1, keepdim=True) / own.square().sum(-1, keepdim=True)
    torch.testing.assert_close(left + share * own, y)
    assert torch.isfinite(exclude_own_value(y, torch.zeros_like(value))).all()


def test_xsa_of_one_token_is_zero() -> None:
    """Alone in its window a token attends to itself, and XSA takes that away."""
    model = built(settings(NUM_LAYERS=1, XSA_LAST_N=1))
    kept: list[Tensor] = []
    model(text(2, length=1), lambda name, x: kept.append(x) if name.endswith("attention.output") else None)
    assert kept[0].abs().max() < 1e-14


def test_xsa_touches_the_last_blocks_only() -> None:
    """XSA_LAST_N counts from the end."""
    model = GPT(settings(NUM_LAYERS=4, XSA_LAST_N=3), VOCAB)
    assert [block.attention.exclusive for block in model.blocks] == [False, True, True, True]


@pytest.mark.parametrize(("kind", "window", "peak"), [("output", 12, 2), ("dense", 16, 1), ("sparse", 12, 1)])
def test_gate_equals_its_formula(kind: str, window: int, peak: int) -> None:
    """peak * sigmoid(c w x[:k]); at w = 0 it is one for the output gate and one half for the others."""
    gate = HeadGate(settings(ATTN_GATE=kind, SPARSE_ATTN_GATE_SCALE=3), "gate").double()
    x = drawn(2, 5, 16)
    with torch.no_grad():
        gate.head_gate.copy_(drawn(2, window, seed=2))
        steep = 3 if kind == "sparse" else 1
        expected = peak / (1 + torch.exp(-steep * x[..., :window] @ gate.head_gate.T))
        torch.testing.assert_close(gate(x, Pass(x, x, x)), expected.unsqueeze(-1))
        gate.head_gate.zero_()
        assert torch.equal(gate(x, Pass(x, x, x)), torch.full((2, 5, 2, 1), peak / 2, dtype=torch.float64))


def test_gate_scales_the_output_of_each_head() -> None:
    """A constant gate of one half equals attention with half the output matrix; the output gate is born as identity."""
    plain = built(settings())
    sparse, output = (same_weights(plain, ATTN_GATE=kind) for kind in ("sparse", "output"))
    with torch.no_grad():
        for model in (sparse, output):
            for block in model.blocks:
                block.attention.gate.head_gate.zero_()
        assert torch.equal(output(text(2)), plain(text(2)))
        for block in sparse.blocks:
            block.attention.output.mul_(2)
    torch.testing.assert_close(sparse(text(2)), plain(text(2)))


def test_dense_gate_is_born_small_and_random() -> None:
    """N(0, GATED_ATTN_INIT_STD) over all channels, so heads start near one half."""
    gates = [block.attention.gate.head_gate for block in GPT(settings(ATTN_GATE="dense", MODEL_DIM=256), VOCAB).blocks]
    assert all(gate.std().item() == pytest.approx(0.005, rel=0.2) for gate in gates)
    assert not torch.equal(*gates)


def test_value_residual_mixes_in_the_first_blocks_raw_values() -> None:
    """(0, 1) is the identity; (1, 0) gives every block the first one's values, and the first has no mix of its own."""
    plain = built(settings(NUM_LAYERS=3))
    model = same_weights(plain, NUM_LAYERS=3, VALUE_RESIDUAL=1)
    assert [block.attention.mix is not None for block in model.blocks] == [False, True, True]
    born = GPT(settings(VALUE_RESIDUAL=1), VOCAB).blocks[1].attention.mix.value_mix
    assert born.tolist() == [0.5, 0.5]
    with torch.no_grad():
        for block in model.blocks[1:]:
            block.attention.mix.value_mix.copy_(torch.tensor([0.0, 1.0]))
        assert torch.equal(model(text(2)), plain(text(2)))
        for block in model.blocks[1:]:
            block.attention.mix.value_mix.copy_(torch.tensor([1.0, 0.0]))
        before = model(text(2))
        for block in model.blocks[1:]:
            block.attention.value.normal_()
        assert torch.equal(model(text(2)), before)


def test_value_residual_of_a_looped_first_block_keeps_the_first_pass() -> None:
    """A block that runs twice hands on the values of its first pass: its second pass comes after."""
    looped = built(settings(NUM_LAYERS=2, VALUE_RESIDUAL=1, NUM_LOOPS=1, LOOP_START=0, LOOP_END=0, SKIP_CONNECTIONS=0))
    seen: list[Tensor] = []
    looped.blocks[0].register_forward_hook(lambda layer, given, y: seen.append(given[1].first_value))
    looped(text(1))
    assert len(seen) == 2
    assert seen[0] is seen[1]


def test_value_embedding_adds_to_the_values_of_its_layers() -> None:
    """v + scale * (rows P^T): zero scale is the identity, the layers are those named, the table starts without effect."""
    plain = built(settings(NUM_LAYERS=3))
    values = {"NUM_LAYERS": 3, "VE_ENABLED": 1, "VE_DIM": 4, "VE_LAYERS": "0,2"}
    model = same_weights(plain, **values)
    assert [block.attention.value_scale is not None for block in model.blocks] == [True, False, True]
    assert not torch.allclose(model(text(2)), plain(text(2)))
    with torch.no_grad():
        model.blocks[0].attention.value_scale.zero_()
        model.blocks[2].attention.value_scale.zero_()
    assert torch.equal(model(text(2)), plain(text(2)))
    born = GPT(settings(**values), VOCAB)
    assert born.blocks[2].attention.value_scale.tolist() == pytest.approx([0.1])
    assert born.value_embedding.project.abs().max() == 0 < born.value_embedding.value_embed.abs().max()


def test_value_embedding_goes_to_the_last_two_layers_unless_told() -> None:
    """VE_LAYERS empty."""
    model = GPT(settings(NUM_LAYERS=4, VE_ENABLED=1), VOCAB)
    assert [block.attention.value_scale is not None for block in model.blocks] == [False, False, True, True]


def test_key_offset_equals_explicit_keys() -> None:
    """Scores equal those of keys put together one by one: own first half, second half of the one before unless a start."""
    layer = Attention(settings(PARTIAL_KEY_OFFSET=1, ROPE_FRACTION=0.5, NUM_KV_HEADS=2)).double()
    with torch.no_grad():
        for number, weight in enumerate(layer.parameters()):
            weight.copy_(drawn(*weight.shape, seed=number))
    x = drawn(1, 6, 16, seed=9)
    starts = torch.tensor([[True, False, False, True, False, False]])
    cos, sin = rotary_tables(6, 4, 10000.0, device=x.device, dtype=x.dtype)
    q, k, v = (F.linear(x, w).view(1, 6, 2, 8) for w in (layer.query, layer.key, layer.value))
    q, k = rotate(rms(q), cos, sin) * layer.gain[:, None], rotate(rms(k), cos, sin)
    rows = [torch.cat([k[:, t, :, :4], k[:, t - (not starts[0, t]), :, 4:]], dim=-1) for t in range(6)]
    scores = torch.einsum("bthd,bshd->bhts", q, torch.stack(rows, dim=1)) / 8**0.5
    scores = scores.masked_fill(torch.ones(6, 6, dtype=torch.bool).triu(1), -torch.inf)
    mixed = torch.einsum("bhts,bshd->bthd", scores.softmax(-1), v).reshape(1, 6, 16)
    torch.testing.assert_close(layer(x, Pass(x, cos, sin, starts=starts)), mixed @ layer.output.T)


def test_key_offset_keeps_the_rotated_half() -> None:
    """Only the second half of a key moves, and the first position of a document keeps its own."""
    key = drawn(1, 4, 1, 8)
    moved = offset_keys(key, torch.tensor([[True, False, True, False]]))
    assert torch.equal(moved[..., :4], key[..., :4])
    assert torch.equal(moved[:, [0, 2]], key[:, [0, 2]])
    assert torch.equal(moved[:, [1, 3], :, 4:], key[:, [0, 2], :, 4:])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"PARTIAL_KEY_OFFSET": 1}, "ROPE_FRACTION=1.0 is over 0.5"),
        ({"XSA_LAST_N": 3}, "exceeds the number of blocks, 2"),
        ({"VALUE_RESIDUAL": 1, "NUM_LAYERS": 1}, "there is no later one"),
        ({"VE_ENABLED": 1, "VE_LAYERS": "1,2"}, "the last block is 1"),
        ({"VE_ENABLED": 1, "VE_LAYERS": "1;2"}, "must be numbers of blocks"),
        ({"VE_ENABLED": 1, "VE_LAYERS": "1,1"}, "each once"),
        ({"VE_ENABLED": 1, "PATCH_SIZE": 2}, "one row a patch"),
        ({"ATTN_GATE": "sparse", "MODEL_DIM": 16, "NUM_HEADS": 2}, ""),
        ({"ATTN_GATE": "output", "GATE_WINDOW": 200}, "exceeds MODEL_DIM=128"),
        ({"PARALLEL_RESIDUAL": "gptj", "PARALLEL_START_LAYER": 2}, "the last block is 1"),
        (
            {"PARALLEL_RESIDUAL": "lanes", "PARALLEL_START_LAYER": 1, "NUM_LOOPS": 1, "LOOP_END": 1},
            "the loop 0-1 would lead back out of the lanes",
        ),
    ],
)
def test_config_refuses_blocks_that_make_no_sense(values: dict[str, object], message: str) -> None:
    """One line says what and why; a window that fits is no reason."""
    if not message:
        from_values(values)
        return
    with pytest.raises(SettingsError, match=message) as caught:
        from_values(values)
    assert len(str(caught.value).splitlines()) == 1
