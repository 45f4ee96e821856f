"""Which environment variables does a script read? Answered from its syntax tree; the script is never run."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache

_GETTERS = frozenset({"get", "pop", "setdefault", "__getitem__"})


@dataclass(frozen=True)
class EnvVar:
    """One variable: its name, the source text of its default (None: required or unknown), and where it is read first.

    limits: for settings declared by a call, the literal values of its arguments `low`, `high`, `choices` and the default.
    """

    name: str
    default: str | None
    file: str
    line: int
    limits: tuple[tuple[str, object], ...] = ()

    @property
    def place(self) -> str:
        """file:line."""
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Reads:
    """What one file reads. `computed`: lines that read a name the syntax tree can't tell. `error`: why it can't be parsed."""

    variables: tuple[EnvVar, ...] = ()
    computed: tuple[int, ...] = ()
    error: str | None = None


@lru_cache(maxsize=512)
def read_env(source: bytes, file: str, env_calls: tuple[str, ...] = ()) -> Reads:
    """The variables `source` reads by os.environ[...], .get, .pop, .setdefault, `in`, os.getenv, by a function of its own that
    wraps one of these, or by a call of one of `env_calls` with a literal name first. In order of lines."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "\d" in a foreign script is its author's affair
            tree = ast.parse(source, file)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None)
        return Reads(error=f"{file}:{line or 1}: not Python: {getattr(error, 'msg', None) or error}")
    finder = _Finder(tree, file, env_calls)
    found = sorted(finder.find(), key=lambda item: item.line)
    first: dict[str, EnvVar] = {}
    for item in found:
        known = first.get(item.name)
        if known is None or (known.default is None and item.default is not None):
            first[item.name] = item
    return Reads(tuple(first.values()), tuple(sorted(finder.computed)))


class _Finder:
    def __init__(self, tree: ast.Module, file: str, env_calls: Collection[str]) -> None:
        self.tree, self.file = tree, file
        self.environs, self.getenvs, self.modules = {"environ"}, {"getenv"}, {"os"}
        self.computed: list[int] = []
        self._aliases()
        self.wrappers: dict[str, int] = dict.fromkeys(env_calls, 0)
        self._wrap()

    def _aliases(self) -> None:
        """`import os as o`, `from os import environ as e`, `env = os.environ`."""
        self.environs.clear()
        self.getenvs.clear()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                self.modules |= {item.asname for item in node.names if item.name == "os" and item.asname}
            elif isinstance(node, ast.ImportFrom) and node.module == "os":
                self.environs |= {
                    item.asname or item.name for item in node.names if item.name in {"environ", "environb"}
                }
                self.getenvs |= {item.asname or item.name for item in node.names if item.name == "getenv"}
        for node in ast.walk(self.tree):
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
        """Functions of the script that read the variable named by one of their parameters."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef):
                name, arguments = node.name, node.args
            elif (
                isinstance(node, ast.Assign)
                and isinstance(node.value, ast.Lambda)
                and isinstance(node.targets[0], ast.Name)
            ):
                name, arguments = node.targets[0].id, node.value.args
            else:
                continue
            parameters = [item.arg for item in (*arguments.posonlyargs, *arguments.args)]
            for key, _, _ in self._reads(node):
                if isinstance(key, ast.Name) and key.id in parameters:
                    self.wrappers[name] = parameters.index(key.id)

    def _reads(self, top: ast.AST) -> Iterator[tuple[ast.expr, ast.expr | None, int]]:
        """(name, default, line) of every direct read below a node."""
        for node in ast.walk(top):
            if isinstance(node, ast.Call) and self._is_getter(node.func) and node.args:
                default = node.args[1] if len(node.args) > 1 else None
                keyword = next((item.value for item in node.keywords if item.arg == "default"), None)
                yield node.args[0], default or keyword, node.lineno
            elif isinstance(node, ast.Subscript) and self._is_environ(node.value) and isinstance(node.ctx, ast.Load):
                yield node.slice, None, node.lineno
            elif (
                isinstance(node, ast.Compare)
                and isinstance(node.ops[0], ast.In | ast.NotIn)
                and self._is_environ(node.comparators[0])
            ):
                yield node.left, None, node.lineno

    def find(self) -> Iterator[EnvVar]:
        wrapped = {
            child
            for node in ast.walk(self.tree)
            if (isinstance(node, ast.FunctionDef) and node.name in self.wrappers)
            or (isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda))
            for child in ast.walk(node)
            if isinstance(child, ast.expr)
        }
        for key, default, line in self._reads(self.tree):
            name = _text(key)
            if name is not None:
                yield EnvVar(name, ast.unparse(default) if default else None, self.file, line)
            elif key not in wrapped:
                self.computed.append(line)
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call) and (index := self.wrappers.get(_called(node.func))) is not None:
                yield from self._declared(node, index)

    def _declared(self, node: ast.Call, index: int) -> Iterator[EnvVar]:
        name = _text(node.args[index]) if len(node.args) > index else None
        if name is None:
            return
        default = node.args[index + 1] if len(node.args) > index + 1 else None
        default = default or next((item.value for item in node.keywords if item.arg == "default"), None)
        limits: dict[str, object] = {}
        for key, value in [("default", default), *((item.arg, item.value) for item in node.keywords)]:
            if key in {"default", "low", "high", "choices"} and value is not None:
                with_value, literal = _literal(value)
                if with_value:
                    limits[str(key)] = literal
        yield EnvVar(name, ast.unparse(default) if default else None, self.file, node.lineno, tuple(limits.items()))


def _called(function: ast.expr) -> str:
    return (
        function.id if isinstance(function, ast.Name) else function.attr if isinstance(function, ast.Attribute) else ""
    )


def _text(node: ast.expr) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
        return node.value if isinstance(node.value, str) else node.value.decode("utf-8", "replace")
    return None


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
    if isinstance(operator, ast.Pow) and 0 <= right <= 64 and abs(left) <= 1024:
        return True, left**right
    if isinstance(operator, ast.Add):
        return True, left + right
    if isinstance(operator, ast.Sub):
        return True, left - right
    if isinstance(operator, ast.Mult):
        return True, left * right
    return False, None
