"""Reports of 200 and of 10,000 runs: terminal, Markdown, brief, tables and page. Writes results/reports.md."""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent))
from machine import describe

from tests.golfctl.reportlab import lived_in

RESULT = Path(__file__).parent / "results" / "reports.md"
GOLFCTL = [sys.executable, "-m", "golfctl"]
COMMANDS = {
    "`report`: terminal and Markdown": (["report"], "2 (terminal)"),
    "`report PLAN`": (["report", "int5-mlp"], ""),
    "`report --html`": (["report", "--html", "{out}/report.html"], "10 (page)"),
    "`brief`": (["brief"], ""),
    "`watch --once`": (["watch", "--once"], ""),
    "`export --to csv`": (["export", "--to", "csv", "-o", "{out}/csv"], ""),
}


def seconds(root: Path, words: list[str]) -> tuple[float, float]:
    """Wall and processor time of a golfctl command that must succeed."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run([*GOLFCTL, *words], cwd=root, check=True, capture_output=True)
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def rows(folder: Path, runs: int, logs: bool, times: int) -> list[str]:
    """A table's rows for a campaign of so many runs, 30 plans and a leaderboard."""
    root = lived_in(folder / str(runs), runs, logs=logs).root
    found = []
    for name, (words, allowed) in COMMANDS.items():
        filled = [word.replace("{out}", str(folder / f"out{runs}")) for word in words]
        (folder / f"out{runs}").mkdir(exist_ok=True)
        walls, cpus = zip(*(seconds(root, filled) for _ in range(times)), strict=True)
        figures = " | ".join(
            f"{value:.1f}" for value in (min(walls), statistics.median(walls), statistics.median(cpus))
        )
        found.append(f"| {runs:,} | {name} | {figures} | {allowed if runs >= 10_000 else ''} |")
    return found


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description="Reports of many runs.")
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument(
        "--ahead", action="store_true", help="let the timed commands go before other work on the machine"
    )
    options = parser.parse_args()
    GOLFCTL[:0] = ["chrt", "-r", "1"] if options.ahead else []
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="golf-reports-") as name:
        found = rows(Path(name), 200, True, options.times) + rows(Path(name), options.runs, False, options.times)
    load = (load + os.getloadavg()[0]) / 2
    machine = describe()
    beside = "; they went before other work (chrt -r 1)" if options.ahead else ""
    text = f"""# Reports of many runs

Made by `benchmarks/reports.py`. {machine["processor"]}, {machine["cores"]} cores, Python {machine["python"]}; {machine["note"]}.
Seconds of whole commands on made-up campaigns of 30 plans with a leaderboard: best and median of {options.times}, processor time
beside them, at a load of {load:.1f} on {machine["cores"]} cores{beside}.
The campaign of 200 runs has logs, the other has none.

| runs | command | best | median | processor | allowed |
|---|---|---|---|---|---|
{chr(10).join(found)}
"""
    RESULT.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
