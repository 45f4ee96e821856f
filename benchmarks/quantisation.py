"""What rounding costs: held-out bits per byte and bytes of one trained model under every scheme and way of clipping, and of
paired runs that trained on the grid (QAT). Writes results/quantisation.md.

    python benchmarks/quantisation.py [--steps N] [--tokens N] [--seeds N]

Every number is bits per byte of `tune`, text held out from the training text. Runs are cut by steps, not by time, so that another
job on the machine changes no score. One process, one thread.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

sys.path.insert(0, str(Path(__file__).parent))
from machine import describe
from tuning import score_of, tune_text

from trainer import artifact, contract, train
from trainer.config import Config, load
from trainer.contract import write_file
from trainer.data.dataset import Dataset, open_dataset
from trainer.dist import Group
from trainer.metrics import Metrics
from trainer.model.gpt import GPT

RESULT = Path(__file__).resolve().parent / "results" / "quantisation.md"
ALONE = Group(0, 1, 0, 1, torch.device("cpu"))
EXACT = {"MATRIX_BITS": 16, "EMBED_BITS": 16, "TABLE_BITS": 16}

SCHEMES: dict[str, dict[str, Any]] = {
    "float16": EXACT,
    "int8, tables int6 (default)": {},
    "int8, all": {"TABLE_BITS": 8},
    "int8 in multiples of 4": {"INT8_STEP": 4},
    "int6 matrices": {"MATRIX_BITS": 6},
    "int6, all": {"MATRIX_BITS": 6, "EMBED_BITS": 6},
    "int6 attention, int5 MLP": {"MATRIX_BITS": 6, "MLP_BITS": 5},
    "int5 matrices": {"MATRIX_BITS": 5},
    "int4 matrices": {"MATRIX_BITS": 4},
    "int4 MLP": {"MLP_BITS": 4},
    "ternary MLP": {"MLP_BITS": 2},
    "ternary matrices": {"MATRIX_BITS": 2},
    "float16 embedding": {"EMBED_BITS": 16},
    "int4 embedding": {"EMBED_BITS": 4},
    "int4 tables": {"TABLE_BITS": 4},
    "ternary tables": {"TABLE_BITS": 2},
}
CLIPS: dict[str, dict[str, Any]] = {
    "max": {},
    "quantile 0.999": {"QUANT_CLIP": "quantile", "CLIP_QUANTILE": 0.999},
    "quantile 0.99": {"QUANT_CLIP": "quantile", "CLIP_QUANTILE": 0.99},
    "mse": {"QUANT_CLIP": "mse"},
    "sigma, k 12.85 and 20": {"QUANT_CLIP": "sigma"},
    "sigma, k 4": {"QUANT_CLIP": "sigma", "MATRIX_CLIP_SIGMAS": 4, "EMBED_CLIP_SIGMAS": 4, "TABLE_CLIP_SIGMAS": 4},
    "sigma, k 2.5": {"QUANT_CLIP": "sigma", "MATRIX_CLIP_SIGMAS": 2.5, "EMBED_CLIP_SIGMAS": 4, "TABLE_CLIP_SIGMAS": 4},
}
GRIDS: dict[str, dict[str, Any]] = {
    "int6": {"MATRIX_BITS": 6, "EMBED_BITS": 6},
    "int4": {"MATRIX_BITS": 4, "EMBED_BITS": 4, "TABLE_BITS": 4},
    "ternary": {"MATRIX_BITS": 2},
}
STARTS = (0.7, 0.0)


def config_of(values: Mapping[str, Any], steps: int, seed: int) -> Config:
    """The preset cpu-best with smaller tables, by steps and on one thread."""
    fixed = {"MAX_WALLCLOCK_SECONDS": 0, "ITERATIONS": steps, "TRAIN_LOG_EVERY": 0, "CPU_THREADS": 1, "SEED": seed}
    fixed |= {"NGRAM_MAX_ORDER": 3, "NGRAM_BUCKETS": 8192, "CODEC": "zstd"}
    words = [f"{name}={value}" for name, value in {**fixed, **values}.items()]
    return load(["--config", "cpu-best", *words], {})


class Bench:
    """The text and how much of it is scored."""

    def __init__(self, steps: int, tokens: int, folder: Path) -> None:
        self.steps, self.tokens, self.folder = steps, tokens, folder
        self.data: Dataset = open_dataset("", "bytes")

    def trained(self, values: Mapping[str, Any], seed: int) -> tuple[GPT, float]:
        """A trained model with its exact weights, and the median milliseconds of a step."""
        config = config_of(values, self.steps, seed)
        going = train.Run(config, self.data, ALONE, Metrics(self.folder, 0))
        began = time.perf_counter()
        going.loop()
        for loader in going.loaders.values():
            loader.close()
        print(f"  trained {dict(values)} seed {seed}: {time.perf_counter() - began:.0f} s", flush=True)
        return going.model, going._timing(self.steps)[1]

    def bpb(self, model: GPT, config: Config) -> float:
        """Bits per byte of the held-out text."""
        text = tune_text(self.data, self.tokens)
        return score_of(contract.FINAL_SLIDING, model, config, self.data, text).bpb

    def shipped(self, model: GPT, values: Mapping[str, Any], seed: int) -> tuple[float, int]:
        """Bits per byte and bytes of the artifact with these settings."""
        config, path = config_of(values, self.steps, seed), self.folder / "a.golf"
        size = artifact.write(path, model, config, self.data.vocab_size, {})
        return self.bpb(artifact.load_model(path)[0], config), size


def schemes(bench: Bench, model: GPT, exact: float) -> list[str]:
    """A row a scheme, everything else as by default."""
    out = ["| scheme | bpb | gap | artifact bytes |", "|---|---|---|---|"]
    for name, values in SCHEMES.items():
        bpb, size = bench.shipped(model, values, 1)
        out.append(f"| {name} | {bpb:.4f} | {bpb - exact:+.4f} | {size:,} |")
        print(out[-1], flush=True)
    return out


def clips(bench: Bench, model: GPT, exact: float) -> list[str]:
    """A row a way of clipping, gaps and bytes for three widths of all matrices, embeddings and tables."""
    widths = (8, 6, 4)
    out = ["| clip | " + " | ".join(f"int{bits}: gap | bytes" for bits in widths) + " |", "|---" * 7 + "|"]
    for name, values in CLIPS.items():
        cells = []
        for bits in widths:
            all_bits = {"MATRIX_BITS": bits, "EMBED_BITS": bits, "TABLE_BITS": bits}
            bpb, size = bench.shipped(model, all_bits | values, 1)
            cells += [f"{bpb - exact:+.4f}", f"{size:,}"]
        out.append(f"| {name} | {' | '.join(cells)} |")
        print(out[-1], flush=True)
    return out


def on_the_grid(bench: Bench, models: Mapping[int, GPT]) -> list[str]:
    """A row a scheme: the same seeds without and with training on the grid. models: trained without, by seed."""
    out = [
        "| scheme | seeds | gap without | bpb without | "
        + " | ".join(f"gap, bpb, change from {s:g}" for s in STARTS)
        + " |"
    ]
    out.append("|---" * (4 + len(STARTS)) + "|")
    for name, values in GRIDS.items():
        plain = {seed: bench.shipped(model, values, seed)[0] for seed, model in models.items()}
        exact = {seed: bench.bpb(model, config_of(values, bench.steps, seed)) for seed, model in models.items()}
        gap = statistics.mean(plain[s] - exact[s] for s in models)
        cells = [f"{gap:+.4f}", f"{statistics.mean(plain.values()):.4f}"]
        for start in STARTS:
            gaps, ends, changes = [], [], []
            for seed in models:
                setting = values | {"QAT_START": start}
                model, _ = bench.trained(setting, seed)
                bpb, _ = bench.shipped(model, setting, seed)
                gaps.append(bpb - bench.bpb(model, config_of(setting, bench.steps, seed)))
                ends.append(bpb)
                changes.append(bpb - plain[seed])
            each = ", ".join(f"{change:+.4f}" for change in changes)
            cells.append(f"{statistics.mean(gaps):+.4f}, {statistics.mean(ends):.4f}, {each}")
        out.append(f"| {name} | {len(models)} | {' | '.join(cells)} |")
        print(out[-1], flush=True)
    return out


def dearer(bench: Bench, pairs: int = 25) -> str:
    """Time of a step's passes with rounding against those without, one after the other in pairs."""
    going = train.Run(
        config_of({"MATRIX_BITS": 6, "QAT_START": 0.5}, bench.steps, 1), bench.data, ALONE, Metrics(bench.folder, 0)
    )
    ratios = []
    for pair in range(pairs + 3):
        spent = {}
        for on in (False, True) if pair % 2 else (True, False):
            going.logits = going.forwards[on]
            began = time.perf_counter()
            going.gradients(pair, going.config.train_seq_len)
            spent[on] = time.perf_counter() - began
        ratios.append(spent[True] / spent[False])
    for loader in going.loaders.values():
        loader.close()
    ratios = sorted(ratios[3:])
    # Order statistics that enclose the median with 95 % (binomial).
    low = int(pairs / 2 - 0.98 * pairs**0.5)
    return (
        f"Forward and backward with every weight rounded take {statistics.median(ratios):.2f} times those without "
        f"(median of {pairs} pairs, interleaved, 95 % interval {ratios[low]:.2f} to {ratios[-1 - low]:.2f}; int6, eager, one "
        "thread; tables are rounded whole although a step reads a part of them)."
    )


