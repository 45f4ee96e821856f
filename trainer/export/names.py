"""Short names for globals and locals. Names that something outside may know stay: attributes, keywords, fields, imports."""

from __future__ import annotations

import ast
import builtins
import itertools
import keyword
import string
from collections import Counter
from collections.abc import Iterator

from trainer.export.scopes import bound_in, parameters, targets, walk

_FIXED = {*keyword.kwlist, *keyword.softkwlist, *dir(builtins)}


def shorten(body: list[ast.stmt]) -> None:
    """Rename in place, most used first. Needs what `link` gives: no local bears the name of a global."""
    nodes = [node for statement in body for node in walk(statement)]
    spoken = {word.arg for node in nodes if isinstance(node, ast.Call) for word in node.keywords if word.arg}
    spoken |= {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    held = {node.id for node in nodes if isinstance(node, ast.Name)} | spoken | _FIXED
    defined = {name for statement in body for name in targets(statement)}
    functions = [
        f for s in body for f in ([s] if not isinstance(s, ast.ClassDef) else s.body) if isinstance(f, ast.FunctionDef)
    ]
    taken: set[str] = set()
    for function in functions:
        taken |= _locals(function, spoken | defined | _FIXED, held - _bound_anywhere(function))
    uses = Counter(node.id for node in nodes if isinstance(node, ast.Name) and node.id in defined)
    fresh = (name for name in _names(string.ascii_uppercase + "_") if name not in held and name not in taken)
    short = {}
    for name, count in uses.most_common():
        new = next(fresh)
        if len(new) < len(name) and count:
            short[name] = new
    for statement in body:
        _rename(statement, short)
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            statement.name = short.get(statement.name, statement.name)
        else:
            _rename_imports(statement, short)


def _names(letters: str) -> Iterator[str]:
    for length in itertools.count(1):
        for first in itertools.product(letters, repeat=length):
            yield "".join(first)


def _bound_anywhere(function: ast.FunctionDef) -> set[str]:
    """Names that a function or anything inside it binds."""
    found = {*parameters(function), *bound_in(function).names}
    for node in walk(function):
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            found |= {*parameters(node), *bound_in(node).names}
        elif isinstance(node, ast.comprehension):
            found |= set(targets(node.target))
    return found


def _locals(function: ast.FunctionDef, fixed: set[str], others: set[str]) -> set[str]:
    """Shorten the locals of one function; returns the names it now uses for them."""
    nodes = walk(function)
    if any(isinstance(node, ast.ClassDef | ast.Global | ast.Nonlocal) for node in nodes):
        return _bound_anywhere(function)
    imported = {name for node in nodes if isinstance(node, ast.Import | ast.ImportFrom) for name in targets(node)}
    inner = {node.name for node in nodes if isinstance(node, ast.FunctionDef) and node is not function}
    bound = _bound_anywhere(function)
    wanted = bound - fixed - imported - inner
    read = {node.id for node in nodes if isinstance(node, ast.Name)} - wanted
    uses = Counter(node.id for node in nodes if isinstance(node, ast.Name) and node.id in wanted)
    uses.update(argument.arg for node in nodes if isinstance(node, ast.arguments) for argument in _every(node))
    fresh = (n for n in _names(string.ascii_lowercase) if n not in read | fixed | imported | inner | (bound - wanted))
    short = {}
    for name, _ in uses.most_common():
        if name in wanted:
            new = next(fresh)
            short[name] = new if len(new) < len(name) else name
    kept = {name for name in short if short[name] == name}
    short = {name: new for name, new in short.items() if name not in kept and new not in kept}
    _rename(function, short)
    return {*short.values(), *(bound - short.keys())}


def _every(node: ast.arguments) -> list[ast.arg]:
    every = [*node.posonlyargs, *node.args, *node.kwonlyargs, node.vararg, node.kwarg]
    return [argument for argument in every if argument is not None]


def _rename(root: ast.AST, short: dict[str, str]) -> None:
    for node in walk(root):
        if isinstance(node, ast.Name):
            node.id = short.get(node.id, node.id)
        elif isinstance(node, ast.arg):
            node.arg = short.get(node.arg, node.arg)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            node.name = short.get(node.name, node.name)
        elif isinstance(node, ast.Global):
            node.names = [short.get(name, name) for name in node.names]


def _rename_imports(statement: ast.stmt, short: dict[str, str]) -> None:
    """Imports of a module's own, also inside its `try` and `if`."""
    for node in walk(statement):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                bound = alias.asname or alias.name.partition(".")[0]
                if bound in short and (alias.asname or "." not in alias.name):
                    alias.asname = short[bound]
