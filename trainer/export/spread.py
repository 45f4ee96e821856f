"""Parameters that every call gives the same constant are that constant; those that nobody reads are not passed."""

from __future__ import annotations

import ast
from collections import Counter
from typing import Any

from trainer.export.facts import Facts
from trainer.export.literal import Put, is_quiet, is_short, same, value_of
from trainer.export.scopes import parameters, walk

_TRANSPARENT = {"no_grad", "inference_mode", "contextmanager"}
"""Decorators that pass arguments on as they are."""


def spread(facts: Facts) -> int:
    """One walk over the functions and classes; returns the number of parameters that were settled."""
    changes = 0
    for name, function in facts.functions.items():
        if name not in facts.loose and name in facts.calls and all(map(_transparent, function.decorator_list)):
            changes += _settle(function, facts.calls[name], 0)
    for name, made in facts.classes.items():
        init = next((s for s in made.body if isinstance(s, ast.FunctionDef) and s.name == "__init__"), None)
        alone = name not in facts.loose and not facts.heirs(name)
        if init is not None and alone and name in facts.calls and not init.decorator_list:
            changes += _settle(init, facts.calls[name], 1)
    return changes


def _transparent(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return getattr(called, "attr", getattr(called, "id", "")) in _TRANSPARENT


def _settle(function: ast.FunctionDef, calls: list[ast.Call], skipped: int) -> int:
    """Settle the parameters of one function behind the first `skipped`."""
    if not can_be_bound(function, calls):
        return 0
    given = function.args
    changes = 0
    all_stores, all_loads = _named(function)
    for argument in [*given.args[skipped:], *given.kwonlyargs]:
        name = argument.arg
        given_here = [passed(function, call, name, skipped) for call in calls]
        outside = [p for p in given_here if not (isinstance(p, ast.Name) and p.id == name and _inside(function, p))]
        values = [value_of(p) for p in outside]
        stores, loads = all_stores[name], all_loads[name]
        if same(values) and not stores and loads and is_short(values[0]):
            function.body = [Put({name: values[0]}).visit(statement) for statement in function.body]
            changes += 1
            loads = 0
        if not loads and not stores and all(p is None or is_quiet(p) for p in given_here):
            _remove(function, calls, name, skipped)
            changes += 1
    return changes


def can_be_bound(function: ast.FunctionDef, calls: list[ast.Call]) -> bool:
    """Whether it can be told which argument of each call goes to which parameter."""
    if function.args.vararg or function.args.kwarg or function.args.posonlyargs:
        return False
    starred = any(isinstance(part, ast.Starred) for call in calls for part in call.args)
    return not starred and all(word.arg is not None for call in calls for word in call.keywords)


def _inside(function: ast.FunctionDef, node: ast.AST) -> bool:
    return any(inner is node for inner in walk(function))


def _named(function: ast.FunctionDef) -> tuple[Counter[str], Counter[str]]:
    """How often a function sets each name, anywhere inside it, and how often it reads it."""
    stores, loads = Counter[str](), Counter[str]()
    for statement in function.body:
        for node in walk(statement):
            if isinstance(node, ast.Name):
                (loads if isinstance(node.ctx, ast.Load) else stores)[node.id] += 1
            elif isinstance(node, ast.FunctionDef | ast.Lambda):
                stores.update(parameters(node))
            elif isinstance(node, ast.Global | ast.Nonlocal):
                stores.update(node.names)
    return stores, loads


def passed(function: ast.FunctionDef, call: ast.Call, name: str, skipped: int) -> Any:
    """The expression that a call gives for a parameter: its own, the default, or None if the call can't work."""
    places = [argument.arg for argument in function.args.args[skipped:]]
    for word in call.keywords:
        if word.arg == name:
            return word.value
    if name in places and places.index(name) < len(call.args):
        return call.args[places.index(name)]
    return _default(function, name)


def _default(function: ast.FunctionDef, name: str) -> ast.expr | None:
    given = function.args
    late = given.args[len(given.args) - len(given.defaults) :]
    found = dict(zip([a.arg for a in late], given.defaults, strict=True))
    found |= {a.arg: d for a, d in zip(given.kwonlyargs, given.kw_defaults, strict=True) if d is not None}
    return found.get(name)


def _remove(function: ast.FunctionDef, calls: list[ast.Call], name: str, skipped: int) -> None:
    given = function.args
    places = [argument.arg for argument in given.args[skipped:]]
    for call in calls:
        call.keywords = [word for word in call.keywords if word.arg != name]
        if name in places and places.index(name) < len(call.args):
            del call.args[places.index(name)]
    for place, argument in enumerate(given.args):
        if argument.arg == name:
            from_end = len(given.args) - place
            if from_end <= len(given.defaults):
                del given.defaults[len(given.defaults) - from_end]
            del given.args[place]
            return
    for place, argument in enumerate(given.kwonlyargs):
        if argument.arg == name:
            del given.kwonlyargs[place], given.kw_defaults[place]
            return
