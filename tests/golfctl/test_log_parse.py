"""`golfctl log parse`: JSON lines in order, the line of every number, one line for what can't be read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.golfctl.test_logs import LOG, MINUTES


def test_log_parse_prints_one_object_a_line_in_order(tmp_path: Path) -> None:
    """JSON for programs; nan as text."""
    one, two = tmp_path / "one.log", tmp_path / "two.log"
    one.write_text(LOG)
    two.write_text(MINUTES.replace("2.9001", "nan"))
    done = subprocess.run(
        [sys.executable, "-m", "golfctl", "log", "parse", "--json", str(two), str(one)],
        capture_output=True,
        text=True,
        check=True,
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [item["seed"] for item in found] == [7, 42]


def test_log_parse_explains_every_number(tmp_path: Path) -> None:
    """The line it came from, and why this score."""
    path = tmp_path / "train.log"
    path.write_text(LOG)
    done = subprocess.run(
        [sys.executable, "-m", "golfctl", "log", "parse", "--explain", str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "line 4" in next(line for line in done.stdout.splitlines() if line.strip().startswith("seed "))
    assert "headline_reason" in done.stdout


def test_log_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    """Exit 2, what and where."""
    done = subprocess.run(
        [sys.executable, "-m", "golfctl", "log", "parse", str(tmp_path / "none.log")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "none.log: can't be read" in done.stderr
    assert done.stderr.count("\n") == 1
