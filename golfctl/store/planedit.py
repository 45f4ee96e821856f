"""Editing a plan file in place: by the marks of its keys and values, so that what a person wrote around them stays."""

from __future__ import annotations

import re
from collections.abc import Iterable

from golfctl.store.marks import Document, Spot

_QUOTED = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^']|'')*'", re.DOTALL)

_CLOSE = re.compile(r"[\s,]*\}")


class CanNotEditError(Exception):
    """The layout is not one of those that can be edited here."""


class Editor:
    """Changes to one text, gathered by place and made at once. Raises CanNotEditError for a layout it does not know."""

    def __init__(self, text: str, document: Document) -> None:
        self.text, self.document = text, document
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]
        self._changes: dict[tuple[int, int], str] = {}

    def result(self) -> str:
        """The text with all changes."""
        text = self.text
        for (start, end), new in sorted(self._changes.items(), reverse=True):
            text = text[:start] + new + text[end:]
        return text

    def replace(self, path: Iterable[str | int], new: str) -> None:
        """Another scalar for the one at `path`."""
        self._changes[self._scalar(self._spot(path))] = new

    def insert_line(self, before: str | None, line: str) -> None:
        """A whole line before the top-level key, or at the end of the file."""
        if before is None:
            end = len(self.text)
            self._changes[(end, end)] = ("" if self.text.endswith("\n") else "\n") + line + "\n"
            return
        number, column, _ = self.document.spot.kids[before]
        if column != 1:
            raise CanNotEditError
        place = self._at(number, 1)
        self._changes[(place, place)] = self._changes.get((place, place), "") + line + "\n"

    def remove_keys(self, path: tuple[str | int, ...], keys: Iterable[str]) -> None:
        """Keys of the mapping at `path`, with their values; not all of them."""
        spot = self._spot(path)
        gone = set(keys)
        if gone >= set(spot.kids):
            raise CanNotEditError
        if self._is_flow(spot):
            self._rewrite_flow(spot, gone)
            return
        for name in gone:
            line, column, _ = spot.kids[name]
            if self.text[self._at(line, 1) : self._at(line, column)].strip():  # `- A: 1` holds the list's mark, too
                raise CanNotEditError
            self._changes[(self._at(line, 1), self._at(line + 1, 1))] = ""

    def _rewrite_flow(self, spot: Spot, gone: set[str]) -> None:
        """`{A: 1, B: 2}` without some of its keys; what is kept is kept letter by letter."""
        parts, end = [], 0
        for name, (line, column, value) in spot.kids.items():
            start, end = self._at(line, column), self._scalar(value)[1]
            parts += [] if name in gone else [self.text[start:end]]
        close = _CLOSE.match(self.text, end)
        if close is None:
            raise CanNotEditError
        self._changes[(self._at(spot.line, spot.column), close.end())] = "{" + ", ".join(parts) + "}"

    def remove_item(self, path: tuple[str | int, ...], index: int) -> None:
        """An item of the block list at `path`, with its lines; not the only one."""
        spot = self._spot(path)
        if len(spot.kids) < 2 or self._is_flow(spot):
            raise CanNotEditError
        line, column, item = spot.kids[index]
        if self.text[self._at(line, 1) : self._at(line, column)].strip() != "-":
            raise CanNotEditError
        last = max((line, *(spot.line for spot in _below(item))))
        self._changes[(self._at(line, 1), self._at(last + 1, 1))] = ""

    # --- places ------------------------------------------------------------------------------------------------------
    def _spot(self, path: Iterable[str | int]) -> Spot:
        spot = self.document.spot
        for part in path:
            spot = spot.kids[part][2]
        return spot

    def _at(self, line: int, column: int) -> int:
        return self._starts[line - 1] + column - 1 if line <= len(self._starts) else len(self.text)

    def _scalar(self, spot: Spot) -> tuple[int, int]:
        start = self._at(spot.line, spot.column)
        if spot.text is None:
            raise CanNotEditError
        if self.text.startswith(spot.text, start) and spot.text:
            return start, start + len(spot.text)
        quoted = _QUOTED.match(self.text, start)
        if quoted is None:
            raise CanNotEditError
        return start, quoted.end()

    def _is_flow(self, spot: Spot) -> bool:
        return self.text[self._at(spot.line, spot.column)] in "{["


def _below(spot: Spot) -> Iterable[Spot]:
    for _, _, kid in spot.kids.values():
        yield kid
        yield from _below(kid)
