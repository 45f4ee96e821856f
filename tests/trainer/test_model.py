"""The model against its definition, in float64 where equality is asked for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.trainer.tiny import settings
from trainer.model.attention import Attention
from trainer.model.gpt import GPT
from trainer.model.parts import Pass, rms
from trainer.model.roles import EMBED, MATRIX, TABLE, VECTOR, role
from trainer.model.rotary import rotary_tables, rotate, rotated_dims

VOCAB = 256


def random_model(**values: object) -> GPT:
    """A float64 model in which no weight has the value it is born with, so that every path carries signal."""
    model = GPT(settings(**values), VOCAB).double()
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=noise, dtype=torch.float64) * 0.1)
    return model


def ids(batch: int, length: int, seed: int = 0) -> Tensor:
    return torch.randint(0, VOCAB, (batch, length), generator=torch.Generator().manual_seed(seed))


def test_model_logits_are_bounded_and_float32() -> None:
    """Logits are float32 and stay within the softcap however large the weights are."""
    model = GPT(settings(LOGIT_SOFTCAP=5), VOCAB)
    with torch.no_grad():
        model.embed.mul_(1e4)
    logits = model(ids(1, 8))
    assert logits.dtype == torch.float32
    assert 4.9 < logits.abs().max() <= 5.0


def test_model_softcap_is_tanh() -> None:
    """A model with a huge cap gives z; the same model with a cap c gives c * tanh(z / c)."""
    raw, capped = random_model(LOGIT_SOFTCAP=1e9), random_model(LOGIT_SOFTCAP=3)
    z = raw(ids(1, 6))
    torch.testing.assert_close(capped(ids(1, 6)), 3 * torch.tanh(z / 3), rtol=1e-6, atol=1e-6)


def test_model_at_init_predicts_from_the_embedding_alone() -> None:
    """Output projections start at zero, so at init logits are softcap(rms(embedding) E^T), doubled skips normed away."""
    model = GPT(settings(), VOCAB).double()
    x = rms(rms(model.embed[ids(2, 6)]))
    expected = 30 * torch.tanh(x @ model.embed.T / 30)
    torch.testing.assert_close(model(ids(2, 6)), expected, rtol=1e-6, atol=1e-9)


def test_attention_equals_heads_with_duplicated_keys_and_values() -> None:
    """Grouped queries give what full attention gives when each key and value head is written out for its queries."""
    grouped = Attention(settings(MODEL_DIM=32, NUM_HEADS=4, NUM_KV_HEADS=2)).double()
    full = Attention(settings(MODEL_DIM=32, NUM_HEADS=4, NUM_KV_HEADS=4)).double()
    with torch.no_grad():
        for parameter in grouped.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(parameter.numel()))
        for name in ("query", "output", "gain"):
            getattr(full, name).copy_(getattr(grouped, name))
        for name in ("key", "value"):
            heads = getattr(grouped, name).view(2, 8, 32)
            getattr(full, name).copy_(heads.repeat_interleave(2, 0).reshape(32, 32))
    x = torch.randn(2, 7, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    cos, sin = rotary_tables(7, 8, 10000.0, device=x.device, dtype=x.dtype)
    torch.testing.assert_close(grouped(x, Pass(x, cos, sin)), full(x, Pass(x, cos, sin)))


def test_attention_equals_its_formula() -> None:
    """softmax(gain * rope(rms q) . rope(rms k) / sqrt(D)) v, written out with an explicit mask."""
    layer = Attention(settings(MODEL_DIM=16, NUM_HEADS=2, NUM_KV_HEADS=2)).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(parameter.numel() + 1))
    x = torch.randn(1, 5, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    cos, sin = rotary_tables(5, 8, 10000.0, device=x.device, dtype=x.dtype)
    q, k, v = (F.linear(x, w).view(1, 5, 2, 8) for w in (layer.query, layer.key, layer.value))
    q, k = rotate(rms(q), cos, sin) * layer.gain[:, None], rotate(rms(k), cos, sin)
    scores = torch.einsum("bthd,bshd->bhts", q, k) / 8**0.5
    scores = scores.masked_fill(torch.ones(5, 5, dtype=torch.bool).triu(1), -torch.inf)
    mixed = torch.einsum("bhts,bshd->bthd", scores.softmax(-1), v).reshape(1, 5, 16)
    torch.testing.assert_close(layer(x, Pass(x, cos, sin)), mixed @ layer.output.T)


@pytest.mark.parametrize("dims", [8, 4])
def test_rotary_scores_depend_on_distance_only(dims: int) -> None:
    """Moving all positions by the same shift leaves every score as it was; without the rotation it could not matter."""
    q, k = torch.randn(2, 1, 20, 1, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    cos, sin = rotary_tables(27, dims, 100.0, device=q.device, dtype=q.dtype)

    def scores(shift: int) -> Tensor:
        turned = [rotate(x, cos[shift : shift + 20], sin[shift : shift + 20]) for x in (q, k)]
        return torch.einsum("bthd,bshd->bts", *turned)

    torch.testing.assert_close(scores(0), scores(7))
    assert not torch.allclose(scores(0), torch.einsum("bthd,bshd->bts", q, k))


def test_rotary_leaves_the_rest_of_a_head_alone() -> None:
    """Only the first dims turn, as pairs (i, i + dims/2) that keep their length."""
    x = torch.randn(1, 6, 2, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    cos, sin = rotary_tables(6, 4, 10000.0, device=x.device, dtype=x.dtype)
    y = rotate(x, cos, sin)
    assert torch.equal(y[..., 4:], x[..., 4:])
    for pair in ((0, 2), (1, 3)):
        torch.testing.assert_close(y[..., pair].norm(dim=-1), x[..., pair].norm(dim=-1))
    assert torch.equal(y[:, 0], x[:, 0])


def test_rotary_with_no_dims_is_blind_to_order() -> None:
    """With ROPE_FRACTION 0 one layer's last logit is the same for any order of the ids before it."""
    model, row = random_model(ROPE_FRACTION=0, NUM_LAYERS=1), ids(1, 8)
    shuffled = row[:, [3, 0, 6, 2, 5, 1, 4, 7]]
    torch.testing.assert_close(model(row)[:, -1], model(shuffled)[:, -1])
    turning = random_model(ROPE_FRACTION=1, NUM_LAYERS=1)
    assert not torch.allclose(turning(row)[:, -1], turning(shuffled)[:, -1])


