"""The sliding window against its definition, token by token."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.tiny import call, environment, free_port
from tests.trainer.toys import VOCAB, Broken, Peeking, Toy
from trainer.evaluate import sliding
from trainer.evaluate.bpb import ScoreError, reference

HOW = {"seq_len": 8, "stride": 3, "batch": 4, "bos": 0, "device": "cpu"}


def stream(size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and byte lengths, some of them 0."""
    random = np.random.default_rng(seed)
    return random.integers(VOCAB, size=size).astype(np.uint16), random.integers(0, 4, size=size).astype(np.uint16) + (
        np.arange(size) == 0
    ).astype(np.uint16)


def per_token(model, tokens, lengths, **how):
    """Nats of every target."""
    found = np.full(len(tokens), np.nan)
    sliding.score(model, tokens, lengths, nlls=found, **(HOW | how))
    return found


@given(st.integers(0, 300), st.integers(1, 300), st.integers(1, 40), st.data())
def test_layout_scores_every_target_once_and_in_order(first, size, seq_len, data):
    """The new targets of the windows, one after the other, are exactly the range asked for."""
    stride = data.draw(st.integers(1, seq_len))
    targets = []
    for window in sliding.layout(first, first + size, seq_len, stride):
        stop = window.start + window.length
        assert window.length == min(seq_len, stop)
        assert 1 <= window.new <= window.length
        targets.extend(range(stop - window.new, stop))
    assert targets == list(range(first, first + size))


@pytest.mark.parametrize(("seq_len", "stride"), [(8, 0), (8, 9), (1, 2)])
def test_layout_refuses_an_impossible_stride(seq_len, stride):
    """A stride above the window would skip targets."""
    with pytest.raises(ValueError, match="stride="):
        list(sliding.layout(0, 10, seq_len, stride))


@pytest.mark.parametrize("size", [1, 5, 8, 9, 31, 47])
@pytest.mark.parametrize("stride", [1, 3, 8])
def test_sliding_equals_the_plain_python_reference(size, stride):
    """Same nats as scoring one token at a time by the definition, for texts shorter, equal and longer than the window."""
    model, (tokens, lengths) = Toy(), stream(size)

    def predict(context):
        return torch.softmax(model(torch.tensor([context]))[0, -1], -1).tolist()

    slow = reference(predict, tokens.tolist(), lengths.tolist(), seq_len=8, stride=stride, bos=0)
    fast = sliding.score(model, tokens, lengths, **(HOW | {"stride": stride}))
    assert fast.nats == pytest.approx(slow.nats, rel=1e-10)
    assert (fast.tokens, fast.bytes) == (slow.tokens, slow.bytes) == (size, int(lengths.sum()))


def test_sliding_batch_size_does_not_matter():
    """One window at a time or all together: the same nats."""
    tokens, lengths = stream(100)
    scores = [sliding.score(Toy(), tokens, lengths, **(HOW | {"batch": batch})).nats for batch in (1, 7, 1000)]
    assert scores == pytest.approx([scores[0]] * 3, rel=1e-12)


def test_sliding_first_target_is_predicted_from_the_separator():
    """Another separator changes the first score and, in this model, nothing beyond the first windows."""
    tokens, lengths = stream(60)
    one, other = per_token(Toy(), tokens, lengths, bos=0), per_token(Toy(), tokens, lengths, bos=3)
    assert one[0] != other[0]
    assert (one[8:] == other[8:]).all()


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 59), st.integers(0, 10), st.sampled_from([None, 16]))
def test_flip_of_a_token_changes_no_earlier_score(at, seed, chunk):
    """Everything from `at` on is replaced; every score before it stays the same to the last bit."""
    tokens, lengths = stream(60)
    flipped = tokens.copy()
    flipped[at:] = (tokens[at:] + 1 + np.random.default_rng(seed).integers(VOCAB - 1, size=60 - at)) % VOCAB
    before, after = (per_token(Toy(), text, lengths, chunk=chunk) for text in (tokens, flipped))
    assert (before[:at] == after[:at]).all()
    assert before[at] != after[at]


def test_flip_finds_a_model_that_reads_ahead():
    """The property above is no tautology: a model that peeks breaks it."""
    tokens, lengths = stream(60)
    flipped = tokens.copy()
    flipped[30:] = (tokens[30:] + 1) % VOCAB
    before, after = (per_token(Peeking(), text, lengths) for text in (tokens, flipped))
    assert (before[:30] != after[:30]).any()


def test_sliding_of_a_broken_model_raises():
    """A loss that is not a number is no score."""
    tokens, lengths = stream(20)
    with pytest.raises(ScoreError, match="nan nats over 20 tokens"):
        sliding.score(Broken(), tokens, lengths, **HOW)


def test_sliding_refuses_texts_that_do_not_fit_together():
    """Lengths and tokens go together, and there is no score of nothing."""
    tokens, lengths = stream(20)
    for pair in ((tokens, lengths[:-1]), (tokens[:0], lengths[:0])):
        with pytest.raises(ValueError, match="byte lengths"):
            sliding.score(Toy(), *pair, **HOW)


@pytest.mark.service
def test_two_processes_reach_the_score_of_one(tmp_path):
    """Windows shared over two gloo ranks give the same sums on both, and test-time training the same too."""
    script = tmp_path / "two.py"
    script.write_text(
        "from tests.trainer.test_sliding import HOW, Toy, stream\n"
        "from tests.trainer.toys import adapted_score\n"
        "from trainer import dist\n"
        "from trainer.config import Config\n"
        "from trainer.evaluate import sliding\n"
        "group = dist.start(Config(device='cpu', cpu_threads=1))\n"
        "a = sliding.score(Toy(), *stream(200), group=group, **HOW)\n"
        "b = adapted_score(Toy(), *stream(200), group=group, chunk=32, epochs=1, matrix_lr=.01, table_lr=.1, **HOW)\n"
        "if group.rank == RANK: print(a.nats, a.tokens, a.bytes, b.nats)\n"
        "group.stop()\n"
    )
    port = str(free_port())
    lines = []
    for speaker in (0, 1):
        launcher = tmp_path / f"launch{speaker}.py"
        launcher.write_text(
            "import os, subprocess, sys\n"
            f"code = open({str(script)!r}).read().replace('RANK', '{speaker}', 1).replace('rank == RANK', 'rank == {speaker}')\n"
            "both = [subprocess.Popen([sys.executable, '-c', code], env=os.environ | {'RANK': str(r), 'WORLD_SIZE': '2'})"
            " for r in (0, 1)]\n"
            "sys.exit(max(p.wait() for p in both))\n"
        )
        env = environment(tmp_path, MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
        done = call(launcher, env=env, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        lines.append([float(word) for word in done.stdout.split()])
    alone = sliding.score(Toy(), *stream(200), **HOW)
    assert lines[0] == lines[1]
    assert lines[0][:3] == pytest.approx([alone.nats, 200, alone.bytes], rel=1e-12)
