"""The log reader: families, the traps of the field, runs and their ends. Every log here is written by the tests."""

from __future__ import annotations

import io
from typing import Any

import pytest

from golfctl.logs import RunLog, progress, read, read_bytes
from golfctl.logs.asjson import describe
from tests.golfctl.logdamage import FORMS, reading, source_code, wrong

RULER = "=" * 100
HEADER = """\
model_params:1048576
world_size:4 grad_accum_steps:2
train_batch_tokens:65536 train_seq_len:512 iterations:300 warmup_steps:5 max_wallclock_seconds:60.000
seed:42
"""
STEPS = """\
warmup_step:1/5
step:0/300 val_loss:5.5413 val_bpb:7.9944 train_time:0ms step_avg:0.02ms
step:1/300 train_loss:5.5402 train_time:210ms step_avg:210.00ms
step:100/300 train_loss:2.9113 train_time:20110ms step_avg:201.10ms
step:200/300 train_loss:2.5001 train_time:40090ms step_avg:200.45ms
step:200/300 val_loss:2.4801 val_bpb:3.5780 train_time:40100ms step_avg:200.50ms
step:299/300 val_loss:2.2004 val_bpb:3.1745 train_time:60010ms step_avg:200.70ms
stopping_early: wallclock_cap train_time:60010ms step:299/300
peak memory allocated: 2048 MiB reserved: 2304 MiB
"""
SIZES = """\
Serialized model: 4194304 bytes
Code size: 40000 bytes
Total submission size: 4234304 bytes
Serialized model int8+zlib: 1000000 bytes (payload:1048576 raw_torch:1050000 payload_ratio:3.90x)
Total submission size int8+zlib: 1040000 bytes
"""
EVALS = """\
final_int8_zlib_roundtrip val_loss:2.2100 val_bpb:3.1884 eval_time:1401ms
final_int8_zlib_roundtrip_exact val_loss:2.21004321 val_bpb:3.18841234
"""
LOG = HEADER + STEPS + SIZES + EVALS


def last(text: str, label: str | None = None) -> RunLog:
    return read_bytes(text.encode(), label).last


def test_baseline_log_is_read_whole() -> None:
    """Settings, steps, sizes, score, each with its line."""
    found = describe(read_bytes(LOG.encode()), explain=True)
    expected = {
        "family": "baseline",
        "seed": 42,
        "world_size": 4,
        "grad_accum": 2,
        "model_params": 1048576,
        "iterations_planned": 300,
        "max_wallclock_s": 60,
        "steps_done": 299,
        "step_avg_ms": 200.7,
        "step_avg_source": "printed",
        "train_time_ms": 60010,
        "stopped_early": True,
        "code_bytes": 40000,
        "model_bytes": 1000000,
        "artifact_bytes": 1040000,
        "codec": "int8+zlib",
        "prequant_val_bpb": 3.1745,
        "prequant_val_loss": 2.2004,
        "peak_mem_mib": 2048,
        "reserved_mem_mib": 2304,
        "headline_label": "final_int8_zlib_roundtrip_exact",
        "headline_val_bpb": 3.18841234,
        "n_train_points": 3,
        "n_val_points": 3,
        "outcome": "ok",
        "copies": 1,
        "warnings": [],
    }
    assert {name: found[name] for name in expected} == expected
    assert found["evals"][0] == {
        "label": "final_int8_zlib_roundtrip",
        "val_loss": 2.21,
        "val_bpb": 3.1884,
        "eval_time_ms": 1401,
        "digits": 4,
    }
    lines = LOG.splitlines()
    for name, word in [("seed", "seed:"), ("train_time_ms", "stopping_early"), ("model_bytes", "int8+zlib: 1000000")]:
        assert word in lines[found["lines"][name] - 1]


