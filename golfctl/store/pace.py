"""Throughput first: how many steps a step time allows in a gate's seconds, and what a slower step costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING

from golfctl import stats
from golfctl.domain.gate import Gate
from golfctl.domain.run import Outcome
from golfctl.domain.state import State
from golfctl.store import bases, bundle

if TYPE_CHECKING:
    from golfctl.domain.plan import Plan, ResolvedPlan
    from golfctl.store.campaign import Campaign

NOTICEABLE = 0.001
"""A step time that differs by less changes nothing worth a line."""


@dataclass(frozen=True)
class Pace:
    """Step times measured under one gate's shape, and the seconds and steps that end a run there (0 and inf: do not)."""

    gate: Gate
    seconds: float
    most: float
    times: Mapping[str, list[float]]  # bundle to mean step times of its completed runs, in ms

    def mean(self, sha: str) -> float | None:
        """Mean step time of a bundle in ms, None if it was not measured here."""
        return stats.summarise(self.times[sha]).mean if sha in self.times else None

    def steps(self, step_ms: float) -> int:
        """Whole steps in the seconds there are."""
        return int(self.seconds * 1000 / step_ms)

    @property
    def where(self) -> str:
        """`8 x H100, 600 s`."""
        unit = self.gate.device or ("process" if self.gate.processes == 1 else "processes")
        return f"{self.gate.processes} {'x ' if self.gate.device else ''}{unit}, {self.seconds:g} s"


def pace_notes(
    campaign: Campaign, plans: Mapping[str, Plan], resolved: Mapping[str, ResolvedPlan], state: State
) -> list[str]:
    """For each base and shape that ends by time: steps, and the price of 1 %; for each plan: what its own step time costs."""
    times = _times(state)
    found: dict[str, None] = {}
    for plan in resolved.values():
        paces = list(_paces(campaign, plan, times))
        for pace in paces:
            # Where the number of steps ends a run first, a slower step costs none.
            if (ms := pace.mean(plan.base_bundle)) and 0 < pace.steps(ms) < pace.most:
                made = pace.steps(ms)
                dearer = made - pace.steps(ms * 1.01)
                n = len(pace.times[plan.base_bundle])
                line = f"{ms:.1f} ms a step (n {n}) make {made:,} steps; 1 % slower costs {dearer:,}"
                found[f"{plan.base}: {pace.where}: {line}"] = None
                if own := _own(plans[plan.id], plan, pace, paces):
                    found[f"{plan.id}: {own}"] = None
    return list(found)


def _times(state: State) -> dict[str, dict[str, list[float]]]:
    """Shape to bundle to step times."""
    found: dict[str, dict[str, list[float]]] = {}
    for run in state.runs.values():
        if run.outcome is Outcome.COMPLETED and run.result and run.result.step_avg_ms:
            found.setdefault(run.spec.shape, {}).setdefault(run.spec.bundle, []).append(run.result.step_avg_ms)
    return found


def _paces(campaign: Campaign, plan: ResolvedPlan, times: Mapping[str, Mapping[str, list[float]]]) -> Iterable[Pace]:
    """Each measured shape of the plan's gates once, on every model of GPU the campaign has; highest gate first."""
    seen = set()
    for gate in reversed(plan.gates):
        for device in dict.fromkeys(["", *(host.gpu for host in campaign.hosts.values())]):
            there = replace(gate, device=device)
            if there.shape in times and there.shape not in seen:
                seen.add(there.shape)
                seconds, most = (_number(campaign, plan, gate, role) for role in ("seconds", "iterations"))
                yield Pace(there, seconds or 0.0, inf if most is None else most, times[there.shape])


def _number(campaign: Campaign, plan: ResolvedPlan, gate: Gate, role: str) -> float | None:
    """What the base's variable for a role holds in a run of this gate: set there, or frozen, or the code's default."""
    base = bases.load(campaign, plan.base)
    name = base.vars[role]
    known = base.variables(bundle.tree_of(campaign, plan.bundle)).get(name)
    said = gate.env.get(name) or bundle.settings_of(campaign, plan.bundle).get(name) or (known and known.default)
    try:
        return float(said.strip("'\"")) if said else None
    except ValueError:
        return None  # the code works it out; we can't


def _own(plan: Plan, resolved: ResolvedPlan, pace: Pace, paces: Iterable[Pace]) -> str | None:
    """What the plan's own step time costs here: measured at another gate beside its parent, else what it expects."""
    side = resolved.parent_bundle
    ms = pace.mean(side)
    if ms is None or resolved.bundle in pace.times:
        return None
    factor, why = None, ""
    for other in paces:
        mine, theirs = other.mean(resolved.bundle), other.mean(side)
        if mine and theirs:
            factor, why = mine / theirs, f"its steps took {mine / theirs - 1:+.1%} at gate {other.gate.number}"
            break
    if factor is None and (expected := plan.expect.get("step_avg_ms")):
        change = sum(expected) / 2
        factor, why = (ms + change) / ms, f"it expects {change:+.1f} ms a step"
    if factor is None or factor <= 0 or abs(factor - 1) < NOTICEABLE:
        return None
    lost = pace.steps(ms) - pace.steps(ms * factor)
    word = "fewer" if lost > 0 else "more"
    return f"{why}: {abs(lost):,} steps {word} than {resolved.parent}'s {pace.steps(ms):,} ({pace.where})"
