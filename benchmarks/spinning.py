"""How long waiting OpenMP threads should spin: a step of the default model on an idle machine, and beside another process.

    python benchmarks/spinning.py [--steps 60] [--rounds 3]

Writes results/spinning.md. Run it on a machine that does nothing else: the other process is its own.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent))
from machine import describe

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
OUT = ROOT / "benchmarks" / "results" / "spinning.md"
SPINS = (1_000, 3_000, 10_000, 100_000, 300_000)
"""GOMP_SPINCOUNT; the last is what libgomp takes by itself."""


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """So many other processes, each with a core's worth of work."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def step(spin: int, steps: int) -> float:
    """Milliseconds a step, the mean of a run of two threads without its first ten steps; what follows the training is cut off."""
    with tempfile.TemporaryDirectory() as place:
        words = [f"ITERATIONS={steps}", "CPU_THREADS=2", "TRAIN_LOG_EVERY=10", f"OUT_DIR={place}"]
        command = [sys.executable, "-u", "-m", "trainer", *words]
        environment = os.environ | {"GOMP_SPINCOUNT": str(spin), "PYTHONPATH": str(ROOT)}
        times: dict[int, float] = {}
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as run:
            assert run.stdout is not None
            for line in run.stdout:
                if told := re.match(r"step:(\d+)/\d+ train_loss:\S+ train_time:(\d+)ms", line):
                    times[int(told[1])] = float(told[2])
                if steps in times:
                    break
            run.kill()
    return (times[steps] - times[10]) / (steps - 10)


def main() -> None:
    """Measure, all spins in turns; write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    found: dict[tuple[int, int], list[float]] = {}
    for _ in range(asked.rounds):
        for others in (0, 1):
            with busy(others):
                for spin in SPINS:
                    found.setdefault((spin, others), []).append(step(spin, asked.steps))
                    print(spin, others, f"{found[spin, others][-1]:.1f} ms", flush=True)
    lines = [HEAD.format(machine=", ".join(f"{key} {value}" for key, value in describe().items()), **vars(asked))]
    for spin in SPINS:
        cells = []
        for others in (0, 1):
            base, own = found[SPINS[0], others], found[spin, others]
            cells.append(
                f"{statistics.median(b / a for a, b in zip(base, own, strict=True)):.2f} ({min(own):.0f} to {max(own):.0f} ms)"
            )
        lines.append(f"| {spin:,} | {' | '.join(cells)} |")
    OUT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(OUT.read_text())


HEAD = """\
# How long waiting threads should spin

Made by `benchmarks/spinning.py`. Machine: {machine}.

Time of a step of the default model with two threads over that at `GOMP_SPINCOUNT=1000`, our default: median of {rounds} rounds
of runs of {steps} steps in turns, and the range of times. Beside: one other process that wants a core all the time.

| GOMP_SPINCOUNT | alone | beside another process |
|---|---|---|"""


if __name__ == "__main__":
    main()
