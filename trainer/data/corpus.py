"""The embedded real-text corpus: the running Python's own documentation. Standard library only, no network, deterministic.

Documents are the values of `pydoc_data.topics` and every module, class and function docstring that `ast` finds in the standard
library, passed through `inspect.cleandoc`, at least 32 characters long, each text once.

The split goes by group, never by document: a group is one top-level module or one topic, and small groups that quote a
larger one go where it goes (see `homes`). Splitting by docstring would leak: methods of one module repeat each other. The
first 8 bytes of sha256(group) decide: last decimal digit 0 is `val` (about 10 % of the groups), and of the rest one group
in twenty is `tune`, on which settings may be tuned. Everything else is `train`. What remains shared is reworded or quoted
in part: about 4 % of the 24-byte strings of val, most of them from the debugger topic, occur in the training text.

How the rule was chosen: many hash rules were looked at, for the size of val (near 118 kB, a few seconds to score) and for
what zlib and lzma make of it; this plain one was kept. No model or n-gram score of any split had been seen by then.

Nothing here is shipped: sizes and hashes depend on the Python version and are stated by whoever opens the corpus. On
CPython 3.11.7: 6,804 documents, 2.07 MB.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import sysconfig
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trainer.contract import SEPARATOR
from trainer.data.errors import DataError

FORMAT = 1
"""Raised whenever the same Python would yield other bytes; part of the cache key."""

SHORTEST = 32
"""Characters; shorter docstrings ("See above.") are noise."""

SKIPPED = {"test", "tests", "idle_test", "idlelib", "lib2to3", "site-packages", "dist-packages", "__pycache__"}
"""Folders and modules left out: tests are no documentation, the packages are not the standard library's."""

SPLITS = ("train", "tune", "val")

TUNE_RESIDUE = 9
"""Which twentieth of the training groups is held out: of the twenty, chosen for size (5.5 % of the training text) and for
having no single group that dominates (14 groups)."""


@dataclass(frozen=True)
class Document:
    """One text. `group` is the top-level module or topic it belongs to; `text` is UTF-8 without the separator byte."""

    group: str
    text: bytes


def library_folder() -> Path:
    """Where the running interpreter's standard library lies as source."""
    return Path(sysconfig.get_paths()["stdlib"])


def split_of(group: str) -> str:
    """ "train", "tune" or "val": a function of the group's name alone."""
    number = int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big")
    if number % 10 == 0:
        return "val"
    return "tune" if number // 10 % 20 == TUNE_RESIDUE else "train"


def documents(library: Path | None = None) -> list[Document]:
    """Topics in name order, then docstrings in order of path and source line; a text seen before is left out.

    Raises DataError when this Python was installed without its documentation or sources.
    """
    seen: set[bytes] = set()
    found = []
    for group, raw in _candidates(library or library_folder()):
        clean = inspect.cleandoc(raw)
        if len(clean) < SHORTEST:
            continue
        try:
            text = clean.encode("utf-8")
        except UnicodeEncodeError:  # a lone surrogate written as an escape: no UTF-8 text
            continue
        key = hashlib.sha256(text).digest()
        if SEPARATOR in text or key in seen:
            continue
        seen.add(key)
        found.append(Document(group, text))
    return found


def split_documents(library: Path | None = None) -> dict[str, list[bytes]]:
    """Documents of each of SPLITS, in order. Raises DataError where one of them is empty."""
    found = documents(library)
    home = homes(found)
    parts: dict[str, list[bytes]] = {name: [] for name in SPLITS}
    for document in found:
        parts[split_of(home[document.group])].append(document.text)
    for name, texts in parts.items():
        if not texts:
            raise DataError(
                f"{library or library_folder()}: too little documentation for an embedded corpus ({name} is empty)"
            )
    return parts


def homes(found: list[Document]) -> dict[str, str]:
    """Group to the group whose split it shares: itself, or a larger one that repeats a quarter of its lines.

    Topics quote whole sections of each other ("else" stands in "compound"); apart, one would give away the other. Only lines of
    at least 40 bytes count. The larger group decides, so a few lines never move much text.
    """
    lines: dict[str, Counter[bytes]] = defaultdict(Counter)
    for document in found:
        lines[document.group].update(line.strip() for line in document.text.split(b"\n") if len(line.strip()) >= 40)
    sizes = {group: (sum(len(line) * n for line, n in counts.items()), group) for group, counts in lines.items()}
    owners: dict[bytes, list[str]] = defaultdict(list)
    for group, counts in lines.items():
        for line in counts:
            owners[line].append(group)
    shared: dict[str, Counter[str]] = defaultdict(Counter)
    for line, groups in owners.items():
        for small in groups:
            for large in groups:
                if sizes[small] < sizes[large]:
                    shared[small][large] += len(line) * lines[small][line]
    home = {document.group: document.group for document in found}
    for group in sorted(lines, key=sizes.__getitem__, reverse=True):  # larger homes are settled first
        large, amount = max(shared[group].items(), key=lambda item: (item[1], item[0]), default=(group, 0))
        if 4 * amount >= sizes[group][0] > 0:
            home[group] = home[large]
    return home


def _candidates(library: Path) -> Iterator[tuple[str, str]]:
    """(group, raw text) of everything that might become a document."""
    try:
        topics = importlib.import_module("pydoc_data.topics").topics
    except ImportError:
        raise DataError(
            "this Python lacks pydoc_data.topics; set DATA_PATH to a folder with train.txt and val.txt"
        ) from None
    for name in sorted(topics):
        yield name, topics[name]
    paths = sorted(library.rglob("*.py"), key=lambda path: path.relative_to(library).parts)
    if not paths:
        raise DataError(f"{library}: no standard library sources; set DATA_PATH to a folder with train.txt and val.txt")
    for path in paths:
        parts = path.relative_to(library).with_suffix("").parts
        if not SKIPPED.intersection(parts):
            for raw in _docstrings(path):
                yield parts[0], raw


def _docstrings(path: Path) -> Iterator[str]:
    try:
        source = path.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an old escape in somebody's source is not our news
            tree = ast.parse(source)
    except (OSError, SyntaxError, ValueError):  # deliberately broken or unreadable files hold no documentation
        return
    for node in _in_source_order(tree):
        raw = ast.get_docstring(node, clean=False)
        if raw:
            yield raw


def _in_source_order(node: ast.AST) -> Iterator[ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):  # expressions hold no definitions
            yield from _in_source_order(child)
