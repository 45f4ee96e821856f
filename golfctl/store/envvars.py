"""Which environment variables does a script read? Answered from its syntax tree; the script is never run."""

from __future__ import annotations

import ast
from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from golfctl.store import packed
from golfctl.store.literals import Literals
from golfctl.store.syntax import Budget, syntax_tree, walk, why_not

UNPACKED = "[unpacked]"
"""Stands after the file's name where a line is one of the text packed inside it."""
_GETTERS = frozenset({"get", "pop", "setdefault", "__getitem__"})
_MOST_LAYERS = 3


@dataclass(frozen=True)
class EnvVar:
    """One variable: its name, the source text of its default (None: required or unknown), and where it is read first.

    limits: for settings declared by a call, the literal values of its arguments `low`, `high`, `choices` and the default.
    required: it is only ever read in a way that fails when nobody set it.
    """

    name: str
    default: str | None
    file: str
    line: int
    limits: tuple[tuple[str, object], ...] = ()
    required: bool = False

    @property
    def place(self) -> str:
        """file:line."""
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Reads:
    """What one file reads. `computed`: lines that read a name the syntax tree can't tell. `error`: why it can't be parsed.

    packed: what is said of a script that runs a text packed inside it; `closed` if that text could not be read. inner: that text.
    """

    variables: tuple[EnvVar, ...] = ()
    computed: tuple[int, ...] = ()
    error: str | None = None
    packed: str = ""
    closed: bool = False
    inner: bytes | None = None


