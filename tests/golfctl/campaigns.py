"""Campaigns on a foreign script that trains in a second: the whole product, without waiting for torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from golfctl.store.bases import freeze_script
from golfctl.store.campaign import load

SCRIPT = Path(__file__).parent / "foreign" / "bigram.py"
GOLFCTL = [sys.executable, "-m", "golfctl"]

GOLF = """\
name: test-campaign
seeds: [1337, 42, 2025]
rules: {score_label: final_exact}
gates:
  1: {name: smoke, kind: threshold, env: {ITERATIONS: 5}, require: {step_avg_ms: "<= 5000"}, overriding: true}
  2: {name: full, kind: versus, parent_seeds: 3, alpha: 0.10, env: {ITERATIONS: 20}}
  3: {name: scale, kind: threshold, env: {ITERATIONS: 25}, require: {score: "<= base - 0.05"}}
  4: {name: final, kind: threshold, seeds: 3, env: {ITERATIONS: 25}, require: {score: "<= base - 0.05"}}
"""
PLAN = """\
id: {id}
title: {title}
hypothesis: it helps
diffs:
  - set: {{{settings}}}
"""


def make(folder: Path, gates: str = GOLF, step_seconds: float = 0.0) -> Path:
    """A campaign with base `bigram` and three plans: a gain, one on top of it, and a loss. Returns its root."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "golf.yaml").write_text(gates)
    for name in ("plans", "bases", "experiments"):
        (folder / name).mkdir(exist_ok=True)
    freeze_script(
        load(folder),
        "bigram",
        SCRIPT,
        score_label="final_exact",
        artifact=["model.json"],
        settings={"STEP_SECONDS": str(step_seconds)},
    )
    (folder / "golf.yaml").write_text(gates + "base: bigram\n")
    add_plan(folder, "sharp", "SMOOTHING: 0.1", "Less smoothing")
    add_plan(folder, "sharper", "SMOOTHING: 0.02", "Even less smoothing", "depends_on: [sharp]\n")
    add_plan(folder, "blunt", "SMOOTHING: 3", "More smoothing")
    return folder


def add_plan(root: Path, plan: str, settings: str, title: str = "A plan", more: str = "") -> Path:
    """Write one plan file."""
    path = root / "plans" / f"{plan}.yaml"
    path.write_text(PLAN.format(id=plan, title=title, settings=settings) + more)
    return path


def golfctl(root: Path, *words: str, expect: int | None = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a user would; assert its exit code unless `expect` is None."""
    done = subprocess.run(
        [*GOLFCTL, *words],
        cwd=root,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert expect is None or done.returncode == expect, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def processes_of(root: Path) -> list[int]:
    """Live processes whose environment or command line names this campaign's folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            environ, command = (entry / "environ").read_bytes(), (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if f"GOLFCTL_RUN={root}".encode() in environ or (str(root).encode() in command and b"supervise" in command):
            found.append(int(entry.name))
    return found
