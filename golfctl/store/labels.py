"""Names of the final lines a script can print, from the literals of its print calls. It is never run."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence

from golfctl.store import packed
from golfctl.store.envvars import syntax_tree
from golfctl.store.literals import Literals

_OPEN = "\0"  # stands for what the syntax tree can't tell
_FINAL = re.compile(r"(?P<label>[\w\0]+)\s+val_loss:\s*\S+\s+val_bpb:")


def score_labels(source: bytes, file: str) -> list[str]:
    """Every label of a line `LABEL val_loss:... val_bpb:...` in the source (or in a text packed into it), in order of lines.

    A label that is computed stands there with `*`. Where the same score is printed twice, as `X` and as `X_exact`, only the exact
    one is kept. A source that can't be parsed has none.
    """
    for _ in range(4):
        try:
            tree = syntax_tree(source, file)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return []
        inner = packed.find(tree)
        if inner is None or inner.inner is None:
            break
        source = inner.inner
    found = sorted(set(_Printed(tree).labels()))
    names = list(dict.fromkeys(name for _, name in found))
    return [name for name in names if f"{name}_exact" not in names]


def choose(labels: Sequence[str]) -> str | None:
    """The one label that needs no choice: the only one there is, and not computed."""
    return labels[0] if len(labels) == 1 and "*" not in labels[0] else None


class _Printed:
    """Lines that a script's calls print, as far as their beginning is literal."""

    def __init__(self, tree: ast.Module) -> None:
        self.tree, self.literals = tree, Literals(tree)
        self.calls: dict[str, list[ast.Call]] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
                name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
                self.calls.setdefault(name, []).append(node)

    def labels(self) -> Iterator[tuple[int, str]]:
        """(line, label) of every final line."""
        yield from self._below(self.tree, None)
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef):
                yield from self._below(node, node)

    def _below(self, top: ast.AST, function: ast.FunctionDef | None) -> Iterator[tuple[int, str]]:
        for node in ast.walk(top):
            if isinstance(node, ast.JoinedStr | ast.Constant) and not (function is None and self._in_function(node)):
                for text in self._lines(node, function):
                    if match := _FINAL.match(text):
                        yield node.lineno, match["label"].replace(_OPEN, "*")

    def _in_function(self, node: ast.expr) -> bool:
        """Whether the line's beginning is a parameter of a function around it: then it is told there."""
        first = node.values[0] if isinstance(node, ast.JoinedStr) and node.values else None
        if not isinstance(first, ast.FormattedValue) or not isinstance(first.value, ast.Name):
            return False
        name = first.value.id
        return any(
            name in _parameters(other) and any(child is node for child in ast.walk(other))
            for other in ast.walk(self.tree)
            if isinstance(other, ast.FunctionDef)
        )

    def _lines(self, node: ast.JoinedStr | ast.Constant, function: ast.FunctionDef | None) -> list[str]:
        if isinstance(node, ast.Constant):
            return [node.value] if isinstance(node.value, str) else []
        first = [""]
        for part in node.values:
            texts = self._texts(part, function)
            first = [start + text for start in first for text in texts][:64]
        return first

    def _texts(self, part: ast.expr, function: ast.FunctionDef | None) -> Sequence[str]:
        if isinstance(part, ast.Constant):
            return [str(part.value)]
        if not isinstance(part, ast.FormattedValue) or part.format_spec is not None:
            return [_OPEN]
        if found := self.literals.texts(part.value):
            return found
        if function is not None and isinstance(part.value, ast.Name) and part.value.id in _parameters(function):
            called = function.name in self.calls  # what is never called prints nothing
            return self._given(function, part.value.id) or ([_OPEN] if called else [])
        return [_OPEN]

    def _given(self, function: ast.FunctionDef, parameter: str) -> list[str]:
        """What the calls of a function give for a parameter."""
        index = _parameters(function).index(parameter)
        found: list[str] = []
        for call in self.calls.get(function.name, []):
            keyword = next((item.value for item in call.keywords if item.arg == parameter), None)
            value = call.args[index] if index < len(call.args) else keyword
            found += self.literals.texts(value) if value is not None else ()
        return found


def _parameters(function: ast.FunctionDef) -> list[str]:
    return [item.arg for item in (*function.args.posonlyargs, *function.args.args)]