@lru_cache(maxsize=512)
def read_env(source: bytes, file: str, env_calls: tuple[str, ...] = ()) -> Reads:
    """The variables `source` reads by os.environ[...], .get, .pop, .setdefault, `in`, os.getenv, by a function of its own that
    wraps one of these, or by a call of one of `env_calls` with a literal name first. In order of lines.

    A text packed into the source is unpacked and read in its place."""
    try:
        tree = syntax_tree(source, file)
        finder = _Finder(tree, file, env_calls)
        own = Reads(_first_of_each(finder.find()), tuple(sorted(set(finder.computed))))
        found = packed.find(tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return Reads(error=why_not(error, file))
    return own if found is None else _with_inner(own, found, file, env_calls)


def _with_inner(own: Reads, found: packed.Packed, file: str, env_calls: tuple[str, ...]) -> Reads:
    place = f"{file}:{found.line}"
    if found.inner is None or file.count(UNPACKED) >= _MOST_LAYERS:
        why = found.why or "it is packed more than three times"
        return replace(own, packed=f"{place}: runs a text that can't be read here: {why}", closed=True)
    inner = read_env(found.inner, f"{file}{UNPACKED}", env_calls)
    if inner.error:
        return replace(own, packed=f"{place}: its source is packed ({found.how}): {inner.error}", closed=True)
    said = f"{place}: its source is packed ({found.how}); read from the {len(found.inner):,} bytes inside"
    more = f"; {inner.packed}" if inner.packed else ""
    variables = _first_of_each([*own.variables, *inner.variables])
    return Reads(variables, own.computed + inner.computed, None, said + more, inner.closed, inner.inner or found.inner)


def _first_of_each(found: Collection[EnvVar] | Iterator[EnvVar]) -> tuple[EnvVar, ...]:
    """One entry for each name: where it is read first, with the first default anybody gives it."""
    first: dict[str, EnvVar] = {}
    for item in sorted(found, key=lambda item: (item.file.count(UNPACKED), item.line)):
        known = first.get(item.name)
        if known is None:
            first[item.name] = item
        elif known.default is None and item.default is not None:
            first[item.name] = replace(item, required=False)
        else:
            first[item.name] = replace(known, required=known.required and item.required)
    return tuple(first.values())


@dataclass(frozen=True)
class _Read:
    """One place that reads a variable."""

    key: ast.expr
    default: ast.expr | None
    line: int
    required: bool = False


@dataclass(frozen=True)
class _Wrapper:
    """A function that reads the variable its parameter number `key` names; `default`: the number of that for the default."""

    parameters: tuple[str, ...]
    key: int
    default: int | None
    otherwise: ast.expr | None = None
    required: bool = False

    def argument(self, node: ast.Call, index: int | None) -> ast.expr | None:
        """What a call gives for a parameter; a method's own `self` is not among the arguments."""
        if index is None:
            return None
        shift = self.parameters[:1] in {("self",), ("cls",)} and isinstance(node.func, ast.Attribute)
        if index - shift < len(node.args):
            return node.args[index - shift]
        names = {self.parameters[index]} | ({"default"} if index == self.default else set())
        return next((item.value for item in node.keywords if item.arg in names), None)


@dataclass(frozen=True)
class _Function:
    """A function of the script, or a lambda that has a name."""

    name: str
    arguments: ast.arguments
    parameters: tuple[str, ...]


class _Finder:
    """Raises TooLargeError where following the script would take too long."""

    def __init__(self, tree: ast.Module, file: str, env_calls: Collection[str]) -> None:
        self.budget = Budget()
        self.nodes, self.file = walk(tree, self.budget), file
        self.environs, self.getenvs, self.modules = {"environ"}, {"getenv"}, {"os"}
        self.computed: list[int] = []
        self.literals = Literals(tree, self.budget)
        self._aliases()
        declared = _Wrapper(("name", "default"), 0, 1)
        self.wrappers: dict[str, _Wrapper] = dict.fromkeys(env_calls, declared)
        self._inside: set[ast.expr] = set()  # names a wrapper is given: told where it is called
        self._wrap()

    def _aliases(self) -> None:
        """`import os as o`, `from os import environ as e`, `env = os.environ`."""
        self.environs.clear()
        self.getenvs.clear()
        for node in self.nodes:
            if isinstance(node, ast.Import):
                self.modules |= {item.asname for item in node.names if item.name == "os" and item.asname}
            elif isinstance(node, ast.ImportFrom) and node.module == "os":
                self.environs |= {
                    item.asname or item.name for item in node.names if item.name in {"environ", "environb"}
                }
                self.getenvs |= {item.asname or item.name for item in node.names if item.name == "getenv"}
        for node in self.nodes:
            if isinstance(node, ast.Assign) and self._is_environ(node.value):
                self.environs |= {target.id for target in node.targets if isinstance(target, ast.Name)}
            elif isinstance(node, ast.Assign) and self._is_getter(node.value):
                self.getenvs |= {target.id for target in node.targets if isinstance(target, ast.Name)}

    def _is_environ(self, node: ast.expr) -> bool:
        if isinstance(node, ast.Attribute):
            return node.attr == "environ" and isinstance(node.value, ast.Name) and node.value.id in self.modules
        return isinstance(node, ast.Name) and node.id in self.environs

    def _is_getter(self, node: ast.expr) -> bool:
        if isinstance(node, ast.Attribute):
            from_os = node.attr == "getenv" and isinstance(node.value, ast.Name) and node.value.id in self.modules
            return from_os or (node.attr in _GETTERS and self._is_environ(node.value))
        return isinstance(node, ast.Name) and node.id in self.getenvs

    def _wrap(self) -> None:
        """Learn functions of the script that read the variable one of their parameters names, then those that call these."""
        calls: dict[str, list[tuple[_Function, ast.Call]]] = defaultdict(list)
        for node in self.nodes:
            function = _function(node)
            if function is not None:
                below = walk(node, self.budget)
                for call in (item for item in below if isinstance(item, ast.Call)):
                    calls[_called(call.func)].append((function, call))
                for read in self._reads(below):
                    self._learn(function, read)
        waiting = deque(self.wrappers)
        while waiting:
            name = waiting.popleft()
            for function, call in calls[name]:
                found = self._as_read(call, self.wrappers[name])
                if found is not None and self._learn(function, found):
                    waiting.append(function.name)

    def _learn(self, function: _Function, read: _Read) -> bool:
        """Whether the function, which holds this read, is a wrapper that was not known."""
        parameters = function.parameters
        self.budget.spend(len(parameters))
        if not isinstance(read.key, ast.Name) or read.key.id not in parameters:
            return False
        self._inside.add(read.key)
        if function.name in self.wrappers:
            return False
        below = walk(read.default, self.budget) if read.default else []
        used = [item.id for item in below if isinstance(item, ast.Name)]
        default = next((parameters.index(item) for item in used if item in parameters), None)
        positional = [item.arg for item in (*function.arguments.posonlyargs, *function.arguments.args)]
        given = dict(zip(reversed(positional), reversed(function.arguments.defaults), strict=False))
        own = given.get(parameters[default]) if default is not None else read.default
        self.wrappers[function.name] = _Wrapper(
            parameters, parameters.index(read.key.id), default, own, read.required and default is None
        )
        return True

    def _as_read(self, call: ast.Call, wrapper: _Wrapper) -> _Read | None:
        """The call of a wrapper as a read."""
        key = wrapper.argument(call, wrapper.key)
        if key is None:
            return None
        default = wrapper.argument(call, wrapper.default) or wrapper.otherwise
        return _Read(key, default, call.lineno, wrapper.required)

    def _reads(self, nodes: Iterable[ast.AST]) -> Iterator[_Read]:
        """Every direct read among these nodes."""
        for node in nodes:
            if isinstance(node, ast.Call) and self._is_getter(node.func) and node.args:
                default = node.args[1] if len(node.args) > 1 else None
                keyword = next((item.value for item in node.keywords if item.arg == "default"), None)
                yield _Read(node.args[0], default or keyword, node.lineno)
            elif isinstance(node, ast.Subscript) and self._is_environ(node.value) and isinstance(node.ctx, ast.Load):
                yield _Read(node.slice, None, node.lineno, required=True)
            elif (
                isinstance(node, ast.Compare)
                and isinstance(node.ops[0], ast.In | ast.NotIn)
                and self._is_environ(node.comparators[0])
            ):
                yield _Read(node.left, None, node.lineno)

    def find(self) -> Iterator[EnvVar]:
        """Every read of a name that can be told; the lines of the others are left in `computed`."""
        for read in self._reads(self.nodes):
            names = self.literals.texts(read.key)
            default = self._source(read.default) if names else None
            for name in names:
                yield EnvVar(name, default, self.file, read.line, required=read.required)
            if not names and read.key not in self._inside:
                self.computed.append(read.line)
        for node in self.nodes:
            if isinstance(node, ast.Call) and (wrapper := self.wrappers.get(_called(node.func))):
                yield from self._declared(node, wrapper)

    def _declared(self, node: ast.Call, wrapper: _Wrapper) -> Iterator[EnvVar]:
        key = wrapper.argument(node, wrapper.key)
        if key is None:
            return
        names = self.literals.texts(key)
        if not names and key not in self._inside:
            self.computed.append(node.lineno)
        default = wrapper.argument(node, wrapper.default)
        limits: dict[str, object] = {}
        for label, value in [("default", default), *((item.arg, item.value) for item in node.keywords)]:
            if label in {"default", "low", "high", "choices"} and value is not None:
                with_value, literal = _literal(value)
                if with_value:
                    limits[str(label)] = literal
        said = self._source(default or wrapper.otherwise)
        for name in names:
            yield EnvVar(name, said, self.file, node.lineno, tuple(limits.items()), wrapper.required and said is None)

    def _source(self, node: ast.expr | None) -> str | None:
        text = ast.unparse(node) if node is not None else None
        self.budget.spend(len(text or ""))
        return text


def _function(node: ast.AST) -> _Function | None:
    if isinstance(node, ast.FunctionDef):
        name, arguments = node.name, node.args
    elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda) and isinstance(node.targets[0], ast.Name):
        name, arguments = node.targets[0].id, node.value.args
    else:
        return None
    parameters = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
    return _Function(name, arguments, tuple(item.arg for item in parameters))


def _called(function: ast.expr) -> str:
    return (
        function.id if isinstance(function, ast.Name) else function.attr if isinstance(function, ast.Attribute) else ""
    )


def _literal(node: ast.expr) -> tuple[bool, object]:
    """(True, value) for constants, tuples and plain arithmetic of numbers such as 2**31 - 1."""
    try:
        return True, ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        pass
    if isinstance(node, ast.BinOp):
        (known_left, left), (known_right, right) = _literal(node.left), _literal(node.right)
        if known_left and known_right and isinstance(left, int | float) and isinstance(right, int | float):
            return _arithmetic(node.op, left, right)
    return False, None


def _arithmetic(operator: ast.operator, left: float, right: float) -> tuple[bool, object]:
    try:
        return _computed(operator, left, right)
    except OverflowError:
        return False, None


def _computed(operator: ast.operator, left: float, right: float) -> tuple[bool, object]:
    if isinstance(operator, ast.Pow) and 0 <= right <= 64 and abs(left) <= 1024:
        return True, left**right
    if isinstance(operator, ast.Add):
        return True, left + right
    if isinstance(operator, ast.Sub):
        return True, left - right
    if isinstance(operator, ast.Mult):
        return True, left * right
    return False, None
