"""Which values a name can have where it runs through a list of constants: the rest of a chain of `if name == ...` never runs.

def wanted():            for label in wanted():          def build(label):
    found = ["a"]            build(label)                    if label == "a": ...
    found.append("b")                                        if label == "c": ...      never
    return found
"""

from __future__ import annotations

import ast
from typing import Any

from trainer.export.facts import Facts
from trainer.export.literal import UNKNOWN, value_of
from trainer.export.scopes import bound_in, walk
from trainer.export.spread import can_be_bound, passed

Values = frozenset[Any]


def known(facts: Facts, node: ast.expr) -> Any:
    """The value of a literal or of a global constant, however long; UNKNOWN for anything else."""
    value = value_of(node)
    return facts.long.get(node.id, UNKNOWN) if value is UNKNOWN and isinstance(node, ast.Name) else value


def members(facts: Facts, node: ast.expr) -> Values | None:
    """What a written-out set, list or tuple of constants holds."""
    if not isinstance(node, ast.Set | ast.List | ast.Tuple):
        return None
    found = [known(facts, part) for part in node.elts]
    return None if UNKNOWN in found else frozenset(found)


def of_parameters(facts: Facts) -> dict[str, dict[str, Values]]:
    """Function to parameter to the values that all its calls together give it, where they are known."""
    lists = {name: found for name, f in facts.functions.items() if (found := _listed(facts, f)) is not None}
    running: dict[int, Values] = {}
    for node in facts.every(ast.For):
        values = running_over(lists, node)  # type: ignore[arg-type]
        for inner in walk(node) if values else []:
            if isinstance(inner, ast.Name) and inner.id == node.target.id:  # type: ignore[attr-defined]
                running[id(inner)] = values or frozenset()
    found: dict[str, dict[str, Values]] = {}
    for name, function in facts.functions.items():
        calls = facts.calls.get(name, [])
        if not calls or name in facts.loose or not can_be_bound(function, calls):
            continue
        set_inside = {*bound_in(function).names}
        for argument in function.args.args:
            given = [passed(function, call, argument.arg, 0) for call in calls]
            values = [running.get(id(part)) or _one(facts, part) for part in given]
            if argument.arg not in set_inside and None not in values:
                found.setdefault(name, {})[argument.arg] = frozenset().union(*[v for v in values if v is not None])
    return found


def _one(facts: Facts, node: ast.expr | None) -> Values | None:
    value = UNKNOWN if node is None else known(facts, node)
    return frozenset([value]) if isinstance(value, str) else None


def running_over(lists: dict[str, Values], node: ast.For) -> Values | None:
    """What a loop's name runs through, if that is the list of one of these functions and nothing else sets it."""
    called = node.iter.func if isinstance(node.iter, ast.Call) else None
    if not (isinstance(called, ast.Name) and called.id in lists and isinstance(node.target, ast.Name)):
        return None
    stores = [
        n for n in walk(node) if isinstance(n, ast.Name) and n.id == node.target.id and not isinstance(n.ctx, ast.Load)
    ]
    return lists[called.id] if len(stores) == 1 else None


def _listed(facts: Facts, function: ast.FunctionDef) -> Values | None:
    """All that a function can put into the list it returns, if it is built from constants alone."""
    if function.decorator_list or function.generator:  # type: ignore[attr-defined]
        return None
    last = function.body[-1]
    if not (isinstance(last, ast.Return) and isinstance(last.value, ast.Name)):
        return None
    name, found, uses = last.value.id, [], 1
    for node in bound_in(function).own:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == name:
            held = members(facts, node.value)
            found += [*held] if held is not None and isinstance(node.value, ast.List) else [UNKNOWN]
            uses += 1
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == f"{name}.append" and len(node.args) == 1:
            found += _either(facts, node.args[0])
            uses += 1
    said = sum(isinstance(node, ast.Name) and node.id == name for node in walk(function))
    return frozenset(found) if said == uses and UNKNOWN not in found else None


def _either(facts: Facts, node: ast.expr) -> list[Any]:
    if isinstance(node, ast.IfExp):
        return [*_either(facts, node.body), *_either(facts, node.orelse)]
    return [known(facts, node)]
