"""What is ahead if every gate passes: runs, seconds, dollars. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from golfctl.decide import Launch, needs, next_gate
from golfctl.domain.gate import Gate
from golfctl.domain.host import HostSpec
from golfctl.domain.plan import ResolvedPlan
from golfctl.domain.run import Outcome
from golfctl.domain.state import State
from golfctl.domain.units import duration
from golfctl.stats import summarise


@dataclass(frozen=True)
class Estimate:
    """Runs at most (a gate that says no stops the rest), about so many seconds and dollars, with a line for every gate.

    own: (plan, gate) to the dollars of the plan's own runs there; the rest are reference runs.
    """

    runs: int
    seconds: float
    usd: float
    lines: tuple[str, ...]
    own: Mapping[tuple[str, int], float] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """`12 runs, about 3 min, about $0.00`."""
        runs = "1 run" if self.runs == 1 else f"{self.runs} runs"
        return f"{runs}, about {duration(self.seconds)}, about ${self.usd:.2f}"


def estimate(plans: Sequence[ResolvedPlan], through: int, state: State, hosts: Sequence[HostSpec]) -> Estimate:
    """Every run still needed through a gate, each counted once even if several plans share it; dollars at the dearest host."""
    counted: set[tuple[str, str, int | None, int]] = set()
    lines: list[str] = []
    own: dict[tuple[str, int], float] = {}
    runs, seconds, usd = 0, 0.0, 0.0
    for plan in plans:
        first = next_gate(plan, state)
        if first is None or state.verdict(plan.id, first.number):
            continue
        for gate in plan.gates:
            if not first.number <= gate.number <= through:
                continue
            new, new_own = _new_runs(plan, gate, state, counted)
            each, measured = seconds_per_run(gate, state)
            side_by_side = max(1, sum(host.slots // gate.processes for host in hosts))
            price = max(share_per_hour(host, gate.processes) for host in hosts)
            took = new * each / min(side_by_side, max(new, 1))
            runs, seconds = runs + new, seconds + took
            usd += new * each * price / 3600
            own[plan.id, gate.number] = new_own * each * price / 3600
            guess = "" if measured else ", a first guess"
            lines.append(
                f"gate {gate.number} {gate.name:<6} {plan.id:<16} {new} x {each:.0f} s{guess}: about {duration(took)}"
            )
    return Estimate(runs, seconds, usd, tuple(lines), own)


def of_run(launch: Launch, state: State, host: HostSpec) -> Estimate:
    """One run, at its host."""
    seconds, _ = seconds_per_run(launch.gate, state)
    usd = seconds * share_per_hour(host, launch.gate.processes) / 3600
    own = {(launch.plan, launch.gate.number): usd} if launch.owner == launch.plan else {}
    return Estimate(1, seconds, usd, (), own)


def _new_runs(
    plan: ResolvedPlan, gate: Gate, state: State, counted: set[tuple[str, str, int | None, int]]
) -> tuple[int, int]:
    """Runs this gate still needs, and how many of them are the plan's own."""
    new, own = 0, 0
    for need in needs(plan, gate):
        number = None if need.reference else gate.number
        have = {run.spec.seed for run in state.runs_of(need.bundle, gate.shape, number) if not run.to_repeat}
        for seed in need.seeds:
            key = (need.bundle, gate.shape, number, seed)
            if seed not in have and key not in counted:
                counted.add(key)
                new, own = new + 1, own + (not need.reference)
    return new, own


def seconds_per_run(gate: Gate, state: State) -> tuple[float, bool]:
    """What completed runs of this shape took so far (True), else the gate's own estimate (False).

    Runs that were aborted or crashed took less than the next one will.
    """
    took = took_s(state).get(gate.shape)
    return (summarise(took).mean, True) if took else (gate.estimate_s, False)


def took_s(state: State) -> dict[str, list[float]]:
    """Shape to the seconds its completed runs took."""
    found: dict[str, list[float]] = {}
    for run in state.runs.values():
        if run.outcome is Outcome.COMPLETED and run.wall_s:
            found.setdefault(run.spec.shape, []).append(run.wall_s)
    return found


def share_per_hour(host: HostSpec, processes: int) -> float:
    """Dollars an hour for a run's share of the machine."""
    return host.usd_per_hour * min(processes, host.slots) / host.slots
