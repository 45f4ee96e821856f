"""Picture 3: which plan builds on which, which can't be stacked, where each stands, and what it expected and measured."""

from __future__ import annotations

from itertools import pairwise

from golfctl.report.model import Edge, PlanReport, Report
from golfctl.report.pictures.axes import SMALL
from golfctl.report.pictures.scene import Box, Card, Disc, Item, Point, Scene, Shape, Words, elbow, seal
from golfctl.report.pictures.text import cut

MOST = 60
"""Plans that are drawn; the table below the picture has all."""
HIGH, GAP = 74.0, 14.0
TONE = {"passed": "good", "stopped": "bad", "active": "ours", "not run": "field", "retired": "rule"}
WORDS = {
    "passed": "all gates passed",
    "stopped": "stopped",
    "active": "active",
    "not run": "not run yet",
    "retired": "retired",
}


def draw(report: Report, wide: float) -> Scene:
    """The graph, `wide` units wide: what builds on a plan lies right of it (narrow: below it, indented)."""
    plans = _chosen(report)
    more = f" {len(report.plans) - len(plans)} more stand in the table." if len(plans) < len(report.plans) else ""
    text = f"{len(report.plans)} plans; lines join a plan and what builds on it, broken lines plans that can't be stacked.{more}"
    title = "Plans and what they build on"
    if not plans:
        return Scene(wide, 60, title, text, (Words(0, 24, "No plan yet: golfctl plan new ID", "soft"),))
    narrow = wide < 600
    places, card, height = _narrow(plans, wide) if narrow else _wide(plans, wide)
    known = {plan.id for plan in plans}
    edges = [edge for edge in report.edges if edge.source in known and edge.target in known]
    items: list[Item] = []
    for edge in edges:
        items += _edge(edge, places, card, narrow)
    clashes: dict[str, list[str]] = {}
    for edge in (edge for edge in edges if edge.kind == "conflict"):
        clashes.setdefault(edge.source, []).append(edge.target)
        clashes.setdefault(edge.target, []).append(edge.source)
    items += [
        _card(plan, places[plan.id], wide if narrow else card, clashes.get(plan.id, []), narrow) for plan in plans
    ]
    return Scene(wide, height, title, text, tuple(items))


def _chosen(report: Report) -> list[PlanReport]:
    """All, or those that build, are built on or clash, then those that got furthest."""
    if len(report.plans) <= MOST:
        return list(report.plans)
    linked = {name for edge in report.edges for name in (edge.source, edge.target)}
    ranked = sorted(
        report.plans, key=lambda plan: (plan.standing == "retired", plan.id not in linked, -len(plan.row.gates))
    )
    kept = {plan.id for plan in ranked[:MOST]}
    return [plan for plan in report.plans if plan.id in kept]


def _trees(plans: list[PlanReport]) -> list[tuple[PlanReport, int]]:
    """Every plan once with its depth, after what it builds on; large families first, loners last."""
    known = {plan.id for plan in plans}
    above: dict[str, list[PlanReport]] = {}
    roots: list[PlanReport] = []
    for plan in plans:
        below = next((name for name in reversed(plan.depends_on) if name in known), None)
        (above.setdefault(below, []) if below else roots).append(plan)
    roots.sort(key=lambda plan: plan.id not in above)
    found: list[tuple[PlanReport, int]] = []
    waiting = [(plan, 0) for plan in reversed(roots)]
    while waiting:
        plan, depth = waiting.pop()
        found.append((plan, depth))
        waiting += [(item, depth + 1) for item in reversed(above.get(plan.id, []))]
    seen = {plan.id for plan, _ in found}
    return found + [(plan, 0) for plan in plans if plan.id not in seen]  # a circle has no root


