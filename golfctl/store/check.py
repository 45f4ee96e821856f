"""Everything that can be said about plans without running them. Writes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING

from golfctl.domain.plan import Plan, ResolvedPlan
from golfctl.errors import InputError, InputErrors, Problem
from golfctl.store import bases, bundle, conflicts, marks, planfile, plangraph, settings

if TYPE_CHECKING:
    from golfctl.store.campaign import Campaign


@dataclass(frozen=True)
class Findings:
    """plans: what can be read. resolved: what could run. problems stop, notes inform (one line each)."""

    plans: Mapping[str, Plan]
    resolved: Mapping[str, ResolvedPlan]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]


def check(campaign: Campaign, wanted: Sequence[str] = ()) -> Findings:
    """Check these plans (all when none is named), with the plans they depend on. Raises InputError for an unknown id."""
    known = campaign.context().ids
    for name in wanted:
        if name not in known and (gone := planfile.retirement(campaign.plans_folder, name)):
            raise InputError(f"{name}: was retired: {gone[1]}")
        if name not in known:
            raise InputError(f"{name}: no such plan{marks.did_you_mean(name, known)}")
    plans, _, problems = campaign.read_plans()
    usable = plangraph.usable(plans, problems)
    chosen = [name for name in usable if not wanted or name in wanted]
    relevant = {f"plans/{name}.yaml" for name in (wanted or known)}
    for name in wanted:
        relevant |= {f"plans/{needed}.yaml" for needed in plangraph.reach(plans, name)}
    problems = [item for item in problems if not wanted or item.file in relevant]
    problems += _gate_settings(campaign)
    resolved: dict[str, ResolvedPlan] = {}
    for name in chosen:
        try:
            resolved[name] = bundle.resolve(campaign, usable, name)
            problems += _fallback(campaign, usable, name)
        except InputErrors as error:
            problems += error.problems
        except InputError as error:
            problems.append(Problem(plans[name].source, 0, 0, str(error)))
    notes = _notes(campaign, usable, resolved) if not problems else []
    return Findings(plans, resolved, tuple(sorted(set(problems))), tuple(notes))


def _fallback(campaign: Campaign, plans: Mapping[str, Plan], name: str) -> list[Problem]:
    """What would be wrong with a plan if its fallback were its diffs."""
    plan = plans[name]
    if not plan.fallback:
        return []
    try:
        bundle.resolve(campaign, {**plans, name: replace(plan, diffs=plan.fallback, fallback=())}, name)
    except InputErrors as error:
        return [Problem(plan.source, 0, 0, f"fallback: {problem.message}") for problem in error.problems]
    return []


def _gate_settings(campaign: Campaign) -> list[Problem]:
    """Settings of golf.yaml's gates against the campaign's base."""
    if not campaign.base_name:
        return []
    base = bases.load(campaign, campaign.base_name)
    variables = base.variables(base.tree)
    found = []
    for number, gate in campaign.gates.items():
        for name, value in gate.env.items():
            if message := settings.complaint(base, variables, name, value):
                where: tuple[str | int, ...] = ("gates", number, "env", name)
                label = ".".join(map(str, where))
                found.append(settings.marked(campaign, "golf.yaml", where, label, message))
    return found


def _notes(campaign: Campaign, plans: Mapping[str, Plan], resolved: Mapping[str, ResolvedPlan]) -> list[str]:
    notes = []
    first: dict[str, str] = {}
    for name, plan in resolved.items():
        if plan.bundle == plan.parent_bundle:
            notes.append(f"{name}: changes nothing: its bundle is that of {plan.parent}")
        elif plan.bundle in first:
            notes.append(f"{name}: is the same as {first[plan.bundle]}: both freeze to bundle {plan.bundle[:12]}")
        first.setdefault(plan.bundle, name)
        stack = [plans[item] for item in plan.stack]
        overrides = conflicts.in_stack(stack, bundle.patches_of(campaign, stack))
        notes += [f"{name}: overrides: {clash.message}" for clash in overrides if clash.plan == name]
        shadowed = _shadowed(campaign, plans[name])
        notes += [f"{name}: {text}" for text in shadowed]
    stacked = {(min(pair), max(pair)) for plan in resolved.values() for pair in combinations(plan.stack, 2)}
    chosen = [plans[name] for name in resolved]
    return notes + conflicts.between(chosen, bundle.patches_of(campaign, chosen), stacked)


def _shadowed(campaign: Campaign, plan: Plan) -> list[str]:
    """Settings of the plan that a gate's own settings replace: there the plan would test nothing."""
    found = []
    for name in {key for diff in plan.diffs for key in getattr(diff, "values", {})}:
        numbers = [str(number) for number, gate in campaign.gates.items() if name in gate.env]
        if numbers:
            found.append(f"{name} is also set by gate {', '.join(numbers)}, and the gate's value holds there")
    return sorted(found)
