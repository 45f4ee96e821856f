"""From the files of a run to its result: recounted, cross-checked, and None where nothing is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from golfctl.domain.run import RunResult
from golfctl.logs import progress, read_bytes
from golfctl.store.runs import Counted, read_result
from trainer import contract

LABEL = contract.FINAL_SLIDING
LOG = f"""\
seed:1337 world_size:1
step:10/20 train_loss:3.5000 train_time:512ms step_avg:51.20ms
step:20/20 val_loss:1.6012 val_bpb:2.3100 train_time:1024ms step_avg:51.20ms
Code size: 1000 bytes
Total submission size int6+zstd22: 3000 bytes
{LABEL} val_loss:1.57262626 val_bpb:2.26882100 stride:64 eval_time:2100ms
legal_ttt_exact val_loss:1.39000000 val_bpb:2.00500000 chunk:2048 eval_time:6100ms
"""


TRAINER = Counted(1000, [contract.ARTIFACT], LABEL, "c0de")
SCRIPT = Counted(1000, [contract.ARTIFACT], LABEL)


def write(folder: Path, log: str = LOG, result: dict[str, Any] | None = None, model: int = 2000) -> RunResult:
    (folder / contract.LOG).write_text(log)
    (folder / contract.ARTIFACT).write_bytes(b"x" * model)
    if result is not None:
        (folder / contract.RESULT).write_text(json.dumps(result))
    return read_result(folder, TRAINER)


def good() -> dict[str, Any]:
    return {
        "metric_version": 1,
        "scores": {LABEL: {"val_bpb": 2.268821, "val_loss": 1.57262626, "eval_time_ms": 2100.0}},
        "steps": 20,
        "step_avg_ms": 51.2,
        "train_time_ms": 1024.0,
        "code_bytes": 1000,
        "code_sha256": "c0de",
        "model_bytes": 2000,
        "data": {"val_sha256": "ab"},
        "references": {"zlib": 2.443},
        "warnings": [],
    }


def test_bundled_trainers_result_is_taken_and_agrees_with_its_log(tmp_path: Path) -> None:
    """No contradiction, sizes counted from the disk, re-scored by ours."""
    result = write(tmp_path, result=good())
    assert (result.score, result.artifact_bytes, result.warnings) == (2.268821, 3000, ())
    assert not result.self_reported


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("scores", LABEL, "val_bpb"), 2.1),
        (("code_bytes",), 999),
        (("model_bytes",), 1999),
        (("code_sha256",), "0ther"),
    ],
)
def test_result_that_contradicts_log_or_disk_is_invalid(tmp_path: Path, path: tuple[str, ...], value: object) -> None:
    """A better score in result.json than in the log, or sizes smaller than the files, are named."""
    content: dict[str, Any] = good()
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert any(warning.startswith("invalid:") for warning in write(tmp_path, result=content).warnings)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, "2.0", True, -3.7, 0])
def test_a_score_that_is_no_number_is_none(tmp_path: Path, value: object) -> None:
    """Never 0.0, nan or inf: those would sort as scores."""
    content = good()
    content["scores"][LABEL]["val_bpb"] = value
    assert write(tmp_path, result=content).score is None


def test_unreadable_result_is_invalid_not_a_crash(tmp_path: Path) -> None:
    """Garbage in result.json fails the run, not golfctl."""
    write(tmp_path)
    (tmp_path / contract.RESULT).write_bytes(b"\xff{")
    result = read_result(tmp_path, TRAINER)
    assert result.score is None
    assert result.warnings[0].startswith("invalid:")


def test_text_the_ledger_refuses_does_not_stay_in_a_result(tmp_path: Path) -> None:
    """Half a surrogate pair, as a setting of bytes that are no UTF-8 leaves it: its run could never be recorded."""
    content = good()
    content["settings"] = {"DATA_PATH": "/data/\udcff", "\ud800": [1, "\ud83d"]}
    content["environment"] = {"gpu": "H100 \udcff"}
    found = write(tmp_path, result=content)
    assert found.settings == {"DATA_PATH": "/data/?", "?": [1, "?"]} and found.environment == {"gpu": "H100 ?"}


def test_foreign_run_is_read_from_its_log_alone_and_marked(tmp_path: Path) -> None:
    """Self-reported: nothing of ours re-scored it. The label decides which of several finals counts."""
    result = write(tmp_path)
    assert result.self_reported
    assert (result.score, result.steps, result.artifact_bytes) == (2.268821, 20, 3000)


def foreign(folder: Path, log: str, model: int = 2000) -> RunResult:
    """A foreign script's run with this log."""
    write(folder, log, model=model)
    return read_result(folder, SCRIPT)


