"""What a function's own variables always hold, and what text is made of."""

from __future__ import annotations

import ast
import copy
from typing import Any

from trainer.export.literal import UNKNOWN, Put, is_quiet, is_short, literal, same, value_of
from trainer.export.scopes import parameters, targets, walk


def settle(node: ast.FunctionDef) -> int:
    """Locals that only ever hold one constant are read as that; locals nobody reads are not set. Returns how much was found."""
    changes = 0
    stores, loads = _uses(node)
    given: dict[str, list[Any]] = {}
    tables: dict[str, ast.Dict] = {}
    for inner in walk(node):
        if isinstance(inner, ast.Assign) and len(inner.targets) == 1 and isinstance(inner.targets[0], ast.Name):
            name, value = inner.targets[0].id, value_of(inner.value)
            if isinstance(inner.value, ast.List) and not inner.value.elts and _only_looked_at(node, name):
                value = ()
            given.setdefault(name, []).append(value if is_short(value) else UNKNOWN)
            if isinstance(inner.value, ast.Dict) and stores.get(name) == 1:
                tables[name] = inner.value
    constants = {n: v[0] for n, v in given.items() if len(v) == stores[n] and same(v) and literal(v[0]) is not None}
    if tables:
        changes += _pass_on(node, tables)
    if constants:
        Put(constants).visit(node)
        changes += len(constants)
    unread = {name for name in stores if name not in loads or name in constants}
    if unread:
        dropper = _Drop(unread)
        node.body = [new for s in node.body for new in dropper.statements(s)] or [ast.Pass()]
        changes += dropper.changes
    return changes


class _Drop(ast.NodeTransformer):
    """Takes out assignments to names that nobody reads."""

    def __init__(self, names: set[str]) -> None:
        self.names, self.changes = names, 0

    def statements(self, node: ast.stmt) -> list[ast.stmt]:
        found = self.visit(node)
        return found if isinstance(found, list) else [found] if found is not None else []

    def visit_Assign(self, node: ast.Assign) -> Any:
        target = node.targets[0]
        if len(node.targets) == 1 and isinstance(target, ast.Name) and target.id in self.names:
            self.changes += 1
            return ast.copy_location(ast.Pass() if is_quiet(node.value) else ast.Expr(node.value), node)
        return node


def _uses(node: ast.FunctionDef) -> tuple[dict[str, int], set[str]]:
    """How often each local of a function is set, by anything inside it, and which are read; parameters count as set twice."""
    stores: dict[str, int] = {}
    loads: set[str] = set()
    for inner in walk(node):
        if isinstance(inner, ast.FunctionDef | ast.Lambda):
            for name in parameters(inner):
                stores[name] = stores.get(name, 0) + 2
            if isinstance(inner, ast.FunctionDef) and inner is not node:
                stores[inner.name] = stores.get(inner.name, 0) + 2
        elif isinstance(inner, ast.Name):
            if isinstance(inner.ctx, ast.Load):
                loads.add(inner.id)
            else:
                stores[inner.id] = stores.get(inner.id, 0) + 1
        elif isinstance(inner, ast.Global | ast.Nonlocal):
            for name in inner.names:
                stores[name] = 99
                loads.add(name)
        elif isinstance(inner, ast.ExceptHandler | ast.Import | ast.ImportFrom | ast.AugAssign):
            for name in targets(inner):
                stores[name] = stores.get(name, 0) + 2
            if isinstance(inner, ast.AugAssign) and isinstance(inner.target, ast.Name):
                loads.add(inner.target.id)
    return stores, loads


def _pass_on(node: ast.FunctionDef, tables: dict[str, ast.Dict]) -> int:
    """`f(**table)` as `f(name=value, ...)` where the table is written out before and used for nothing else."""
    changes = 0
    for name, table in tables.items():
        calls = [
            c
            for c in walk(node)
            if isinstance(c, ast.Call)
            for w in c.keywords
            if w.arg is None and names(w.value, name)
        ]
        loads = sum(names(n, name) and isinstance(n.ctx, ast.Load) for n in walk(node))  # type: ignore[attr-defined]
        plain = all(isinstance(key, ast.Constant) and isinstance(key.value, str) for key in table.keys)
        if not calls or len(calls) != loads or not plain or not (len(calls) == 1 or all(map(is_quiet, table.values))):
            continue
        for call in calls:
            words = [ast.keyword(k.value, copy.deepcopy(v)) for k, v in zip(table.keys, table.values, strict=True)]  # type: ignore[union-attr]
            place = next(i for i, w in enumerate(call.keywords) if w.arg is None and names(w.value, name))
            call.keywords[place : place + 1] = words
        table.keys, table.values = [], []
        changes += 1
    return changes


def names(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _only_looked_at(node: ast.FunctionDef, name: str) -> bool:
    """Whether a list is only asked whether it is empty, how long it is, and what it holds: a tuple would do."""
    allowed = 0
    for inner in walk(node):
        parts: list[ast.AST] = []
        if isinstance(inner, ast.If | ast.IfExp | ast.While):
            parts = [inner.test]
        elif isinstance(inner, ast.BoolOp):
            parts = list(inner.values[:-1])
        elif isinstance(inner, ast.Subscript) and isinstance(inner.ctx, ast.Load):
            parts = [inner.value]
        elif isinstance(inner, ast.For | ast.comprehension):
            parts = [inner.iter]
        elif isinstance(inner, ast.Call) and isinstance(inner.func, ast.Name) and inner.func.id == "len":
            parts = list(inner.args)
        allowed += sum(isinstance(part, ast.Name) and part.id == name for part in parts)
    loads = sum(isinstance(n, ast.Name) and n.id == name and isinstance(n.ctx, ast.Load) for n in walk(node))
    return allowed == loads


def separable(pairs: list[tuple[ast.expr, ast.expr]]) -> bool:
    """Whether `a, b = x, y` may be written as `a = x; b = y`."""
    loud = [value for _, value in pairs if not is_quiet(value)]
    if loud and not all(isinstance(t, ast.Name) and (v in loud or value_of(v) is not UNKNOWN) for t, v in pairs):
        return False  # the call might see what was set before it, or not yet set
    if len(loud) > 1:
        return False
    for place, (target, _) in enumerate(pairs):
        if not isinstance(target, ast.Name | ast.Attribute):
            return False
        name = target.id if isinstance(target, ast.Name) else target.attr
        for _, later in pairs[place + 1 :]:
            for node in walk(later):
                if name in (getattr(node, "id", None), getattr(node, "attr", None)):
                    return False
    return True


def formatted(part: ast.expr) -> ast.expr:
    """A part of an f-string as text, where its value and format are known."""
    if not isinstance(part, ast.FormattedValue):
        return part
    value = value_of(part.value)
    spec = part.format_spec
    text = ""
    if isinstance(spec, ast.JoinedStr):
        if not all(isinstance(piece, ast.Constant) for piece in spec.values):
            return part
        text = "".join(piece.value for piece in spec.values)  # type: ignore[attr-defined]
    if value is UNKNOWN or part.conversion not in (-1, 114):
        return part
    return ast.Constant(format(repr(value) if part.conversion == 114 else value, text))
