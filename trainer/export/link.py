"""All modules of a package as one, with every global name unique: no later pass has to ask what a name means.

After `link` no local variable, parameter or
attribute of a class body bears the name of a global. Annotations are gone; what they said of classes stays on the nodes:
`arg.kind` and `AnnAssign.kind` (unique name of a class, or None), `FunctionDef.kind` of what is returned, and
`FunctionDef.never_none`.
"""

from __future__ import annotations

import ast
import builtins
import keyword
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trainer.export.scopes import Scope, bound_in, class_scope, function_scope, targets


class ExportError(ValueError):
    """The sources do something that an export can't follow. One line: where and what."""


@dataclass(frozen=True)
class Inside:
    """What a name of a module stands for: a module of the package."""

    module: str


Meaning = str | Inside
"""A unique global name, or a module of the package."""


@dataclass
class Linked:
    """One module made of many. body: its statements in an order that runs. origin: unique name to (module, name there).

    external: unique name to what it is imported from, (module, attribute or "").
    """

    body: list[ast.stmt]
    origin: dict[str, tuple[str, str]]
    locals: set[str]
    external: dict[str, tuple[str, str]]


def read(folder: Path, package: str) -> dict[str, ast.Module]:
    """Dotted name to syntax tree of every module in a package's folder. Raises OSError, SyntaxError."""
    found = {}
    for path in sorted(folder.rglob("*.py")):
        words = [package, *path.relative_to(folder).with_suffix("").parts]
        name = ".".join(words[:-1] if words[-1] == "__init__" else words)
        found[name] = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    return found


def link(modules: dict[str, ast.Module], roots: list[str]) -> Linked:
    """`roots` and all they import, directly or not, as one. Changes the trees. Raises ExportError."""
    return _Linker(modules, roots).linked()


class _Linker:
    def __init__(self, modules: dict[str, ast.Module], roots: list[str]) -> None:
        self.modules = modules
        self.order: list[str] = []
        for root in roots:
            self._order(root)
        self.origin: dict[str, tuple[str, str]] = {}
        self.taken = {*dir(builtins), *keyword.kwlist}
        self.locals = {name for module in self.order for name in _local_names(modules[module])}
        self.classes: set[str] = set()
        self.external: dict[tuple[str, str], str] = {}
        self.meanings: dict[tuple[str, str], Meaning] = {}
        self._imports: dict[tuple[str, str], tuple[str, str | None]] = {}
        for module in self.order:
            self._declare(module)

    def linked(self) -> Linked:
        body: list[ast.stmt] = []
        imported: set[str] = set()
        for module in self.order:
            for statement in self.modules[module].body:
                for new in [] if _left_out(statement) else _as_list(Renamer(self, module).visit(statement)):
                    said = ast.unparse(new) if isinstance(new, ast.Import | ast.ImportFrom) else ""
                    if said not in imported:
                        body.append(new)
                        imported |= {said} - {""}
        return Linked(body, self.origin, self.locals, {name: place for place, name in self.external.items()})

    def _order(self, module: str) -> None:
        """Modules as Python would run them; those imported inside functions come behind."""
        waiting, seen = [module], set(self.order)

        def walk(name: str) -> None:
            if name in seen:
                return
            seen.add(name)
            tree = self.modules[name]
            top = {id(node) for statement in tree.body for node in _outside_functions(statement)}
            for node in ast.walk(tree):
                for target in self._inside(node):
                    if id(node) in top:
                        walk(target)
                    else:
                        waiting.append(target)
            self.order.append(name)

        while waiting:
            walk(waiting.pop(0))

    def _inside(self, node: ast.AST) -> Iterator[str]:
        """Modules of the package that an import statement names."""
        if isinstance(node, ast.ImportFrom) and node.module in self.modules:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in self.modules else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in self.modules)

    def _declare(self, module: str) -> None:
        for statement in self.modules[module].body:
            if _left_out(statement):
                continue
            for node in _outside_functions(statement):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    self._declare_import(module, node)
            for name in targets(statement):
                if (module, name) not in self.meanings and (module, name) not in self._imports:
                    self.meanings[module, name] = self._unique(module, name)
            if isinstance(statement, ast.ClassDef):
                self.classes.add(str(self.meanings[module, statement.name]))

    def _declare_import(self, module: str, node: ast.Import | ast.ImportFrom) -> None:
        for alias in node.names:
            bound = alias.asname or alias.name.partition(".")[0]
            if isinstance(node, ast.ImportFrom) and node.level:
                raise ExportError(f"{module}:{node.lineno}: relative imports are not followed")
            if isinstance(node, ast.ImportFrom) and node.module in self.modules:
                self._imports[module, bound] = (node.module, alias.name)
            elif isinstance(node, ast.Import) and alias.name in self.modules:
                if alias.asname is None:
                    raise ExportError(f"{module}:{node.lineno}: import {alias.name} without `as` is not followed")
                self._imports[module, bound] = (alias.name, None)
            elif node.module != "__future__" if isinstance(node, ast.ImportFrom) else True:
                attribute = alias.name if isinstance(node, ast.ImportFrom) else ""
                if (node.module if isinstance(node, ast.ImportFrom) else alias.name).partition(".")[0] in self.modules:
                    raise ExportError(f"{module}:{node.lineno}: there is no such module of the package")
                whole = node.module if isinstance(node, ast.ImportFrom) else alias.name if alias.asname else bound
                self.external.setdefault((whole or "", attribute), self._unique(module, bound))
                self.meanings[module, bound] = self.external[whole or "", attribute]

    def _unique(self, module: str, name: str) -> str:
        """The name itself where nothing else bears it, else with its module's in front."""
        words = module.split(".")
        for count in range(len(words)):
            wanted = "_".join([*words[len(words) - count :], name]).replace("__main__", "main")
            if wanted not in self.taken and wanted not in self.locals:
                self.taken.add(wanted)
                self.origin[wanted] = (module, name)
                return wanted
        return self._unique(f"x.{module}", name)

    def lookup(self, module: str, name: str) -> Meaning | None:
        """What a global name of a module stands for; None: a builtin. Follows imports."""
        if (module, name) in self._imports:
            target, wanted = self._imports[module, name]
            return Inside(target) if wanted is None else self.member(target, wanted)
        return self.meanings.get((module, name))

    def member(self, module: str, name: str) -> Meaning:
        """What `module.name` stands for. Raises ExportError if there is no such thing."""
        found = self.lookup(module, name)
        if found is None and f"{module}.{name}" in self.modules:
            return Inside(f"{module}.{name}")
        if found is None:
            raise ExportError(f"{module} has no {name}")
        return found


