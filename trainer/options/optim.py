"""How weights are trained. Standard library only."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainer.options.declare import BASELINE, FIELD, OURS, setting

if TYPE_CHECKING:
    from trainer.config import Config


_INSTEAD = {"soap": "SOAP_LR, SOAP_BETA1 and so on", "adam": "ADAM_MATRIX_LR, BETA1 and so on"}
_MUON_NUMBERS = {"matrix_lr", "muon_momentum", "muon_momentum_start", "muon_momentum_steps", "muon_backend_steps"}


@dataclass(frozen=True, kw_only=True)
class OptimOptions:
    """Part of trainer.config.Config."""

    optimizer: str = setting(
        "OPTIMIZER",
        "muon",
        "what trains the 2-D matrices",
        source="Vyas et al. 2024 (soap)",
        choices=("muon", "soap", "adam"),
    )
    matrix_lr: float = setting("MATRIX_LR", 0.02, "Muon rate of 2-D matrices", source=BASELINE, low=0)
    embed_lr: float = setting(
        "EMBED_LR",
        0.01,
        "Adam rate of embeddings (of tokens, of values) and of n-gram rows to logits",
        source=BASELINE,
        low=0,
    )
    table_lr: float = setting("TABLE_LR", 0.01, "Adam rate of n-gram and BigramHash tables", source=OURS, low=0)
    head_lr: float = setting("HEAD_LR", 0.008, "Adam rate of an untied head", source=BASELINE, low=0)
    scalar_lr: float = setting("SCALAR_LR", 0.01, "Adam rate of vectors and scalars", source=BASELINE, low=0)
    beta1: float = setting("BETA1", 0.9, "Adam", source=BASELINE, low=0, high=0.9999)
    beta2: float = setting("BETA2", 0.95, "Adam", source=BASELINE, low=0, high=0.99999)
    adam_eps: float = setting("ADAM_EPS", 1e-8, "Adam", source=BASELINE, low=0)
    adam_weight_decay: float = setting("ADAM_WD", 0.0, "decoupled decay of what Adam trains", source=FIELD, low=0)
    muon_momentum: float = setting("MUON_MOMENTUM", 0.95, "after warm-up", source=BASELINE, low=0, high=0.9999)
    muon_momentum_start: float = setting(
        "MUON_MOMENTUM_WARMUP_START", 0.85, "at step 0", source=BASELINE, low=0, high=0.9999
    )
    muon_momentum_steps: int = setting(
        "MUON_MOMENTUM_WARMUP_STEPS", 300, "steps of the momentum warm-up", source=BASELINE, low=0
    )
    muon_backend_steps: int = setting("MUON_BACKEND_STEPS", 5, "Newton-Schulz iterations", source=BASELINE, low=1)
    muon_coefficients: str = setting(
        "MUON_COEFFICIENTS",
        "quintic",
        "steps to the orthogonal factor: one polynomial again and again, one made for each, or a rational one and a polynomial",
        source="Jordan et al. 2024, Amsel et al. 2025 (polar_express), Nakatsukasa et al. 2010 (halley)",
        choices=("quintic", "polar_express", "halley"),
    )
    muon_row_norm: bool = setting(
        "MUON_ROW_NORM", False, "rows of an update to length 1 before Newton-Schulz (MuonEq-R)", source=FIELD
    )
    muon_parallel: bool = setting(
        "MUON_PARALLEL", False, "ranks share Newton-Schulz by bank index instead of all doing all of it", source=FIELD
    )
    muon_weight_decay: float = setting("MUON_WD", 0.0, "decoupled decay of matrices", source=FIELD, low=0)
    adam_matrix_lr: float = setting("ADAM_MATRIX_LR", 0.001, "Adam rate of 2-D matrices", source=OURS, low=0)
    soap_lr: float = setting("SOAP_LR", 0.003, "SOAP rate of 2-D matrices", source="Vyas et al. 2024", low=0)
    soap_beta1: float = setting("SOAP_BETA1", 0.95, "first moments", source="Vyas et al. 2024", low=0, high=0.9999)
    soap_beta2: float = setting("SOAP_BETA2", 0.95, "second moments", source="Vyas et al. 2024", low=0, high=0.99999)
    soap_factor_beta: float = setting(
        "SOAP_FACTOR_BETA", 0.95, "memory of the preconditioner", source="Vyas et al. 2024", low=0, high=0.9999
    )
    soap_every: int = setting(
        "SOAP_EVERY", 10, "steps between updates of the eigenbasis", source="Vyas et al. 2024", low=1
    )
    grad_clip_norm: float = setting(
        "GRAD_CLIP_NORM", 0.0, "global norm after the all-reduce; 0: off", source=BASELINE, low=0
    )


def problems(config: Config) -> Iterator[str]:
    """Settings that are fine alone and impossible together, one line each."""
    name = {"muon": "MATRIX_LR", "soap": "SOAP_LR", "adam": "ADAM_MATRIX_LR"}[config.optimizer]
    rate = {"muon": config.matrix_lr, "soap": config.soap_lr, "adam": config.adam_matrix_lr}[config.optimizer]
    if rate * config.muon_weight_decay >= 1:
        yield f"{name}={rate:g} and MUON_WD={config.muon_weight_decay:g}: a step would decay matrices to zero or past it"
    steps = config.muon_backend_steps
    if config.muon_coefficients == "halley" and steps != OptimOptions.muon_backend_steps:
        yield f"MUON_BACKEND_STEPS={steps} is about Newton-Schulz; MUON_COEFFICIENTS=halley has two steps of its own"
    if config.optimizer != "muon":
        changed = {
            "MUON_COEFFICIENTS": config.muon_coefficients != "quintic",
            "MUON_ROW_NORM": config.muon_row_norm,
            "MUON_PARALLEL": config.muon_parallel,
        }
        for name in (name for name, on in changed.items() if on):
            yield f"{name} is about Newton-Schulz, which OPTIMIZER={config.optimizer} does not use"
        for field in dataclasses.fields(OptimOptions):
            if field.name in _MUON_NUMBERS and getattr(config, field.name) != field.default:
                yield (
                    f"{field.metadata['name']}={getattr(config, field.name):g} is a number of Muon's, which "
                    f"OPTIMIZER={config.optimizer} does not read; it has {_INSTEAD[config.optimizer]}"
                )
