"""What texts can an expression of a script be? Constants, names bound once, loops over literal lists, f-strings of these."""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from itertools import product

from golfctl.store.syntax import Budget

MOST = 64
"""More names than this in one expression are not listed."""
LONGEST = 1000
"""No name and no line that is looked for begins with more characters."""
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)


class Literals:
    """Names that are bound exactly once in their scope, to a text or to the items of a literal list of texts."""

    def __init__(self, tree: ast.Module, budget: Budget) -> None:
        self._budget = budget
        self._scope: dict[
            ast.Name, list[ast.AST]
        ] = {}  # of every name that is read: the scopes around it, innermost last
        self._bound: dict[ast.AST, Counter[str]] = defaultdict(Counter)
        self._sources: dict[ast.AST, dict[str, ast.expr]] = defaultdict(dict)
        self._walk(tree)

    def _walk(self, tree: ast.Module) -> None:
        waiting: list[tuple[ast.AST, list[ast.AST]]] = [(tree, [tree])]
        while waiting:
            node, scopes = waiting.pop()
            here = scopes[-1]
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                self._scope[node] = scopes
            elif isinstance(node, ast.Name):
                self._bound[here][node.id] += 1
            elif isinstance(node, ast.arg):
                self._bound[here][node.arg] += 2  # what is given is not known
            elif isinstance(node, ast.Global | ast.Nonlocal):
                self._bound[tree].update(dict.fromkeys(node.names, 2))
            elif isinstance(node, ast.Assign):
                self._sources[here] |= _pairs(node)
            elif isinstance(node, ast.For | ast.comprehension) and isinstance(node.target, ast.Name):
                self._sources[here][node.target.id] = node.iter
            inner = [*scopes, node] if isinstance(node, _SCOPES) else scopes
            waiting += [(child, inner) for child in ast.iter_child_nodes(node)]

    def texts(self, node: ast.expr) -> tuple[str, ...]:
        """Every text the expression can be, none if that can't be told. Raises TooLargeError."""
        found = self._texts(node)
        self._budget.spend(1 + len(found))
        return found if all(len(text) <= LONGEST for text in found) else ()

    def _texts(self, node: ast.expr) -> tuple[str, ...]:
        if isinstance(node, ast.Name):
            return self._of_name(node)
        if isinstance(node, ast.IfExp):
            both = self.texts(node.body), self.texts(node.orelse)
            return both[0] + both[1] if all(both) else ()
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return _joined([self.texts(node.left), self.texts(node.right)])
        if isinstance(node, ast.JoinedStr):
            parts = [item.value if isinstance(item, ast.FormattedValue) else item for item in node.values]
            plain = all(not isinstance(item, ast.FormattedValue) or not item.format_spec for item in node.values)
            return _joined([self.texts(part) for part in parts]) if plain else ()
        return _constants(node) if isinstance(node, ast.Constant) else ()

    def _of_name(self, node: ast.Name) -> tuple[str, ...]:
        for scope in reversed(self._scope.get(node, [])):
            if times := self._bound[scope][node.id]:
                source = self._sources[scope].get(node.id)
                return _constants(source) if times == 1 and source is not None else ()
        return ()


def _joined(parts: list[tuple[str, ...]]) -> tuple[str, ...]:
    count = 1
    for part in parts:
        count *= len(part)
    return tuple("".join(combination) for combination in product(*parts)) if 0 < count <= MOST else ()


def _pairs(node: ast.Assign) -> dict[str, ast.expr]:
    """Name to value of `a = x`, `a = b = x` and `a, b = x, y`."""
    found: dict[str, ast.expr] = {}
    for target in node.targets:
        if isinstance(target, ast.Name) and isinstance(node.value, ast.Constant):
            found[target.id] = node.value
        elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            both = zip(target.elts, node.value.elts, strict=False)
            found |= {left.id: right for left, right in both if isinstance(left, ast.Name)}
    return found


def _constants(node: ast.expr) -> tuple[str, ...]:
    """The text of a constant, or those of a literal list, tuple, set or `range(n)`; none if one of them is no constant."""
    if isinstance(node, ast.Constant):
        if isinstance(node.value, bytes):
            return (node.value.decode("utf-8", "replace"),)
        return (str(node.value),) if isinstance(node.value, str | int) else ()
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        items = [_constants(item) if isinstance(item, ast.Constant) else () for item in node.elts]
        return tuple(item[0] for item in items) if all(items) else ()
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range":
        numbers = [item.value for item in node.args if isinstance(item, ast.Constant) and isinstance(item.value, int)]
        if numbers and len(numbers) == len(node.args) <= 2:
            span = range(*numbers)
            return tuple(map(str, span)) if len(span) <= MOST else ()
    return ()
