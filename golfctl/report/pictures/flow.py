"""Picture 4: the way from an idea to a submission: what each gate checks and costs, and where each plan stands or stopped."""

from __future__ import annotations

from golfctl.domain.gate import OPERATORS
from golfctl.report.model import GateSpec, PlanReport, Report
from golfctl.report.pictures.axes import SMALL
from golfctl.report.pictures.scene import Box, Card, Disc, Item, Scene, Shape, Words, seal
from golfctl.report.pictures.text import cut, width, wrap

MOST = 60
"""Plans that are drawn; the table below the picture has all."""
HEAD = 142.0


def draw(report: Report, wide: float) -> Scene:
    """The flow, `wide` units wide: a column for each gate, a row for each plan."""
    title = "Gate flow"
    plans = sorted(report.plans, key=_far, reverse=True)[:MOST]
    more = f" {len(report.plans) - len(plans)} more stand in the table." if len(plans) < len(report.plans) else ""
    text = f"Each row is a plan on its way from idea to submission; it ends where a gate stopped it, with the reason.{more}"
    narrow = wide < 600
    head, row = (64.0, 46.0) if narrow else (HEAD, 30.0)
    name_room = 0.0 if narrow else 170.0
    columns = len(report.gates) + 2
    step = (wide - name_room) / columns
    centres = [name_room + step * (number + 0.5) for number in range(columns)]
    bottom = head + row * len(plans) + 6
    items: list[Item] = [*_heads(report, centres, step, narrow)]
    for x in centres:
        items.append(Shape(((x, head), (x, bottom - 4)), stroke="grid"))
    for number, plan in enumerate(plans):
        items.append(_lane(plan, centres, head + row * number, row, wide, narrow))
    if not plans:
        items.append(Words(0, head + 20, "No plan yet: golfctl plan new ID", "soft"))
        bottom += 30
    return Scene(wide, bottom, title, text, tuple(items))


def _far(plan: PlanReport) -> tuple[bool, int, bool, str]:
    """Furthest first, retired ones last."""
    through = sum(item.state in {"passed", "waived"} for item in plan.stations)
    return plan.standing != "retired", through, plan.standing != "not run", plan.id


def _heads(report: Report, centres: list[float], step: float, narrow: bool) -> list[Item]:
    """idea, the gates with what they ask, submission."""
    found: list[Item] = []
    through = [plan for plan in report.plans if plan.standing == "passed"]
    ends = {0: ("idea", len(report.plans)), len(centres) - 1: ("submit" if narrow else "submission", len(through))}
    for column, (name, count) in ends.items():
        x = centres[column]
        found.append(Words(x, 16, name, "ink", 11 if narrow else 13, "middle", True))
        found.append(Words(x, 32, f"{count} plan{'' if count == 1 else 's'}", "soft", SMALL, "middle"))
    for gate, x in zip(report.gates, centres[1:-1], strict=True):
        found += _head(report, gate, x, step, narrow)
    return found


def _head(report: Report, gate: GateSpec, x: float, step: float, narrow: bool) -> list[Item]:
    stations = [item for plan in report.plans for item in plan.stations if item.gate == gate.number]
    through = sum(item.state in {"passed", "waived"} for item in stations)
    judged = through + sum(item.state in {"failed", "inconclusive"} for item in stations)
    spent = next((row.usd for row in report.money.gates if row.name == f"gate {gate.number}"), 0.0)
    room = step - (2 if narrow else 10)
    size = 11.0 if narrow else 13.0
    count = f"{through}/{judged}" if narrow else f"{through} of {judged}"
    found: list[Item] = [Words(x, 16, cut(f"{gate.number} {gate.name}", room, size, True), "ink", size, "middle", True)]
    found.append(Words(x, 32, cut(count, room, SMALL), "soft", SMALL, "middle"))
    if narrow:
        return [*found, Words(x, 48, cut(f"${spent:.2f}", room, SMALL), "soft", SMALL, "middle")]
    found.append(Words(x, 48, cut(f"passed, ${spent:.2f} spent", room, SMALL), "soft", SMALL, "middle"))
    runs = "seed" if gate.seeds == 1 else "seeds"
    shape = f"{gate.seeds} {runs} x {gate.processes}, ${gate.usd:.2f} a run"
    lines = [cut(shape, room, 10.5), *[line for check in gate.checks for line in wrap(told(check), room, 10.5, 2)]]
    if gate.overriding:
        lines.append("aborts at once")
    found.append(Shape(((x - room / 2, 56), (x + room / 2, 56)), stroke="grid"))
    return found + [Words(x, 70 + 13 * number, line, "soft", 10.5, "middle") for number, line in enumerate(lines[:6])]


