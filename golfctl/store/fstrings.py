"""f-strings as Python 3.12 allows them, rewritten so that an older Python's parser reads them (PEP 701).

`f'{a['b']}'` becomes one with three quotes. For reading only: lines stay lines, but a backslash or a `#` inside a replacement
field, which older parsers refuse, becomes another character.
"""

from __future__ import annotations

import re

_START = re.compile(r"(?i)(?<![\w])(?P<prefix>|[rbuft]|[rbft]{2})(?P<quote>\"\"\"|'''|\"|')")
_QUOTES = ("'''", '"""', '"', "'")
_OPEN, _CLOSE = "([{", ")]}"
MAX_DEPTH = 8


class _LostError(Exception):
    """The text is not as expected; it is left as it was."""


def for_older_python(source: str) -> str:
    """The source with its f-strings rewritten; unchanged where its strings can't be followed."""
    result: list[str] = []
    at = 0
    try:
        while at < len(source):
            if source[at] == "#":
                end = source.find("\n", at)
                end = len(source) if end < 0 else end
                result.append(source[at:end])
                at = end
            elif found := _START.match(source, at):
                text, at = _string(source, found, 0)
                result.append(text)
            else:
                result.append(source[at])
                at += 1
    except (_LostError, IndexError):
        return source
    return "".join(result)


def _string(source: str, found: re.Match[str], depth: int) -> tuple[str, int]:
    """A string literal, rewritten if it is an f-string, and where it ends."""
    prefix, quote = found["prefix"], found["quote"]
    if depth > MAX_DEPTH:
        raise _LostError
    if "f" not in prefix.lower():
        at = found.end()
        while not source.startswith(quote, at):
            at += 2 if source[at] == "\\" else 1
        end = at + len(quote)
        return source[found.start() : end], end
    body, at = _body(source, found.end(), quote, depth)
    fits = [item for item in (quote, *_QUOTES) if item not in body and not body.endswith(item[0])]
    fits = [item for item in fits if len(item) == 3 or "\n" not in body]
    if not fits:
        raise _LostError
    return f"{prefix}{fits[0]}{body}{fits[0]}", at + len(quote)


def _body(source: str, at: int, end: str, depth: int) -> tuple[str, int]:
    """The parts of an f-string (or, with `end` a brace, of a format spec) up to `end`, and where that stands."""
    parts: list[str] = []
    while not source.startswith(end, at):
        two = source[at : at + 2]
        if source[at] == "\\":
            length = source.index("}", at) + 1 - at if two == "\\N" and source[at + 2] == "{" else 2
            parts.append(source[at : at + length])
            at += length
        elif two in {"{{", "}}"} and end != "}":
            parts.append(two)
            at += 2
        elif source[at] == "{":
            text, at = _field(source, at + 1, depth)
            parts.append("{" + text + "}")
        else:
            parts.append(source[at])
            at += 1
    return "".join(parts), at


def _field(source: str, at: int, depth: int) -> tuple[str, int]:
    """A replacement field after its `{`, and the place after its `}`."""
    parts: list[str] = []
    nested = 0
    while True:
        char = source[at]
        if found := _START.match(source, at):
            text, at = _string(source, found, depth + 1)
            parts.append(text.replace("\\", "/").replace("#", "_"))
            continue
        if nested == 0 and char == "}":
            return "".join(parts), at + 1
        if nested == 0 and char == ":":
            spec, at = _body(source, at + 1, "}", depth)
            return "".join(parts) + ":" + spec, at + 1
        nested += (char in _OPEN) - (char in _CLOSE)
        parts.append(char)
        at += 1
