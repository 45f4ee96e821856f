"""The best CPU configuration (trainer/presets/cpu-best.json), five seeds of at most 60 s. Writes results/cpu_best.json.

The score is that of the artifact reloaded from disk, sliding window, static and with score-first test-time training; beside it
what compressors and n-gram models reach on the same bytes.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from machine import describe

HERE = Path(__file__).parent
RESULT = HERE / "results" / "cpu_best.json"
PRESET = HERE.parent / "trainer" / "presets" / "cpu-best.json"
SEEDS = (1337, 42, 2025, 7, 314)


def run(seed: int, folder: Path) -> dict[str, float]:
    """One whole run in a fresh process: training, artifact, both scores."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "trainer", "--settings", str(PRESET), f"SEED={seed}", f"OUT_DIR={folder}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=HERE.parent, env=os.environ)
    result = json.loads((folder / "result.json").read_text())
    scores = {label: entry["val_bpb"] for label, entry in result["scores"].items()}
    return {
        "seed": seed,
        "static_bpb": scores["final_sliding_window_exact"],
        "ttt_bpb": scores["legal_ttt_exact"],
        "steps": result["steps"],
        "train_s": round(result["train_time_ms"] / 1000, 1),
        "whole_run_s": round(time.perf_counter() - began, 1),
        "total_bytes": result["total_bytes"],
        "references": result["references"],
    }


def main() -> None:
    """Measure, print, write."""
    with tempfile.TemporaryDirectory() as folder:
        runs = []
        for seed in SEEDS:
            runs.append(run(seed, Path(folder) / str(seed)))
            print({key: value for key, value in runs[-1].items() if key != "references"}, flush=True)
    references = runs[0]["references"]
    for entry in runs:
        del entry["references"]
    result = {
        "machine": describe(),
        "settings": json.loads(PRESET.read_text()),
        "runs": runs,
        "median_static_bpb": statistics.median(entry["static_bpb"] for entry in runs),
        "median_ttt_bpb": statistics.median(entry["ttt_bpb"] for entry in runs),
        "sd_static_bpb": statistics.stdev(entry["static_bpb"] for entry in runs),
        "references_bpb": references,
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({key: value for key, value in result.items() if key not in {"runs", "settings"}}, indent=2))


if __name__ == "__main__":
    main()