def told(check: str) -> str:
    """A requirement as people say it: `artifact ≤ 16 MB` for `artifact_bytes <= 1.6e+07`."""
    metric, _, rest = check.partition(" ")
    operator, _, bound = rest.partition(" ")
    sign = {"<=": "≤", ">=": "≥"}.get(operator, operator)
    try:
        value = float(bound)
    except ValueError:
        return f"{metric} {sign} {bound}".strip().replace(" - ", " − ") if operator in OPERATORS else check
    if metric.endswith("_bytes"):
        return f"{metric[:-6]} {sign} {value / 1e6:,.6g} MB"
    if metric.endswith("_ms"):
        seconds = value >= 10_000
        return (
            f"{metric[:-3].replace('_', ' ')} {sign} {value / (1000 if seconds else 1):,.6g} {'s' if seconds else 'ms'}"
        )
    return f"{metric.replace('_', ' ')} {sign} {value:.6g}"


def _lane(plan: PlanReport, centres: list[float], top: float, row: float, wide: float, narrow: bool) -> Card:
    """A plan's row: its way as far as it came, its name, and why it is no further."""
    y = top + (row - 14 if narrow else row / 2)
    reached = [number for number, item in enumerate(plan.stations, start=1) if item.state not in {"ahead", "waiting"}]
    through = plan.standing == "passed"
    end = len(centres) - 1 if through else max(reached, default=0)
    items = [Box(0, top + 1, wide, row - 2, "card", radius=4), *_track(plan, centres, end, y)]
    why = _why(plan)
    if narrow:
        room = wide - min(150.0, width(plan.id, 12, True)) - 14
        items.append(Words(0, top + 15, cut(plan.id, 150, 12, True), "ink", 12, bold=True))
        items.append(Words(wide, top + 15, cut(why, room, 10.5), "soft", 10.5, "end"))
        return Card(f"plan:{plan.id}", _words(plan, why), tuple(items))
    items.append(Words(0, y + 4, cut(plan.id, 165, 12.5, True), "ink", 12.5, bold=True))
    start = centres[end] + 16
    until = next(
        (x - 14 for x, item in zip(centres[1:-1], plan.stations, strict=True) if item.state == "waiting"), wide
    )
    said = "" if through or until - start < 60 else cut(why, until - start, SMALL)
    if said:
        items.append(Box(start - 4, y - 9, width(said, SMALL) + 8, 18, "card"))  # over the dots of gates ahead
        items.append(Words(start, y + 4, said, "soft", SMALL))
    return Card(f"plan:{plan.id}", _words(plan, why), tuple(items))


def _track(plan: PlanReport, centres: list[float], end: int, y: float) -> list[Shape | Box | Disc | Words]:
    """From the idea to column `end`, with a seal at each gate."""
    tone = {"passed": "good", "stopped": "field", "retired": "rule"}.get(plan.standing, "ours")
    items: list[Shape | Box | Disc | Words] = [Shape(((centres[0], y), (centres[end], y)), stroke=tone, width=2.5)]
    items.append(Disc(centres[0], y, 4, tone))
    for x, station in zip(centres[1:-1], plan.stations, strict=True):
        items += seal(station.state, x, y, 7.5)
    return [*items, Disc(centres[-1], y, 4, "good")] if plan.standing == "passed" else items


def _why(plan: PlanReport) -> str:
    stop = next((item for item in plan.stations if item.state in {"failed", "inconclusive", "running"}), None)
    if plan.standing == "retired":
        return plan.row.status
    if stop:
        return stop.why
    ahead = next((item for item in plan.stations if item.state == "waiting"), None)
    if plan.standing == "passed":
        return "through all gates"
    return f"next: gate {ahead.gate} {ahead.name}" if ahead else plan.row.status


def _words(plan: PlanReport, why: str) -> str:
    lines = [f"{plan.id}: {plan.row.status}", why]
    lines += [
        f"gate {item.gate} {item.name}: {item.state}, {item.runs} runs, ${item.usd:.2f}"
        for item in plan.stations
        if item.runs
    ]
    return "\n".join(dict.fromkeys(lines))
