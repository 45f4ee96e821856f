"""Seconds that a log's lines speak of, in whatever unit. Pure but for reading the file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LINE = 400
"""Characters of a line that are looked at."""
MOST = 400_000
"""Lines of a log that are looked at."""
_CLOCK = re.compile(r"(?<![\d:.])(\d{1,2}):(\d\d):(\d\d(?:\.\d+)?)(?![\d:])")
_SPAN = re.compile(
    r"(?<![\w.])(\d+(?:\.\d+)?)\s?(ms|msecs?|milliseconds?|s|secs?|seconds?|m|mins?|minutes?)(?![\w/])", re.IGNORECASE
)
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
    """Every line of a log that says how long something took. UTF-16 is read as such."""
    trained = packed = False
    with path.open(encoding=_encoding(path), errors="replace") as file:
        for number, line in enumerate(file, 1):
            if number > MOST:
                return
            text = line[:LINE].strip()
            trained = trained or bool(_STOP.search(text))
            packed = packed or bool(_PACKED.search(text))
            spans = [] if text.startswith("step:") else list(seconds(text))
            if not spans and "autoregressive" in text.lower():
                spans = [0.0]  # says whose text the next duration is about
            if spans:
                yield Spoken(number, text, max(spans), trained, packed)


def seconds(text: str) -> Iterator[float]:
    """Durations in a line, in seconds; `1h` and dates are none."""
    for found in _CLOCK.finditer(text):
        yield int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3])
    for found in [*_SPAN.finditer(text), *_KEYED.finditer(text)]:
        unit = found[2].lower()
        yield float(found[1]) * (0.001 if unit.startswith(("ms", "milli")) else 60 if unit.startswith("m") else 1)


def _encoding(path: Path) -> str:
    with path.open("rb") as file:
        return "utf-16" if file.read(2) in {b"\xff\xfe", b"\xfe\xff"} else "utf-8"
