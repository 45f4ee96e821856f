"""BigramHash against its definition."""

from __future__ import annotations

import itertools

import torch

from tests.trainer.switches import VOCAB, built, loss, text
from tests.trainer.tiny import settings
from trainer.model.bigram import hash_pairs
from trainer.model.documents import document_starts
from trainer.model.gpt import GPT
from trainer.model.roles import MATRIX, TABLE
from trainer.optim.groups import Optimizers

ON = {"BIGRAM_VOCAB_SIZE": 64, "BIGRAM_DIM": 8}


def test_pairs_hash_as_defined() -> None:
    """(36313 x_t XOR 27191 x_{t-1}) mod (N - 1) in Python's own integers; the last row for document starts."""
    ids = torch.tensor([[3, 65535, 0, 7, 1023]])
    found = hash_pairs(ids, document_starts(ids, 0), 1000)[0].tolist()
    row = ids[0].tolist()
    expected = [((36313 * b) ^ (27191 * a)) % 999 for a, b in itertools.pairwise(row)]
    assert found == [999, expected[0], 999, expected[2], expected[3]]


def test_pairs_depend_on_two_ids_alone() -> None:
    """The same pair names the same row wherever it stands."""
    ids = torch.tensor([[4, 9, 9, 4, 9, 0, 4, 9]])
    found = hash_pairs(ids, document_starts(ids, 0), 512)[0]
    assert found[1] == found[4] == found[7]
    assert found[1] != found[2]


def test_bigram_is_born_as_nothing_with_one_factor_alive() -> None:
    """The table is zero, so the baseline's bits come out; P is orthogonal, the scale 0.05."""
    model = GPT(settings(**ON), VOCAB)
    assert torch.equal(model(text(2)), GPT(settings(), VOCAB)(text(2)))
    assert not model.bigram.tables.any()
    assert model.bigram.bigram_scale.item() == torch.tensor(0.05).item()
    gram = model.bigram.project.T @ model.bigram.project
    torch.testing.assert_close(gram, torch.eye(8), atol=1e-5, rtol=0)


def test_bigram_factors_both_learn_after_one_step() -> None:
    """Step one moves the table, and from step two on every factor has a gradient."""
    config = settings(**ON)
    model = GPT(config, VOCAB)
    optimizers = Optimizers(model, config)
    loss(model, text(4)).backward()
    assert model.bigram.tables.grad.abs().sum() > 0
    optimizers.step(scale=1.0, momentum=0.9)
    optimizers.clear()
    loss(model, text(4)).backward()
    for parameter in model.bigram.parameters():
        assert parameter.grad.abs().sum() > 0


def test_bigram_adds_scaled_rows() -> None:
    """What is added is scale * P * Table[hash], summed into the embedding before its norm."""
    model, ids = built(settings(**ON)), text(2)
    layer = model.bigram
    rows = layer.tables[hash_pairs(ids, document_starts(ids, 0), 64)]
    torch.testing.assert_close(layer(ids, document_starts(ids, 0)), layer.bigram_scale * rows @ layer.project.T)


def test_bigram_parameters_have_their_roles() -> None:
    """The table is stored and trained as a table, P as a matrix."""
    model = GPT(settings(**ON), VOCAB)
    assert any(parameter is model.bigram.tables for parameter in model.parameters_of(TABLE))
    assert any(parameter is model.bigram.project for parameter in model.parameters_of(MATRIX))
