"""Loss curves in letters: 80 columns of ASCII, told apart without colours, the same in a pipe."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from golfctl.domain.units import duration
from golfctl.report.curves import WORDS, Array, Curve, Limits, limits_of, thinned

WIDTH, HEIGHT = 80, 16
MARGIN = 11
LONGEST = 56
"""Letters of a name that are shown."""
LETTERS = "abcdefghijklmnopqrstuvwxyz"
ABOVE, GAP = "^", "!"


def draw(curves: Sequence[Curve], axes: Sequence[str], kind: str, log_x: bool = False) -> list[str]:
    """Lines of a panel for each axis, then who is who. Curve a is drawn with a, its final score stands as A."""
    lines = [WORDS[kind]]
    limits = limits_of(curves, axes, log_x)
    for axis in axes:
        shown = [curve for curve in curves if len(curve.on(axis, log_x)[0])]
        if shown:
            lines += _panel(curves, shown, axis, limits, log_x)
    lines += [_who(number, curve) for number, curve in enumerate(curves)]
    return lines


def _panel(curves: Sequence[Curve], shown: Sequence[Curve], axis: str, limits: Limits, log_x: bool) -> list[str]:
    scale = _Scale(shown, axis, limits, log_x)
    cells: list[list[list[str]]] = [[[] for _ in range(scale.columns)] for _ in range(HEIGHT)]
    over: dict[tuple[int, int], str] = {}
    for number, curve in enumerate(curves):
        if curve not in shown:
            continue
        letter = LETTERS[number % len(LETTERS)]
        x, y = thinned(*curve.on(axis, log_x), scale.columns, log_x)
        for column, row in _cells(scale, x, y):
            if row < 0:
                over[0, column] = ABOVE
            elif letter not in cells[row][column]:
                cells[row][column].append(letter)
        over |= {(HEIGHT - 1, scale.column(place)): GAP for place in x[~np.isfinite(y)]}
        if curve.final and math.isfinite(curve.end[axis]):
            over[scale.row(curve.final[0]), scale.column(curve.end[axis])] = letter.upper()
    lines = []
    for row, line in enumerate(cells):
        # Where curves lie on each other their letters take turns, so that none hides another.
        text = "".join(
            over.get((row, column)) or (found[column % len(found)] if found else " ")
            for column, found in enumerate(line)
        )
        value = limits.high - (limits.high - limits.low) * (row + 0.5) / HEIGHT
        label = f"{value:{MARGIN - 2}.4g} |" if row % 5 == 0 or row == HEIGHT - 1 else " " * (MARGIN - 1) + "|"
        lines.append((label + text).rstrip())
    lines.append(" " * (MARGIN - 1) + "+" + "-" * scale.columns)
    return [*lines, *scale.foot()]


class _Scale:
    """Where a value stands among the columns and rows of a panel."""

    def __init__(self, shown: Sequence[Curve], axis: str, limits: Limits, log_x: bool) -> None:
        self.axis, self.limits, self.log_x = axis, limits, log_x
        self.columns = WIDTH - MARGIN
        every = [curve.on(axis, log_x)[0] for curve in shown]
        self.low = float(min(x.min() for x in every))
        ends = [curve.end[axis] for curve in shown if curve.final and math.isfinite(curve.end[axis])]
        self.high = max([*(float(x.max()) for x in every), *ends])

    def column(self, value: float) -> int:
        low, high, value = (math.log(part) if self.log_x else part for part in (self.low, self.high, value))
        return int((value - low) / ((high - low) or 1.0) * (self.columns - 1) + 0.5)

    def row(self, value: float) -> int:
        """From the top; -1 above the limit."""
        if value > self.limits.high:
            return -1
        part = (self.limits.high - value) / (self.limits.high - self.limits.low)
        return min(int(part * HEIGHT), HEIGHT - 1)

    def foot(self) -> list[str]:
        """The ends of the axis, its name, and what was cut."""
        first, last = (f"{end:,.0f}" if self.axis == "step" else duration(end / 1000) for end in (self.low, self.high))
        name = {"step": "step", "time": "training time"}[self.axis] + (" (log)" if self.log_x else "")
        line = first + name.center(self.columns - len(first) - len(last)) + last
        said = self.limits.say()
        return [" " * MARGIN + line, *([f"{' ' * MARGIN}{ABOVE} {said}"] if said else [])]


def _cells(scale: _Scale, x: Array, y: Array) -> Iterator[tuple[int, int]]:
    """(column, row) of every cell a curve runs through; a gap is not crossed."""
    before: tuple[int, int] | None = None
    for place, value in zip(x.tolist(), y.tolist(), strict=True):
        if not math.isfinite(value):
            before = None
            continue
        here = (scale.column(place), scale.row(value))
        if before is not None:
            steps = max(abs(here[0] - before[0]), abs(here[1] - before[1]))
            for part in range(1, steps):
                between = [one + (two - one) * part / steps for one, two in zip(before, here, strict=True)]
                yield round(between[0]), round(between[1])
        yield here
        before = here


def _who(number: int, curve: Curve) -> str:
    """`a  baseline   A 2.0727 final_int8_zlib_roundtrip_exact`."""
    letter = LETTERS[number % len(LETTERS)]
    gaps = f"  ({GAP} {curve.gaps:,} nan)" if curve.gaps else ""
    final = f"{letter.upper()} {curve.final[0]:.4f} {curve.final[1]}" if curve.final else ""
    name = curve.name if len(curve.name) <= LONGEST else f"{curve.name[:26]}...{curve.name[29 - LONGEST :]}"
    line = f"{letter}  {name}{gaps}"
    if not final:
        return line
    return f"{line}   {final}" if len(line) + len(final) + 3 <= WIDTH else f"{line}\n   {final}"
