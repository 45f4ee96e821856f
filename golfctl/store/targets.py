"""The score targets of a campaign's plans, as numbers."""

from __future__ import annotations

from golfctl import judge, stats
from golfctl.domain.gate import Gate, Kind, Requirement
from golfctl.domain.plan import Plan
from golfctl.domain.state import State
from golfctl.store import gates
from golfctl.store.campaign import Campaign
from golfctl.store.frontier import Target
from golfctl.store.status import open_state


def targets(campaign: Campaign) -> list[Target]:
    """The target of each usable plan at its last gate, or at the last one before it that has a target.

    A relative target is resolved by the mean of that side's completed runs under the gate's shape; without one it has no value.
    Raises LedgerError.
    """
    plans, _ = campaign.load_plans()
    state = open_state(campaign)
    return [found for plan in plans.values() if (found := _target(campaign, plan, state)) is not None]


def _target(campaign: Campaign, plan: Plan, state: State) -> Target | None:
    for number in sorted(campaign.gates, reverse=True):
        gate = gates.apply(campaign.gates[number], plan.gates.get(number, {}))
        score = next((item for item in gate.require if item.metric == "score"), None)
        if gate.kind is Kind.THRESHOLD and score is not None:
            return resolve(plan, gate, score, state)
    return None


def resolve(plan: Plan, gate: Gate, score: Requirement, state: State) -> Target:
    """A score requirement of a plan's gate as a number, from the runs of the side it is relative to."""
    if score.relative_to is None:
        return Target(plan.id, gate.number, str(score), score.value)
    side = plan.depends_on[-1] if score.relative_to == "parent" and plan.depends_on else plan.base
    runs = [run for run in state.runs.values() if run.spec.owner == side and run.spec.shape == gate.shape]
    found = judge.scores(runs)
    if not found:
        return Target(plan.id, gate.number, str(score), None, f"{side} has no finished run at gate {gate.number}")
    return Target(plan.id, gate.number, str(score), stats.summarise(found).mean + score.value)
