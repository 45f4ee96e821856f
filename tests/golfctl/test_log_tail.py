"""`golfctl log tail`: the newest lines of any log, from its end, while it is written, moved away and cut."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from golfctl.report import logtail
from golfctl.report.logtail import Row, Tail, Target, row_of, show

FINAL = "final_int8_zlib_roundtrip_exact val_loss:2.07000000 val_bpb:1.22000000\n"


def train(step: int, steps: int = 1000) -> str:
    return f"step:{step}/{steps} train_loss:{4 - step / 1000:.4f} train_time:{step * 50}ms step_avg:50.00ms\n"


def golfctl(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "golfctl", "log", "tail", *map(str, words)]


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(golfctl(*words), capture_output=True, text=True, check=False, timeout=120)


@contextmanager
def following(*words: str | Path) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    """A tail at work and its output; ended whatever happens."""
    process = subprocess.Popen(golfctl(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process, process.stdout
    finally:
        process.kill()
        process.communicate()


def steps(rows: list[Row]) -> list[int | None]:
    return [row.step for row in rows]


def grown(tail: Tail) -> list[int | None]:
    return [row.step for row in logtail.rows_of(tail.more(), Target())]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "step:500/1000 train_loss:2.5000 train_time:50000ms step_avg:100.00ms",
            Row("train", 500, 1000, 2.5, None, None, 50_000.0, 100.0, 50.0),
        ),
        (
            "500/1000 val_loss: 2.5794 val_bpb: 1.2 train_time: 1.0m",
            Row("val", 500, 1000, None, 2.5794, 1.2, 60_000.0, 120.0, 60.0),
        ),
        ("step:500/1000 loss:3.3139 t:50000ms avg:100.0ms", Row("train", 500, 1000, 3.3139, None, None, 5e4, 100.0, 50.0)),
        ("step 250: train loss 1.9736, val loss 2.0512", Row("val", 250, None, None, 2.0512)),
        (FINAL, Row("eval", val_loss=2.07, val_bpb=1.22, label="final_int8_zlib_roundtrip_exact", final=True)),
        ("diagnostic quantized val_loss: 2.1 val_bpb: 1.2", Row("eval", val_loss=2.1, val_bpb=1.2, label="diagnostic quantized")),
        ("torch.OutOfMemoryError: CUDA out of memory", Row("end", text="torch.OutOfMemoryError: CUDA out of memory")),
        ("loading the loss function", None),
        ("", None),
    ],
)  # fmt: skip
def test_row_says_the_same_whatever_the_family(line: str, expected: Row | None) -> None:
    """Step, losses, milliseconds, step average, and seconds left; evaluations and crashes by name."""
    assert row_of(line, Target()) == expected


def test_row_knows_what_the_head_of_a_log_planned(tmp_path: Path) -> None:
    """A run that ends by the clock has no more left than its clock."""
    path = tmp_path / "a.log"
    path.write_text("iterations:20000 warmup_steps:20 max_wallclock_seconds:600.000\n" + train(100))
    target = logtail.target_of(path)
    assert target == Target(20_000, 600_000.0)
    row = row_of("step:6000/20000 train_loss:2.5 train_time:540000ms step_avg:90.00ms", target)
    assert row is not None
    assert row.left_s == 60.0


def test_row_is_shown_in_80_columns() -> None:
    """All numbers of usual size, and a number that is none."""
    for line in (
        "step:13780/20000 train_loss:12.0606 train_time:6000380ms step_avg:1043.54ms",
        "step:13780/20000 val_loss:12.0606 val_bpb:1.2172 train_time:6000380ms step_avg:1043.54ms",
        "step:1/2 train_loss:nan train_time:nanms step_avg:nanms",
    ):
        row = row_of(line, Target())
        assert row is not None
        assert len(show(row)) <= 80


def test_tail_reads_back_from_the_end_no_further_than_needed(tmp_path: Path) -> None:
    """Of a sparse file of 3 GiB whose middle is nothing."""
    path = tmp_path / "big.log"
    with path.open("wb") as file:
        file.write(train(1).encode() * 10)
        file.truncate(3 << 30)
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + "".join(train(step) for step in range(100, 200)).encode())
    before = time.process_time()
    tail = Tail(path)
    rows, rest = tail.newest(5, logtail.target_of(path))
    spent = time.process_time() - before
    tail.close()
    path.unlink()
    assert steps(rows) == [195, 196, 197, 198, 199]
    assert rest == ""
    assert spent < 2  # 0.02 s on an idle machine; reading the file would take far longer


def test_tail_finds_lines_far_before_the_end(tmp_path: Path) -> None:
    """Megabytes of other output came after them."""
    path = tmp_path / "a.log"
    path.write_text(train(1) + train(2) + "some other output of the program\n" * 100_000)
    tail = Tail(path)
    assert steps(tail.newest(5, Target())[0]) == [1, 2]
    tail.close()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_tail_reads_and_follows_any_encoding(tmp_path: Path, encoding: str) -> None:
    """From the middle of the file, and on when it grows by half a letter."""
    path = tmp_path / "a.log"
    text = "".join(train(step) for step in range(6000))
    path.write_bytes(text.encode(encoding))
    tail = Tail(path)
    rows, _ = tail.newest(3, Target())
    assert steps(rows) == [5997, 5998, 5999]
    more = train(6000).encode(encoding.removesuffix("-sig") if encoding != "utf-16" else f"utf-16-{sys.byteorder[0]}e")
    for part in (more[:21], more[21:]):
        with path.open("ab") as file:
            file.write(part)
        found = grown(tail)
    assert found == [6000]
    tail.close()


def test_tail_keeps_a_partial_line_back(tmp_path: Path) -> None:
    """Half a number is no number; the line comes when it is whole, also after a carriage return."""
    path = tmp_path / "a.log"
    path.write_text(train(1) + train(2)[:25])
    tail = Tail(path)
    rows, rest = tail.newest(5, Target())
    assert steps(rows) == [1]
    assert rest == train(2)[:25]
    assert grown(tail) == []
    with path.open("a") as file:
        file.write(train(2)[25:-1] + "\r" + train(3)[:-1])
    assert grown(tail) == [2]
    with path.open("a") as file:
        file.write("\r\n")
    assert grown(tail) == [3]
    tail.close()


def test_tail_goes_on_after_rotation_and_truncation(tmp_path: Path) -> None:
    """What was written to the old file before it was moved away is not lost."""
    path = tmp_path / "a.log"
    path.write_text(train(1) * 3)
    tail = Tail(path)
    tail.newest(1, Target())
    with path.open("a") as file:
        file.write(train(2))
    path.rename(tmp_path / "a.log.1")
    assert grown(tail) == [2]
    path.write_text(train(3))
    assert grown(tail) == [3]
    with path.open("w") as file:
        file.write("")
    assert grown(tail) == []
    path.write_text(train(4))
    assert grown(tail) == [4]
    tail.close()


@pytest.mark.service
def test_log_tail_prints_the_newest_lines(tmp_path: Path) -> None:
    """So many as asked for; as JSON; nothing is a note, what can't be read an error."""
    path = tmp_path / "a.log"
    path.write_text("".join(train(step) for step in range(1, 31)) + FINAL + "step:31/10")
    done = run(path, "-n", "3")
    assert len(done.stdout.splitlines()) == 3
    assert "final" in done.stdout
    assert "step:31/10" in done.stderr
    found = [json.loads(line) for line in run(path, "-n", "2", "--json").stdout.splitlines()]
    assert [item["kind"] for item in found] == ["train", "eval"]
    assert (found[0]["step"], found[0]["left_s"], found[1]["val_bpb"]) == (30, 48.5, 1.22)
    assert run(path, "-n", "0").stdout == ""
    path.write_text("hello\n")
    assert "no progress" in run(path).stderr
    gone = run(tmp_path / "gone.log")
    assert gone.returncode == 2
    assert "gone.log: can't be read" in gone.stderr


@pytest.mark.service
def test_log_tail_follows_until_the_end(tmp_path: Path) -> None:
    """A line at a time; an evaluation on the way is not the end, the final one is."""
    path = tmp_path / "a.log"
    path.write_text(train(1))
    with following(path, "--until-end") as (process, out):
        assert "1/1000" in out.readline()
        with path.open("a") as file:
            file.write(train(2) + "diagnostic pre-quantization val_loss: 2.1 val_bpb: 1.2\n")
        assert "2/1000" in out.readline()
        assert "diagnostic" in out.readline()
        assert process.poll() is None
        with path.open("a") as file:
            file.write(FINAL)
        assert "final_int8" in out.readline()
        assert process.wait(timeout=60) == 0
    assert run(path, "--until-end").returncode == 0  # it has ended already


@pytest.mark.service
def test_log_tail_ends_well_on_ctrl_c(tmp_path: Path) -> None:
    """Exit 0, and no traceback."""
    path = tmp_path / "a.log"
    path.write_text(train(1) + FINAL)
    with following(path, "-f") as (process, out):
        out.readline()
        assert "final" in out.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
