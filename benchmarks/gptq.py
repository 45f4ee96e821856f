"""What calibrated rounding wins: one model a seed, trained once, rounded in many ways, scored on held-out training text (`tune`).

    nice python benchmarks/gptq.py [--seeds 2] [--steps 400]

Writes results/gptq.md. Every artifact is written, read back and scored on the same text, so differences between the rows of a
bit width are paired: by seed, and by block of text. Validation text is not touched.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from machine import describe

from trainer import artifact, calibrate, train
from trainer.config import Config, from_values
from trainer.data.dataset import Dataset, open_dataset
from trainer.data.loader import Loader
from trainer.dist import Group
from trainer.evaluate import sliding
from trainer.metrics import Metrics
from trainer.model.gpt import GPT
from trainer.options.calibration import calibrates
from trainer.quant.calibrated import told

RESULT = Path(__file__).parent / "results" / "gptq.md"
ALONE = Group(0, 1, 0, 1, torch.device("cpu"))
TEXT = 16384
"""Bytes of `tune` that are scored."""
BLOCK = 512
"""Bytes of a block of text in the bootstrap."""
MODEL = {"NUM_LAYERS": 4, "MODEL_DIM": 128, "MLP_MULT": 3, "TRAIN_SEQ_LEN": 128, "TRAIN_BATCH_TOKENS": 2048}
MODEL |= {"WARMDOWN_FRACTION": 0.6, "LOGIT_SOFTCAP": 15, "MUON_WD": 0.02, "TRAIN_LOG_EVERY": 100, "CPU_THREADS": 1}
WIDTHS = {"int6": 6, "int5": 5, "int4": 4, "ternary": 2}
METHODS: dict[str, dict[str, object]] = {
    "round to nearest": {},
    "GPTQ": {"GPTQ": 1},
    "AWQ": {"AWQ_ALPHA": 1},
    "GPTQ + AWQ": {"GPTQ": 1, "AWQ_ALPHA": 1},
    "LQER": {"LQER_RANK": 4},
    "GPTQ + LQER": {"GPTQ": 1, "LQER_RANK": 4},
}
MORE: dict[str, tuple[str, dict[str, object]]] = {
    "int4, clipped for least squared error": ("int4", {"QUANT_CLIP": "mse"}),
    "int4, clipped for least squared error, GPTQ": ("int4", {"QUANT_CLIP": "mse", "GPTQ": 1}),
    "int4, GPTQ, 1 batch": ("int4", {"GPTQ": 1, "GPTQ_BATCHES": 1}),
    "int4, GPTQ, 64 batches": ("int4", {"GPTQ": 1, "GPTQ_BATCHES": 64}),
    "int4, GPTQ, damping 0.1": ("int4", {"GPTQ": 1, "GPTQ_DAMP": 0.1}),
    "int4, GPTQ, damping 0.001": ("int4", {"GPTQ": 1, "GPTQ_DAMP": 0.001}),
    "int4, GPTQ, embedding at 4 bits, too": ("int4", {"GPTQ": 1, "EMBED_BITS": 4}),
    "int4, round to nearest, embedding at 4 bits, too": ("int4", {"EMBED_BITS": 4}),
    "int4, LQER of rank 16 for 8 matrices": ("int4", {"LQER_RANK": 16, "LQER_TENSORS": 8}),
}


@dataclass(frozen=True)
class Found:
    """One artifact: nats of each scored byte, size of the file, seconds of calibrating and of rounding, who won which matrix."""

    nats: np.ndarray
    size: int
    calibration: float
    rounding: float
    told: str


def scored(model: GPT, config: Config, data: Dataset) -> np.ndarray:
    """Nats of each of the first TEXT bytes of `tune`."""
    nats = np.zeros(TEXT)
    sliding.score(
        model.eval(),
        data.tune[:TEXT],
        data.tune_bytes[:TEXT],
        seq_len=config.train_seq_len,
        stride=64,
        batch=64,
        bos=data.bos,
        device="cpu",
        nlls=nats,
    )
    return nats


def measure(model: GPT, config: Config, data: Dataset, folder: Path, known: dict[int, calibrate.Calibration]) -> Found:
    """Calibrate if asked to (once for each number of batches: `known`), round, write, read back, score."""
    inputs, spent = None, 0.0
    if calibrates(config):
        if config.gptq_batches not in known:
            loader = Loader(data.train, config.train_seq_len, config.train_batch_tokens, config.seed, data.bos)
            known[config.gptq_batches] = calibrate.calibrate(model, loader, config, ALONE, config.iterations)
        seen = known[config.gptq_batches]
        inputs, spent = seen.inputs, seen.seconds
    began = time.perf_counter()
    kept = artifact.stored_weights(model, config, inputs)
    seconds = time.perf_counter() - began
    path = folder / "model.golf"
    size = artifact.write(path, model, config, data.vocab_size, {}, inputs)
    read, _ = artifact.load_model(path)
    return Found(scored(read, config, data), size, spent, seconds, told(kept, inputs) if inputs else "")


def bpb(nats: np.ndarray) -> float:
    """Bits per byte."""
    return float(nats.mean() / np.log(2))


def interval(differences: list[np.ndarray]) -> tuple[float, float, float]:
    """Mean difference in bpb over seeds and text, and its 95 % interval by a bootstrap over blocks of text and seeds.

    differences: nats a byte, one array a seed.
    """
    blocks = np.stack([d.reshape(-1, BLOCK).mean(1) for d in differences]) / np.log(2)  # (seeds, blocks)
    draw = np.random.default_rng(0)
    means = [
        blocks[draw.integers(len(blocks), size=len(blocks))][
            :, draw.integers(blocks.shape[1], size=blocks.shape[1])
        ].mean()
        for _ in range(2000)
    ]
    return float(blocks.mean()), *np.quantile(means, [0.025, 0.975]).tolist()


def main() -> None:
    """Train, round in every way, print and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=400)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    data = open_dataset("", "bytes")
    ways = {(w, m): {"MATRIX_BITS": bits} | how for w, bits in WIDTHS.items() for m, how in METHODS.items()}
    ways |= {("", name): {"MATRIX_BITS": WIDTHS[width]} | how for name, (width, how) in MORE.items()}
    exact: list[np.ndarray] = []
    found: dict[tuple[str, str], list[Found]] = {way: [] for way in ways}
    for seed in range(asked.seeds):
        with tempfile.TemporaryDirectory() as folder:
            config = from_values(MODEL | {"SEED": seed, "ITERATIONS": asked.steps})
            going = train.Run(config, data, ALONE, Metrics(Path(folder), 0))
            going.loop()
            known: dict[int, calibrate.Calibration] = {}
            exact.append(scored(going.model, config, data))
            for way, how in ways.items():
                chosen = from_values(config.as_settings() | how)
                found[way].append(measure(going.model, chosen, data, Path(folder), known))
                print(seed, *way, f"{bpb(found[way][-1].nats):.4f}", found[way][-1].told, flush=True)
    text = report(exact, found, asked.steps, sum(p.numel() for p in going.parameters))
    RESULT.write_text(text, encoding="utf-8")
    print(text)


