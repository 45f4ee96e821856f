"""What the five pictures show, as tables: for those who can't see them, and for exact numbers."""

from __future__ import annotations

from golfctl.report.html.words import Html, folded, link, short, table, text
from golfctl.report.model import Entry, Own, PlanReport, Report


def records(report: Report) -> Html:
    """Of the timeline."""
    rows: list[tuple[object, ...]] = []
    for entry in report.entries:
        place = "frontier" if entry.frontier else entry.wrong[0] if entry.wrong else ""
        name = link(entry.key, entry.folder)
        rows.append((entry.date, name, _number(entry.mean), _number(entry.claimed), entry.n, place))
    rows += [(own.when[:10], link(own.key, own.name), _number(own.score), "", own.n, "ours") for own in report.own]
    return table(
        "Records and our results by date", ("date", "record", "logs", "claimed", "n", "place"), rows, (2, 3, 4)
    )


def stations(report: Report) -> Html:
    """Of the gate flow: what each gate asks, and where each plan stands."""
    head = ("plan", *(f"{gate.number} {gate.name}" for gate in report.gates), "dollars", "why")
    rows = [_stations(plan) for plan in report.plans]
    checks = "".join(
        f"<li>gate {gate.number} {short(gate.name, 40)}: {text('; '.join(gate.checks) or 'no requirement')}; "
        f"{gate.seeds} seed{'' if gate.seeds == 1 else 's'} on {gate.processes}, alpha {gate.alpha:g}, "
        f"${gate.usd:.2f} a run</li>"
        for gate in report.gates
    )
    return Html(f"<ul>{checks}</ul>{table('Where each plan stands', head, rows, (len(head) - 2,))}")


def _stations(plan: PlanReport) -> tuple[object, ...]:
    stops = (item.why for item in plan.stations if item.state in {"failed", "inconclusive", "running"})
    states = ("" if item.state == "ahead" else item.state for item in plan.stations)
    return link(f"plan:{plan.id}", plan.id), *states, f"{plan.usd:.2f}", next(stops, plan.row.status)


def links(report: Report) -> Html:
    """Of the plan graph."""
    rows = []
    for plan in report.plans:
        clashes = [
            edge.target if edge.source == plan.id else edge.source
            for edge in report.edges
            if edge.kind == "conflict" and plan.id in {edge.source, edge.target}
        ]
        said = plan.expected
        expected = f"{said[0]:+.4f} to {said[1]:+.4f}" if said else ""
        measured = "" if plan.delta is None else f"{plan.delta:+.4f}"
        names = (link(f"plan:{plan.id}", plan.id), plan.row.title, ", ".join(plan.depends_on), ", ".join(clashes))
        rows.append((*names, expected, measured, plan.standing))
    head = ("plan", "title", "builds on", "not with", "expected", "measured", "standing")
    return table("Plans, what they build on and what they brought", head, rows, (4, 5))


def layers(report: Report) -> Html:
    """Of the technique stack."""
    rows = []
    for layer in report.layers:
        delta = "" if layer.delta is None else f"{layer.delta:+.4f}"
        rows.append((link(layer.key, layer.name), layer.below, _number(layer.score), delta, layer.text))
    return table("Layers of techniques", ("layer", "on", report.score, "delta", "adds"), rows, (2, 3))


def sizes(report: Report) -> Html:
    """Of score against size."""
    points: list[tuple[str, Entry | Own]] = [(entry.folder, entry) for entry in report.entries]
    points += [(own.name, own) for own in report.own]
    rows = [
        (link(item.key, name), _number(item.score), f"{item.size:,}" if item.size else "", item.scheme)
        for name, item in points
    ]
    caption = f"Bytes of code and model; the cap is {report.cap_bytes:,}"
    return table(caption, ("result", report.score, "bytes", "scheme"), rows, (1, 2))


def money(report: Report) -> Html:
    """By plan, base and host."""
    rows: list[tuple[object, ...]] = []
    for item in report.money.plans:
        price = "" if item.usd_per_mbpb is None else f"{item.usd_per_mbpb:.2f}"
        name = link(f"plan:{item.row.name}", item.row.name)
        rows.append((name, item.row.runs, f"{item.row.usd:.2f}", f"{item.row.saved_usd:.2f}", price))
    rows += [(row.name, row.runs, f"{row.usd:.2f}", f"{row.saved_usd:.2f}", "") for row in report.money.owners]
    for host in report.money.hosts:
        idle = f"and {host.idle_usd:.2f} idle" if host.idle_usd else ""
        rows.append((f"host {host.row.name}", host.row.runs, f"{host.row.usd:.2f}", f"{host.row.saved_usd:.2f}", idle))
    head = ("plan, base or host", "runs", "dollars", "saved", "dollars per 0.001 bpb")
    return table("Dollars by plan, base and host", head, rows, (1, 2, 3, 4))


def failures(report: Report) -> Html:
    """What failed, with its why."""
    rows = [
        (
            item.when[:10],
            link(f"plan:{item.subject}", item.subject) if report.plan(item.subject) else item.subject,
            "" if item.gate is None else item.gate,
            item.cause,
            folded(item.numbers),
            folded(item.why) if item.why else Html('<span class="warn">not said yet</span>'),
        )
        for item in report.failures
    ]
    return table("Failures and why", ("date", "what", "gate", "cause", "numbers", "why"), rows)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
