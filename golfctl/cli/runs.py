"""`golfctl runs`: what ran, what is running, what it says right now."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from golfctl.cli import output
from golfctl.errors import InputError
from golfctl.hostside.files import scrub

if TYPE_CHECKING:
    from golfctl.domain.run import RunRecord
    from golfctl.domain.state import State
    from golfctl.hosts.base import Host
    from golfctl.store.campaign import Campaign

app = typer.Typer(help="List, show, follow and stop runs.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
LINE = 1000
"""Longest log line shown; whatever comes from a host is scrubbed of what a terminal would obey."""
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
        output.say(f"{run.spec.name:<44} {run.ending:<10} {score:>10} {took:>6}  {reason}".rstrip())
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
            output.say(scrub(line, LINE))
        return
    host = _host(campaign, run)
    try:
        past, offset = _read_all(host, run.spec.name)
        for line in past.decode(errors="replace").splitlines()[-lines:]:
            output.say(scrub(line, LINE))
        _follow(host, run.spec.name, offset if follow else None)
    finally:
        host.close()


def _follow(host: Host, name: str, offset: int | None) -> None:
    """Print whole lines as they come, until the run ends. A host that falls silent is asked again."""
    from golfctl.errors import HostUnreachable

    rest, silent = b"", False
    while offset is not None:
        try:
            look = host.look({name: offset})[name]
        except HostUnreachable as error:
            if not silent:
                output.note(f"{error}; the run goes on; asking again")
            silent = True
            time.sleep(1.0)
            continue
        silent = False
        offset += len(look.log)
        *lines, rest = (rest + look.log).split(b"\n")
        for line in lines:
            output.say(scrub(line.decode(errors="replace"), LINE))
        if look.poll.state != "running" and not look.log:
            return
        if not look.log:
            time.sleep(0.3)


@app.command("attach")
def runs_attach(
    names: Annotated[list[str] | None, typer.Argument(help="Run names or their beginnings; none: all.")] = None,
) -> None:
    """Watch runs under way on all hosts, one living line each. Ctrl-C stops the watching, never a run."""
    import tempfile

    from golfctl.cli.live import Live
    from golfctl.runner.fleet import Fleet
    from golfctl.runner.telling import Telling

    campaign, state = _open()
    wanted = [_find(state, name) for name in names or []] or state.unfinished()
    if not wanted:
        output.note("no run is under way")
        return
    with tempfile.TemporaryDirectory() as copies:
        # Its own copies of the logs: a runner at work in this campaign keeps the others.
        fleet = Fleet(campaign.hosts, (), _machine(campaign), Path(copies))
        live = Live(output.console(), campaign.hosts)
        telling = Telling(fleet, live)
        try:
            with live:
                while True:
                    polls = fleet.look(wanted)
                    telling.look(state, polls)
                    if not any(poll.state in {"running", "unreachable"} for poll in polls.values()):
                        break
                    time.sleep(0.3)
        finally:
            fleet.close()
    for run in wanted:
        poll = polls.get(run.spec.name)
        ending = f"{(poll.exit or {}).get('outcome', poll.state)}" if poll else "is out of reach from here"
        output.say(f"{run.spec.name}: {scrub(str(ending))}")
    output.say("Next: golfctl gate run   (brings home what ended, and judges)")


@app.command("fetch")
def runs_fetch(
    name: Name,
    into: Annotated[Path | None, typer.Option(help="New folder for the copy; default: ./NAME.")] = None,
) -> None:
    """Copy what a run has left so far, for a look. The record is untouched: `gate run` brings runs home, verified."""
    from golfctl.hosts.transfer import pull_dead

    campaign, state = _open()
    run = _find(state, name)
    target = into or Path(run.spec.name)
    if target.resolve().is_relative_to(campaign.experiments_folder.resolve()):
        raise InputError(
            f"{target}: lies in the record, which only verified runs enter; name a folder elsewhere with --into"
        )
    if target.exists():
        raise InputError(f"{target}: is there already; name a new folder with --into")
    host = _host(campaign, run)
    try:
        if host.poll(run.spec.name).state == "exited":
            host.pull(run.spec.name, target)
        else:
            names, read = host.contents(run.spec.name)
            pull_dead(f"{run.spec.host}:{run.spec.name}", names, read, target, heard=True)
    finally:
        host.close()
    output.say(f"{run.spec.name}: copied to {target}")


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
    reason = output.recorded("--reason", reason)
    if not run.finished or run.excused:
        raise InputError(f"{run.spec.name}: {'has not ended' if not run.finished else 'is set aside already'}")
    if run.outcome is Outcome.COMPLETED and run.result and run.result.score is not None:
        raise InputError(f"{run.spec.name}: has a score; a result that was seen is never drawn again")
    used = [verdict for verdict in state.verdicts.values() if run.spec.name in verdict.runs]
    if used:
        raise InputError(f"{run.spec.name}: gate {used[0].gate} of {used[0].plan} has judged it; its verdict stands")
    ledger = Ledger(campaign.ledger_folder, campaign.state_folder)
    ledger.append(Type.RUN_EXCUSED, {"run": run.spec.name, "reason": reason})
    output.say(f"{run.spec.name}: set aside; `golfctl gate run` starts another attempt")


@app.command("stop")
def runs_stop(
    names: Annotated[list[str] | None, typer.Argument(help="Run names or their beginnings.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every run under way.")] = False,
    reason: Annotated[str, typer.Option(help="Recorded with the run.")] = "stopped by hand",
) -> None:
    """Abort runs. They stay in the ledger as aborted; `golfctl gate run` collects what they left."""
    campaign, state = _open()
    reason = output.recorded("--reason", reason)
    wanted = state.unfinished() if everything else [_find(state, name) for name in names or []]
    if not wanted and not everything:
        raise InputError("name a run, or say --all; `golfctl runs list` shows them")
    for run in wanted:
        if run.finished:
            raise InputError(f"{run.spec.name}: has ended already ({run.outcome})")
    for run in wanted:
        host = _host(campaign, run)
        try:
            if host.poll(run.spec.name).state == "running":
                host.stop(run.spec.name, reason)
                output.say(f"{run.spec.name}: stopped")
            else:
                output.say(f"{run.spec.name}: was not running any more")
        finally:
            host.close()


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


def _machine(campaign: Campaign) -> str:
    from golfctl.store.ledger import Ledger

    return Ledger(campaign.ledger_folder, campaign.state_folder).machine()


def _read_all(host: Host, name: str) -> tuple[bytes, int]:
    from golfctl.domain import rundir

    content = bytearray()
    while fresh := host.read(name, rundir.LOG, len(content)):
        content += fresh
    return bytes(content), len(content)