MINUTES = """\
Hyperparameters:
  grad_accum_steps: 1
  iterations: 5000
  seed: 7
  world_size: 8
model_params:35989681
0/5000 val_loss: 9.0075 val_bpb: 3.4871
1/5000 train_loss: 9.0104 train_time: 0.0m tok/s: 7484059
500/5000 train_loss: 3.2592 train_time: 0.8m tok/s: 7100000 looping:False
1000/5000 train_loss: 2.9001 train_time: 1.7m tok/s: 7100000 looping:True
1000/5000 val_loss: 2.8893 val_bpb: 1.1186
stopping_early: wallclock_cap train_time: 102000ms step: 1000/5000
Code size (uncompressed): 150000 bytes
Code size (compressed): 30000 bytes
Serialized model quantized+brotli: 15900000 bytes
Total submission size quantized+brotli: 15930000 bytes
pre-quantization post-ema val_loss:2.80000000 val_bpb:1.08400000 eval_time:6000ms
quantized_ttt_phased val_loss:2.81000000 val_bpb:1.08787141 eval_time:400000ms
total_eval_time:455.1s
"""
TERNARY = """\
activation=relu2 iterations=10000 max_wallclock_seconds=599.0 seed=7
params:73685840 L:10 d:768 h:8 kv:4 ws:8 ga:1 s:7
step:1000/10000 loss:3.3114 t:91476ms avg:91.5ms
step:2000/10000 loss:3.2911 t:183385ms avg:91.7ms
step:3000/10000 val_loss:3.0535 val_bpb:1.1823 train_time:275102ms zero_frac:0.336
stopping_early: wallclock_cap train_time:275102ms step:3000/10000
artifact:15.92MB ternary:64880640(14237274B) fp:2513744(2537376B) code:70853
budget:15992753/16000000 (15.99/16.00MB) FITS
final_ternary_roundtrip val_loss:3.0604 val_bpb:1.1850
final_sliding val_loss:2.9901 val_bpb:1.1578 (stride=16, T=0.90) eval_time:429023ms
"""
NANOCHAT = """\
step 00001/00300 (0.33%) | loss: 10.812345 | lrm: 1.00 | dt: 512.33ms | tok/sec: 1,023,410 | mfu: 46.10 | total time: 0.01m
step 00300/00300 (100.00%) | loss: 3.123456 | lrm: 0.10 | dt: 512.33ms | tok/sec: 1,023,410 | mfu: 46.10 | total time: 2.56m
---
val_bpb:          0.997900
training_seconds: 153.6
peak_vram_mb:     45060.2
num_steps:        300
"""
NANOGPT = """\
step 0: train loss 4.2874, val loss 4.2823
iter 0: loss 4.2654, time 4210.30ms, mfu -100.00%
iter 10: loss 3.2457, time 14.20ms, mfu 23.31%
step 20: train loss 2.4512, val loss 2.4601
"""
SPEEDRUN = """\
step:0/300 val_loss:10.8258 train_time:0ms step_avg:nanms
step:1/300 train_time:310ms step_avg:nanms
step:299/300 train_time:41010ms step_avg:137.15ms
step:300/300 val_loss:3.2789 train_time:41150ms step_avg:137.17ms
"""
MLX = """\
iterations:300 train_batch_tokens:8192
model_params:17059912 vocab_size:1024 layers:9
step:1/300 train_loss:6.9402 train_time:812ms step_avg:812.40ms tok_s:10083
step:300/300 val_loss:2.9102 val_bpb:1.7241 train_time:240012ms step_avg:800.04ms
serialized_model_int8_zlib:4200000 bytes (payload:4300000 raw_pickle:4310000 payload_ratio:3.90x)
final_int8_zlib_roundtrip_exact val_loss:2.91543210 val_bpb:1.72712345
"""


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        (
            MINUTES,
            {
                "family": "minutes",
                "seed": 7,
                "world_size": 8,
                "grad_accum": 1,
                "iterations_planned": 5000,
                "step_avg_ms": 102,
                "step_avg_source": "derived",
                "code_bytes": 30000,
                "artifact_bytes": 15930000,
                "codec": "quantized+brotli",
                "prequant_val_bpb": 1.1186,
                "headline_label": "quantized_ttt_phased",
                "total_eval_time_s": 455.1,
                "n_train_points": 3,
                "n_val_points": 2,
            },
        ),
        (
            TERNARY,
            {
                "family": "ternary",
                "seed": 7,
                "world_size": 8,
                "grad_accum": 1,
                "model_params": 73685840,
                "iterations_planned": 10000,
                "step_avg_ms": 91.7,
                "code_bytes": 70853,
                "model_bytes": 15992753 - 70853,
                "artifact_bytes": 15992753,
                "headline_label": "final_sliding",
                "codec": None,
            },
        ),
        (
            NANOCHAT,
            {
                "family": "nanochat",
                "steps_done": 300,
                "train_time_ms": 153600,
                "headline_label": "val_bpb",
                "headline_val_bpb": 0.9979,
                "headline_val_loss": None,
                "peak_mem_mib": 45060.2,
                "n_train_points": 2,
                "outcome": "ok",
            },
        ),
        (NANOGPT, {"family": "nanogpt", "steps_done": 20, "n_train_points": 2, "n_val_points": 2, "seed": None}),
        (
            SPEEDRUN,
            {"steps_done": 300, "n_train_points": 0, "n_val_points": 2, "step_avg_ms": 137.17, "headline_label": None},
        ),
        (
            MLX,
            {
                "seed": None,
                "world_size": None,
                "model_bytes": 4200000,
                "codec": "int8_zlib",
                "artifact_bytes": None,
                "n_train_points": 1,
            },
        ),
    ],
    ids=["minutes", "ternary", "nanochat", "nanogpt", "speedrun", "mlx"],
)
def test_family_is_read(log: str, expected: dict[str, Any]) -> None:
    """What it says, and None for what it does not."""
    found = describe(read_bytes(log.encode()))
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize("log", [LOG, MINUTES, TERNARY, NANOGPT, SPEEDRUN, MLX], ids=str.split)
@pytest.mark.parametrize("form", FORMS)
def test_form_of_a_log_changes_nothing(form: str, log: str) -> None:
    """Source code in front, CRLF, colours, UTF-16 with and without a mark."""
    whole = reading(log.encode())
    changed = reading(FORMS[form](log.encode()))
    assert list(wrong(changed, whole)) == []
    assert {name for name in whole if whole[name] is not None} == {
        name for name in changed if changed[name] is not None
    }


