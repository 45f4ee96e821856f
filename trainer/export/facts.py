"""What is known about the program as it stands: constants, tables, classes, and what attributes always hold."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable, Iterator
from typing import Any

from trainer.export.link import Linked
from trainer.export.literal import UNKNOWN, is_quiet, is_short, literal, same, value_of
from trainer.export.scopes import bound_in, children, parameters, targets, walk

_MUTATORS = {"update", "pop", "popitem", "setdefault", "clear"}
_SHORT = 8


class Facts:
    """`frozen`: field of Config to its value; `fields`: all of its fields; `settings`: the values as an object with attributes.

    An attribute's key is (family, name): a family is a class with all it inherits from or that inherit from it, here.
    """

    def __init__(self, linked: Linked, frozen: dict[str, Any], fields: set[str], settings: Any) -> None:
        self.body, self.origin, self.locals = linked.body, linked.origin, linked.locals
        self.frozen, self.fields, self.settings = frozen, fields, settings
        self.origin_of_import = linked.external.get
        self.config_class = next((n for n, at in self.origin.items() if at == ("trainer.config", "Config")), "")
        self._nodes = [node for statement in self.body for node in walk(statement)]
        self.definitions = self._definitions()
        single = {name: found[0] for name, found in self.definitions.items() if len(found) == 1}
        self.functions = {n: s for n, s in single.items() if isinstance(s, ast.FunctionDef)}
        self.classes = {n: s for n, s in single.items() if isinstance(s, ast.ClassDef)}
        self._families = self._join_families()
        self.calls: dict[str, list[ast.Call]] = {}
        self.loose: set[str] = set()
        for statement in self.body:
            self._find_calls(statement)
        changed = set(self._changed_tables())
        self.constants: dict[str, Any] = {}
        self.long: dict[str, Any] = {}
        self.tables: dict[str, dict[Any, Any]] = {}
        for name, statement in single.items():
            if isinstance(statement, ast.Assign) and len(statement.targets) == 1 and name not in changed:
                self._constant(name, statement.value)
        self.answers = {n: value for n, f in self.functions.items() if (value := _answer(f)) is not UNKNOWN}
        self.idle = {n for n, f in self.functions.items() if _idle(f)}
        self.never_made = {n for n in self.classes if not self._made(n)}
        self.attributes: dict[tuple[str, str] | None, Any] = {}
        self.things: set[tuple[str, str]] = set()
        self.attribute_kinds: dict[tuple[str, str], str] = {}
        self._attributes()

    def every(self, *kinds: type[ast.AST]) -> list[ast.AST]:
        """All nodes of these kinds, as the program was when the facts were found."""
        return [node for node in self._nodes if node.__class__ in kinds]

    def _definitions(self) -> dict[str, list[ast.stmt]]:
        found: dict[str, list[ast.stmt]] = {}
        for statement in self.body:
            for name in targets(statement):
                found.setdefault(name, []).append(statement)
        for node in self.every(ast.Global):
            if isinstance(node, ast.Global):
                for name in node.names:
                    found.setdefault(name, []).append(node)
        return found

    def _constant(self, name: str, value: ast.expr) -> None:
        known = value_of(value)
        if known is not UNKNOWN:
            self.long[name] = known
        if known is not UNKNOWN and not isinstance(known, tuple) and len(str(known)) <= _SHORT:
            self.constants[name] = known
        elif isinstance(known, tuple):
            self.tables[name] = dict.fromkeys(known)
        elif isinstance(value, ast.Dict) and all(value_of(key) is not UNKNOWN for key in value.keys):
            self.tables[name] = {value_of(key): item for key, item in zip(value.keys, value.values, strict=True)}

    def _changed_tables(self) -> Iterator[str]:
        """Globals that hold something which is changed after it was made."""
        for node in self.every(ast.Subscript, ast.Attribute):
            if (
                isinstance(node, ast.Subscript)
                and not isinstance(node.ctx, ast.Load)
                and isinstance(node.value, ast.Name)
            ):
                yield node.value.id
            if isinstance(node, ast.Attribute) and node.attr in _MUTATORS and isinstance(node.value, ast.Name):
                yield node.value.id

    # Calls.

    def _find_calls(self, node: ast.AST, told: bool = False) -> None:
        """Every call of a function or class by its name; `loose`: those that are passed around as values, too."""
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            self.calls.setdefault(node.func.id, []).append(node)
            tested = isinstance(node.func, ast.Name) and node.func.id == "isinstance"
            for part in node.args[:1] if tested else [*node.args, *node.keywords]:
                self._find_calls(part)
            return
        if isinstance(node, ast.ExceptHandler):
            for part in node.body:
                self._find_calls(part)
            return
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            return  # C.x makes no C
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            self.loose.add(node.id)
        for child in children(node):
            self._find_calls(child)

    def _made(self, name: str) -> bool:
        return any(n in self.calls or n in self.loose for n in (name, *self.heirs(name))) or bool(
            [n for n in walk(self.classes[name]) if isinstance(n, ast.Name) and n.id == "cls"]
        )

    def heirs(self, name: str) -> list[str]:
        """Classes that inherit from one, directly or not."""
        direct = [n for n, c in self.classes.items() if name in _bases(c)]
        return [*direct, *(late for n in direct for late in self.heirs(n))]

    def gives_thing(self, call: ast.Call) -> bool:
        """Whether a call returns something that is not None, for sure."""
        if not isinstance(call.func, ast.Name):
            return ast.unparse(call.func).endswith("nn.ModuleList")
        name = call.func.id
        return name in self.classes or (name in self.functions and self.functions[name].never_none)  # type: ignore[attr-defined]

    def kind_of_call(self, name: str) -> str | None:
        """The class of what a call of this global returns."""
        if name in self.classes:
            return name
        kind = self.functions[name].kind if name in self.functions else None  # type: ignore[attr-defined]
        return kind if kind in self.classes else None

    # Settings.

    def is_config(self, node: ast.expr, kind: str | None) -> bool:
        """Whether an expression is the settings: called config, or known to be of their class."""
        named = isinstance(node, ast.Name) and node.id == "config"
        held = isinstance(node, ast.Attribute) and node.attr == "config"
        return named or held or (kind is not None and kind == self.config_class)

    def asked(self, name: str, given: list[ast.expr], values: list[Any], is_config: Callable[[ast.expr], bool]) -> Any:
        """What a rule of `trainer.options` answers: they are pure functions of settings and plain values. UNKNOWN if it may not
        be worked out yet."""
        module, real = self.origin.get(name, ("", ""))
        if not module.startswith("trainer.options.") or name not in self.functions or not given:
            return UNKNOWN
        settled = [is_config(node) or value is not UNKNOWN for node, value in zip(given, values, strict=True)]
        if not all(settled) or not self.reads(name) <= self.frozen.keys():
            return UNKNOWN
        act = getattr(importlib.import_module(module), real)
        if settled.count(True) != act.__code__.co_argcount or act.__code__.co_kwonlyargcount:
            return UNKNOWN  # some of its parameters are settled here already
        found = [self.settings if value is UNKNOWN else value for value in values]
        try:
            answer = act(*found)
        except ValueError:  # it says so when it is asked, too
            return UNKNOWN
        return answer if literal(answer) is not None else UNKNOWN

    def reads(self, name: str, seen: frozenset[str] = frozenset()) -> set[str]:
        """Settings that a function and those it names may read; "*" stands for any."""
        found: set[str] = set()
        for node in walk(self.functions[name]):
            if isinstance(node, ast.Attribute) and node.attr in self.fields:
                found.add(node.attr)
            elif (isinstance(node, ast.Attribute) and node.attr == "as_settings") or (
                isinstance(node, ast.Name) and node.id == "getattr"
            ):
                found.add("*")
            elif isinstance(node, ast.Name) and node.id in self.functions and node.id not in {name, *seen}:
                found |= self.reads(node.id, seen | {name})
        return found

    # Classes.

    def family(self, name: str | None) -> str:
        """The name that stands for a class's family."""
        return self._families.get(name or "", name or "")

    def _join_families(self) -> dict[str, str]:
        first = {name: name for name in self.classes}
        for _ in range(len(first)):
            before = dict(first)
            for name, node in self.classes.items():
                for base in _bases(node):
                    if base in first:
                        first[name] = first[base] = min(first[name], first[base])
            if before == first:
                break
        return first

    def kinds_in(self, node: ast.FunctionDef, owner: str | None) -> dict[str, str | None]:
        """Names of a function's own to the class of what they hold, None where that is not known."""
        found: dict[str, str | None] = dict.fromkeys(parameters(node))
        inside = bound_in(node)
        set_often = inside.names
        for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
            kind = getattr(argument, "kind", None)
            if kind in self.classes and argument.arg not in set_often:
                found[argument.arg] = kind
        if owner is not None and node.args.args and not node.decorator_list:
            found[node.args.args[0].arg] = owner
        for inner in inside.own:
            if isinstance(inner, ast.Assign) and len(inner.targets) == 1 and isinstance(inner.targets[0], ast.Name):
                name, value = inner.targets[0].id, inner.value
                if set_often.count(name) == 1 and isinstance(value, ast.Call) and isinstance(value.func, ast.Name):
                    found[name] = self.kind_of_call(value.func.id)
        return found | {n: None for n in set_often if n not in found}

    def _attributes(self) -> None:
        """What attributes always hold: from every place where one is set."""
        stores: dict[tuple[str, str], list[ast.expr | None]] = {}
        wild: set[str] = set()
        for statement in self.body:
            if isinstance(statement, ast.ClassDef):
                self._stores_of_class(statement, stores, wild)
            else:
                self._stores_in(statement, None, None, stores, wild)
        for key, values in stores.items():
            if key[1] in wild or None in values:
                continue
            given = [value for value in values if value is not None]
            known = [value_of(value) for value in given]
            if same(known) and is_short(known[0]):
                self.attributes[key] = known[0]
            if all(isinstance(v, ast.Call) and self.gives_thing(v) for v in given):
                self.things.add(key)
            kinds = {
                self.kind_of_call(v.func.id) if isinstance(v, ast.Call) and isinstance(v.func, ast.Name) else None
                for v in given
            }
            if len(kinds) == 1 and (kind := kinds.pop()) is not None:
                self.attribute_kinds[key] = kind

    def _stores_of_class(
        self, node: ast.ClassDef, stores: dict[tuple[str, str], list[ast.expr | None]], wild: set[str]
    ) -> None:
        family = self.family(node.name)
        fields: list[tuple[str, ast.expr | None]] = []
        for part in node.body:
            if isinstance(part, ast.FunctionDef):
                stores.setdefault((family, part.name), []).append(None)
                own = part.args.args[0].arg if part.args.args else None
                self._stores_in(part, own, family, stores, wild)
            elif isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
                fields.append((part.target.id, part.value))
                if (kind := part.kind) in self.classes:  # type: ignore[attr-defined]
                    self.attribute_kinds[family, part.target.id] = kind
            else:
                for name in targets(part):
                    stores.setdefault((family, name), []).append(None)
        if fields:
            self._fields(node, fields, stores)

    def _fields(
        self,
        node: ast.ClassDef,
        fields: list[tuple[str, ast.expr | None]],
        stores: dict[tuple[str, str], list[ast.expr | None]],
    ) -> None:
        """Fields of a dataclass are set where one is made."""
        family = self.family(node.name)
        plain = node.decorator_list and not _bases(node) and not self.heirs(node.name) and node.name not in self.loose
        calls = self.calls.get(node.name, [])
        open_ = not plain or any(isinstance(a, ast.Starred) for c in calls for a in c.args)
        open_ = (
            open_
            or any(word.arg is None for c in calls for word in c.keywords)
            or any(getattr(s, "name", "") == "__init__" for s in node.body)
        )
        for place, (name, default) in enumerate(fields):
            held = stores.setdefault((family, name), [])
            for call in calls:
                by_name = next((word.value for word in call.keywords if word.arg == name), default)
                held.append(call.args[place] if place < len(call.args) else by_name)
            if open_ or not calls:
                held.append(None)

    def _stores_in(
        self,
        node: ast.AST,
        own: str | None,
        family: str | None,
        stores: dict[tuple[str, str], list[ast.expr | None]],
        wild: set[str],
    ) -> None:
        """Attributes set inside a function: of the object itself into `stores`, of others into `wild`."""
        valued: dict[int, ast.expr] = {}
        for inner in walk(node):
            if isinstance(inner, ast.Assign):
                for target in inner.targets:
                    valued[id(target)] = inner.value
                    if (
                        isinstance(target, ast.Tuple)
                        and isinstance(inner.value, ast.Tuple)
                        and len(target.elts) == len(inner.value.elts)
                    ):
                        starred = any(isinstance(e, ast.Starred) for e in (*target.elts, *inner.value.elts))
                        if not starred:
                            valued |= {id(t): v for t, v in zip(target.elts, inner.value.elts, strict=True)}
            elif isinstance(inner, ast.AnnAssign) and inner.value is not None:
                valued[id(inner.target)] = inner.value
            elif isinstance(inner, ast.AugAssign) and isinstance(inner.target, ast.Attribute):
                wild.add(inner.target.attr)
            elif isinstance(inner, ast.Call):
                wild |= _set_by_call(inner)
            if isinstance(inner, ast.Attribute) and not isinstance(inner.ctx, ast.Load):
                if (
                    own is not None
                    and family is not None
                    and isinstance(inner.value, ast.Name)
                    and inner.value.id == own
                ):
                    value = valued.get(id(inner))
                    stores.setdefault((family, inner.attr), []).append(value if value is not None else None)
                else:
                    wild.add(inner.attr)


