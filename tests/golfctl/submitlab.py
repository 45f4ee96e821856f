"""A small campaign on the real trainer: two seeds of few steps on a text of its own, judged by one gate."""

from __future__ import annotations

from pathlib import Path

from golfctl.store.bases import freeze_trainer
from golfctl.store.campaign import load
from tests.golfctl.campaigns import add_plan
from tests.trainer.tiny import text_folder

GOLF = """\
name: small
seeds: [1337, 42]
rules: {score_label: legal_ttt_exact}
gates:
  1: {name: final, kind: threshold, seeds: 2, require: {score: "<= 8.5"}, wallclock_s: 200, stall_s: 150}
"""
SETTINGS = {
    "NUM_LAYERS": "1",
    "MODEL_DIM": "32",
    "NUM_HEADS": "4",
    "NUM_KV_HEADS": "2",
    "TRAIN_SEQ_LEN": "32",
    "TRAIN_BATCH_TOKENS": "256",
    "EVAL_STRIDE": "32",
    "ITERATIONS": "3",
    "CPU_THREADS": "1",
    "DEVICE": "cpu",
    "TTT_ENABLED": "1",
    "TTT_CHUNK_BYTES": "1024",
    "REFERENCE_SCORES": "0",
}


def campaign(root: Path) -> Path:
    """The campaign, with plan `wide` that has not run yet; its data in `data`, which the base's settings name."""
    root.mkdir()
    (root / "golf.yaml").write_text(GOLF)
    for name in ("plans", "bases", "experiments"):
        (root / name).mkdir()
    data = text_folder(root / "data")
    freeze_trainer(load(root), "small", SETTINGS | {"DATA_PATH": str(data)})
    (root / "golf.yaml").write_text(GOLF + "base: small\n")
    add_plan(root, "wide", "MLP_MULT: 3.0", "A wider MLP")
    return root
