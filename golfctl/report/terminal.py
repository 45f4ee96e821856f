"""The report on a terminal: plain lines that survive a pipe; colour only where it says something."""

from __future__ import annotations

from shlex import quote

from rich.console import Console
from rich.markup import escape

from golfctl.domain.gate import Answer
from golfctl.report import text
from golfctl.report.summary import PlanRow, Summary

COLOUR = {Answer.PASS: "green", Answer.FAIL: "red", Answer.INCONCLUSIVE: "yellow"}


def render(summary: Summary, console: Console) -> None:
    """Print the whole report."""
    console.print(f"[bold]{escape(summary.campaign)}[/bold]   base {escape(summary.base)}   {text.accounting(summary)}")
    for side in summary.bases:
        console.print(f"  base, {text.side_line(side, summary.score)}")
    for row in summary.plans:
        console.print()
        _plan(row, console)
    console.print()
    if summary.references:
        console.print(f"On the same bytes: {text.references_line(summary)}")
    for name in summary.without_why:
        console.print(
            f"[yellow]{escape(name)} failed and nobody has said why: golfctl fail why {escape(quote(name))}[/yellow]"
        )
    for name in summary.unfinished:
        console.print(f"[yellow]{escape(name)} has not ended: golfctl gate run goes on with it[/yellow]")
    console.print(f"Ledger: {text.ledger_line(summary)}")


def _plan(row: PlanRow, console: Console) -> None:
    console.print(f"[bold]{escape(text.plan_heading(row))}[/bold]   {escape(row.title)}")
    for gate in row.gates:
        colour = COLOUR[gate.verdict.answer]
        line = escape(text.gate_line(gate)).replace(
            text.MARK[gate.verdict.answer], f"[{colour}]{text.MARK[gate.verdict.answer]}[/{colour}]", 1
        )
        console.print(f"  {line}")
        for beside in text.beside_lines(gate):
            console.print(f"    [dim]{escape(beside)}[/dim]")
        dropped = [run for run in gate.runs if run.result is None or run.result.score is None]
        for run in dropped:
            reason = escape(f"{run.spec.name} {run.ending}: {run.reason}")
            console.print(f"    [yellow]no score: {reason}[/yellow]")
    for gate in row.older:
        console.print(f"  [dim]revision {gate.verdict.revision}: {escape(text.gate_line(gate))}[/dim]")
