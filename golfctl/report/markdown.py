"""The report as Markdown: experiments/report.md. What people and hosts wrote is escaped: it shows as text, whatever it holds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from shlex import quote

from rich.cells import cell_len

from golfctl.report import text, verdicts
from golfctl.report.model import PlanReport, Report
from golfctl.report.summary import GateRow
from golfctl.report.text import plain

_MEANS = re.compile(r"([\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])|^#+|^\d+(?=[.)]\s)|^[-+=](?=\s|$))")
_FIGURE = re.compile(r"[-+$]?[\d,.]+( ms)?|none|\?|-")
LONGEST = 2000
"""Letters of a text that are shown."""


def render(report: Report) -> str:
    """The whole document. Everything in it is derived from the ledger and the plan files."""
    summary = report.summary
    lines = [
        f"# Report of {escape(summary.campaign)}",
        "",
        f"Written {report.written}. {text.accounting(summary)}.",
        "",
    ]
    lines += table(
        ("plan", "gates", "result", "verdict"),
        [(plan.id, _gates(plan), plan.row.status, verdicts.sentence(plan, report, bar=False)) for plan in report.plans],
    )
    if said := text.unusable_line(report):
        lines += ["", f"**{escape(said)}.**"]
    lines += ["", f"## Base {escape(summary.base or 'none')}", ""]
    lines += [f"- {escape(text.side_line(side, summary.score))}" for side in summary.bases]
    if summary.references:
        lines += ["", f"On the same bytes, bpb: {escape(text.references_line(summary))}."]
    for plan in report.plans:
        lines += ["", *_plan(plan, report)]
    if summary.without_why:
        lines += ["", "## Failures without a why", ""]
        lines += [f"- {escape(name)}: {code(f'golfctl fail why {quote(name)}')}" for name in summary.without_why]
    lines += ["", f"Ledger: {text.ledger_line(summary)}.", ""]
    return "\n".join(lines)


def _gates(plan: PlanReport) -> str:
    return " ".join(f"{gate.number}:{text.MARK[gate.verdict.answer]}" for gate in plan.row.gates) or "-"


def _plan(plan: PlanReport, report: Report) -> list[str]:
    lines = [f"## {escape(plan.id)}", "", escape(plan.row.title), "", f"**{escape(text.plan_heading(plan.row))}**", ""]
    lines += [escape(verdicts.sentence(plan, report)), ""]
    if plan.hypothesis:
        lines += [f"- hypothesis: {escape(plan.hypothesis)}"]
    lines += [f"- {escape(said)}" for said in (verdicts.expected(plan), verdicts.sizes(plan)) if said]
    lines += [f"- changes: {', '.join(code(item) for item in plan.diffs)}"] * bool(plan.diffs)
    lines += [f"- {escape(text.code_line(plan))}"] * bool(plan.bundle)
    runs, judged = text.runs_by_gate(plan, report), {row.number: row for row in plan.row.gates}
    for number in sorted({*runs, *judged}):
        lines += ["", *_gate(number, judged.get(number))]
        if number in runs:
            lines += ["", *table(text.SEED_HEAD, [text.seed_row(run) for run in runs[number]])]
    if plan.row.older:
        lines += ["", "Earlier revisions:", ""]
        lines += [f"- revision {gate.verdict.revision}, {escape(text.gate_line(gate))}" for gate in plan.row.older]
    if plan.again:
        lines += ["", "To run it again, from the campaign's folder:", "", *block(plan.again)]
    return lines


def _gate(number: int, row: GateRow | None) -> list[str]:
    if row is None:
        return [f"### gate {number}, no verdict on this revision"]
    return [f"### {escape(text.gate_line(row))}", *[""] * bool(text.beside_lines(row))] + [
        f"- {escape(line)}" for line in text.beside_lines(row)
    ]


def escape(words: str) -> str:
    """The words as text: nothing in them is Markdown or HTML any more, and they stay on their line."""
    said = plain(words, LONGEST).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MEANS.sub(lambda found: found[0] + "\\" if found[0].isdigit() else "\\" + found[0], said)


def code(words: str) -> str:
    """The words as code in a line; a fence of more backticks than they hold."""
    said = plain(words, LONGEST)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", said)), default=0))
    space = " " if said.startswith("`") or said.endswith("`") else ""
    return f"{fence}{space}{said}{space}{fence}"


def block(lines: Sequence[str]) -> list[str]:
    """Lines to be copied."""
    said = [plain(line, 20_000) for line in lines]
    fence = "`" * max(3, 1 + max((len(run) for line in said for run in re.findall("`+", line)), default=0))
    return [f"{fence}sh", *said, fence]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table whose columns are aligned in the source, too; columns of figures to the right."""
    cells = [[escape(cell) for cell in row] for row in (head, *rows)]
    widths = [max(3, *(cell_len(cell) for cell in column)) for column in zip(*cells, strict=True)]
    right = [bool(rows) and all(_FIGURE.fullmatch(cell) for cell in column) for column in zip(*rows, strict=True)]
    right = right or [False] * len(head)
    rule = [f"{'-' * (width - 1)}{':' if side else '-'}" for width, side in zip(widths, right, strict=True)]
    found = [_line(cells[0], widths, right), f"| {' | '.join(rule)} |"]
    return found + [_line(row, widths, right) for row in cells[1:]]


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    shown = []
    for cell, width, side in zip(cells, widths, right, strict=True):
        space = " " * (width - cell_len(cell))
        shown.append(space + cell if side else cell + space)
    return f"| {' | '.join(shown)} |"
