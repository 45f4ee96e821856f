"""Writing plan files: a new one, and a plan's fallback as its new revision. What a person wrote is kept."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from golfctl.domain.plan import Diff, PatchDiff, Plan
from golfctl.errors import InputError, InputErrors, Problem
from golfctl.store import marks
from golfctl.store.files import write_atomic
from golfctl.store.marks import Document, did_you_mean
from golfctl.store.planfile import read_plan, retirement
from golfctl.store.schema import ID, ID_RULE

if TYPE_CHECKING:
    from golfctl.store.campaign import Campaign

OLD = "old"
_SCHEMA = "plan.schema.json"
_TEMPLATE = """\
{schema}id: {id}
title: {title}
hypothesis: |
  Why it should work, and what one would see if it does.
# expect: {{score: [-0.02, -0.01], bytes: 0}}  # change against the parent: a number or a range
risk: low
tags: []
base: {base}
depends_on: {depends}
conflicts_with: []
diffs: []
#   - set: {{NAME: value}}  # settings of the base; the check knows their names
#   - patch: patches/ID.patch  # made with `git diff`, relative to this folder
# fallback:  # what `golfctl plan fallback` makes the next revision
#   set: {{NAME: value}}
# seeds: [1337, 42, 2025]  # without it those of golf.yaml
# gates:  # only what differs from golf.yaml
#   1: {{require: {{step_avg_ms: "<= 130"}}, overriding: true}}
# not_a_repeat: ""  # if it resembles a recorded failure: what is different this time
"""
_SAFE_VALUE = re.compile(r"-?[0-9]+(\.[0-9]+)?|[A-Za-z][A-Za-z0-9_./-]*")
_WORDS = re.compile(r"(?i)y|n|yes|no|on|off|true|false|null")


def new_plan(campaign: Campaign, plan_id: str, title: str, base: str | None, depends_on: Iterable[str]) -> Path:
    """Write plans/ID.yaml from a commented template that passes the check. Raises InputError(s): a wrong or taken id, an
    unknown base or dependency."""
    if not ID.fullmatch(plan_id):
        raise InputError(f"plan id {plan_id!r}: {ID_RULE}")
    needed = list(depends_on)
    if not title.isprintable():
        raise InputError(f"--title {title!r}: holds characters that can't be printed")
    path = campaign.plans_folder / f"{plan_id}.yaml"
    if path.exists():
        raise InputError(f"{campaign.relative(path)}: exists; choose another id")
    if known := retirement(campaign.plans_folder, plan_id):
        raise InputError(f"{plan_id}: was retired ({known[1]}), and its results stand under this id; choose another id")
    plans, _ = campaign.load_plans()
    for name in needed:
        if name not in plans:
            raise InputError(f"--depends-on {name}: no such plan without problems{did_you_mean(name, plans)}")
    base = base or (plans[needed[0]].base if needed else campaign.base_name)
    if base not in campaign.bases:
        said = (
            f"--base {base}: unknown{did_you_mean(base, campaign.bases)}"
            if base
            else "--base: golf.yaml names none, say which"
        )
        raise InputError(said)
    has_schema = (campaign.plans_folder / _SCHEMA).is_file()
    text = _TEMPLATE.format(
        schema=f"# yaml-language-server: $schema={_SCHEMA}\n" if has_schema else "",
        id=scalar(plan_id),
        title=json.dumps(title, ensure_ascii=False),
        base=scalar(base),
        depends=json.dumps(needed),
    )
    context = campaign.context()
    plan, document = read_plan(text.encode(), campaign.relative(path), replace(context, ids=[*context.ids, plan_id]))
    wrong = [name for name in needed if plans[name].base != plan.base]
    if wrong:
        message = f"{wrong[0]} builds on base {plans[wrong[0]].base!r}, not on {base!r}; a stack has one base"
        raise InputErrors([document.problem(["depends_on"], message)])
    campaign.plans_folder.mkdir(exist_ok=True)
    write_atomic(path, text.encode())
    return path


def use_fallback(campaign: Campaign, plan_id: str) -> tuple[Path, Path]:
    """Make a plan's fallback its diffs. Returns (the plan file, where its former text is kept).

    Raises InputError(s): no such plan, no fallback, or a file this can't edit without touching other lines.
    """
    path = campaign.plans_folder / f"{plan_id}.yaml"
    if not path.is_file():
        raise InputError(f"{plan_id}: no such plan{did_you_mean(plan_id, campaign.context().ids)}")
    file = campaign.relative(path)
    content = path.read_bytes()
    plan, document = read_plan(content, file, campaign.context())
    if not plan.fallback:
        raise InputError(f"{file}: declares no `fallback`; write one, or edit its diffs")
    kept = path.parent / OLD / kept_name(path.parent / OLD, plan_id)
    text = _with_fallback(content.decode("utf-8-sig"), document, plan, f"{OLD}/{kept.name}")
    try:
        after, _ = read_plan(text.encode(), file, campaign.context())
    except InputErrors:
        after = None
    if after != replace(plan, diffs=plan.fallback, fallback=()):
        message = "its layout can't be edited safely; move `fallback` into `diffs` by hand"
        raise InputErrors([document.problem(["fallback"], message, key=True)])
    kept.parent.mkdir(exist_ok=True)
    write_atomic(kept, content)
    write_atomic(path, text.encode())
    return path, kept


def kept_name(folder: Path, plan_id: str) -> str:
    """The next free name for a plan's former text in `folder`."""
    numbers = [path.name.removeprefix(f"{plan_id}.r").removesuffix(".yaml") for path in folder.glob("*.yaml")]
    return f"{plan_id}.r{max((int(number) for number in numbers if number.isdecimal()), default=0) + 1}.yaml"


