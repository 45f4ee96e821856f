"""`golfctl base`: the code that plans build on, frozen by hash."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from golfctl.cli import baseview, output
from golfctl.errors import InputError

if TYPE_CHECKING:
    from golfctl.store.bases import Base
    from golfctl.store.campaign import Campaign
    from golfctl.store.newbase import Said

app = typer.Typer(help="Freeze the code that plans build on; show, list and compare it.", no_args_is_help=True)
app.command("show")(baseview.base_show)
app.command("env")(baseview.base_env)
app.command("diff")(baseview.base_diff)


@app.command("add")
def base_add(
    name: Annotated[str, typer.Argument(help="Name of the new base.")],
    script: Annotated[
        Path | None, typer.Option(help="A single-file training script; none: the bundled trainer.")
    ] = None,
    score_label: Annotated[
        str,
        typer.Option(help="Name of the log line that carries a script's score; default: of --log, or of its source."),
    ] = "",
    log: Annotated[
        list[Path] | None, typer.Option("--log", help="A log the script has written; may be repeated.")
    ] = None,
    artifact: Annotated[list[str] | None, typer.Option(help="Glob of a script's model files; may be repeated.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE of the base itself; may be repeated.")
    ] = None,
    role: Annotated[
        list[str] | None,
        typer.Option(
            help="seed=RANDOM_SEED: the variable for seed, iterations, seconds, data or out; may be repeated."
        ),
    ] = None,
    env: Annotated[
        list[str] | None, typer.Option(help="A variable it reads in a way that can't be seen; may be repeated.")
    ] = None,
) -> None:
    """Freeze the bundled trainer, or a foreign script, as a base. The script is read, never run."""
    from golfctl.store import bases

    campaign = output.campaign()
    settings = dict(_pair("--set", item) for item in set_ or [])
    if script is None:
        _refuse_for_trainer(score_label, log, artifact, role, env)
        base, said = bases.freeze_trainer(campaign, name, settings), None
    else:
        from golfctl.store import newbase

        runs = newbase.read_logs(log or [])
        if not score_label:
            label = newbase.label_of(script, runs, log or [])
            output.note(f"score: {label.name}, {label.why}")
            score_label = label.name
        elif warning := newbase.doubt(script, score_label):
            output.note(f"note: {warning}")
        base = bases.freeze_script(
            campaign,
            name,
            script,
            score_label=score_label,
            settings=settings,
            artifact=artifact or bases.SCRIPT_ARTIFACT,
            variables=dict(_pair("--role", item) for item in role or []),
            env=env or [],
        )
        said = newbase.summarise(runs, score_label)
    _tell(campaign, base, said)
    if not campaign.base_name:
        output.say(f"Next: write `base: {name}` into golf.yaml")


def _refuse_for_trainer(*options: object) -> None:
    if any(options):
        raise InputError(
            "--score-label, --log, --artifact, --role and --env describe a foreign script; say --script FILE"
        )


def _tell(campaign: Campaign, base: Base, said: Said | None) -> None:
    from golfctl.store.basecard import remarks

    count = len(base.variables(base.tree))
    output.say(f"{base.name}: frozen as {base.sha256[:12]}; it reads {output.count(count, 'variable')}")
    if said is not None and said.logs:
        output.say(f"  {', '.join(_logs_say(campaign, said))}")
    for text in remarks(base) if base.kind == "script" else []:
        output.note(f"note: {text}")
    unread = [f"{name} ({role})" for role, name in base.unread_roles().items()] if base.kind == "script" else []
    if unread:
        output.note(f"note: it does not read {', '.join(unread)}; --role ROLE=VARIABLE says what it calls them")


def _logs_say(campaign: Campaign, said: Said) -> list[str]:
    parts = [f"{output.count(said.logs, 'log')}"]
    if said.score:
        parts.append(f"score {sum(said.score) / len(said.score):.4f} (n {len(said.score)})")
    if said.step_avg_ms is not None:
        parts.append(f"step time {said.step_avg_ms:.1f} ms")
    if said.artifact_bytes is not None:
        left = campaign.rules.artifact_cap_bytes - said.artifact_bytes
        room = f"{left:,} bytes of headroom left" if left >= 0 else f"{-left:,} bytes over the cap"
        parts.append(f"artifact {said.artifact_bytes / 1e6:.2f} MB: {room}")
    return parts


@app.command("list")
def base_list(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Every base: name, kind, hash."""
    from golfctl.store import bases

    campaign = output.campaign()
    found = [bases.load(campaign, name) for name in campaign.bases]
    if as_json:
        rows = [{"name": base.name, "kind": base.kind, "sha256": base.sha256} for base in found]
        output.print_json([row | {"current": row["name"] == campaign.base_name} for row in rows])
        return
    for base in found:
        mark = "  (of golf.yaml)" if base.name == campaign.base_name else ""
        output.say(f"{base.name:<16} {base.kind:<8} {base.sha256[:12]}{mark}")
    if not found:
        output.note("no bases; freeze one with `golfctl base add NAME`")


def _pair(option: str, item: str) -> tuple[str, str]:
    name, equals, value = item.partition("=")
    if not equals:
        raise InputError(f"{option} {item}: must be NAME=VALUE")
    return name, value
