"""A plan's full record: verdict, hypothesis, what was expected, curves, how to run it again; the page's script adds its runs."""

from __future__ import annotations

from collections.abc import Iterator

from golfctl.report.html.words import Html, folded, link, plain, short, text
from golfctl.report.model import PlanReport, Report
from golfctl.report.pictures.panels import panels
from golfctl.report.pictures.scene import Disc, Item, Scene, seal
from golfctl.report.pictures.svg import bare, inline
from golfctl.report.summary import GateRow
from golfctl.report.text import MARK, beside_lines
from golfctl.report.verdicts import expected, sentence

WITH_PICTURES = 40
"""Plans whose record holds pictures: those that got furthest."""


def articles(report: Report) -> Iterator[str]:
    """Every plan as a fold, in the order of the report."""
    ranked = sorted(report.plans, key=lambda plan: -len(plan.row.gates))
    drawn = {plan.id for plan in ranked[:WITH_PICTURES]}
    for number, plan in enumerate(report.plans):
        yield _article(report, plan, number, plan.id in drawn)


def _article(report: Report, plan: PlanReport, number: int, drawn: bool) -> str:
    tone = {"passed": "good", "stopped": "bad", "active": "ours"}.get(plan.standing, "soft")
    better = plan.delta is not None and plan.delta <= 0
    said = "" if plan.delta is None else f"{plan.delta:+.4f}"
    delta = f'<span class="delta {"good" if better else "bad"}">{said}</span>'
    head = (
        f'<span class="pips">{pips(plan)}</span><span class="id">{short(plan.id, 60)}</span>'
        f'<span class="title">{short(plan.row.title, 200)}</span>{delta}'
        f'<span class="status {tone}">{short(plan.row.status, 90)}</span>'
    )
    scenes = panels(report, plan) if drawn else []
    grid = "".join(
        f'<figure class="panel">{inline(scene, f"p{number}-{index}")}</figure>' for index, scene in enumerate(scenes)
    )
    pictures = f'<div class="panels">{grid}</div>' if grid else ""
    return (
        f'<details class="plan" data-key="plan:{plain(plan.id)}"><summary>{head}</summary><div class="record">'
        f'<p class="lead">{text(sentence(plan, report))}</p>{_sentences(plan)}{_facts(report, plan)}{pictures}'
        f'<div class="own" data-plan="{plain(plan.id)}"></div>{_again(plan)}</div></details>'
    )


def pips(plan: PlanReport) -> Html:
    """The states of its gates as small seals."""
    items: list[Item] = []
    for number, station in enumerate(plan.stations):
        items += seal(station.state, 8 + 17 * number, 8, 7) or [Disc(8, 8, 1)]
    words = ", ".join(f"gate {item.gate} {item.state}" for item in plan.stations)
    return Html(bare(Scene(17.0 * len(plan.stations) or 1, 16, words or "no gates", "", tuple(items))))


def _sentences(plan: PlanReport) -> str:
    rows = "".join(_verdict(gate) for gate in reversed(plan.row.gates))
    older = "".join(
        f"<li>revision {gate.verdict.revision}, gate {gate.number}: {MARK[gate.verdict.answer]} {text(gate.verdict.reason)}</li>"
        for gate in plan.row.older
    )
    return f'<ol class="verdicts" reversed>{rows}</ol>' * bool(rows) + f'<ul class="older">{older}</ul>' * bool(older)


def _verdict(gate: GateRow) -> str:
    tone = {"PASS": "good", "FAIL": "bad"}.get(MARK[gate.verdict.answer], "warn")
    beside = "".join(f"<li>{text(line)}</li>" for line in beside_lines(gate))
    waived = f'<p class="warn">waived: {text(gate.waived)}</p>' if gate.waived else ""
    return (
        f'<li><strong class="{tone}">{MARK[gate.verdict.answer]}</strong> <span class="soft">gate {gate.number} '
        f'{short(gate.name, 40)}</span><div class="say">{folded(gate.verdict.reason)}</div>{waived}'
        + f'<ul class="beside">{beside}</ul>' * bool(beside)
        + "</li>"
    )


def _facts(report: Report, plan: PlanReport) -> str:
    """What was thought, and what it is made of."""
    clashes = [edge for edge in report.edges if edge.kind == "conflict" and plan.id in {edge.source, edge.target}]
    rows: list[tuple[str, str]] = []
    rows += [("Hypothesis", folded(plan.hypothesis.strip()))] if plan.hypothesis.strip() else []
    rows += [("Score", text(said))] if (said := expected(plan)) else []
    others = [_span(name, *span) for name, span in plan.expect.items() if name != "score"]
    rows += [("Also expected", text(", ".join(others)))] if others else []
    rows += [("Changes", "".join(f"<code>{text(diff)}</code> " for diff in plan.diffs))] if plan.diffs else []
    rows += [("Builds on", " ".join(link(f"plan:{name}", name) for name in plan.depends_on))] if plan.depends_on else []
    for edge in clashes:
        other = edge.target if edge.source == plan.id else edge.source
        rows.append(("Conflict", f"{link(f'plan:{other}', other)} {short(edge.text, 300)}"))
    about = ", ".join([f"risk {plan.risk}"] * bool(plan.risk) + list(plan.tags))
    rows += [("Filed under", text(about))] if about else []
    rows.append(("Spent", f"${plan.usd:.2f} in {len(plan.runs)} run{'' if len(plan.runs) == 1 else 's'}"))
    rows += [("Code", f'<code class="hash">{text(plan.bundle)}</code>')] if plan.bundle else []
    return "<dl>" + "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in rows) + "</dl>"


def _span(name: str, low: float, high: float) -> str:
    """`bytes -1,500,000`, `step_avg_ms +0.5 to +1`."""
    return f"{name} {low:+,.9g}" + (f" to {high:+,.9g}" if high != low else "")


def _again(plan: PlanReport) -> str:
    if not plan.again:
        return ""
    lines = "\n".join(plain(line) for line in plan.again)
    return (
        f'<details class="fold"><summary>Run it again by hand</summary><pre tabindex="0" role="region" '
        f'aria-label="Commands to run {plain(plan.id[:60])} again">{lines}</pre></details>'
    )
