"""Values as syntax and back, and which expressions do nothing but have a value."""

from __future__ import annotations

import ast
import math
from typing import Any

from trainer.export.scopes import children


class Unknown:
    """Stands for a value that is not known; there is one, `UNKNOWN`."""


UNKNOWN = Unknown()

_PLAIN = (bool, int, float, str, bytes, type(None))


def value_of(node: ast.expr | None) -> Any:
    """The value of a literal: None, a number, text, or a tuple of such; UNKNOWN for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, _PLAIN):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = value_of(node.operand)
        return -inner if type(inner) in (int, float) else UNKNOWN
    if isinstance(node, ast.Tuple) and isinstance(node.ctx, ast.Load):
        parts = [value_of(part) for part in node.elts]
        return UNKNOWN if UNKNOWN in parts else tuple(parts)
    return UNKNOWN


def literal(value: Any) -> ast.expr | None:
    """The syntax of a value; None where it has none that is exact, or too long a one."""
    if isinstance(value, tuple):
        parts = [literal(part) for part in value]
        return None if None in parts or len(parts) > 40 else ast.Tuple([p for p in parts if p is not None], ast.Load())
    if type(value) not in _PLAIN or (isinstance(value, str | bytes) and len(value) > 400):
        return None
    if type(value) in (int, float):
        if not math.isfinite(value) or (isinstance(value, int) and abs(value) > 1 << 64):
            return None
        if value < 0 or math.copysign(1.0, value) < 0:
            return ast.UnaryOp(ast.USub(), ast.Constant(-value))
    return ast.Constant(value)


def same(values: list[Any]) -> bool:
    """Whether all are known and one and the same, types included."""
    return bool(values) and UNKNOWN not in values and len({repr(value) for value in values}) == 1


def is_short(value: Any) -> bool:
    """Whether a value may stand wherever it is read: text that is long is better said once."""
    return not (isinstance(value, str | bytes) and len(value) > 24)


class Put(ast.NodeTransformer):
    """Constants in the place of names that are read."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if isinstance(node.ctx, ast.Load) and node.id in self.values:
            return ast.copy_location(literal(self.values[node.id]) or node, node)
        return node


_QUIET = (ast.Name, ast.Constant, ast.Attribute, ast.Tuple, ast.Compare, ast.BoolOp, ast.UnaryOp, ast.BinOp, ast.IfExp)
_QUIET += (ast.Lambda, ast.List, ast.Dict, ast.Set)


def is_quiet(node: ast.AST) -> bool:
    """Whether working an expression out changes nothing, so that it may be left out. Reading an attribute counts as quiet."""
    if isinstance(node, ast.Lambda):
        return True
    if isinstance(node, ast.Subscript):
        return isinstance(node.slice, ast.Slice) and is_quiet(node.value)
    if isinstance(node, ast.expr) and not isinstance(node, _QUIET):
        return False
    return all(is_quiet(child) for child in children(node) if isinstance(child, ast.expr))
