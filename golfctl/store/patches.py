"""Unified diffs: what one touches, what it may not touch, and applying it the way `git apply` does."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path

from golfctl.errors import HostError, InputErrors, Problem
from golfctl.store.tree import Entry, Tree, read_folder, safe_path, write_folder

MAX_BYTES = 4_000_000
SETTINGS_FILE = "settings.json"

_HUNK = re.compile(r"@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@")
_FAILED = re.compile(r"error: patch failed: (.+):(\d+)$", re.MULTILINE)
_CORRUPT = re.compile(
    r"(?:corrupt patch|patch fragment without header|patch with only garbage|garbage).*?at line (\d+)"
)
_FILE_ERROR = re.compile(r"error: (.+?): (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Hunk:
    """One `@@` block. `line`: where it stands in the patch (from 1).

    removed, added: half-open ranges of lines, in old and in new coordinates (from 1), from the first to the last changed line; a
    pure insertion has an empty `removed` range at the line it goes before. offset: lines the file grows by.
    """

    line: int
    old_start: int
    removed: tuple[int, int]
    added: tuple[int, int]
    offset: int


@dataclass(frozen=True)
class FilePatch:
    """What a patch does to one file. old is None for a new file, new for a deleted one; paths without a/ and b/."""

    line: int
    old: str | None
    new: str | None
    hunks: tuple[Hunk, ...]

    @property
    def paths(self) -> set[str]:
        """The names it mentions."""
        return {path for path in (self.old, self.new) if path is not None}


def parse(content: bytes, file: str) -> list[FilePatch]:
    """The files and hunks of a patch. Raises InputErrors for what no plan's patch may do: binary content, links, changes of mode,
    renames, quoted names, paths that leave the folder; and for a text that is no unified diff."""
    if len(content) > MAX_BYTES:
        raise InputErrors([Problem(file, 0, 0, f"has {len(content)} bytes; a patch has at most {MAX_BYTES}")])
    try:
        lines = content.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputErrors([Problem(file, line, 1, "not UTF-8: a plan's patch is text")]) from None
    parser = _Parser(lines, file)
    found = parser.run()
    if not found and not parser.problems:
        parser.problems.append(Problem(file, 0, 0, "holds no hunk: it must be a unified diff (`git diff`, `diff -u`)"))
    if parser.problems:
        raise InputErrors(parser.problems)
    return found


class _Parser:
    def __init__(self, lines: list[str], file: str) -> None:
        self.lines, self.file = lines, file
        self.problems: list[Problem] = []
        self.at = 0

    def run(self) -> list[FilePatch]:
        found = []
        while self.at < len(self.lines):
            line = self.lines[self.at]
            if line.startswith("--- ") and self.at + 1 < len(self.lines) and self.lines[self.at + 1].startswith("+++ "):
                found.append(self._file())
                continue
            self._header(line)
            self.at += 1
        return found

    def _header(self, line: str) -> None:
        refused = {
            "GIT binary patch": "binary content",
            "Binary files ": "binary content",
            "rename from ": "a rename: write it as a deletion and a new file",
            "copy from ": "a copy: write it as a new file",
            "old mode ": "a change of file mode",
        }
        for start, what in refused.items():
            if line.startswith(start):
                self._refuse(self.at, f"{what}; a plan's patch changes text only")
        if line.startswith(("new file mode ", "deleted file mode ")) and not line.endswith(" 100644"):
            what = {"120000": "a symbolic link", "160000": "a submodule"}.get(
                line.rsplit(maxsplit=1)[-1], "a special file mode"
            )
            self._refuse(self.at, f"{what}; a plan's patch holds plain files (mode 100644)")
        if line.startswith("diff --git ") and '"' in line:
            self._refuse(self.at, "a quoted file name; use plain names")

    def _refuse(self, index: int, message: str) -> None:
        self.problems.append(Problem(self.file, index + 1, 1, f"refused: {message}"))

    def _file(self) -> FilePatch:
        start = self.at
        old, new = self._name(start, "a/"), self._name(start + 1, "b/")
        self.at += 2
        hunks: list[Hunk] = []
        while self.at < len(self.lines) and (head := _HUNK.match(self.lines[self.at])):
            hunks.append(self._hunk(head))
        if old and new and old != new:
            self._refuse(start, f"a rename from {old} to {new}; write it as a deletion and a new file")
        if not hunks:
            self.problems.append(Problem(self.file, start + 1, 1, "a file without a hunk (`@@ -1,3 +1,4 @@`)"))
        return FilePatch(start + 1, old, new, tuple(hunks))

    def _name(self, index: int, prefix: str) -> str | None:
        name = self.lines[index][4:].split("\t")[0].rstrip("\r")
        if name == "/dev/null":
            return None
        if name.startswith('"'):
            self._refuse(index, "a quoted file name; use plain names")
        elif not name.startswith(prefix):
            self._refuse(index, f"path {name!r} does not begin with {prefix}; make the patch with `git diff`")
        name = name.removeprefix(prefix)
        if not safe_path(name):
            self._refuse(index, f"path {name!r} leads out of the bundle")
        return name

    def _hunk(self, head: re.Match[str]) -> Hunk:
        line = self.at + 1
        old_start, new_start = int(head[1]), int(head[3])
        old_left, new_left = int(head[2] or 1), int(head[4] or 1)
        offset = new_left - old_left
        # A side of length 0 names the line before; every other start is the first line itself.
        old_at, new_at = old_start + (old_left == 0), new_start + (new_left == 0)
        first: tuple[int, int] | None = None
        last = (old_at, new_at)
        self.at += 1
        while (old_left or new_left) and self.at < len(self.lines):
            mark = self.lines[self.at][:1] or " "  # editors strip the blank of an empty context line; git accepts that
            if mark not in {" ", "-", "+", "\\"}:
                break
            if mark != "\\":
                before = (old_at, new_at)
                old_step, new_step = mark != "+", mark != "-"
                old_at, new_at = old_at + old_step, new_at + new_step
                old_left, new_left = old_left - old_step, new_left - new_step
                if mark != " ":
                    first, last = first or before, (old_at, new_at)
            self.at += 1
        if old_left or new_left or first is None:
            self.problems.append(Problem(self.file, line, 1, "a hunk whose lines do not add up to its header"))
            return Hunk(line, old_start, (old_start, old_start), (new_start, new_start), 0)
        return Hunk(line, old_start, (first[0], last[0]), (first[1], last[1]), offset)


def guard(patches: Sequence[FilePatch], file: str, protected: Sequence[str], inside: str) -> list[Problem]:
    """What a patch must not touch: the judge's files, golfctl's settings file, anything not below `inside` ("" is all)."""
    found = []
    for item in patches:
        for path in sorted(item.paths):
            if message := forbidden(path, protected, inside):
                found.append(Problem(file, item.line, 1, f"refused: {message}"))
    return found


def forbidden(path: str, protected: Sequence[str], inside: str) -> str | None:
    """Why no patch may change this path, None if it may. Case is ignored: some disks do."""
    folded = path.casefold()
    if any(fnmatchcase(folded, pattern.casefold()) for pattern in protected):
        return f"{path} belongs to the judge, and the judge is not the judged"
    if folded == SETTINGS_FILE:
        return f"{path} is written by golfctl; change settings with `set`"
    if inside and not path.startswith(inside):
        return f"{path} lies outside of {inside}, the code of this base"
    return None


@lru_cache(maxsize=128)
def apply(tree: Tree, content: bytes, file: str, protected: tuple[str, ...], inside: str) -> Tree:
    """The tree after `git apply` of a patch. Raises InputErrors (the patch is refused or does not apply), HostError (no git).

    Nothing but a temporary folder is written. The result is compared with the tree before: whatever git did, no forbidden
    path and no mode changed.
    """
    patches = parse(content, file)
    if problems := guard(patches, file, protected, inside):
        raise InputErrors(problems)
    with tempfile.TemporaryDirectory(prefix="golfctl-patch-") as name:
        folder = Path(name).resolve() / "tree"
        folder.mkdir()
        write_folder(tree, folder)
        for step in (["--check"], []):
            said = _git_apply(folder, content, step)
            if said is not None:
                raise InputErrors(_not_applied(said, patches, file))
        if any(path.is_symlink() for path in folder.rglob("*")):
            raise InputErrors([Problem(file, 0, 0, "refused: it makes a symbolic link")])
        patched = read_folder(folder)
    after = Tree({path: Entry(entry.content, _mode(tree, path)) for path, entry in patched.files.items()})
    changed = after.changed(tree)
    problems = [
        Problem(file, 0, 0, f"refused: {message}")
        for path in changed
        if (message := forbidden(path, protected, inside))
    ]
    problems += [Problem(file, 0, 0, f"refused: path {path!r}") for path in changed if not safe_path(path)]
    if problems:
        raise InputErrors(problems)
    return after


def _mode(tree: Tree, path: str) -> bool:
    return path in tree.files and tree.files[path].executable


def git_environment(folder: Path) -> dict[str, str]:
    """Variables for git in a temporary folder: neither a repository around it nor a person's configuration may change what it
    does."""
    return {key: value for key, value in os.environ.items() if not key.startswith("GIT_")} | {
        "GIT_CEILING_DIRECTORIES": str(folder.parent),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "LC_ALL": "C",
    }


def _git_apply(folder: Path, content: bytes, options: list[str]) -> str | None:
    """None if git applied (or with --check: would apply) the patch, else what it said."""
    command = ["git", "apply", "--whitespace=nowarn", *options, "-"]
    try:
        done = subprocess.run(
            command, cwd=folder, input=content, capture_output=True, env=git_environment(folder), check=False
        )
    except FileNotFoundError:
        raise HostError("git: not found; patches are applied with `git apply`, install git 2.20 or newer") from None
    return None if done.returncode == 0 else done.stderr.decode("utf-8", "replace").strip() or "git apply failed"


def _not_applied(said: str, patches: Sequence[FilePatch], file: str) -> list[Problem]:
    """git's words as findings at the hunks they are about."""
    found = []
    for match in _FAILED.finditer(said):
        path, start = match[1], int(match[2])
        hunks = [hunk for item in patches if path in item.paths for hunk in item.hunks]
        line = next((hunk.line for hunk in hunks if hunk.old_start == start), hunks[0].line if hunks else 0)
        message = f"does not apply: the code reads differently at {path}:{start}; nothing was changed"
        found.append(Problem(file, line, 1, message))
    if found:
        return found
    if corrupt := _CORRUPT.search(said):
        return [Problem(file, int(corrupt[1]), 1, f"does not apply: {corrupt[0]}; nothing was changed")]
    if about := _FILE_ERROR.search(said):
        line = next((item.line for item in patches if about[1] in item.paths), 0)
        return [Problem(file, line, 1 if line else 0, f"does not apply: {about[1]}: {about[2]}; nothing was changed")]
    return [Problem(file, 0, 0, f"does not apply: {' '.join(said.split())}; nothing was changed")]
