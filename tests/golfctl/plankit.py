"""Campaigns for tests of plans: a small script as base, and plans and patches made on the spot."""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest

from golfctl.errors import InputErrors
from golfctl.store import bases
from golfctl.store.campaign import Campaign, load

GOLF = """\
name: kit
base: tiny
seeds: [1, 2, 3]
gates:
  1: {name: smoke, kind: threshold, env: {STEPS: 5}, require: {step_avg_ms: "<= 400"}, overriding: true}
  2: {name: full, kind: versus}
  3: {name: final, kind: threshold, seeds: 3, require: {score: "<= base - 0.05"}}
"""
SCRIPT = """\
import os

STEPS = int(os.environ.get("STEPS", 100))
RATE = float(os.environ.get("LEARNING_RATE", "0.1"))
WIDTH = int(os.getenv("WIDTH", 16))


def seed():
    return int(os.environ["SEED"])


def train():
    for step in range(STEPS):
        print(step, RATE, WIDTH)


def score():
    return 1.0


if __name__ == "__main__":
    train()
    print("final val_bpb", score(), os.environ["OUT_DIR"])
"""
PLAN = "id: {id}\ntitle: A plan\nhypothesis: it helps\n"


def make(root: Path, golf: str = GOLF) -> Campaign:
    """A campaign with the base `tiny` and no plans."""
    for name in ("plans/patches", "bases", "experiments"):
        (root / name).mkdir(parents=True)
    (root / "golf.yaml").write_text(golf.replace("base: tiny\n", ""))
    script = root / "tiny.py"
    script.write_text(SCRIPT)
    bases.freeze_script(load(root), "tiny", script, score_label="final")
    (root / "golf.yaml").write_text(golf)
    return load(root)


def plan(campaign: Campaign, name: str, more: str = "") -> Path:
    """Write a plan: the head, then `more`."""
    path = campaign.plans_folder / f"{name}.yaml"
    path.write_text(PLAN.format(id=name) + more)
    return path


def patch(campaign: Campaign, name: str, before: str, after: str, file: str = "tiny.py") -> str:
    """Write plans/patches/NAME.patch that turns `before` into `after`; returns its path for a plan."""
    lines = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), f"a/{file}", f"b/{file}"
    )
    (campaign.plans_folder / "patches").mkdir(exist_ok=True)
    (campaign.plans_folder / "patches" / f"{name}.patch").write_text("".join(lines))
    return f"patches/{name}.patch"


def said(campaign: Campaign) -> list[str]:
    """All problems of a full check, as printed."""
    from golfctl.store.check import check

    return [str(problem) for problem in check(load(campaign.root)).problems]


def refusals(call: object, *arguments: object) -> list[str]:
    """The problems a call raises as InputErrors."""
    with pytest.raises(InputErrors) as caught:
        call(*arguments)  # type: ignore[operator]  # a callable
    return [str(problem) for problem in caught.value.problems]
