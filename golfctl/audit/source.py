"""Scripts of a package as syntax trees, those packed into a string unpacked first. Nothing is executed."""

from __future__ import annotations

import ast
import base64
import binascii
import lzma
import re
import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from golfctl.audit import shipped
from golfctl.audit.names import walk

LARGEST = 2_000_000
"""Bytes a packed script may unpack to; the longest of the field has 160,000."""
PACKED = 100
"""Characters a string must have to be taken for a packed script."""
DEPTH = 3


MODULE = "<module>"


@dataclass(frozen=True)
class Script:
    """One script that runs. inside: how it was packed, "" for a file as it lies there. Lines count within it."""

    path: str
    tree: ast.Module
    inside: str = ""

    def at(self, line: int) -> str:
        """`file:line`, and that the line is one of the unpacked script."""
        return f"{self.path}{f' ({self.inside})' if self.inside else ''}:{line}"


def scripts(
    code: Mapping[str, bytes], whole: bool = False, also: Collection[str] = ()
) -> tuple[list[Script], list[str]]:
    """Every script reached from the entry (all there are, without one, or if `whole`), and names of those that do not parse.

    also: further scripts that are started.
    """
    start = None if whole else shipped.entry(code)
    if start:
        paths = list(dict.fromkeys(path for one in (start, *also) for path in shipped.reached(code, one)))
    else:
        paths = [path for path in code if path.endswith(".py")]
    found: list[Script] = []
    broken: list[str] = []
    for path in paths:
        if not path.endswith(".py"):
            continue
        tree = shipped.tree_of(code[path])
        if tree is None:
            broken.append(path)
            continue
        found.append(Script(path, with_main(tree)))
        found += _within(path, tree, "", 0)
    return found, broken


def _within(path: str, tree: ast.Module, inside: str, depth: int) -> Iterator[Script]:
    """Scripts that a script holds in a packed string."""
    if depth >= DEPTH:
        return
    for node in walk(tree):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str | bytes) or len(node.value) < PACKED:
            continue
        source = unpacked(node.value)
        inner = shipped.tree_of(source) if source is not None else None
        if inner is not None and inner.body:
            how = f"unpacked from line {node.lineno}" if not inside else f"{inside}, line {node.lineno}"
            yield Script(path, with_main(inner), how)
            yield from _within(path, inner, how, depth + 1)


def with_main(tree: ast.Module) -> ast.Module:
    """The same with its statements outside of functions and classes in a function of their own: rules look at functions."""
    kept: list[ast.stmt] = []
    loose: list[ast.stmt] = []
    for statement in tree.body:
        defines = isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        (kept if defines or isinstance(statement, ast.Import | ast.ImportFrom) else loose).append(statement)
    if not loose:
        return tree
    main = ast.parse("def main(): pass").body[0]
    assert isinstance(main, ast.FunctionDef)
    main.name, main.body, main.lineno = MODULE, loose, loose[0].lineno
    return ast.Module([*kept, main], tree.type_ignores)


def unpacked(text: str | bytes) -> bytes | None:
    """Python source out of plain text, base85 or base64, compressed by lzma or zlib or not; None for anything else."""
    raw = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    for decode in (lambda data: data, base64.b85decode, _b64):
        try:
            packed = decode(raw)
        except (ValueError, binascii.Error):
            continue
        for inflate in (_plain, _lzma, _zlib):
            source = inflate(packed)
            if source is not None and re.search(rb"^\s*(import|from|def|class) ", source, re.MULTILINE):
                return source
    return None


def _b64(data: bytes) -> bytes:
    return base64.b64decode(data, validate=True)


def _plain(data: bytes) -> bytes | None:
    return data[:LARGEST]


def _lzma(data: bytes) -> bytes | None:
    for how in (
        {"format": lzma.FORMAT_AUTO},
        {"format": lzma.FORMAT_RAW, "filters": [{"id": lzma.FILTER_LZMA2}]},
        {"format": lzma.FORMAT_RAW, "filters": [{"id": lzma.FILTER_LZMA1}]},
    ):
        try:
            return lzma.LZMADecompressor(**how, memlimit=None).decompress(data, LARGEST) or None
        except (lzma.LZMAError, EOFError, ValueError):
            continue
    return None


def _zlib(data: bytes) -> bytes | None:
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(data, LARGEST) or None
    except zlib.error:
        return None
