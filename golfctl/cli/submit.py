"""`golfctl submit`: a plan's result as a folder for a pull request."""

from __future__ import annotations

import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from golfctl.cli import output
from golfctl.errors import GateSaidNo, HostError

if TYPE_CHECKING:
    from golfctl.submit.make import Made


class Form(StrEnum):
    """Of the one file that ships."""

    COMPRESSED = "compressed"
    PLAIN = "plain"
    READABLE = "readable"


def submit(
    plan: Annotated[str, typer.Argument(help="A plan that a gate has judged.")],
    target: Annotated[Path, typer.Option("-o", "--output", help="Folder to make; must not exist, or be empty.")],
    author: Annotated[str | None, typer.Option(help="Your name. Default: git's user.name.")] = None,
    github_id: Annotated[str | None, typer.Option("--github-id", help="Default: git's github.user.")] = None,
    form: Annotated[Form, typer.Option(help="Of train_gpt.py, where the trainer is ours.")] = Form.COMPRESSED,
    data: Annotated[
        Path | None, typer.Option(help="Folder with the validation data. Default: the one the runs had, if it is here.")
    ] = None,
    all_seeds: Annotated[
        bool, typer.Option("--all-seeds", help="Score every seed again, not the first alone.")
    ] = False,
    python: Annotated[
        str, typer.Option(help="The Python of the clean room, such as that of a bare environment.")
    ] = sys.executable,
    seconds: Annotated[float, typer.Option(min=1, help="After so long a rerun has failed.")] = 1200.0,
    memory_gib: Annotated[float, typer.Option(min=0.1, help="Memory (address space) of a rerun.")] = 24.0,
    contest: Annotated[str | None, typer.Option(help="Rules to audit by, as for `golfctl audit`.")] = None,
    standing: Annotated[float | None, typer.Option(help="The score (bpb) a record must beat.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Make the folder of a pull request, audit it and score it again from itself alone; on a FAIL it is DIR.failed."""
    from golfctl.audit.cleanroom import Limits
    from golfctl.cli.audit import rules_for
    from golfctl.submit import make

    campaign = output.campaign()
    ask = make.Ask(
        author=author or _git("user.name") or "unknown",
        github_id=github_id or _git("github.user") or "unknown",
        form=str(form),
        data=data,
        seeds=None if all_seeds else 1,
        python=python,
        limits=Limits(seconds, int(memory_gib * 2**30)),
        standing=standing,
    )
    try:
        made = make.make(campaign, plan, target, rules_for(contest, False), ask)
    except OSError as error:
        raise HostError(f"{error.filename or target}: {error.strerror}") from None
    if as_json:
        content = {"folder": str(made.folder), "questions": made.questions, "audit": made.audit.as_json()}
        output.print_json(content)
    else:
        _told(made)
    if made.failed:
        raise GateSaidNo(f"{plan}: not ready; {made.folder} shows what was made, its audit.md says why")


def _told(made: Made) -> None:
    from golfctl.audit import words

    for line in words.lines(made.audit, brief=True):
        output.say(line)
    rerun = next(check for check in made.audit.checks if check.id == "R5")
    for item in rerun.evidence:
        output.say(f"  {item.answer}: {item.text}")
    if not made.failed:
        output.say(f"Ready: {made.folder}")
    if made.questions:
        output.say("A reviewer will ask:")
        for text in made.questions:
            output.say(f"- {text}")


def _git(name: str) -> str:
    """A value of git's configuration, "" where there is none."""
    try:
        done = subprocess.run(["git", "config", name], capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
