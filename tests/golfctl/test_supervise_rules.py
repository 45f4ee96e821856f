"""What fires on a log, fed in any pieces."""

from __future__ import annotations

import time
from collections.abc import Iterable

import pytest

from golfctl.hostside.limits import KEPT
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


WINDOW = {"limits": [{"metric": "step_avg_ms", "max": 1040.0, "after_step": 20, "window": 50}]}


def timed(
    steps: Iterable[tuple[int, float]], text: str = "step:{step}/200 train_loss:3.1 train_time:{ms:.0f}ms\n"
) -> bytes:
    """Step lines of a run that had trained `ms` milliseconds at each step."""
    return b"".join(text.format(step=step, ms=ms, s=ms / 1000, avg=ms / max(step, 1)).encode() for step, ms in steps)


def test_window_forgives_one_slow_step() -> None:
    """One step of 21 s among steps of a second makes a mean of 1400 ms over 50 steps, and of 1040 over 500."""
    steps = [(step, 1000.0 * step + (20000.0 if step >= 300 else 0.0)) for step in range(1, 1000)]
    assert judge(WINDOW, timed(steps)) is not None
    assert judge({"limits": [{**WINDOW["limits"][0], "window": 500}]}, timed(steps)) is None
    assert judge({"limits": [{**WINDOW["limits"][0], "window": 500, "max": 1035.0}]}, timed(steps)) is not None


def test_window_leaves_warm_up_out() -> None:
    """Ten minutes of compilation before step 20 stay in step_avg for a thousand steps, and are not in the window."""
    steps = [(step, 600_000.0 + 1000.0 * step) for step in range(1, 200)]
    plain = {"limits": [{"metric": "step_avg_ms", "max": 1040.0, "after_step": 20}]}
    text = "step:{step}/200 train_loss:3.1 train_time:{ms:.0f}ms step_avg:{avg:.2f}ms\n"
    assert judge(plain, timed(steps, text)) == "step_avg_ms 31000 > 1040 at step 20 (limit from step 20)"
    assert judge(WINDOW, timed(steps, text)) is None


@pytest.mark.parametrize(
    "text",
    [
        "step:{step}/200 train_loss:3.1 train_time:{ms:.0f}ms step_avg:{avg:.2f}ms\n",
        "step {step} train_loss=3.1 train_time={s:.3f}s\n",
        "step:{step}/200 loss:3.1 t:{ms:.0f}ms step_avg:1.0ms\n",
        "step:{step}/200 train_loss:3.1 step_avg:{avg:.6f}ms\n",
        "{step}/200 train_loss: 3.1 train_time: {ms:.0f}ms\n",
    ],
)
def test_window_reads_the_time_however_it_is_printed(text: str) -> None:
    """train_time in ms or s, `t:`, or step_avg times step: a line every ten steps, 500 ms a step, then 1118 from step 90 on."""
    steps = [(step, 500.0 * min(step, 90) + 1118.0 * max(step - 90, 0)) for step in range(0, 200, 10)]
    watcher = Rules(WINDOW)
    assert watcher.feed(timed(steps, text)) == "step_avg_ms 1118 > 1040 over steps 90-140 (limit from step 20)"
    assert [line.split()[0] for line in watcher.lines] == [
        text.format(step=step, ms=0, s=0, avg=0).split()[0] for step in (90, 140)
    ]


def test_window_waits_until_it_is_full() -> None:
    """Nothing is judged before two lines from after_step on are a window apart; the first that are may be far apart."""
    slow = [(step, 5000.0 * step) for step in range(1, 70)]
    assert judge(WINDOW, timed(slow)) is None
    assert (
        judge(WINDOW, timed([*slow, (70, 350_000.0)]))
        == "step_avg_ms 5000 > 1040 over steps 20-70 (limit from step 20)"
    )
    reason = judge(WINDOW, timed([(1, 5000.0), (200, 1_000_000.0), (400, 2_000_000.0)]))
    assert reason == "step_avg_ms 5000 > 1040 over steps 200-400 (limit from step 20)"


