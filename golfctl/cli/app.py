"""The command tree. Nothing heavy is imported here: `golfctl --help` must answer at once."""

from __future__ import annotations

from typing import Annotated

import typer

from golfctl import __version__
from golfctl.cli import (
    audit,
    base,
    brief,
    cost,
    export,
    fail,
    figure,
    gate,
    home,
    host,
    leaderboard,
    ledger,
    log,
    output,
    plan,
    report,
    runs,
    stats,
    submit,
    watch,
)

app = typer.Typer(
    name="golfctl",
    help="A command-line laboratory for training research under hard limits: plans, gated runs, honest verdicts.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="Exit codes: 0 done, 1 a gate or check said no, 2 wrong input, 3 a host, run or disk failed, 4 our bug. "
    "--debug anywhere shows tracebacks.",
)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Without a command: what needs attention here, and the next command."""
    if version:
        output.say(f"golfctl {__version__}")
    elif context.invoked_subcommand is None:
        home.home()


app.command("init")(home.init)
app.add_typer(base.app, name="base")
app.add_typer(plan.app, name="plan")
app.add_typer(gate.app, name="gate")
app.command("seeds")(gate.seeds)
app.add_typer(runs.app, name="runs")
app.add_typer(host.app, name="host")
app.add_typer(log.app, name="log")
app.command("audit")(audit.audit)
app.command("report")(report.report)
app.command("brief")(brief.brief)
app.command("figure")(figure.figure)
app.command("cost")(cost.cost)
app.command("stats", cls=stats.ManyFiles)(stats.stats)
app.add_typer(fail.app, name="fail")
app.add_typer(ledger.app, name="ledger")
app.command("submit")(submit.submit)
app.command("export")(export.export)
app.command("watch")(watch.watch)
app.add_typer(leaderboard.app, name="leaderboard")
