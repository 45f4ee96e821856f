"""`golfctl cost`, and caps that stop spending before it happens."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from golfctl.budget import PlanCost, Row
from golfctl.cli.cost import _bought
from golfctl.domain.host import HostSpec
from golfctl.domain.run import Outcome
from golfctl.domain.state import State
from golfctl.runner.collect import _saved
from tests.golfctl import campaigns, factories
from tests.golfctl.campaigns import GOLFCTL, golfctl

PRICED = campaigns.GOLF + "hosts: {local: {kind: local, slots: 1, usd_per_hour: 3600}}\n"
"""A dollar a second; every gate is expected to take 60 s."""


@pytest.mark.service
@pytest.mark.parametrize(
    ("caps", "said"),
    [
        ("usd: 59", "budget: the campaign: $0.00 spent and about $60.00 ahead exceed the cap of $59.00"),
        ("gate_usd: {1: 59}", "budget: sharp at gate 1: $0.00 spent and about $60.00 ahead exceed the cap of $59.00"),
    ],
)
def test_cap_stops_a_run_before_it_starts(tmp_path: Path, caps: str, said: str) -> None:
    """Exit 1 and one line, also with --yes; nothing is recorded."""
    root = campaigns.make(tmp_path / "c", PRICED + f"budget: {{{caps}}}\n")
    done = golfctl(root, "gate", "run", "sharp", "--through", "1", "--yes", expect=1)
    assert said in done.stderr
    assert not list(root.glob("experiments/ledger/*.jsonl"))
    dry = golfctl(root, "gate", "run", "sharp", "--through", "1", "--dry-run")
    assert f"{said} " in dry.stdout
    assert dry.stdout.rstrip().endswith("it would not be started")


@pytest.mark.service
def test_cap_holds_where_runs_outlast_their_estimate(tmp_path: Path) -> None:
    """The first run shows what one takes: what was asked for with a guess of a few cents ends there, in one line."""
    gates = PRICED.replace("ITERATIONS: 5}", "ITERATIONS: 5}, seeds: 3, estimate_s: 0.01")
    root = campaigns.make(tmp_path / "c", gates + "budget: {usd: 0.1}\n", step_seconds=0.1)
    done = golfctl(root, "gate", "run", "sharp", "--through", "1", "--yes", expect=1)
    assert "sharp: budget: the campaign: $" in done.stdout
    assert "exceed the cap of $0.10 (budget.usd of golf.yaml); nothing more was started" in done.stdout
    ends = [run["outcome"] for run in json.loads(golfctl(root, "runs", "list", "--json").stdout)]
    assert ends == ["completed"]


@pytest.mark.service
def test_cost_tells_what_a_run_cost(tmp_path: Path) -> None:
    """One smoke run at a dollar a second: the run's own seconds, and those of the machine beside them."""
    root = campaigns.make(tmp_path / "c", PRICED + "budget: {usd: 500}\n")
    golfctl(root, "gate", "run", "sharp", "--through", "1", "--yes")
    found = json.loads(golfctl(root, "cost", "--json").stdout)
    assert found["total"]["usd"] == pytest.approx(found["total"]["seconds"], rel=0.01)
    assert found["left_usd"] == pytest.approx(500 - found["total"]["usd"])
    assert [row["row"]["name"] for row in found["plans"]] == ["sharp"]
    assert found["hosts"][0]["idle_usd"] >= 0
    text = golfctl(root, "cost", "sharp").stdout
    assert text.startswith("sharp: $")
    assert "gate 1" in text
    assert "no such plan; did you mean 'sharp'?" in golfctl(root, "cost", "sharpp", expect=2).stderr


def test_abort_saves_what_completed_runs_take_on_average() -> None:
    """A run that hung until its time was over says nothing of what the aborted one would have cost."""
    gate = factories.gate()
    hung = replace(factories.run("A", gate, 4, outcome=Outcome.OVER_TIME), wall_s=3600.0, result=factories.result(None))
    known = [replace(factories.run("A", gate, seed), wall_s=seconds) for seed, seconds in ((1, 10.0), (2, 14.0))]
    host, aborted = HostSpec("local", slots=1, usd_per_hour=3600.0), factories.run("B", gate)
    state = State(runs={item.spec.name: item for item in (*known, hung)})
    assert _saved(host, aborted, 5.0, state) == pytest.approx(7.0)
    assert _saved(host, aborted, 5.0, State(runs={hung.spec.name: hung})) == 0.0


@pytest.mark.service
def test_run_that_a_person_stopped_saves_nothing(tmp_path: Path) -> None:
    """No rule aborted it; one of its kind took some seconds more before."""
    root = campaigns.make(tmp_path / "c", PRICED, step_seconds=1.0)
    golfctl(root, "gate", "run", "sharp", "--through", "1", "--yes")
    command = [*GOLFCTL, "gate", "run", "blunt", "--through", "1", "--yes"]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while golfctl(root, "runs", "stop", "blunt.g1", expect=None).returncode and time.monotonic() < deadline:
            time.sleep(0.1)
        assert process.wait(60) == 1
    ends = [(run["outcome"], run["saved_usd"]) for run in json.loads(golfctl(root, "runs", "list", "--json").stdout)]
    assert sorted(ends) == [("aborted", 0.0), ("completed", 0.0)]


def test_cap_that_is_passed_is_no_room_left() -> None:
    """Dollars over a cap are told as such, not as a negative rest."""
    row = Row("A", 1, 10.0, 5.0, 0.0, 0.0)
    assert _bought(PlanCost(row, None, None, 46.0)).endswith("; $46.00 left of its cap")
    assert _bought(PlanCost(row, None, None, -54.0)).endswith("; $54.00 over its cap")
