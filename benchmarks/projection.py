"""Projected against measured bytes of the bundled trainer's models, from runs of its defaults. Writes results/projection.md.

Two seeds of the defaults are trained, then each variant once (150 steps); its bytes are projected before they are looked at.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from machine import describe

from golfctl.store.projection import Known, project
from golfctl.store.tensors import Models, trained_alike
from trainer.contract import ARTIFACT

RESULT = Path(__file__).parent / "results" / "projection.md"
VARIANTS: dict[str, dict[str, str]] = {
    "wider MLP": {"MLP_MULT": "3"},
    "one layer more": {"NUM_LAYERS": "3"},
    "width 192": {"MODEL_DIM": "192"},
    "all heads": {"NUM_KV_HEADS": "4"},
    "6-bit matrices": {"MATRIX_BITS": "6"},
    "6-bit everything": {"MATRIX_BITS": "6", "EMBED_BITS": "6"},
    "6-bit, 4 layers": {"MATRIX_BITS": "6", "NUM_LAYERS": "4"},
    "weight decay": {"MUON_WD": "0.1"},
    "rate doubled": {"MATRIX_LR": "0.04"},
    "rate halved": {"MATRIX_LR": "0.01"},
    "embedding's rate tripled": {"EMBED_LR": "0.03"},
    "rates constant": {"WARMDOWN_FRACTION": "0"},
    "quarter rotary, 3 layers": {"ROPE_FRACTION": "0.25", "NUM_LAYERS": "3"},
    "bigram table": {"NGRAM_MAX_ORDER": "2"},
    "tables to order 5": {"NGRAM_MAX_ORDER": "5"},
}
STEPS = "150"
HOW = """\
Some of these rows were known when the interval's constants were set. A run without doubt about other training
(TRAINING_BITS) had "weight decay" and "rate doubled" outside:
they missed by 0.05 and 0.11 bits a value, and 0.15 was chosen knowing it.
"Rate halved", "embedding's rate tripled", "rates constant" and "quarter rotary, 3 layers" were added afterwards and chose
nothing. Which rows were known when the quarter of a bit for changed tensors (TOLERANCE_BITS) was set is not recorded: count
them as seen. Tables that no run has shown are inside because their interval is wide; its middle is no estimate. One seed a
row, small models, few steps: how it holds for a model of 16 MB is not shown.
"""


def trained(folder: Path, settings: Mapping[str, str], seed: int = 1337) -> int:
    """Bytes of the artifact of one run."""
    words = [f"{name}={value}" for name, value in settings.items()]
    words += [f"ITERATIONS={STEPS}", f"SEED={seed}", "CPU_THREADS=1", "EVAL_STRIDE=128", "REFERENCE_SCORES=0"]
    command = [sys.executable, "-m", "trainer", *words, f"OUT_DIR={folder}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return (folder / ARTIFACT).stat().st_size


def main() -> None:
    """Train, project, compare, write."""
    lines = ["| change | projected | interval | measured | miss | inside |", "|---|---|---|---|---|---|"]
    inside = 0
    with tempfile.TemporaryDirectory() as place:
        sizes = [trained(Path(place) / str(seed), {}, seed) for seed in (42, 2025)]
        tensors = Models(Path(place) / "tensors.json").tensors
        ground = Known(tensors({}), sizes)
        for name, settings in VARIANTS.items():
            span = project(ground, [], tensors(settings), trained_alike({}, settings))
            real = trained(Path(place) / name, settings)
            held = span.low <= real <= span.high
            inside += held
            interval = f"{span.low:,.0f} to {span.high:,.0f}"
            miss = f"{real / span.point - 1:+.1%}"
            row = f"| {name} | {span.point:,.0f} | {interval} | {real:,} | {miss} | {'yes' if held else 'no'} |"
            lines.append(row)
            print(row, flush=True)
    head = "# Bytes projected before training\n\nPacked weights, in bytes; made by `benchmarks/projection.py`. "
    head += f"{STEPS} steps each; the defaults gave {sizes[0]:,} and {sizes[1]:,}."
    facts = "; ".join(f"{key}: {value}" for key, value in describe().items())
    said = f"{inside} of {len(VARIANTS)} inside their interval."
    RESULT.write_text(f"{head}\n\n" + "\n".join(lines) + f"\n\n{said}\n\n{HOW}\n{facts}\n")


if __name__ == "__main__":
    main()
