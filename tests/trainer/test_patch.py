"""Byte patches: causal within a patch too, honest distributions, every byte scored once in the same phase."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.trainer.tiny import settings
from tests.trainer.toys import adapted_score
from trainer.config import Config, SettingsError
from trainer.evaluate import sliding
from trainer.evaluate.bpb import reference
from trainer.model.gpt import GPT
from trainer.model.parts import Pass, rms
from trainer.model.patch import Patches
from trainer.model.patch_heads import KINDS, Autoregressive, CausalConv, Conditioned
from trainer.optim.groups import Optimizers
from trainer.options.patch import DECODERS, SIZES

INDEPENDENT = ("flat", "position_mlp")


def config(size: int = 4, decoder: str = "causal_conv", **values: object) -> Config:
    """Windows of three patches of the tiny model."""
    length = 3 * size
    sizes = {"TRAIN_SEQ_LEN": length, "TRAIN_BATCH_TOKENS": 2 * length, "EVAL_STRIDE": size, "PATCH_DIM": 8}
    return settings(**(sizes | {"PATCH_SIZE": size, "PATCH_DECODER": decoder} | values))


def noisy(module: torch.nn.Module) -> torch.nn.Module:
    """In float64, and no weight as it was born."""
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.double().parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=noise, dtype=torch.float64) * 0.3)
    return module


def model(size: int, decoder: str, vocab: int = 16, **values: object) -> GPT:
    """A model that uses all of its paths."""
    return noisy(GPT(config(size, decoder, **values), vocab))


def ids(batch: int, length: int, vocab: int = 16, seed: int = 0) -> Tensor:
    return torch.randint(0, vocab, (batch, length), generator=torch.Generator().manual_seed(seed))


def plain_pass() -> Pass:
    """A pass for parts that need no positions."""
    return Pass(torch.empty(0), torch.empty(0), torch.empty(0))


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("size", SIZES[1:])
def test_byte_is_predicted_from_the_bytes_before_it_alone(size: int, decoder: str) -> None:
    """Another id at t leaves the rows before t as they were, also inside its patch; and row t itself where it should."""
    patched, length = model(size, decoder), 2 * size + 1
    clean = ids(1, length)
    before = patched(clean)
    for at in range(length):
        changed = clean.clone()
        changed[:, at] = (changed[:, at] + 1) % 16
        after = patched(changed)
        assert torch.equal(after[:, :at], before[:, :at]), f"a row before {at} sees it"
        # Row t = jP comes from the trunk, which has just read id t; the rows behind it only if the decoder reads the patch.
        expected = at % size == 0 or decoder not in INDEPENDENT
        assert torch.equal(after[:, at], before[:, at]) is not expected
        assert at // size == (length - 1) // size or not torch.equal(after[:, -1], before[:, -1])


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("context", [1, 4, 5])
def test_probabilities_of_all_pairs_of_bytes_sum_to_one(decoder: str, context: int) -> None:
    """P = 2: p(b1 b2 | context) over all 256^2 continuations, one patch (odd context) or across two."""
    patched = model(2, decoder, vocab=256)
    rows = torch.cat([ids(1, context, 256).expand(256, -1), torch.arange(256).unsqueeze(1)], dim=1)
    logs = patched(rows).log_softmax(-1)
    first, second = logs[:, context - 1].diagonal(), logs[:, context]
    assert (first.unsqueeze(1) + second).exp().sum().item() == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("decoder", DECODERS)
def test_probabilities_of_all_patches_sum_to_one(decoder: str) -> None:
    """P = 4 over an alphabet of three: the 81 patches after a context, each scored as the evaluation scores it."""
    patched = model(4, decoder, vocab=3)
    ends = torch.tensor(list(itertools.product(range(3), repeat=4)))
    rows = torch.cat([ids(1, 5, 3).expand(81, -1), ends], dim=1)
    logs = patched(rows[:, :-1]).log_softmax(-1)[:, 4:]
    assert logs.gather(2, ends.unsqueeze(2)).sum((1, 2)).exp().sum().item() == pytest.approx(1.0, abs=1e-9)


def test_patch_of_one_byte_is_the_plain_model_to_the_last_bit() -> None:
    """P = 1 with identities for the two maps computes what the byte model computes; PATCH_SIZE=1 builds nothing at all."""
    plain = GPT(settings(), 16)
    assert plain.patches is None
    before = plain(ids(2, 9))
    plain.patches = Patches(settings(PATCH_DIM=16, PATCH_DECODER="flat"))
    with torch.no_grad():
        plain.patches.project.copy_(torch.eye(16))
        plain.patches.decoder.expand.copy_(torch.eye(16))
    assert torch.equal(plain(ids(2, 9)), before)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_gather_and_scatter_put_every_byte_where_it_belongs(size: int) -> None:
    """Input patch j ends with id jP behind P - 1 learned bytes; the decoder of patch j gets ids jP + 1 .. jP + P - 1."""
    patches, length = noisy(Patches(config(size))), 3 * size - 1
    x = torch.randn(1, length, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    stream = torch.cat([patches.bos_patch, x[0], torch.zeros(size, 8, dtype=torch.float64)])
    found = patches.gather(x, None)
    for j in range(3):
        torch.testing.assert_close(found[0, j], patches.project @ stream[j * size : (j + 1) * size].flatten())

    class Spy(torch.nn.Module):
        def forward(self, h: Tensor, seen: Tensor, shared: Pass) -> Tensor:
            for j in range(3):
                ahead = stream[(j + 1) * size : (j + 2) * size - 1]  # the stream leads by P - 1
                assert torch.equal(seen[0, j], ahead)
            return torch.zeros(1, 3 * size, 8)

    patches.decoder = Spy()
    assert patches.scatter(found, x, plain_pass()).shape == (1, length, 8)


@pytest.mark.parametrize("kind", [Conditioned, CausalConv])
def test_convolution_equals_its_sum(kind: type[Conditioned]) -> None:
    """c_i = W_i h + sum over k of R_k byte_{i-k}, written out; causal_conv adds its MLP to it."""
    decoder = noisy(kind(config(4, PATCH_DIM=8)))
    random = torch.Generator().manual_seed(3)
    h, seen = (torch.randn(*shape, dtype=torch.float64, generator=random) for shape in ((1, 2, 16), (1, 2, 3, 8)))
    found = decoder(h, seen, plain_pass()).view(1, 2, 4, 8)
    kernel = decoder.kernel.view(8, 3, 8)  # column block m belongs to the byte P - 1 - m places back
    for j, i in itertools.product(range(2), range(4)):
        c = decoder.expand.view(4, 8, 16)[i] @ h[0, j]
        for k in range(1, i + 1):
            c = c + kernel[:, 3 - k] @ rms(seen[0, j, i - k])
        if kind is CausalConv:
            (layer,) = decoder.layers
            c = rms(c + layer.down @ F.relu(layer.up @ rms(c)).square())
        torch.testing.assert_close(found[0, j, i], c)


def test_autoregressive_decoder_gives_the_same_byte_by_byte() -> None:
    """State i of a patch equals state i when the patch's later bytes are not there yet, and patches do not see each other."""
    decoder = noisy(Autoregressive(config(4, PATCH_LAYERS=2)))
    random = torch.Generator().manual_seed(3)
    h, seen = (torch.randn(*shape, dtype=torch.float64, generator=random) for shape in ((2, 3, 16), (2, 3, 3, 8)))
    whole = decoder(h, seen, plain_pass()).view(2, 3, 4, 8)
    for i in range(4):
        partial = seen.clone()
        partial[:, :, i:] = 7.0
        one = decoder(h[:, 1:2], partial[:, 1:2], plain_pass())
        torch.testing.assert_close(one[:, i], whole[:, 1, i])


