"""Plans that don't go together: declared, or found in what they change.

In one stack a conflict is an error, with one exception: a plan that depends on another was written in its sight, so what it
changes again is an override and worth a note. Between independent plans the same finding is a note, too: they can't be
stacked later.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from golfctl.domain.plan import PatchDiff, Plan, SetDiff
from golfctl.store.patches import FilePatch, Hunk

PlanPatches = Mapping[str, Sequence[tuple[str, Sequence[FilePatch]]]]
"""Plan id to its patches in order, each with its path relative to the plans folder."""


@dataclass(frozen=True)
class Clash:
    """A finding about the stack of `plan`, at the path `where` of its file. override: said, but allowed."""

    plan: str
    where: tuple[str | int, ...]
    message: str
    override: bool = False


def in_stack(stack: Sequence[Plan], patches: PlanPatches) -> list[Clash]:
    """Every clash between two plans of a stack (in order of application), and of a plan with itself."""
    above = _Above(stack)
    found = list(_declared(stack, above))
    setters: dict[str, list[tuple[str, str]]] = {}
    for plan in stack:
        for where, name, value in _settings(plan):
            for first, other in setters.get(name, []):
                if other == value:
                    continue
                if first == plan.id:
                    found.append(Clash(plan.id, where, f"{name} is set to {value} here and to {other} before"))
                else:
                    both = f"{name} is set to {other} by {first} and to {value} by {plan.id}"
                    found.append(above.clash(first, plan.id, where, both))
            setters.setdefault(name, []).append((plan.id, value))
    found += _overlaps_in_stack(stack, patches, above)
    return found


class _Above:
    """Who depends on whom within a stack."""

    def __init__(self, stack: Sequence[Plan]) -> None:
        self.below: dict[str, set[str]] = {}
        for plan in stack:  # dependencies come first
            direct = set(plan.depends_on)
            self.below[plan.id] = direct.union(*(self.below.get(name, set()) for name in direct))

    def joiner(self, first: str, second: str) -> str:
        """The first plan whose stack holds both: the one to which a clash of two others is to be told."""
        if first in self.below[second]:
            return second
        return next(name for name, below in self.below.items() if {first, second} <= below)

    def clash(self, first: str, second: str, where: tuple[str | int, ...], message: str) -> Clash:
        """The finding about two plans: an override if the second depends on the first, else an error of their joiner."""
        if first in self.below[second]:
            return Clash(second, where, message, override=True)
        return Clash(self.joiner(first, second), ("depends_on",), f"{message}; they can't be stacked")


def _declared(stack: Sequence[Plan], above: _Above) -> Iterator[Clash]:
    for first, second in combinations(stack, 2):
        declares = next(
            (one for one, other in ((second, first), (first, second)) if other.id in one.conflicts_with), None
        )
        if declares is None:
            continue
        other = first if declares is second else second
        plan = above.joiner(first.id, second.id)
        own = declares.id == plan
        where = ("conflicts_with", declares.conflicts_with.index(other.id)) if own else ("depends_on",)
        message = f"{declares.id} declares a conflict with {other.id}; both are in the stack of {plan}"
        yield Clash(plan, where, message)


def _settings(plan: Plan) -> Iterator[tuple[tuple[str | int, ...], str, str]]:
    for index, diff in enumerate(plan.diffs):
        if isinstance(diff, SetDiff):
            for name, value in diff.values.items():
                yield ("diffs", index, "set", name), name, value


Range = tuple[int, int]


def _overlaps_in_stack(stack: Sequence[Plan], patches: PlanPatches, above: _Above) -> Iterator[Clash]:
    """Lines changed by one plan and again by a later one. What lies between shifts lines, so they are carried along."""
    touched: dict[str, list[tuple[str, Range]]] = {}
    for plan in stack:
        for name, files in patches.get(plan.id, ()):
            for item in files:
                path = item.old or item.new or ""
                carried = touched.get(path, [])
                index = next(i for i, d in enumerate(plan.diffs) if isinstance(d, PatchDiff) and d.path == name)
                hit: dict[str, Hunk] = {}
                for other, span in carried:
                    for hunk in item.hunks:
                        if other != plan.id and _overlap(span, hunk.removed):
                            hit.setdefault(other, hunk)
                for other, hunk in hit.items():
                    message = f"{other} and {plan.id} ({name}:{hunk.line}) change the same lines of {path}"
                    yield above.clash(other, plan.id, ("diffs", index, "patch"), message)
                moved = [(other, _shift(span, item)) for other, span in carried]
                touched[path] = moved + [(plan.id, hunk.added) for hunk in item.hunks]


def _overlap(one: Range, two: Range) -> bool:
    """Whether two half-open ranges share a line; an empty range (a point of insertion or deletion) clashes with the same
    point, and strictly inside of a longer range."""
    if one[0] == one[1] or two[0] == two[1]:
        return (
            one[0] <= two[0] <= one[1] if one == two else max(one[0], two[0]) < min(one[1], two[1]) or _inside(one, two)
        )
    return max(one[0], two[0]) < min(one[1], two[1])


def _inside(one: Range, two: Range) -> bool:
    point, span = (one[0], two) if one[0] == one[1] else (two[0], one)
    return span[0] < point < span[1]


def _shift(span: Range, patch: FilePatch) -> Range:
    """A range of lines before a patch, in the coordinates after it."""
    moved = sum(hunk.offset for hunk in patch.hunks if hunk.removed[1] <= span[0])
    return span[0] + moved, span[1] + moved


def between(plans: Iterable[Plan], patches: PlanPatches, stacked: set[tuple[str, str]]) -> list[str]:
    """Notes on independent plans of one base that touch the same thing. stacked: sorted pairs that share a stack."""
    notes = []
    users: dict[tuple[str, str], dict[str, str]] = {}
    files: dict[tuple[str, str], list[tuple[str, Range]]] = {}
    for plan in plans:
        for _, name, value in _settings(plan):
            users.setdefault((plan.base, name), {})[plan.id] = value
        for _, items in patches.get(plan.id, ()):
            for item in items:
                spans = files.setdefault((plan.base, item.old or item.new or ""), [])
                spans += [(plan.id, hunk.removed) for hunk in item.hunks]
    for (_, name), values in sorted(users.items()):
        if len(set(values.values())) > 1 and not _all_stacked(values, stacked):
            said = ", ".join(f"{plan} ({value})" for plan, value in list(values.items())[:6])
            more = f" and {len(values) - 6} more" if len(values) > 6 else ""
            notes.append(f"{name} is set to different values by {said}{more}: they can't be stacked side by side")
    for (_, path), touches in sorted(files.items()):
        pairs = {
            tuple(sorted((one, two)))
            for (one, span), (two, other) in combinations(touches, 2)
            if one != two and _overlap(span, other)
        }
        for one, two in sorted(pairs - stacked):
            notes.append(f"{one} and {two} change the same lines of {path}: they can't be stacked side by side")
    return notes


def _all_stacked(values: Iterable[str], stacked: set[tuple[str, str]]) -> bool:
    return all(tuple(sorted(pair)) in stacked for pair in combinations(values, 2))
