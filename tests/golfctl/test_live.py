"""The live view: one line per run, at 80 columns, in a pipe, without colours; Ctrl-C leaves the runs going."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from golfctl.cli.live import Live
from golfctl.domain.host import HostSpec
from golfctl.domain.run import RunSpec
from golfctl.logs import Progress, progress
from tests.golfctl.campaigns import GOLF, GOLFCTL, golfctl, make, processes_of
from tests.golfctl.factories import gate
from tests.golfctl.sshlab import Home, Sshd, ssh_home, sshd, wait_until
from tests.golfctl.test_hostile import Terminal, harmless

__all__ = ["ssh_home", "sshd"]
HOSTS = {"pod1": HostSpec("pod1", slots=8, usd_per_hour=21.52)}
EIGHT = 8
LONG = Progress(19950, 20000, train_loss=2.3456, val_bpb=1.2345, step_avg_ms=129.94)


def spec(owner: str = "D", seed: int = 1337, processes: int = EIGHT, host: str = "pod1") -> RunSpec:
    """A run under way."""
    name = f"{owner}.g3.s{seed}.a1.0123abcd-ef01"
    return RunSpec(name, owner, "0" * 64, 3, seed, 1, host, "s", processes)


def drawn(*runs: tuple[RunSpec, Progress | None], width: int = 80) -> list[str]:
    """The lines of the view, as a terminal of this width has them."""
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None, highlight=False)
    live = Live(console, HOSTS)
    for run, seen in runs:
        live.launched(run, gate(3), adopted=False)
        if seen:
            live.progressed(run, seen)
    with console.capture() as shown:
        console.print(live._table())
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.get())
    head, *lines = [line.rstrip() for line in plain.splitlines() if line.strip()]
    assert head.split() == ["gate", "plan", "seed", "host", "step", "step_avg", "loss", "val_bpb", "left", "cost"]
    return lines


def test_one_line_says_it_all_in_80_columns() -> None:
    """Gate, plan and seed, host, step, step_avg, loss, val_bpb, time left, dollars: whole, at the longest common values."""
    (line,) = drawn((spec("bigram-4096", 1337), LONG))
    assert len(line) <= 80
    for word in ("3", "bigram-4096", "1337", "pod1", "19950/20000", "130", "2.346", "1.2345", "0:06", "$0.00"):
        assert word in line, (word, line)


def test_eight_runs_are_eight_lines_with_columns_in_line() -> None:
    """Short and long names, with and without progress; no line is broken, none is longer than the terminal."""
    runs = [(spec(owner, seed), seen) for owner in ("D", "bigram-4096") for seed in (42, 1337) for seen in (None, LONG)]
    distinct = {run.name: (run, seen) for run, seen in runs}
    for width in (80, 100, 200):
        lines = drawn(*distinct.values(), width=width)
        assert len(lines) == len(distinct)
        assert max(map(len, lines)) <= width


def test_very_long_names_are_cut_and_figures_stay() -> None:
    """A name of 64 letters gives way; the figures are what one watches."""
    (line,) = drawn((spec("x" * 64), LONG))
    assert len(line) <= 80
    for word in ("19950/20000", "130", "2.346", "1.2345", "0:06"):
        assert word in line, (word, line)


def test_many_runs_are_counted() -> None:
    """More than fit are said to be there."""
    lines = drawn(*((spec("D", seed), LONG) for seed in range(64)))
    assert lines[-1] == "and 24 more"
    assert len(lines) == 41


@pytest.mark.parametrize(
    "line",
    [
        "step:1/5 train_loss:nan train_time:infms step_avg:nanms",
        "step:1/5 train_loss:inf train_time:1ms step_avg:infms",
        "step:1/5 train_loss:1e+300 step_avg:1e+300ms val_bpb:1e+300",
        "step:7/5 train_loss:1 step_avg:1ms",
        "step:999999999999999999/1 train_loss:1 step_avg:999999999999999ms",
        "step:0/999999999999999999 train_loss:-1 step_avg:999999999999999ms",
    ],
)
def test_figures_that_make_no_sense_are_drawn_all_the_same(line: str) -> None:
    """What the log of a run says is drawn, whatever it says: the view must not end with the run's numbers."""
    seen = progress(line)
    assert seen
    lines = drawn((spec(), seen), (spec("E"), LONG))
    assert len(lines) == 2
    assert max(map(len, lines)) <= 80
    assert "129" in lines[1] or "130" in lines[1]


