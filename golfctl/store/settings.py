"""Settings of a plan against the code that will read them: known names, allowed values, nothing that belongs to golfctl."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from golfctl.domain.plan import Plan, SetDiff
from golfctl.errors import InputErrors, Problem
from golfctl.store import marks
from golfctl.store.bases import LAUNCHER_VARS, Base
from golfctl.store.envvars import EnvVar
from golfctl.store.tree import Tree
from trainer import config

if TYPE_CHECKING:
    from golfctl.store.campaign import Campaign

_RULES = ("trainer/config.py", "trainer/options/")
"""The files that declare settings, and which of them go together."""
_OWNED = {
    "seed": "golfctl sets it for every run; write `seeds:`",
    "out": "the host sets it for every run",
    "data": "the host sets it: a plan does not choose the text it is judged on",
}


def problems(campaign: Campaign, base: Base, variables: Mapping[str, EnvVar], plan: Plan) -> list[Problem]:
    """What is wrong with the names and values a plan sets, in its diffs and in its gates."""
    found = []
    for where, label, values in _given(plan):
        for name, value in values.items():
            if message := complaint(base, variables, name, value):
                found.append(marked(campaign, plan.source, (*where, name), f"{label}.{name}", message))
    return found


def marked(campaign: Campaign, source: str, where: tuple[str | int, ...], label: str, message: str) -> Problem:
    """A complaint at its place: about a value (`NAME=value: ...`) at the value, about a name at the key."""
    about_value = f"{where[-1]}="
    is_key = not message.startswith(about_value)
    return place(campaign, source, where, message.removeprefix(about_value), key=is_key, label=label)


def _given(plan: Plan) -> Iterable[tuple[tuple[str | int, ...], str, Mapping[str, str]]]:
    for index, diff in enumerate(plan.diffs):
        if isinstance(diff, SetDiff):
            yield ("diffs", index, "set"), "set", diff.values
    for number, changes in plan.gates.items():
        env = changes.get("env")
        if isinstance(env, dict):
            yield ("gates", number, "env"), f"gates.{number}.env", env


def complaint(base: Base, variables: Mapping[str, EnvVar], name: str, value: str) -> str | None:
    """Why `name` can't be set to `value` on this base, None if it can."""
    roles = {variable: role for role, variable in base.vars.items()}
    if message := _OWNED.get(roles.get(name, "")):
        return message
    if name in LAUNCHER_VARS:
        return "the launcher sets it for every process"
    if name not in variables:
        hint = ""
        if close := config.nearest(name, dict.fromkeys(variables)):
            hint = f"; did you mean {close} ({variables[close].place})?"
        return f"{base.name} does not read this variable{hint}"
    return _value(name, value, variables[name].limits) if base.kind == "trainer" else None


def _value(name: str, value: str, limits: tuple[tuple[str, object], ...]) -> str | None:
    """The trainer's own check, with the limits its frozen (perhaps patched) code declares."""
    declared: dict[str, Any] = dict(limits)
    default = declared.pop("default", None)
    if not isinstance(default, bool | int | float | str):
        return None
    field = config.setting(name, default, "", source="", **declared)
    try:
        config.parse_value(field, value)
    except config.SettingsError as error:
        return str(error)
    return None


def contradictions(campaign: Campaign, base: Base, tree: Tree, plan: Plan, values: Mapping[str, str]) -> list[Problem]:
    """Settings that are fine alone and impossible together, by themselves and under each gate.

    Only for the bundled trainer, and only while the files that declare its settings are the installed ones: other code has
    other rules, and it is never run to find out.
    """
    own = {
        path: entry.content for path, entry in tree.files.items() if path.startswith(_RULES) and path.endswith(".py")
    }
    if base.kind != "trainer" or own != _installed_rules():
        return []
    found: dict[str, Problem] = {}
    for number in (None, *campaign.gates):
        gate = campaign.gates.get(number) if number else None
        changes = plan.gates.get(number, {}).get("env") if number else None
        env = {**(gate.env if gate else {}), **(changes if isinstance(changes, dict) else {})}
        try:
            config.from_values({**values, **env})
        except config.SettingsError as error:
            where = f" (at gate {number})" if number else ""
            for line in str(error).splitlines():
                # An impossible pair is one finding, also when every gate repeats it.
                found.setdefault(line, place(campaign, plan.source, ("diffs",), f"{line}{where}"))
    return list(found.values())


@lru_cache(maxsize=1)
def _installed_rules() -> dict[str, bytes]:
    from pathlib import Path

    top = Path(config.__file__).parents[1]
    names = {path.relative_to(top).as_posix(): path for path in (top / "trainer").rglob("*.py")}
    return {name: path.read_bytes() for name, path in names.items() if name.startswith(_RULES)}


def place(
    campaign: Campaign,
    source: str,
    where: Iterable[str | int],
    message: str,
    *,
    key: bool = False,
    label: str | None = None,
) -> Problem:
    """A finding at a path of a plan file. The file is read again: places are needed only when something is wrong."""
    try:
        document = marks.read((campaign.root / source).read_bytes(), source)
    except (OSError, InputErrors):
        return Problem(source, 0, 0, message)
    return document.problem(where, message, key=key, label=label)
