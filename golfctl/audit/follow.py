"""Scripts followed from their first line, as a reader with a pencil would: values get marks, nothing is executed.

Every script of a package is one program: calls go into functions, methods and imported modules, loops are gone through twice,
both ways of an `if` are gone. What a walk meets goes into `seen.Seen`; a walk that takes too long ends where it is.
"""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

from golfctl.audit import known, vocabulary
from golfctl.audit.marks import NOTHING, Value, each, join, less, mixed, of_text
from golfctl.audit.names import TARGET, VALIDATION, Function, last, walk
from golfctl.audit.seen import Place, Seen, Turn
from golfctl.audit.source import MODULE, Script
from golfctl.audit.things import Env, Kind, Routine, Thing

STEPS = 250_000
"""Expressions that are looked at in one package; the longest script of the field takes a third."""
DEPTH = 14
TURNS = 2
"""A loop is gone through so often: the second turn sees what the first left."""


class EnoughError(Exception):
    """The walk took too long."""


def findings(scripts: Sequence[Script]) -> tuple[bool, Iterator[tuple[str, Place, str]]]:
    """Whether it came to the end, and (rule, (number of the script, line), what was found) for S1 to S7."""
    walk = Walk(scripts)
    ended = False
    with contextlib.suppress(EnoughError, RecursionError):
        walk.all()
        ended = True
    return ended, walk.seen.close()


