"""A8 for records: what scripts and logs themselves say of the files they train on."""

from __future__ import annotations

import ast
import fnmatch
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path, PurePosixPath

from golfctl.audit import shipped
from golfctl.audit.marks import of_text
from golfctl.audit.names import walk
from golfctl.audit.result import Evidence, fail, ok, warn
from golfctl.audit.target import Target
from golfctl.logs.scan import lines_of

LINES = 5000
"""Lines of a log that are looked at: data are named before the first step."""
_TRAIN_NAME = re.compile(r"(^|_)train(ing)?_?(files?|glob|pattern|paths?|shards?|data)$", re.IGNORECASE)
_TRAIN_LINE = re.compile(r"^train_loader:.*pattern=(\S+)", re.IGNORECASE)
_HASH = re.compile(r"\b(train|val)_sha256[:=]\s*([0-9a-f]{16,64})", re.IGNORECASE)
_SAMPLE = "fineweb_val_000000.bin"


def stated(target: Target) -> Iterator[Evidence]:
    """Training files that are, or hold, validation files: by a script's patterns, and by what a log prints."""
    for log in target.counted:
        yield from _of_log(target.folder / log.file, log.file)
    start = shipped.entry(target.code)
    for path in shipped.reached(target.code, start) if start else ():
        tree = shipped.tree_of(target.code[path]) if path.endswith(".py") else None
        for node in walk(tree) if tree else ():
            if isinstance(node, ast.Assign) and any(_TRAIN_NAME.search(name) for name in _names(node)):
                yield from _of_pattern(node, path)


def _names(node: ast.Assign) -> Iterator[str]:
    for target in node.targets:
        if isinstance(target, ast.Name):
            yield target.id
        elif isinstance(target, ast.Attribute):
            yield target.attr


def _of_pattern(node: ast.Assign, path: str) -> Iterator[Evidence]:
    texts = [part.value for part in walk(node.value) if isinstance(part, ast.Constant) and isinstance(part.value, str)]
    for text in texts:
        name = PurePosixPath(text).name
        if of_text(text) == {("val",)} and name.endswith((".bin", ".npy", ".pt")):
            yield fail(f"trains on {text!r}, files of validation", f"{path}:{node.lineno}")
        elif "*" in name and name.endswith(".bin") and name.strip("*") != ".bin" and fnmatch.fnmatch(_SAMPLE, name):
            yield warn(f"trains on {text!r}, which validation files match, too", f"{path}:{node.lineno}")


def _of_log(path: Path, file: str) -> Iterator[Evidence]:
    hashes: dict[str, str] = {}
    for number, line in enumerate(islice(lines_of(path), LINES), 1):
        text = line[:1000].strip()
        found = _TRAIN_LINE.search(text)
        if found and of_text(found[1]) == {("val",)}:
            yield fail(f"trained on {found[1]}, files of validation", f"{file}:{number}")
        for which, digest in _HASH.findall(text):
            hashes[which.lower()] = digest.lower()
    if len(hashes) == 2:
        same = hashes["train"] == hashes["val"]
        text = f"sha256 {hashes['val'][:12]}"
        yield (
            fail(f"trained and scored on the same stream, {text}", file)
            if same
            else ok(f"two streams, scored on {text}", file)
        )
