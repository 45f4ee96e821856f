"""What stands before a line of a log: times, ranks, names of runs."""

from __future__ import annotations

import re

_MARK = re.compile(
    r"\d{9,10}(?:\.\d+)?\s+"  # seconds since 1970
    r"|\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d\S*\s+(?:[-|]\s+)?(?:(?:INFO|DEBUG|WARNING|ERROR)\b[\s:|-]*)?"
    r"|\d\d:\d\d:\d\d(?:[.,]\d+)?\s+"
    r"|\[[^\]\n]{1,60}\]:?\s*"
)
_NAME = re.compile(r"([A-Za-z0-9][\w./@-]{0,150}): +(?=\S)|(\d{1,3}): (?=\S)")


def strip(text: str) -> str:
    """The text without one mark of time or rank before it; the same text if there is none."""
    match = _MARK.match(text)
    return text[match.end() :] if match else text


def named(text: str) -> tuple[str, str]:
    """(name of a run, rest) for `name: rest`, else ("", text)."""
    match = _NAME.match(text)
    return (match[1] or match[2], text[match.end() :]) if match else ("", text)
