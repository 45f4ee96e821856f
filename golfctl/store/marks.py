"""YAML with a place for everything: values, and where each key and value stands.

A subset of YAML 1.2's core schema, read from the parser's events in one pass: no aliases, no tags, no second document,
bounded depth and size. So no input can loop, explode or construct an object, and what readers of YAML 1.1 and 1.2
understand differently (`on`, `NO`) is refused instead of guessed. `1e-3` is a number here, as in YAML 1.2.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import yaml

from golfctl.errors import InputErrors, Problem

MAX_BYTES = 1_000_000
MAX_DEPTH = 32

Path = tuple[str | int, ...]
"""Keys and list indices from the top of a file to a value."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_INT = re.compile(r"[-+]?(0|[1-9][0-9]{0,29})")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_SURPRISES = frozenset(form for word in ("yes", "no", "on", "off") for form in (word, word.capitalize(), word.upper()))


@dataclass(slots=True)
class Spot:
    """Where a value stands (from 1), its source text if it is a scalar, and the same for what it holds.

    kids: key to (line, column, spot) for a mapping, index to the same for a list.
    """

    line: int
    column: int
    text: str | None = None
    is_list: bool = False
    kids: dict[str | int, tuple[int, int, Spot]] = field(default_factory=dict)


@dataclass(frozen=True)
class Document:
    """One file as read: `value` in plain Python types, `spot` the places, `problems` what the reader refused."""

    file: str
    value: Any
    spot: Spot
    problems: tuple[Problem, ...] = ()

    def problem(
        self, path: Iterable[str | int], message: str, *, key: bool = False, label: str | None = None
    ) -> Problem:
        """A finding about the value (or with `key` the key) at `path`; the deepest part of the path that exists is marked.

        `label` replaces the path in the message.
        """
        parts = list(path)
        spot, line, column, said = self.spot, self.spot.line, self.spot.column, ""
        for index, part in enumerate(parts):
            said += f"[{part}]" if spot.is_list and isinstance(part, int) else f".{part}" if said else f"{part}"
            kid = spot.kids.get(part)
            if kid is None:
                said += "".join(f".{rest}" for rest in parts[index + 1 :])
                break
            wants_key = key and index == len(parts) - 1
            line, column = (kid[0], kid[1]) if wants_key else (kid[2].line, kid[2].column)
            spot = kid[2]
        said = label if label is not None else said
        return Problem(self.file, line, column, one_line(f"{said}: {message}" if said else message))

    def text(self, path: Iterable[str | int]) -> str | None:
        """The source text of the scalar at `path`, None if there is none."""
        spot = self.spot
        for part in path:
            if part not in spot.kids:
                return None
            spot = spot.kids[part][2]
        return spot.text


