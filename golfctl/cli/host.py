"""`golfctl host`: machines that runs take place on, from the first key to the last dollar."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from golfctl.cli import output
from golfctl.cli.output import count
from golfctl.errors import GateSaidNo, InputError
from golfctl.hostside.files import one_line

if TYPE_CHECKING:
    from golfctl.domain.host import HostSpec
    from golfctl.hosts.base import Host
    from golfctl.store.campaign import Campaign

app = typer.Typer(help="Add, check, prepare, measure, sweep and release machines.", no_args_is_help=True)

Alias = Annotated[str, typer.Argument(help="Name of the host in hosts.yaml.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@app.command("add")
def host_add(
    alias: Annotated[str, typer.Argument(help="A short name; it is all that reports ever say of the machine.")],
    address: Annotated[str, typer.Argument(help="[USER@]ADDRESS, or a Host of ~/.ssh/config.")],
    port: Annotated[int | None, typer.Option("--port", "-p", help="Port of its ssh server.")] = None,
    gpus: Annotated[str, typer.Option(help="Number and model of its GPUs, for example 8xH100.")] = "",
    slots: Annotated[int | None, typer.Option(min=1, help="Runs side by side on a machine without GPUs.")] = None,
    price: Annotated[str, typer.Option(help="Dollars an hour, for example 21.52/h.")] = "0",
    identity: Annotated[str, typer.Option("-i", "--identity", help="Private key file.")] = "",
    jump: Annotated[str, typer.Option("-J", "--jump", help="Hosts to go through, separated by commas.")] = "",
    root: Annotated[str, typer.Option(help="Its folder for bundles and runs; default: ~/golfctl.")] = "",
    python: Annotated[str, typer.Option(help="Python >= 3.9 on it; default: python3.")] = "",
    persistent: Annotated[bool, typer.Option("--persistent", help="ROOT survives the machine's stop.")] = False,
    abandon_after: Annotated[str, typer.Option(help="Idle time without us until on-idle runs: 30m, 2h, 90s.")] = "",
    on_idle: Annotated[str, typer.Option(help="Shell command run there when it was abandoned.")] = "",
    on_release: Annotated[str, typer.Option(help="Shell command run here to hand the machine back.")] = "",
) -> None:
    """Write a machine into hosts.yaml. Nothing is contacted."""
    from golfctl.domain.host import HostSpec
    from golfctl.hosts.sshconfig import resolve
    from golfctl.store.hostsfile import append

    user, _, machine = address.rpartition("@")
    number, model = _gpus(gpus)
    if model and slots is not None and slots != number:
        raise InputError(f"--slots {slots}: {gpus} has {number}, one for each GPU")
    entry: dict[str, Any] = {
        "kind": "ssh",
        "address": machine,
        "user": user,
        "port": port,
        "gpu": model,
        "slots": number if model else slots or 1,
        "usd_per_hour": _price(price),
        "identity": identity,
        "jump": jump,
        "root": root,
        "python": python,
        "persistent": persistent,
        "abandon_after_s": _seconds(abandon_after),
        "on_idle": on_idle,
        "on_release": on_release,
    }
    campaign = output.campaign()
    said = {name: value for name, value in entry.items() if value not in ("", None, False)}
    resolve(HostSpec(alias, **said))  # what ssh could not use is told now, not when money is spent
    append(campaign, alias, said)
    output.say(f"{alias}: written to hosts.yaml (git-ignored). Next: golfctl host check {alias}")


@app.command("list")
def host_list(as_json: AsJson = False) -> None:
    """Every machine of golf.yaml and hosts.yaml, and what is under way there. Nothing is contacted."""
    from golfctl.store.status import open_state

    campaign = output.campaign()
    busy: dict[str, int] = {}
    for run in open_state(campaign).unfinished():
        busy[run.spec.host] = busy.get(run.spec.host, 0) + 1
    rows = [
        {
            "host": spec.alias,
            "kind": spec.kind,
            "slots": spec.slots,
            "gpu": spec.gpu,
            "usd_per_hour": spec.usd_per_hour,
            "under_way": busy.get(spec.alias, 0),
        }
        for spec in campaign.hosts.values()
    ]
    if as_json:
        output.print_json(rows)
        return
    for row in rows:
        what = f"{row['slots']}x {row['gpu']}" if row["gpu"] else count(int(str(row["slots"])), "slot")
        line = f"{row['host']:<14} {row['kind']:<6} {what:<14} ${row['usd_per_hour']:.2f}/h"
        output.say(f"{line}   {count(int(str(row['under_way'])), 'run')} under way" if row["under_way"] else line)


@app.command("trust")
def host_trust(
    alias: Alias,
    replace: Annotated[bool, typer.Option("--replace", help="The old key of this machine gives way.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Fetch the machine's host key, show its fingerprint, and on your word write it to known_hosts."""
    from golfctl.hosts.connect import scan
    from golfctl.hosts.hostkeys import trust
    from golfctl.hosts.sshconfig import resolve

    target, key = scan(resolve(_remote(output.campaign(), alias)))
    output.say(f"{target.label}: {key.label}")
    if not output.confirm("Is this the fingerprint your provider shows?", yes):
        raise GateSaidNo("the key was not trusted")
    output.say(f"trusted: {trust(target, key, replace)}")


