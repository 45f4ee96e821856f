"""Money: caps, what is under way, what was spent and what it bought. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from golfctl import judge, stats
from golfctl.domain.event import Event, Type
from golfctl.domain.host import HostSpec
from golfctl.domain.run import RunRecord
from golfctl.domain.state import State
from golfctl.estimate import Estimate, share_per_hour, took_s

CENT = 0.005
"""Sums of floats may pass a cap by a hair; half a cent is no money."""
MBPB = 0.001
"""Gains are priced per this many bits per byte."""


@dataclass(frozen=True)
class Budget:
    """Caps in dollars; None or absent: no cap. plan_usd: a plan's own runs. gate_usd: a plan's own runs at that gate.

    Reference runs belong to the base (or to the plan that is the parent): only `usd`, the campaign's cap, counts all.
    """

    usd: float | None = None
    plan_usd: float | None = None
    gate_usd: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """Runs of one kind: how many, their seconds, their dollars; of these the ones that counted for nothing; what aborts saved."""

    name: str
    runs: int
    seconds: float
    usd: float
    wasted_usd: float
    saved_usd: float


@dataclass(frozen=True)
class Gain:
    """Bits per byte a plan is better than its parent (positive is better), at the highest gate where both have scores."""

    gate: int
    parent: str
    bpb: float
    n: int
    parent_n: int


@dataclass(frozen=True)
class PlanCost:
    """A plan: its runs, what they bought. usd_per_mbpb: dollars per 0.001 bpb, None without a gain.

    left_usd: of the cap on a plan, after what is spent and under way; None without a cap.
    """

    row: Row
    gain: Gain | None
    usd_per_mbpb: float | None
    left_usd: float | None


@dataclass(frozen=True)
class HostCost:
    """A host: its runs, and dollars beside them (boot, transfers, idle slots, waiting to be brought home); None: unknown."""

    row: Row
    idle_usd: float | None


@dataclass(frozen=True)
class Cost:
    """What a campaign, or one plan of it, has cost. under_way_usd: estimate of the runs that have not ended.

    left_usd: of the cap in question, after what is spent and under way; None without a cap. owners: bases, and plans that ran for
    others only.
    """

    total: Row
    under_way: int
    under_way_usd: float
    cap_usd: float | None
    left_usd: float | None
    gates: tuple[Row, ...]
    plans: tuple[PlanCost, ...]
    owners: tuple[Row, ...]
    hosts: tuple[HostCost, ...]


# --- before ------------------------------------------------------------------------------------------------------------
def under_way(state: State, hosts: Mapping[str, HostSpec]) -> dict[str, float]:
    """Run name to the dollars it will have cost when it ends, for every run without an end: what finished ones took, at its host.

    A host that nobody knows any more has no price.
    """
    unfinished, found = state.unfinished(), dict[str, float]()
    took = took_s(state) if unfinished else {}
    for run in unfinished:
        host, known = hosts.get(run.spec.host), took.get(run.spec.shape)
        seconds = stats.summarise(known).mean if known else _expected_s(run, state)
        found[run.spec.name] = share_per_hour(host, run.spec.processes) * seconds / 3600 if host else 0.0
    return found


def _expected_s(run: RunRecord, state: State) -> float:
    """What the gates of any plan say a run of this gate is expected to take; 0 if none was frozen."""
    said = [
        float(gate["estimate_s"])
        for revisions in state.revisions.values()
        for revision in revisions
        for gate in revision.frozen.get("gates", ())
        if gate["number"] == run.spec.gate and "estimate_s" in gate
    ]
    return max(said, default=0.0)


def refusal(budget: Budget, state: State, ahead: Estimate, coming: Mapping[str, float]) -> str | None:
    """Why these runs may not be started: the first cap they would pass, as one line; None if none.

    coming: what `under_way` says. Where nothing new would be started nothing is refused: what runs is still brought home.
    """
    if not ahead.runs:
        return None
    past: dict[tuple[str, int], tuple[float, float]] = {}
    for run in state.runs.values():
        key = (run.spec.owner, run.spec.gate)
        spent, flying = past.get(key, (0.0, 0.0))
        past[key] = (spent + run.usd, flying + coming.get(run.spec.name, 0.0))
    for (plan, number), new in ahead.own.items():
        cap = budget.gate_usd.get(number)
        if cap is not None and (said := _over(cap, [past.get((plan, number), (0.0, 0.0))], new)):
            return f"{plan} at gate {number}: {said} (budget.gate_usd of golf.yaml)"
    for plan in dict.fromkeys(plan for plan, _ in ahead.own):
        new = sum(usd for (owner, _), usd in ahead.own.items() if owner == plan)
        known = [sums for (owner, _), sums in past.items() if owner == plan]
        if budget.plan_usd is not None and (said := _over(budget.plan_usd, known, new)):
            return f"{plan}: {said} (budget.plan_usd of golf.yaml)"
    if budget.usd is not None and (said := _over(budget.usd, list(past.values()), ahead.usd)):
        return f"the campaign: {said} (budget.usd of golf.yaml)"
    return None


def _over(cap: float, past: Sequence[tuple[float, float]], new: float) -> str | None:
    """What is wrong with spending `new` on top of (spent, under way); spending nothing is always right."""
    spent, coming = sum(item[0] for item in past), sum(item[1] for item in past)
    if not new or spent + coming + new <= cap + CENT:
        return None
    flying = f", ${coming:.2f} under way" if coming else ""
    return f"${spent:.2f} spent{flying} and about ${new:.2f} ahead exceed the cap of ${cap:.2f}"


# --- after -------------------------------------------------------------------------------------------------------------
def cost(
    state: State, hosts: Mapping[str, HostSpec], held: Mapping[str, float], budget: Budget, only: str | None = None
) -> Cost:
    """What was spent, by gate, plan and host. held: host to seconds as `held_seconds` says; only: one plan's own runs."""
    cells = _cells(run for run in state.runs.values() if only in (None, run.spec.owner))
    coming = under_way(state, hosts)
    coming = {name: usd for name, usd in coming.items() if only in (None, state.runs[name].spec.owner)}
    total, cap = _sum("all", cells.values()), budget.usd if only is None else budget.plan_usd
    owners = _by(cells, 1)
    flying = _by_owner(state, coming)
    return Cost(
        total=total,
        under_way=len(coming),
        under_way_usd=sum(coming.values(), 0.0),
        cap_usd=cap,
        left_usd=None if cap is None else cap - total.usd - sum(coming.values()),
        gates=_by(cells, 0),
        plans=tuple(
            _plan(row, state, budget, flying.get(row.name, 0.0)) for row in owners if row.name in state.revisions
        ),
        owners=tuple(row for row in owners if row.name not in state.revisions),
        hosts=tuple(_host(row, hosts.get(row.name), held if only is None else {}) for row in _by(cells, 2)),
    )


