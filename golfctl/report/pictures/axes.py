"""Scales, ticks and labels that keep out of each other's way."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from golfctl.report.pictures.scene import Disc, Shape, Words, mark
from golfctl.report.pictures.text import cut, width

SMALL = 11.0
"""Size of axis labels."""


@dataclass(frozen=True)
class Scale:
    """From values to places: low lies at `start`, high at `end` (which may lie before it)."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / ((self.high - self.low) or 1.0) * (self.end - self.start)

    def ticks(self, most: int = 6) -> list[float]:
        """Round values between low and high, at most so many."""
        return ticks(self.low, self.high, most)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Values of the form 1, 2 or 5 times a power of ten, at most so many."""
    span = (high - low) or abs(high) or 1.0
    step = 10.0 ** math.floor(math.log10(span / most))
    step = next(step * by for by in (1, 2, 5, 10, 20) if span / (step * by) <= most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def digits(values: Sequence[float]) -> int:
    """Digits after the point with which no two ticks read alike."""
    step = min((b - a for a, b in itertools.pairwise(values)), default=1.0)
    return max(0, -math.floor(math.log10(step) + 1e-9)) if step > 0 else 0


def padded(values: Sequence[float], part: float = 0.08) -> tuple[float, float]:
    """The smallest and largest value with some room around them."""
    low, high = min(values), max(values)
    room = (high - low) * part or abs(high) * 0.02 or 1.0
    return low - room, high + room


def rows_of_grid(scale: Scale, left: float, right: float, most: int = 6) -> list[Shape | Words]:
    """Level lines with their values at the left, for a vertical scale."""
    at = scale.ticks(most)
    exact = digits(at)
    found: list[Shape | Words] = []
    for value in at:
        y = scale(value)
        found.append(Shape(((left, y), (right, y)), stroke="grid"))
        found.append(Words(left - 8, y + 4, f"{value:.{exact}f}", "soft", SMALL, "end"))
    return found


# --- time --------------------------------------------------------------------------------------------------------------
def moment(text: str) -> float | None:
    """Seconds since 1970 of a UTC time or date, None for anything else."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def dates(low: float, high: float, most: int) -> list[tuple[float, str]]:
    """Seconds and words of days (hours, where there are few), at most so many."""
    span = max(high - low, 60.0)
    steps = (60, 300, 900, 3600, 10_800, 21_600, 86_400, 172_800, 604_800, 1_209_600, 2_678_400, 7_948_800, 31_557_600)
    step = next((step for step in steps if span / step <= most), steps[-1] * math.ceil(span / steps[-1] / most))
    first = math.ceil(low / step) * step
    count = int((high - first) // step) + 1
    return [(first + number * step, _day(first + number * step, step)) for number in range(count)]


def _day(seconds: float, step: float) -> str:
    time = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    if step < 86_400:
        return f"{time:%H:%M}"
    return f"{time:%b} {time.day}" if step < 7_948_800 else f"{time:%b %Y}"


# --- what marks mean ---------------------------------------------------------------------------------------------------
def legend(
    rows: Sequence[tuple[str, str, bool, str]], left: float, y: float, wide: float
) -> tuple[list[Shape | Disc | Words], int]:
    """(marks with their words, lines they take). rows: mark, colour, whether it is hollow, word."""
    found: list[Shape | Disc | Words] = []
    x, lines = left, 1
    for kind, colour, hollow, name in rows:
        word = cut(name, 160, SMALL)
        if x + 20 + width(word, SMALL) > wide:
            x, lines = left, lines + 1
        at = y + 18 * (lines - 1)
        found += [mark(kind, x + 4, at - 4, 4, colour, hollow), Words(x + 14, at, word, "soft", SMALL)]
        x += 30 + width(word, SMALL)
    return found, lines


# --- labels ------------------------------------------------------------------------------------------------------------
Area = tuple[float, float, float, float]


@dataclass
class Labels:
    """Places labels where nothing lies yet. frame: left, top, right, bottom that they stay within."""

    frame: Area
    taken: list[Area] = field(default_factory=list)

    def block(self, x: float, y: float, half: float) -> None:
        """Something lies here."""
        self.taken.append((x - half, y - half, x + half, y + half))

    def line(self, x1: float, y1: float, x2: float, y2: float) -> None:
        """A level or upright line lies here."""
        self.taken.append((min(x1, x2) - 1.5, min(y1, y2) - 1.5, max(x1, x2) + 1.5, max(y1, y2) + 1.5))

    def place(
        self,
        x: float,
        y: float,
        text: str,
        gap: float = 9,
        size: float = SMALL,
        colour: str = "ink",
        bold: bool = False,
    ) -> Words | None:
        """The text beside a point, above or below it, where there is room; None if there is none."""
        long = width(text, size, bold)
        tries = [
            (x + gap, y + 4, "start"),
            (x - gap, y + 4, "end"),
            (x, y - gap, "middle"),
            (x, y + gap + size * 0.8, "middle"),
            (x + gap * 0.7, y - gap, "start"),
            (x - gap * 0.7, y - gap, "end"),
            (x + gap * 0.7, y + gap + size * 0.8, "start"),
            (x - gap * 0.7, y + gap + size * 0.8, "end"),
            (x, y - 2.4 * gap, "middle"),
            (x, y + 2.4 * gap + size * 0.8, "middle"),
        ]
        for at_x, at_y, anchor in tries:
            left = at_x - {"start": 0.0, "middle": long / 2, "end": long}[anchor]
            area = (left, at_y - size * 0.9, left + long, at_y + size * 0.3)
            if self._free(area):
                self.taken.append(area)
                return Words(at_x, at_y, text, colour, size, anchor, bold)
        return None

    def put(self, words: Words, room: float) -> Words:
        """A label that has its place; others keep off it."""
        text = cut(words.text, room, words.size, words.bold)
        long = width(text, words.size, words.bold)
        left = words.x - {"start": 0.0, "middle": long / 2, "end": long}[words.anchor]
        self.taken.append((left, words.y - words.size * 0.9, left + long, words.y + words.size * 0.3))
        return Words(words.x, words.y, text, words.colour, words.size, words.anchor, words.bold)

    def _free(self, area: Area) -> bool:
        inside = (
            area[0] >= self.frame[0]
            and area[1] >= self.frame[1]
            and area[2] <= self.frame[2]
            and area[3] <= self.frame[3]
        )
        return inside and not any(
            area[0] < other[2] and other[0] < area[2] and area[1] < other[3] and other[1] < area[3]
            for other in self.taken
        )
