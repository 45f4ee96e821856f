"""What a host is told to enforce: step-time rules and how they are scaled."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, cast

import pytest

from golfctl.domain.gate import Gate, Requirement
from golfctl.domain.run import Outcome, RunRecord
from golfctl.domain.state import State
from golfctl.runner.launch import rules, step_ratio
from golfctl.store.bases import Base
from tests.golfctl.factories import gate, plan, run

RULE = (Requirement("step_avg_ms", "<=", 130.0),)
ONE = gate(1, env={"ITERATIONS": "200", "BATCH": "8"}, require=RULE, at_gpus=8, overriding=True)
EIGHT = gate(3, env={"ITERATIONS": "9000", "BATCH": "8"}, processes=8)
SMALL = gate(2, env={"BATCH": "1"})
PLAN = plan(gates=(ONE, SMALL, EIGHT))


class Names:
    """All that is asked of a base here."""

    vars: ClassVar = {"iterations": "ITERATIONS", "seconds": "MAX_WALLCLOCK_SECONDS"}


def ratio(*measured: tuple[Gate, float] | RunRecord) -> float | None:
    """The ratio for ONE with these runs of the base."""
    records = [
        item if isinstance(item, RunRecord) else run("base", item[0], seed, changes={"step_avg_ms": item[1]})
        for seed, item in enumerate(measured)
    ]
    state = State(runs={record.spec.name: record for record in records})
    return step_ratio(PLAN, ONE, state, cast(Base, Names()))


def test_ratio_is_that_of_medians_on_either_number_of_gpus() -> None:
    """Three runs each; the length of a run does not matter."""
    assert ratio((ONE, 640.0), (ONE, 800.0), (ONE, 9000.0), (EIGHT, 100.0)) == 8.0


def test_ratio_needs_both_sides_and_only_clean_runs_alike() -> None:
    """Another batch size, a crash and a run that was set aside say nothing."""
    assert ratio((ONE, 640.0)) is None
    odd = run("base", ONE, 9, changes={"step_avg_ms": 9000.0})
    others = (replace(odd, outcome=Outcome.CRASHED), replace(odd, excused="no", spec=replace(odd.spec, name="x")))
    assert ratio((ONE, 800.0), (EIGHT, 100.0), (SMALL, 10.0), *others) == 8.0
    assert step_ratio(PLAN, SMALL, State(), cast(Base, Names())) == 1.0


@pytest.mark.parametrize(("scale", "limits"), [(None, 0), (1.0, 1), (8.0, 1)])
def test_step_rule_reaches_the_host_where_it_can_be_scaled(scale: float | None, limits: int) -> None:
    """Unknown: not enforced there. Scaled: with the ratio and the number of GPUs it speaks of."""
    found = rules(ONE, scale)["limits"]
    assert len(found) == limits
    if scale == 8.0:
        assert (found[0]["max"], found[0]["scale"], found[0]["at_gpus"]) == (130.0, 8.0, 8)