def test_window_memory_does_not_grow_with_its_length() -> None:
    """A window of a million steps, a line each, keeps a bounded number of points and still sees the mean."""
    watcher = Rules({"limits": [{"metric": "step_avg_ms", "max": 100.0, "window": 20_000}]})
    assert watcher.feed(timed((step, 100.0 * step) for step in range(1, 60_000))) is None
    assert len(watcher.limits[0]._points) <= KEPT + 2
    reason = watcher.feed(timed((step, 6e6 + 101.0 * (step - 60_000)) for step in range(60_000, 81_000)))
    assert reason is not None
    assert "over steps" in reason


def test_scaled_limit_tells_both_figures() -> None:
    """On one GPU 1118 ms are 141 at eight by the base's ratio; with the ratio of a slower base they are allowed."""
    limit = {"metric": "step_avg_ms", "max": 130.0, "after_step": 20, "window": 50, "scale": 7.93, "at_gpus": 8}
    steps = timed((step, 1118.0 * step) for step in range(0, 200, 10))
    assert judge({"limits": [limit]}, steps) == "step_avg_ms 1118 on this host = 141 at 8 GPUs > 130 over steps 20-70"
    assert judge({"limits": [{**limit, "scale": 8.7}]}, steps) is None
    plain = {"metric": "step_avg_ms", "max": 130.0, "scale": 2.0}
    line = b"step:7/9 train_loss:3 step_avg:260.01ms\n"
    assert judge({"limits": [plain]}, line) == "step_avg_ms 260 on this host = 130.005 scaled > 130 at step 7"


def test_window_of_another_metric_is_the_mean_of_what_was_printed() -> None:
    """Values count, whatever their spacing; one outlier among ten does not fire."""
    rules = {"limits": [{"metric": "grad_norm", "max": 2.0, "window": 100}]}
    calm = b"".join(b"step:%d grad_norm:%g\n" % (step, 9.0 if step == 200 else 1.0) for step in range(0, 1000, 10))
    assert judge(rules, calm) is None
    wild = b"".join(b"step:%d grad_norm:%g\n" % (step, 3.0 if step >= 300 else 1.0) for step in range(0, 1000, 10))
    reason = judge(rules, wild)
    assert reason is not None
    assert reason.startswith("grad_norm 2.2 > 2 over steps 250-350")


def test_other_ranks_and_a_second_run_do_not_confuse_the_window() -> None:
    """Lines of ranks that lag are passed over; a counter that starts again starts the window again, too."""
    ranks = [(step - rank, 1000.0 * (step - rank)) for step in range(1, 300) for rank in (0, 1, 0, 2)]
    assert judge(WINDOW, timed(ranks)) is None
    again = [(step, 1000.0 * step) for step in range(1, 300)] + [(step, 900.0 * step) for step in range(1, 300)]
    assert judge(WINDOW, timed(again)) is None
    slow = [(step, 1000.0 * step) for step in range(1, 300)] + [(step, 1100.0 * step) for step in range(1, 300)]
    assert judge(WINDOW, timed(slow)) == "step_avg_ms 1100 > 1040 over steps 20-70 (limit from step 20)"


def losses(*values: float, first: int = 0, every: int = 10) -> bytes:
    """Step lines with these losses."""
    return b"".join(b"step:%d/900 train_loss:%g step_avg:9ms\n" % (first + every * i, v) for i, v in enumerate(values))


FALLING = [9.0 * 0.85**i + 2.0 for i in range(20)]  # steps 0 to 190, from 11 to 2.4; 3.8 at step 100