def _set_by_call(call: ast.Call) -> set[str]:
    """Attributes that a call may set by name: setattr and its kin, replace(..., name=...)."""
    name = getattr(call.func, "id", getattr(call.func, "attr", ""))
    if name == "replace":
        return {word.arg for word in call.keywords if word.arg}
    if name in {"setattr", "__setattr__", "register_buffer", "register_parameter", "register_module", "add_module"}:
        return {part.value for part in call.args if isinstance(part, ast.Constant) and isinstance(part.value, str)}
    return set()


def _bases(node: ast.ClassDef) -> list[str]:
    return [base.id for base in node.bases if isinstance(base, ast.Name)]


def _body(node: ast.FunctionDef) -> list[ast.stmt]:
    doc = isinstance(node.body[0], ast.Expr) and isinstance(node.body[0].value, ast.Constant)
    return node.body[1:] if doc else node.body


def _answer(node: ast.FunctionDef) -> Any:
    """What a function always returns, where it does nothing else."""
    body = _body(node)
    if len(body) != 1 or not isinstance(body[0], ast.Return) or node.decorator_list or node.generator:  # type: ignore[attr-defined]
        return UNKNOWN
    return None if body[0].value is None else value_of(body[0].value)


def _idle(node: ast.FunctionDef) -> bool:
    """Whether calling a function does nothing at all; a generator that yields nothing counts, too."""
    if node.decorator_list:
        return False
    return all(
        isinstance(s, ast.Pass)
        or (isinstance(s, ast.Return) and (s.value is None or is_quiet(s.value)))
        or (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))
        or (isinstance(s, ast.Expr) and isinstance(s.value, ast.YieldFrom) and value_of(s.value.value) == ())
        for s in node.body
    )