def test_lines_of_digits_cost_no_time_and_no_error() -> None:
    """Numbers no run counts to: they are no progress, and reading them is quick."""
    began = time.monotonic()
    assert progress("step:" + "9" * 100_000 + "/5 x") is None
    assert progress("step:1/5 train_loss:" + "9" * 1_000_000) is None
    assert progress("step:1/5 " + "train_loss:" * 100_000) is None
    assert time.monotonic() - began < 20


# -- as a person sees it


@pytest.fixture
def campaign(ssh_home: Home, sshd: Sshd, tmp_path: Path) -> Iterator[Path]:
    """Plans whose runs take a while, on a host with four slots that costs money; what runs at the end is stopped."""
    root = make(tmp_path / "golf", GOLF.replace("<= 5000", "<= 500000"), step_seconds=4)
    text = f"pod1: {{kind: ssh, address: pod1, slots: 4, usd_per_hour: 3600, root: {tmp_path / 'far'}}}\n"
    (root / "hosts.yaml").write_text(text)
    yield root
    golfctl(root, "runs", "stop", "--all", expect=None)
    wait_until(lambda: not processes_of(tmp_path), 60)


WORDS = ("gate", "run", "sharp", "blunt", "--through", "1", "--host", "pod1", "--yes")


@pytest.mark.service
def test_ctrl_c_leaves_the_runs_going_and_says_how_to_come_back(campaign: Path) -> None:
    """On a terminal: lines that live, then Ctrl-C, exit 130; the runs go on, attach shows them, the same command goes on."""
    terminal = Terminal(campaign, *WORDS)
    terminal.wait_for(r"sharp.*\d+/\d+")
    terminal.press(b"\x03")
    assert terminal.end() == 130, terminal.text
    harmless(terminal.raw)
    said = " ".join(terminal.text.split())
    assert re.search(r"\d runs? under way, and going on: ", said)
    assert "Watch: golfctl runs attach" in said
    assert "Continue: golfctl gate run" in said
    assert "--through 1 --host pod1" in said
    assert terminal.raw.count(b"\x1b[?25h") >= terminal.raw.count(b"\x1b[?25l"), "the cursor is gone"
    assert "Traceback" not in terminal.text
    runs = json.loads(golfctl(campaign, "runs", "list", "--json").stdout)
    assert [run["outcome"] for run in runs] == [None, None]
    watching = Terminal(campaign, "runs", "attach")
    watching.wait_for(r"\d+/\d+")
    watching.press(b"\x03")
    assert watching.end() == 130
    assert "Traceback" not in watching.text
    done = golfctl(campaign, *WORDS)
    assert done.stdout.count("PASS") == 2
    after = json.loads(golfctl(campaign, "runs", "list", "--json").stdout)
    assert [run["spec"]["name"] for run in runs] == [run["spec"]["name"] for run in after]
    assert [run["outcome"] for run in after] == ["completed", "completed"]


@pytest.mark.service
def test_sigint_in_a_pipe_does_the_same(campaign: Path) -> None:
    """Without a terminal: plain lines, no control byte, exit 130 and one line about how to come back."""
    process = subprocess.Popen(
        [*GOLFCTL, *WORDS], cwd=campaign, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "started on pod1" in line:
            break
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert all(line.isprintable() for line in ("".join(lines) + out + errors).split("\n"))
    assert "Continue: golfctl gate run" in errors.splitlines()[-1]
    assert "Traceback" not in errors


@pytest.mark.service
def test_no_colour_where_none_is_wanted(campaign: Path) -> None:
    """NO_COLOR on a terminal: the living lines stay, colours do not; every line fits into 80 columns."""
    terminal = Terminal(campaign, *WORDS, NO_COLOR="1")
    text = terminal.wait_for(r"sharp.*\d+/\d+.*\$\d")
    terminal.press(b"\x03")
    terminal.end()
    assert not re.search(rb"\x1b\[[0-9;]*3[0-7]m", terminal.raw), "a colour"
    lines = [line for line in text.splitlines() if re.search(r"\d+/\d+", line)]
    assert lines
    assert max(map(len, lines)) <= 80
    assert any("$" in line and "pod1" in line for line in lines)
