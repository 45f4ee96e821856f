"""`golfctl cost`, and caps that stop spending before it happens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.golfctl import campaigns
from tests.golfctl.campaigns import golfctl

PRICED = campaigns.GOLF + "hosts: {local: {kind: local, slots: 1, usd_per_hour: 3600}}\n"
"""A dollar a second; every gate is expected to take 60 s."""


@pytest.mark.service
@pytest.mark.parametrize(
    ("caps", "said"),
    [
        ("usd: 59", "budget: the campaign: $0.00 spent and up to $60.00 ahead exceed the cap of $59.00"),
        ("gate_usd: {1: 59}", "budget: sharp at gate 1: $0.00 spent and up to $60.00 ahead exceed the cap of $59.00"),
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
