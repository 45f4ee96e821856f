"""Training windows."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st

from tests.trainer.tiny import dataset, settings
from trainer.data.cuts import document_cuts, document_starts
from trainer.data.errors import DataError
from trainer.data.loader import KINDS, DocumentLoader, Loader, coprime
from trainer.data.preread import PreRead, open_loader
from trainer.data.shards import Stream
from trainer.dist import Group
from trainer.metrics import Metrics
from trainer.train import Run

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


def documents(sizes: list[int], leading: bool = False) -> tuple[np.ndarray, list[int]]:
    """A stream of documents of 1, 2, ... (their number) between zeros, and the places of their first targets.

    Without a zero in front, an empty first document can't be told from one; it then holds a token.
    """
    sizes = sizes if leading else [max(1, sizes[0]), *sizes[1:]]
    stream, starts = [0] if leading else [], []
    for number, size in enumerate(sizes):
        if number:
            stream.append(0)
        starts.append(len(stream))
        stream += [number % 9 + 1] * size
    return np.array(stream, dtype=np.uint16), starts


SIZES = st.lists(st.integers(0, 30), min_size=1, max_size=12)


@given(SIZES, st.booleans())
def test_document_starts_are_found(sizes, leading):
    """Empty documents, a separator in front of all: contest shards have one."""
    stream, starts = documents(sizes, leading)
    for tokens in (stream, Stream([stream[:7], stream[7:]])):
        assert document_starts(tokens, bos=0).tolist() == starts


@given(SIZES, st.integers(1, 12), st.booleans())
def test_document_windows_begin_with_their_document(sizes, seq_len, leading):
    """Each window starts a whole number of windows after its document's start; no token is left out, none comes thrice."""
    stream, starts = documents(sizes, leading)
    try:
        cuts = document_cuts(stream, seq_len, bos=0).tolist()
    except DataError:
        assert starts[0] + seq_len > len(stream)
        return
    times = np.zeros(len(stream), int)
    for cut in cuts:
        own = max(start for start in starts if start <= cut)
        assert (cut - own) % seq_len == 0
        times[cut : cut + seq_len] += 1
    assert times.max() <= 2
    assert (times[starts[0] : cuts[-1] + seq_len] >= 1).all()
    follow = [*starts, cuts[-1] + seq_len]
    assert any(cuts[-1] < place <= cuts[-1] + seq_len and place + seq_len > len(stream) for place in follow)


def document_loader(seed: int = 5, rows: int = 8, seq_len: int = 8) -> DocumentLoader:
    sizes = np.random.default_rng(0).integers(0, 60, 100).tolist()
    return DocumentLoader(documents(sizes)[0], seq_len, rows * seq_len, seed, bos=0)


def test_document_loader_shows_each_window_once_an_epoch():
    """A stride coprime to the number of windows visits all of them; other epochs and seeds have another order."""
    source = document_loader(rows=1)
    count = source.windows_per_epoch
    orders = [[source._start(epoch, index) for index in range(count)] for epoch in (0, 1)]
    assert [sorted(order) for order in orders] == [sorted(source._cuts.tolist())] * 2
    assert orders[0] != orders[1]
    assert orders[0] != [document_loader(seed=6, rows=1)._start(0, index) for index in range(count)]
    steps = {
        (after - before) % count for before, after in itertools.pairwise(map(source._cuts.tolist().index, orders[0]))
    }
    assert len(steps) == 1
    assert math.gcd(steps.pop(), count) == 1


@given(st.integers(0, 99), st.integers(1, 40))
def test_coprime_stride_has_no_divisor_in_common(seed, count):
    """Also for one window, or two."""
    stride = coprime(np.random.default_rng(seed), count)
    assert math.gcd(stride, count) == 1
    assert 1 <= stride < max(count, 2)


def test_document_loader_refuses_text_without_a_window():
    """One line that names the setting."""
    stream = np.array([0, 1, 2, 3], dtype=np.uint16)
    with pytest.raises(DataError, match="TRAIN_SEQ_LEN"):
        DocumentLoader(stream, 4, 4, 0, bos=0)


