"""Where people wait: `golfctl --help` against importing typer, and checking 200 plans. Writes results/startup.json.

Each pair runs interleaved; medians of 10 and their ratio.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from machine import describe

RESULT = Path(__file__).parent / "results" / "startup.json"
PLAN = """\
id: p{number}
title: plan {number}
hypothesis: it helps
base: tiny-bytes
diffs:
  - set: {{MODEL_DIM: {dim}, NUM_LAYERS: 3, MATRIX_LR: 0.03}}
seeds: [1, 2, 3]
gates:
  1: {{require: {{step_avg_ms: "<= 500"}}}}
  4: {{require: {{score: "<= base - 0.02"}}}}
"""


def seconds(command: Sequence[str], cwd: Path | None = None) -> float:
    """Wall seconds of one run; it must succeed."""
    began = time.perf_counter()
    subprocess.run(command, cwd=cwd, check=True, capture_output=True)
    return time.perf_counter() - began


def interleaved(first: Sequence[str], second: Sequence[str], runs: int = 10) -> tuple[float, float]:
    """Medians of two commands run in turn, after one warm-up of each."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(runs + 1):
        for side, command in zip(times, (first, second), strict=True):
            took = seconds(command)
            if number:
                side.append(took)
    return statistics.median(times[0]), statistics.median(times[1])


def main() -> None:
    """Measure, print, write."""
    golfctl = str(Path(sys.executable).with_name("golfctl"))
    own, typer = interleaved([golfctl, "--help"], [sys.executable, "-c", "import typer"])
    with tempfile.TemporaryDirectory() as folder:
        campaign = Path(folder) / "campaign"
        seconds([golfctl, "init", str(campaign), "--preset", "cpu-demo"])
        for number in range(200):
            (campaign / "plans" / f"p{number}.yaml").write_text(PLAN.format(number=number, dim=64 + 16 * (number % 8)))
        check = statistics.median(seconds([golfctl, "plan", "check"], campaign) for _ in range(5))
        shutil.rmtree(campaign)
    result = {
        "machine": describe(),
        "help_ms": round(own * 1000, 1),
        "import_typer_ms": round(typer * 1000, 1),
        "help_over_import_typer": round(own / typer, 2),
        "check_200_plans_s": round(check, 2),
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
