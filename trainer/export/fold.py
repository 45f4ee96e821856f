"""What can be worked out now is worked out: constants computed, branches that never run cut."""

from __future__ import annotations

import ast
import copy
import operator
from collections.abc import Callable
from typing import Any

from trainer.export import variables
from trainer.export.facts import Facts
from trainer.export.literal import UNKNOWN, Put, is_quiet, literal, same, value_of
from trainer.export.ranges import Values, known, members, of_parameters
from trainer.export.scopes import bound_in, walk

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.LShift: operator.lshift,
    ast.BitOr: operator.or_,
    ast.BitAnd: operator.and_,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}
_BUILTINS: dict[str, Callable[..., Any]] = {f.__name__: f for f in (len, max, min, int, float, bool, abs, str)}
_TEXT = {"startswith", "endswith", "removeprefix", "removesuffix", "lower", "upper", "partition"}
_ENDS = (ast.Return, ast.Raise, ast.Continue, ast.Break)


class Fold(ast.NodeTransformer):
    """One walk over the program. `changes` counts what was found."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.parameters = of_parameters(facts)
        self.ranges: dict[str, Values] = {}
        self.changes = 0
        self.owner: str | None = None
        self.kinds: list[dict[str, str | None]] = []

    def run(self, body: list[ast.stmt]) -> list[ast.stmt]:
        """The statements of a module, folded."""
        return self._block(body, top=True)

    def _literal(self, node: ast.expr, value: Any) -> ast.expr:
        """The value in the place of the node, if it is known and can be written."""
        new = None if value is UNKNOWN else literal(value)
        if new is None or ast.dump(new) == ast.dump(node):
            return node
        self.changes += 1
        return ast.copy_location(new, node)

    def _instead(self, node: Any) -> Any:
        self.changes += 1
        return node

    # What a name or an attribute is known to be.

    def kind_of(self, node: ast.expr) -> str | None:
        """The class whose instance an expression is, where that is known."""
        if isinstance(node, ast.Name):
            return next((scope[node.id] for scope in reversed(self.kinds) if node.id in scope), None)
        if isinstance(node, ast.Attribute):
            owner = self.kind_of(node.value)
            return self.facts.attribute_kinds.get((self.facts.family(owner), node.attr)) if owner else None
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            return self.facts.kind_of_call(node.func.id)
        return None

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if isinstance(node.ctx, ast.Load) and node.id in self.facts.constants:
            return self._literal(node, self.facts.constants[node.id])
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        node.value = self.visit(node.value)
        if not isinstance(node.ctx, ast.Load):
            return node
        if self.facts.is_config(node.value, self.kind_of(node.value)):
            return self._literal(node, self.facts.frozen.get(node.attr, UNKNOWN))
        owner = self.kind_of(node.value)
        key = (self.facts.family(owner), node.attr) if owner else None
        return self._literal(node, self.facts.attributes.get(key, UNKNOWN)) if is_quiet(node.value) else node

    def _never_none(self, node: ast.expr) -> bool:
        if isinstance(node, ast.Attribute) and (owner := self.kind_of(node.value)):
            return (self.facts.family(owner), node.attr) in self.facts.things
        return isinstance(node, ast.Call) and self.facts.gives_thing(node)

    # Expressions.

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        self.generic_visit(node)
        left, right, act = value_of(node.left), value_of(node.right), _BINARY.get(type(node.op))
        if left is UNKNOWN or right is UNKNOWN or act is None or isinstance(left, str) != isinstance(right, str):
            return node
        return self._computed(node, lambda: act(left, right))

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.expr:
        self.generic_visit(node)
        inner = value_of(node.operand)
        if isinstance(node.op, ast.Not) and inner is not UNKNOWN:
            return self._literal(node, not inner)
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        self.generic_visit(node)
        values = [value_of(part) for part in (node.left, *node.comparators)]
        if UNKNOWN not in values:
            pairs = zip(node.ops, values, values[1:], strict=False)
            return self._computed(node, lambda: all(_COMPARE[type(op)](a, b) for op, a, b in pairs))
        if len(node.ops) == 1 and isinstance(node.ops[0], ast.Is | ast.IsNot) and values[1] is None:
            if self._never_none(node.left) and (is_quiet(node.left)):
                return self._literal(node, isinstance(node.ops[0], ast.IsNot))
        elif len(node.ops) == 1 and (among := self._among(node)) is not None:
            possible, asked = among
            if not possible & asked or possible <= asked:
                return self._literal(node, bool(possible & asked) == isinstance(node.ops[0], ast.Eq | ast.In))
        if len(node.ops) == 1 and isinstance(node.ops[0], ast.In | ast.NotIn):
            return self._membership(node, values)
        return node

    def _among(self, node: ast.expr) -> tuple[Values, Values] | None:
        """For `name == constant` and `name in {constants}` and their opposites: what the name may be, and what is asked for."""
        if not (isinstance(node, ast.Compare) and isinstance(node.left, ast.Name) and node.left.id in self.ranges):
            return None
        asked: Values | None = None
        if isinstance(node.ops[0], ast.Eq | ast.NotEq):
            value = known(self.facts, node.comparators[0])
            asked = None if value is UNKNOWN else frozenset([value])
        elif isinstance(node.ops[0], ast.In | ast.NotIn):
            asked = members(self.facts, node.comparators[0])
        return None if asked is None else (self.ranges[node.left.id], asked)

    def _membership(self, node: ast.Compare, values: list[Any]) -> ast.expr:
        """`in` nothing, or in a table of the module's."""
        wanted, held = values[0], node.comparators[0]
        if values[1] == () and is_quiet(node.left):
            return self._literal(node, isinstance(node.ops[0], ast.NotIn))
        table = self.facts.tables.get(held.id) if isinstance(held, ast.Name) else None
        if wanted is UNKNOWN or table is None:
            return node
        return self._literal(node, (wanted in table) == isinstance(node.ops[0], ast.In))

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.expr:
        self.generic_visit(node)
        stops = isinstance(node.op, ast.Or)
        kept: list[ast.expr] = []
        for place, part in enumerate(node.values):
            value = value_of(part)
            if value is UNKNOWN:
                kept.append(part)
            elif bool(value) == stops:
                kept.append(part)  # what comes behind is never looked at
                break
            elif place == len(node.values) - 1:
                kept.append(part)
        if len(kept) == 1:
            return self._instead(kept[0])
        if len(kept) < len(node.values):
            self.changes += 1
            node.values = kept
        return node

    def _test(self, node: ast.expr) -> Any:
        """Whether a condition holds: True, False or UNKNOWN."""
        value = value_of(node)
        if value is not UNKNOWN:
            return bool(value)
        if isinstance(node, ast.BoolOp) and is_quiet(node):
            found = [self._test(part) for part in node.values]
            decisive = isinstance(node.op, ast.Or)
            return decisive if decisive in found else UNKNOWN
        return UNKNOWN

    def visit_IfExp(self, node: ast.IfExp) -> ast.expr:
        self.generic_visit(node)
        test = self._test(node.test)
        return node if test is UNKNOWN else self._instead(node.body if test else node.orelse)

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        self.generic_visit(node)
        index = value_of(node.slice)
        if index is UNKNOWN or not isinstance(node.ctx, ast.Load):
            return node
        if isinstance(node.value, ast.Name) and node.value.id in self.facts.tables:
            found = self.facts.tables[node.value.id].get(index)
            plain = found is not None and isinstance(found, ast.Name | ast.Constant)
            return self._instead(ast.copy_location(_copy(found), node)) if plain else node
        held = value_of(node.value)
        return node if held is UNKNOWN or held is None else self._computed(node, lambda: held[index])

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.expr:
        self.generic_visit(node)
        parts: list[ast.expr] = []
        for part in node.values:
            new = variables.formatted(part)
            if isinstance(new, ast.Constant) and parts and isinstance(parts[-1], ast.Constant):
                parts[-1] = ast.Constant(parts[-1].value + new.value)
                self.changes += 1
            else:
                self.changes += new is not part
                parts.append(new)
        if all(isinstance(part, ast.Constant) for part in parts):
            return self._literal(node, "".join(part.value for part in parts))  # type: ignore[attr-defined]
        node.values = parts
        return node

    def visit_FormattedValue(self, node: ast.FormattedValue) -> ast.expr:
        node.value = self.visit(node.value)  # the format itself stays as it is
        return node

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        values = [value_of(part) for part in node.args]
        known = UNKNOWN not in values and not node.keywords
        if isinstance(node.func, ast.Name):
            name = node.func.id
            if self._reads_setting(node) and isinstance(values[1], str):
                return self._instead(self.visit(ast.Attribute(node.args[0], values[1], ast.Load())))
            if known and node.args and name in _BUILTINS and name not in self.facts.locals:
                return self._computed(node, lambda: _BUILTINS[name](*values))
            quiet = all(map(is_quiet, [*node.args, *(word.value for word in node.keywords)]))
            if quiet and name in self.facts.answers:
                return self._literal(node, self.facts.answers[name])
            if (
                not node.keywords
                and (new := self._literal(node, self.facts.asked(name, node.args, values, self._is_config))) is not node
            ):
                return new
        elif known and isinstance(node.func, ast.Attribute) and node.func.attr in _TEXT:
            held, act = value_of(node.func.value), node.func.attr
            if isinstance(held, str):
                return self._computed(node, lambda: getattr(held, act)(*values))
        if self._tests_absent(node):
            return self._literal(node, False)
        return self._instead(node.args[0]) if self._leaves_config(node) else node

    def _leaves_config(self, node: ast.Call) -> bool:
        """dataclasses.replace(config, ...) with what the settings hold anyhow."""
        if getattr(node.func, "attr", getattr(node.func, "id", "")) != "replace" or len(node.args) != 1:
            return False
        frozen = self.facts.frozen
        kept = all(word.arg in frozen and same([value_of(word.value), frozen[word.arg]]) for word in node.keywords)
        return kept and self._is_config(node.args[0])

    def _is_config(self, node: ast.expr) -> bool:
        return self.facts.is_config(node, self.kind_of(node))

    def _tests_absent(self, node: ast.Call) -> bool:
        """isinstance(..., C) where nothing makes a C."""
        if not (isinstance(node.func, ast.Name) and node.func.id == "isinstance" and len(node.args) == 2):
            return False
        asked = node.args[1]
        return isinstance(asked, ast.Name) and asked.id in self.facts.never_made and is_quiet(node.args[0])

    def _computed(self, node: ast.expr, compute: Callable[[], Any]) -> ast.expr:
        try:
            return self._literal(node, compute())
        except (TypeError, ValueError, ArithmeticError, LookupError):
            return node  # it would fail when it runs, and shall

    # Statements.

    def _block(self, body: list[ast.stmt], top: bool = False) -> list[ast.stmt]:
        """Statements that still run, in order; what stands behind a return or the like does not."""
        kept: list[ast.stmt] = []
        before = dict(self.ranges)
        for statement in body:
            found = self.visit(statement)
            self._rule_out(found)
            kept += found if isinstance(found, list) else [found] if found is not None else []
            if kept and isinstance(kept[-1], _ENDS) and not top:
                break
        self.ranges = before
        self.changes += len(kept) < len(body) and not top
        whole = [statement for statement in kept if not isinstance(statement, ast.Pass)]
        return whole if whole or top else [ast.Pass()]

    def _rule_out(self, statement: Any) -> None:
        """Behind `if name == "a": return` the name is no longer "a"."""
        if not (isinstance(statement, ast.If) and isinstance(statement.body[-1], _ENDS) and not statement.orelse):
            return
        among = self._among(statement.test)
        if among is not None and isinstance(statement.test.ops[0], ast.Eq | ast.In):  # type: ignore[attr-defined]
            self.ranges[statement.test.left.id] = among[0] - among[1]  # type: ignore[attr-defined]

    def _inner(self, body: list[ast.stmt]) -> list[ast.stmt]:
        return [statement for statement in self._block(body) if not isinstance(statement, ast.Pass)] if body else []

    def generic_visit(self, node: ast.AST) -> ast.AST:
        for name in ("body", "orelse", "finalbody"):
            held = getattr(node, name, None)
            if isinstance(held, list) and held and not isinstance(node, ast.Module):
                setattr(node, name, [])
                parts = self._block(held)
                setattr(node, name, [] if name != "body" and isinstance(parts[0], ast.Pass) else parts)
        for name, held in ast.iter_fields(node):
            if name in ("body", "orelse", "finalbody") and isinstance(held, list):
                continue
            if isinstance(held, list):
                held[:] = [self.visit(item) if isinstance(item, ast.AST) else item for item in held]
            elif isinstance(held, ast.AST):
                setattr(node, name, self.visit(held))
        return node

    def visit_If(self, node: ast.If) -> Any:
        node.test = self.visit(node.test)
        test = self._test(node.test)
        if test is not UNKNOWN:
            return self._instead(self._inner(node.body if test else node.orelse))
        node.body = self._block(node.body)
        node.orelse = self._inner(node.orelse)
        if isinstance(node.body[0], ast.Pass):
            if not node.orelse:
                return self._instead(None if is_quiet(node.test) else ast.Expr(node.test))
            node.test, node.body, node.orelse = ast.UnaryOp(ast.Not(), node.test), node.orelse, []
        return node

    def visit_For(self, node: ast.For) -> Any:
        self.generic_visit(node)
        values = value_of(ast.Tuple(node.iter.elts, ast.Load()) if isinstance(node.iter, ast.List) else node.iter)
        if values == ():
            return self._instead(node.orelse or None)
        if not isinstance(values, tuple) or not isinstance(node.target, ast.Name) or not self._asks_settings(node):
            return node
        return self._instead([Put({node.target.id: v}).visit(copy.deepcopy(s)) for v in values for s in node.body])

    def _asks_settings(self, node: ast.For) -> bool:
        """Whether a loop reads settings by name, getattr(config, name), and can be written out."""
        inner = [n for s in node.body for n in walk(s)]
        if node.orelse or any(isinstance(n, ast.Break | ast.Continue) for n in inner):
            return False
        name = node.target.id  # type: ignore[attr-defined]
        if any(variables.names(n, name) and not isinstance(n.ctx, ast.Load) for n in inner):  # type: ignore[attr-defined]
            return False
        return any(self._reads_setting(n) and variables.names(n.args[1], name) for n in inner)  # type: ignore[attr-defined]

    def _reads_setting(self, node: ast.AST) -> bool:
        asks = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr"
        return asks and len(node.args) == 2 and self._is_config(node.args[0])  # type: ignore[attr-defined]

    def visit_Try(self, node: ast.Try) -> Any:
        self.generic_visit(node)
        if isinstance(node.body[0], ast.Pass):
            return self._instead([*node.orelse, *node.finalbody] or None)
        return node

    def visit_Expr(self, node: ast.Expr) -> Any:
        node.value = self.visit(node.value)
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            return node  # a docstring; the printer decides
        called = node.value.value if isinstance(node.value, ast.YieldFrom) else node.value
        if self._does_nothing(called) or (is_quiet(node.value) and not isinstance(node.value, ast.YieldFrom)):
            return self._instead(None)
        return node

    def _does_nothing(self, node: ast.expr) -> bool:
        if not isinstance(node, ast.Call):
            return False
        if isinstance(node.func, ast.Attribute):
            return node.func.attr == "as_settings" and self._is_config(node.func.value)
        if not (isinstance(node.func, ast.Name) and node.func.id in self.facts.idle):
            return False
        return all(map(is_quiet, [*node.args, *(word.value for word in node.keywords)]))

    def visit_Assert(self, node: ast.Assert) -> Any:
        self.generic_visit(node)
        return self._instead(None) if self._test(node.test) is True else node

    def visit_Assign(self, node: ast.Assign) -> Any:
        self.generic_visit(node)
        target = node.targets[0]
        if len(node.targets) == 1 and isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            pairs = list(zip(target.elts, node.value.elts, strict=False))
            starred = any(isinstance(e, ast.Starred) for e in (*target.elts, *node.value.elts))
            if len(target.elts) == len(node.value.elts) and not starred and variables.separable(pairs):
                return self._instead([ast.copy_location(ast.Assign([t], v), node) for t, v in pairs])
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        before, self.owner = self.owner, node.name
        self.generic_visit(node)
        self.owner = before
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.kinds.append(self.facts.kinds_in(node, self.owner if not self.kinds else None))
        outside, self.ranges = self.ranges, self.parameters.get(node.name, {}) if self.owner is None else {}
        self.ranges = dict(self.ranges) if len(self.kinds) == 1 else {}
        node.args = self.visit(node.args)
        node.decorator_list = [self.visit(item) for item in node.decorator_list]
        node.body = self._block(node.body)
        if len(node.body) > 1 and isinstance(node.body[-1], ast.Return) and node.body[-1].value is None:
            node.body.pop()
        self.kinds.pop()
        self.ranges = outside
        if not self.kinds:
            self.changes += variables.settle(node)
        if node.generator and not any(isinstance(n, ast.Yield | ast.YieldFrom) for n in bound_in(node).own):  # type: ignore[attr-defined]
            node.body.insert(0, ast.Expr(ast.YieldFrom(ast.Tuple([], ast.Load()))))  # it still is a generator
        return node

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        node.body = self.visit(node.body)
        return node


def _copy(node: Any) -> Any:
    return ast.Constant(node.value) if isinstance(node, ast.Constant) else ast.Name(node.id, ast.Load())