@app.command("check")
def host_check(
    alias: Alias,
    speed: Annotated[bool, typer.Option("--speed/--no-speed", help="Measure its speed, too; some seconds.")] = True,
    hashes: Annotated[bool, typer.Option("--hash", help="Check the sha256 of every data file.")] = False,
    as_json: AsJson = False,
) -> None:
    """Preflight: is the machine what hosts.yaml says, is everything a run needs there, is it as fast as others of its kind?"""
    from golfctl.hosts.facts import text_at
    from golfctl.runner.ready import examine, idle_news, need_of

    campaign = output.campaign()
    host = _open(campaign, alias)
    try:
        if news := idle_news(campaign, host):
            output.note(f"  {news}")
        problems = host.check()
        most = max(gate.processes for gate in campaign.gates.values())
        need = need_of(campaign, host.spec, most, [campaign.base_name])
        found = examine(campaign, host, need, output.note, speed=speed, hashes=hashes)
        holders = host.holders()
    finally:
        host.close()
    if as_json:
        findings = [{"level": item.level, "text": item.text} for item in found.findings]
        findings += [{"level": "fail", "text": text} for text in problems]
        output.print_json({"facts": found.facts, "speed": found.speed, "findings": findings, "slots": holders})
    else:
        for line in [*found.lines, *(f"FAIL  {text}" for text in problems)]:
            output.say(f"  {line}")
        for slot, info in holders.items():
            if not info.get("stale"):
                run, owner = text_at(info, "owner", "run"), text_at(info, "owner", "campaign")
                output.say(f"  slot {slot} is held by {run or '?'} of {owner or '?'}")
    if problems or found.worst() == "fail":
        raise GateSaidNo(f"{alias}: not fit for a run")
    if found.worst() == "slow":
        raise GateSaidNo(f"{alias}: works, and is slow; another machine of its kind will do more steps for the money")


@app.command("prepare")
def host_prepare(alias: Alias) -> None:
    """Make a bare machine ready: virtual environment, pinned packages, verified data. Again costs nothing. Never sudo."""
    from golfctl.hosts.facts import at, list_at, number_at, text_at
    from golfctl.runner.ready import prepare_request
    from golfctl.store.packages import pinned

    campaign = output.campaign()
    host = _open(campaign, alias)
    try:
        host.prepare(keep=False)
        request = prepare_request(host.spec, campaign, pinned(campaign))
        answer = host.tool("setup", request, lambda text: output.note(f"  {text}"), bare=True)
    finally:
        host.close()
    installed, files = at(answer, "versions"), at(answer, "files")
    names = installed if isinstance(installed, dict) else {}
    versions = ", ".join(f"{name} {text_at(names, name)}" for name in names)
    done = "prepared" if answer.get("changed") else "was ready"
    data = f"; data: {text_at(files, 'fetched')} fetched, {text_at(files, 'present')} there" if files else ""
    output.say(f"{alias}: {done} in {number_at(answer, 'wall_s') or 0:.1f} s ({versions or 'no packages'}){data}")
    for note in list_at(answer, "notes"):
        output.say(f"  {one_line(str(note))}")


