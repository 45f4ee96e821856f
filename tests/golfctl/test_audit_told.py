"""A checks on what records tell in words of their own: planted faults are found, look-alikes are left alone."""

from __future__ import annotations

import json
import py_compile
from collections.abc import Callable
from pathlib import Path

import pytest

from golfctl.audit.durations import seconds
from tests.golfctl.auditkit import SCORES, SCRIPT, answer, audited, log, package

GLOB = 'import torch\n\ntrain_files = "data/fineweb_{}*.bin"\n'


def logs(**how: object) -> dict[str, str]:
    """Three logs with the same words in each."""
    return {f"train_seed{seed}.log": log(seed, bpb, **how) for seed, bpb in SCORES.items()}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ("awq: activation statistics over 128 training batches took 9.4s", "FAIL"),
        ("quant_calibration:done layers:66 calib_time:8200ms", "FAIL"),
        ("Fisher information on 64 train batches finished in 0.4 min", "FAIL"),
        ("ema: weights averaged in 9.4s", "PASS"),
        ("quantized and compressed in 64.7s", "PASS"),
        ("diagnostic: calibration error of val, eval 9.1s", "PASS"),
    ],
)
def test_calibration_is_known_by_what_it_reads(tmp_path: Path, extra: str, said: str) -> None:
    """After training, whatever says that it read training text counts as training, in any unit."""
    found = audited(package(tmp_path, logs=logs(extra=extra, ms=598_000)))
    assert answer(found, "A4") == said


@pytest.mark.parametrize(
    ("tail", "said"),
    [
        ("Evaluation finished after 12.5 minutes", "FAIL"),
        ("eval wallclock 0:11:42", "FAIL"),
        ("ngram_cache: precompute tables took 580.0s", "WARN"),
        ("total wallclock (train+eval): 1100.0s", "PASS"),
        ("eval took 3.0 minutes", "PASS"),
        ("torch.compile of the eval graph: 700.0s", "PASS"),
    ],
)
def test_evaluation_is_timed_in_any_unit(tmp_path: Path, tail: str, said: str) -> None:
    """Minutes, a clock, and work before the timer starts."""
    texts = {name: f"{text}{tail}\n" for name, text in logs().items()}
    assert answer(audited(package(tmp_path, logs=texts)), "A5") == said


def test_durations_are_read_in_seconds() -> None:
    """Units, clocks, and what is none."""
    assert list(seconds("took 1.5 min, 200ms, 3s and 0:01:30")) == [90.0, 90.0, 0.2, 3.0]
    assert list(seconds("step:100/20000 at 12 tok/s, 5 shards, v1.2")) == []


@pytest.mark.parametrize(("which", "said"), [("val_", "FAIL"), ("", "WARN"), ("train_", "NOT CHECKABLE")])
def test_training_files_are_read_from_the_script(tmp_path: Path, which: str, said: str) -> None:
    """A pattern of training files that names validation, or holds it, too."""
    code = GLOB.format(which)
    record = package(tmp_path, code={"train_gpt.py": code}, logs=logs(code=len(code)))
    assert answer(audited(record), "A8") == said


@pytest.mark.parametrize(("val", "said"), [("ab" * 32, "FAIL"), ("cd" * 32, "PASS")])
def test_streams_of_one_hash_are_named(tmp_path: Path, val: str, said: str) -> None:
    """A log that prints the same hash for training and validation."""
    texts = {name: f"train_sha256:{'ab' * 32}\nval_sha256:{val}\n{text}" for name, text in logs().items()}
    assert answer(audited(package(tmp_path, logs=texts)), "A8") == said


@pytest.mark.parametrize(("length", "said"), [(2048, "WARN"), (1024, "PASS")])
def test_settings_of_all_logs_are_compared(tmp_path: Path, length: int, said: str) -> None:
    """One of three logs ran with other sequences."""
    texts = {name: f"train_seq_len:{length if '3' in name else 1024} x\n{text}" for name, text in logs().items()}
    assert answer(audited(package(tmp_path, logs=texts)), "A9") == said


def test_mean_that_no_log_gives_fails(tmp_path: Path) -> None:
    """A claimed mean below that of its own logs; the right one passes."""
    assert answer(audited(package(tmp_path, claim={"val_bpb": 1.0953})), "A10") == "FAIL"
    assert answer(audited(package(tmp_path / "right")), "A10") == "PASS"


def bytecode(folder: Path) -> None:
    """A module that ships compiled only."""
    source = folder / "fast_ops.py"
    source.write_text("X = 1\n" * 400)
    py_compile.compile(str(source), cfile=str(folder / "fast_ops.pyc"))
    source.unlink()


def text_file(folder: Path) -> None:
    """A script in a file of another name."""
    (folder / "impl.txt").write_text("X = 1\n" * 400)


@pytest.mark.parametrize(
    ("code", "beside"),
    [
        ("import fast_ops\n", bytecode),
        ("source = open('impl.txt').read()\ncode = compile(source, 'x', 'exec')\nexec(code)\n", text_file),
        ("def load(name):\n    return open(name).read()\n\nexec(load('impl.txt'))\n", text_file),
    ],
)
def test_code_under_another_name_counts(tmp_path: Path, code: str, beside: Callable[[Path], None]) -> None:
    """Bytecode that is imported, and text that reaches exec over several names."""
    record = package(tmp_path, code={"train_gpt.py": code}, logs=logs(code=len(code)))
    beside(record)
    assert answer(audited(record), "A2") == "FAIL"


def test_files_that_nothing_runs_do_not_count(tmp_path: Path) -> None:
    """The same files beside a script that does not touch them."""
    record = package(tmp_path)
    bytecode(record)
    text_file(record)
    assert answer(audited(record), "A2") == "PASS"


@pytest.mark.parametrize(("name", "said"), [("final_model.int6.br", "FAIL"), ("notes.br", "PASS")])
def test_model_under_another_ending_counts(tmp_path: Path, name: str, said: str) -> None:
    """A packed model by its name, whatever packed it."""
    record = package(tmp_path)
    with (record / name).open("wb") as file:
        file.truncate(16_000_000)
    assert answer(audited(record), "A1") == said


@pytest.mark.parametrize(
    ("code", "claim"), [("", None), ("exec(open('engine.py').read())\n", None), (SCRIPT, '{"val_bpb": 1.1,')]
)
def test_incomplete_package_is_named(tmp_path: Path, code: str, claim: str | None) -> None:
    """An empty script, a script that executes what is not there, a claim cut short."""
    record = package(tmp_path, code={"train_gpt.py": code}, logs=logs(code=len(code)))
    if claim is not None:
        (record / "submission.json").write_text(claim)
    assert answer(audited(record), "A11") in {"FAIL", "WARN"}


def test_packages_of_a_shell_script_are_declared(tmp_path: Path) -> None:
    """What setup.sh installs is named."""
    code = "import zstandard\n" + SCRIPT
    record = package(tmp_path, code={"train_gpt.py": code}, logs=logs(code=len(code)))
    assert answer(audited(record), "A11") == "WARN"
    (record / "setup.sh").write_text("pip install zstandard\n")
    assert answer(audited(record), "A11") == "PASS"


def test_track_without_limits_is_not_held_to_them(tmp_path: Path) -> None:
    """A claim that names a track of its own is no record run; without one the clock binds."""
    record = package(tmp_path, logs=logs(ms=3_600_000))
    assert answer(audited(record), "A3") == "FAIL"
    claim = json.loads((record / "submission.json").read_text())
    (record / "submission.json").write_text(json.dumps({**claim, "track": "non_record_16mb"}))
    assert answer(audited(record), "A3") == "PASS"
