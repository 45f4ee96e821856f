"""Damaged logs: nothing crashes, and no number is silently wrong."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from golfctl.logs import progress, read_bytes
from golfctl.logs.asjson import describe
from golfctl.logs.endings import OUTCOMES
from tests.golfctl.logdamage import NOT_DIGITS, cut, reading, spliced, wrong
from tests.golfctl.test_logs import LOG, MINUTES, NANOCHAT, SPEEDRUN, TERNARY

LOGS = [log.encode() for log in (LOG, MINUTES, TERNARY, NANOCHAT, SPEEDRUN)]
WORDS = [
    b"step:",
    b"7/9",
    b" ",
    b"train_loss:",
    b"val_loss:",
    b"val_bpb:",
    b"1.2345",
    b"nan",
    b"ms",
    b"\n",
    b"\r",
    b"seed:",
    b"bytes",
    b"Serialized model x: ",
    b"stopping_early: ",
    b"=" * 60,
    b"import os\n",
    b'"""',
    b"Traceback (most recent call last):\n",
    b"\x1b[31m",
    b"1776142719.400 ",
    b"name: ",
    b"\xff\xfe",
    b"\0",
]


def check(content: bytes) -> None:
    """The reader takes it, the same way twice, and what it gives can be printed."""
    found = describe(read_bytes(content), explain=True)
    text = json.dumps(found, allow_nan=False)
    assert found["outcome"] in {*OUTCOMES, None}
    assert all(number > 0 for number in found["lines"].values())
    assert json.dumps(describe(read_bytes(content), explain=True), allow_nan=False) == text


@given(st.binary(max_size=400))
@settings(deadline=None)
def test_any_bytes_are_read(content: bytes) -> None:
    """No crash on what is no log at all."""
    check(content)


@given(st.lists(st.one_of(st.sampled_from(WORDS), st.binary(max_size=4)), max_size=60))
@settings(deadline=None)
def test_any_mixture_of_the_words_of_logs_is_read(parts: list[bytes]) -> None:
    """No crash where a log is nearly one."""
    check(b"".join(parts))
    progress(b"".join(parts).decode("latin-1"))


@pytest.mark.parametrize("content", LOGS, ids=["baseline", "minutes", "ternary", "nanochat", "speedrun"])
def test_no_cut_makes_a_number_silently_wrong(content: bytes) -> None:
    """At every third offset: what is left says what it said, or less, or there is a warning."""
    bad = {offset: fields for offset in range(1, len(content), 3) if (fields := cut(content, offset))}
    assert bad == {}


@pytest.mark.parametrize("content", LOGS[:3], ids=["baseline", "minutes", "ternary"])
def test_foreign_bytes_seldom_go_unnoticed(content: bytes) -> None:
    """Of 400 places at most two: a letter in a word that nobody knows can't be seen. Numbers that were read stay right."""
    rng, whole = random.Random(5), reading(content)
    silent = []
    for _ in range(400):
        damaged, where = spliced(content, rng)
        found = reading(damaged)
        if not set(found["warnings"]) - set(whole["warnings"]) and (fields := list(wrong(found, whole))):
            silent.append((where, fields))
    assert len(silent) <= 2, silent


def test_foreign_bytes_within_a_number_always_show() -> None:
    """Any byte that is no digit, at any place within the digits of the score."""
    whole = reading(LOG.encode())
    start = LOG.index("3.18841234")
    for offset in range(1, 10):
        for byte in NOT_DIGITS:
            text = LOG.encode()
            found = reading(text[: start + offset] + bytes([byte]) + text[start + offset :])
            assert found["headline_val_bpb"] in {whole["headline_val_bpb"], 3.1884, None}, (offset, byte)
            assert found["headline_val_bpb"] == whole["headline_val_bpb"] or found["warnings"], (offset, byte)