class Walk:
    """One walk through all scripts of a package."""

    def __init__(self, scripts: Sequence[Script]) -> None:
        self.scripts, self.seen = scripts, Seen()
        self.path: tuple[Turn, ...] = ()
        self.envs: dict[int, Env] = {}
        self.home, self.left = 0, STEPS
        self.stack: list[ast.AST] = []
        self.entered: set[ast.AST] = set()
        self.routines: dict[str, list[Routine]] = {}
        self.words: list[str] = []
        self.still = 0
        self.inner: list[set[str]] = []
        self.asked: set[int] = set()
        self.results: dict[tuple[object, ...], Value] = {}

    def all(self) -> None:
        """Every script as a module; then functions that were never entered but are spoken of."""
        inner_first = sorted(range(len(self.scripts)), key=lambda number: not self.scripts[number].inside)
        for number in inner_first:
            self.module(number)
        for number, script in enumerate(self.scripts):
            spoken = _spoken(script.tree)
            for node, around in self._left_over(number):
                if node not in self.entered and (not spoken or node.name in spoken):
                    self.home = number
                    self.enter(Routine(node, number, around), [], {}, node)

    def _left_over(self, number: int) -> list[tuple[Function, tuple[Env, ...]]]:
        env = self.module(number)
        return [
            (node, (env,))
            for node in walk(self.scripts[number].tree)
            if isinstance(node, ast.FunctionDef) and node.name != MODULE
        ]

    def module(self, number: int) -> Env:
        """The names of a script, after going through it once."""
        if number not in self.envs:
            env = self.envs[number] = {"__name__": Value(thing="__main__")}
            home, self.home = self.home, number
            for statement in self.scripts[number].tree.body:
                loose = isinstance(statement, ast.FunctionDef) and statement.name == MODULE
                if loose and isinstance(statement, ast.FunctionDef):
                    self.block(statement.body, (env,))
                else:
                    self.statement(statement, (env,))
            self.home = home
        return self.envs[number]

    # statements

    def block(self, body: Sequence[ast.stmt], scopes: tuple[Env, ...]) -> None:
        for statement in body:
            self.statement(statement, scopes)

    def statement(self, node: ast.stmt, scopes: tuple[Env, ...]) -> None:
        """One statement; names it binds go into the innermost scope."""
        env = scopes[0]
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            routine = Routine(node, self.home, scopes)
            env[node.name] = Value(thing=routine)
            self.routines.setdefault(node.name, []).append(routine)
        elif isinstance(node, ast.ClassDef):
            env[node.name] = Value(thing=self.kind(node, scopes))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            self.imported(node, env)
        elif isinstance(node, ast.Assign):
            value = self.value(node.value, scopes)
            for target in node.targets:
                self.bind(target, value, scopes)
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            self.bind(node.target, self.value(node.value, scopes), scopes)
        elif isinstance(node, ast.AugAssign):
            self.added(node, scopes)
        elif isinstance(node, ast.Expr):
            known.dropped(self, node.value, self.value(node.value, scopes))
        elif isinstance(node, ast.Return):
            value = self.value(node.value, scopes) if node.value is not None else NOTHING
            known.returned(self, node, value)
            env["return"] = join([env["return"], value]) if "return" in env else value
        elif isinstance(node, ast.For | ast.AsyncFor):
            self.loop(node, scopes)
        elif isinstance(node, ast.While):
            for turn in range(TURNS):
                self.value(node.test, scopes)
                self.turned(node, turn, node.body, scopes)
        elif isinstance(node, ast.If):
            self.either(node, scopes)
        elif isinstance(node, ast.With | ast.AsyncWith):
            self.within(node, scopes)
        elif isinstance(node, ast.Try | ast.TryStar):
            for part in (node.body, *(handler.body for handler in node.handlers), node.orelse, node.finalbody):
                self.block(part, scopes)
        elif isinstance(node, ast.Match):
            self.value(node.subject, scopes)
            for case in node.cases:
                self.block(case.body, scopes)
        elif isinstance(node, ast.Raise | ast.Delete):
            return
        else:
            for child in ast.iter_child_nodes(node):
                if isinstance(child, ast.expr):
                    self.value(child, scopes)

    def either(self, node: ast.If, scopes: tuple[Env, ...]) -> None:
        chosen = self.chosen(node.test, scopes)
        if chosen is not None:
            return self.block(node.body if chosen else node.orelse, scopes)
        env = scopes[0]
        before = dict(env)
        path = self.path
        self.path = (*path, (id(node), "then"))
        self.block(node.body, scopes)
        then = dict(env)
        env.clear()
        env.update(before)
        self.path = (*path, (id(node), "else"))
        self.block(node.orelse, scopes)
        self.path = path
        for name in {*then, *env}:
            ways = [scope[name] for scope in (then, env) if name in scope]
            env[name] = join(ways)
        return None

    def chosen(self, test: ast.expr, scopes: tuple[Env, ...]) -> bool | None:
        """How a test of a parameter against text ends, as `split == "train"`; None where nobody can say."""
        self.value(test, scopes)
        asked = test.left if isinstance(test, ast.Compare) else None
        if not isinstance(asked, ast.Name) or not self.inner or asked.id not in self.inner[-1]:
            return None
        return vocabulary.outcome(test, self.name(asked.id, scopes).thing)

    def within(self, node: ast.With | ast.AsyncWith, scopes: tuple[Env, ...]) -> None:
        still = any(vocabulary.NO_GRAD & vocabulary.words(item.context_expr) for item in node.items)
        for item in node.items:
            value = self.value(item.context_expr, scopes)
            if item.optional_vars is not None:
                self.bind(item.optional_vars, value, scopes)
        self.still += still
        self.block(node.body, scopes)
        self.still -= still

    def loop(self, node: ast.For | ast.AsyncFor, scopes: tuple[Env, ...]) -> None:
        values = self.value(node.iter, scopes)
        listed = len(values.parts) if values.parts and len(values.parts) <= vocabulary.FEW else 0
        for turn in range(max(TURNS, listed)):
            if values.parts and listed:
                if turn >= len(values.parts):
                    break
                one = values.parts[turn]
            else:
                one = vocabulary.element(values)
            counts = isinstance(node.iter, ast.Call) and last(node.iter.func) == "range"
            marked = each(one, ("turn", id(node), turn))
            self.bind(node.target, replace(marked, thing=("index", id(node))) if counts else marked, scopes)
            self.turned(node, turn, node.body, scopes)
        mine = {("turn", id(node), turn) for turn in range(max(TURNS, listed))}
        scopes[0].update({name: less(value, mine) for name, value in scopes[0].items() if name != "return"})
        self.block(node.orelse, scopes)

    def turned(self, node: ast.stmt, turn: int, body: Sequence[ast.stmt], scopes: tuple[Env, ...]) -> None:
        """A loop's body in its n-th turn."""
        self.path = (*self.path, (id(node), turn))
        head = node.target if isinstance(node, ast.For) else node.test if isinstance(node, ast.While) else node
        self.words.append(" ".join(vocabulary.words(head)))
        self.block(body, scopes)
        self.words.pop()
        self.path = self.path[:-1]

    def added(self, node: ast.AugAssign, scopes: tuple[Env, ...]) -> None:
        old = self.value(node.target, scopes)
        value = self.value(node.value, scopes)
        if isinstance(node.op, ast.Add | ast.Sub):
            known.counted(self, node, value)
        self.bind(node.target, known.combined(self, node, node.op, old, value), scopes)

    def bind(self, target: ast.expr, value: Value, scopes: tuple[Env, ...]) -> None:
        """Give names what they are assigned."""
        if isinstance(target, ast.Name):
            scopes[0][target.id] = value
        elif isinstance(target, ast.Tuple | ast.List):
            parts = value.parts if value.parts and len(value.parts) == len(target.elts) else None
            starred = any(isinstance(part, ast.Starred) for part in target.elts)
            for place, part in enumerate(target.elts):
                self.bind(part, parts[place] if parts and not starred else vocabulary.element(value), scopes)
        elif isinstance(target, ast.Starred):
            self.bind(target.value, value, scopes)
        elif isinstance(target, ast.Attribute):
            holder = self.value(target.value, scopes)
            if isinstance(holder.thing, Thing):
                holder.thing.has[target.attr] = value
        elif isinstance(target, ast.Subscript):
            known.counted(self, target, value)
            index = self.value(target.slice, scopes)
            held = self.value(target.value, scopes)
            if isinstance(target.value, ast.Name):
                scopes[0][target.value.id] = held.plus(*value.all_marks(), *index.of("turn"))

    def kind(self, node: ast.ClassDef, scopes: tuple[Env, ...]) -> Kind:
        parents = [self.value(base, scopes).thing for base in node.bases]
        mine = tuple(one for one in parents if isinstance(one, Kind))
        net = any(last(base) == "Module" for base in node.bases) or any(one.net for one in mine)
        body: Env = {}
        for statement in node.body:
            self.statement(statement, (body, *scopes))
        return Kind(node.name, body, mine, net)

    def imported(self, node: ast.Import | ast.ImportFrom, env: Env) -> None:
        """Names of other scripts of the package; of libraries only that they are libraries."""
        for alias in node.names:
            name = alias.asname or alias.name.partition(".")[0]
            if isinstance(node, ast.ImportFrom):
                number = self.script_of(node.module or "")
                if number is not None:
                    theirs = self.module(number)
                    for each in theirs if alias.name == "*" else [alias.name]:
                        env[alias.asname or each if alias.name != "*" else each] = theirs.get(each, NOTHING)
                    continue
            number = self.script_of(alias.name if isinstance(node, ast.Import) else f"{node.module}.{alias.name}")
            env[name] = Value(thing=("module", number) if number is not None else ("library", alias.name))

    def script_of(self, dotted: str) -> int | None:
        wanted = dotted.strip(".").replace(".", "/")
        for number, script in enumerate(self.scripts):
            stem = script.path.removesuffix(".py").removesuffix("/__init__")
            if wanted and not script.inside and (stem == wanted or stem.endswith(f"/{wanted}")):
                return number
        return None

    # expressions

    def value(self, node: ast.expr, scopes: tuple[Env, ...]) -> Value:
        """What an expression is."""
        self.left -= 1
        if self.left < 0:
            raise EnoughError
        if isinstance(node, ast.Constant):
            return Value(of_text(node.value) if isinstance(node.value, str) else frozenset(), None, node.value)
        if isinstance(node, ast.Name):
            return self.name(node.id, scopes)
        if isinstance(node, ast.Attribute):
            return self.attribute(node, self.value(node.value, scopes))
        if isinstance(node, ast.Call):
            return self.call(node, scopes)
        if isinstance(node, ast.BinOp):
            return known.combined(self, node, node.op, self.value(node.left, scopes), self.value(node.right, scopes))
        if isinstance(node, ast.Subscript):
            return known.part(self, node, self.value(node.value, scopes), self.value(node.slice, scopes))
        if isinstance(node, ast.Tuple | ast.List | ast.Set):
            return Value(parts=tuple(self.value(part, scopes) for part in node.elts))
        if isinstance(node, ast.Lambda):
            return Value(thing=Routine(node, self.home, scopes))
        if isinstance(node, ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp):
            return self.comprehension(node, scopes)
        if isinstance(node, ast.NamedExpr):
            value = self.value(node.value, scopes)
            self.bind(node.target, value, scopes)
            return value
        if isinstance(node, ast.IfExp):
            chosen = self.chosen(node.test, scopes)
            ways = [node.body, node.orelse] if chosen is None else [node.body if chosen else node.orelse]
            return join([self.value(way, scopes) for way in ways])
        if isinstance(node, ast.Yield | ast.YieldFrom):
            value = self.value(node.value, scopes) if node.value is not None else NOTHING
            env = scopes[0]
            env["return"] = join([env["return"], Value(parts=(value,))]) if "return" in env else Value(parts=(value,))
            return NOTHING
        if isinstance(node, ast.JoinedStr):
            texts = [part.value for part in node.values if isinstance(part, ast.Constant)]
            inner = [self.value(part.value, scopes) for part in node.values if isinstance(part, ast.FormattedValue)]
            return mixed([Value(of_text("*".join(map(str, texts)))), *inner])
        if isinstance(node, ast.Compare):
            return known.compared(node, mixed(self.value(part, scopes) for part in [node.left, *node.comparators]))
        parts = [self.value(part, scopes) for part in ast.iter_child_nodes(node) if isinstance(part, ast.expr)]
        return mixed(parts)

    def name(self, name: str, scopes: tuple[Env, ...]) -> Value:
        for scope in scopes:
            if name in scope:
                value = scope[name]
                if value.thing is None and not value.parts and not value.marks and VALIDATION.search(name):
                    return value.plus(("val",))
                return value
        return Value(frozenset({("val",)})) if VALIDATION.search(name) else NOTHING

    def attribute(self, node: ast.Attribute, holder: Value) -> Value:
        """`holder.name`."""
        thing = holder.thing
        got: Value | None = None
        if isinstance(thing, Thing):
            got = thing.has.get(node.attr) or thing.kind.find(node.attr)
            if got is not None and isinstance(got.thing, Routine):
                got = replace(got, thing=replace(got.thing, me=holder))
        elif isinstance(thing, Kind):
            got = thing.find(node.attr)
        elif isinstance(thing, tuple) and thing[0] == "module":
            got = self.module(thing[1]).get(node.attr)
        if got is not None:
            return got
        if node.attr in vocabulary.SIZES:
            return NOTHING
        value = holder.without() if not isinstance(thing, Thing) else NOTHING
        return value.plus(("val",)) if VALIDATION.search(node.attr) and not value.has("train") else value

    def comprehension(
        self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp, scopes: tuple[Env, ...]
    ) -> Value:
        inner = ({}, *scopes)
        for clause in node.generators:
            one = vocabulary.element(self.value(clause.iter, inner))
            self.bind(clause.target, each(one, ("turn", id(node), 0)), inner)
        made = node.value if isinstance(node, ast.DictComp) else node.elt
        value = self.value(made, inner)
        mine = {("turn", id(node), 0)}
        return Value(parts=(less(value, mine),), thing=("many",))

    # calls

    def call(self, node: ast.Call, scopes: tuple[Env, ...]) -> Value:
        """A call: into what the package defines, else what is known of the library."""
        if isinstance(node.func, ast.Attribute):
            holder = self.value(node.func.value, scopes)
            function = self.attribute(node.func, holder)
        else:
            holder, function = NOTHING, self.value(node.func, scopes)
        given = [self.value(part.value if isinstance(part, ast.Starred) else part, scopes) for part in node.args]
        if any(isinstance(part, ast.Starred) for part in node.args):
            given = _unpacked(node, given)
        named = {part.arg or "**": self.value(part.value, scopes) for part in node.keywords}
        thing = function.thing
        if isinstance(thing, Kind):
            return self.made(thing, given, named, node)
        if isinstance(thing, Thing):
            action = thing.kind.find("__call__")
            if thing.kind.net or action is None or not isinstance(action.thing, Routine):
                return known.model(self, node, given, named)
            return self.enter(replace(action.thing, me=function), given, named, node)
        if isinstance(thing, Routine):
            if thing.me is not None and isinstance(thing.me.thing, Thing) and thing.me.thing.kind.net:
                return known.model(self, node, given, named)
            return self.enter(thing, given, named, node)
        word = last(node.func)
        if word in vocabulary.SAME and isinstance(holder.thing, Thing):
            return holder
        other = self.by_word(node, word, holder)
        if other is not None:
            return self.enter(other, given, named, node)
        return known.call(self, node, word, holder, given, named)

    def by_word(self, node: ast.Call, word: str, holder: Value) -> Routine | None:
        """The only function of that name in the package, where nobody can say what is called."""
        if isinstance(node.func, ast.Subscript) and isinstance(node.func.slice, ast.Constant):
            word = str(node.func.slice.value)
        elif not isinstance(node.func, ast.Attribute) or isinstance(holder.thing, tuple) or holder.all_marks():
            return None
        some = self.routines.get(word, [])
        return some[0] if len(some) == 1 and not word.startswith("__") and word not in vocabulary.PLAIN else None

    def made(self, kind: Kind, given: list[Value], named: dict[str, Value], node: ast.AST) -> Value:
        value = Value(thing=Thing(kind))
        start = kind.find("__init__")
        if start is not None and isinstance(start.thing, Routine) and not kind.net:
            self.enter(replace(start.thing, me=value), given, named, node)
        elif not kind.net and isinstance(value.thing, Thing):
            fields = [name for name, item in kind.body.items() if not isinstance(item.thing, Routine)]
            value.thing.has.update(zip(fields, given, strict=False))
            value.thing.has.update(named)
        return value

    def enter(self, routine: Routine, given: list[Value], named: dict[str, Value], node: ast.AST) -> Value:
        """Go through a function with these arguments."""
        code = routine.node
        if self.stack.count(code) > 1 or len(self.stack) > DEPTH:
            return mixed([*given, *named.values()])
        key = _key(routine, given, dict(sorted(named.items())), self.still)
        if key is not None and key in self.results:
            return self.results[key]
        size = self.seen.size()
        self.entered.add(code)
        env = self.arguments(routine, given, named, vocabulary.plain(node))
        home, self.home = self.home, routine.home
        self.stack.append(code)
        self.inner.append({item.arg for item in code.args.posonlyargs + code.args.args})
        self.words.append("" if isinstance(code, ast.Lambda) else code.name)
        around = (env, *routine.around)
        if isinstance(code, ast.Lambda):
            value = self.value(code.body, around)
        else:
            still = any(vocabulary.NO_GRAD & vocabulary.words(item) for item in code.decorator_list)
            self.still += still
            self.block(code.body, around)
            self.still -= still
            value = env.get("return", NOTHING)
        self.words.pop()
        self.stack.pop()
        self.inner.pop()
        self.home = home
        if key is not None and self.seen.size() == size:  # what was met is met again in another turn
            self.results[key] = value
        return value

    def arguments(self, routine: Routine, given: list[Value], named: dict[str, Value], plain: bool) -> Env:
        spec = routine.node.args
        names = [item.arg for item in spec.posonlyargs + spec.args]
        values = ([routine.me] if routine.me is not None and names[:1] in (["self"], ["cls"]) else []) + given
        env: Env = dict(zip(names, values, strict=False))
        if spec.vararg is not None:
            env[spec.vararg.arg] = Value(parts=tuple(values[len(names) :]))
        known_names = {*names, *(item.arg for item in spec.kwonlyargs)}
        env.update({name: value for name, value in named.items() if name in known_names})
        for item, default in zip(reversed(names), reversed(spec.defaults), strict=False):
            if item not in env:
                held = self.value(default, routine.around)
                env[item] = held if plain else replace(held, thing=None)
        for name in known_names - set(env):
            token = ("tok", ("argument", id(routine.node)), 1)
            env[name] = Value(frozenset({token})) if TARGET.match(name) else NOTHING
        return env

    def variable(self, node: ast.expr) -> bool:
        """Whether a call calls what a function was given, by a name of its own."""
        return isinstance(node, ast.Name) and bool(self.inner) and node.id in self.inner[-1]

    def at(self, node: ast.AST) -> Place:
        """Where a node stands."""
        return self.home, getattr(node, "lineno", 0)


def _unpacked(node: ast.Call, given: list[Value]) -> list[Value]:
    out: list[Value] = []
    for part, value in zip(node.args, given, strict=True):
        out += list(value.parts) if isinstance(part, ast.Starred) and value.parts else [value]
    return out


def _key(routine: Routine, given: list[Value], named: dict[str, Value], still: int) -> tuple[object, ...] | None:
    """What a call may be known again by: only one whose arguments hold no data and no objects."""
    values = [*given, *named.values(), *([routine.me] if routine.me is not None else [])]
    if any(value.all_marks() or value.thing.__class__ in {Thing, Routine, Kind} or value.parts for value in values):
        return None
    texts = [value.thing if isinstance(value.thing, str) else "" for value in values]
    return (routine.node, bool(still), len(given), *named, *texts)


def _spoken(tree: ast.Module) -> set[str]:
    """Names that a script uses anywhere; empty for one that starts nothing."""
    if not any(isinstance(item, ast.FunctionDef) and item.name == MODULE for item in tree.body):
        return set()
    return {node.id for node in walk(tree) if isinstance(node, ast.Name)} | {
        node.attr for node in walk(tree) if isinstance(node, ast.Attribute)
    }
