"""Seconds that a log's lines speak of, in whatever unit. Pure but for reading the file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from golfctl.logs.scan import lines_of

LINE = 400
"""Characters of a line that are looked at."""
MOST = 400_000
"""Lines of a log that are looked at."""
_CLOCK = re.compile(
    r"(?:(?:\b(?:took|in|after|elapsed|duration|total)|\w*(?:clock|time))\s*[:=]?\s*(?=\d\d?:)|(?<![\d:.])(?=\d:))"
    r"(\d{1,2}):(\d\d):(\d\d(?:\.\d+)?)(?![\d:])",
    re.IGNORECASE,
)
"""h:m:s with an hour of one digit, or behind a word that makes it a duration: alone hh:mm:ss is the time of day."""
_NUMBER = r"(\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)"
_MILLI, _SECOND, _MINUTE, _HOUR = r"ms|msecs?|milliseconds?", r"s|secs?|seconds?", r"m|mins?|minutes?", r"h|hrs?|hours?"
_SPAN = re.compile(
    rf"(?<![\w.,])(?:{_NUMBER}\s?({_HOUR})\s+)?(?:{_NUMBER}\s?({_MINUTE})\s+)?{_NUMBER}\s?({_MILLI}|{_SECOND}|{_MINUTE}|{_HOUR})(?![\w/])"
)
"""Parts that follow each other add up. Small letters: 26.8M are millions."""
_KEYED = re.compile(r"[:=](\d+(?:\.\d+)?)(ms|s|m|min)(?![\w/])")
_STOP = re.compile(r"stopping_early|^peak memory", re.IGNORECASE)
_PACKED = re.compile(r"submission size|^Serialized model|^artifact:", re.IGNORECASE)


@dataclass(frozen=True)
class Spoken:
    """One line with a duration: its number, its text, the longest seconds in it; whether training, and packing, are over."""

    line: int
    text: str
    seconds: float
    trained: bool
    packed: bool


def spoken(path: Path) -> Iterator[Spoken]:
    """Every line of a log that says how long something took."""
    trained = packed = False
    for number, line in enumerate(islice(lines_of(path), MOST), 1):
        text = line[:LINE].strip()
        trained = trained or bool(_STOP.search(text))
        packed = packed or bool(_PACKED.search(text))
        spans = [] if text.startswith("step:") else list(seconds(text))
        if not spans and "autoregressive" in text.lower():
            spans = [0.0]  # says whose text the next duration is about
        if spans:
            yield Spoken(number, text, max(spans), trained, packed)


def seconds(text: str) -> Iterator[float]:
    """Durations in a line, in seconds; times of day, dates and `1h` alone are none."""
    for found in _CLOCK.finditer(text):
        yield int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3])
    for found in _SPAN.finditer(text):
        parts = [(found[at], found[at + 1]) for at in (1, 3, 5) if found[at]]
        if parts[0][1] != "h" or len(parts) > 1:
            yield sum(_seconds(number, unit) for number, unit in parts)
    for found in _KEYED.finditer(text):
        yield _seconds(found[1], found[2])


def _seconds(number: str, unit: str) -> float:
    """Of one part, as `1,234 s`."""
    milli, large = unit.startswith(("ms", "milli")), {"m": 60.0, "h": 3600.0}
    return float(number.replace(",", "")) * (0.001 if milli else large.get(unit[0], 1.0))
