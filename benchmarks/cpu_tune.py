"""Tune the CPU configuration (trainer/presets/cpu-best.json) on held-out *training* text (`tune`), never on validation text.

    python benchmarks/cpu_tune.py [--seeds N] [--only NAME ...] [--results FILE]

Every candidate is the preset with a few settings changed, and gets the same time, not the same steps: its processor time a step
is measured beside the preset's own, in turns, and it trains as many steps as fit into what the preset's BASE_STEPS take. So a
busy machine slows the tuning down and hardly bends it. Trained candidates are scored on `tune`, static and with test-time
training; rows already in the results file are kept.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from tuning import score_of, tune_text

from trainer import artifact, contract, dist
from trainer.config import from_values, read_settings
from trainer.contract import write_file
from trainer.data.dataset import open_dataset

HERE = Path(__file__).parent
PRESET = HERE.parent / "trainer" / "presets" / "cpu-best.json"
RESULTS = HERE / "results" / "cpu_tuning.json"
BASE_STEPS = 630
"""What the preset takes in its 40 seconds on two idle cores (results/cpu_best.json)."""
PACE_STEPS, PACE_ROUNDS = (10, 60), 2

CANDIDATES: dict[str, dict[str, Any]] = {
    "base": {},
    "smear": {"SMEAR_GATE": "token"},
    "value-residual": {"VALUE_RESIDUAL": 1},
    "smear+residual": {"SMEAR_GATE": "token", "VALUE_RESIDUAL": 1},
    "bigram": {"BIGRAM_VOCAB_SIZE": 4096, "BIGRAM_DIM": 32},
    "document-ngrams": {"DOCUMENT_NGRAMS": 1},
    "batch-1024": {"TRAIN_BATCH_TOKENS": 1024},
    "dim-32": {"NGRAM_DIM": 32},
    "buckets-65536": {"NGRAM_BUCKETS": 65536},
    "buckets-131072": {"NGRAM_BUCKETS": 131072},
    "dim-96": {"MODEL_DIM": 96},
    "one-layer": {"NUM_LAYERS": 1},
    "context-64-128": {"CONTEXT_SCHEDULE": "64@0,128@0.5"},
    "caseops": {"TOKENIZER": "caseops"},
    "sp1024": {"TOKENIZER": "sp1024"},
}


def settings_of(changes: dict[str, Any]) -> dict[str, Any]:
    """A candidate's settings for a run of fixed steps."""
    return read_settings(PRESET) | changes | {"MAX_WALLCLOCK_SECONDS": 0, "REFERENCE_SCORES": 0, "TRAIN_LOG_EVERY": 0}


def train(settings: dict[str, Any], folder: Path) -> tuple[dict[str, Any], float]:
    """One run in a fresh process: what its result.json says, and its seconds of processor time."""
    command = [sys.executable, "-m", "trainer", f"OUT_DIR={folder}"]
    command += [f"{name}={value}" for name, value in settings.items()]
    before = _processor_s()
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parent, env=os.environ, check=False)
    if done.returncode:
        raise SystemExit(f"{folder.name}: the run failed:\n{done.stderr}")
    return json.loads((folder / "result.json").read_text()), _processor_s() - before


def _processor_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def pace(name: str, folder: Path) -> float:
    """A candidate's processor time a step as a multiple of the base's: median of rounds in turns.

    A longer run less a shorter one: what does not depend on the number of steps falls out.
    """
    ratios = []
    for number in range(PACE_ROUNDS):
        took = []
        for who in ("base", name):
            spent = []
            for steps in PACE_STEPS:
                short = settings_of(CANDIDATES[who]) | {"ITERATIONS": steps, "TTT_ENABLED": 0, "EVAL_STRIDE": 128}
                spent.append(train(short, folder / f"pace-{name}-{number}-{who}-{steps}")[1])
            took.append(spent[1] - spent[0])
        ratios.append(took[1] / took[0])
    return statistics.median(ratios)


def scores(path: Path) -> tuple[float, float]:
    """(static, with test-time training) bpb of an artifact on the held-out training text."""
    model, held = artifact.load_model(path, "cpu")
    data = open_dataset("", held.config.tokenizer)
    with redirect_stdout(io.StringIO()):
        dist.start(from_values(held.config.as_settings() | {"DEVICE": "cpu"}))
    text = tune_text(data)
    static, adapted = (
        score_of(label, model, held.config, data, text).bpb for label in (contract.FINAL_SLIDING, contract.FINAL_TTT)
    )
    return static, adapted


def measure(name: str, seed: int, ratio: float, folder: Path) -> dict[str, Any]:
    """Train a candidate for the base's time and score it."""
    steps = round(BASE_STEPS / ratio)
    out = folder / f"{name}-{seed}"
    # The run's own score on validation text is kept as cheap as may be, and not looked at.
    result, _ = train(
        settings_of(CANDIDATES[name]) | {"ITERATIONS": steps, "SEED": seed, "TTT_ENABLED": 0, "EVAL_STRIDE": 128}, out
    )
    static, adapted = scores(out / "artifact.golf")
    return {
        "name": name,
        "seed": seed,
        "pace": round(ratio, 3),
        "steps": steps,
        "tune_static_bpb": static,
        "tune_ttt_bpb": adapted,
        "total_bytes": result["total_bytes"],
    }


def main() -> None:
    """Run what is missing, print and write after each."""
    parser = argparse.ArgumentParser(description="Tune the CPU configuration on held-out training text.")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=list(CANDIDATES), choices=list(CANDIDATES))
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    rows = json.loads(given.results.read_text()) if given.results.exists() else []
    with tempfile.TemporaryDirectory() as folder:
        for name in given.only:
            known = [row for row in rows if row["name"] == name]
            ratio = known[0]["pace"] if known else 1.0 if name == "base" else pace(name, Path(folder))
            for seed in range(len(known), given.seeds):
                rows.append(measure(name, seed, ratio, Path(folder)))
                print(json.dumps(rows[-1]), flush=True)
                write_file(given.results, (json.dumps(rows, indent=1) + "\n").encode())
    for name in sorted({row["name"] for row in rows}):
        own = [row for row in rows if row["name"] == name]
        static, adapted = (statistics.mean(row[key] for row in own) for key in ("tune_static_bpb", "tune_ttt_bpb"))
        print(f"{name:20} n {len(own)}  pace {own[0]['pace']:.2f}  static {static:.4f}  ttt {adapted:.4f}")


if __name__ == "__main__":
    main()
