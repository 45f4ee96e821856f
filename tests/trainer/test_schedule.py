"""Schedules as functions of the budget used."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.schedule import lr_scale, momentum, progress


def test_progress_follows_steps_without_a_time_limit() -> None:
    """Only steps count when there is no budget in seconds."""
    assert [progress(step, 4, elapsed_s=1e9) for step in range(6)] == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    assert progress(0, 0) == 1.0


def test_progress_takes_whichever_is_further() -> None:
    """With both limits the one nearer its end decides."""
    assert progress(1, 10, elapsed_s=3.0, budget_s=4.0) == 0.75
    assert progress(9, 10, elapsed_s=1.0, budget_s=4.0) == 0.9
    assert progress(1, 10, elapsed_s=5.0, budget_s=4.0) == 1.0


def test_lr_scale_holds_then_falls_in_a_line() -> None:
    """One until the warmdown begins, half in its middle, the floor at its end."""
    assert [lr_scale(done, 0.5, 0.0) for done in (0.0, 0.49, 0.5, 0.75, 1.0)] == [1.0, 1.0, 1.0, 0.5, 0.0]
    assert lr_scale(0.99, 0.5, 0.1) == 0.1
    assert lr_scale(1.0, 0.0, 0.0) == 1.0
    assert lr_scale(0.25, 1.0, 0.0) == 0.75


shares = st.floats(0, 1, allow_subnormal=False)


@given(shares, shares, shares, shares)
def test_lr_scale_never_rises(first: float, second: float, fraction: float, floor: float) -> None:
    """Later is never faster, and the scale stays in [floor, 1]."""
    early, late = sorted((first, second))
    assert floor <= lr_scale(late, fraction, floor) <= lr_scale(early, fraction, floor) <= 1.0


def test_momentum_warms_up_in_a_line() -> None:
    """From start to end over the given steps, then constant; no steps means no warm-up."""
    found = [momentum(step, 0.85, 0.95, 10) for step in (0, 5, 10, 1000)]
    assert found == pytest.approx([0.85, 0.90, 0.95, 0.95])
    assert momentum(0, 0.85, 0.95, 0) == 0.95
    assert found[-1] == 0.95
