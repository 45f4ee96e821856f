"""The report on a terminal: plain lines that survive a pipe; colour only where it says something."""

from __future__ import annotations

import textwrap
from shlex import quote

from rich.console import Console
from rich.text import Text

from golfctl.domain.gate import Answer
from golfctl.report import text, verdicts
from golfctl.report.model import PlanReport, Report
from golfctl.report.summary import GateRow

COLOUR = {Answer.PASS: "green", Answer.FAIL: "red", Answer.INCONCLUSIVE: "yellow"}
LONGEST = 2000
"""Letters of a line before it wraps; commands may have ten times as many."""
WIDEST = 120
"""Longer lines are hard to read, however wide the terminal is."""


class Page:
    """Lines on a console. On a terminal they wrap between words, with their indent; in a pipe a line stays a line."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._width = None if console.soft_wrap else min(console.width, WIDEST)
        self._lines: list[Text] = []

    def say(self, words: str, indent: int = 0, style: str = "", mark: str = "", colour: str = "") -> None:
        """One line. mark: the first word in it to be shown in a colour."""
        space, words = " " * indent, text.plain(words, LONGEST)
        lines = [space + words]
        if self._width is not None:
            lines = textwrap.wrap(
                words,
                max(20, self._width),
                initial_indent=space,
                subsequent_indent=space + "  ",
                break_on_hyphens=False,
            ) or [""]
        line = Text("\n".join(lines), style=style)
        if mark and (at := line.plain.find(mark)) >= 0:
            line.stylize(colour, at, at + len(mark))
        self._lines.append(line)

    def as_it_is(self, words: str, indent: int) -> None:
        """A line to be copied: never wrapped by us."""
        self._lines.append(Text(" " * indent + text.plain(words, 10 * LONGEST)))

    def show(self) -> None:
        """Print everything at once, which for thousands of lines takes a tenth of the time."""
        self._console.print(Text("\n").join(self._lines), soft_wrap=True)


def render(report: Report, console: Console, full: bool) -> None:
    """Print the report. full: every run on a line of its own, hypotheses, hashes, how to run it again; else in short."""
    summary, page = report.summary, Page(console)
    head = f"{summary.campaign}   base {summary.base or 'none'}   {text.accounting(summary)}"
    page.say(head, style="bold")
    for side in summary.bases:
        page.say(f"base, {text.side_line(side, summary.score)}", 2)
    for plan in report.plans:
        page.say("")
        _plan(plan, report, page, full)
    page.say("")
    if said := text.unusable_line(report):
        page.say(said, style="yellow")
    if summary.references:
        page.say(f"On the same bytes: {text.references_line(summary)}")
    for name in summary.without_why:
        page.say(f"{name} failed and nobody has said why: golfctl fail why {quote(name)}", style="yellow")
    for name in summary.unfinished:
        page.say(f"{name} has not ended: golfctl gate run goes on with it", style="yellow")
    page.say(f"Ledger: {text.ledger_line(summary)}")
    page.show()


def _plan(plan: PlanReport, report: Report, page: Page, full: bool) -> None:
    page.say(f"{text.plan_heading(plan.row)}   {text.plain(plan.row.title, 200)}".rstrip(), style="bold")
    said = verdicts.sentence(plan, report)
    gate = verdicts.decisive(plan)
    answer = gate.verdict.answer if gate else None
    page.say(said, 2, mark=text.MARK[answer] if answer else "", colour=COLOUR[answer] if answer else "")
    if full and plan.hypothesis:
        page.say(f"hypothesis: {plan.hypothesis}", 2)
    for line in (verdicts.expected(plan), verdicts.sizes(plan) if full else ""):
        if line:
            page.say(line, 2)
    if full and plan.diffs:
        page.say(f"changes: {'; '.join(plan.diffs)}", 2)
    runs, judged = text.runs_by_gate(plan, report), {row.number: row for row in plan.row.gates}
    for number in sorted({*runs, *judged}):
        _gate(number, judged.get(number), page)
        for row in runs.get(number, ()) if full else ():
            cells = text.seed_row(row)
            style = "" if row.scored else "yellow"
            page.say(f"seed {cells[0]}  {cells[3]}  {cells[4]}  {cells[5]} bytes  {cells[2]}", 4, style)
        if runs.get(number) and not full:
            page.say(
                text.seeds_line(runs[number]),
                4,
                "" if all(row.scored for row in runs[number]) else "yellow",
            )
    for older in plan.row.older:
        page.say(f"revision {older.verdict.revision}: {text.gate_line(older)}", 2, "dim")
    if full and plan.bundle:
        page.say(text.code_line(plan), 2)
    elif plan.bundle:
        page.say(f"code {plan.bundle[:16]}; everything about it: golfctl report {plan.id}", 2, "dim")
    if full and plan.again:
        page.say("to run it again, from this folder:", 2)
        for command in plan.again:
            page.as_it_is(command, 4)


def _gate(number: int, row: GateRow | None, page: Page) -> None:
    if row is None:
        page.say(f"gate {number}   no verdict on this revision", 2)
        return
    answer = row.verdict.answer
    page.say(text.gate_line(row), 2, mark=text.MARK[answer], colour=COLOUR[answer])
    for beside in text.beside_lines(row):
        page.say(beside, 4, "dim")
