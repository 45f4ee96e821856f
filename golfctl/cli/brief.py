"""`golfctl brief`: one page that brings a fresh person, or a program, up to date."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from golfctl.cli import output
from golfctl.errors import InputError


def brief(
    to: Annotated[Path | None, typer.Option("--output", "-o", help="File to write; none: standard output.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Rules, base, frontier, what was tried and why it failed, what runs, what the budget allows, the next best steps."""
    from dataclasses import asdict

    from golfctl.report.brief import brief_of, render
    from golfctl.report.build import report_of
    from golfctl.store.files import write_atomic

    campaign = output.campaign()
    found = brief_of(report_of(campaign), campaign.rules)
    if as_json:
        output.print_json(asdict(found))
    elif to is None:
        output.say(render(found).rstrip("\n"))
    else:
        try:
            write_atomic(to, render(found).encode())
        except OSError as error:
            raise InputError(f"{to}: can't be written: {error.strerror}") from None
        output.say(f"Brief: {to}")