def row(name: str, items: list[Found], exact: list[np.ndarray], plain: list[Found]) -> str:
    """One line of a table: score, distance from float32, difference to the plain rounding, sizes and seconds."""
    gap = np.mean([bpb(item.nats) - bpb(nats) for item, nats in zip(items, exact, strict=True)])
    middle, low, high = interval([a.nats - b.nats for a, b in zip(items, plain, strict=True)])
    against = "-" if items is plain else f"{middle:+.4f} [{low:+.4f}, {high:+.4f}]"
    size = np.mean([item.size for item in items])
    calibration, rounding = (np.median([getattr(item, key) for item in items]) for key in ("calibration", "rounding"))
    score = np.mean([bpb(item.nats) for item in items])
    return f"| {name} | {score:.4f} | {gap:+.4f} | {against} | {size:,.0f} | {calibration:.2f} | {rounding:.2f} |"


def report(exact: list[np.ndarray], found: dict[tuple[str, str], list[Found]], steps: int, parameters: int) -> str:
    """The page."""
    head = (
        "| | bpb | over float32 | against nearest | file, bytes | calibration, s | rounding, s |\n" + "|---" * 7 + "|"
    )
    lines = [
        "# Calibrated rounding",
        "",
        f"Made by `benchmarks/gptq.py`: {len(exact)} seeds of a model of {parameters:,} weights (4 layers, width 128, bytes), "
        f"{steps} steps each; every row rounds the same trained models. bpb on {TEXT:,} bytes of text held out from training "
        "(`tune`; never the validation text). Matrices have the width of the section; the tied embedding has 8 bits. "
        f"Calibration: 16 batches of 2,048 bytes of training text. In float32: {np.mean([bpb(n) for n in exact]):.4f}. "
        f"Brackets: 95 % by a bootstrap over seeds and blocks of {BLOCK} bytes; minus is better.",
    ]
    for width in WIDTHS:
        lines += ["", f"## {width}", "", head]
        plain = found[width, "round to nearest"]
        lines += [row(m, found[width, m], exact, plain) for m in METHODS]
        won = [item.told for item in found[width, "GPTQ + AWQ"]]
        lines += ["", f"Matrices won, GPTQ + AWQ, by seed: {'; '.join(won)}."]
    lines += ["", "## Variations", "", "Against plain int4, rounded to nearest.", "", head]
    lines += [row(name, found["", name], exact, found["int4", "round to nearest"]) for name in MORE]
    facts = "; ".join(f"{key}: {value}" for key, value in describe().items())
    return "\n".join([*lines, "", facts, ""])


if __name__ == "__main__":
    main()
