"""The report as Markdown: experiments/report.md."""

from __future__ import annotations

from collections.abc import Sequence
from shlex import quote

from golfctl.report import text
from golfctl.report.summary import GateRow, PlanRow, Summary


def render(summary: Summary, when: str) -> str:
    """The whole document. Everything in it is derived from the ledger."""
    lines = [f"# Report of {summary.campaign}", "", f"Written {when}. {text.accounting(summary)}.", ""]
    lines += ["| plan | gates | result |", "|---|---|---|"]
    for row in summary.plans:
        gates = " ".join(f"{gate.number}:{text.MARK[gate.verdict.answer]}" for gate in row.gates) or "-"
        lines.append(f"| {row.id} | {gates} | {_cell(row.status)} |")
    lines += ["", f"## Base {summary.base}", ""]
    lines += [f"- {text.side_line(side, summary.score)}" for side in summary.bases]
    if summary.references:
        lines += ["", f"On the same bytes, bpb: {text.references_line(summary)}."]
    for row in summary.plans:
        lines += ["", *_plan(row)]
    if summary.without_why:
        lines += ["", "## Failures without a why", ""]
        lines += [f"- {name}: `golfctl fail why {quote(name)}`" for name in summary.without_why]
    lines += ["", f"Ledger: {text.ledger_line(summary)}.", ""]
    return "\n".join(lines)


def _plan(row: PlanRow) -> list[str]:
    lines = [f"## {row.id}", "", row.title, "", f"**{text.plan_heading(row)}**"]
    for gate in row.gates:
        lines += ["", *_gate(gate)]
    if row.older:
        lines += ["", "Earlier revisions:", ""]
        lines += [f"- revision {gate.verdict.revision}, {text.gate_line(gate)}" for gate in row.older]
    return lines


def _gate(gate: GateRow) -> list[str]:
    lines = [f"### {text.gate_line(gate)}", ""]
    lines += [f"- {line}" for line in text.beside_lines(gate)]
    if gate.runs:
        lines += [
            "",
            *_table(("seed", "attempt", "outcome", "val_bpb", "step_avg", "code + model bytes"), text.seed_rows(gate)),
        ]
    return lines


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return lines + ["| " + " | ".join(map(_cell, row)) + " |" for row in rows]


def _cell(value: str) -> str:
    return value.replace("|", "\\|").replace("\n", " ")
