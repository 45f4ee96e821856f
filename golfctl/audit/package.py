"""A11: is the package complete, and could a stranger run it from its own folder?"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Collection, Iterator

from golfctl.audit import shipped
from golfctl.audit.names import walk
from golfctl.audit.result import Check, Evidence, count, fail, ok, several, unknown, warn
from golfctl.audit.target import RECORD, Target

ALIASES = {
    "yaml": "pyyaml",
    "sklearn": "scikit-learn",
    "PIL": "pillow",
    "flash_attn_interface": "flash_attn_3",
    "zstandard": "zstandard",
}


def check(target: Target, given: Collection[str]) -> Check:
    """Files that a reviewer needs, a script that parses, packages it imports and does not name; given: those of the image."""
    found = _record(target, given) if target.kind == RECORD else _runs(target)
    return Check("A11", "the package is complete", "asked for in #683", tuple(found))


def _runs(target: Target) -> Iterator[Evidence]:
    for file, run in target.runs.items():
        if run.spec.bundle and target.code:
            yield ok(f"bundle {run.spec.bundle[:12]} holds its code and settings", file)
    if not target.runs:
        yield unknown("its run folders are not here")


def _record(target: Target, given: Collection[str]) -> Iterator[Evidence]:
    names = {path.name.lower() for path in target.folder.iterdir()}
    wanted = {
        "a README": any(name.startswith("readme") for name in names),
        "a submission.json": any(name.startswith("submission") and name.endswith(".json") for name in names),
        "a log": bool(target.logs),
        "a script": bool(target.code),
    }
    missing = [what for what, there in wanted.items() if not there]
    if missing:
        yield warn(f"lacks {', '.join(missing)}")
    start = shipped.entry(target.code)
    if start is None:
        yield unknown("no entry script lies here")
        return
    tree = shipped.tree_of(target.code[start])
    if tree is None:
        yield fail(f"{start} is no Python that parses", start)
        return
    if not tree.body:
        yield fail(f"{start} is empty", start)
    yield from _unread(target)
    reached = shipped.reached(target.code, start)
    yield from _absent(target, reached)
    undeclared = sorted(_packages(target, reached) - set(given) - _declared(target))
    if undeclared:
        yield warn(f"imports {several(undeclared)}, which no requirements file or README names", start)
    if not missing and not undeclared:
        yield ok(f"README, submission.json, {count(len(target.logs), 'log')}, {several(sorted(reached))}")


def _unread(target: Target) -> Iterator[Evidence]:
    for path in sorted(target.folder.glob("submission*.json")):
        if not path.is_file():
            continue
        try:
            json.loads(path.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError, RecursionError):
            yield fail(f"{path.name} is no JSON that parses", path.name)


def _absent(target: Target, reached: Collection[str]) -> Iterator[Evidence]:
    """Files of code that a script executes by a name that does not lie here."""
    for path in reached:
        for line, name in shipped.executed(target.code[path]) if path.endswith(".py") else ():
            here = (target.folder / name, (target.folder / path).parent / name) if name else ()
            if name.endswith(".py") and not any(place.exists() for place in here):
                yield warn(f"executes {name}, which does not lie here", f"{path}:{line}")


def _packages(target: Target, reached: dict[str, str]) -> set[str]:
    """Top-level packages the code imports outside of `try`, neither of the standard library nor its own."""
    own = {part for path in target.code for part in path.removesuffix(".py").split("/")}
    found: set[str] = set()
    for path in reached:
        tree = shipped.tree_of(target.code[path]) if path.endswith(".py") else None
        guarded = (
            {id(node) for block in walk(tree) if isinstance(block, ast.Try) for node in walk(block)} if tree else set()
        )
        for node in walk(tree) if tree else ():
            if isinstance(node, ast.Import) and id(node) not in guarded:
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module and id(node) not in guarded:
                found.add(node.module.partition(".")[0])
    return {name for name in found if name not in sys.stdlib_module_names and name not in own}


def _declared(target: Target) -> set[str]:
    """Import names that a requirements file or the README mentions."""
    text = ""
    for path in sorted(target.folder.iterdir()):
        if path.name.lower().startswith(("requirements", "readme")) or path.suffix.lower() in {".sh", ".toml"}:
            if not path.is_file():
                continue
            text += path.read_text(encoding="utf-8", errors="replace")[:200_000].lower()
    words = set(re.findall(r"[a-z0-9_.-]+", text))
    normal = {word.replace("-", "_").strip(".") for word in words}
    found = set()
    for name in set(ALIASES) | normal:
        if name in normal or ALIASES.get(name, "").replace("-", "_") in normal:
            found.add(name)
    return found
