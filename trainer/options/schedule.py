"""What changes in the course of a run: rates, decay, context length. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainer.options.declare import FIELD, OURS, setting

if TYPE_CHECKING:
    from trainer.config import Config


@dataclass(frozen=True, kw_only=True)
class ScheduleOptions:
    """Part of trainer.config.Config."""

    lr_warmup_steps: int = setting(
        "LR_WARMUP_STEPS", 0, "steps over which all rates rise in a line; 0: none", source=OURS, low=0
    )
    warmdown_fraction: float = setting(
        "WARMDOWN_FRACTION",
        0.6,
        "last share of the budget over which rates fall to MIN_LR",
        source=FIELD,
        low=0,
        high=1,
    )
    warmdown_shape: str = setting(
        "WARMDOWN_SHAPE",
        "linear",
        "how rates fall; sqrt: 1 - sqrt(share of the warmdown done)",
        source="contest baseline; Haegele et al. 2024 (sqrt)",
        choices=("linear", "cosine", "sqrt"),
    )
    min_lr: float = setting("MIN_LR", 0.0, "share of the rate left at the end", source=FIELD, low=0, high=1)
    muon_wd_taper: float = setting(
        "MUON_WD_TAPER", 1.0, "share of MUON_WD left at the end; 1: no taper", source=FIELD, low=0, high=1
    )
    muon_wd_taper_at: float = setting(
        "MUON_WD_TAPER_AT", 0.7, "share of the budget after which MUON_WD falls in a line", source=FIELD, low=0, high=1
    )
    context_schedule: str = setting(
        "CONTEXT_SCHEDULE",
        "",
        "context lengths and the share of the budget each begins at, such as 64@0,128@0.33; empty: TRAIN_SEQ_LEN throughout",
        source="modded-nanogpt",
    )


def context_phases(config: Config) -> tuple[tuple[int, float], ...]:
    """(context length, share of the budget it begins at), in order. Raises ValueError if the setting can't be read."""
    if not config.context_schedule:
        return ((config.train_seq_len, 0.0),)
    phases = []
    for word in config.context_schedule.split(","):
        length, _, start = word.partition("@")
        phases.append((int(length), float(start)))
    return tuple(phases)


def problems(config: Config) -> Iterator[str]:
    """Settings that are fine alone and impossible together, one line each."""
    if config.muon_wd_taper < 1.0 and not config.muon_weight_decay:
        yield f"MUON_WD_TAPER={config.muon_wd_taper:g} needs MUON_WD > 0: there is no decay to taper"
    if config.muon_wd_taper < 1.0 and config.muon_wd_taper_at >= 1.0:
        yield f"MUON_WD_TAPER={config.muon_wd_taper:g} with MUON_WD_TAPER_AT=1: the taper would begin when the run is over"
    yield from _context_problems(config)


def _context_problems(config: Config) -> Iterator[str]:
    said = f"CONTEXT_SCHEDULE={config.context_schedule}"
    try:
        phases = context_phases(config)
    except ValueError:
        yield f"{said}: must be LENGTH@SHARE,LENGTH@SHARE,... such as 64@0,128@0.33"
        return
    lengths, starts = [length for length, _ in phases], [start for _, start in phases]
    if starts[0] != 0.0 or starts != sorted(set(starts)) or not starts[-1] < 1.0:  # refuses nan, too
        yield f"{said}: shares must begin at 0 and rise, and stay below 1"
    if lengths[0] < 2 or lengths != sorted(set(lengths)) or lengths[-1] != config.train_seq_len:
        yield (
            f"{said}: lengths must rise from 2 or more to TRAIN_SEQ_LEN={config.train_seq_len}, which the model is scored with"
        )
        return
    for length in (length for length in lengths if length % config.patch_size):
        yield f"{said}: {length} is not a multiple of PATCH_SIZE={config.patch_size}"
    for length in lengths[:-1]:
        if config.train_batch_tokens % (length * config.grad_accum_steps):
            yield (
                f"{said}: TRAIN_BATCH_TOKENS={config.train_batch_tokens} is not a multiple of {length}*GRAD_ACCUM_STEPS"
                f"={length * config.grad_accum_steps}"
            )