def test_examples_in_a_docstring_of_embedded_source_are_not_read() -> None:
    """They have every form of a log; only code around them tells."""
    code = f'"""Prints\n\n{LOG}\n"""\n\nimport torch\n\n\ndef main() -> None:\n    pass\n\n\nmain()\n'
    assert last(code + RULER + "\n" + MINUTES).seed == 7
    assert last(code + MINUTES).seed == 7
    assert len(read_bytes((code + MINUTES).encode()).runs) == 1


def test_source_between_two_runs_is_skipped_and_the_last_run_described() -> None:
    """The earlier one stands beside it."""
    again = LOG.replace("seed:42", "seed:43").replace("step:299/300", "step:298/300")
    log = read_bytes(
        (LOG + source_code().decode() + RULER + "\nRunning Python 3.12.4\n" + RULER + "\n" + again).encode()
    )
    assert [(run.seed, run.steps_done) for run in log.runs] == [(42, 299), (43, 298)]
    assert log.last.headline is not None


def test_run_that_began_again_before_its_first_step_is_two_runs() -> None:
    """The header is said twice after a restart."""
    log = read_bytes((f"Running Python 3\n{HEADER}{RULER}\nRunning Python 3\n" + LOG).encode())
    assert [len(run.train) for run in log.runs] == [0, 3]


def test_run_printed_twice_counts_once() -> None:
    """A console's text and the log file after it."""
    log = read_bytes((LOG + RULER + "\nRunning Python 3.12\n" + LOG).encode())
    assert (len(log.runs), log.last.copies, log.last.train.distinct) == (1, 2, 3)


def test_summary_that_repeats_lines_is_no_run() -> None:
    """As wrappers print at the end."""
    summary = "[run] === val lines ===\n" + "\n".join(line for line in STEPS.splitlines() if "val_loss" in line)
    log = read_bytes((LOG + summary + "\n" + EVALS).encode())
    assert (len(log.runs), log.last.copies, len(log.last.evals)) == (1, 1, 2)


def test_runs_marked_with_names_are_kept_apart() -> None:
    """Two runs that print into one console, line by line in turn."""
    second = LOG.replace("train_loss:2", "train_loss:1")
    both = "".join(
        f"run_a: {one}\nrun_b: {two}\n" for one, two in zip(LOG.splitlines(), second.splitlines(), strict=True)
    )
    log = read_bytes(both.encode())
    assert [(run.steps_done, run.train.loss[1], run.headline is not None) for run in log.runs] == [
        (299, 2.9113, True),
        (299, 1.9113, True),
    ]