@pytest.mark.parametrize("kind", ["windows", "documents"])
@pytest.mark.parametrize("preread", [False, True])
@pytest.mark.parametrize(("world", "micros"), [(1, 1), (2, 1), (8, 1), (2, 4)])
def test_every_loader_gives_the_same_global_batch(kind, preread, world, micros):
    """1, 2 and 8 ranks, with and without a thread: the bits of one process that reads when it is asked."""
    stream = documents(np.random.default_rng(0).integers(0, 60, 100).tolist())[0]
    config = settings(LOADER=kind, PREREAD=preread, TRAIN_SEQ_LEN=16, TRAIN_BATCH_TOKENS=8 * 16)
    plain = KINDS[kind](stream, 16, 8 * 16, config.seed, bos=0)
    ranks = [open_loader(config, stream, 16, bos=0) for _ in range(world)]
    for step in range(40):
        x, y = plain.batch(step, 0, 1, 0, 1)
        parts = [
            ranks[rank].batch(step, rank, world, micro, micros) for rank in range(world) for micro in range(micros)
        ]
        assert np.concatenate([part[0] for part in parts]).tobytes() == x.tobytes()
        assert np.concatenate([part[1] for part in parts]).tobytes() == y.tobytes()
    for one in ranks:
        one.close()


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 1)), max_size=12))
@settings_of_hypothesis(deadline=None, max_examples=50)
def test_preread_answers_whatever_is_asked(asked):
    """Steps back, repeats and jumps, as warm-up and a change of context make them."""
    ahead, plain = PreRead(loader()), loader()
    for step, micro in asked:
        found, expected = ahead.batch(step, 0, 1, micro, 2), plain.batch(step, 0, 1, micro, 2)
        assert all((a == b).all() for a, b in zip(found, expected, strict=True))
    ahead.close()
    assert not ahead._thread.is_alive()


class Failing(Loader):
    """A disk that gives out at step 3."""

    def batch(self, step, rank, world, micro, micros):
        if step == 3:
            raise OSError(5, "Input/output error")
        return super().batch(step, rank, world, micro, micros)


def test_preread_raises_what_its_thread_met():
    """Good batches first, then the error, as often as it is asked; never a hang."""
    ahead = PreRead(Failing(TOKENS, 8, 96, 5, bos=0))
    for step in range(3):
        ahead.batch(step, 0, 1, 0, 1)
    for _ in range(2):
        with pytest.raises(OSError, match="Input/output error"):
            ahead.batch(3, 0, 1, 0, 1)
    ahead.close()


def test_preread_notices_a_thread_that_is_gone():
    """Stopped without an error of its own."""
    ahead = PreRead(loader())
    ahead.close()
    with pytest.raises(RuntimeError, match="gone"):
        ahead.batch(0, 0, 1, 0, 1)


def test_preread_error_ends_the_run(monkeypatch, tmp_path):
    """Training stops with the thread's error, and its other threads do not keep it alive."""
    monkeypatch.setitem(KINDS, "windows", Failing)
    run = Run(
        settings(PREREAD=1, ITERATIONS=9), dataset(), Group(0, 1, 0, 1, torch.device("cpu")), Metrics(tmp_path, 0)
    )
    with pytest.raises(OSError, match="Input/output error"):
        run.loop()


@pytest.mark.parametrize("kind", ["windows", "documents"])
def test_preread_training_is_the_same_to_the_last_bit(kind, tmp_path):
    """Also where the context grows, and micro-batches are read one by one."""
    trained = []
    for preread in (0, 1):
        more = {"CONTEXT_SCHEDULE": "8@0,16@0.5", "GRAD_ACCUM_STEPS": 2, "LOADER": kind, "PREREAD": preread}
        run = Run(settings(**more), dataset(), Group(0, 1, 0, 1, torch.device("cpu")), Metrics(tmp_path, 0))
        run.loop()
        trained.append([parameter.detach().clone() for parameter in run.parameters])
        for one in run.loaders.values():
            one.close()
    assert all(torch.equal(a, b) for a, b in zip(*trained, strict=True))
