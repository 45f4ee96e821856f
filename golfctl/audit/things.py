"""What a name can stand for while scripts are followed: a function, a class, an object."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field

from golfctl.audit.marks import Value
from golfctl.audit.names import Function

Env = dict[str, Value]


@dataclass(frozen=True, eq=False)
class Routine:
    """A function with the names around it. me: the object a method belongs to."""

    node: Function | ast.Lambda
    home: int
    around: tuple[Env, ...]
    me: Value | None = None


@dataclass(frozen=True, eq=False)
class Kind:
    """A class. net: whether it is a torch module, whose insides are a model's own affair."""

    name: str
    body: Env
    parents: tuple[Kind, ...] = ()
    net: bool = False

    def find(self, name: str) -> Value | None:
        """A method or an attribute, of its parents too."""
        return self.body.get(name) or next((got for one in self.parents if (got := one.find(name))), None)


@dataclass(frozen=True, eq=False)
class Thing:
    """An object of a class that the package defines."""

    kind: Kind
    has: Env = field(default_factory=dict)
