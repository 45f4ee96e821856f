"""Carrying a change to other ground: a three-way merge of trees, file by file with `git merge-file`.

`before` and `after` are the code without and with the change, `ground` is what it is carried to.
"""

from __future__ import annotations

import difflib
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from golfctl.errors import HostError
from golfctl.store.patches import git_environment
from golfctl.store.tree import Entry, Tree

_MARKS = 61
"""Length of conflict marks: no script holds a line of so many."""


@dataclass(frozen=True)
class Conflict:
    """A part of the change that finds other code. line: in the file of the ground, from 1; 0: the file as a whole.

    here: lines of the ground, wanted: what the change would put there.
    """

    file: str
    line: int
    reason: str
    here: tuple[str, ...] = ()
    wanted: tuple[str, ...] = ()


@dataclass(frozen=True)
class Merged:
    """The ground with the change, without those parts of it that conflict."""

    tree: Tree
    conflicts: tuple[Conflict, ...]


def carry(before: Tree, after: Tree, ground: Tree, names: Mapping[str, str]) -> Merged:
    """The change `before` to `after`, made to `ground`. names: path in `before` to that of the same file in `ground`, where it
    is called otherwise. Raises HostError without git."""
    files = dict(ground.files)
    conflicts: list[Conflict] = []
    for path in after.changed(before):
        target = names.get(path, path)
        old, new, here = before.files.get(path), after.files.get(path), files.get(target)
        if new is None:
            if here is not None and old is not None and here.content != old.content:
                conflicts.append(Conflict(target, 0, "the plan deletes this file, and it is another here"))
            else:
                files.pop(target, None)
        elif old is None and here is not None and here.content != new.content:
            conflicts.append(Conflict(target, 0, "the plan adds this file, and there is another of this name here"))
        elif old is None:
            files[target] = new
        elif here is None:
            conflicts.append(Conflict(target, 0, "the plan changes this file, and it is not here"))
        else:
            content, found = _merge(target, here.content, old.content, new.content)
            files[target] = Entry(content, here.executable)
            conflicts += found
    return Merged(Tree(files), tuple(conflicts))


def _merge(path: str, here: bytes, old: bytes, new: bytes) -> tuple[bytes, list[Conflict]]:
    with tempfile.TemporaryDirectory(prefix="golfctl-merge-") as name:
        folder = Path(name).resolve()
        for part, content in (("here", here), ("old", old), ("new", new)):
            (folder / part).write_bytes(content)
        command = ["git", "merge-file", "-p", "--diff3", f"--marker-size={_MARKS}", "here", "old", "new"]
        environment = git_environment(folder)
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, env=environment, check=False)
        except FileNotFoundError:
            raise HostError(
                "git: not found; plans are rebased with `git merge-file`, install git 2.20 or newer"
            ) from None
    if done.returncode > 127:  # below that it is the number of conflicts
        return here, [Conflict(path, 0, "can't be merged: " + " ".join(done.stderr.decode("utf-8", "replace").split()))]
    return _without_conflicts(path, here, done.stdout)


def _without_conflicts(path: str, ground: bytes, merged: bytes) -> tuple[bytes, list[Conflict]]:
    """The merged file with the ground's side of each conflict, and the conflicts."""
    kept: list[bytes] = []
    found: list[tuple[int, list[bytes], list[bytes]]] = []
    sides: list[list[bytes]] = []
    for line in lines_of(merged):
        mark = line[:1] if line.startswith(line[:1] * _MARKS) else b""
        if mark and mark == b"<|=>"[len(sides) : len(sides) + 1]:
            sides.append([])
        else:
            (sides[-1] if sides else kept).append(line)
        if len(sides) == 4:
            _settle(kept, found, *sides[:3])
            sides = []
    places = _places(ground, kept, [index for index, _, _ in found]) if found else []
    conflicts = [
        Conflict(path, line, "both changed these lines", _text(here), _text(wanted))
        for line, (_, here, wanted) in zip(places, found, strict=True)
    ]
    return b"".join(kept), conflicts


def _settle(
    kept: list[bytes],
    found: list[tuple[int, list[bytes], list[bytes]]],
    here: list[bytes],
    old: list[bytes],
    wanted: list[bytes],
) -> None:
    """One conflict of git's. Scripts list their settings one a line, and neighbours are no conflict: where both sides replaced
    line by line, only lines that both changed to different texts are one."""
    if not len(here) == len(old) == len(wanted):
        found.append((len(kept), here, wanted))
        kept += here
        return
    open_at: int | None = None
    for one, before, two in zip(here, old, wanted, strict=True):
        clash = before not in (one, two) and one != two
        if clash and open_at == len(kept):
            found[-1][1].append(one)
            found[-1][2].append(two)
        elif clash:
            found.append((len(kept), [one], [two]))
        kept.append(two if one == before else one)
        open_at = len(kept) if clash else None


def _places(ground: bytes, kept: list[bytes], indices: list[int]) -> list[int]:
    """Lines of the ground (from 1) at which these lines of `kept` (from 0), the ground with what could be carried, stand."""
    blocks = difflib.SequenceMatcher(None, lines_of(ground), kept, autojunk=False).get_matching_blocks()
    found = []
    for index in indices:
        block = next((item for item in blocks if item.b + item.size > index or not item.size), blocks[-1])
        found.append(block.a + max(0, index - block.b) + 1)
    return found


def lines_of(content: bytes) -> list[bytes]:
    """Lines with their ends, as diff and git count them: only a line feed ends one."""
    parts = content.split(b"\n")
    return [part + b"\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])


def _text(lines: list[bytes]) -> tuple[str, ...]:
    return tuple(line.decode("utf-8", "replace").rstrip("\r\n") for line in lines)
