"""Which average of the weights is shipped. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainer.options.declare import FIELD, OURS, setting

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
        "ema: share d of the old average kept each step; it begins with the initial weights and remembers 1/(1-d) steps",
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
