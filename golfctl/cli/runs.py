"""`golfctl runs`: what ran, what is running, what it says right now."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from golfctl.cli import output
from golfctl.errors import InputError

if TYPE_CHECKING:
    from golfctl.domain.run import RunRecord
    from golfctl.domain.state import State
    from golfctl.hosts.base import Host
    from golfctl.store.campaign import Campaign

app = typer.Typer(help="List, show, follow and stop runs.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Name = Annotated[str, typer.Argument(help="Run name, or an unambiguous beginning of it.")]


@app.command("list")
def runs_list(
    as_json: AsJson = False, plan: Annotated[str | None, typer.Option(help="Only this plan or base.")] = None
) -> None:
    """Every run ever started, oldest first, with its outcome and score."""
    _, state = _open()
    found = [run for run in state.runs.values() if plan in {None, run.spec.owner}]
    if as_json:
        output.print_json([asdict(run) for run in found])
        return
    for run in found:
        score = f"{run.result.score:.6f}" if run.result and run.result.score is not None else "-"
        took = f"{run.wall_s:.0f} s" if run.wall_s is not None else "-"
        reason = "" if run.outcome == "completed" else run.reason
        output.say(f"{run.spec.name:<44} {run.outcome or 'unfinished':<10} {score:>10} {took:>6}  {reason}".rstrip())
    if not found:
        output.note("no runs yet")


@app.command("show")
def runs_show(name: Name) -> None:
    """Everything recorded about one run, as JSON."""
    _, state = _open()
    output.print_json(asdict(_find(state, name)))


@app.command("tail")
def runs_tail(
    name: Annotated[
        str | None, typer.Argument(help="Run name or its beginning; none: the newest run under way.")
    ] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", help="Lines of the past to begin with.")] = 10,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="Go on until the run ends.")] = True,
) -> None:
    """Print a run's log as it grows. Ctrl-C stops the watching, never the run."""
    from golfctl.domain import rundir

    campaign, state = _open()
    run = _find(state, name) if name else _newest(state)
    stored = campaign.runs_folder / run.spec.name / rundir.LOG
    if run.finished and stored.exists():
        for line in stored.read_text(errors="replace").splitlines()[-lines:]:
            output.say(line)
        return
    host = _host(campaign, run)
    past, offset = _read_all(host, run.spec.name)
    for line in past.decode(errors="replace").splitlines()[-lines:]:
        output.say(line)
    while follow and host.poll(run.spec.name).state == "running":
        fresh = host.read(run.spec.name, rundir.LOG, offset)
        offset += len(fresh)
        if fresh:
            typer.echo(fresh.decode(errors="replace"), nl=False)
        else:
            time.sleep(0.3)


@app.command("retry")
def runs_retry(
    name: Name,
    reason: Annotated[str, typer.Option(help="Why it says nothing about the code; recorded and shown for ever.")],
) -> None:
    """Set a run that ended badly aside; the next gate run starts another attempt. Both stay visible."""
    from golfctl.domain.event import Type
    from golfctl.domain.run import Outcome
    from golfctl.store.ledger import Ledger

    campaign, state = _open()
    run = _find(state, name)
    if not reason.strip():
        raise InputError("--reason: must say why, in words")
    if not run.finished or run.to_repeat:
        raise InputError(f"{run.spec.name}: {'has not ended' if not run.finished else 'is set aside already'}")
    if run.outcome is Outcome.COMPLETED and run.result and run.result.score is not None:
        raise InputError(f"{run.spec.name}: has a score; a result that was seen is never drawn again")
    used = [verdict for verdict in state.verdicts.values() if run.spec.name in verdict.runs]
    if used:
        raise InputError(f"{run.spec.name}: gate {used[0].gate} of {used[0].plan} has judged it; its verdict stands")
    ledger = Ledger(campaign.ledger_folder, campaign.state_folder)
    ledger.append(Type.RUN_EXCUSED, {"run": run.spec.name, "reason": reason.strip()})
    output.say(f"{run.spec.name}: set aside; `golfctl gate run` starts another attempt")


@app.command("stop")
def runs_stop(
    names: Annotated[list[str] | None, typer.Argument(help="Run names or their beginnings.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every run under way.")] = False,
    reason: Annotated[str, typer.Option(help="Recorded with the run.")] = "stopped by hand",
) -> None:
    """Abort runs. They stay in the ledger as aborted; `golfctl gate run` collects what they left."""
    campaign, state = _open()
    wanted = state.unfinished() if everything else [_find(state, name) for name in names or []]
    if not wanted and not everything:
        raise InputError("name a run, or say --all; `golfctl runs list` shows them")
    for run in wanted:
        if run.finished:
            raise InputError(f"{run.spec.name}: has ended already ({run.outcome})")
    for run in wanted:
        host = _host(campaign, run)
        if host.poll(run.spec.name).state == "running":
            host.stop(run.spec.name, reason)
            output.say(f"{run.spec.name}: stopped")
        else:
            output.say(f"{run.spec.name}: was not running any more")


# --- shared ----------------------------------------------------------------------------------------------------------
def _open() -> tuple[Campaign, State]:
    from golfctl.store.status import open_state

    campaign = output.campaign()
    return campaign, open_state(campaign)


def _find(state: State, name: str) -> RunRecord:
    if name in state.runs:
        return state.runs[name]
    found = [run for run in state.runs.values() if run.spec.name.startswith(name)]
    if len(found) == 1:
        return found[0]
    what = "no such run" if not found else f"{len(found)} runs begin so"
    raise InputError(f"{name}: {what}; `golfctl runs list` shows them")


def _newest(state: State) -> RunRecord:
    under_way = state.unfinished()
    if not under_way:
        raise InputError("no run is under way; name one that ended")
    return under_way[-1]


def _host(campaign: Campaign, run: RunRecord) -> Host:
    from golfctl.hosts import open_host

    if run.spec.host not in campaign.hosts:
        raise InputError(f"{run.spec.name}: its host {run.spec.host} is no longer in golf.yaml or hosts.yaml")
    return open_host(campaign.hosts[run.spec.host])


def _read_all(host: Host, name: str) -> tuple[bytes, int]:
    from golfctl.domain import rundir

    content = bytearray()
    while fresh := host.read(name, rundir.LOG, len(content)):
        content += fresh
    return bytes(content), len(content)
