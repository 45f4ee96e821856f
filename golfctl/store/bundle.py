"""Bundles: a base with the diffs of a plan and of all it depends on, frozen under the hash of its content.

A bundle is a folder {code files, settings.json}; settings.json maps each setting to the text a process sees. Working one
out writes nothing; `archive_of` puts it on the disk, once, when something is about to run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from golfctl.domain.plan import PatchDiff, Plan, ResolvedPlan, SetDiff
from golfctl.errors import InputError, InputErrors, Problem
from golfctl.store import bases, conflicts, gates, marks, patches, settings
from golfctl.store.bases import Base
from golfctl.store.files import write_atomic
from golfctl.store.patches import SETTINGS_FILE, FilePatch
from golfctl.store.plangraph import stack_of
from golfctl.store.tree import Tree, pack, unpack
from trainer import contract

if TYPE_CHECKING:
    from golfctl.store.campaign import Campaign

_worked_out: dict[str, Tree] = {}
"""Bundles of this process by hash: what was worked out need not be on the disk yet. Content-addressed, so never stale."""


@dataclass(frozen=True)
class Bundle:
    """Frozen code and settings. archive: where it lies, or will lie once something runs."""

    sha: str
    archive: Path
    settings: Mapping[str, str]
    tree: Tree


def compose(campaign: Campaign, base: Base, stack: Sequence[Plan]) -> Bundle:
    """The bundle of `base` with the plans of a stack, dependencies first. Writes nothing.

    Raises InputErrors with every problem of the stack: clashes, patches that are refused or do not apply, settings the code
    does not read or whose values it would refuse.
    """
    clashes = conflicts.in_stack(stack, patches_of(campaign, stack))
    problems = [_placed(campaign, clash) for clash in clashes if not clash.override]
    tree, patched = _patch(campaign, base, stack)
    problems += patched
    values = dict(base.settings)
    for plan in stack:
        for diff in plan.diffs:
            values |= diff.values if isinstance(diff, SetDiff) else {}
    if tree is not None:
        variables = base.variables(tree)
        for plan in stack:
            problems += settings.problems(campaign, base, variables, plan)
        if not problems and stack:
            problems += settings.contradictions(campaign, base, tree, stack[-1], values)
    if problems or tree is None:
        raise InputErrors(sorted(set(problems)))
    text = json.dumps(values, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    whole = tree.with_file(SETTINGS_FILE, text.encode())
    _worked_out[whole.sha256] = whole
    return Bundle(whole.sha256, _archive(campaign, whole.sha256), values, whole)


def build(campaign: Campaign, base: Base, stack: Sequence[Plan]) -> Bundle:
    """`compose`, and the archive on the disk. Raises InputErrors, OSError."""
    bundle = compose(campaign, base, stack)
    archive_of(campaign, bundle.sha)
    return bundle


def resolve(campaign: Campaign, plans: Mapping[str, Plan], plan_id: str) -> ResolvedPlan:
    """A plan ready to run: bundles worked out (not written), gates complete.

    Raises InputError for an unknown plan, InputErrors with every problem of its stack.
    """
    if plan_id not in plans:
        raise InputError(f"{plan_id}: no such plan{marks.did_you_mean(plan_id, plans)}")
    plan = plans[plan_id]
    base = bases.load(campaign, plan.base)
    order = stack_of(plans, plan_id)
    parent = plan.depends_on[-1] if plan.depends_on else plan.base
    own = compose(campaign, base, [plans[name] for name in order]).sha
    ground = compose(campaign, base, []).sha
    below = ground
    if plan.depends_on:
        below = compose(campaign, base, [plans[name] for name in stack_of(plans, parent)]).sha
    complete = tuple(gates.apply(gate, plan.gates.get(number, {})) for number, gate in sorted(campaign.gates.items()))
    frozen = {
        "bundle": own,
        "parent_bundle": below,
        "base_bundle": ground,
        "seeds": plan.seeds,
        "gates": [asdict(gate) for gate in complete],
        "rules": asdict(campaign.rules),
        "base": {"launch": base.launch, "launch_many": base.launch_many, "vars": base.vars, "artifact": base.artifact}
        | {"code": base.code, "score_label": base.score_label},
    }
    text = json.dumps(frozen, sort_keys=True, separators=(",", ":"))
    return ResolvedPlan(
        id=plan.id,
        title=plan.title,
        base=plan.base,
        bundle=own,
        parent=parent,
        parent_bundle=below,
        base_bundle=ground,
        stack=order,
        seeds=plan.seeds,
        gates=complete,
        digest=hashlib.sha256(text.encode()).hexdigest(),
    )


# --- bundles on the disk -------------------------------------------------------------------------------------------------
def archive_of(campaign: Campaign, sha: str) -> Path:
    """The archive of a bundle, written first if this process worked it out. Raises InputError if nobody knows it, OSError."""
    path = _archive(campaign, sha)
    if path.exists():
        tree_of(campaign, sha)  # damage is found here and not on a rented host
    else:
        if sha not in _worked_out:
            raise InputError(
                f"bundle {sha[:12]}: is neither in {campaign.relative(path.parent)} nor made by a current plan"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, pack(_worked_out[sha]))
    return path


def tree_of(campaign: Campaign, sha: str) -> Tree:
    """The files of a bundle, verified against its hash. Raises InputError when it is unknown or damaged."""
    if sha in _worked_out and not _archive(campaign, sha).exists():
        return _worked_out[sha]
    path = _archive(campaign, sha)
    place = campaign.relative(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{place}: can't be read: {error.strerror}") from None
    tree = unpack(content, place)
    if tree.sha256 != sha:
        raise InputError(
            f"{place}: holds other code than its name says (tree hash {tree.sha256[:12]}); delete it and check the disk"
        )
    return tree


def settings_of(campaign: Campaign, sha: str) -> dict[str, str]:
    """The settings frozen in a bundle. Raises InputError as `tree_of` does."""
    content = json.loads(tree_of(campaign, sha).files[SETTINGS_FILE].content)
    return {str(name): str(value) for name, value in content.items()}


def code_bytes_of(campaign: Campaign, sha: str, base: Base) -> int:
    """Counted code of a bundle, in bytes: the files that match the base's `code`. Raises InputError as `tree_of` does."""
    tree = tree_of(campaign, sha)
    paths = [path for path in tree.matching(base.code) if base.kind != "trainer" or counts(path)]
    return sum(len(tree.files[path].content) for path in paths)


