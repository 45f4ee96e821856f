"""Score-first test-time training: order, causality, and a slow second implementation."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.test_sliding import HOW, stream
from tests.trainer.tiny import settings as small
from tests.trainer.toys import VOCAB, Toy, adapted_score
from trainer.evaluate import sliding, ttt
from trainer.evaluate.bpb import ScoreError
from trainer.evaluate.walk import Event
from trainer.model.gpt import GPT

LEARN = {"chunk": 16, "epochs": 2, "matrix_lr": 0.01, "table_lr": 0.05}


def gpt() -> GPT:
    """The trainer's own model with its tables filled, so that they take part."""
    model = GPT(small(NGRAM_MAX_ORDER=3, NGRAM_LOGITS=1), VOCAB)
    with torch.no_grad():
        for table in model.table_parameters():
            table.normal_(generator=torch.Generator().manual_seed(3))
    return model


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("make", [Toy, gpt])
@pytest.mark.parametrize("chunk", [1, 5, 16, 1000])
def test_ttt_with_rates_zero_is_the_static_score_bit_for_bit(make, chunk, optimizer):
    """Not learning changes nothing: same windows, same weights, same sum."""
    tokens, lengths = stream(70)
    static = sliding.score(make(), tokens, lengths, chunk=chunk, **HOW)
    adapted = adapted_score(
        make(),
        tokens,
        lengths,
        **HOW,
        **(LEARN | {"chunk": chunk, "matrix_lr": 0.0, "table_lr": 0.0}),
        optimizer=optimizer,
    )
    assert adapted.nats == static.nats
    assert (adapted.tokens, adapted.bytes) == (static.tokens, static.bytes)


@pytest.mark.parametrize("epochs", [1, 3])
def test_ttt_scores_each_token_before_any_update_on_it_and_once(epochs):
    """The order log: one pass from left to right, no rescoring, updates only on the chunk that was just scored."""
    tokens, lengths = stream(70)
    order: list[Event] = []
    adapted_score(Toy(), tokens, lengths, order=order, **HOW, **(LEARN | {"epochs": epochs}))
    scored: list[int] = []
    updates = 0
    for event in order:
        if event.kind == "score":
            assert event.before == event.after
            scored += event.at.tolist()
        else:
            assert event.before != event.after
            assert event.at.tolist() == scored[-16:]
            updates += 1
    assert scored == list(range(70))
    assert updates == epochs * 4


def test_ttt_by_sgd_equals_a_slow_second_implementation():
    """Momentum, clipping and the cosine over chunks, with torch's own optimiser on a plain copy."""
    tokens, lengths = stream(50)
    chunk, window = 16, 8
    full = torch.tensor([0, *tokens.tolist()])
    model = Toy()
    groups = [{"params": [model.embed, model.out], "lr": 0.1}, {"params": [model.table], "lr": 0.5}]
    sgd = torch.optim.SGD(groups, momentum=0.8)
    rates = [group["lr"] for group in sgd.param_groups]
    total = 0.0
    for number, first in enumerate(range(0, 50, chunk)):
        stop = min(first + chunk, 50)
        with torch.no_grad():
            for at in range(first, stop):
                # Flat windows of the chunk: the context of a target begins where its window does.
                end = min(first + ((at - first) // window + 1) * window, stop)
                start = max(0, end - window)
                total -= torch.log_softmax(model(full[start : at + 1][None])[0, -1], -1)[tokens[at]].item()
        for group, rate in zip(sgd.param_groups, rates, strict=True):
            group["lr"] = rate * (1 + math.cos(math.pi * number / 3)) / 2
        sgd.zero_grad()
        loss = torch.zeros((), dtype=torch.float64)
        for at in range(first, stop, window):
            end = min(at + window, stop)
            start = max(0, end - window)
            rows = F.cross_entropy(model(full[start:end][None])[0], full[start + 1 : end + 1], reduction="none")
            loss = loss + rows[at - start :].sum()
        (loss / (stop - first)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.05)
        sgd.step()
    how = LEARN | {"epochs": 1, "matrix_lr": 0.1, "table_lr": 0.5, "optimizer": "sgd", "momentum": 0.8}
    found = adapted_score(Toy(), tokens, lengths, clip=0.05, cosine=True, **(HOW | {"stride": 8}), **how)
    assert found.nats == pytest.approx(total, rel=1e-9)
    static = sliding.score(Toy(), tokens, lengths, **(HOW | {"stride": 8}), chunk=chunk)
    assert found.nats != pytest.approx(static.nats, rel=1e-6)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 69), st.sampled_from([Toy, gpt]))