def _cells(runs: Iterable[RunRecord]) -> dict[tuple[str, str, str], Row]:
    """Runs by gate, owner and host; of 100,000 runs each is looked at once, and every other sum is made of these."""
    groups: dict[tuple[int, str, str], list[RunRecord]] = {}
    for run in runs:
        groups.setdefault((run.spec.gate, run.spec.owner, run.spec.host), []).append(run)
    return {(f"gate {gate}", owner, host): _row(found) for (gate, owner, host), found in groups.items()}


def _by(cells: Mapping[tuple[str, str, str], Row], at: int) -> tuple[Row, ...]:
    """The cells summed up by one part of their key, in order of names."""
    groups: dict[str, list[Row]] = {}
    for key, row in cells.items():
        groups.setdefault(key[at], []).append(row)
    return tuple(_sum(name, rows) for name, rows in sorted(groups.items()))


def _row(runs: Sequence[RunRecord]) -> Row:
    return Row(
        name="",
        runs=len(runs),
        seconds=sum(run.wall_s or 0.0 for run in runs),
        usd=sum(run.usd for run in runs),
        wasted_usd=sum((run.usd for run in runs if run.usd and run.to_repeat), 0.0),
        saved_usd=sum(run.saved_usd for run in runs),
    )


def _sum(name: str, rows: Iterable[Row]) -> Row:
    known = list(rows)
    return Row(
        name=name,
        runs=sum(row.runs for row in known),
        seconds=sum(row.seconds for row in known),
        usd=sum(row.usd for row in known),
        wasted_usd=sum((row.wasted_usd for row in known), 0.0),
        saved_usd=sum(row.saved_usd for row in known),
    )


