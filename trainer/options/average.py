"""Which average of the weights is shipped. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainer.options.declare import FEW_STEPS, FIELD, OURS, setting

if TYPE_CHECKING:
    from trainer.config import Config


@dataclass(frozen=True, kw_only=True)
class AverageOptions:
    """Part of trainer.config.Config."""

    average: str = setting(
        "AVERAGE",
        "off",
        "weights the artifact is written from: the last, or an exponential, late or latest average of them",
        source=FIELD,
        choices=("off", "ema", "swa", "lawa"),
    )
    ema_decay: float = setting(
        "EMA_DECAY",
        0.997,
        "ema: share d of the old average kept each step, at step t at most (1+t)/(10+t); remembers up to 1/(1-d) steps",
        source=FIELD,
        low=0,
        high=0.99999,
    )
    swa_start: float = setting(
        "SWA_START", 0.4, "swa: share of the warmdown still ahead when averaging begins", source=FIELD, low=0, high=1
    )
    swa_every: int = setting("SWA_EVERY", 50, "swa: steps between checkpoints", source=FIELD, low=1)
    lawa_k: int = setting("LAWA_K", 10, "lawa: checkpoints in the mean", source=FIELD, low=1)
    lawa_every: int = setting("LAWA_EVERY", 100, "lawa: steps between checkpoints", source=FIELD, low=1)
    lawa_through_warmdown: bool = setting(
        "LAWA_THROUGH_WARMDOWN",
        False,
        "lawa: I know that checkpoints from before the decay are in the mean",
        source=OURS,
    )


def problems(config: Config) -> Iterator[str]:
    """Settings that are fine alone and impossible together, one line each."""
    decays = config.warmdown_fraction > 0 and config.min_lr < 1
    if config.average == "swa" and not decays:
        yield "AVERAGE=swa begins within the warmdown, and there is none (WARMDOWN_FRACTION=0 or MIN_LR=1); use lawa"
    # By the clock nobody knows yet how many steps there will be.
    if not config.max_wallclock_seconds and config.iterations >= FEW_STEPS:
        yield from _too_few_checkpoints(config, decays)
    through = config.average == "lawa" and decays and config.lawa_k > 1
    if through and not config.lawa_through_warmdown:
        yield (
            f"AVERAGE=lawa with WARMDOWN_FRACTION={config.warmdown_fraction:g}: a uniform mean of the last {config.lawa_k} "
            "checkpoints holds weights from before the rate has decayed and undoes part of the warmdown, which is an average "
            "already (contest notes: a regression; here +0.022 bpb, two seeds of 200 steps); set WARMDOWN_FRACTION=0, "
            "use ema or swa, or ask for it by name with LAWA_THROUGH_WARMDOWN=1"
        )
    if config.lawa_through_warmdown and not through:
        yield "LAWA_THROUGH_WARMDOWN=1 needs AVERAGE=lawa, LAWA_K > 1 and a warmdown: else there is nothing to allow"


def _too_few_checkpoints(config: Config, decays: bool) -> Iterator[str]:
    """The average of one checkpoint is the last weights: a run with it would say nothing of the average."""
    if config.average == "swa" and decays:
        span = config.swa_start * config.warmdown_fraction * config.iterations
        if span < 2 * config.swa_every:
            yield (
                f"AVERAGE=swa: SWA_START*WARMDOWN_FRACTION*ITERATIONS={span:g} steps hold fewer than two checkpoints "
                f"SWA_EVERY={config.swa_every} steps apart, so the average would be the last weights"
            )
    if config.average == "lawa" and config.lawa_k > 1 and config.iterations < 2 * config.lawa_every:
        yield (
            f"AVERAGE=lawa: ITERATIONS={config.iterations} steps hold fewer than two checkpoints LAWA_EVERY={config.lawa_every} "
            "steps apart, so the average would be the last weights, or nearly"
        )
