"""What nothing reaches is dropped: functions, classes, methods, imports, and attributes that are set and never read."""

from __future__ import annotations

import ast
import builtins
import importlib
from collections.abc import Callable
from typing import Any

from trainer.export.link import Linked
from trainer.export.literal import is_quiet
from trainer.export.scopes import targets, walk


class Reach:
    """Which globals and which attribute names the program needs, found from the statements that always run."""

    def __init__(self, linked: Linked, roots: list[str]) -> None:
        self.body, self.external = linked.body, linked.external
        self.named = [(statement, targets(statement), _ties(statement)) for statement in linked.body]
        self.definitions: dict[str, list[ast.stmt]] = {}
        self.tied: dict[str, list[ast.stmt]] = {}
        for statement, names, ties in self.named:
            for name in names:
                self.definitions.setdefault(name, []).append(statement)
            for name in ties:
                self.tied.setdefault(name, []).append(statement)
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        self._open: list[str] = list(roots)
        self._waiting: dict[str, list[ast.FunctionDef]] = {}
        for statement, names, ties in self.named:
            if not names and not ties:
                self._need(statement)
        while self._open:
            name = self._open.pop()
            if name in self.names:
                continue
            self.names.add(name)
            for statement in (*self.definitions.get(name, []), *self.tied.get(name, [])):
                self._define(statement)

    def _define(self, statement: ast.AST) -> None:
        if not isinstance(statement, ast.ClassDef):
            self._need(statement)
            return
        for part in (*statement.bases, *statement.keywords, *statement.decorator_list):
            self._need(part)
        kept_anyhow = self._called_from_outside(statement)
        for part in statement.body:
            if not isinstance(part, ast.FunctionDef) or kept_anyhow(part.name) or part.name in self.attributes:
                self._need(part)
            else:
                self._waiting.setdefault(part.name, []).append(part)

    def _called_from_outside(self, node: ast.ClassDef) -> Any:
        """Whether something that is not here may call a method: dunder methods, and what a foreign base has."""
        foreign = [real for base in self._foreign_bases(node) for real in [_real(base, self.external.get)]]
        if any(real is None for real in foreign):
            return lambda name: True
        return lambda name: name.startswith("__") or any(hasattr(real, name) for real in foreign)

    def _foreign_bases(self, node: ast.ClassDef) -> list[ast.expr]:
        found: list[ast.expr] = []
        for base in node.bases:
            inner = base.value if isinstance(base, ast.Subscript) else base
            known = self.definitions.get(inner.id, [None])[0] if isinstance(inner, ast.Name) else None
            if isinstance(known, ast.ClassDef):
                found += self._foreign_bases(known)
            else:
                found.append(inner)
        return found

    def _need(self, node: ast.AST) -> None:
        for inner in walk(node):
            if isinstance(inner, ast.Name) and inner.id in self.definitions:
                self._open.append(inner.id)
            elif isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Load):
                self._need_attribute(inner.attr)
            elif isinstance(inner, ast.Call) and getattr(inner.func, "id", "") in {"getattr", "hasattr", "setattr"}:
                for part in inner.args:
                    if isinstance(part, ast.Constant) and isinstance(part.value, str):
                        self._need_attribute(part.value)

    def _need_attribute(self, name: str) -> None:
        if name not in self.attributes:
            self.attributes.add(name)
            for method in self._waiting.pop(name, []):
                self._need(method)

    def pruned(self) -> tuple[list[ast.stmt], int]:
        """What is left, and how much was dropped."""
        kept, dropped = [], 0
        for statement, names, ties in self.named:
            if names and not self.names & set(names):
                dropped += 1
                continue
            if not names and ties and not ties & self.names:
                dropped += 1
                continue
            if isinstance(statement, ast.ClassDef):
                dropped += self._methods(statement)
            cut = _Cut(self.attributes)
            kept.append(cut.visit(statement))
            dropped += cut.changes
        return kept, dropped

    def _methods(self, node: ast.ClassDef) -> int:
        stays = self._called_from_outside(node)
        before = len(node.body)
        node.body = [
            part
            for part in node.body
            if not isinstance(part, ast.FunctionDef) or stays(part.name) or part.name in self.attributes
        ] or [ast.Pass()]
        return before - len(node.body) if not isinstance(node.body[0], ast.Pass) else int(before > 1)


class _Cut(ast.NodeTransformer):
    """Takes out what sets an attribute that is never read."""

    def __init__(self, read: set[str]) -> None:
        self.read, self.changes = read, 0

    def visit_Assign(self, node: ast.Assign) -> Any:
        target = node.targets[0]
        own = isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id == "self"
        if len(node.targets) == 1 and own and target.attr not in self.read:  # type: ignore[attr-defined]
            self.changes += 1
            return ast.copy_location(ast.Pass() if is_quiet(node.value) else ast.Expr(node.value), node)
        return node


def _ties(statement: ast.stmt) -> set[str]:
    """Globals that a statement without a name of its own does something to: it is needed when they are."""
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        node: ast.expr = statement.value
        while isinstance(node, ast.Call | ast.Attribute):
            node = node.func if isinstance(node, ast.Call) else node.value
        return {node.id} if isinstance(node, ast.Name) else set()
    return set()


def _real(node: ast.expr, imported: Callable[[str], tuple[str, str] | None]) -> Any:
    """The class that a foreign base is; None if that can't be told."""
    if isinstance(node, ast.Attribute):
        owner = _real(node.value, imported)
        return getattr(owner, node.attr, None) if owner is not None else None
    if not isinstance(node, ast.Name):
        return None
    if hasattr(builtins, node.id):
        return getattr(builtins, node.id)
    place = imported(node.id)
    if place is None:
        return None
    try:
        module = importlib.import_module(place[0])
        return getattr(module, place[1]) if place[1] else module
    except (ImportError, AttributeError):
        return None
