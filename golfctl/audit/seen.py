"""What happened while scripts were followed, in order, and what S1 to S7 make of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from golfctl.audit.marks import Mark, Value

Place = tuple[int, int]
"""Number of the script, line."""
Turn = tuple[object, object]
"""A loop and its how-many-eth turn, or an `if` and its branch."""


@dataclass
class Seen:
    """The diary of one walk. found: rule to places, each with what is said of it."""

    found: dict[str, dict[Place, str]] = field(default_factory=dict)
    targets: set[Mark] = field(default_factory=set)
    scored: dict[tuple[frozenset[Turn], tuple[Turn, ...]], None] = field(default_factory=dict)
    learnt: set[frozenset[Turn]] = field(default_factory=set)
    fitted: set[tuple[Mark, Mark]] = field(default_factory=set)
    learners: set[object] = field(default_factory=set)
    waiting: list[tuple[str, Place, frozenset[Mark], str]] = field(default_factory=list)

    def size(self) -> int:
        """How much it holds: it only grows."""
        held = (self.targets, self.scored, self.learnt, self.fitted, self.learners, self.waiting, *self.found.values())
        return sum(map(len, held))

    def say(self, rule: str, where: Place, text: str) -> None:
        """A finding."""
        self.found.setdefault(rule, {}).setdefault(where, text)

    def wait(self, rule: str, where: Place, value: Value, text: str) -> None:
        """A finding if the tokens in a value turn out to be targets."""
        self.waiting.append((rule, where, frozenset(value.of("tok")), text))

    def target(self, index: Value) -> None:
        """These tokens are what is predicted."""
        tokens = [mark for mark in index.of("tok") if mark[2] != "at"]
        tops = [mark for mark in tokens if isinstance(mark[2], int)]
        self.targets |= set(tops) | {mark for mark in index.of("tok") if mark[2] == "at"}

    def score(self, value: Value, path: tuple[Turn, ...]) -> None:
        """A cost of validation tokens was counted."""
        self.scored[_turns(value), path] = None

    def learn(self, value: Value, where: Place, path: tuple[Turn, ...], stack: Iterable[object]) -> None:
        """A gradient of a cost of validation tokens was taken, within these functions."""
        self.learners.update(stack)
        turns = _turns(value)
        part = value.has("leaf") and (value.has("mask") or value.has("sel"))  # of a window: what S3 is about
        if not part and not _among(turns, path, self.scored):
            self.say("S1", where, "learns from validation tokens before anything counted their cost")
        if not part:
            self.learnt.add(turns)

    def is_late(self, value: Value, path: tuple[Turn, ...]) -> bool:
        """Whether these very tokens were learnt from before."""
        turns = _turns(value)
        return bool(turns) and turns in self.learnt

    def close(self) -> Iterator[tuple[str, Place, str]]:
        """All findings, those that waited for the targets too."""
        for rule, where, tokens, text in self.waiting:
            if tokens & self.targets or any(mark[2] == "at" for mark in tokens):
                self.say(rule, where, text)
        for rule, places in self.found.items():
            for where, text in places.items():
                yield rule, where, text


def _turns(value: Value) -> frozenset[Turn]:
    return frozenset((mark[1], mark[2]) for mark in value.of("turn"))


def _among(
    turns: frozenset[Turn],
    path: tuple[Turn, ...],
    before: Iterable[tuple[frozenset[Turn], tuple[Turn, ...]]],
) -> bool:
    """Whether tokens of the same turn of a loop were there before, or, in a turn that goes on, any that no `if` could pass by.

    Without loops: any of that code.
    """
    on = frozenset(path)
    for other, at in before:
        if turns & other or other & on or (not turns and not other and at[: len(path)] == path):
            return True
        shared = next(
            (n for n, (one, two) in enumerate(zip(path, at, strict=False)) if one != two), min(len(path), len(at))
        )
        loops = any(isinstance(turn, int) for _, turn in path[:shared])
        if loops and all(isinstance(turn, int) for _, turn in at[shared:]):
            return True
    return False
