"""`golfctl base`: the code that plans build on, frozen by hash."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from golfctl.cli import output
from golfctl.errors import InputError

app = typer.Typer(help="Freeze and list the code that plans build on.", no_args_is_help=True)


@app.command("add")
def base_add(
    name: Annotated[str, typer.Argument(help="Name of the new base.")],
    script: Annotated[
        Path | None, typer.Option(help="A single-file training script; none: the bundled trainer.")
    ] = None,
    score_label: Annotated[str, typer.Option(help="Name of the log line that carries a script's score.")] = "",
    artifact: Annotated[list[str] | None, typer.Option(help="Glob of a script's model files; may be repeated.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE of the base itself; may be repeated.")
    ] = None,
) -> None:
    """Freeze the bundled trainer, or a foreign script, as a base."""
    from golfctl.store import bases

    campaign = output.campaign()
    settings = dict(_setting(item) for item in set_ or [])
    if script is None:
        base = bases.freeze_trainer(campaign, name, settings)
    elif not score_label:
        raise InputError("--score-label: a script's score is the line with this name in its log; say which")
    else:
        globs = artifact or bases.SCRIPT_ARTIFACT
        base = bases.freeze_script(campaign, name, script, score_label=score_label, settings=settings, artifact=globs)
    variables = len(base.variables(base.tree))
    output.say(f"{name}: frozen as {base.sha256[:12]}; it reads {output.count(variables, 'variable')}")
    if not campaign.base_name:
        output.say(f"Next: write `base: {name}` into golf.yaml")


@app.command("list")
def base_list() -> None:
    """Every base: name, kind, hash."""
    from golfctl.store import bases

    campaign = output.campaign()
    for name in campaign.bases:
        base = bases.load(campaign, name)
        mark = "  (of golf.yaml)" if name == campaign.base_name else ""
        output.say(f"{name:<16} {base.kind:<8} {base.sha256[:12]}{mark}")
    if not campaign.bases:
        output.note("no bases; freeze one with `golfctl base add NAME`")


def _setting(item: str) -> tuple[str, str]:
    name, equals, value = item.partition("=")
    if not equals:
        raise InputError(f"--set {item}: must be NAME=VALUE")
    return name, value
