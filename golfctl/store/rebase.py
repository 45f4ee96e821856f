"""A plan's diffs on another base: settings that the new base reads, patches by three-way merge, and what does not carry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from golfctl.domain.plan import Diff, PatchDiff, Plan, SetDiff
from golfctl.errors import InputError, InputErrors
from golfctl.store import bases, patches, plangraph, settings
from golfctl.store.basecard import as_value, effective, same_value
from golfctl.store.basediff import counterparts, unified
from golfctl.store.bases import Base
from golfctl.store.marks import did_you_mean
from golfctl.store.planfile import read_plan
from golfctl.store.revise import OLD
from golfctl.store.threeway import Conflict, carry
from golfctl.store.tree import Tree

if TYPE_CHECKING:
    from golfctl.store.campaign import Campaign

CARRIED, OWN, LEFT = "carried", "the base's own", "does not carry"


@dataclass(frozen=True)
class Item:
    """What became of one setting or patch. where: `diffs`, `fallback` or `gates.N.env`; conflicts only of a patch."""

    where: str
    what: str
    outcome: str
    detail: str = ""
    conflicts: tuple[Conflict, ...] = ()


@dataclass(frozen=True)
class Rebase:
    """A plan on its new base, not written yet.

    moved: for `diffs` and `fallback`, number of each diff that stays to what it is now. patches: path below plans/ to content,
    for those that had to change.
    """

    before: Plan
    after: Plan
    items: tuple[Item, ...]
    moved: Mapping[str, Mapping[int, Diff]]
    patches: Mapping[str, bytes]

    @property
    def left(self) -> list[Item]:
        """What does not carry."""
        return [item for item in self.items if item.outcome == LEFT]


def rebase(campaign: Campaign, plan_id: str, base_name: str) -> Rebase:
    """Work out the plan on the new base; writes nothing.

    Raises InputError(s): unknown plan or base, a plan file with problems, patches that do not apply to the plan's own base, a
    dependency that is not on the new base yet.
    """
    plan = _read(campaign, plan_id)
    old, new = bases.load(campaign, plan.base), bases.load(campaign, base_name)
    if old.name == new.name:
        raise InputError(f"{plan_id}: builds on {new.name} already")
    below = _dependencies(campaign, plan, new)
    former = [form for item in below if (form := _former(campaign, item.id, old.name))]
    mover = _Mover(campaign, old, new, below, former)
    items, diffs = mover.move("diffs", plan.diffs)
    more, fallback = mover.move("fallback", plan.fallback)
    env, gates = mover.move_gates(plan)
    after = replace(plan, base=new.name, diffs=tuple(diffs.values()), fallback=tuple(fallback.values()), gates=gates)
    moved = {"diffs": diffs, "fallback": fallback}
    together = mover.impossible(after) if all(item.outcome != LEFT for item in items) else []
    return Rebase(plan, after, (*items, *more, *env, *together), moved, mover.patches)


def _read(campaign: Campaign, plan_id: str) -> Plan:
    path = campaign.plans_folder / f"{plan_id}.yaml"
    if not path.is_file():
        raise InputError(f"{plan_id}: no such plan{did_you_mean(plan_id, campaign.context().ids)}")
    return read_plan(path.read_bytes(), campaign.relative(path), campaign.context())[0]


def _dependencies(campaign: Campaign, plan: Plan, new: Base) -> list[Plan]:
    """The plans below, in order of application, all on the new base."""
    plans, _, _ = campaign.read_plans()
    try:
        below = [plans[name] for name in plangraph.stack_of({**plans, plan.id: plan}, plan.id)[:-1]]
    except KeyError as error:
        raise InputError(
            f"{plan.id}: depends on {error.args[0]}, which has problems of its own; they come first"
        ) from None
    for item in below:
        if item.base != new.name:
            remedy = f"golfctl plan rebase {item.id} --base {new.name}"
            raise InputError(
                f"{plan.id}: depends on {item.id}, which builds on {item.base}; rebase that first: {remedy}"
            )
    return below


def _former(campaign: Campaign, plan_id: str, base: str) -> Plan | None:
    """The newest kept form of a plan that was on another base; None if none was kept."""
    found: list[tuple[int, Plan]] = []
    for path in (campaign.plans_folder / OLD).glob(f"{plan_id}.r*.yaml"):
        number = path.stem.rpartition(".r")[2]
        try:
            plan, _ = read_plan(path.read_bytes(), f"plans/{plan_id}.yaml", campaign.context())
        except InputErrors:
            continue
        if number.isdecimal() and plan.base == base:
            found.append((int(number), plan))
    return max(found, key=lambda pair: pair[0])[1] if found else None


class _Mover:
    """Carries lists of diffs from one base, with what lies below the plan, to another."""

    def __init__(self, campaign: Campaign, old: Base, new: Base, below: Sequence[Plan], former: Sequence[Plan]) -> None:
        self.campaign, self.old, self.new = campaign, old, new
        self.names = counterparts(old, new)
        self.patches: dict[str, bytes] = {}
        self.below = [diff for plan in below for diff in plan.diffs]
        self.before = reduce(lambda tree, diff: self._applied(old, tree, diff), _diffs(former), old.tree)
        self.ground = reduce(lambda tree, diff: self._applied(new, tree, diff), self.below, new.tree)

    def move(self, where: str, diffs: Sequence[Diff]) -> tuple[list[Item], dict[int, Diff]]:
        """What became of each part, and by their numbers the diffs for the new base, without what did not carry."""
        items: list[Item] = []
        carried: dict[int, Diff] = {}
        before, ground = self.before, self.ground
        for index, diff in enumerate(diffs):
            if isinstance(diff, PatchDiff):
                item, moved, before, ground = self._patch(where, diff, before, ground)
                items.append(item)
                if moved:
                    carried[index] = moved
        for index, diff in enumerate(diffs):
            if isinstance(diff, SetDiff):
                found = [self._setting(where, ground, name, value) for name, value in diff.values.items()]
                items += found
                kept = {
                    name: value
                    for (name, value), item in zip(diff.values.items(), found, strict=True)
                    if item.outcome == CARRIED
                }
                if kept or not diff.values:
                    carried[index] = SetDiff(kept)
        return items, dict(sorted(carried.items()))

    def move_gates(self, plan: Plan) -> tuple[list[Item], dict[int, Mapping[str, object]]]:
        """The settings a plan's gates make, checked against the new base."""
        items: list[Item] = []
        gates: dict[int, Mapping[str, object]] = {}
        variables = self.new.variables(self.ground)
        for number, changes in plan.gates.items():
            env = changes.get("env")
            kept = dict(env) if isinstance(env, dict) else {}
            for name, value in list(kept.items()):
                if complaint := settings.complaint(self.new, variables, name, value):
                    del kept[name]
                    items.append(Item(f"gates.{number}.env", f"{name}={value}", LEFT, _bare(complaint, name)))
            gates[number] = {**changes, "env": kept} if isinstance(env, dict) else changes
        return items, gates

    def impossible(self, plan: Plan) -> list[Item]:
        """Settings of the moved plan that the new base takes one by one and not together."""
        tree = reduce(lambda tree, diff: self._applied(self.new, tree, diff), plan.diffs, self.ground)
        values = dict(self.new.settings)
        for diff in (*self.below, *plan.diffs):
            values |= diff.values if isinstance(diff, SetDiff) else {}
        found = settings.contradictions(self.campaign, self.new, tree, plan, values)
        return [Item("diffs", "settings together", LEFT, problem.message) for problem in found]

    def _setting(self, where: str, tree: Tree, name: str, value: str) -> Item:
        """tree: the new base with the plan's own patches, which may bring variables."""
        what = f"{name}={value}"
        variables = self.new.variables(tree)
        if complaint := settings.complaint(self.new, variables, name, value):
            return Item(where, what, LEFT, _bare(complaint, name))
        was, now = effective(self.old, name), self._value_below(name)
        if same_value(value, now) and not same_value(value, was):
            at = f"{variables[name].place}: " if name not in self.new.settings else ""
            return Item(where, what, OWN, f"{at}{self.new.name} has this value by itself now; dropped")
        return Item(where, what, CARRIED)

    def _value_below(self, name: str) -> str | None:
        """The value a variable has under the plan: of its dependencies, of the base, of the code."""
        for diff in reversed(self.below):
            if isinstance(diff, SetDiff) and name in diff.values:
                return diff.values[name]
        if name in self.new.settings:
            return self.new.settings[name]
        item = self.new.variables(self.ground).get(name)
        return as_value(item.default) if item else None

    def _patch(self, where: str, diff: PatchDiff, before: Tree, ground: Tree) -> tuple[Item, Diff | None, Tree, Tree]:
        """(what became of it, the patch for the new base, the old code with it, the new code with it)."""
        after = self._applied(self.old, before, diff)
        merged = carry(before, after, ground, self.names)
        if merged.tree == ground and not merged.conflicts:
            detail = f"{self.new.name} holds this change already; dropped"
            return Item(where, diff.path, OWN, detail), None, after, ground
        moved = self._written(diff, ground, merged.tree) if merged.tree != ground else None
        outcome = LEFT if merged.conflicts else CARRIED
        detail = f"as {moved.path}" if moved and moved != diff else ""
        if merged.conflicts:
            detail = f"{len(merged.conflicts)} of its places{f'; the rest {detail}' if detail else ''}"
        if moved and (refusal := self._refused(moved, ground)):
            return Item(where, diff.path, LEFT, refusal), None, after, ground
        return Item(where, diff.path, outcome, detail, merged.conflicts), moved, after, merged.tree

    def _written(self, diff: PatchDiff, ground: Tree, wanted: Tree) -> PatchDiff:
        """The patch that makes `wanted` of `ground`: the plan's own where that does it, else a new file beside it."""
        try:
            if self._applied(self.new, ground, diff) == wanted:
                return diff
        except InputErrors:
            pass
        content = "".join(
            unified(
                ground.files[path].content if path in ground.files else b"",
                wanted.files[path].content if path in wanted.files else b"",
                path if path in ground.files else None,
                path if path in wanted.files else None,
            )
            for path in wanted.changed(ground)
        ).encode("utf-8", "surrogateescape")
        path = PurePosixPath(diff.path)
        count = 1
        while True:
            end = f".{self.new.name}" if count == 1 else f".{self.new.name}-{count}"
            name = str(path.with_name(f"{path.stem}{end}{path.suffix}"))
            place = self.campaign.plans_folder / name
            if self.patches.get(name, content) == content and (not place.exists() or place.read_bytes() == content):
                self.patches[name] = content
                return PatchDiff(name)
            count += 1

    def _refused(self, diff: PatchDiff, ground: Tree) -> str | None:
        """Why the new base takes no such patch."""
        try:
            self._applied(self.new, ground, diff)
        except InputErrors as error:
            self.patches.pop(diff.path, None)
            return error.problems[0].message
        return None

    def _applied(self, base: Base, tree: Tree, diff: Diff) -> Tree:
        if not isinstance(diff, PatchDiff):
            return tree
        content = self.patches.get(diff.path)
        if content is None:
            content = Path(self.campaign.plans_folder / diff.path).read_bytes()
        inside = "trainer/" if base.kind == "trainer" else ""
        return patches.apply(tree, content, f"plans/{diff.path}", base.protected, inside)


def _diffs(plans: Sequence[Plan]) -> list[Diff]:
    return [diff for plan in plans for diff in plan.diffs]


def _bare(complaint: str, name: str) -> str:
    return complaint.removeprefix(f"{name}=")
