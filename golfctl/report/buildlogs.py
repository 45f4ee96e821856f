"""What the logs of a campaign's runs show, thinned to what a picture can show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from golfctl.domain import rundir
from golfctl.domain.run import RunRecord
from golfctl.domain.state import State
from golfctl.logs import read_file
from golfctl.report.curves import Array, thinned
from golfctl.report.model import PlanReport, Trace, compared

if TYPE_CHECKING:
    from golfctl.logs import RunLog
    from golfctl.store.campaign import Campaign

MOST = 160
"""Logs that are read for one report: of plans that got furthest, at their furthest gate, and of what they were compared with."""
COLUMNS = 16
"""Pixel columns a curve is thinned for; at most four points stand in each."""
QUANTILES = 41


def traces(campaign: Campaign, plans: Sequence[PlanReport], state: State) -> dict[str, Trace]:
    """Run name to what its log shows; a run without a readable log is left out."""
    found: dict[str, Trace | None] = {}
    for plan in sorted(plans, key=lambda plan: (plan.standing != "active", -len(plan.row.gates))):
        for run in compared(plan, state.runs):
            if run.spec.name not in found and len(found) < MOST:
                found[run.spec.name] = _read(campaign, run)
    return {name: trace for name, trace in found.items() if trace is not None}


def _read(campaign: Campaign, run: RunRecord) -> Trace | None:
    try:
        logs = read_file(campaign.runs_folder / run.spec.name / rundir.LOG).runs
    except OSError:
        return None
    return trace_of(logs[-1]) if logs else None


def trace_of(log: RunLog) -> Trace | None:
    """The thinned curves of a log, None if it has none. Pure."""
    train = _points(log.train.step, log.train.ms, log.train.loss)
    val = _points(log.val.step, log.val.ms, log.val.bpb)
    if not train and not val:
        return None
    return Trace(train, val, _step_times(log))


def _points(
    step: Sequence[float], ms: Sequence[float], value: Sequence[float]
) -> tuple[tuple[float, float, float], ...]:
    steps, times, y = (np.array(list(part), dtype=float) for part in (step, ms, value))
    kept = np.isfinite(steps) & np.isfinite(y)
    steps, times, y = steps[kept], times[kept], y[kept]
    if not len(y):
        return ()
    index: Array = np.arange(len(y), dtype=float)
    chosen = thinned(index, y, COLUMNS)[0].astype(int)
    return tuple((float(steps[i]), float(times[i]), round(float(y[i]), 5)) for i in chosen)


def _step_times(log: RunLog) -> tuple[float, ...]:
    """Milliseconds a step between two training lines, as quantiles."""
    steps, ms = np.array(log.train.step, dtype=float), np.array(log.train.ms, dtype=float)
    known = np.isfinite(steps) & np.isfinite(ms)
    steps, ms = steps[known], ms[known]
    ahead = np.diff(steps) > 0
    each = np.diff(ms)[ahead] / np.diff(steps)[ahead]
    if len(each) < 3:
        return ()
    return tuple(round(float(value), 3) for value in np.quantile(each, np.linspace(0, 1, QUANTILES)))
