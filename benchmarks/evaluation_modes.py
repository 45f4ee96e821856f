"""Every mode of evaluation on one artifact: tuned on held-out *training* text (`tune`), then scored once on validation text.

    python benchmarks/evaluation_modes.py runs/x/artifact.golf [--tokens N] [--threads N]

Prints as it goes and writes benchmarks/results/evaluation_modes.md. For each mode the settings in TRIALS are tried on `tune`; the
best of them, and nothing chosen on validation text, is what the table shows. About twenty minutes on one core.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from machine import describe
from tuning import score_of

from trainer import artifact, contract, dist
from trainer.config import Config, from_values
from trainer.contract import write_file
from trainer.data.dataset import Dataset, open_dataset
from trainer.evaluate.bpb import Score, ScoreError
from trainer.evaluate.text import Text

RESULTS = Path(__file__).resolve().parent / "results" / "evaluation_modes.md"

Trial = dict[str, Any]
SGD: Trial = {"TTT_OPTIMIZER": "sgd", "TTT_SCHEDULE": "cosine", "TTT_CLIP": 1.0}
TRIALS: dict[str, tuple[str, list[Trial]]] = {
    "sliding, stride 64": (contract.FINAL_SLIDING, [{}]),
    "flat": (contract.FINAL_FLAT, [{}]),
    "sliding, stride 16": (contract.FINAL_SLIDING, [{"EVAL_STRIDE": 16}]),
    "sliding, temperature": (contract.FINAL_SLIDING, [{"EVAL_TEMPERATURE": t} for t in (0.9, 0.95, 1.05)]),
    "documents, stride 64": (contract.FINAL_DOCUMENTS, [{}]),
    "TTT, Adam": (
        contract.FINAL_TTT,
        [{"TTT_MATRIX_LR": a, "TTT_TABLE_LR": b} for a, b in ((3e-4, 5e-3), (1e-3, 5e-3), (1e-3, 1e-2))],
    ),
    "TTT, SGD": (
        contract.FINAL_TTT_SGD,
        [SGD | {"TTT_MATRIX_LR": a, "TTT_TABLE_LR": b} for a, b in ((0.005, 0.005), (0.05, 2.0), (0.1, 5.0))],
    ),
    "n-gram mixture": (
        contract.FINAL_NGRAMS,
        [
            {"MIX_LOW_ORDER": low, "MIX_HIGH_ORDER": high, "MIX_STRENGTH": s}
            for low, high, s in ((3, 8, 4), (4, 12, 2), (4, 12, 4), (5, 16, 2))
        ],
    ),
    "n-gram tilt alone": (
        contract.FINAL_NGRAMS,
        [{"MIX_TILT": b, "MIX_LOW_ORDER": 8, "MIX_HIGH_ORDER": 8, "MIX_STRENGTH": 1e9} for b in (1.0, 2.0)],
    ),
    "Hedge": (contract.FINAL_HEDGE, [{}]),
    "n-gram mixture over TTT": (contract.FINAL_NGRAMS, [{"MIX_OVER": "ttt"}]),
    "Hedge over TTT": (contract.FINAL_HEDGE, [{"MIX_OVER": "ttt"}]),
    "LoRA per document": (
        contract.FINAL_LORA,
        [{"LORA_LR": lr, "LORA_CHUNK_TOKENS": chunk} for lr, chunk in ((1e-3, 32), (3e-3, 32), (1e-2, 32))],
    ),
    "LoRA, warm A": (contract.FINAL_LORA, [{"LORA_WARM": 1}]),
    "LoRA, 3 phases": (
        contract.FINAL_PHASED,
        [{"PHASES": 3, "PHASE_DOCS": 10, "PHASE_LR": lr, "TTT_CLIP": 1.0} for lr in (0.01, 0.05)],
    ),
}
"""What is tried; modes that build on another begin with what was best there (FOLLOWS)."""
FOLLOWS = {
    "LoRA, warm A": ["LoRA per document"],
    "LoRA, 3 phases": ["LoRA per document"],
    "Hedge": ["n-gram mixture"],
    "n-gram mixture over TTT": ["n-gram mixture", "TTT, Adam"],
    "Hedge over TTT": ["n-gram mixture", "TTT, Adam"],
}


def measure(model: torch.nn.Module, config: Config, label: str, text: Text, data: Dataset) -> Score | None:
    """One score, or None where it is no number."""
    try:
        return score_of(label, model, config, data, text)
    except ScoreError:
        return None


def main() -> int:
    """Tune, score, print and write. Returns the exit code."""
    parser = argparse.ArgumentParser(description="Every mode of evaluation, tuned on tune, scored once on val.")
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--tokens", type=int, default=16384, help="last tokens of tune text, tried each time")
    parser.add_argument("--val", type=int, default=0, help="last tokens of validation text that are scored; 0: all")
    parser.add_argument("--dry", action="store_true", help="print only")
    parser.add_argument("--threads", type=int, default=0)
    given = parser.parse_args()
    model, held = artifact.load_model(given.artifact, "cpu")
    model.eval()
    data = open_dataset("", held.config.tokenizer)
    own = held.config.as_settings() | {"DEVICE": "cpu", "CPU_THREADS": given.threads, "EVAL_MAX_SECONDS": 0}
    dist.start(from_values(own))  # threads and denormals as in a real score
    tune = Text(data.tune[-given.tokens :], data.tune_bytes[-given.tokens :], data.bos)
    val = Text(data.val[-given.val :], data.val_bytes[-given.val :], data.bos)  # -0 is the beginning
    print(f"tune {len(tune)} tokens, val {len(val)} tokens", flush=True)
    rows: list[Any] = []
    for name, (label, trials) in TRIALS.items():
        start: Trial = {"LORA_ENABLED": 1} if "lora" in label or "phased" in label else {}
        for before in FOLLOWS.get(name, []):
            start |= next(row[2] for row in rows if row[0] == before)
        tried = []
        for trial in trials:
            found = measure(model, from_values(own | start | trial), label, tune, data)
            tried.append((found.bpb if found else float("inf"), start | trial))
            print(f"{name}: {trial} tune {tried[-1][0]:.4f}", flush=True)
        bpb, chosen = min(tried, key=lambda pair: pair[0])
        final = measure(model, from_values(own | chosen), label, val, data)
        assert final is not None, f"{name}: no score on validation text"
        rows.append((name, label, chosen, len(trials), bpb, final))
        print(f"{name}: val {final.bpb:.4f} in {final.seconds:.1f} s", flush=True)
        if not given.dry:
            write_file(RESULTS, page(rows, held, len(tune), len(val)).encode())
    return 0


def page(rows: list[Any], held: artifact.Artifact, tokens: int, total: int) -> str:
    """The table as Markdown."""
    static = rows[0][-1].bpb
    box = describe()
    lines = [
        "# Evaluation modes on one artifact",
        "",
        f"`benchmarks/evaluation_modes.py` on a `cpu-best` artifact ({held.meta.get('steps')} steps). Settings chosen on",
        f"the last {tokens:,} tokens of `tune` (held-out training text), then scored once on the last {total:,} of",
        "validation text; no setting was chosen on validation text.",
        f"{box['processor']}, {box['cores']} cores, {torch.get_num_threads()} thread(s), Python {box['python']}; {box['note']}.",
        "One artifact, one seed.",
        "",
        "| mode | label | val bpb | against static | tune bpb | seconds | chosen of | settings |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, label, chosen, count, bpb, final in rows:
        said = " ".join(f"{key}={value}" for key, value in chosen.items()) or "-"
        numbers = f"{final.bpb:.4f} | {final.bpb - static:+.4f} | {bpb:.4f} | {final.seconds:.1f} | {count}"
        lines.append(f"| {name} | `{label}` | {numbers} | {said} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