def _with_fallback(text: str, document: Document, plan: Plan, kept: str) -> str:
    """The file with the lines of `diffs` replaced and those of `fallback` removed; every other line stays as it is."""
    lines = text.splitlines(keepends=True)
    blocks = top_blocks(lines, document)
    written = [f"# the fallback of {kept}\n", "diffs:\n", *(f"  - {diff_line(diff)}\n" for diff in plan.fallback)]
    result: list[str] = []
    index = 0
    placed = False
    while index < len(lines):
        block = next((span for span in blocks.values() if span[0] == index), None)
        if block is None:
            result.append(lines[index])
            index += 1
            continue
        # Without `diffs` the fallback's own place serves.
        if block == blocks.get("diffs", blocks["fallback"]):
            result += written
            placed = True
        index = block[1]
    if not placed:
        message = "can't be found as a block of its own; move `fallback` into `diffs` by hand"
        raise InputErrors([document.problem(["fallback"], message, key=True)])
    return "".join(result)


def top_blocks(lines: list[str], document: Document) -> dict[str, tuple[int, int]]:
    """First line and end (from 0, half open) of the top-level blocks `diffs` and `fallback`, without the comments that follow.

    Raises InputErrors for one that is no block at the left margin.
    """
    starts = sorted(kid[0] - 1 for kid in document.spot.kids.values())
    found: dict[str, tuple[int, int]] = {}
    for key in ("diffs", "fallback"):
        if key not in document.spot.kids:
            continue
        line, column, _ = document.spot.kids[key]
        if column != 1:
            raise InputErrors(
                [Problem(document.file, line, column, f"{key}: is not a block at the left margin; edit by hand")]
            )
        end = next((start for start in starts if start > line - 1), len(lines))
        while end > line and (not lines[end - 1].strip() or lines[end - 1].startswith("#")):
            end -= 1
        found[key] = (line - 1, end)
    return found


def diff_line(diff: Diff) -> str:
    """One diff as a line of YAML, without the list's mark."""
    if isinstance(diff, PatchDiff):
        return f"patch: {scalar(diff.path)}"
    return "set: {" + ", ".join(f"{name}: {scalar(value)}" for name, value in diff.values.items()) + "}"


def scalar(text: str) -> str:
    """A text as YAML that every reader takes for the same; numbers stay bare, because that is how a person writes settings."""
    bare = _SAFE_VALUE.fullmatch(text) and not _WORDS.fullmatch(text) and marks.plain(text) is not None
    return text if bare else json.dumps(text, ensure_ascii=False)
