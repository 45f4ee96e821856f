"""The score itself."""

from __future__ import annotations

import math

import pytest

from trainer.evaluate.bpb import Score, ScoreError, reference


def test_bpb_of_a_fair_coin_is_one_bit_per_token():
    """A uniform choice of two costs one bit, whatever the window."""
    found = reference(lambda context: [0.5, 0.5], [0, 1, 1, 0, 1], [1] * 5, seq_len=2, stride=1, bos=0)
    assert found.bpb == pytest.approx(1.0)
    assert found.loss == pytest.approx(math.log(2))


def test_bpb_divides_by_bytes_and_loss_by_tokens():
    """Two tokens that stand for eight bytes."""
    score = Score(nats=4.0, tokens=2, bytes=8, seconds=0.1)
    assert score.loss == 2.0
    assert score.bpb == pytest.approx(4.0 / math.log(2) / 8)


@pytest.mark.parametrize(
    ("nats", "tokens", "size"), [(math.nan, 1, 1), (math.inf, 1, 1), (-1.0, 1, 1), (1.0, 0, 1), (1.0, 1, 0)]
)
def test_score_that_is_no_number_is_refused(nats, tokens, size):
    """No sentinel ever sorts as a score."""
    with pytest.raises(ScoreError, match="no valid score"):
        Score(nats, tokens, size, 0.0)


def test_reference_shows_each_target_the_context_of_its_window():
    """Six targets, windows of four, stride two: the context of target t begins where its window does."""
    seen = []

    def predict(context):
        seen.append(tuple(context))
        return [0.1] * 10

    reference(predict, [1, 2, 3, 4, 5, 6], [1] * 6, seq_len=4, stride=2, bos=9)
    assert seen == [(9,), (9, 1), (9, 1, 2), (9, 1, 2, 3), (2, 3, 4), (2, 3, 4, 5)]
