"""Bare `golfctl`: what needs attention, and the next command. And `golfctl init`."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from golfctl.cli import output
from golfctl.cli.output import count

if TYPE_CHECKING:
    from golfctl.report.summary import Summary


def home() -> None:
    """Print what needs attention in this campaign; outside of one, how to begin."""
    from golfctl.errors import NoCampaign

    try:
        campaign = output.campaign()
    except NoCampaign:
        output.say("No campaign here. Begin with `golfctl init DIR --preset cpu-demo`; all commands: `golfctl --help`.")
        return
    from golfctl.cli.report import build

    summary = build(campaign, None, as_written=True)
    _, problems = campaign.load_plans()
    output.say(
        f"{summary.campaign}: {count(len(summary.plans), 'plan')}, {count(summary.runs, 'run')}, ${summary.usd:.2f} spent"
    )
    if problems:
        files = len({problem.file for problem in problems})
        output.say(f"  broken: {count(files, 'file')}, {count(len(problems), 'problem')} (golfctl plan check)")
    for name in summary.unfinished:
        output.say(f"  under way: {name}")
    for name in summary.without_why:
        output.say(f"  failed without a why: {name}")
    for row in summary.plans:
        output.say(f"  {row.id:<16} {row.status}")
    output.say(f"Next: {_next(summary.unfinished, summary.without_why, further(summary), bool(problems))}")


def further(summary: Summary) -> str | None:
    """The command that takes the campaign further: a plan between two gates, or before its first. None: nothing is left."""
    for row in summary.plans:
        if row.status == "not run yet" or row.status.startswith("started"):
            return "golfctl gate run"
        if row.status.startswith("passed gate"):
            done, total = [int(word) for word in row.status.split() if word.isdigit()]
            return f"golfctl seeds {row.id}" if done == total - 1 else f"golfctl gate run {row.id}"
    return None


def _next(unfinished: tuple[str, ...], without_why: tuple[str, ...], work: str | None, broken: bool) -> str:
    if broken:
        return "golfctl plan check"
    if unfinished:
        return "golfctl gate run   (goes on with what is under way)"
    if work:
        return work
    if without_why:
        return f'golfctl fail why {quote(without_why[0])} "..."'
    return "golfctl plan new ID"


def init(
    folder: Annotated[Path, typer.Argument(help="Folder to make; it must not hold a campaign yet.")],
    preset: Annotated[str, typer.Option(help="cpu-demo or parameter-golf.")] = "cpu-demo",
    plans: Annotated[Path | None, typer.Option(help="Folder of plan files to copy in.")] = None,
) -> None:
    """Make a campaign: rules, gates, a frozen base, empty logs."""
    from golfctl.store.init import create

    campaign = create(folder, preset, plans)
    plans_here = count(len(campaign.load_plans()[0]), "plan")
    base = f"base {campaign.base_name}" if campaign.base_name else "no base yet"
    output.say(f"Campaign {campaign.name} in {folder}: {base}, {plans_here}.")
    step = "plan new ID" if campaign.base_name else "base add NAME --script train_gpt.py --log train.log"
    output.say(f"Next: cd {quote(str(folder))} && golfctl {step}")