@pytest.mark.parametrize(
    "mark",
    ["1776142719.400 ", "[rank0]: ", "2026-03-18 14:38:12,345 INFO ", "[2026-03-18 14:38:12] ", "\t", "train_a: "],
)
def test_marks_before_lines_are_passed_over(mark: str) -> None:
    """Times, ranks, a run's name."""
    marked = "".join(mark + line + "\n" for line in LOG.splitlines())
    assert list(wrong(reading(marked.encode()), reading(LOG.encode()))) == []
    assert last(marked).train.distinct == 3


def test_progress_bars_leave_their_line_numbers() -> None:
    """A lone carriage return ends no line for an editor."""
    log = read_bytes(("bar 1\rbar 2\rbar 3\n" + LOG).encode())
    assert log.last.lines["seed"] == 5
    assert last("10%\rstep:1/2 train_loss:1.5000 train_time:5ms step_avg:5.00ms\r\n").train.distinct == 1


def test_resumed_run_is_one_run_and_says_so() -> None:
    """It goes back to its checkpoint, not to its beginning."""
    resumed = [*STEPS.splitlines()[:5], "step:150/300 train_loss:2.7001 train_time:30000ms step_avg:200.00ms"]
    run = last("\n".join(resumed) + "\n")
    assert (run.train.distinct, run.steps_done) == (4, 150)
    assert any("resumed" in text for text in run.warnings)


# -- the score


FINALS = """\
diagnostic pre-quantization post-ema val_loss:2.10000000 val_bpb:3.00000000 eval_time:10ms
final_int6_roundtrip_exact val_loss:2.21000000 val_bpb:3.18830000
final_int6_sliding_window val_loss:2.1800 val_bpb:3.1451 stride:64 eval_time:90ms
final_int6_sliding_window_exact val_loss:2.18003333 val_bpb:3.14512222
final_int8_zlib_roundtrip_exact val_loss:2.18003333 val_bpb:3.14512222
final_experiment val_loss:2.30000000 val_bpb:3.31800000
"""


def test_score_is_the_label_of_the_rules() -> None:
    """Exactly that, and nothing else if the log lacks it."""
    assert last(HEADER + STEPS + FINALS, "final_int6_roundtrip_exact").headline.val_bpb == 3.1883  # type: ignore[union-attr]
    run = last(HEADER + STEPS + FINALS, "legal_ttt_exact")
    assert run.headline is None
    assert "legal_ttt_exact" in run.headline_reason


def test_score_proposed_is_the_best_of_the_packed_model_under_its_own_name() -> None:
    """Not the diagnostic, not the last line, not the old name, not the rounded twin."""
    run = last(HEADER + STEPS + FINALS)
    assert run.headline is not None
    assert run.headline.label == "final_int6_sliding_window_exact"
    assert "proposed" in run.headline_reason


def test_score_that_is_nan_is_told_as_nan() -> None:
    """It stands in the log, and is no number to compare."""
    found = describe(read_bytes(LOG.replace("3.18841234", "nan").replace("3.1884", "nan").encode()))
    assert (found["headline_val_bpb"], found["outcome"]) == ("nan", "nan")


def test_progress_lines_are_no_score() -> None:
    """A log without a named evaluation has none."""
    assert last(HEADER + STEPS).headline is None


# -- sizes


def test_bare_total_is_never_the_artifact() -> None:
    """It is the model before packing."""
    assert last(HEADER + STEPS + "Code size: 5 bytes\nTotal submission size: 67283363 bytes\n").artifact_bytes is None


def test_total_that_is_no_sum_is_told() -> None:
    """Which number counts, and which line disagrees."""
    run = last(LOG.replace("int8+zlib: 1040000", "int8+zlib: 1030000"))
    assert run.artifact_bytes == 1040000
    assert any("1,030,000" in text for text in run.warnings)


