"""What differs between two bases: how they are launched and judged, what they set, what they read, and their code."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from golfctl.store.bases import Base
from golfctl.store.tree import Tree

_FIELDS = ("kind", "launch", "launch_many", "vars", "artifact", "code", "score_label", "protected", "env_calls", "env")


@dataclass(frozen=True)
class Change:
    """One thing with another value; None: that side has none. Places are file:line, empty where there is none."""

    name: str
    before: str | None
    after: str | None
    before_place: str = ""
    after_place: str = ""


@dataclass(frozen=True)
class FileChange:
    """Lines added to and removed from a file. `before` and `after` are its names; None: it is not there."""

    before: str | None
    after: str | None
    added: int
    removed: int
    text: str


@dataclass(frozen=True)
class Difference:
    """Everything that differs between two bases."""

    fields: tuple[Change, ...]
    settings: tuple[Change, ...]
    variables: tuple[Change, ...]
    files: tuple[FileChange, ...]

    @property
    def empty(self) -> bool:
        """Whether the two are the same but for their names."""
        return not (self.fields or self.settings or self.variables or self.files)


def compare(one: Base, two: Base) -> Difference:
    """From base `one` to base `two`. Raises InputError if the code of one can't be parsed."""
    fields = [
        Change(name, _said(before), _said(after))
        for name in _FIELDS
        if (before := getattr(one, name)) != (after := getattr(two, name))
    ]
    return Difference(tuple(fields), _mapping(one.settings, two.settings), _variables(one, two), _files(one, two))


def counterparts(one: Base, two: Base) -> dict[str, str]:
    """Path in `one` to the path of the same file in `two`. A foreign script is the same file whatever it is called."""
    same = {path: path for path in one.tree.files if path in two.tree.files}
    if one.kind == two.kind == "script" and len(one.tree.files) == len(two.tree.files) == 1:
        same = {next(iter(one.tree.files)): next(iter(two.tree.files))}
    return same


def unified(before: bytes, after: bytes, before_name: str | None, after_name: str | None) -> str:
    """A unified diff with the prefixes that git uses; empty for equal content. A missing file is /dev/null."""
    lines = difflib.unified_diff(
        _lines(before),
        _lines(after),
        f"a/{before_name}" if before_name else "/dev/null",
        f"b/{after_name}" if after_name else "/dev/null",
    )
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def _lines(content: bytes) -> list[str]:
    # Not splitlines: a form feed inside a line ends no line of a patch.
    text = content.decode("utf-8", "surrogateescape")
    parts = text.split("\n")
    return [f"{part}\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])


def _said(value: object) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{key}={item}" for key, item in value.items())
    return str(value) if isinstance(value, str) else " ".join(map(str, value))  # type: ignore[call-overload]  # a sequence


def _mapping(one: Mapping[str, str], two: Mapping[str, str]) -> tuple[Change, ...]:
    names = sorted({**one, **two})
    return tuple(Change(name, one.get(name), two.get(name)) for name in names if one.get(name) != two.get(name))


def _variables(one: Base, two: Base) -> tuple[Change, ...]:
    before, after = one.variables(one.tree), two.variables(two.tree)
    found = []
    for name in sorted({**before, **after}):
        old, new = before.get(name), after.get(name)
        if old and new and old.default == new.default:
            continue
        found.append(
            Change(
                name,
                (old.default or "no default") if old else None,
                (new.default or "no default") if new else None,
                old.place if old else "",
                new.place if new else "",
            )
        )
    return tuple(found)


def _files(one: Base, two: Base) -> tuple[FileChange, ...]:
    pairs: list[tuple[str | None, str | None]] = []
    same = counterparts(one, two)
    pairs += same.items()
    pairs += [(path, None) for path in one.tree.files if path not in same]
    pairs += [(None, path) for path in two.tree.files if path not in same.values()]
    found = []
    for before, after in sorted(pairs, key=lambda pair: pair[1] or pair[0] or ""):
        old, new = _content(one.tree, before), _content(two.tree, after)
        if old == new and before == after:
            continue
        text = unified(old, new, before, after)
        body = text.splitlines()[2:]
        added = sum(line.startswith("+") for line in body)
        removed = sum(line.startswith("-") for line in body)
        found.append(FileChange(before, after, added, removed, text))
    return tuple(found)


def _content(tree: Tree, path: str | None) -> bytes:
    return tree.files[path].content if path is not None else b""