def counts(path: str) -> bool:
    """Whether a file of a bundle counts as code: of the bundled trainer, what runs can import."""
    inside = PurePosixPath(path)
    if _of_trainer(inside):
        return contract.counts(inside.relative_to("trainer"))
    return inside.suffix in contract.CODE_SUFFIXES


def _of_trainer(path: PurePosixPath) -> bool:
    return len(path.parts) > 1 and path.parts[0] == "trainer"


def trainer_code_sha256(campaign: Campaign, sha: str) -> str:
    """The hash the bundled trainer reports of its own code (trainer.contract.code_sha256), for the code in a bundle."""
    files = {PurePosixPath(path): entry for path, entry in tree_of(campaign, sha).files.items()}
    digest = hashlib.sha256()
    for path in sorted(files):
        if _of_trainer(path) and contract.counts(path.relative_to("trainer")):
            inner = hashlib.sha256(files[path].content).hexdigest()
            digest.update(f"{path.relative_to('trainer')}\0{inner}\n".encode())
    return digest.hexdigest()


def _archive(campaign: Campaign, sha: str) -> Path:
    return campaign.bundles_folder / f"{sha}.tar.gz"


# --- patches of plans ----------------------------------------------------------------------------------------------------
def patches_of(campaign: Campaign, stack: Sequence[Plan]) -> dict[str, list[tuple[str, list[FilePatch]]]]:
    """The parsed patches of each plan; one that can't be parsed is left out here and reported when it is applied."""
    found: dict[str, list[tuple[str, list[FilePatch]]]] = {}
    for plan in stack:
        for diff in plan.diffs:
            if isinstance(diff, PatchDiff):
                try:
                    content, place = _patch_file(campaign, diff)
                    found.setdefault(plan.id, []).append((diff.path, patches.parse(content, place)))
                except InputErrors:
                    continue
    return found


def _patch(campaign: Campaign, base: Base, stack: Sequence[Plan]) -> tuple[Tree | None, list[Problem]]:
    """The base's tree with every patch of the stack; None and the problems when one of them stops."""
    tree = base.tree
    inside = "trainer/" if base.kind == "trainer" else ""
    for plan in stack:
        for diff in plan.diffs:
            if not isinstance(diff, PatchDiff):
                continue
            try:
                content, place = _patch_file(campaign, diff)
                tree = patches.apply(tree, content, place, base.protected, inside)
            except InputErrors as error:
                return None, error.problems
    return tree, []


def _patch_file(campaign: Campaign, diff: PatchDiff) -> tuple[bytes, str]:
    path = campaign.plans_folder / diff.path
    place = campaign.relative(path)
    try:
        return path.read_bytes(), place
    except OSError as error:
        raise InputErrors([Problem(place, 0, 0, f"can't be read: {error.strerror}")]) from None


def _placed(campaign: Campaign, clash: conflicts.Clash) -> Problem:
    return settings.place(campaign, f"plans/{clash.plan}.yaml", clash.where, clash.message)
