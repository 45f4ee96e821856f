"""Schedules as pure functions of how much of the budget is used. Standard library only.

The budget is a number of steps, or of seconds of rank 0's clock, or both: then whichever is further along counts. Seconds reach
these functions as an argument, so every rank that is given the same seconds computes the same rates to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence


def progress(step: int, iterations: int, elapsed_s: float = 0.0, budget_s: float = 0.0) -> float:
    """Share of the budget used after `step` finished steps, in [0, 1]; 1 means stop.

    `budget_s` 0 means no limit in time. With `iterations` 0 there is nothing to do: the answer is 1.
    """
    by_step = step / iterations if iterations > 0 else 1.0
    by_time = elapsed_s / budget_s if budget_s > 0 else 0.0
    return min(1.0, max(by_step, by_time, 0.0))


def linear(left: float) -> float:
    """The contest's warmdown: in proportion to what is left of it."""
    return left


def cosine(left: float) -> float:
    """Half a cosine: slow at both ends."""
    return 0.5 - 0.5 * math.cos(math.pi * left)


def one_minus_sqrt(left: float) -> float:
    """1 - sqrt(done): steep at first, then long at small rates (Haegele et al. 2024)."""
    return 1.0 - math.sqrt(1.0 - left)


SHAPES: dict[str, Callable[[float], float]] = {"linear": linear, "cosine": cosine, "sqrt": one_minus_sqrt}
"""WARMDOWN_SHAPE to the multiplier as a function of the share of the warmdown that is left; all go from 1 to 0."""


def warmdown_left(done: float, warmdown_fraction: float) -> float:
    """Share of the warmdown still ahead at progress `done`, in [0, 1]: 1 until it begins, 0 at the end of the run."""
    if warmdown_fraction <= 0 or done < 1.0 - warmdown_fraction:
        return 1.0
    return min((1.0 - done) / warmdown_fraction, 1.0)


def lr_scale(done: float, warmdown_fraction: float, min_lr: float, shape: Callable[[float], float] = linear) -> float:
    """Multiplier of all rates at progress `done`: 1, then `shape` down to 0 over the last `warmdown_fraction`.

    Never below `min_lr`. Source: the contest's warmdown, max((1 - done) / warmdown, min_lr).
    """
    if warmdown_fraction <= 0 or done < 1.0 - warmdown_fraction:
        return 1.0
    return max(shape(warmdown_left(done, warmdown_fraction)), min_lr)


def warmup(step: int, steps: int) -> float:
    """Multiplier of all rates at `step`: 1/steps at step 0, a line to 1 at step `steps` - 1, then 1."""
    return min((step + 1) / steps, 1.0) if steps > 0 else 1.0


def taper(done: float, start: float, end: float) -> float:
    """1 until progress `start`, then a line to `end` at progress 1 (weight decay of the contest's record of 2026-04-18)."""
    if done <= start or start >= 1.0:
        return 1.0
    return 1.0 + (end - 1.0) * min((done - start) / (1.0 - start), 1.0)


def context(done: float, phases: Sequence[tuple[int, float]]) -> int:
    """Context length at progress `done`: that of the last phase (length, share it begins at) which has begun."""
    return next(length for length, start in reversed(phases) if start <= done or start == 0.0)


def momentum(step: int, start: float, end: float, steps: int) -> float:
    """Muon's momentum at `step`: from `start` to `end` in a line over `steps` steps, then `end`."""
    if steps <= 0:
        return end
    share = min(step / steps, 1.0)
    return (1.0 - share) * start + share * end
