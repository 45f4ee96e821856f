"""What the campaigns below studies/ found, read from their ledgers by golfctl itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
GOLFCTL = [sys.executable, "-m", "golfctl"]


def report(study: Path) -> dict[str, Any]:
    """The whole report of a campaign."""
    return dict(json.loads(subprocess.check_output([*GOLFCTL, "report", "--json"], cwd=study)))


def runs(study: Path) -> list[dict[str, Any]]:
    """Every run of a campaign, a flat dict each."""
    words = ["ledger", "export", "runs", "--format", "jsonl"]
    return [json.loads(line) for line in subprocess.check_output([*GOLFCTL, *words], cwd=study, text=True).splitlines()]


def verdict(plan: dict[str, Any]) -> dict[str, Any] | None:
    """The first verdict on a plan of the report."""
    return next((gate["verdict"] for gate in plan["gates"] if gate.get("verdict")), None)


def settings(study: Path, plan: str) -> dict[str, Any]:
    """What a plan sets."""
    return dict(yaml.safe_load((study / "plans" / f"{plan}.yaml").read_text())["diffs"][0]["set"])


def flops(values: dict[str, Any]) -> float:
    """Training FLOPs a token of the default model with these settings, by the trainer's own count."""
    words = [f"{name}={value}" for name, value in values.items()]
    command = [sys.executable, "-m", "trainer", *words, "--describe", "--json"]
    return float(json.loads(subprocess.check_output(command, cwd=ROOT))["flops_per_token"]["total"])
