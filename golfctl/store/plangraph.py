"""Plans that build on plans: stacks, circles, and what a broken plan breaks."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from graphlib import CycleError, TopologicalSorter

from golfctl.domain.plan import Plan
from golfctl.errors import Problem
from golfctl.store.marks import Document


def stack_of(plans: Mapping[str, Plan], plan_id: str) -> tuple[str, ...]:
    """Ids of all plans whose diffs `plan_id` needs: dependencies first, in declared order, itself last.

    The graph must be free of circles and complete (see `problems`). Raises KeyError for an unknown plan.
    """
    order: dict[str, None] = {}
    waiting: list[tuple[str, bool]] = [(plan_id, False)]
    while waiting:
        name, ready = waiting.pop()
        if ready:
            order[name] = None
        elif name not in order:
            waiting.append((name, True))
            waiting += [(needed, False) for needed in reversed(plans[name].depends_on) if needed not in order]
    return tuple(order)


def problems(plans: Mapping[str, Plan], documents: Mapping[str, Document], broken: Collection[str]) -> list[Problem]:
    """Circles (one finding each, naming the path), dependencies on another base, dependencies on a broken plan."""
    found = []
    graph = {name: [needed for needed in plan.depends_on if needed in plans] for name, plan in sorted(plans.items())}
    while True:
        try:
            TopologicalSorter(graph).prepare()
            break
        except CycleError as error:
            path = _from_smallest(list(reversed(error.args[1][1:])))
            first, second = path[0], path[1]
            where: list[str | int] = ["depends_on", plans[first].depends_on.index(second)]
            found.append(documents[first].problem(where, f"depends on itself: {' -> '.join(path)}"))
            graph[first] = [needed for needed in graph[first] if needed != second]
    for name, plan in plans.items():
        for index, needed in enumerate(plan.depends_on):
            if needed in broken:
                message = f"{needed} has problems of its own; they come first"
                found.append(documents[name].problem(["depends_on", index], message))
            elif needed in plans and plans[needed].base != plan.base:
                message = (
                    f"{needed} builds on base {plans[needed].base!r}, this plan on {plan.base!r}; a stack has one base"
                )
                found.append(documents[name].problem(["depends_on", index], message))
    return found


def usable(plans: Mapping[str, Plan], found: Collection[Problem]) -> dict[str, Plan]:
    """The plans that have no problem and need none that has one."""
    bad = {problem.file for problem in found}
    kept = {name: plan for name, plan in plans.items() if plan.source not in bad}
    while True:
        whole = {name: plan for name, plan in kept.items() if all(needed in kept for needed in plan.depends_on)}
        if len(whole) == len(kept):
            return whole
        kept = whole


def _from_smallest(circle: list[str]) -> list[str]:
    """The same circle beginning and ending with its smallest id: one circle always reads the same."""
    start = circle.index(min(circle))
    turned = circle[start:] + circle[:start]
    return [*turned, turned[0]]


def reach(plans: Mapping[str, Plan], plan_id: str) -> set[str]:
    """Ids of all plans `plan_id` needs, itself included; safe on circles and on names that are not in `plans`."""
    seen: set[str] = set()
    waiting = [plan_id]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += plans[name].depends_on if name in plans else ()
    return seen
