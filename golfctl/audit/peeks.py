"""S2, S3 by names: learning from what is scored. Validation tokens are followed through assignments and calls of a script."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from golfctl.audit.names import VALIDATION, Function, above, assigned, called, functions, named, parents, walk

_FILES = re.compile(r"(^|[/_.])val[_.\w*-]*\.(bin|txt|npy|pt)$")
"""Names and patterns of validation files."""
_MODEL = re.compile(r"model|fwd|forward|compiled", re.IGNORECASE)
_ROUNDS = 4
"""Calls are followed so many functions deep."""

Found = Iterator[tuple[int, str]]


class Flow:
    """Which expressions of each function hold validation tokens, or what was made of them.

    A name holds what its last assignment above the line gave it; a parameter, what any call within the script gives it.
    """

    def __init__(self, tree: ast.Module) -> None:
        self.functions = list(functions(tree))
        self.up = parents(tree)
        self._given: dict[Function, set[str]] = {item: set() for item in self.functions}
        self._writes = {item: _writes(item) for item in self.functions}
        by_name = {item.name: item for item in self.functions}
        self.calls: dict[Function, list[tuple[Function, ast.Call]]] = {item: [] for item in self.functions}
        for item in self.functions:
            for node in walk(item):
                target = by_name.get(called(node))
                if target is not None and isinstance(node, ast.Call) and self.owner(node) is item:
                    self.calls[target].append((item, node))
        for _ in range(_ROUNDS):
            before = sum(map(len, self._given.values()))
            self._known: dict[tuple[Function, str, int], bool] = {}
            for target, sites in self.calls.items():
                for caller, node in sites:
                    self._given[target] |= self._passed(caller, node, target)
            if sum(map(len, self._given.values())) == before:
                break

    def holds(self, function: Function, node: ast.AST, line: int = 0) -> bool:
        """Whether an expression of a function holds validation tokens. line: where it stands, if the node does not say."""
        at = getattr(node, "lineno", 0) or line
        for item in _but_sizes(node):
            if isinstance(item, ast.Attribute) and VALIDATION.search(item.attr):
                return True
            if isinstance(item, ast.Name) and self._name_holds(function, item.id, at):
                return True
            if isinstance(item, ast.Constant) and isinstance(item.value, str) and _FILES.search(item.value):
                return True
        return False

    def owner(self, node: ast.AST) -> Function | None:
        """The function a node stands in."""
        return next(
            (item for item in above(node, self.up) if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)), None
        )

    def _name_holds(self, function: Function, name: str, line: int) -> bool:
        if VALIDATION.search(name):
            return True
        key = (function, name, line)
        if key not in self._known:
            self._known[key] = False  # while it is being worked out: a name that only holds itself holds nothing
            writes = self._writes[function].get(name)
            if not writes:
                self._known[key] = name in self._given[function]
            else:
                earlier = [item for item in writes if item[0] < line] or writes
                at, value = max(earlier, key=lambda item: item[0])
                self._known[key] = self._carries(function, value, at)
        return self._known[key]

    def _carries(self, function: Function, value: ast.expr, line: int) -> bool:
        # A scalar that evaluation returned is no text any more: it can't be learnt from.
        name = called(value)
        if name.startswith(("eval", "score", "log", "len", "range", "print")) or name in {"numel", "item", "size"}:
            return False
        return self.holds(function, value, line)

    def _passed(self, caller: Function, node: ast.Call, target: Function) -> set[str]:
        names = [argument.arg for argument in target.args.posonlyargs + target.args.args if argument.arg != "self"]
        pairs = [*zip(names, node.args, strict=False), *((item.arg or "", item.value) for item in node.keywords)]
        return {name for name, value in pairs if name and self.holds(caller, value)}


def _but_sizes(node: ast.AST) -> Iterator[ast.AST]:
    """An expression without what only asks how long something is: `tokens.numel()`, `len(tokens)`, `tokens.shape`."""
    sized = called(node) in {"numel", "size", "len"} or (isinstance(node, ast.Attribute) and node.attr == "shape")
    if sized:
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _but_sizes(child)


def _writes(function: Function) -> dict[str, list[tuple[int, ast.expr]]]:
    """Name to (line, value) of each assignment."""
    found: dict[str, list[tuple[int, ast.expr]]] = {}
    for name, value in assigned(function):
        found.setdefault(name, []).append((value.lineno, value))
    return found


def warmed_on_validation(flow: Flow) -> Found:
    """S2: warming up the compiler, or the model, on validation tokens."""
    for function in flow.functions:
        whole = "warm" in function.name.lower() and "warmdown" not in function.name.lower()
        places: list[ast.AST] = (
            [function] if whole else [item for item in walk(function) if isinstance(item, ast.For) and _warms(item)]
        )
        for place in places:
            for node in walk(place):
                if not isinstance(node, ast.Call) or not _MODEL.search(" ".join(named(node.func))):
                    continue
                if any(flow.holds(function, argument) for argument in node.args):
                    yield node.lineno, "a warm-up runs the model on validation tokens"
                    break


def _warms(loop: ast.For) -> bool:
    words = " ".join([*named(loop.target), *named(loop.iter)]).lower()
    return "warm" in words and "warmdown" not in words


def fitted_on_its_own_mask(tree: ast.Module) -> Found:
    """S3: a tensor optimised on the positions of a mask, and the same mask scored with it."""
    for function in functions(tree):
        fitted = _fitted(function)
        for loop in [item for item in walk(function) if isinstance(item, ast.For | ast.While)]:
            steps = any(called(item) == "step" for item in walk(loop))
            learns = any(called(item) == "backward" for item in walk(loop))
            if not (steps and learns and fitted & set(named(loop))):
                continue
            masks = {name for name in named(loop) if "mask" in name.lower() and "attn" not in name.lower()}
            end = loop.end_lineno or loop.lineno
            for item in walk(function):
                if (
                    isinstance(item, ast.stmt)
                    and item.lineno > end
                    and not isinstance(item, ast.For | ast.While | ast.If | ast.With)
                ):
                    words = set(named(item))
                    if masks & words and (fitted & words or "loss" in " ".join(words) or "nll" in " ".join(words)):
                        name = sorted(masks & words)[0]
                        yield (
                            item.lineno,
                            f"{name} picks what is scored here, and what {sorted(fitted)[0]} was fitted on",
                        )
                        break


def _fitted(function: ast.AST) -> set[str]:
    """Single tensors that an optimizer is given by name: `Adam([delta])`."""
    found: set[str] = set()
    for node in walk(function):
        if (
            isinstance(node, ast.Call)
            and (called(node)[:1].isupper())
            and node.args
            and isinstance(node.args[0], ast.List)
        ):
            found |= {item.id for item in node.args[0].elts if isinstance(item, ast.Name) and "param" not in item.id}
    return found