def test_ttt_flip_of_a_token_changes_no_earlier_score(at, make):
    """Weights adapt, yet nothing from `at` on can reach a score before it."""
    tokens, lengths = stream(70)
    flipped = tokens.copy()
    flipped[at:] = (tokens[at:] + 1) % VOCAB
    found = []
    for text in (tokens, flipped):
        nlls = np.full(70, np.nan)
        adapted_score(make(), text, lengths, nlls=nlls, **HOW, **LEARN)
        found.append(nlls)
    assert np.isfinite(found).all()
    assert (found[0][:at] == found[1][:at]).all()
    assert found[0][at] != found[1][at]


def test_ttt_equals_a_slow_second_implementation():
    """Windows written out by hand, one row at a time, with torch's Adam on a plain copy."""
    tokens, lengths = stream(50)
    size, chunk, window = 50, 16, 8
    full = torch.tensor([0, *tokens.tolist()])
    model = Toy()
    adam = torch.optim.Adam(
        [{"params": [model.embed, model.out], "lr": 0.01}, {"params": [model.table], "lr": 0.05}], betas=ttt.BETAS
    )
    total = 0.0
    for first in range(0, size, chunk):
        stop = min(first + chunk, size)
        at = first
        while at < stop:
            end = min(at + (window if at == 0 else 3), stop)
            start = max(0, end - window)
            with torch.no_grad():
                logits = model(full[start:end][None])[0]
            total += F.cross_entropy(logits, full[start + 1 : end + 1], reduction="none")[at - start :].sum().item()
            at = end
        for _ in range(2):
            adam.zero_grad()
            loss = torch.zeros((), dtype=torch.float64)
            for at in range(first, stop, window):
                end = min(at + window, stop)
                start = max(0, end - window)
                rows = F.cross_entropy(model(full[start:end][None])[0], full[start + 1 : end + 1], reduction="none")
                loss = loss + rows[at - start :].sum()
            (loss / (stop - first)).backward()
            adam.step()
    found = adapted_score(Toy(), tokens, lengths, **HOW, **LEARN)
    assert found.nats == pytest.approx(total, rel=1e-9)


def test_ttt_leaves_the_model_as_it_was():
    """Weights, gradients and the ability to train stay untouched."""
    model = gpt()
    before = copy.deepcopy(model.state_dict())
    adapted_score(model, *stream(70), **HOW, **LEARN)
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_ttt_learns_a_text_that_repeats():
    """On a short cycle the adapted score is clearly below the static one."""
    tokens = np.tile(np.array([1, 2, 3, 4, 5], dtype=np.uint16), 60)
    lengths = np.ones(300, dtype=np.uint16)
    static = sliding.score(Toy(), tokens, lengths, **HOW)
    adapted = adapted_score(Toy(), tokens, lengths, **HOW, **LEARN)
    assert adapted.bpb < 0.7 * static.bpb


def test_ttt_that_diverges_raises():
    """Rates beyond all reason end in an error, not in a number."""
    with pytest.raises(ScoreError, match="no valid score"):
        adapted_score(Toy(), *stream(70), **HOW, **(LEARN | {"matrix_lr": 1e308, "table_lr": 1e308}))


def test_ttt_refuses_an_empty_chunk():
    """A chunk holds at least one target."""
    with pytest.raises(ValueError, match="chunk=0"):
        adapted_score(Toy(), *stream(70), **HOW, **(LEARN | {"chunk": 0}))