def _wide(plans: list[PlanReport], wide: float) -> tuple[dict[str, Point], float, float]:
    """Left upper corners, width of a card, height of it all: families as rows of a tree, loners four abreast below."""
    deepest = max(depth for _, depth in _trees(plans))
    columns = max(4, deepest + 1)
    gap = 40.0 if columns <= 5 else 20.0
    card = (wide - (columns - 1) * gap) / columns
    places: dict[str, Point] = {}
    row, order = 0, _trees(plans)
    families = {plan.id for plan, depth in order if depth} | {
        one.id for (one, _), (_, depth) in pairwise(order) if depth
    }
    before = -1
    for plan, depth in (item for item in order if item[0].id in families):
        row += 1 if depth <= before else 0
        places[plan.id] = (depth * (card + gap), row * (HIGH + GAP))
        before = depth
    first = row + 1 if families else 0
    loners = [plan for plan, _ in order if plan.id not in families]
    for number, plan in enumerate(loners):
        places[plan.id] = (number % columns * (card + gap), (first + number // columns) * (HIGH + GAP))
    rows = first + -(-len(loners) // columns)
    return places, card, rows * (HIGH + GAP) - GAP + 2


def _narrow(plans: list[PlanReport], wide: float) -> tuple[dict[str, Point], float, float]:
    order = _trees(plans)
    places = {plan.id: (min(depth, 5) * 16.0, number * (HIGH + GAP)) for number, (plan, depth) in enumerate(order)}
    return places, wide, len(order) * (HIGH + GAP) - GAP + 2


def _edge(edge: Edge, places: dict[str, Point], card: float, narrow: bool) -> list[Item]:
    (x1, y1), (x2, y2) = places[edge.target], places[edge.source]
    if edge.kind == "depends":
        if narrow:
            points: tuple[Point, ...] = ((x1 + 7, y1 + HIGH), (x1 + 7, y2 + HIGH / 2), (x2, y2 + HIGH / 2))
        else:
            points = elbow(x1 + card, y1 + HIGH / 2, x2, y2 + HIGH / 2)
        return [Shape(points, stroke="soft", width=1.8), Disc(*points[-1], 3, "soft")]
    if narrow:
        return []  # the cards say it
    middle = card / 2
    ends = ((x1 + middle, y1 + HIGH / 2), (x2 + middle, y2 + HIGH / 2))
    return [Shape(ends, stroke="bad", width=1.4, dash=(4.0, 4.0))]


def _card(plan: PlanReport, place: Point, card: float, clashes: list[str], narrow: bool) -> Card:
    x, y = place
    wide = card - x if narrow else card
    tone = "warn" if any(item.state == "inconclusive" for item in plan.stations) else TONE[plan.standing]
    faint = plan.standing == "retired"
    items: list[Shape | Box | Disc | Words] = [
        Box(x + 0.5, y + 0.5, wide - 1, HIGH, "card", "rule", 1, 6),
        Box(x + 0.5, y + 8, 3.5, HIGH - 16, tone, radius=1.5),
    ]
    pips = [
        _pip(station.state, x + wide - 12 - 15 * number, y + 16)
        for number, station in enumerate(reversed(plan.stations))
    ]
    for shapes in pips:
        items += shapes
    room = wide - 24 - 15 * len(plan.stations) - 4
    items.append(Words(x + 13, y + 20, cut(plan.id, room, 12.5, True), "soft" if faint else "ink", 12.5, bold=True))
    items.append(Words(x + 13, y + 37, cut(plan.row.title, wide - 24, SMALL), "soft", SMALL))
    expected, measured = _numbers(plan)
    items.append(Words(x + 13, y + 54, expected, "soft", SMALL))
    if measured:
        good = plan.delta is not None and plan.delta <= 0
        items.append(Words(x + wide - 10, y + 54, measured, "good" if good else "bad", SMALL, "end", True))
    if clashes:
        more = f" and {len(clashes) - 1} more" if len(clashes) > 1 else ""
        items.append(Words(x + 13, y + 68, cut(f"≠ {clashes[0]}{more}", wide - 24, 10.5), "bad", 10.5))
    else:
        items.append(Words(x + 13, y + 68, WORDS[plan.standing], "good" if tone == "good" else "soft", 10.5))
    return Card(f"plan:{plan.id}", _words(plan, clashes), tuple(items))


def _pip(state: str, x: float, y: float) -> tuple[Shape | Disc | Words, ...]:
    return seal(state, x, y, 6)


def _numbers(plan: PlanReport) -> tuple[str, str]:
    said = plan.expected
    digits = 4 if said and max(map(abs, said)) < 0.1 else 3
    expected = f"exp. {said[0]:+.{digits}f} to {said[1]:+.{digits}f}" if said else "nothing expected"
    expected = expected if plan.filed else "no plan file in use"
    return expected, f"{plan.delta:+.4f}" if plan.delta is not None else ""


def _words(plan: PlanReport, clashes: list[str]) -> str:
    expected, measured = _numbers(plan)
    lines = [f"{plan.id}: {plan.row.status}", plan.row.title, expected + (f", measured {measured}" if measured else "")]
    lines += [f"gate {item.gate} {item.name}: {item.state}" for item in plan.stations if item.state != "ahead"]
    lines += [f"builds on {', '.join(plan.depends_on)}"] if plan.depends_on else []
    lines += [f"can't be stacked with {', '.join(clashes)}"] if clashes else []
    return "\n".join(lines)
