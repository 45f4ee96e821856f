"""Picture 5: score against artifact size for every entry, by quantisation scheme, with the cap and ours."""

from __future__ import annotations

from golfctl.report.model import Entry, Own, Report
from golfctl.report.pictures.axes import SMALL, Labels, Scale, digits, legend, padded, rows_of_grid
from golfctl.report.pictures.palette import SERIES
from golfctl.report.pictures.scene import Card, Item, Scene, Shape, Words, mark
from golfctl.report.pictures.text import cut

MB = 1e6
MARKS = ("circle", "square", "up", "down", "bar", "circle")
OTHER = "not said"
NEAR = 0.8
"""Where every size is beyond this part of the cap the axis begins there: all of the contest's records crowd below the cap."""


def draw(report: Report, wide: float) -> Scene:
    """The scatter, `wide` units wide."""
    narrow = wide < 600
    title = "Score against artifact size"
    field = [entry for entry in report.entries if entry.size and entry.score is not None]
    ours = [own for own in report.own if own.size]
    known = len(field) + len(ours)
    cap = report.cap_bytes / MB
    text = (
        f"{known} results by bytes of code and model; the cap is {cap:.2f} MB. Form and colour tell the quantisation."
    )
    if not known:
        return Scene(wide, 60, title, text, (Words(0, 24, "No artifact has been measured yet.", "soft"),))
    left, right, top, bottom = 54.0, wide - 18.0, 26.0, 330.0 if narrow else 400.0
    score = _scores(report, field, ours, bottom, top)
    everything: list[Entry | Own] = [*field, *ours]
    size = _sizes([(item.size or 0) / MB for item in everything], cap, left + 12, right)
    items: list[Item] = [
        Words(0, 12, f"{report.score}, lower is better", "soft", SMALL),
        *rows_of_grid(score, left, right),
    ]
    items += _axis(size, bottom, narrow)
    labels = Labels((left, top, right, bottom - 4))
    items += _cap(cap, size, top, bottom, labels)
    schemes = _schemes(field, ours)
    for entry in field:
        labels.block(size((entry.size or 0) / MB), _held(score, entry.score or 0.0), 5)
    for own in ours:
        labels.block(size((own.size or 0) / MB), score(own.score), 8)
    items += [_entry(entry, size, score, schemes) for entry in field]
    items += [_own(own, size, score) for own in ours]
    items += _names(report, ours, size, score, labels, 110.0 if narrow else 190.0)
    rows = [(kind, colour, False, name) for name, (kind, colour) in schemes.items()]
    rows += [("circle", "field", True, "other")] * bool(field) + [("diamond", "ours", False, "ours")] * bool(ours)
    marks, lines = legend(rows, left, bottom + 62, wide)
    return Scene(wide, bottom + 56 + 18 * lines, title, text, (*items, *marks))


def _scores(report: Report, field: list[Entry], ours: list[Own], bottom: float, top: float) -> Scale:
    moved = [entry.score for entry in report.entries if entry.frontier and entry.score is not None]
    held = moved or [entry.score for entry in field if entry.score is not None]
    held += [own.score for own in ours]
    low, high = padded(held)
    return Scale(low, high, bottom, top)


def _sizes(values: list[float], cap: float, start: float, end: float) -> Scale:
    low, high = min(values), max(*values, cap)
    low = low - 0.05 * (high - low) if low > NEAR * cap else 0.0
    return Scale(low, high + 0.06 * (high - low), start, end)


def _held(score: Scale, value: float) -> float:
    return score(min(max(value, score.low), score.high))


def _axis(size: Scale, bottom: float, narrow: bool) -> list[Item]:
    at = size.ticks(4 if narrow else 8)
    exact = digits(at)
    found: list[Item] = [Shape(((size.start - 12, bottom), (size.end, bottom)), stroke="rule")]
    for value in at:
        x = size(value)
        found += [
            Shape(((x, bottom), (x, bottom + 5)), stroke="rule"),
            Words(x, bottom + 19, f"{value:.{exact}f}", "soft", SMALL, "middle"),
        ]
    found.append(Words(size.end, bottom + 36, "MB of code and model (decimal)", "soft", SMALL, "end"))
    return found


def _cap(cap: float, size: Scale, top: float, bottom: float, labels: Labels) -> list[Item]:
    x = size(cap)
    labels.taken.append((x - 2, top, x + 2, bottom))
    line = Shape(((x, top - 8), (x, bottom)), stroke="bad", width=1.5, dash=(6.0, 4.0))
    return [line, labels.put(Words(x - 6, top - 2, f"cap {cap:.2f} MB", "bad", SMALL, "end", True), 200)]


def _schemes(field: list[Entry], ours: list[Own]) -> dict[str, tuple[str, str]]:
    """Quantisation to (mark, colour), the most frequent first; what has no mark left is `other`."""
    counts: dict[str, int] = {}
    everything: list[Entry | Own] = [*field, *ours]
    for item in everything:
        counts[bits(item.scheme)] = counts.get(bits(item.scheme), 0) + 1
    counts.pop(OTHER, None)
    names = sorted(counts, key=lambda name: (-counts[name], name))[: len(SERIES) - 1]
    return {name: (MARKS[number], SERIES[number]) for number, name in enumerate(names)}


def bits(scheme: str) -> str:
    """`int6` of `int6 + zstd`; three or more widths are `mixed`."""
    found = scheme.partition(" + ")[0]
    if not found or found in {"zstd", "lzma", "zlib", "brotli", "lrzip"}:
        return OTHER
    return "mixed" if found.count("/") > 1 else found


def _entry(entry: Entry, size: Scale, score: Scale, schemes: dict[str, tuple[str, str]]) -> Card:
    kind, colour = schemes.get(bits(entry.scheme), ("circle", "field"))
    x, y = size((entry.size or 0) / MB), _held(score, entry.score or 0.0)
    outside = entry.score is not None and not score.low <= entry.score <= score.high
    shape = mark(kind, x, y, 4, colour, hollow=outside or colour == "field")
    over = f"\n{entry.wrong[0]}" if entry.wrong else ""
    label = f"{entry.title}\n{entry.score:.4f}  {entry.size:,} bytes\n{entry.scheme or 'quantisation not said'}{over}"
    return Card(entry.key, label, (shape,))


def _own(own: Own, size: Scale, score: Scale) -> Card:
    shape = mark("diamond", size((own.size or 0) / MB), score(own.score), 5, "ours", own.key.startswith("base:"))
    label = f"{own.name}\n{own.score:.4f}  {own.size:,} bytes\n{own.scheme or 'quantisation not said'}"
    return Card(own.key, label, (shape,))


def _names(report: Report, ours: list[Own], size: Scale, score: Scale, labels: Labels, longest: float) -> list[Item]:
    found: list[Item] = []
    for own in sorted(ours, key=lambda own: (own.key[:5] != "base:", own.score))[:6]:
        text = f"{cut(own.name, longest, SMALL)} {own.score:.4f}"
        placed = labels.place(size((own.size or 0) / MB), score(own.score), text, 11, colour="ours", bold=True)
        found += [placed] if placed else []
    moved = [entry for entry in report.entries if entry.frontier and entry.size]
    for entry in [*moved[-1:], *moved[:1], *reversed(moved[1:-1])]:
        text = f"{entry.mean:.4f} {cut(entry.folder[11:].replace('_', ' '), longest, SMALL)}"
        placed = labels.place(size((entry.size or 0) / MB), _held(score, entry.score or 0.0), text, 8)
        found += [placed] if placed else []
    return found
