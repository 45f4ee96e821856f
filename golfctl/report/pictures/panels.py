"""The small pictures of one plan, about 350 units wide each: curves, seeds, step times; and where the money went."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from golfctl import stats
from golfctl.domain.run import RunRecord
from golfctl.report.model import PlanReport, Report, Trace, compared
from golfctl.report.pictures.axes import SMALL, Labels, Scale, digits, padded, rows_of_grid
from golfctl.report.pictures.scene import Box, Card, Item, Scene, Shape, Words, mark
from golfctl.report.pictures.text import cut, width
from golfctl.report.summary import GateRow

WIDE, HIGH = 350.0, 230.0
UNITS = ((3 * 3.6e6, 3.6e6, "h"), (3 * 6e4, 6e4, "min"), (0.0, 1e3, "s"))
LENGTH = 0.9
"""Of a loss curve the part of its points that sets the upper limit: the fall of the first steps would flatten the rest."""

Shown = Sequence[tuple[RunRecord, Trace]]
Series = tuple[RunRecord, list[tuple[float, float]]]
"""A run and its points."""


def panels(report: Report, plan: PlanReport) -> list[Scene]:
    """Whatever the plan has: seeds first, then curves over steps and time, then step times."""
    shown = _shown(report, plan)
    found = [seeds(report, plan)]
    for kind in ("train", "val"):
        found += [curves(report, plan, kind, axis, shown) for axis in ("step", "time")]
    found.append(step_times(plan, report, shown))
    return [scene for scene in found if scene is not None]


def _shown(report: Report, plan: PlanReport) -> Shown:
    """The runs to show of which there are curves."""
    runs = compared(plan, report.runs)
    return [(run, report.traces[run.spec.name]) for run in runs if run.spec.name in report.traces]


def _colour(plan: PlanReport, owner: str) -> str:
    """The plan's own runs, its parent's, and the base's where that is a third."""
    return "ours" if owner == plan.id else "field" if owner == plan.row.parent else "c5"


def _owners(plan: PlanReport, runs: Iterable[RunRecord]) -> list[str]:
    """Names in the order of importance."""
    found = {run.spec.owner for run in runs}
    return sorted(found, key=lambda name: (name != plan.id, name != plan.row.parent, name))


# --- curves ------------------------------------------------------------------------------------------------------------
def curves(report: Report, plan: PlanReport, kind: str, axis: str, shown: Shown) -> Scene | None:
    """Training loss or validation score over steps or time; None where no log has two such points."""
    series: list[Series] = []
    for run, trace in shown:
        points = _points(trace.train if kind == "train" else trace.val, axis)
        if points:
            series.append((run, points))
    if max((len(points) for _, points in series), default=0) < 2:
        return None
    word = "training loss (nats per token)" if kind == "train" else f"validation {report.score}"
    unit, name = _unit(series, axis)
    left, right, top, bottom = 48.0, WIDE - 8, 44.0, HIGH - 36
    highs = [_limit([y for _, y in points]) for _, points in series]
    lows = [min(y for _, y in points) for _, points in series]
    low, high = padded([*highs, *lows], 0.06)
    y = Scale(low, high, bottom, top)
    x = Scale(0.0, max(points[-1][0] for _, points in series) / unit, left, right)
    items: list[Item] = [
        Words(0, 12, word, "ink", 12, bold=True),
        *_key(plan, [run for run, _ in series]),
    ]
    items += rows_of_grid(y, left, right, 4)
    items += _across(x, bottom, name)
    for run, points in series:
        line = tuple((x(at / unit), y(min(value, high))) for at, value in _fallen(points, high))
        colour = _colour(plan, run.spec.owner)
        own = colour == "ours"
        thin = Shape(line, stroke=colour, width=1.7 if own else 1.1, opacity=1.0 if own else 0.75)
        label = f"{run.spec.owner}, seed {run.spec.seed}\n{points[-1][1]:.4f} at the end\ngate {run.spec.gate}, {run.ending}"
        items.append(
            Card(
                f"run:{run.spec.name}", label, (Shape((*line[::4], line[-1]), stroke=colour, width=9, opacity=0), thin)
            )
        )
    text = f"{word} over {name}: {len(series)} runs of {plan.id} and what it is compared with."
    return Scene(WIDE, HIGH, f"{plan.id}: {word} over {name}", text, tuple(items))


def _points(rows: Sequence[tuple[float, float, float]], axis: str) -> list[tuple[float, float]]:
    found = [(step if axis == "step" else ms, value) for step, ms, value in rows]
    return [(at, value) for at, value in found if math.isfinite(at)]


def _limit(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(LENGTH * len(ordered)))] if len(ordered) > 8 else ordered[-1]


def _fallen(points: list[tuple[float, float]], high: float) -> list[tuple[float, float]]:
    """Without the first points above the picture, but the last of them: the line comes in at the top."""
    first = next((number for number, (_, value) in enumerate(points) if value <= high), len(points) - 1)
    return points[max(0, first - 1) :]