@pytest.mark.parametrize(
    ("values", "fires"),
    [
        ([*FALLING, 9.0, 9.1], True),  # back to a random model: never above the first line
        ([*FALLING, 5.9, 6.0], True),
        ([*FALLING, 900.0, 2.5, 900.0, 2.5], False),  # a spike that passes
        ([*FALLING, 4.5, 4.6, 4.5], False),  # not twice the lowest
        ([9.0, 16.0, 15.0, 15.0, 14.0, 13.0, 12.0, 9.0, *FALLING[8:]], False),  # the jump at the start of real runs
        ([9.0, 20.0, 40.0, 80.0, 99.0, 99.0, 99.0, 99.0, 99.0, 99.0, 99.0, 99.0], True),  # never came down
        ([0.05, 0.06, 0.09, *[0.1] * 20, 0.09, 0.1], False),  # starts low: noise of a small loss
        ([0.5, 0.4, *[0.3] * 20, 0.7, 0.8], True),
        ([0.0, -1.0, *FALLING, 3.0, 3.1], False),  # no loss at all
    ],
)
def test_blow_up(values: list[float], fires: bool) -> None:
    """Twice the lowest and 1.5 x the early loss, at two lines: after warm-up, and only then."""
    assert (judge({"blow_up": {"factor": 1.5, "after_step": 100}}, losses(*values)) is not None) is fires
    assert judge({}, losses(*values)) is None


def test_blow_up_says_what_it_compared() -> None:
    """Reason and the two lines."""
    watcher = Rules({"blow_up": {}})
    reason = watcher.feed(losses(8.0, 3.0, every=100) + losses(2.0, 7.0, 7.5, first=200))
    assert reason == (
        "blow-up: train_loss 7 at step 210, 7.5 at step 220; allowed are 1.5 x 3 (early loss) or 2 x 2 (lowest)"
    )
    assert watcher.lines == ["step:210/900 train_loss:7 step_avg:9ms", "step:220/900 train_loss:7.5 step_avg:9ms"]


def test_blow_up_needs_two_steps_not_two_ranks() -> None:
    """Eight ranks that print one bad step are one bad step."""
    text = losses(*FALLING) + b"step:200/900 train_loss:99\n" * 8 + b"step:199/900 train_loss:99\n"
    assert judge({"blow_up": {}}, text) is None
    assert judge({"blow_up": {}}, text + b"step:201/900 train_loss:99\n") is not None


def test_step_lines_of_the_later_scripts_count() -> None:
    """`500/20000 train_loss: 3.1` is a step line; a date or a fraction is not."""
    watcher = Rules({"nan": True})
    watcher.feed(b"500/20000 train_loss: 3.1 train_time: 0.8m tok/s: 8222012\n3/4 of the data\n11/21 12:00\n")
    assert watcher.last_step == 500
    watcher.feed(b"1776142719.400 501/20000 train_loss: 3.1\n")
    assert watcher.last_step == 501
    assert watcher.feed(b"1000/20000 val_loss: nan\n") == "val_loss is nan at step 1000"


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
        ({"limits": [{"metric": "x", "max": 1, "window": 0}]}, "rules.limits.window"),
        ({"limits": [{"metric": "x", "max": 1, "scale": -2}]}, "rules.limits.scale"),
        ({"limits": [{"metric": "x", "max": 1, "at_gpus": "8"}]}, "rules.limits.at_gpus"),
        ({"blow_up": True}, "rules.blow_up"),
        ({"blow_up": {"factor": 1}}, "rules.blow_up.factor"),
        ({"blow_up": {"faktor": 2}}, "rules.blow_up"),
        ({"frozen_s": "60"}, "rules.frozen_s"),
        ({"artifact": {"globs": ["*.ptz"]}}, "rules.artifact"),
        ({"artifact": {"globs": "*.ptz", "max_bytes": 1}}, "rules.artifact"),
        ({"artifact": {"globs": ["../*"], "max_bytes": 1}}, "rules.artifact.globs"),
        ({"artifact": {"globs": ["/etc/*"], "max_bytes": 1}}, "rules.artifact.globs"),
        ({"artifact": {"globs": [], "max_bytes": "1"}}, "rules.artifact.max_bytes"),
    ],
)
def test_wrong_rules_are_refused(rules: dict[str, object], named: str) -> None:
    """A rule nobody would enforce is an error, not a comment."""
    with pytest.raises(ValueError, match=named.replace(".", r"\.")):
        Rules(rules)
