"""S10: tables of bytes a token, and what is made of them, that do not count as the canonical one does.

Canonical (the contest's train_gpt.py): control, unknown and unused pieces 0; byte pieces 1; else the UTF-8 bytes of the piece
without its leading space mark, and that space as 1 byte unless the token before is a boundary.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from golfctl.audit.names import called, functions, named, walk

_MARK = "▁"
_TABLES = {"tensor", "zeros", "array", "empty", "full", "asarray", "from_numpy", "ones"}
_SPACE = re.compile(r"(space|(^|_)lead)", re.IGNORECASE)
_BOUND = re.compile(r"(bound|edge|prev|bos|control)", re.IGNORECASE)
_BYTES = re.compile(r"byt", re.IGNORECASE)
_SPECIAL = {"is_control", "is_unknown", "is_unused", "IsControl", "IsUnknown", "IsUnused"}
LONGEST = 6.0
"""Bytes a token that a constant in place of a table may be taken for."""

Found = Iterator[tuple[int, str]]


def byte_tables(tree: ast.Module) -> Found:
    """S10: how a script counts the bytes of its pieces, and of the text it scores."""
    constants = {
        name.id: node.value.value
        for node in walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for name in node.targets
        if isinstance(name, ast.Name)
    }
    for function in functions(tree):
        yield from _table(function, constants)
        yield from _special(function)
        yield from _used(function)


def _table(function: ast.FunctionDef | ast.AsyncFunctionDef, constants: dict[str, str]) -> Found:
    """A function that measures pieces."""
    calls = {called(node) for node in walk(function)}
    if not calls & {"id_to_piece", "IdToPiece"} or not calls & {"encode", "len"}:
        return
    if not calls & _TABLES and not _BYTES.search(function.name) and not _stores(function):
        return
    text = {node.value for node in walk(function) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    text |= {constants[name] for name in named(function) if name in constants}
    counted = [node for node in walk(function) if isinstance(node, ast.Call) and called(node) == "len"]
    pieces = [node for node in counted if any("piece" in name.lower() or name == "encode" for name in named(node))]
    if not pieces:
        return
    line = pieces[0].lineno
    if not calls & {"is_byte", "IsByte"}:
        yield line, "byte pieces such as <0xE2> are not counted as one byte"
    if all(called(node.args[0]) != "encode" for node in pieces if node.args):
        yield line, "a piece is counted in characters, not in UTF-8 bytes"
    if not any(_MARK in item for item in text):
        yield line, "the mark of a leading space is counted as its three UTF-8 bytes"
    elif any(_SPACE.search(name) for name in named(function)) and (
        _keeps_space(function) or _adds_space(function, pieces)
    ):
        yield line, "a leading space is counted in the piece and once more beside it"


def _stores(function: ast.AST) -> bool:
    return any(isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store) for node in walk(function))


def _keeps_space(function: ast.AST) -> bool:
    """Whether the mark is replaced by a space before counting, where it should be cut off."""
    for node in walk(function):
        if isinstance(node, ast.Call) and called(node) == "replace" and len(node.args) == 2:
            values = [part.value for part in node.args if isinstance(part, ast.Constant)]
            if values == [_MARK, " "]:
                return True
    return False


def _adds_space(function: ast.AST, pieces: list[ast.Call]) -> bool:
    """Whether a 1 for the space is added to a piece's bytes, which the table of spaces adds again."""
    for node in walk(function):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            for side, other in ((node.left, node.right), (node.right, node.left)):
                if side in pieces and (any(_SPACE.search(name) for name in named(other)) or _tests_mark(other)):
                    return True
    return False


def _tests_mark(node: ast.AST) -> bool:
    return any(isinstance(part, ast.Constant) and part.value == _MARK for part in walk(node))


def _special(function: ast.AST) -> Found:
    """Control, unknown and unused pieces stand for no bytes."""
    for node in walk(function):
        if not isinstance(node, ast.If) or not {called(part) for part in walk(node.test)} & _SPECIAL:
            continue
        if isinstance(node.test, ast.UnaryOp):
            continue
        for item in node.body:
            value = item.value if isinstance(item, ast.Assign | ast.Return | ast.AugAssign) else None
            number = (
                isinstance(value, ast.Constant) and isinstance(value.value, int) and not isinstance(value.value, bool)
            )
            if number and isinstance(value, ast.Constant) and value.value and _counts_bytes(function, item):
                yield item.lineno, f"a piece that stands for no text is counted as {ast.unparse(value)} bytes"


def _counts_bytes(function: ast.AST, item: ast.stmt) -> bool:
    words = [*named(item), getattr(function, "name", "")]
    return any(re.search(r"byt|len|size", word, re.IGNORECASE) for word in words)


def _used(function: ast.AST) -> Found:
    """What a script adds up as bytes of the text it scores."""
    for node in walk(function):
        if not isinstance(node, ast.Assign | ast.AugAssign):
            continue
        into = node.targets if isinstance(node, ast.Assign) else [node.target]
        names = [name for target in into for name in named(target)]
        whole = list(named(node.value))
        if (
            isinstance(node, ast.AugAssign)
            and isinstance(node.op, ast.Add)
            and _space_alone(node.value)
            and not any(map(_BOUND.search, whole))
        ):
            yield node.lineno, "a leading space is counted behind a boundary, too, where the text has none"
        number = _constant_share(node.value)
        if number and any(_BYTES.search(name) for name in names):
            yield node.lineno, f"bytes are taken as {number:g} a token, not counted"


def _space_alone(node: ast.AST) -> bool:
    """`space[y]`, converted or summed, with nothing that takes any of it away."""
    if any(isinstance(part, ast.UnaryOp | ast.BitAnd | ast.Mult | ast.Compare) for part in walk(node)):
        return False
    return any(
        isinstance(part, ast.Subscript) and any(_SPACE.search(name) for name in named(part.value))
        for part in walk(node)
    )


def _constant_share(node: ast.AST) -> float:
    """The number in `y.numel() * 2.44`; 0 for anything else."""
    for part in walk(node):
        if isinstance(part, ast.BinOp) and isinstance(part.op, ast.Mult):
            for side, other in ((part.left, part.right), (part.right, part.left)):
                number = isinstance(side, ast.Constant) and isinstance(side.value, float) and 1 < side.value <= LONGEST
                if number and {called(item) for item in walk(other)} & {"numel", "len", "size"}:
                    return float(ast.unparse(side))
    return 0.0
