"""A rebased plan as its file: comments and layout stay where they can, the former text is kept under plans/old/."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from golfctl.domain.plan import Diff, PatchDiff, Plan, SetDiff
from golfctl.errors import InputErrors, Problem
from golfctl.store import marks
from golfctl.store.files import write_atomic
from golfctl.store.marks import one_line
from golfctl.store.planedit import CanNotEditError, Editor
from golfctl.store.planfile import read_plan
from golfctl.store.revise import OLD, diff_line, kept_name, scalar, top_blocks

if TYPE_CHECKING:
    from golfctl.store.campaign import Campaign
    from golfctl.store.rebase import Rebase

_AFTER_BASE = ("depends_on", "conflicts_with", "diffs", "fallback", "seeds", "gates")


def render(campaign: Campaign, rebase: Rebase) -> str:
    """The plan file's new text, which reads as `rebase.after`. Raises InputErrors for a layout that can't be edited."""
    content = (campaign.root / rebase.before.source).read_bytes()
    text = content.decode("utf-8-sig")
    for form in (_by_marks, _by_blocks):
        try:
            found = form(text, rebase, _comments(campaign, rebase))
        except (CanNotEditError, InputErrors):
            continue
        if _reads_as(campaign, found, rebase):
            return found
    message = f"its layout can't be edited safely; write `base: {rebase.after.base}` and its diffs by hand"
    raise InputErrors([Problem(rebase.before.source, 0, 0, message)])


def write(campaign: Campaign, rebase: Rebase) -> tuple[Path, Path]:
    """Write the plan and its patches. Returns (the plan file, where its former text is kept). Raises InputErrors, OSError."""
    text = render(campaign, rebase)
    path = campaign.root / rebase.before.source
    kept = path.parent / OLD / kept_name(path.parent / OLD, rebase.before.id)
    kept.parent.mkdir(exist_ok=True)
    write_atomic(kept, path.read_bytes())
    for name, content in rebase.patches.items():
        (campaign.plans_folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(campaign.plans_folder / name, content)
    write_atomic(path, text.encode())
    return path, kept


def _comments(campaign: Campaign, rebase: Rebase) -> list[str]:
    kept = kept_name(campaign.plans_folder / OLD, rebase.before.id)
    said = [f"# rebased from {rebase.before.base}; before: {OLD}/{kept}"]
    for item in rebase.left:
        why = "; ".join(f"{part.file}:{part.line} {part.reason}" for part in item.conflicts) or item.detail
        said.append(one_line(f"# left out: {item.where}: {item.what}: {why}"))
    return said


def _by_marks(text: str, rebase: Rebase, comments: list[str]) -> str:
    """Only the scalars that changed are replaced, only the keys and items that went are cut out."""
    document = marks.read(text.encode(), rebase.before.source)
    editor = Editor(text, document)
    _head(editor, rebase, comments)
    for key, diffs in (("diffs", rebase.before.diffs), ("fallback", rebase.before.fallback)):
        if key not in document.spot.kids:
            continue
        is_list = document.spot.kids[key][2].is_list
        for index, diff in enumerate(diffs):
            _edit_diff(editor, (key, index) if is_list else (key,), diff, rebase.moved[key].get(index))
    return editor.result()


def _edit_diff(editor: Editor, path: tuple[str | int, ...], before: Diff, after: Diff | None) -> None:
    if after is None:
        index = path[-1]
        if not isinstance(index, int):
            raise CanNotEditError
        editor.remove_item(path[:-1], index)
    elif isinstance(before, PatchDiff) and isinstance(after, PatchDiff) and before != after:
        editor.replace((*path, "patch"), scalar(after.path))
    elif isinstance(before, SetDiff) and isinstance(after, SetDiff) and before != after:
        editor.remove_keys((*path, "set"), [name for name in before.values if name not in after.values])


def _head(editor: Editor, rebase: Rebase, comments: list[str]) -> None:
    """The base's name, the comments above it, and the settings of gates."""
    kids = editor.document.spot.kids
    lines = list(comments)
    if "base" in kids:
        place: str | None = "base"
        editor.replace(("base",), scalar(rebase.after.base))
    else:
        place = next((key for key in _AFTER_BASE if key in kids), None)
        lines.append(f"base: {scalar(rebase.after.base)}")
    editor.insert_line(place, "\n".join(lines))
    written = kids["gates"][2].kids if "gates" in kids else {}
    for number, changes in rebase.before.gates.items():
        before, after = _env(changes), _env(rebase.after.gates[number])
        if gone := [name for name in before if name not in after]:
            editor.remove_keys(("gates", number if number in written else str(number), "env"), gone)


def _env(changes: Mapping[str, object]) -> Mapping[str, object]:
    env = changes.get("env")
    return env if isinstance(env, dict) else {}


def _by_blocks(text: str, rebase: Rebase, comments: list[str]) -> str:
    """The whole blocks `diffs` and `fallback` are written anew."""
    editor = Editor(text, marks.read(text.encode(), rebase.before.source))
    _head(editor, rebase, comments)
    text = editor.result()
    blocks = top_blocks(text.splitlines(keepends=True), marks.read(text.encode(), rebase.before.source))
    lines = text.splitlines(keepends=True)
    for key, (first, end) in sorted(blocks.items(), key=lambda item: item[1], reverse=True):
        diffs = rebase.after.diffs if key == "diffs" else rebase.after.fallback
        lines[first:end] = [f"{key}:\n", *(f"  - {diff_line(diff)}\n" for diff in diffs)] if diffs else [f"{key}: []\n"]
    return "".join(lines)


def _reads_as(campaign: Campaign, text: str, rebase: Rebase) -> bool:
    """Whether the text is the plan that is meant; its patches need not be there yet."""
    with tempfile.TemporaryDirectory(prefix="golfctl-rebase-") as name:
        for diff in (*rebase.after.diffs, *rebase.after.fallback):
            if isinstance(diff, PatchDiff):
                place = Path(name) / diff.path
                place.parent.mkdir(parents=True, exist_ok=True)
                place.touch()
        context = replace(campaign.context(), folder=Path(name))
        try:
            plan: Plan = read_plan(text.encode(), rebase.before.source, context)[0]
        except InputErrors:
            return False
    return plan == rebase.after
