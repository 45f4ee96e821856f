"""What is done with the inputs of the matrices, seen on training text once the training is over. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainer.options.declare import FIELD, setting

if TYPE_CHECKING:
    from trainer.config import Config


@dataclass(frozen=True, kw_only=True)
class CalibrationOptions:
    """Part of trainer.config.Config."""

    gptq: bool = setting(
        "GPTQ",
        False,
        "round matrices so that later columns make up for earlier ones",
        source="#1019, #1060; Frantar et al. 2022",
    )
    gptq_damp: float = setting(
        "GPTQ_DAMP", 0.01, "added to a Hessian, in means of its diagonal", source=FIELD, low=1e-6, high=10
    )
    gptq_batches: int = setting("GPTQ_BATCHES", 16, "batches of training text that calibrate", source=FIELD, low=1)
    gptq_reserve_seconds: float = setting(
        "GPTQ_RESERVE_SECONDS",
        0.0,
        "part of MAX_WALLCLOCK_SECONDS kept for calibration; 0: as measured before the clock starts",
        source=FIELD,
        low=0,
    )
    awq_alpha: float = setting(
        "AWQ_ALPHA",
        0.0,
        "columns are scaled by mean |input|^a before rounding, a at most this; 0: off",
        source="Lin et al. 2023",
        low=0,
        high=1,
    )
    lqer_rank: int = setting(
        "LQER_RANK",
        0,
        "rank of the stored correction of what rounding lost; 0: off",
        source="#1851; Zhang et al. 2024",
        low=0,
        high=1024,
    )
    lqer_tensors: int = setting(
        "LQER_TENSORS", 3, "matrices that lost most, which are corrected", source="#1851", low=1
    )


def calibrates(config: Config) -> bool:
    """Whether anything needs the inputs of the matrices."""
    return config.gptq or config.awq_alpha > 0 or config.lqer_rank > 0


def problems(config: Config) -> Iterator[str]:
    """Settings that are fine alone and impossible together, one line each."""
    limit, reserve = config.max_wallclock_seconds, config.gptq_reserve_seconds
    if reserve and not limit:
        yield f"GPTQ_RESERVE_SECONDS={reserve:g} needs MAX_WALLCLOCK_SECONDS: without a limit nothing is kept back"
    if limit and reserve >= limit:
        yield f"GPTQ_RESERVE_SECONDS={reserve:g} leaves nothing of MAX_WALLCLOCK_SECONDS={limit:g} to train in"
    widths = (config.attn_bits or config.matrix_bits, config.mlp_bits or config.matrix_bits, config.matrix_bits)
    if calibrates(config) and {16} == {*widths, config.embed_bits}:
        yield "GPTQ, AWQ_ALPHA and LQER_RANK need MATRIX_BITS or EMBED_BITS below 16: nothing would be rounded"
    if reserve and not calibrates(config):
        yield f"GPTQ_RESERVE_SECONDS={reserve:g} without GPTQ, AWQ_ALPHA or LQER_RANK: nothing would be calibrated"