def test_rotated_dims_are_even_and_within_the_head() -> None:
    """The share rounds down to an even number of dimensions."""
    assert [rotated_dims(64, f) for f in (0.0, 0.25, 0.26, 0.999, 1.0)] == [0, 16, 16, 62, 64]


class Recorder(torch.nn.Module):
    """Stands where a block would: adds its own number as a one-hot channel and keeps what it was given."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number, self.seen = number, torch.empty(0)

    def forward(self, x: Tensor, *_: Tensor) -> Tensor:
        self.seen = x
        return F.one_hot(torch.tensor(self.number), 16).to(x.dtype).expand_as(x)


@pytest.mark.parametrize(("layers", "pairs"), [(4, {2: 1, 3: 0}), (5, {2: 1, 3: 0}), (2, {1: 0})])
def test_skips_are_last_in_first_out(layers: int, pairs: dict[int, int]) -> None:
    """Block i of the second half gets the output of the block before plus, weighted, that of its mirror image."""
    model = GPT(settings(NUM_LAYERS=layers), VOCAB)
    with torch.no_grad():
        model.skip_scale.fill_(0.5)
    model.blocks = torch.nn.ModuleList(Recorder(number) for number in range(layers))
    model(ids(1, 3))
    for number in range(1, layers):
        expected = torch.zeros(16)
        expected[number - 1] += 1
        if number in pairs:
            expected[pairs[number]] += 0.5
        assert torch.equal(model.blocks[number].seen[0, 0], expected)


def test_skips_with_zero_weight_equal_no_skips() -> None:
    """A skip scaled by zero is the same function as the plain stack."""
    with_skips, without = random_model(NUM_LAYERS=4), random_model(NUM_LAYERS=4, SKIP_CONNECTIONS=0)
    with torch.no_grad():
        without.load_state_dict({k: v for k, v in with_skips.state_dict().items() if k != "skip_scale"})
        with_skips.skip_scale.zero_()
    torch.testing.assert_close(with_skips(ids(1, 6)), without(ids(1, 6)))


def test_seed_decides_the_weights() -> None:
    """The same seed gives the same weights, another seed others."""
    first, again, other = (GPT(settings(SEED=seed), VOCAB).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["embed"], other["embed"])


def test_every_parameter_has_a_role() -> None:
    """Roles cover the model, with shapes to match: matrices, embeddings and tables have two dimensions."""
    model = GPT(settings(NGRAM_MAX_ORDER=3, NGRAM_LOGITS=1), VOCAB)
    counts = {name: len(model.parameters_of(name)) for name in (MATRIX, EMBED, TABLE, VECTOR)}
    assert counts == {MATRIX: 2 * 6 + 1, EMBED: 2, TABLE: 1, VECTOR: 2 * 4 + 1}
    assert all(parameter.ndim == 2 for name, parameter in model.named_parameters() if role(name) != VECTOR)


def test_model_trains_after_it_scored_at_the_same_length() -> None:
    """What a forward keeps from inference mode must not poison the next backward."""
    model = GPT(settings(), VOCAB)
    with torch.inference_mode():
        model(ids(1, 8))
    model(ids(1, 8)).sum().backward()
    assert model.embed.grad is not None
