"""Names of the final lines a script can print, from the literals of its print calls. It is never run."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence

from golfctl.store import packed
from golfctl.store.literals import LONGEST, MOST, Literals
from golfctl.store.syntax import Budget, syntax_tree, walk

_OPEN = "\0"  # stands for what the syntax tree can't tell
_FINAL = re.compile(r"(?P<label>[\w\0]+)\s+val_loss:\s*\S+\s+val_bpb:")


def score_labels(source: bytes, file: str) -> list[str]:
    """Every label of a line `LABEL val_loss:... val_bpb:...` in the source (or in a text packed into it), in order of lines.

    A label that is computed stands there with `*`. Where the same score is printed twice, as `X` and as `X_exact`, only the exact
    one is kept. A source that can't be followed has none.
    """
    try:
        for _ in range(4):
            tree = syntax_tree(source, file)
            inner = packed.find(tree)
            if inner is None or inner.inner is None:
                break
            source = inner.inner
        found = sorted(set(_Printed(tree).labels()))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    names = list(dict.fromkeys(name for _, name in found))
    return [name for name in names if f"{name}_exact" not in names]


def choose(labels: Sequence[str]) -> str | None:
    """The one label that needs no choice: the only one there is, and not computed."""
    return labels[0] if len(labels) == 1 and "*" not in labels[0] else None


class _Printed:
    """Lines that a script's calls print, as far as their beginning is literal."""

    def __init__(self, tree: ast.Module) -> None:
        self.tree, self.budget = tree, Budget()
        self.literals = Literals(tree, self.budget)
        self.calls: dict[str, list[ast.Call]] = {}
        self.given: dict[tuple[ast.FunctionDef, str], list[str]] = {}
        for node in walk(tree, self.budget):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
                name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
                self.calls.setdefault(name, []).append(node)

    def labels(self) -> Iterator[tuple[int, str]]:
        """(line, label) of every final line. Raises TooLargeError."""
        waiting: list[tuple[ast.AST, tuple[ast.FunctionDef, ...]]] = [(self.tree, ())]
        while waiting:
            node, around = waiting.pop()
            if isinstance(node, ast.JoinedStr | ast.Constant):
                for text in self._texts_of(node, around):
                    if match := _FINAL.match(text):
                        yield node.lineno, match["label"].replace(_OPEN, "*")
            inner = (*around, node) if isinstance(node, ast.FunctionDef) else around
            waiting += [(child, inner) for child in ast.iter_child_nodes(node)]

    def _texts_of(self, node: ast.JoinedStr | ast.Constant, around: Sequence[ast.FunctionDef]) -> Iterator[str]:
        """Every line a literal can begin, also with what the functions around it are given."""
        if isinstance(node, ast.Constant):
            yield from [node.value[:LONGEST]] if isinstance(node.value, str) else []
            return
        first = node.values[0].value if node.values and isinstance(node.values[0], ast.FormattedValue) else None
        told = isinstance(first, ast.Name) and any(first.id in _parameters(other) for other in around)
        for function in [*([] if told else [None]), *around]:
            self.budget.spend(len(node.values))
            yield from self._lines(node, function)

    def _lines(self, node: ast.JoinedStr, function: ast.FunctionDef | None) -> list[str]:
        first = [""]
        for part in node.values:
            texts = self._texts(part, function)
            first = [(start + text)[:LONGEST] for start in first for text in texts[:MOST]][:MOST]
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
        if (function, parameter) in self.given:
            return self.given[function, parameter]
        index = _parameters(function).index(parameter)
        found: list[str] = []
        for call in self.calls.get(function.name, []):
            keyword = next((item.value for item in call.keywords if item.arg == parameter), None)
            value = call.args[index] if index < len(call.args) else keyword
            found += self.literals.texts(value) if value is not None else ()
        self.given[function, parameter] = found
        return found


def _parameters(function: ast.FunctionDef) -> list[str]:
    return [item.arg for item in (*function.args.posonlyargs, *function.args.args)]