def test_conditioned_decoders_learn_what_independent_ones_cannot() -> None:
    """Pairs of equal random bytes: nothing but the patch's first byte tells the second. 4 bits a byte if blind, 2 if not."""
    reached = {}
    for decoder in ("flat", "causal_conv"):
        small = config(2, decoder, PATCH_DIM=16, MATRIX_LR=0.05, EMBED_LR=0.05)
        patched = GPT(small, 16)
        optimizers = Optimizers(patched, small)
        random = torch.Generator().manual_seed(0)
        for _ in range(60):
            pairs = torch.randint(0, 16, (64, 3), generator=random).repeat_interleave(2, dim=1)
            rows = torch.cat([torch.zeros(64, 1, dtype=torch.int64), pairs], dim=1)
            optimizers.clear()
            loss = F.cross_entropy(patched(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
            loss.backward()
            optimizers.step(scale=1.0, momentum=0.9)
        reached[decoder] = loss.item() / np.log(2)
    assert reached["flat"] > 3.8
    assert reached["causal_conv"] < 2.6


@pytest.mark.parametrize("decoder", DECODERS)
def test_padding_changes_neither_rows_nor_score(decoder: str) -> None:
    """Ids behind the end leave the rows before as they are; a text cut inside a patch scores as it does when filled up."""
    patched, row = model(4, decoder), ids(2, 12)
    for length in range(1, 12):
        filled = patched(row[:, : -(-length // 4) * 4])[:, :length]
        torch.testing.assert_close(patched(row[:, :length]), filled, rtol=1e-12, atol=1e-12)
    text = ids(1, 40)[0].numpy().astype(np.uint16)
    cut, full = np.zeros(37), np.zeros(40)
    for found in (cut, full):
        size = len(found)
        sliding.score(patched, text[:size], np.ones(size, np.uint16), **HOW | {"stride": 8, "seq_len": 16}, nlls=found)
    np.testing.assert_allclose(full[:37], cut, rtol=1e-12)


HOW = {"seq_len": 12, "stride": 4, "batch": 3, "bos": 0, "device": "cpu", "patch": 4}


@pytest.mark.parametrize("size", [1, 3, 12, 13, 30])
def test_sliding_counts_every_byte_once_and_equals_the_reference(size: int) -> None:
    """Same nats as byte by byte from the definition, also where the text ends inside a patch; all bytes are counted."""
    patched, text = model(4, "autoregressive"), ids(1, size)[0].numpy().astype(np.uint16)

    def predict(context: list[int]) -> list[float]:
        return patched(torch.tensor([context]))[0, -1].softmax(-1).tolist()

    slow = reference(predict, text.tolist(), [1] * size, seq_len=12, stride=4, bos=0, patch=4)
    fast = sliding.score(patched, text, np.ones(size, np.uint16), **HOW)
    assert fast.nats == pytest.approx(slow.nats, rel=1e-10)
    assert (fast.tokens, fast.bytes) == (size, size)


@pytest.mark.parametrize(("size", "seq_len", "stride"), [(29, 12, 4), (100, 24, 8), (5, 12, 12)])
def test_layout_keeps_every_target_in_its_phase(size: int, seq_len: int, stride: int) -> None:
    """Every window starts at a multiple of the patch, reaches at most seq_len, and the new targets are all, once, in order."""
    targets = []
    for window in sliding.layout(0, size, seq_len, stride, patch=4):
        assert window.start % 4 == 0
        assert window.new <= window.length <= seq_len
        targets.extend(range(window.start + window.length - window.new, window.start + window.length))
    assert targets == list(range(size))


@pytest.mark.parametrize(("first", "seq_len", "stride"), [(2, 12, 4), (0, 10, 4), (0, 12, 3)])
def test_layout_refuses_steps_that_cut_a_patch(first: int, seq_len: int, stride: int) -> None:
    """Half a patch would put the targets behind it into another phase."""
    with pytest.raises(ValueError, match="multiples of the patch size 4"):
        list(sliding.layout(first, 50, seq_len, stride, patch=4))


def test_test_time_training_of_patches_scores_first() -> None:
    """With rates of zero it is the static score to the last bit; with rates, later bytes change no earlier score."""
    patched, text = model(4, "moe"), ids(1, 47)[0].numpy().astype(np.uint16)
    ones = np.ones(47, np.uint16)
    learn = {"chunk": 16, "epochs": 1, "matrix_lr": 0.0, "table_lr": 0.0}
    static = sliding.score(patched, text, ones, **HOW, chunk=16)
    assert adapted_score(patched, text, ones, **HOW, **learn).nats == static.nats
    found = []
    for at in (47, 21):
        other, nlls = text.copy(), np.zeros(47)
        other[at:] = (other[at:] + 1) % 16
        adapted_score(patched, other, ones, **HOW, **learn | {"matrix_lr": 0.01}, nlls=nlls)
        found.append(nlls)
    assert (found[0][:21] == found[1][:21]).all()
    assert (found[0][21:] != found[1][21:]).any()


@pytest.mark.parametrize("decoder", ["autoregressive", "moe"])
def test_patch_model_traces_as_one_graph(decoder: str) -> None:
    """torch.compile finds no break in it, and what it traced gives the same logits."""
    patched, row = model(4, decoder), ids(2, 12)
    compiled = torch.compile(patched, backend="eager", fullgraph=True, dynamic=False)
    torch.testing.assert_close(compiled(row), patched(row))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"TOKENIZER": "sp1024"}, "needs TOKENIZER=bytes"),
        ({"EVAL_STRIDE": 6}, "EVAL_STRIDE=6 is not a multiple of PATCH_SIZE=4"),
        ({"TRAIN_SEQ_LEN": 10, "TRAIN_BATCH_TOKENS": 40}, "TRAIN_SEQ_LEN=10 is not a multiple"),
        ({"TTT_ENABLED": 1, "TTT_CHUNK_BYTES": 1022}, "TTT_CHUNK_BYTES=1022 is not a multiple"),
        ({"NGRAM_MAX_ORDER": 2}, "NGRAM_MAX_ORDER=2 can't go with PATCH_SIZE=4"),
        ({"CONTEXT_SCHEDULE": "6@0,12@0.5", "TRAIN_BATCH_TOKENS": 24}, "6 is not a multiple of PATCH_SIZE=4"),
        ({"VE_ENABLED": 1}, "VE_ENABLED=True can't go with"),
        ({"SMEAR_GATE": "token"}, "SMEAR_GATE=token can't go with"),
    ],
)
def test_patch_settings_refuse_what_makes_no_sense(values: dict[str, object], message: str) -> None:
    """One line says which setting and why."""
    with pytest.raises(SettingsError, match=message):
        config(**values)


def test_every_decoder_is_declared() -> None:
    """What the settings offer is what the model has."""
    assert set(KINDS) == set(DECODERS)
