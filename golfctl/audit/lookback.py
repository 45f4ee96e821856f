"""S8: a look back at the token before that nothing stops at the beginning of a document."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from golfctl.audit.names import assigned, called, functions, named, walk

_BOUNDS = re.compile(
    r"(bos|eos|doc|boundar|cu_?seq|segment|starts|separator|varlen|(^|_)(mask|same|inside)(_|$))", re.IGNORECASE
)
_LOOKS_BACK = re.compile(r"(smear|prev|shift)", re.IGNORECASE)
_SQUASH = {"sigmoid", "tanh", "softplus", "softmax"}

Found = Iterator[tuple[int, str]]


def unbounded_look_back(tree: ast.Module) -> Found:
    """S8: the token before is mixed in by a gate, and nothing asks whether it belongs to the same document."""
    helpers = {item.name for item in functions(tree) if any(_returns_shift(node) for node in walk(item))}
    for item in walk(tree):
        if not isinstance(item, ast.ClassDef):
            continue
        forward = next(
            (one for one in item.body if isinstance(one, ast.FunctionDef) and one.name in {"forward", "__call__"}), None
        )
        if forward is None or any(_BOUNDS.search(name) for name in _words(item)) or _compares(forward):
            continue
        known = bool(_LOOKS_BACK.search(item.name)) or _mentions_smear(item)
        line = next((node.lineno for node in walk(forward) if isinstance(node, ast.Call) and _one_later(node)), 0)
        line = (known and line) or _gated(forward, helpers)
        if line:
            yield line, f"{item.name} mixes in the token before, across the bounds of documents"


def _returns_shift(node: ast.AST) -> bool:
    return isinstance(node, ast.Return) and node.value is not None and _one_later(node.value)


def _compares(forward: ast.FunctionDef) -> bool:
    """Whether tokens are compared with something, as a mask of document beginnings is made."""
    tests = {
        id(part)
        for node in walk(forward)
        if isinstance(node, ast.If | ast.IfExp | ast.Assert)
        for part in walk(node.test)
    }
    return any(
        isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Eq | ast.NotEq) and id(node) not in tests
        for node in walk(forward)
    )


def _gated(forward: ast.FunctionDef, helpers: set[str]) -> int:
    """Line where a look back is weighed by something learned; 0 if there is none."""
    before = {name: value for name, value in assigned(forward) if _looks(value, set(), helpers)}
    gates = {name for name, value in assigned(forward) if _learned(value)}
    for node in walk(forward):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
            sides = (node.left, node.right)
        elif called(node) == "lerp" and isinstance(node, ast.Call) and len(node.args) >= 2:
            sides = (node.args[-1], ast.Tuple(elts=node.args[:-1]))
        else:
            continue
        for weight, other in (sides, sides[::-1]):
            if (_learned(weight) or gates & set(named(weight))) and _looks(other, set(before), helpers):
                return getattr(node, "lineno", 0)
    return 0


def _learned(node: ast.AST) -> bool:
    own = any(
        isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name) and part.value.id == "self"
        for part in walk(node)
    )
    return own or any(called(part) in _SQUASH for part in walk(node))


def _looks(node: ast.AST, before: set[str], helpers: set[str]) -> bool:
    for part in walk(node):
        if isinstance(part, ast.Name) and part.id in before:
            return True
        if isinstance(part, ast.Call) and (_one_later(part) or called(part) in helpers):
            return True
        if isinstance(part, ast.Subscript) and _drops_last(part.slice):
            return True
    return False


def _drops_last(index: ast.AST) -> bool:
    """`[:, :-1]`: the sequence without its last token, laid over the one without its first."""
    parts = index.elts if isinstance(index, ast.Tuple) else []
    return len(parts) > 1 and isinstance(parts[1], ast.Slice) and parts[1].lower is None and _minus_one(parts[1].upper)


def _mentions_smear(item: ast.ClassDef) -> bool:
    return any("smear" in name.lower() for name in named(item) if name != item.name) and len(item.body) < 6


def _words(item: ast.AST) -> Iterator[str]:
    yield from named(item)
    for node in walk(item):
        if isinstance(node, ast.arg):
            yield node.arg


def _one_later(node: ast.AST) -> bool:
    """`x[:, :-1]` put behind something, `x.roll(1)`, or `pad(x, (0, 0, 1, -1))`."""
    if called(node) == "roll" and isinstance(node, ast.Call):
        return True
    if called(node) in {"cat", "concat", "concatenate", "pad"}:
        if any(isinstance(part, ast.Slice) and _minus_one(part.upper) for part in walk(node)):
            return True
        pads = [part for part in walk(node) if isinstance(part, ast.Tuple | ast.List)] if called(node) == "pad" else []
        return any(
            _minus_one(part.elts[-1]) and ast.unparse(part.elts[-2]) == "1" for part in pads if len(part.elts) > 1
        )
    return False


def _minus_one(node: ast.AST | None) -> bool:
    return (
        isinstance(node, ast.UnaryOp)
        and isinstance(node.op, ast.USub)
        and isinstance(node.operand, ast.Constant)
        and node.operand.value == 1
    )
