"""Muon's three ways to the orthogonal factor: what each costs, how near it comes, and what models trained with it score.

    nice python benchmarks/orthogonal.py [--seeds 6] [--steps 300]

Writes results/orthogonal.md. Times are processor time on one thread, ways in turns in one process. Scores are on held-out
training text (`tune`), differences paired by seed; validation text is not touched.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from cpu_side_by_side import cell, interval, spent
from machine import describe

from trainer import train
from trainer.config import from_values
from trainer.data.dataset import open_dataset
from trainer.dist import keep_freed_memory
from trainer.evaluate import sliding
from trainer.metrics import Metrics
from trainer.optim.groups import ALONE
from trainer.optim.polar import ITERATIONS, Iteration, orthogonalise

RESULT = Path(__file__).parent / "results" / "orthogonal.md"
STEPS = 5
SHAPES = [(16, 128, 128), (8, 128, 512), (8, 256, 256), (4, 256, 1024), (8, 384, 384), (4, 384, 1536), (4, 768, 768)]
"""Matrices, rows, columns."""
TEXT = 32768
"""Bytes of `tune` that are scored."""


def cost(shape: tuple[int, int, int], rounds: int) -> dict[str, list[float]]:
    """Seconds of processor time of each way, one a round: the fastest of three."""
    given = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    ways = {name: partial(orthogonalise, given, make(STEPS)) for name, make in ITERATIONS.items()}
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(1 + rounds):  # the first warms up
        for name, way in ways.items():
            taken[name].append(min(spent(way) for _ in range(3)))
    return {name: times[1:] for name, times in taken.items()}


def reach(iteration: Iteration, smallest: float) -> tuple[float, float]:
    """Where singular values from `smallest` to 1 (of a matrix of Frobenius norm 1) land, by the iteration itself in float64."""
    values = torch.logspace(math.log10(smallest), 0, 4001, dtype=torch.float64)
    # One by one matrices need a norm above their own value: a second singular value supplies it.
    pairs = torch.zeros(len(values), 2, 2, dtype=torch.float64)
    pairs[:, 0, 0], pairs[:, 1, 1] = values, (1 - values**2).clamp(min=0).sqrt()
    found = orthogonalise(pairs, iteration)[:, 0, 0]
    return found.min().item(), found.max().item()


def score(name: str, seed: int, steps: int) -> float:
    """Bits a byte on `tune` of the default model after so many steps."""
    torch.set_num_threads(1)
    data = open_dataset("", "bytes")
    values = {"SEED": seed, "ITERATIONS": steps, "MUON_COEFFICIENTS": name, "CPU_THREADS": 1, "TRAIN_LOG_EVERY": 0}
    config = from_values(values)
    with tempfile.TemporaryDirectory() as folder:
        going = train.Run(config, data, ALONE, Metrics(Path(folder), 0))
        going.loop()
    held, lengths = data.tune[:TEXT], data.tune_bytes[:TEXT]
    model, context = going.model.eval(), config.train_seq_len
    return sliding.score(model, held, lengths, seq_len=context, stride=64, batch=64, bos=data.bos, device="cpu").bpb


def main() -> None:
    """Measure, print and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=8)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    lines = [HEAD.format(machine=", ".join(f"{key} {value}" for key, value in describe().items()))]
    others = [name for name in ITERATIONS if name != "quintic"]
    lines += ["| matrices | " + " | ".join(others) + " |", "|---|" + "---|" * len(others)]
    for shape in SHAPES:
        taken = cost(shape, asked.rounds)
        cells = [cell([a / b for a, b in zip(taken["quintic"], taken[name], strict=True)]) for name in others]
        lines.append(f"| {shape[0]} of {shape[1]} x {shape[2]} | {' | '.join(cells)} |")
    with ProcessPoolExecutor(2) as pool:
        keys = list(product(range(1, asked.seeds + 1), ITERATIONS))
        waiting = {key: pool.submit(score, key[1], key[0], asked.steps) for key in keys}
        found = {key: job.result() for key, job in waiting.items()}
    lines += [SCORES.format(steps=asked.steps, seeds=asked.seeds)]
    for name, make in ITERATIONS.items():
        low, high = reach(make(STEPS), 1e-3)
        mean = statistics.mean(found[seed, name] for seed in range(1, asked.seeds + 1))
        gaps = [found[seed, name] - found[seed, "quintic"] for seed in range(1, asked.seeds + 1)]
        against = "-"
        if name != "quintic":
            middle, least, most = (math.log(x) for x in interval([math.exp(gap) for gap in gaps]))
            against = f"{middle:+.4f} [{least:+.4f}, {most:+.4f}]"
        lines.append(f"| {name} | [{low:.2f}, {high:.2f}] | {mean:.4f} | {against} |")
    text = "\n".join(lines) + "\n"
    RESULT.write_text(text, encoding="utf-8")
    print(text)


HEAD = """\
# Three ways to the orthogonal factor

Made by `benchmarks/orthogonal.py`. Machine: {machine}.

Processor time of five quintic steps over that of the way in question, one thread, in turns, with the 95 % interval over rounds:
above 1 the way is faster. Polar Express has as many products as the quintic; Halley's has one inverse and fewer products.
"""
SCORES = """
The default model after {steps} steps, {seeds} seeds: bits a byte on held-out training text, and the difference to the quintic
with its 95 % interval (paired, Student's t; minus is better). Reach: where singular values from 0.001 to 1 (of norm 1) land.

| way | reach | bpb | difference |
|---|---|---|---|"""


if __name__ == "__main__":
    main()
