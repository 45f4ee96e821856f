"""Plan files: one YAML file in, one Plan out, with all problems of the file at once."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from golfctl.domain.gate import Gate
from golfctl.domain.plan import Diff, PatchDiff, Plan, SetDiff
from golfctl.errors import InputErrors, Problem
from golfctl.store import gates, marks
from golfctl.store.marks import Document, did_you_mean
from golfctl.store.schema import ID, ID_RULE, DiffFile, PlanFile, gate_number
from golfctl.store.validate import validate

SETTINGS = (("diffs", "*", "set"), ("fallback", "set"), ("fallback", "*", "set"), ("gates", "*", "env"))
PATCHES = "patches"
RETIRED = "retired"
"""Folder below plans/ that keeps retired plans; the first line of each says when and why."""
_RETIRED_LINE = re.compile(r"\ufeff?# retired (?P<when>\S+): (?P<why>.*)")


@dataclass(frozen=True)
class Context:
    """What of a campaign a plan file is checked against.

    folder: the plans folder, for patches. bases: names of all bases. ids: all plan ids, also of broken files.
    """

    folder: Path
    bases: Collection[str]
    ids: Collection[str]
    base: str
    seeds: tuple[int, ...]
    gates: Mapping[int, Gate]


def read_plan(content: bytes, file: str, context: Context) -> tuple[Plan, Document]:
    """The plan in `content`; `file` is its path for messages and names the id. Raises InputErrors with every problem found."""
    document = marks.read(content, file)
    model, problems = validate(document, PlanFile, SETTINGS)
    problems += _against_campaign(document, context)
    if model is None or problems:
        raise InputErrors(sorted(set(problems)))
    plan = _plan(model, file, context)
    problems += _seeds_for_gates(document, plan, context)
    if problems:
        raise InputErrors(problems)
    return plan, document


def _plan(model: PlanFile, file: str, context: Context) -> Plan:
    spans = model.expect.model_dump(exclude_none=True)
    changes = {number: gates.differences(gate.model_dump(exclude_none=True)) for number, gate in model.gates.items()}
    return Plan(
        id=model.id,
        title=model.title,
        hypothesis=model.hypothesis.strip(),
        base=model.base or context.base,
        expect={name: (float(low), float(high)) for name, (low, high) in spans.items()},
        risk=model.risk,
        tags=tuple(model.tags),
        depends_on=tuple(model.depends_on),
        conflicts_with=tuple(model.conflicts_with),
        diffs=tuple(_diff(item) for item in model.diffs),
        fallback=tuple(_diff(item) for item in model.fallback),
        seeds=tuple(model.seeds or context.seeds),
        gates=changes,
        not_a_repeat=model.not_a_repeat.strip(),
        source=file,
    )


def _diff(item: DiffFile) -> Diff:
    return PatchDiff(item.patch) if item.patch is not None else SetDiff(dict(item.set or {}))


def _against_campaign(document: Document, context: Context) -> list[Problem]:
    """What the file names outside itself. Works on raw values, so that it speaks up even if other keys are broken."""
    raw, found = document.value, []
    stem = Path(document.file).name.removesuffix(".yaml")
    if not ID.fullmatch(stem):
        found.append(Problem(document.file, 0, 0, f"file name: {stem!r} {ID_RULE}"))
    if isinstance(raw.get("id"), str) and raw["id"] != stem:
        found.append(
            document.problem(["id"], f"{raw['id']!r} is not the file's name; write {stem!r} or rename the file")
        )
    if stem in context.bases:
        found.append(document.problem(["id"], f"{stem!r} is the name of a base; plans and bases share one name space"))
    base = raw.get("base")
    if isinstance(base, str) and base not in context.bases:
        found.append(document.problem(["base"], f"unknown base {base!r}{did_you_mean(base, context.bases)}"))
    elif base is None and not context.base:
        found.append(document.problem(["base"], "is missing, and golf.yaml names none"))
    for key in ("depends_on", "conflicts_with"):
        found += _names(document, key, stem, context)
    for path, patch in _patches(raw):
        if problem := _missing_patch(patch, context.folder):
            found.append(document.problem(path, problem))
    if isinstance(raw.get("gates"), dict):
        for number in raw["gates"]:
            key = gate_number(number)
            if isinstance(key, int) and key not in context.gates:
                known = ", ".join(map(str, sorted(context.gates)))
                found.append(document.problem(["gates", number], f"unknown gate; golf.yaml has {known}", key=True))
    return found


def _names(document: Document, key: str, own: str, context: Context) -> Iterator[Problem]:
    listed = document.value.get(key)
    for index, name in enumerate(listed if isinstance(listed, list) else []):
        if not isinstance(name, str):
            continue
        if name == own and key == "conflicts_with":
            yield document.problem([key, index], "a plan can't conflict with itself")
        elif name in listed[:index]:
            yield document.problem([key, index], f"{name!r} stands twice")
        elif name not in context.ids and (known := retirement(context.folder, name)):
            # What can't be stacked with a plan that was given up is still true.
            if key == "depends_on":
                yield document.problem([key, index], f"{name} was retired: {known[1]}")
        elif name not in context.ids:
            others = [other for other in context.ids if other != own]
            yield document.problem([key, index], f"unknown plan {name!r}{did_you_mean(name, others)}")


def retirement(folder: Path, plan_id: str) -> tuple[str, str] | None:
    """(when, why) a plan was retired, as its file below the plans folder says; None if there is no such file."""
    if not ID.fullmatch(plan_id):
        return None
    try:
        text = (folder / RETIRED / f"{plan_id}.yaml").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    match = _RETIRED_LINE.match(text)
    return (match["when"], match["why"].strip()) if match else ("", "its file does not say why")


def _patches(raw: Mapping[str, Any]) -> Iterator[tuple[list[str | int], str]]:
    for key in ("diffs", "fallback"):
        listed = raw.get(key)
        items: list[tuple[list[str | int], Any]] = [([], listed)] if isinstance(listed, dict) else []
        if isinstance(listed, list):
            items = [([index], item) for index, item in enumerate(listed)]
        for where, item in items:
            if isinstance(item, dict) and isinstance(item.get("patch"), str):
                yield [key, *where, "patch"], item["patch"]


def _missing_patch(name: str, folder: Path) -> str | None:
    parts = name.split("/")
    if not name or name.startswith("/") or ".." in parts or "\\" in name or not name.isprintable():
        return f"{name!r} is no path inside the plans folder"
    path = folder / name
    try:
        if not path.is_file():
            near = [item.relative_to(folder).as_posix() for item in (folder / PATCHES).glob("*.patch")]
            return f"{name!r} does not exist in {folder.name}/{did_you_mean(name, near)}"
        if not path.resolve().is_relative_to(folder.resolve()):
            return f"{name!r} leads out of the plans folder"
    except OSError as error:
        return f"{name!r} can't be read: {error.strerror}"
    return None


def _seeds_for_gates(document: Document, plan: Plan, context: Context) -> Iterator[Problem]:
    for number, gate in sorted(context.gates.items()):
        needed = gates.apply(gate, plan.gates.get(number, {})).seeds
        if needed > len(plan.seeds):
            where: list[str | int] = ["gates", number, "seeds"] if "seeds" in plan.gates.get(number, {}) else ["seeds"]
            have = f"{len(plan.seeds)} {'is' if len(plan.seeds) == 1 else 'are'} declared"
            yield document.problem(where, f"gate {number} needs {needed} seeds, {have}")