def test_foreign_run_is_held_to_evaluation_time_and_memory(tmp_path: Path) -> None:
    """From the line of the score, from a twin of fewer digits, or from the log's total: a limit sees the longest."""
    assert foreign(tmp_path, LOG).eval_time_ms == 2100
    twin = LOG.replace(" eval_time:2100ms", "") + "final_twin val_loss:1.5726 val_bpb:2.2688 eval_time:900000ms\n"
    assert foreign(tmp_path, twin).eval_time_ms == 900_000
    result = foreign(tmp_path, LOG + "total_eval_time:700.5s\npeak memory allocated: 1234 MiB reserved: 1300 MiB\n")
    assert (result.eval_time_ms, result.peak_mem_mib) == (700_500, 1234)
    assert foreign(tmp_path, "step:1/1 train_loss:1.0\n").eval_time_ms is None


def test_foreign_score_printed_twice_is_invalid(tmp_path: Path) -> None:
    """Two scores under one label, in one training or after a second: which is the score would be a guess."""
    again = f"{LABEL} val_loss:1.00000000 val_bpb:1.44000000\n"
    (text,) = foreign(tmp_path, LOG + again).warnings
    assert text == f"invalid: train.log prints {LABEL} with different scores: 2.26882100, 1.44000000"
    assert foreign(tmp_path, LOG + f"{LABEL} val_loss:1.5726 val_bpb:2.2688\n").warnings == ()
    second = "step:1/5 train_loss:3.1000 train_time:10ms step_avg:10.00ms\nstep:5/5 train_loss:3.0 train_time:50ms\n"
    (text,) = foreign(tmp_path, LOG + second).warnings
    assert text.startswith("invalid: train.log holds 2 trainings (of 20, 5 steps)")


@pytest.mark.parametrize(
    ("model", "line", "found"),
    [
        (2000, "Serialized model int6+zstd22: 2000 bytes", []),
        (
            1,
            "Serialized model int6+zstd22: 2000 bytes",
            ["invalid: the log says 2,000 bytes of model", "invalid: the log says 3,000"],
        ),
        (
            2500,
            "Serialized model int6+zstd22: 2000 bytes",
            ["the log says 2,000 bytes of model, counted on disk: 2,500, which"],
        ),
        (1, "", ["invalid: the log says 3,000 bytes in total, counted on disk: 1,001 bytes of code and model"]),
    ],
)
def test_foreign_sizes_in_the_log_must_lie_on_the_disk(tmp_path: Path, model: int, line: str, found: list[str]) -> None:
    """A log that says more than was counted ships weights that were not; more on the disk is the safe side."""
    log = LOG.replace("Total", f"{line}\nTotal") if line else LOG.replace("Code size: 1000 bytes\n", "")
    said = foreign(tmp_path, log, model).warnings
    assert [text.startswith(start) for text, start in zip(said, found, strict=True)] == [True] * len(found), said


@pytest.mark.parametrize(
    "content", ["[1, 2]", '{"scores": [1, 2]}', '{"loss": 1}', '{"scores": {"x": {"val_bpb": 0.1}}}']
)
def test_a_foreign_scripts_own_result_file_is_not_read(tmp_path: Path, content: str) -> None:
    """It may mean anything; the log and the artifact count."""
    write(tmp_path)
    (tmp_path / contract.RESULT).write_text(content)
    result = read_result(tmp_path, SCRIPT)
    assert (result.score, result.self_reported, result.warnings) == (2.268821, True, ())


def test_a_step_time_that_is_no_number_is_none(tmp_path: Path) -> None:
    """It must not reach the ledger, which holds JSON numbers only."""
    log = "step:1/1 train_loss:1.0 train_time:nanms step_avg:nanms\n"
    assert write(tmp_path, log=log).step_avg_ms is None


def test_log_without_the_label_has_no_score(tmp_path: Path) -> None:
    """The last val_bpb in the file is not the score."""
    assert write(tmp_path, log=LOG.replace(LABEL, "final_other")).score is None


def test_missing_artifact_is_not_zero_bytes(tmp_path: Path) -> None:
    """No file: the size is unknown."""
    (tmp_path / contract.LOG).write_text(LOG)
    assert read_result(tmp_path, TRAINER).artifact_bytes is None


@pytest.mark.parametrize(
    "line",
    ["", "step:", "step:x/20 train_loss:1", "loss step:3/4", "\x00\xff", "step:5", "final val_loss:", "val_bpb:1.0"],
)
def test_baseline_family_passes_over_foreign_lines(line: str) -> None:
    """Nothing is guessed from a line of unknown form."""
    assert progress(line) is None
    log = read_bytes(line.encode("latin-1")).last
    assert (len(log.train), len(log.val), log.evals) == (0, 0, [])


def test_baseline_family_reads_nan_and_seconds() -> None:
    """A nan loss is read as nan (for the eyes of rules), times in s become ms."""
    found = progress("step:3/20 train_loss: nan train_time:1.5s step_avg:500ms")
    assert found is not None
    assert found.train_loss is not None
    assert found.train_loss != found.train_loss
    assert found.train_time_ms == 1500
