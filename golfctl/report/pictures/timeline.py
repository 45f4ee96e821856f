"""Picture 1: every record from the first baseline to the frontier, ours among them, and what is aimed at."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from golfctl.report.model import Entry, Own, Report
from golfctl.report.pictures.axes import SMALL, Labels, Scale, dates, legend, moment, padded, rows_of_grid
from golfctl.report.pictures.scene import Card, Item, Scene, Shape, Words, mark
from golfctl.report.pictures.text import cut

DAY = 86_400.0
ALOOF = 1.0
"""Our runs stand on a stretch of time of their own where they lie further off than this many lengths of the field's."""


@dataclass(frozen=True)
class _Times:
    """Where moments lie: one stretch of time, or the field's and ours with a break between."""

    parts: tuple[Scale, ...]

    def __call__(self, when: float) -> float:
        part = next((part for part in self.parts if when <= part.high), self.parts[-1])
        return part(when)


def draw(report: Report, wide: float) -> Scene:
    """The timeline, `wide` units wide."""
    narrow = wide < 600
    left, right, top, bottom = 54.0, wide - (14.0 if narrow else 22.0), 26.0, 330.0 if narrow else 400.0
    field = [(moment(entry.date), entry) for entry in report.entries]
    points = [(when, entry) for when, entry in field if when is not None and entry.score is not None]
    ours = [(when, own) for own in report.own if (when := moment(own.when)) is not None]
    title, text = "Leaderboard timeline", _sentence(report)
    if not points and not ours:
        return Scene(wide, 60, title, text, (Words(0, 24, "No record and no score yet.", "soft"),))
    times = _times([when for when, _ in points], [when for when, _ in ours], left + 14, right - 14)
    score = _scores(report, bottom, top)
    items: list[Item] = [*rows_of_grid(score, left, right)]
    items.append(Words(0, 12, f"{report.score}, lower is better", "soft", SMALL))
    items += _days(times, bottom, narrow)
    labels = Labels((left, top, right, bottom - 4))
    items += _lines(report, score, left, right, labels)
    items += _path([(when, entry) for when, entry in points if entry.frontier], times, score, right, labels)
    for when, entry in points:
        labels.block(times(when), _within(score, entry.score or 0.0), 5)
    for when, own in ours:
        labels.block(times(when), score(own.score), 8)
    items += [_entry(entry, times(when), score) for when, entry in points]
    items += [_own(own, times(when), score) for when, own in ours]
    items += _names(report, points, ours, times, score, labels, narrow)
    marks, lines = legend(_marks(points, ours), left, bottom + 48, wide)
    return Scene(wide, bottom + 40 + 18 * lines, title, text, (*items, *marks))


def _sentence(report: Report) -> str:
    best = report.frontier
    moved = sum(entry.frontier for entry in report.entries)
    field = (
        f"{len(report.entries)} records, {moved} of them moved the frontier"
        if report.entries
        else "No records imported"
    )
    at = f", now {best.mean:.4f}" if best and best.mean is not None else ""
    own = min((item.score for item in report.own), default=None)
    mine = f"; our best is {own:.4f}" if own is not None else ""
    return f"{field}{at}{mine}. Every point stands in the table below."


def _times(field: list[float], ours: list[float], start: float, end: float) -> _Times:
    both = field + ours
    if field and ours:
        length = max(max(field) - min(field), DAY)
        gap = max(min(ours) - max(field), min(field) - max(ours))
        if gap > ALOOF * length and min(ours) > max(field):
            middle = start + 0.74 * (end - start)
            after = _stretch(ours, middle + 34, end)
            return _Times((_stretch(field, start, middle), after))
    return _Times((_stretch(both, start, end),))


def _stretch(moments: list[float], start: float, end: float) -> Scale:
    low, high = min(moments), max(moments)
    if high - low < 60:
        low, high = low - 1800, high + 1800
    return Scale(low, high, start, end)


def _scores(report: Report, bottom: float, top: float) -> Scale:
    """Limits that hold the frontier, ours and the target; records far above the first baseline stand at the rim."""
    held = [own.score for own in report.own]
    held += [value for own in report.own for value in (own.low, own.high) if value is not None and own.n > 2]
    held += [entry.mean for entry in report.entries if entry.frontier and entry.mean is not None]
    held += [report.target] if report.target is not None else []
    held += list(report.bar.values())
    if not any(entry.frontier for entry in report.entries):
        held += [entry.score for entry in report.entries if entry.score is not None]
    low, high = padded(held)
    return Scale(low, high, bottom, top)


def _within(score: Scale, value: float) -> float:
    return score(min(max(value, score.low), score.high))


def _days(times: _Times, bottom: float, narrow: bool) -> list[Item]:
    found: list[Item] = []
    for part in times.parts:
        most = max(1, int((part.end - part.start) / (60 if narrow else 86)))
        found.append(Shape(((part.start - 14, bottom), (part.end + 14, bottom)), stroke="rule"))
        for when, word in dates(part.low, part.high, most):
            x = part(when)
            found += [
                Shape(((x, bottom), (x, bottom + 5)), stroke="rule"),
                Words(x, bottom + 19, word, "soft", SMALL, "middle"),
            ]
        if not any(part.low <= when <= part.high for when, _ in dates(part.low, part.high, most)):
            word = dates(part.low - DAY, part.low, 2)[-1][1]
            found.append(Words((part.start + part.end) / 2, bottom + 19, word, "soft", SMALL, "middle"))
    for one, two in zip(times.parts, times.parts[1:], strict=False):
        x = (one.end + two.start) / 2
        found += [Shape(((x - 6 + dx, bottom + 6), (x + 2 + dx, bottom - 6)), stroke="soft") for dx in (0.0, 5.0)]
    return found


