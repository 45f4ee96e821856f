"""Schedules as pure functions of how much of the budget is used. Standard library only.

The budget is a number of steps, or of seconds of rank 0's clock, or both: then whichever is further along counts. Seconds reach
these functions as an argument, so every rank that is given the same seconds computes the same rates to the last bit.
"""

from __future__ import annotations


def progress(step: int, iterations: int, elapsed_s: float = 0.0, budget_s: float = 0.0) -> float:
    """Share of the budget used after `step` finished steps, in [0, 1]; 1 means stop.

    `budget_s` 0 means no limit in time. With `iterations` 0 there is nothing to do: the answer is 1.
    """
    by_step = step / iterations if iterations > 0 else 1.0
    by_time = elapsed_s / budget_s if budget_s > 0 else 0.0
    return min(1.0, max(by_step, by_time, 0.0))


def lr_scale(done: float, warmdown_fraction: float, min_lr: float) -> float:
    """Multiplier of all rates at progress `done`: 1, then a line to 0 over the last `warmdown_fraction`, at least `min_lr`.

    Source: the contest's warmdown, max((1 - done) / warmdown, min_lr).
    """
    if warmdown_fraction <= 0 or done < 1.0 - warmdown_fraction:
        return 1.0
    return max((1.0 - done) / warmdown_fraction, min_lr)


def momentum(step: int, start: float, end: float, steps: int) -> float:
    """Muon's momentum at `step`: from `start` to `end` in a line over `steps` steps, then `end`."""
    if steps <= 0:
        return end
    share = min(step / steps, 1.0)
    return (1.0 - share) * start + share * end
