"""Training windows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.errors import DataError
from trainer.data.loader import Loader
from trainer.data.shards import Stream

TOKENS = (np.arange(1000) + 1).astype(np.uint16)  # token value = position + 1, so a window tells where it is from


def loader(seed: int = 5, tokens: object = TOKENS, seq_len: int = 8, rows: int = 12) -> Loader:
    return Loader(tokens, seq_len, rows * seq_len, seed, bos=0)


def rows_of(step: int, world: int, micros: int, source: Loader) -> tuple[np.ndarray, np.ndarray]:
    """The global batch, ranks in order, micro-batches in order within them."""
    parts = [source.batch(step, rank, world, micro, micros) for rank in range(world) for micro in range(micros)]
    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])


@pytest.mark.parametrize(("world", "micros"), [(1, 3), (2, 1), (2, 3), (3, 2), (12, 1), (1, 12)])
def test_global_batch_is_the_same_for_every_number_of_ranks(world, micros):
    """Rank-major concatenation gives the one-process batch, also where an epoch ends inside a step."""
    for step in range(25):
        one, many = rows_of(step, 1, 1, loader()), rows_of(step, world, micros, loader())
        assert (one[0] == many[0]).all()
        assert (one[1] == many[1]).all()


def test_targets_follow_their_inputs():
    """y is x one position on, int64, and each input is the token before its target."""
    x, y = loader().batch(0, 0, 1, 0, 1)
    assert x.dtype == y.dtype == np.int64
    assert x.shape == y.shape == (12, 8)
    assert (x[:, 1:] == y[:, :-1]).all()
    assert (x == y - 1).all()  # position + 1, so also true of the separator before the first token


@given(st.integers(0, 1000), st.integers(8, 200), st.integers(1, 8))
def test_epoch_shows_each_token_at_most_once(seed, size, seq_len):
    """Windows of one epoch never overlap, lie inside the stream, and leave out fewer than two windows' worth."""
    source = Loader(TOKENS[:size], seq_len, seq_len, seed, bos=0)
    for epoch in (0, 1):
        steps = range(epoch * source.windows_per_epoch, (epoch + 1) * source.windows_per_epoch)
        seen = np.concatenate([source.batch(step, 0, 1, 0, 1)[1].ravel() for step in steps])
        assert len(set(seen.tolist())) == len(seen) > size - 2 * seq_len
        assert 1 <= seen.min() <= seen.max() <= size


def test_epochs_and_seeds_have_different_orders():
    """A new seed or a new epoch is another permutation."""
    source = loader(rows=1)
    first, second = (
        [source.batch(e * source.windows_per_epoch + s, 0, 1, 0, 1)[1][0, 0] for s in range(20)] for e in (0, 1)
    )
    other = [loader(seed=6, rows=1).batch(step, 0, 1, 0, 1)[1][0, 0] for step in range(20)]
    assert list(first) != list(second)
    assert list(first) != other


def test_loader_depends_on_seed_and_step_alone():
    """Asking out of order or twice gives the same batch."""
    source = loader()
    forward = [source.batch(step, 0, 1, 0, 1)[1] for step in range(30)]
    for step in (29, 3, 17, 3):
        assert (source.batch(step, 0, 1, 0, 1)[1] == forward[step]).all()


def test_loader_reads_several_shards_as_one():
    """Windows cross the border between shards."""
    parts = Stream([TOKENS[:13], TOKENS[13:500], TOKENS[500:]])
    for step in range(5):
        assert (loader(tokens=parts).batch(step, 0, 1, 0, 1)[1] == loader().batch(step, 0, 1, 0, 1)[1]).all()


def test_loader_refuses_what_can_not_be_shared():
    """Rows must divide evenly; text must hold a window."""
    with pytest.raises(ValueError, match="can't be shared by 5 ranks"):
        loader().batch(0, 0, 5, 0, 1)
    with pytest.raises(ValueError, match="not a multiple"):
        Loader(TOKENS, 8, 12, 0, 0)
    with pytest.raises(DataError, match="7 tokens"):
        Loader(TOKENS[:7], 8, 8, 0, 0)