def _lines(report: Report, score: Scale, left: float, right: float, labels: Labels) -> list[Item]:
    """Target, and what a new record needs."""
    found: list[Item] = []
    bars = sorted(report.bar.values())
    if bars:
        high, low = score(bars[-1]), score(bars[0])
        corners = ((left, high), (right, high), (right, max(low, high + 1)), (left, max(low, high + 1)))
        found.append(Shape(corners, "goodWash", closed=True))
        said = (
            f"a record needs {bars[0]:.4f} to {bars[-1]:.4f}"
            if bars[0] != bars[-1]
            else f"a record needs {bars[0]:.4f}"
        )
        found.append(labels.put(Words(left + 6, max(low, high + 1) + 13, said, "good", SMALL), right - left - 12))
    if report.target is not None:
        y = score(report.target)
        labels.line(left, y, right, y)
        found.append(Shape(((left, y), (right, y)), stroke="bad", width=1.5, dash=(6.0, 4.0)))
        said = f"target {report.target:.4f}"
        found.append(labels.put(Words(left + 6, y - 6, said, "bad", SMALL, bold=True), right - left - 12))
    return found


def _path(moved: list[tuple[float, Entry]], times: _Times, score: Scale, right: float, labels: Labels) -> list[Item]:
    """The frontier as a stair."""
    corners: list[tuple[float, float]] = []
    for when, entry in sorted(moved, key=lambda item: item[0]):
        x, y = times(when), score(entry.mean or 0.0)
        corners += [(x, corners[-1][1])] if corners else []
        corners.append((x, y))
    if not corners:
        return []
    corners.append((right, corners[-1][1]))
    for one, two in pairwise(corners):
        labels.line(*one, *two)
    return [Shape(tuple(corners), stroke="field", width=1.6)]


def _entry(entry: Entry, x: float, score: Scale) -> Card:
    value = entry.score or 0.0
    y = _within(score, value)
    if value > score.high or value < score.low:
        shape = mark("up" if value > score.high else "down", x, y, 4, "field", hollow=True)
    elif entry.wrong:
        shape = mark("cross", x, y, 4, "bad")
    elif entry.mean is None:
        shape = mark("circle", x, y, 3.5, "field", hollow=True)
    else:
        shape = mark("circle", x, y, 5 if entry.frontier else 3.5, "field")
    said = "claimed, no log" if entry.mean is None else f"n {entry.n}" + (f", sd {entry.sd:.4f}" if entry.sd else "")
    kind = "frontier" if entry.frontier else f"not counted: {entry.wrong[0]}" if entry.wrong else "record"
    return Card(entry.key, f"{entry.title}\n{entry.date}  {value:.4f}  {said}\n{kind}", (shape,))


def _own(own: Own, x: float, score: Scale) -> Card:
    y = score(own.score)
    items: list[Shape | Words] = []
    if own.low is not None and own.high is not None and own.n > 2:
        ends = (_within(score, own.low), _within(score, own.high))
        items.append(Shape(((x, ends[0]), (x, ends[1])), stroke="ours", width=2))
    shape = mark("diamond", x, y, 5, "ours", hollow=own.key.startswith("base:"))
    label = f"{own.name}\n{own.score:.4f}  n {own.n}, gate {own.gate}\n{own.when[:10]}"
    return Card(own.key, label, (*items, shape))


def _names(
    report: Report,
    points: list[tuple[float, Entry]],
    ours: list[tuple[float, Own]],
    times: _Times,
    score: Scale,
    labels: Labels,
    narrow: bool,
) -> list[Item]:
    """The frontier and our best first, then both as far as there is room."""
    longest = 110.0 if narrow else 200.0
    moved = [(when, entry) for when, entry in points if entry.frontier]
    best = sorted(ours, key=lambda item: (item[1].key[:5] != "base:", item[1].score))[:6]
    wanted: list[tuple[float, Entry | Own]] = [*moved[-1:], *best, *moved[:1], *reversed(moved[1:-1])]
    found: list[Item] = []
    for when, item in wanted:
        name = item.name if isinstance(item, Own) else item.folder[11:].replace("_", " ") or item.title
        value = f"{item.score:.4f}"
        own = isinstance(item, Own)
        x, y, colour, gap = (
            times(when),
            _within(score, item.score or 0.0),
            "ours" if own else "ink",
            11.0 if own else 9.0,
        )
        full = f"{value} {cut(name, longest, SMALL)}"
        placed = labels.place(x, y, full, gap, colour=colour, bold=own)
        if placed is None and not own:
            placed = labels.place(x, y, value, gap)
        found += [placed] if placed else []
    return found


def _marks(points: list[tuple[float, Entry]], ours: list[tuple[float, Own]]) -> list[tuple[str, str, bool, str]]:
    """Only those that occur."""
    known = [entry for _, entry in points]
    rows: list[tuple[str, str, bool, str]] = []
    rows += [("circle", "field", False, "record")] if any(entry.mean is not None for entry in known) else []
    rows += [("circle", "field", True, "claim")] if any(entry.mean is None for entry in known) else []
    rows += [("cross", "bad", False, "over a limit")] if any(entry.wrong for entry in known) else []
    rows += [("diamond", "ours", False, "our plans")] if any(own.key.startswith("plan:") for _, own in ours) else []
    return rows + [("diamond", "ours", True, "our base")] * any(own.key.startswith("base:") for _, own in ours)
