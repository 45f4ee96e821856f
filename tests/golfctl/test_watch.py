"""The dashboard: fits any width and height, obeys nobody, looks and does nothing else; q leaves the runs going."""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from golfctl.report.watching import Ended, HostSeen, Judged, RunSeen, Snapshot, Waiting, draw, spark
from golfctl.runner.watching import Watcher
from golfctl.store.campaign import load
from tests.golfctl.campaigns import GOLF, GOLFCTL, golfctl, make, processes_of
from tests.golfctl.runlab import wait_until
from tests.golfctl.test_hostile import Terminal

EVIL = "\x1b]0;owned\x07<script>\n\u202eevil [red]" + "x" * 10_000
RUN = RunSeen(
    "D.g3.s1337.a1", "D", 3, 1337, "pod1", "running", 61.0, 0.12, 1500, 20000, 83.456, 2.3456, 1.2345, 1540.0, (4.0, 3.0, 2.0)
)  # fmt: skip
SHOT = Snapshot(
    campaign="golf",
    base="merged",
    when="2026-11-21T20:00:00Z",
    runs=(RUN, replace(RUN, name="B", plan="B", state="silent", step=None, curve=())),
    waiting=tuple(Waiting(f"plan{n}", "waits", "gate 2, seed 42: not run yet") for n in range(60)),
    hosts=(HostSeen("pod1", 8, 8, 21.52), HostSeen("pod2", 8, 0, 0.0, "no answer")),
    ended=(Ended("A.g1.s1.a1", "crashed", None, 0.1, "exit code 1"), Ended("A.g2.s1.a1", "completed", 1.25, 0.1, "")),
    judged=(Judged("A", 2, "PASS", "val_bpb 1.1"),),
    spent_usd=12.5,
    under_way_usd=3.5,
    usd_per_hour=21.52,
    left_usd=44.0,
    others=7,
)


def shown(shot: Snapshot, width: int, height: int | None = None, plain: bool = False) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None, highlight=False, force_terminal=True)
    with console.capture() as found:
        console.print(draw(shot, width, height, plain))
    return found.get().split("\n")[:-1]


@pytest.mark.parametrize("width", [30, 42, 60, 80, 120, 200])
def test_dashboard_fits_the_width(width: int) -> None:
    """What one watches stays: plan, step, loss; hostile text is one cell of letters."""
    evil = replace(
        SHOT,
        runs=(RUN, replace(RUN, plan=EVIL, host=EVIL)),
        waiting=(Waiting(EVIL, "next", EVIL),),
        judged=(Judged(EVIL, 1, "FAIL", EVIL),),
        campaign=EVIL,
    )
    for shot in (SHOT, evil):
        lines = shown(shot, width)
        assert max(map(cell_len, lines)) <= width
        assert all(line.isprintable() for line in lines)
        assert any("1500/20000" in line and "2.346" in line and "D" in line for line in lines)


def test_dashboard_says_it_all_in_80_columns() -> None:
    """Runs, queue, verdicts, ended, hosts and dollars."""
    text = "\n".join(shown(SHOT, 80))
    for word in (
        "1.2345",
        "25:40",
        "$0.12",
        "silent",
        "waits",
        "PASS",
        "crashed",
        "1.2500",
        "8 of 8 busy",
        "no answer",
    ):
        assert word in text, word
    assert "$12.50 spent   $21.52/h now   about $3.50 under way   $44.00 left of the cap" in text
    assert "and 20 more" in text and "7 further plans" in text


@pytest.mark.parametrize("height", [8, 12, 24, 50])
def test_dashboard_fits_the_height(height: int) -> None:
    """Runs come first; what has no room is counted."""
    lines = shown(SHOT, 80, height)
    assert len(lines) <= height
    assert any("1500/20000" in line for line in lines)


def test_curve_falls_from_left_to_right() -> None:
    """One letter for each share of the values; ASCII where the terminal knows no more; nan is left out."""
    values = [4.0, 3.0, math.nan, 2.0, 1.0]
    assert spark(values, 4, False) == "█▆▃▁"
    assert spark(values, 2, True) == "#_"
    assert spark(values, 4, True).isascii() and len(spark(list(range(1000)), 24, True)) == 24
    assert spark([1.0], 10, False) == spark([], 10, False) == "" and spark([2.0, 2.0], 9, True) == "__"