def _unit(series: Sequence[Series], axis: str) -> tuple[float, str]:
    if axis == "step":
        return 1.0, "steps"
    longest = max(points[-1][0] for _, points in series)
    _, unit, word = next(row for row in UNITS if longest >= row[0])
    return unit, f"training time ({word})"


def _key(plan: PlanReport, runs: Sequence[RunRecord]) -> Iterator[Item]:
    """Whose lines are whose."""
    x = 0.0
    for owner in _owners(plan, runs):
        name = cut(owner, 108, SMALL, True)
        yield Words(x, 29, name, _colour(plan, owner), SMALL, bold=True)
        x += width(name, SMALL, True) + 12


def _across(x: Scale, bottom: float, name: str) -> Iterator[Item]:
    at = x.ticks(5)
    exact = digits(at)
    yield Shape(((x.start, bottom), (x.end, bottom)), stroke="rule")
    for value in at:
        anchor = "end" if x(value) > x.end - 12 else "start" if x(value) < x.start + 8 else "middle"
        yield Words(x(value), bottom + 16, f"{value:,.{exact}f}", "soft", 10.5, anchor)
    yield Words(x.end, bottom + 31, name, "soft", 10.5, "end")


# --- seeds -------------------------------------------------------------------------------------------------------------
def seeds(report: Report, plan: PlanReport) -> Scene | None:
    """Every seed of the plan's furthest judged gate and of its parent there; mean, interval, target and margin."""
    gate = next((gate for gate in reversed(plan.row.gates) if any(run.scored for run in gate.runs)), None)
    if gate is None:
        return None
    runs = (*gate.runs, *gate.reference_runs)
    grouped = [(name, [run for run in runs if run.spec.owner == name]) for name in _owners(plan, runs)]
    sides = [(name, found, _colour(plan, name)) for name, found in grouped if any(run.scored for run in found)]
    lines = _verticals(gate)
    scores = [run.result.score for run in runs if run.result and run.result.score is not None]
    spans = [span for _, found, _ in sides if (span := _interval(found))]
    low, high = padded([*scores, *(value for value, _, _ in lines), *(value for span in spans for value in span[1:])])
    left, right, top = 8.0, WIDE - 8, 58.0
    x = Scale(low, high, left, right)
    bottom = top + 46.0 * len(sides)
    items: list[Item] = [Words(0, 12, f"seeds at gate {gate.number} {gate.name}", "ink", 12, bold=True)]
    labels = Labels((0, 16, WIDE, top))
    for value, word, colour in lines:
        for number in range(len(sides)):
            y = top + 46.0 * number + 30
            items.append(Shape(((x(value), y - 11), (x(value), y + 11)), stroke=colour, width=1.6, dash=(4.0, 2.0)))
        for y in (28.0, 44.0):
            if placed := labels.place(x(value), y, word, 0, 10.5, colour):
                items.append(placed)
                break
    for number, (name, found, colour) in enumerate(sides):
        items += _side(name, found, colour, x, top + 46.0 * number)
    items += _across(x, bottom + 4, report.score)
    text = (
        f"Scores of every seed of {plan.id} and {plan.row.parent} at gate {gate.number}, with means and 95 % intervals."
    )
    return Scene(WIDE, bottom + 44, f"{plan.id}: seeds", text, tuple(items))


def _verticals(gate: GateRow) -> list[tuple[float, str, str]]:
    """Target, and the parent's mean less the record margin in each reading."""
    numbers: Mapping[str, object] = gate.verdict.numbers
    found: list[tuple[float, str, str]] = []
    target, parent, readings = (numbers.get(name) for name in ("target", "parent", "margin_readings_bpb"))
    if isinstance(target, int | float):
        found.append((float(target), f"target {target:.4f}", "bad"))
    if isinstance(parent, Mapping) and isinstance(readings, Mapping):
        found += [(float(parent["mean"]) - float(value), f"margin, {name}", "good") for name, value in readings.items()]
    return found


def _interval(runs: Sequence[RunRecord]) -> tuple[float, float, float] | None:
    """(mean, low, high) of the scores, None for fewer than two or equal ones."""
    scores = [run.result.score for run in runs if run.result and run.result.score is not None]
    if len(scores) < 2 or max(scores) == min(scores):
        return None
    test = stats.one_sample(scores, 0.0)
    return test.mean, test.low, test.high


def _side(name: str, runs: Sequence[RunRecord], colour: str, x: Scale, top: float) -> Iterator[Item]:
    scored = [run for run in runs if run.scored]
    span = _interval(runs)
    y = top + 30
    said = f"n {len(scored)} of {len(runs)}" if len(scored) != len(runs) else f"n {len(runs)}"
    mean = f"{span[0]:.4f}" if span else ""
    yield Words(0, top + 14, cut(name, 150, SMALL, True), colour, SMALL, bold=True)
    yield Words(WIDE, top + 14, f"{mean}  {said}".strip(), "soft", SMALL, "end")
    yield Shape(((x.start, y), (x.end, y)), stroke="grid")
    if span:
        yield Box(x(span[1]), y - 4, x(span[2]) - x(span[1]), 8, colour, radius=4, opacity=0.25)
        yield Shape(((x(span[0]), y - 9), (x(span[0]), y + 9)), stroke=colour, width=2.5)
    for run in scored:
        score = run.result.score if run.result and run.result.score is not None else 0.0
        label = f"{name}, seed {run.spec.seed}\n{score:.6f}\n{run.ending}"
        yield Card(f"run:{run.spec.name}", label, (mark("circle", x(score), y, 4.5, colour),))


