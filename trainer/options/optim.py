"""How weights are trained. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass

from trainer.options.declare import BASELINE, FIELD, OURS, setting


@dataclass(frozen=True, kw_only=True)
class OptimOptions:
    """Part of trainer.config.Config."""

    matrix_lr: float = setting("MATRIX_LR", 0.02, "Muon rate of 2-D matrices", source=BASELINE, low=0)
    embed_lr: float = setting("EMBED_LR", 0.01, "Adam rate of the tied embedding", source=BASELINE, low=0)
    table_lr: float = setting("TABLE_LR", 0.01, "Adam rate of the n-gram tables", source=OURS, low=0)
    scalar_lr: float = setting("SCALAR_LR", 0.01, "Adam rate of vectors and scalars", source=BASELINE, low=0)
    beta1: float = setting("BETA1", 0.9, "Adam", source=BASELINE, low=0, high=0.9999)
    beta2: float = setting("BETA2", 0.95, "Adam", source=BASELINE, low=0, high=0.99999)
    adam_eps: float = setting("ADAM_EPS", 1e-8, "Adam", source=BASELINE, low=0)
    muon_momentum: float = setting("MUON_MOMENTUM", 0.95, "after warm-up", source=BASELINE, low=0, high=0.9999)
    muon_momentum_start: float = setting(
        "MUON_MOMENTUM_WARMUP_START", 0.85, "at step 0", source=BASELINE, low=0, high=0.9999
    )
    muon_momentum_steps: int = setting(
        "MUON_MOMENTUM_WARMUP_STEPS", 300, "steps of the momentum warm-up", source=BASELINE, low=0
    )
    muon_backend_steps: int = setting("MUON_BACKEND_STEPS", 5, "Newton-Schulz iterations", source=BASELINE, low=1)
    muon_weight_decay: float = setting("MUON_WD", 0.0, "decoupled decay of matrices", source=FIELD, low=0)
    grad_clip_norm: float = setting(
        "GRAD_CLIP_NORM", 0.0, "global norm after the all-reduce; 0: off", source=BASELINE, low=0
    )
    warmdown_fraction: float = setting(
        "WARMDOWN_FRACTION",
        0.6,
        "last share of the budget over which rates fall to MIN_LR",
        source=FIELD,
        low=0,
        high=1,
    )
    min_lr: float = setting("MIN_LR", 0.0, "share of the rate left at the end", source=FIELD, low=0, high=1)