def record(root: Path) -> dict[str, str]:
    """Every file of a campaign with its hash."""
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_look_changes_nothing_and_shows_the_queue(tmp_path: Path) -> None:
    """Three plans that never ran, one place to run: the first would start, the others wait."""
    root = make(tmp_path / "golf")
    before = record(root)
    watcher = Watcher(load(root), tmp_path / "copies")
    shot = watcher.look()
    watcher.close()
    assert [(item.plan, item.what) for item in shot.waiting] == [
        ("blunt", "next"),
        ("sharp", "waits"),
        ("sharper", "waits"),
    ]
    assert not shot.runs and shot.hosts == (HostSeen("local", 1, 0, 0.0),)
    after = record(root)
    assert {name for name in after if after[name] != before.get(name)} <= {".golfctl/machine.json"}


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[Path]:
    """A campaign in which `gate run` is at work on a run of 300 steps of a second each; it is stopped at the end."""
    golf = GOLF.replace("<= 5000", "<= 500000").replace("{ITERATIONS: 5}", "{ITERATIONS: 300}")
    root = make(tmp_path / "golf", golf, step_seconds=1)
    with (tmp_path / "log").open("wb") as log:
        runner = subprocess.Popen([*GOLFCTL, "gate", "run", "sharp", "--through", "1", "--yes"], cwd=root, stdout=log)
    wait_until(lambda: (root / "experiments" / "ledger").is_dir() and seen(root) >= 2, 120)
    yield root
    golfctl(root, "runs", "stop", "--all", expect=None)
    runner.wait(120)
    wait_until(lambda: not processes_of(tmp_path), 60)


def seen(root: Path) -> int:
    """The step the only run has reached, as `watch --json` says; 0 before its first."""
    runs = json.loads(golfctl(root, "watch", "--json").stdout)["runs"]
    return (runs[0]["step"] or 0) if runs else 0


@pytest.mark.service
def test_watch_on_a_terminal_and_q(busy: Path) -> None:
    """A narrow pseudo-terminal: the run appears and goes on; q leaves the screen as it was, and the run alone."""
    terminal = Terminal(busy, "watch", columns=60)
    text = terminal.wait_for(r"sharp\s.*\d+/300")
    assert "queue" in text and "blunt" in text
    steps = set(re.findall(r"(\d+)/300", text))
    while len(steps) < 2:  # it lives
        terminal.read(0.5)
        steps = set(re.findall(r"(\d+)/300", terminal.text))
    terminal.press(b"q")
    assert terminal.end() == 0
    assert terminal.raw.count(b"\x1b[?1049h") == terminal.raw.count(b"\x1b[?1049l") == 1, "the screen is given back"
    assert b"\x1b[?25h" in terminal.raw[-400:], "the cursor is back"
    assert "1 run under way, and going on; golfctl watch looks again" in terminal.text
    assert "Traceback" not in terminal.text and b"\x1b]" not in terminal.raw
    other = Terminal(busy, "watch")
    other.wait_for(r"\d+/300")
    other.press(b"\x03")
    assert other.end() == 0 and "Traceback" not in other.text
    before = seen(busy)
    wait_until(lambda: seen(busy) > before, 60)
    (run,) = json.loads(golfctl(busy, "runs", "list", "--json").stdout)
    assert run["outcome"] is None


@pytest.mark.service
def test_watch_without_a_terminal_prints_one_look(busy: Path) -> None:
    """In a pipe, with --once, as JSON; the log of a run under way is read, its curve too."""
    shot = json.loads(golfctl(busy, "watch", "--json").stdout)
    (run,) = shot["runs"]
    assert run["plan"] == "sharp" and run["state"] == "running" and run["steps"] == 300 and len(run["curve"]) >= 2
    assert run["elapsed_s"] > 0 and run["left_s"] > 0 and shot["hosts"][0]["busy"] == 1
    done = golfctl(busy, "watch")
    assert "1 under way" in done.stdout and "\x1b" not in done.stdout and max(map(len, done.stdout.splitlines())) <= 80
    assert golfctl(busy, "watch", "--once", PYTHONIOENCODING="ascii").stdout.isascii()