# -- ends


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        (LOG, "ok"),
        (HEADER + STEPS.partition("step:200")[0], "truncated"),
        (HEADER + STEPS[:400] + "\nTraceback (most recent call last):\n  File\nRuntimeError: shape\n", "crashed"),
        (HEADER + STEPS[:400] + "\ntorch.OutOfMemoryError: CUDA out of memory. Tried\n", "oom"),
        (HEADER + STEPS[:400] + "\nKilled\n", "killed"),
        (HEADER + STEPS[:400] + "\n  exitcode  : -9 (pid: 81)\n", "killed"),
        ("Traceback (most recent call last):\nImportError: no flash\n" + LOG, "ok"),
        (LOG + "Traceback (most recent call last):\nValueError: upload failed\n", "crashed"),
        (HEADER + "step:1/9 train_loss:5.0000\nstep:2/9 train_loss:nan\n", "nan"),
        (LOG.replace("3.18841234", "nan").replace("3.1884", "nan"), "nan"),
        (HEADER + "step:1/9 train_loss:6.9315\nstep:5/9 train_loss:3.0000\nstep:9/9 train_loss:6.9310\n", "diverged"),
        ("nothing of interest\n", None),
        ("", None),
    ],
)
def test_outcome_is_told(text: str, outcome: str | None) -> None:
    """From the log alone; a traceback that the run survived is none."""
    assert last(text).outcome == outcome


def test_missing_last_newline_costs_nothing() -> None:
    """A whole number at the very end is taken where its digits show that it is whole; else it is left out with a word."""
    assert last(LOG.rstrip("\n")).headline.val_bpb == 3.18841234  # type: ignore[union-attr]
    cut = last(LOG.rstrip("\n")[:-3])
    assert [item.label for item in cut.evals] == ["final_int8_zlib_roundtrip"]
    assert cut.warnings
    assert last("model_params:17059").model_params is None


@pytest.mark.parametrize(
    ("line", "damaged"),
    [
        ("seed:42", "seed:4x2"),
        ("seed:42", "seed:4\n2"),
        ("model_params:1048576", "model_params:104,8576"),
        ("val_bpb:3.18841234", "val_bpb:3.1884\x001234"),
        ("val_bpb:3.18841234", "val_bpb:3.18\n841234"),
        ("train_loss:2.5001", "train_loss:2.50"),
        ("train_loss:2.5001", "train_l\xf8oss:2.5001"),
        ("step:200/300 train", "st@ep:200/300 train"),
        ("int8+zlib: 1000000", "int8+zlib: 100.0000"),
        ("train_time:60010ms step:299", "train_time:600e10ms step:299"),
    ],
)
def test_damaged_number_is_never_read_in_part(line: str, damaged: str) -> None:
    """Left out, and said."""
    assert line in LOG
    whole, found = reading(LOG.encode()), reading(LOG.replace(line, damaged).encode("latin-1"))
    assert set(found["warnings"]) - set(whole["warnings"]) or not list(wrong(found, whole))


def test_long_logs_are_read_as_short_ones() -> None:
    """Picking lines out of noise finds what reading every line finds."""
    noise = "".join(f"warning {n}: nothing of interest in the {n % 7} kernels\n" for n in range(9000))
    steps = [
        f"step:{n}/9000 train_loss:{5 - n / 3000:.4f} train_time:{n * 20}ms step_avg:20.00ms\n"
        for n in range(1, 6000, 7)
    ]
    text = (
        HEADER
        + "".join(noise[index * 500 : index * 500 + 500] + "\n" + step for index, step in enumerate(steps))
        + noise
        + SIZES
        + EVALS
    )
    whole = describe(read(io.BytesIO(text.encode()), size=len(text) * 2), explain=True)
    assert whole["n_train_points"] == len(steps)
    assert whole["artifact_bytes"] == 1040000
    for size in (5000, 1 << 16):
        assert describe(read(io.BytesIO(text.encode()), size=size), explain=True) == whole


def test_progress_of_any_family_is_told_from_one_line() -> None:
    """For live views."""
    for log in (LOG, MINUTES, TERNARY, NANOCHAT, NANOGPT, SPEEDRUN, MLX):
        assert any(progress(line) for line in log.splitlines())
    assert progress("1776142719.400 500/2000 train_loss: 3.25 train_time: 0.8m tok/s: 7") is not None