# --- step times --------------------------------------------------------------------------------------------------------
def step_times(plan: PlanReport, report: Report, shown: Shown) -> Scene | None:
    """A row for each run: the middle half of its step times as a bar, 5 % to 95 % as a line, the median as a tick."""
    rows = [(run, trace.step_ms) for run, trace in shown if trace.step_ms][-12:]
    if not rows:
        return None
    left, right, top = 8.0, WIDE - 8, 42.0
    at = [(times[2], times[10], times[20], times[30], times[38]) for _, times in rows]
    low, high = padded([value for five in at for value in (five[0], five[4])])
    x = Scale(max(0.0, low), high, left, right)
    bottom = top + 15.0 * len(rows)
    items: list[Item] = [Words(0, 12, "time of a step", "ink", 12, bold=True), *_key(plan, [run for run, _ in rows])]
    for number, ((run, _), (p5, p25, middle, p75, p95)) in enumerate(zip(rows, at, strict=True)):
        y = top + 15.0 * number + 8
        colour = _colour(plan, run.spec.owner)
        label = f"{run.spec.owner}, seed {run.spec.seed}\nmedian {middle:.2f} ms\n5 % to 95 %: {p5:.2f} to {p95:.2f} ms"
        items.append(
            Card(
                f"run:{run.spec.name}",
                label,
                (
                    Box(x.start, y - 7, x.end - x.start, 14, "card", opacity=0),
                    Shape(((x(p5), y), (x(p95), y)), stroke=colour, width=1.2),
                    Box(x(p25), y - 4, max(1.0, x(p75) - x(p25)), 8, colour, radius=2, opacity=0.55),
                    Shape(((x(middle), y - 6), (x(middle), y + 6)), stroke=colour, width=2.2),
                ),
            )
        )
    items += _across(x, bottom + 4, "ms")
    text = f"Distribution of step times, one row for each of {len(rows)} runs."
    return Scene(WIDE, bottom + 44, f"{plan.id}: time of a step", text, tuple(items))


# --- money -------------------------------------------------------------------------------------------------------------
def money(report: Report, wide: float) -> Scene:
    """A bar for each gate: what its runs cost, what of it counted for nothing, what aborts saved."""
    cost = report.money
    rows = cost.gates
    title = "Money by gate"
    paid = any(row.usd or row.saved_usd for row in rows)
    text = "Dollars spent at each gate, of these wasted on runs that count for nothing, and saved by aborts."
    if not rows:
        return Scene(wide, 40, title, "No run yet.", (Words(0, 20, "No run yet.", "soft"),))
    left, right = 64.0, wide - 150.0 if wide > 600 else wide - 136.0
    most = max((row.usd + row.saved_usd if paid else row.seconds) for row in rows) or 1.0
    x = Scale(0.0, most, left, right)
    items: list[Item] = []
    for number, row in enumerate(rows):
        y = 8 + 26.0 * number
        items.append(Words(0, y + 13, row.name, "ink", 12))
        if paid:
            good = row.usd - row.wasted_usd
            items.append(Box(left, y, max(1.0, x(good) - left), 18, "ours", radius=2))
            items += [Box(x(good), y, x(row.usd) - x(good), 18, "bad")] if row.wasted_usd else []
            items += [
                Box(x(row.usd), y, x(row.usd + row.saved_usd) - x(row.usd), 18, "", "good", 1.2, 2, (3.0, 2.0))
            ] * bool(row.saved_usd)
            said, end = f"${row.usd:.2f}", x(row.usd + row.saved_usd)
        else:
            items.append(Box(left, y, max(1.0, x(row.seconds) - left), 18, "ours", radius=2))
            said, end = f"{row.seconds / 60:.1f} min", x(row.seconds)
        items.append(Words(end + 8, y + 13, f"{said}  {row.runs} run{'' if row.runs == 1 else 's'}", "soft", SMALL))
    y = 8 + 26.0 * len(rows) + 14
    if paid:
        items += [Box(left, y - 9, 10, 10, "ours", radius=1), Words(left + 15, y, "spent", "soft", SMALL)]
        items += [Box(left + 62, y - 9, 10, 10, "bad", radius=1), Words(left + 77, y, "for nothing", "soft", SMALL)]
        items += [
            Box(left + 152, y - 9, 10, 10, "", "good", 1.2, 1, (3.0, 2.0)),
            Words(left + 167, y, "saved", "soft", SMALL),
        ]
    return Scene(wide, y + 10, title, text, tuple(items))