@app.command("bench")
def host_bench(alias: Alias, as_json: AsJson = False) -> None:
    """Measure the machine's speed and compare it with its kind and with its own past."""
    from golfctl.hosts.facts import at, list_at, number_at, text_at
    from golfctl.runner.ready import examine, need_of

    campaign = output.campaign()
    host = _open(campaign, alias)
    try:
        found = examine(campaign, host, need_of(campaign, host.spec, 1, [campaign.base_name]), output.note, speed=True)
    finally:
        host.close()
    if as_json:
        output.print_json(found.speed)
        return
    figures = at(found.speed, "figures")
    for name in figures if isinstance(figures, dict) else ():
        value, spread = number_at(figures, name, "value"), number_at(figures, name, "spread")
        wide = f"spread {100 * spread:.0f} %" if spread is not None else ""
        number = f"{value:>10.4g}" if value is not None else f"{'-':>10}"
        unit, slowest = text_at(figures, name, "unit"), text_at(figures, name, "slowest")
        output.say(f"  {one_line(name):<22} {number} {unit:<8} {wide:<12} {slowest}".rstrip())
    for item in found.findings:
        if item.level == "slow":
            output.say(f"  {item.text}")
    for note in list_at(found.speed, "notes"):
        output.note(f"  {one_line(str(note))}")


@app.command("sweep")
def host_sweep(
    alias: Alias,
    stop: Annotated[bool, typer.Option("--stop", help="Stop the orphans of this campaign that run.")] = False,
    others: Annotated[
        bool, typer.Option("--others", help="With --stop: also runs this campaign does not know.")
    ] = False,
    fetch: Annotated[bool, typer.Option("--fetch", help="Bring home what lies there and is not here.")] = False,
) -> None:
    """Find orphans: runs that go on although nobody waits for them, results nobody fetched, what dead runs left behind."""
    from golfctl.runner.sweep import orphans
    from golfctl.store.status import open_state

    campaign = output.campaign()
    host = _open(campaign, alias)
    try:
        found = orphans(campaign, host, open_state(campaign))
        for orphan in found:
            output.say(f"  {orphan.name}: {orphan.why}")
            if stop and orphan.state == "running" and not (orphan.ours or others):
                output.say("    not of this campaign: left alone; --stop --others ends it, too")
            elif stop and orphan.state == "running":
                host.stop(orphan.name, "orphan: stopped by golfctl host sweep")
                output.say("    stopped")
            elif fetch and orphan.unpulled and orphan.ours:
                orphan.fetch(campaign, host)
                output.say(f"    fetched to {campaign.relative(campaign.runs_folder / orphan.name)}")
    finally:
        host.close()
    output.say(f"{alias}: {count(len(found), 'orphan')}")


@app.command("release")
def host_release(alias: Alias) -> None:
    """Run the host's on_release command, for example one that stops a rented machine; only when all is at home, verified."""
    from golfctl.runner.release import release
    from golfctl.store.status import open_state

    campaign = output.campaign()
    _spec(campaign, alias)
    output.say(release(campaign, alias, open_state(campaign)))


# --- shared ----------------------------------------------------------------------------------------------------------
def _spec(campaign: Campaign, alias: str) -> HostSpec:
    if alias not in campaign.hosts:
        known = ", ".join(sorted(campaign.hosts))
        raise InputError(f"host {alias}: unknown; golf.yaml and hosts.yaml have {known}")
    return campaign.hosts[alias]


def _remote(campaign: Campaign, alias: str) -> HostSpec:
    spec = _spec(campaign, alias)
    if spec.kind != "ssh":
        raise InputError(f"host {alias}: is {spec.kind}; only ssh hosts have a key")
    return spec


def _open(campaign: Campaign, alias: str) -> Host:
    from golfctl.hosts import open_host

    return open_host(_spec(campaign, alias))


def _gpus(text: str) -> tuple[int, str]:
    if not text:
        return 1, ""
    match = re.fullmatch(r"([1-9]\d*)\s*x\s*(\S.*)", text)
    if not match:
        raise InputError(f"--gpus {text}: must be a number and a model, for example 8xH100")
    return int(match[1]), match[2].strip()


def _price(text: str) -> float:
    match = re.fullmatch(r"\$?(\d+(?:\.\d+)?)(?:/h)?", text)
    if not match:
        raise InputError(f"--price {text}: must be dollars an hour, for example 21.52/h")
    return float(match[1])


def _seconds(text: str) -> float | None:
    if not text:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|h)", text)
    if not match or float(match[1]) == 0:
        raise InputError(f"--abandon-after {text}: must be a time, for example 30m, 2h or 90s")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]
