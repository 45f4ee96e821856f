"""In what order blocks run, and how often. Standard library only."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainer.options.declare import FEW_STEPS, FIELD, setting

if TYPE_CHECKING:
    from trainer.config import Config


@dataclass(frozen=True, kw_only=True)
class DepthOptions:
    """Part of trainer.config.Config."""

    skip_gates: bool = setting(
        "SKIP_GATES_ENABLED", False, "U-Net skips mix, lerp(w skip, x, sigmoid(g)), in place of adding", source=FIELD
    )
    num_loops: int = setting(
        "NUM_LOOPS", 0, "extra passes through blocks LOOP_START to LOOP_END; 0: off", source=FIELD, low=0, high=64
    )
    loop_start: int = setting("LOOP_START", 0, "first looped block", source=FIELD, low=0)
    loop_end: int = setting("LOOP_END", 0, "last looped block", source=FIELD, low=0)
    loop_at: float = setting(
        "ENABLE_LOOPING_AT", 0.5, "share of the training after which extra passes begin", source=FIELD, low=0, high=1
    )
    loop_second_at: float = setting(
        "LOOP_SECOND_AT",
        0.0,
        "share after which the second and later ones begin; not after ENABLE_LOOPING_AT: all together",
        source=FIELD,
        low=0,
        high=1,
    )
    loop_embedding: bool = setting(
        "LOOP_EMBEDDING", False, "a learned vector, zero at init, added as each pass begins", source=FIELD
    )
    tie_layers: str = setting(
        "TIE_LAYERS", "", "range such as 9-13 of the NUM_LAYERS layers that share one stored block", source=FIELD
    )


def tied_range(text: str) -> tuple[int, int]:
    """First and last layer of a range written 9-13. Raises ValueError unless first < last."""
    found = re.fullmatch(r"(\d{1,4})-(\d{1,4})", text)
    if not found or int(found[1]) >= int(found[2]):
        raise ValueError(text)
    return int(found[1]), int(found[2])


def problems(config: Config) -> Iterator[str]:
    """Settings that are fine alone and impossible together, one line each."""
    if config.skip_gates and not config.skip_connections:
        yield "SKIP_GATES_ENABLED=1 needs SKIP_CONNECTIONS=1"
    if config.skip_gates and config.num_layers == 1 and not config.num_loops:
        yield "SKIP_GATES_ENABLED=1 with NUM_LAYERS=1: one block has no skips to gate"
    if config.num_loops:
        yield from _loop_problems(config)
    elif config.loop_embedding:
        yield "LOOP_EMBEDDING=1 needs NUM_LOOPS >= 1"
    if config.tie_layers:
        yield from _tie_problems(config)


def _loop_problems(config: Config) -> Iterator[str]:
    if not config.loop_start <= config.loop_end < config.num_layers:
        yield (
            f"LOOP_START={config.loop_start}, LOOP_END={config.loop_end}: must be a range of the blocks 0 to "
            f"{config.num_layers - 1}"
        )
    if config.num_layers == 1 and config.skip_connections and config.loop_at > 0:
        yield "NUM_LOOPS with NUM_LAYERS=1 has no skips before ENABLE_LOOPING_AT: set that or SKIP_CONNECTIONS to 0"
    last = 1 - 1 / config.iterations if config.iterations >= FEW_STEPS else 1.0
    for name, share in (("ENABLE_LOOPING_AT", config.loop_at), ("LOOP_SECOND_AT", config.loop_second_at)):
        if share >= 1 or share > last:
            yield (
                f"{name}={share:g} with ITERATIONS={config.iterations}: no step would train all the passes of NUM_LOOPS "
                "that the artifact is scored with"
            )
    if config.tie_layers:
        yield "NUM_LOOPS and TIE_LAYERS: a tied range is a loop already, use one of them"


def _tie_problems(config: Config) -> Iterator[str]:
    try:
        _, last = tied_range(config.tie_layers)
    except ValueError:
        yield f"TIE_LAYERS={config.tie_layers!r}: must be a range FIRST-LAST of layers, such as 9-13"
        return
    if last >= config.num_layers:
        yield f"TIE_LAYERS={config.tie_layers}: the last layer is {config.num_layers - 1}"