def one_line(text: str) -> str:
    """The text with everything that can't be printed on a line written as an escape: keys may hold anything."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest known word, else the list of what is known, else nothing."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; allowed are {', '.join(names)}" if 0 < len(names) <= 24 else ""


def read(content: bytes, file: str) -> Document:
    """Parse one file. Raises InputErrors when no document can be made of it; what can be skipped is in `problems`."""
    text = _decode(content, file)
    reader = _Reader(file)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            reader.take(event)
    except yaml.MarkedYAMLError as error:
        raise InputErrors([*reader.problems, _syntax(error, text, file)]) from None
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise InputErrors([*reader.problems, Problem(file, 1, 1, f"not YAML: {reason}")]) from None
    except _TooMuchError as stop:
        raise InputErrors([*reader.problems, stop.problem]) from None
    if reader.root is None or reader.root[0] is None:
        raise InputErrors([*reader.problems, Problem(file, 0, 0, "is empty: it must hold a mapping of keys to values")])
    value, spot = reader.root
    if not isinstance(value, dict):
        kind = "a list" if isinstance(value, list) else "one value"
        message = f"the file holds {kind}; it must hold a mapping of keys to values"
        raise InputErrors([*reader.problems, Problem(file, spot.line, spot.column, message)])
    return Document(file, value, spot, tuple(reader.problems))


def _decode(content: bytes, file: str) -> str:
    if len(content) > MAX_BYTES:
        raise InputErrors([Problem(file, 0, 0, f"has {len(content)} bytes; at most {MAX_BYTES} are read")])
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = len(content[content.rfind(b"\n", 0, error.start) + 1 : error.start].decode("utf-8", "replace")) + 1
        message = f"not UTF-8: byte 0x{content[error.start]:02x} at offset {error.start}; save the file as UTF-8"
        raise InputErrors([Problem(file, line, column, message)]) from None
    if found := _UNPRINTABLE.search(text):
        start = found.start()
        line, column = text.count("\n", 0, start) + 1, start - text.rfind("\n", 0, start)
        raise InputErrors([Problem(file, line, column, f"control character U+{ord(found[0]):04X} is not allowed")])
    return text


def _syntax(error: yaml.MarkedYAMLError, text: str, file: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line, mark.column) if mark else (0, 0)
    lines = text.splitlines()
    if line < len(lines):
        indent = lines[line][: len(lines[line]) - len(lines[line].lstrip())]
        if "\t" in indent:
            return Problem(file, line + 1, indent.index("\t") + 1, "a tab in the indentation: YAML indents with spaces")
    problem = error.problem or "not YAML"
    if problem.startswith("mapping values are not allowed"):
        problem += ": a colon inside a text needs quotes around the text"
    began = f" ({error.context} that begins in line {error.context_mark.line + 1})" if error.context_mark else ""
    return Problem(file, line + 1, column + 1, f"not YAML: {problem}{began}")


class _TooMuchError(Exception):
    def __init__(self, problem: Problem) -> None:
        self.problem = problem


@dataclass(slots=True)
class _Open:
    """A mapping or list whose end has not come yet."""

    value: dict[str | int, Any] | list[Any]
    spot: Spot
    key: tuple[str | int, int, int] | None = None
    skip: bool = False  # the value of a key that was refused: read, and dropped
    wants_key: bool = True


class _Reader:
    """Builds values and spots from events. Never recursive: the stack is `open`."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self.root: tuple[Any, Spot] | None = None
        self.open: list[_Open] = []
        self.documents = 0

    def take(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(event)
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            self._begin(event)
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            done = self.open.pop()
            self._place(done.value, done.spot)
        elif isinstance(event, yaml.AliasEvent):
            spot = self._spot(event)
            self._refuse(spot, f"'*{event.anchor}': aliases are not used here; write the value out")
            self._place(None, spot)
        elif isinstance(event, yaml.DocumentStartEvent):
            self.documents += 1
            if self.documents > 1:
                spot = self._spot(event)
                raise _TooMuchError(Problem(self.file, spot.line, spot.column, "a second document: one file holds one"))

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        spot = self._spot(event)
        spot.text = event.value
        if event.tag is not None:
            self._refuse(spot, f"tag {event.tag}: tags are not used here")
        bare = event.implicit[0]
        if bare and event.value in _SURPRISES:
            message = (
                f"`{event.value}` is a truth value to some YAML readers and text to others; write 1 or 0 (a setting), "
            )
            self._refuse(spot, message + "true or false (a switch), or quote it (a text)")
        self._place(plain(event.value) if bare else event.value, spot, bare=bare)

    def _begin(self, event: yaml.MappingStartEvent | yaml.SequenceStartEvent) -> None:
        spot = self._spot(event)
        spot.is_list = isinstance(event, yaml.SequenceStartEvent)
        if event.tag is not None:
            self._refuse(spot, f"tag {event.tag}: tags are not used here")
        if len(self.open) >= MAX_DEPTH:
            message = f"nested deeper than {MAX_DEPTH} levels"
            raise _TooMuchError(Problem(self.file, spot.line, spot.column, message))
        self.open.append(_Open([] if spot.is_list else {}, spot))

    def _place(self, value: Any, spot: Spot, bare: bool = False) -> None:
        """Put a finished value where it belongs: as the file's root, a list item, a key or the value of a key."""
        if not self.open:
            self.root = (value, spot)
            return
        holder = self.open[-1]
        if isinstance(holder.value, list):
            holder.spot.kids[len(holder.value)] = (spot.line, spot.column, spot)
            holder.value.append(value)
        elif holder.wants_key:
            self._key(holder, value, spot, bare)
        else:
            holder.wants_key = True
            if not holder.skip and holder.key is not None:
                key, line, column = holder.key
                holder.value[key] = value
                holder.spot.kids[key] = (line, column, spot)

    def _key(self, holder: _Open, value: Any, spot: Spot, bare: bool) -> None:
        holder.wants_key, holder.skip = False, True
        if isinstance(value, list | dict) or value is None or spot.text is None:
            self._refuse(spot, "a key must be plain text")
            return
        whole_number = bare and isinstance(value, int) and not isinstance(value, bool)
        key: str | int = value if whole_number else spot.text
        if key in holder.spot.kids:
            first = holder.spot.kids[key]
            self._refuse(spot, f"duplicate key; the first stands in line {first[0]}", key)
            return
        holder.key, holder.skip = (key, spot.line, spot.column), False

    def _spot(self, event: yaml.Event) -> Spot:
        mark = event.start_mark
        assert mark is not None, event  # every event of a parser has one
        return Spot(mark.line + 1, mark.column + 1)

    def _refuse(self, spot: Spot, message: str, key: str | int | None = None) -> None:
        path = ""
        for holder in self.open:
            part: str | int | None = None
            if isinstance(holder.value, list):
                part = len(holder.value)
                path += f"[{part}]"
                continue
            if not holder.wants_key and holder.key is not None and not holder.skip:
                part = holder.key[0]
            elif holder is self.open[-1]:
                part = key
            if part is not None:
                path += f".{part}" if path else f"{part}"
        said = one_line(f"{path}: {message}" if path else message)
        self.problems.append(Problem(self.file, spot.line, spot.column, said))


def plain(text: str) -> Any:
    """What an unquoted scalar means: null, true or false, a number, else text (also `010`, `1:30`, `1_000`, dates)."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text
