"""Tune score-first test-time training of an artifact on held-out *training* text (`tune`), never on validation text.

    python benchmarks/tune_ttt.py runs/x/artifact.golf [--full] [--tokens N] [--results FILE]

Prints a table, best first, and writes benchmarks/results/ttt_tuning.json. By default each setting is varied alone
around the artifact's own (9 scores of 32,768 tokens, under a minute on 2 cores); --full tries the whole grid on all
of `tune`.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import sys
from pathlib import Path
from typing import Any

import torch
from tuning import score_of, tune_text

from trainer import artifact, dist
from trainer.config import Config, from_values
from trainer.contract import FINAL_SLIDING, FINAL_TTT, write_file
from trainer.data.dataset import Dataset, open_dataset
from trainer.data.errors import DataError
from trainer.evaluate.bpb import ScoreError

GRID: dict[str, tuple[Any, ...]] = {
    "TTT_CHUNK_BYTES": (1024, 2048, 4096),
    "TTT_EPOCHS": (1, 2),
    "TTT_MATRIX_LR": (0.0001, 0.0003, 0.0005, 0.001),
    "TTT_TABLE_LR": (0.002, 0.005, 0.01, 0.02),
}
RESULTS = Path(__file__).resolve().parent / "results" / "ttt_tuning.json"


def trials(config: Config, full: bool) -> list[dict[str, Any]]:
    """Settings to try, the artifact's own first, each once."""
    own = {name: config.as_settings()[name] for name in GRID}
    if full:
        found = [own, *(dict(zip(GRID, values, strict=True)) for values in itertools.product(*GRID.values()))]
    else:
        found = [own]
        for name, values in GRID.items():
            near = sorted(values, key=lambda value: abs(value - own[name]))[:3]
            found += [own | {name: value} for value in near]
    return [trial for index, trial in enumerate(found) if trial not in found[:index]]


def measure(
    model: torch.nn.Module, config: Config, trial: dict[str, Any], data: Dataset, tokens: int
) -> dict[str, Any]:
    """bpb on the first `tokens` of `tune` under one trial's settings, or the reason why there is none."""
    chosen = from_values(config.as_settings() | trial | {"TTT_OPTIMIZER": "adam"})
    try:
        found = score_of(FINAL_TTT, model, chosen, data, tune_text(data, tokens))
    except ScoreError as error:
        return {**trial, "tune_bpb": None, "seconds": None, "error": str(error)}
    return {**trial, "tune_bpb": found.bpb, "seconds": round(found.seconds, 3), "error": None}


def main() -> int:
    """Run the trials, print the table, write the results. Returns the exit code."""
    parser = argparse.ArgumentParser(description="Tune test-time training on held-out training text.")
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--full", action="store_true", help="the whole grid on all of the tune text")
    parser.add_argument(
        "--tokens", type=int, default=0, help="tokens of tune text to score; 0: 32768, or all with --full"
    )
    parser.add_argument("--data-path", default="", help="as DATA_PATH")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    try:
        model, held = artifact.load_model(given.artifact, "cpu")
        data = open_dataset(given.data_path, held.config.tokenizer)
    except (artifact.ArtifactError, DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    dist.start(dataclasses.replace(held.config, device="cpu"))  # threads and denormals as in a real score
    tokens = min(given.tokens or (len(data.tune) if given.full else 32768), len(data.tune))
    static = score_of(FINAL_SLIDING, model, held.config, data, tune_text(data, tokens)).bpb
    print(f"tune text: {tokens} of {len(data.tune)} tokens   static {static:.4f} bpb", flush=True)
    rows = []
    for trial in trials(held.config, given.full):
        rows.append(measure(model, held.config, trial, data, tokens))
        print(_line(rows[-1]), flush=True)
    rows.sort(key=lambda row: (row["tune_bpb"] is None, row["tune_bpb"]))
    print("best first:")
    print("\n".join(map(_line, rows)))
    report = {
        "artifact": given.artifact.name,
        "settings": held.config.as_settings(),
        "scored": "tune (held-out training text)",
        "tokens": tokens,
        "static_bpb": static,
        "trials": rows,
    }
    given.results.parent.mkdir(parents=True, exist_ok=True)
    write_file(given.results, (json.dumps(report, indent=1, allow_nan=False) + "\n").encode())
    return 0


def _line(row: dict[str, Any]) -> str:
    found = f"{row['tune_bpb']:.4f} bpb  {row['seconds']:6.2f} s" if row["error"] is None else row["error"]
    return "  ".join(f"{name.removeprefix('TTT_').lower()} {row[name]:<7g}" for name in GRID) + f"  {found}"


if __name__ == "__main__":
    sys.exit(main())
