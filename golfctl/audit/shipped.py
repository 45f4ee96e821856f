"""Which files of a package are code that runs: what the entry script imports or executes, found without running it."""

from __future__ import annotations

import ast
import functools
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from golfctl.audit.names import last, walk

_BY_NAME = {"import_module", "__import__", "run_module", "find_spec"}
_RUNS = {"exec", "eval", "compile", "run_path"}
_READS = {"open", "read_text", "read_bytes"}
WORDS = 200_000
"""Letters of a README that are read."""
ENTRY = ("train_gpt.py", "train.py", "main.py")


def entry(code: Mapping[str, bytes]) -> str | None:
    """The script that is started: the best-known name, nearest to the top; else the only Python file there."""
    python = [path for path in code if path.endswith(".py")]
    for name in ENTRY:
        found = [path for path in python if PurePosixPath(path).name == name]
        if found:
            return min(found, key=lambda path: (path.count("/"), path))
    return python[0] if len(python) == 1 else None


_STARTS = re.compile(r"(?:torchrun|python3?|accelerate launch)\b[^\n`]*?\s([\w./-]+\.py)\b")
_SCORES = re.compile(r"train|eval|score|ttt|finetune|run", re.IGNORECASE)
_PREPARES = re.compile(r"prepare|download|data|plot|token|cache|test|upload|sweep|ablat", re.IGNORECASE)


def started(folder: Path, code: Mapping[str, bytes]) -> list[str]:
    """Scripts that a README or a shell script of the folder starts to train or to score, those that prepare data left out."""
    found: dict[str, None] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix.lower() in {".md", ".sh"} and path.is_file() and not path.is_symlink():
            with path.open(encoding="utf-8", errors="replace") as file:
                text = file.read(WORDS)
            for word in _STARTS.findall(text.replace("\\\n", " ")):
                name = word.removeprefix("./")
                if name in code and _SCORES.search(name) and not _PREPARES.search(name):
                    found[name] = None
    return list(found)


def reached(code: Mapping[str, bytes], start: str) -> dict[str, str]:
    """Files that run with `start`, itself first, each with how it is reached: `entry`, `FILE:LINE imports`, `... names`.

    A file counts once it is imported, or its name stands in a string of code that runs (exec, a compiler, a child process).
    Names of files in docstrings do not count.
    """
    found = {start: "entry"}
    waiting = [start]
    while waiting:
        here = waiting.pop()
        for line, path, how in _uses(code, here):
            if path not in found:
                found[path] = f"{here}:{line} {how}"
                waiting.append(path)
    return found


def _holders(code: Mapping[str, bytes], name: str) -> set[PurePosixPath]:
    """Folders that hold a module or package of this name."""
    paths = [PurePosixPath(path).with_suffix("").parts for path in code]
    return {PurePosixPath(*parts[: parts.index(name)]) for parts in paths if name in parts}


def _strings(node: ast.Call | ast.List | ast.Tuple) -> Iterator[str]:
    parts = node.args if isinstance(node, ast.Call) else node.elts
    return (part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str))


def executed(source: bytes) -> Iterator[tuple[int, str]]:
    """(line, name) of each file that a script reads and executes, as far as a string says it; "" where it works the name out."""
    tree = tree_of(source)
    given = _given(tree) if tree else {}
    for node in walk(tree) if tree else ():
        if not isinstance(node, ast.Call) or last(node.func) not in _RUNS:
            continue
        if isinstance(node.func, ast.Attribute) and node.func.attr != "run_path":  # re.compile, df.eval
            continue
        parts = list(_behind(node, given))
        reads = [part for part in parts if isinstance(part, ast.Call) and last(part.func) in _READS]
        if not reads and last(node.func) != "run_path":
            continue
        strings = [part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)]
        files = [text for text in strings if PurePosixPath(text).suffix and PurePosixPath(text).stem]
        yield from ((node.lineno, text) for text in files or [""])


def _given(tree: ast.Module) -> dict[str, list[ast.AST]]:
    """What each name is assigned anywhere in a script, and the functions of that name."""
    given: dict[str, list[ast.AST]] = {}
    for node in walk(tree):
        if isinstance(node, ast.FunctionDef):
            given.setdefault(node.name, []).append(node)
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    given.setdefault(target.id, []).append(node.value)
    return given


def _behind(node: ast.AST, given: Mapping[str, list[ast.AST]]) -> Iterator[ast.AST]:
    """A piece of code with all that its names stand for."""
    waiting: list[ast.AST] = [node]
    met: set[str] = set()
    while waiting:
        for part in walk(waiting.pop()):
            yield part
            if isinstance(part, ast.Name) and part.id not in met:
                met.add(part.id)
                waiting += given.get(part.id, [])


@functools.cache
def tree_of(source: bytes) -> ast.Module | None:
    """The syntax tree, None for what is not Python of this version. Kept, as many checks ask: `forget` lets go of them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


def forget() -> None:
    """Drop the trees of a target that has been looked at."""
    tree_of.cache_clear()


def _uses(code: Mapping[str, bytes], here: str) -> Iterator[tuple[int, str, str]]:
    """(line, path, how) of every other file of the package that this one uses."""
    tree = tree_of(code[here]) if here.endswith(".py") else None
    if tree is None:
        return
    folder = PurePosixPath(here).parent
    docstrings = _docstrings(tree)
    for node in walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from ((node.lineno, path, "imports") for path in _modules(code, folder, alias.name))
        elif isinstance(node, ast.ImportFrom):
            at = folder
            for _ in range(max(0, node.level - 1)):
                at = at.parent
            module = node.module or ""
            dotted = [module, *(f"{module}.{alias.name}".strip(".") for alias in node.names)]
            yield from ((node.lineno, path, "imports") for name in dotted for path in _modules(code, at, name))
        elif isinstance(node, ast.Call) and last(node.func) in _BY_NAME:
            yield from (
                (node.lineno, path, "imports") for name in _strings(node) for path in _modules(code, folder, name)
            )
        elif isinstance(node, ast.List | ast.Tuple) and "-m" in (words := list(_strings(node))):
            modules = words[words.index("-m") + 1 :][:1]
            yield from ((node.lineno, path, "starts") for name in modules for path in _modules(code, folder, name))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings:
            path = _named(code, folder, node.value)
            if path is not None and path != here:
                yield node.lineno, path, "names"


def _modules(code: Mapping[str, bytes], folder: PurePosixPath, dotted: str) -> Iterator[str]:
    """Files of the package that importing a dotted name runs: the module, and the __init__ of each package above."""
    parts = dotted.split(".") if dotted else []
    tops = {folder, PurePosixPath(".")}
    if parts and any(b"sys.path" in content for content in code.values()):
        tops |= _holders(code, parts[0])
    for top in tops:
        for count in range(1, len(parts) + 1):
            stem = top.joinpath(*parts[:count])
            for candidate in (f"{stem}.py", f"{stem}/__init__.py", f"{stem}.so", f"{stem}.pyc"):
                if candidate in code:
                    yield candidate


def _named(code: Mapping[str, bytes], folder: PurePosixPath, text: str) -> str | None:
    name = text.removeprefix("./")
    if not name or "\n" in name or PurePosixPath(name).suffix not in {".py", ".so", ".c", ".cu", ".cpp"}:
        return None
    for candidate in (str(folder / name), name):
        if candidate in code:
            return candidate
    return None


def _docstrings(tree: ast.Module) -> set[ast.AST]:
    found: set[ast.AST] = set()
    for node in walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                found.add(first.value)
    return found
