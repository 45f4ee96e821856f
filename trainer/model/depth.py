"""Which stored block runs when: in order, some of them several times.

Depth recurrence (contest records) sends the stream n extra times through a range of blocks, 0..s-1, (s..e) x (n + 1), e+1..L-1,
from some share of the training on. Tied layers are the same from the first step: one stored block runs as a range of layers.
Every block is stored once however often it runs, and its gradient is the sum over its uses.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from trainer.config import Config
from trainer.options.depth import tied_range
from trainer.options.model import stored_layers


@dataclass(frozen=True)
class Depth:
    """blocks: number of the stored block that runs at each place of the virtual stack. passes: which pass through the
    looped range begins at each place, or None."""

    blocks: tuple[int, ...]
    passes: tuple[int | None, ...]


def stored(config: Config) -> Config:
    """The settings as the stored blocks see them: NUM_LAYERS counts each tied range once."""
    return dataclasses.replace(config, num_layers=stored_layers(config), tie_layers="")


def depth(config: Config, loops: int) -> Depth:
    """The virtual stack with `loops` extra passes through the looped range; tied layers repeat whatever `loops` is."""
    if config.tie_layers:
        first, last = tied_range(config.tie_layers)
        return _stack(stored_layers(config), first, first, last - first)
    return _stack(config.num_layers, config.loop_start, config.loop_end, loops)


def _stack(layers: int, start: int, end: int, extra: int) -> Depth:
    blocks = list(range(layers))
    passes: list[int | None] = [None] * layers
    if extra:
        once = blocks[start : end + 1]
        blocks = blocks[:start] + once * (extra + 1) + blocks[end + 1 :]
        passes = [None] * len(blocks)
    if start < layers:
        for number in range(extra + 1):
            passes[start + number * (end - start + 1)] = number
    return Depth(tuple(blocks), tuple(passes))


def loops_at(config: Config, done: float) -> int:
    """Extra passes in use when a share `done` of the training is over: none, then one, then all.

    All come at ENABLE_LOOPING_AT, unless LOOP_SECOND_AT puts off the second and later ones.
    """
    if done < config.loop_at:
        return 0
    return min(config.num_loops, 1) if done < config.loop_second_at else config.num_loops


def stages(config: Config) -> list[int]:
    """The numbers of extra passes that a training goes through, in order, each once: a graph has to be compiled for each."""
    moments = (0.0, config.loop_at, config.loop_second_at, 1.0)
    return list(dict.fromkeys(loops_at(config, moment) for moment in sorted(moments)))