def main() -> None:
    """Train, score, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--tokens", type=int, default=16384)
    parser.add_argument("--seeds", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(given.steps, given.tokens, Path(folder))
        models = {seed: bench.trained({}, seed)[0] for seed in range(1, given.seeds + 1)}
        exact = bench.bpb(models[1], config_of({}, given.steps, 1))
        print(f"exact weights: {exact:.4f}", flush=True)
        parts = [schemes(bench, models[1], exact), clips(bench, models[1], exact), [dearer(bench)]]
        parts.append(on_the_grid(bench, models))
    values = config_of({}, given.steps, 1)
    text = f"""# What rounding costs

`python benchmarks/quantisation.py`: preset cpu-best with smaller tables (byte model, 2 layers, width 128, n-gram tables of orders
2 and 3 with 8,192 rows each) after {given.steps} steps of {values.train_batch_tokens} bytes, scored on {given.tokens:,} bytes of
`tune`, text held out from the training text. Gap: bits per byte of the artifact less those of the exact float32 weights
({exact:.4f} for seed 1). Bytes: the whole file with CODEC=zstd.

{_machine()}

## Schemes, rounded after training (seed 1, clip `max`)

{_lines(parts[0])}

## Ways of clipping (seed 1; matrices, embeddings and tables alike)

{_lines(parts[1])}

## Training on the grid (QAT), paired by seed

{_lines(parts[3])}

"change" is the artifact's bits per byte less those of the same seed without QAT: below zero QAT has won. {parts[2][0]}
"""
    write_file(RESULT, text.encode())
    print(f"written: {RESULT}")


def _lines(rows: list[str]) -> str:
    return "\n".join(rows)


def _machine() -> str:
    facts = describe()
    made = f"{facts['processor']}, {facts['cores']} cores, Python {facts['python']}, torch {torch.__version__}"
    return f"Machine: {made}; {facts['note']}."


if __name__ == "__main__":
    main()
