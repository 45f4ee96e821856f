"""What is known of a value while a script is followed: marks on it, its parts, and what it is. Pure.

| mark | says |
|---|---|
| val, train | made of files of validation, of training |
| tok, base, shift | tokens of one window; shift: how far to the right of its start, "at" for the one at a running index |
| turn, loop, k | read in the k-th turn of a loop |
| pred | what a model said |
| truth | a cost or a probability of the true token, one a token; whole: added up |
| look | looked up by a token |
| rest | 1 - such a value |
| hashed | a key of a table, mixed from tokens |
| bucket, where | read from a table at such a key |
| leaf, n | a tensor that is fitted; sel, text: the positions picked of a window |
| count, share | bytes of a token; a cost divided by them |
| late | a cost of tokens that were learnt from before |
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

Mark = tuple[Any, ...]
LEAVES = 256


@dataclass(frozen=True, eq=False)
class Value:
    """marks; parts: those of a tuple or list; thing: a function, a class, an object or a constant.

    More than LEAVES parts of parts are one value with all their marks: tuples of tuples would double with each line.
    """

    marks: frozenset[Mark] = frozenset()
    parts: tuple[Value, ...] | None = None
    thing: Any = None
    leaves: int = field(default=1, init=False)

    def __post_init__(self) -> None:
        leaves = sum(part.leaves for part in self.parts or ()) or 1
        if leaves > LEAVES:
            object.__setattr__(self, "marks", self.all_marks())
            object.__setattr__(self, "parts", None)
            leaves = 1
        object.__setattr__(self, "leaves", leaves)

    def has(self, kind: str) -> bool:
        """Whether a mark of this kind is on it, or on one of its parts."""
        return any(mark[0] == kind for mark in self.all_marks())

    def of(self, kind: str) -> set[Mark]:
        """All its marks of a kind."""
        return {mark for mark in self.all_marks() if mark[0] == kind}

    def all_marks(self) -> frozenset[Mark]:
        """Its marks and those of its parts."""
        if not self.parts:
            return self.marks
        return self.marks.union(*(part.all_marks() for part in self.parts))

    def plus(self, *marks: Mark) -> Value:
        """The same with more marks."""
        return replace(self, marks=self.marks | set(marks))

    def without(self, *kinds: str) -> Value:
        """The same as one value, less the marks of these kinds."""
        return Value(frozenset(mark for mark in self.all_marks() if mark[0] not in kinds))


NOTHING = Value()


def join(values: Iterable[Value]) -> Value:
    """Of two ways a program may go: the marks of both; parts and thing where both agree."""
    some = list(values)
    if not some:
        return NOTHING
    first = some[0]
    if all(item is first for item in some):
        return first
    things = [item.thing for item in some if item.thing is not None]
    if any(isinstance(thing, str) for thing in things) and (len(things) < len(some) or len(set(map(id, things))) > 1):
        same = len(things) == len(some) and all(isinstance(thing, str) and thing == things[0] for thing in things)
        things = things[:1] if same else [thing for thing in things if not isinstance(thing, str)]
    parts = [item.parts for item in some if item.parts]
    if parts and all(len(item) == len(parts[0]) for item in parts):
        joined: tuple[Value, ...] | None = tuple(join(column) for column in zip(*parts, strict=True))
    else:
        joined = tuple(part for item in parts for part in item)[:8] or None
    return Value(frozenset().union(*(item.marks for item in some)), joined, things[0] if things else None)


def mixed(values: Iterable[Value]) -> Value:
    """What a calculation of several values knows."""
    return Value(frozenset().union(*(item.all_marks() for item in values)))


def each(value: Value, mark: Mark) -> Value:
    """The same with a mark on it and on each of its parts; objects stay what they are."""
    if value.parts:
        return Value(value.marks | {mark}, tuple(each(part, mark) for part in value.parts), value.thing)
    return value.plus(mark)


def less(value: Value, marks: Collection[Mark]) -> Value:
    """The same out of its loop."""
    if value.parts:
        return Value(value.marks.difference(marks), tuple(less(part, marks) for part in value.parts), value.thing)
    return replace(value, marks=value.marks.difference(marks)) if value.marks.intersection(marks) else value


_ENDS = r"\.(?:bin|npy|npz|pt|txt|parquet|jsonl?|zst|gz|\*)$"
_VAL_FILE = re.compile(rf"(^|[/_.*\-])val(id|idation)?([_.*\-\[/][^\s]*)?{_ENDS}", re.IGNORECASE)
_TRAIN_FILE = re.compile(rf"(^|[/_.*\-])train(ing)?([_.*\-\[/][^\s]*)?{_ENDS}", re.IGNORECASE)


def of_text(text: str) -> frozenset[Mark]:
    """Marks of a string: names and patterns of data files, and of splits."""
    if len(text) > 300:
        return frozenset()
    if text.lower() in {"val", "valid", "validation"} or _VAL_FILE.search(text):
        return frozenset({("val",)})
    if text.lower() == "train" or _TRAIN_FILE.search(text):
        return frozenset({("train",)})
    return frozenset()
