"""What is minimised beside the loss of the next id. Standard library only."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainer.options.declare import FIELD, OURS, setting

if TYPE_CHECKING:
    from trainer.config import Config


@dataclass(frozen=True, kw_only=True)
class LossOptions:
    """Part of trainer.config.Config."""

    mtp_weights: str = setting(
        "MTP_WEIGHTS",
        "",
        "weights of the next id, the one after it and so on, such as 1,0.5,0.25, all but the first falling to 0; empty: off",
        source=FIELD,
    )
    mtp_until: float = setting(
        "MTP_UNTIL", 2 / 3, "share of the training over which they fall", source=FIELD, low=0, high=1
    )
    jepa_weight: float = setting(
        "JEPA_WEIGHT", 0.0, "weight of predicting the stream's own next states; 0: off", source=FIELD, low=0
    )
    jepa_dim: int = setting("JEPA_DIM", 32, "width of the states that JEPA predicts", source=OURS, low=1)
    jepa_steps: int = setting(
        "JEPA_STEPS", 1, "states ahead, each predicted from the one before", source=FIELD, low=1, high=3
    )
    jepa_sigreg: float = setting(
        "JEPA_SIGREG", 10.0, "weight within JEPA of keeping its states normally distributed", source=OURS, low=0
    )


def weights(text: str) -> tuple[float, ...]:
    """The numbers of MTP_WEIGHTS. Raises ValueError unless there are 1 to 8, the first is 1, and none grows or is negative."""
    found = tuple(float(part) for part in text.split(",")) if text else (1.0,)
    falling = all(0 <= later <= earlier for earlier, later in itertools.pairwise(found))
    if len(found) > 8 or found[0] != 1.0 or not falling:
        raise ValueError(text)
    return found


def problems(config: Config) -> Iterator[str]:
    """Settings that are fine alone and impossible together, one line each."""
    try:
        beyond = weights(config.mtp_weights)[1:]
    except ValueError:
        yield f"MTP_WEIGHTS={config.mtp_weights!r}: must be up to 8 numbers that start with 1 and never grow, such as 1,0.5,0.25"
    else:
        if len(beyond) + 1 > config.train_seq_len:
            yield f"MTP_WEIGHTS looks {len(beyond) + 1} ids ahead, TRAIN_SEQ_LEN={config.train_seq_len}"
        if beyond and (beyond[0] == 0 or config.mtp_until == 0):
            yield (
                f"MTP_WEIGHTS={config.mtp_weights} with MTP_UNTIL={config.mtp_until:g}: no id beyond the next would ever count; "
                "leave MTP_WEIGHTS empty for that"
            )
    if config.jepa_weight and config.patch_size > 1:
        yield f"JEPA_WEIGHT with PATCH_SIZE={config.patch_size}: states belong to ids, the stream of patches has none for each"
    if config.jepa_weight and config.jepa_steps >= config.train_seq_len:
        yield f"JEPA_STEPS={config.jepa_steps} needs a longer TRAIN_SEQ_LEN than {config.train_seq_len}"
