"""Hashed n-gram embeddings."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer.tiny import settings
from trainer.model.gpt import GPT
from trainer.model.ngram import hash_ngrams


def test_hash_depends_on_the_last_n_ids_only() -> None:
    """The row of order n at t changes when one of ids t-n+1 .. t does (nearly always), and never for any other."""
    base = torch.randint(0, 256, (200, 12), generator=torch.Generator().manual_seed(0))
    before, at = hash_ngrams(base, 6, 4096), 9
    for changed in range(12):
        other = base.clone()
        other[:, changed] = (other[:, changed] + 1) % 256
        differs = hash_ngrams(other, 6, 4096)[:, at] != before[:, at]
        for order in range(2, 7):
            share = differs[:, order - 2].double().mean().item()
            assert share > 0.98 if at - order < changed <= at else share == 0.0


def test_hash_uses_a_fixed_row_before_the_window_is_full() -> None:
    """Positions whose n-gram begins before the window take row 0, and no other position does."""
    rows = hash_ngrams(torch.randint(0, 256, (50, 9)), 6, 1000)
    for order in range(2, 7):
        assert (rows[:, : order - 1, order - 2] == 0).all()
        assert (rows[:, order - 1 :, order - 2] > 0).all()


def test_hash_does_not_depend_on_where_the_window_begins() -> None:
    """The same n-gram has the same row wherever it stands: evaluation windows meet the rows training filled."""
    stream = torch.randint(0, 256, (1, 30), generator=torch.Generator().manual_seed(1))
    whole, part = hash_ngrams(stream, 5, 512), hash_ngrams(stream[:, 7:], 5, 512)
    assert torch.equal(whole[:, 7 + 4 :], part[:, 4:])


@given(st.lists(st.integers(0, 65535), min_size=1, max_size=12), st.integers(16, 1 << 20))
def test_hash_stays_in_range(row: list[int], buckets: int) -> None:
    """Rows lie in [0, buckets) for any ids and any length, also windows shorter than an n-gram."""
    found = hash_ngrams(torch.tensor([row]), 6, buckets)
    assert found.shape == (1, len(row), 5)
    assert found.min() >= 0 and found.max() < buckets


def test_hash_spreads_over_the_buckets() -> None:
    """Random n-grams fill buckets about as evenly as chance: 63 % of them after as many draws as buckets."""
    rows = hash_ngrams(torch.randint(0, 256, (1, 4096), generator=torch.Generator().manual_seed(2)), 6, 4096)
    for order in range(2, 7):
        assert 0.60 < len(rows[0, :, order - 2].unique()) / 4096 < 0.66


def test_hash_has_known_values() -> None:
    """Golden rows: artifacts trained yesterday must find their rows tomorrow."""
    rows = hash_ngrams(torch.tensor([[104, 101, 108, 108, 111, 33]]), 6, 32768)
    assert rows[0, -1].tolist() == [15247, 28299, 7958, 22349, 21189]


def test_ngrams_off_leaves_all_other_weights_alone() -> None:
    """Switching tables on draws nothing from the shared stream, and the model starts as the very same function."""
    plain = GPT(settings(), 256)
    grown = GPT(settings(NGRAM_MAX_ORDER=6, NGRAM_LOGITS=1), 256)
    for name, weight in plain.state_dict().items():
        assert torch.equal(weight, grown.state_dict()[name]), name
    ids = torch.randint(0, 256, (2, 16))
    assert torch.equal(plain(ids), grown(ids))
    assert list(plain.table_parameters()) == []
    assert [tuple(table.shape) for table in grown.table_parameters()] == [(5 * 64, 16)]


def test_ngrams_all_factors_learn() -> None:
    """After one step along the gradient every n-gram parameter has a gradient: no product of zeros stays dead."""
    model = GPT(settings(NGRAM_MAX_ORDER=3, NGRAM_LOGITS=1), 256)
    ids = torch.randint(0, 256, (4, 16))
    for _ in range(2):
        model.zero_grad()
        F.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.sub_(parameter.grad)
    assert all(parameter.grad.norm() > 0 for parameter in model.ngrams.parameters())


def test_ngrams_seed_differs_from_the_shared_stream() -> None:
    """The projection is drawn from a stream of its own, which the seed decides too."""
    one, two = (GPT(settings(NGRAM_MAX_ORDER=2, SEED=seed), 256).ngrams.project for seed in (1, 2))
    assert not torch.equal(one, two)