class Renamer(ast.NodeTransformer):
    """Gives the names of one module their meaning in the whole."""

    def __init__(self, linker: _Linker, module: str) -> None:
        self.linker, self.module = linker, module
        self.scopes: list[Scope] = []

    def meaning(self, name: str) -> Meaning | None:
        """None for a local name or a builtin."""
        for depth, scope in enumerate(reversed(self.scopes)):
            if scope.of_class and depth:
                continue  # what a class body binds is not seen from its methods
            if name in scope.aliases:
                module, wanted = scope.aliases[name]
                return Inside(module) if wanted is None else self.linker.member(module, wanted)
            if name in scope.bound:
                return None
        return self.linker.lookup(self.module, name)

    def module_meant(self, node: ast.expr) -> str | None:
        """The module of the package that an expression names, if any."""
        if isinstance(node, ast.Name):
            found = self.meaning(node.id)
        elif isinstance(node, ast.Attribute) and (module := self.module_meant(node.value)):
            found = self.linker.member(module, node.attr)
        else:
            return None
        return found.module if isinstance(found, Inside) else None

    def visit_Name(self, node: ast.Name) -> ast.AST:
        found = self.meaning(node.id)
        if isinstance(found, Inside):
            raise ExportError(f"{self.module}:{node.lineno}: the module {found.module} is used as a value")
        if found is not None:
            node.id = found
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if module := self.module_meant(node.value):
            found = self.linker.member(module, node.attr)
            if isinstance(found, Inside):
                raise ExportError(f"{self.module}:{node.lineno}: the module {found.module} is used as a value")
            return ast.copy_location(ast.Name(found, node.ctx), node)
        return self.generic_visit(node)

    def visit_Global(self, node: ast.Global) -> ast.AST:
        node.names = [str(self.linker.lookup(self.module, name)) for name in node.names]
        return node

    def visit_Import(self, node: ast.Import) -> ast.AST | None:
        return self._import(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | None:
        return self._import(node)

    def _import(self, node: ast.Import | ast.ImportFrom) -> ast.AST | list[ast.stmt] | None:
        if any(True for _ in self.linker._inside(node)):
            return ast.copy_location(ast.Pass(), node) if self.scopes else None
        if self.scopes:
            return node
        found: list[ast.stmt] = []
        for alias in node.names:
            name = str(self.linker.lookup(self.module, alias.asname or alias.name.partition(".")[0]))
            shown = None if name in (alias.name, alias.name.partition(".")[0]) and not alias.asname else name
            shown = None if alias.name == name else shown
            only = [ast.alias(alias.name, shown)]
            new = ast.Import(only) if isinstance(node, ast.Import) else ast.ImportFrom(node.module, only, 0)
            found.append(ast.copy_location(new, node))
        return found

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.decorator_list = [self.visit(item) for item in node.decorator_list]
        scope = function_scope(node, set(self.linker.modules))
        if not self.scopes:
            node.name = str(self.linker.meanings[self.module, node.name])
        self._arguments(node.args)
        node.kind = self._class_named(node.returns)  # type: ignore[attr-defined]
        node.never_none = self._never_none(node.returns)  # type: ignore[attr-defined]
        node.returns = None
        node.generator = any(isinstance(n, ast.Yield | ast.YieldFrom) for n in bound_in(node).own)  # type: ignore[attr-defined]
        self.scopes.append(scope)
        node.body = [new for statement in node.body for new in _as_list(self.visit(statement))] or [ast.Pass()]
        self.scopes.pop()
        return node

    def _arguments(self, arguments: ast.arguments) -> None:
        arguments.defaults = [self.visit(item) for item in arguments.defaults]
        arguments.kw_defaults = [item and self.visit(item) for item in arguments.kw_defaults]
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
        for argument in every:
            if argument is not None:
                argument.kind = self._class_named(argument.annotation)  # type: ignore[attr-defined]
                argument.annotation = None

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        self._arguments(node.args)
        self.scopes.append(function_scope(node, set()))
        node.body = self.visit(node.body)
        self.scopes.pop()
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.decorator_list = [self.visit(item) for item in node.decorator_list]
        node.bases = [self.visit(item) for item in node.bases]
        node.keywords = [self.visit(item) for item in node.keywords]
        if not self.scopes:
            node.name = str(self.linker.meanings[self.module, node.name])
        self.scopes.append(class_scope(node))
        node.body = [new for statement in node.body for new in _as_list(self.visit(statement))] or [ast.Pass()]
        self.scopes.pop()
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        in_class = bool(self.scopes) and self.scopes[-1].of_class
        kind = self._class_named(node.annotation)
        if node.value is not None:
            node.value = self.visit(node.value)
        node.target = self.visit(node.target)
        if not in_class:
            return node.value and ast.copy_location(ast.Assign([node.target], node.value), node)
        node.annotation, node.kind = ast.Name("int", ast.Load()), kind  # type: ignore[attr-defined]
        return node

    def _comprehension(self, node: ast.AST) -> ast.AST:
        self.scopes.append(Scope({name for part in node.generators for name in targets(part.target)}))  # type: ignore[attr-defined]
        self.generic_visit(node)
        self.scopes.pop()
        return node

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension

    def _class_named(self, annotation: ast.expr | None) -> str | None:
        """The one class an annotation names, beside None; None if it is not that simple."""
        if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
            sides = [side for side in (annotation.left, annotation.right) if not _is_none(side)]
            return self._class_named(sides[0]) if len(sides) == 1 else None
        if isinstance(annotation, ast.Name):
            found = self.meaning(annotation.id)
            return found if isinstance(found, str) else None
        if isinstance(annotation, ast.Attribute) and (module := self.module_meant(annotation.value)):
            found = self.linker.member(module, annotation.attr)
            return found if isinstance(found, str) else None
        return None

    def _never_none(self, annotation: ast.expr | None) -> bool:
        """Whether a function that is annotated so always returns something."""
        whole = annotation.value if isinstance(annotation, ast.Subscript) else annotation
        if isinstance(whole, ast.Name):
            return whole.id in _THINGS or self.meaning(whole.id) in self.linker.classes
        return isinstance(whole, ast.Attribute) and whole is annotation


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


_THINGS = {"int", "float", "bool", "str", "bytes", "list", "dict", "tuple", "set", "Tensor"}


def _as_list(found: ast.AST | list[ast.stmt] | None) -> list[ast.stmt]:
    if found is None:
        return []
    return found if isinstance(found, list) else [found]  # type: ignore[list-item]


def _outside_functions(statement: ast.stmt) -> Iterator[ast.AST]:
    """The nodes that run when the module does."""
    yield statement
    if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
        for child in ast.iter_child_nodes(statement):
            yield from _outside_functions(child)  # type: ignore[arg-type]


def _left_out(statement: ast.stmt) -> bool:
    """What a module says to readers, checkers and `python -m`: nothing that a script needs."""
    if isinstance(statement, ast.Assert):
        return True  # about the sources; they have been run
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return True
    if isinstance(statement, ast.If):
        test = statement.test
        name = test.id if isinstance(test, ast.Name) else ""
        started = isinstance(test, ast.Compare) and isinstance(test.left, ast.Name) and test.left.id == "__name__"
        return name == "TYPE_CHECKING" or started
    return isinstance(statement, ast.Assign) and targets(statement) == ["__all__"]


def _local_names(tree: ast.Module) -> Iterator[str]:
    """Every name that a function, lambda, comprehension or class body binds."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from function_scope(node, set()).bound
        elif isinstance(node, ast.ClassDef):
            yield from class_scope(node).bound
        elif isinstance(node, ast.comprehension):
            yield from targets(node.target)
