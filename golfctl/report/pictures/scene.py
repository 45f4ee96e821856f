"""What a picture is made of: shapes and words in user units (1/96 inch on a screen), coloured by name (palette.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Point = tuple[float, float]


@dataclass(frozen=True)
class Shape:
    """A polygon or line through points. fill, stroke: names of the palette, "" for none. dash: lengths, () for a whole line."""

    points: tuple[Point, ...]
    fill: str = ""
    stroke: str = ""
    width: float = 1.0
    dash: tuple[float, ...] = ()
    closed: bool = False
    opacity: float = 1.0


@dataclass(frozen=True)
class Box:
    """A rectangle with round corners."""

    x: float
    y: float
    width: float
    height: float
    fill: str = ""
    stroke: str = ""
    line: float = 1.0
    radius: float = 0.0
    dash: tuple[float, ...] = ()
    opacity: float = 1.0


@dataclass(frozen=True)
class Disc:
    """A circle."""

    x: float
    y: float
    radius: float
    fill: str = ""
    stroke: str = ""
    line: float = 1.0


@dataclass(frozen=True)
class Words:
    """One line of text. anchor: `start`, `middle` or `end` of it lies at x; y is its base line."""

    x: float
    y: float
    text: str
    colour: str = "ink"
    size: float = 12.0
    anchor: str = "start"
    bold: bool = False


@dataclass(frozen=True)
class Card:
    """What belongs to one thing that has a full record: pointed at, it tells `label` (lines); clicked, it opens record `key`."""

    key: str
    label: str
    items: tuple[Shape | Box | Disc | Words, ...]


Item = Shape | Box | Disc | Words | Card


@dataclass(frozen=True)
class Scene:
    """A picture. title: its name; text: what it shows, in a sentence, for those who do not see it."""

    width: float
    height: float
    title: str
    text: str
    items: tuple[Item, ...]


# --- shapes with a meaning ---------------------------------------------------------------------------------------------
def mark(kind: str, x: float, y: float, size: float, colour: str, hollow: bool = False) -> Shape | Disc:
    """A point's mark, `size` its half width: circle, diamond, square, up, down, cross or bar."""
    fill, stroke = ("card", colour) if hollow else (colour, "card")
    line = 1.6 if hollow else 1.0
    if kind == "circle":
        return Disc(x, y, size, fill, stroke, line)
    if kind == "cross":
        arms = ((x - size, y - size), (x, y), (x + size, y - size), (x, y), (x - size, y + size), (x, y))
        return Shape((*arms, (x + size, y + size)), stroke=colour, width=2.0)
    points = {
        "diamond": ((x, y - 1.3 * size), (x + 1.3 * size, y), (x, y + 1.3 * size), (x - 1.3 * size, y)),
        "square": ((x - size, y - size), (x + size, y - size), (x + size, y + size), (x - size, y + size)),
        "up": ((x, y - 1.2 * size), (x + 1.15 * size, y + size), (x - 1.15 * size, y + size)),
        "down": ((x, y + 1.2 * size), (x + 1.15 * size, y - size), (x - 1.15 * size, y - size)),
        "bar": ((x - size, y - 2), (x + size, y - 2), (x + size, y + 2), (x - size, y + 2)),
    }[kind]
    return Shape(points, fill, stroke, line, closed=True)


def seal(state: str, x: float, y: float, radius: float) -> tuple[Shape | Disc | Words, ...]:
    """How a gate answered, told by form and colour."""
    r = radius
    if state == "passed":
        tick = ((x - 0.48 * r, y + 0.02 * r), (x - 0.1 * r, y + 0.42 * r), (x + 0.52 * r, y - 0.4 * r))
        return Disc(x, y, r, "good"), Shape(tick, stroke="card", width=r / 4)
    if state == "failed":
        d = 0.4 * r
        arms = ((x - d, y - d), (x + d, y + d), (x, y), (x + d, y - d), (x - d, y + d))
        return Disc(x, y, r, "bad"), Shape(arms, stroke="card", width=r / 4)
    if state == "inconclusive":
        return Disc(x, y, r, "warn"), Words(x, y + 0.5 * r, "?", "card", 1.45 * r, "middle", True)
    if state == "waived":
        return Disc(x, y, r, "card", "warn", 1.8), Words(x, y + 0.42 * r, "w", "warn", 1.25 * r, "middle", True)
    if state == "running":
        sharp = ((x - 0.3 * r, y - 0.5 * r), (x + 0.55 * r, y), (x - 0.3 * r, y + 0.5 * r))
        return Disc(x, y, r, "ours"), Shape(sharp, "card", closed=True)
    if state == "waiting":
        return (Disc(x, y, r - 0.8, "card", "ours", 1.8),)
    return (Disc(x, y, 2.0, "rule"),)


def elbow(x1: float, y1: float, x2: float, y2: float, steps: int = 14) -> tuple[Point, ...]:
    """A smooth way from left to right: points of a cubic curve with level ends."""
    reach = (x2 - x1) / 2
    found = []
    for step in range(steps + 1):
        t = step / steps
        a, b, c, d = (1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3
        found.append((a * x1 + b * (x1 + reach) + c * (x2 - reach) + d * x2, (a + b) * y1 + (c + d) * y2))
    return tuple(found)


def flat(items: Sequence[Item]) -> list[Shape | Box | Disc | Words]:
    """The items with those of cards in their place."""
    found: list[Shape | Box | Disc | Words] = []
    for item in items:
        found += item.items if isinstance(item, Card) else [item]
    return found