def _by_owner(state: State, coming: Mapping[str, float]) -> dict[str, float]:
    """Owner to the dollars under way for it. coming: run name to dollars."""
    found: dict[str, float] = {}
    for name, usd in coming.items():
        owner = state.runs[name].spec.owner
        found[owner] = found.get(owner, 0.0) + usd
    return found


def _plan(row: Row, state: State, budget: Budget, flying: float) -> PlanCost:
    """flying: dollars under way for the plan, which its cap counts as `Cost.left_usd` does."""
    found = gain(state, row.name)
    paid = found is not None and found.bpb > 0
    each = row.usd / (found.bpb / MBPB) if found is not None and paid else None
    left = None if budget.plan_usd is None else budget.plan_usd - row.usd - flying
    return PlanCost(row, found, each, left)


def gain(state: State, plan: str) -> Gain | None:
    """Mean score of the parent minus that of the plan's newest revision; None where no gate has comparable scores of both."""
    revision = state.revision(plan)
    if revision is None:
        return None
    own: dict[tuple[int, str], list[RunRecord]] = {}
    for run in state.runs.values():
        if run.spec.bundle == revision.bundle and run.spec.owner == plan:
            own.setdefault((run.spec.gate, run.spec.shape), []).append(run)
    for (gate, shape), runs in sorted(own.items(), reverse=True):
        others = state.runs_of(revision.frozen["parent_bundle"], shape)
        mine, theirs = judge.scores(runs), judge.scores(others)
        scored = [run.result for run in (*runs, *others) if run.result and run.result.score is not None]
        if mine and theirs and len({(item.metric_version, item.data) for item in scored}) == 1:
            better = stats.summarise(theirs).mean - stats.summarise(mine).mean
            return Gain(gate, str(revision.frozen["parent"]), better, len(mine), len(theirs))
    return None


def _host(row: Row, host: HostSpec | None, held: Mapping[str, float]) -> HostCost:
    if host is None or row.name not in held:
        return HostCost(row, None)
    return HostCost(row, max(0.0, host.usd_per_hour * held[row.name] / 3600 - row.usd))


def held_seconds(events: Iterable[Event], state: State) -> dict[str, float]:
    """Host to the seconds in which at least one of its runs was launched and not yet at home, by the ledger's own clock.

    Clocks of two machines are never compared: a host with a run whose launch one recorded and whose end another is left out.
    """
    launched: dict[str, Event] = {}
    spans: dict[str, list[tuple[float, float]]] = {}
    unknown: set[str] = set()
    for event in events:
        if event.type is Type.RUN_INTENT:
            launched.setdefault(str(event.data["spec"]["name"]), event)
        elif event.type is Type.RUN_FINISHED and not event.data.get("withdrawn"):
            name = str(event.data["run"])
            start, run = launched.get(name), state.runs[name]
            if start is not None and start.machine == event.machine:
                spans.setdefault(run.spec.host, []).append((_seconds(start.time), _seconds(event.time)))
            else:
                unknown.add(run.spec.host)
    return {host: _union(found) for host, found in spans.items() if host not in unknown}


def _seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()


def _union(spans: Iterable[tuple[float, float]]) -> float:
    """Length of the union of intervals."""
    total, until = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total
