"""What fires on a log, fed in any pieces."""

from __future__ import annotations

import time

import pytest

from golfctl.hostside.rules import LINE_CAP, Rules

LIMIT = {"limits": [{"metric": "step_avg_ms", "max": 400.0, "after_step": 50}]}


def judge(rules: dict[str, object], *pieces: bytes) -> str | None:
    """The reason after feeding the pieces and the end of the log."""
    watcher = Rules(rules)
    for piece in pieces:
        if reason := watcher.feed(piece):
            return reason
    return watcher.finish()


@pytest.mark.parametrize(
    "line",
    [
        b"step:10/200 train_loss:nan train_time:512ms step_avg:51.20ms",
        b"train_loss: nan",
        b"loss:nan",
        b"loss = -inf",
        b"step:7 | val_loss: NaN",
        b"step:10/200 val_loss:inf val_bpb:inf train_time:1ms step_avg:0.1ms",
        b"[rank0] step 3 (warm) loss=Infinity",
        b"\xff\xfe train_loss:nan",
    ],
)
def test_nan_rule_fires_on_every_spelling_of_the_field(line: bytes) -> None:
    """A loss that is not finite is seen however the script writes it."""
    assert judge({"nan": True}, line + b"\n") is not None


@pytest.mark.parametrize(
    "line",
    [
        b"step:10/200 train_loss:3.1 grad_norm:nan",
        b"step:10/200 train_loss:3.1 step_avg:51.20ms",
        b'    print(f"train_loss:nan")',
        b"    if x:  # abort on loss: nan",
        b"banana_loss:nanometer",
        b"the loss is nan-safe",
        b"info loss:information",
    ],
)
def test_nan_rule_is_quiet_about_other_words(line: bytes) -> None:
    """Other metrics, program text in the log and prose do not abort a run."""
    assert judge({"nan": True}, line + b"\n") is None


def test_nan_rule_is_off_unless_asked_for() -> None:
    """Without the rule a nan is the script's own business."""
    assert judge({}, b"step:1 train_loss:nan\n") is None


def test_limit_fires_from_its_step_and_not_before() -> None:
    """The step avg of warm-up does not count; step 50 does."""
    slow = b"step:%d/200 train_loss:3.1 train_time:512ms step_avg:664.10ms\n"
    assert judge(LIMIT, slow % 49) is None
    reason = judge(LIMIT, slow % 50)
    assert reason == "step_avg_ms 664.1 > 400 at step 50 (limit from step 50)"


@pytest.mark.parametrize(
    ("text", "fires"),
    [(b"400.00ms", False), (b"400.01ms", True), (b" 0.5s", True), (b"0.3s", False), (b"1e3ms", True), (b"500", True)],
)
def test_limit_reads_units(text: bytes, fires: bool) -> None:
    """Milliseconds, seconds, exponents and bare numbers mean what they say; the limit itself is allowed."""
    assert (judge(LIMIT, b"step:60/200 train_loss:3.1 step_avg:" + text + b"\n") is not None) is fires


def test_limit_on_another_metric_of_the_log() -> None:
    """A limit may name any key:value of a step line."""
    rules = {"limits": [{"metric": "train_loss", "max": 5}]}
    assert judge(rules, b"step:1 train_loss:5.5\n") == "train_loss 5.5 > 5 at step 1 (limit from step 0)"
    assert judge(rules, b"step:1 val_train_loss:5.5 train_loss:4\n") is None


def test_feed_gives_the_same_answer_for_any_cut() -> None:
    """A line torn at any byte is judged once, whole: `step_avg:40` of `step_avg:4000ms` must not pass or fail early."""
    text = b"step:50/200 train_loss:3.1 step_avg:40.00ms\rstep:51/200 train_loss:3.0 step_avg:4000.0ms\r\nafter\n"
    whole = judge(LIMIT, text)
    assert whole is not None
    assert "at step 51" in whole
    for cut in range(len(text)):
        assert judge(LIMIT, text[:cut], text[cut:]) == whole
    assert judge(LIMIT, *(text[i : i + 1] for i in range(len(text)))) == whole


def test_unfinished_line_waits_for_its_end() -> None:
    """Half a number is not judged; the end of the log ends the line."""
    watcher = Rules({"limits": [{"metric": "step_avg_ms", "max": 5.0}]})
    assert watcher.feed(b"step:1 step_avg:51") is None
    assert watcher.finish() is not None


def test_huge_lines_cost_neither_memory_nor_time() -> None:
    """64 MB without a line end keep one cap of memory and are through in seconds; the next line counts again."""
    watcher = Rules({"nan": True, **LIMIT})
    begin = time.process_time()
    for _ in range(64):
        assert watcher.feed(b"loss:" + b"x" * (1 << 20)) is None
        assert len(watcher._partial) <= LINE_CAP
    assert time.process_time() - begin < 5
    assert watcher.feed(b"\nstep:1 train_loss:nan\n") == "train_loss is nan at step 1"


def test_long_line_is_judged_by_its_start() -> None:
    """The front of a long line counts, a number cut by the cap does not."""
    assert judge({"nan": True}, b"step:1 train_loss:nan " + b"x" * 100_000 + b"\n") is not None
    head = b"step:60 step_avg:"
    cut = head.rjust(LINE_CAP - 3, b" ") + b"999.9ms " + b"y" * 5000
    assert judge(LIMIT, cut + b"\n") is None


def test_last_step_follows_step_lines_only() -> None:
    """Warm-up counters and program text are no steps."""
    watcher = Rules({})
    watcher.feed(b"step:12/200 train_loss:3\nwarmup_step:19/20\nprint('step:99')\nstep 13\n")
    assert watcher.last_step == 13


@pytest.mark.parametrize(
    ("rules", "named"),
    [
        ({"walclock_s": 5}, "rules.walclock_s"),
        ({"wallclock_s": "5"}, "rules.wallclock_s"),
        ({"stall_s": float("nan")}, "rules.stall_s"),
        ({"grace_s": -1}, "rules.grace_s"),
        ({"limits": [{"metric": "step_avg_ms"}]}, "rules.limits"),
        ({"limits": [{"metric": "x", "max": 1, "min": 0}]}, "rules.limits"),
        ({"limits": [{"metric": "x", "max": True}]}, "rules.limits.max"),
    ],
)
def test_wrong_rules_are_refused(rules: dict[str, object], named: str) -> None:
    """A rule nobody would enforce is an error, not a comment."""
    with pytest.raises(ValueError, match=named.replace(".", r"\.")):
        Rules(rules)
