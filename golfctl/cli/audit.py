"""`golfctl audit`: is this result valid?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from golfctl.cli import output
from golfctl.errors import GateSaidNo, InputError

if TYPE_CHECKING:
    from golfctl.audit.contest import Contest
    from golfctl.audit.result import Audit
    from golfctl.audit.target import Target


def audit(
    target: Annotated[str, typer.Argument(help="A record folder, a tree of them, or the name of a run or plan here.")],
    contest: Annotated[
        str | None,
        typer.Option(
            help="Rules and constants: a name, or a YAML file. Default: parameter-golf, or the campaign's for what ran here."
        ),
    ] = None,
    standing: Annotated[float | None, typer.Option(help="The score (bpb) a record must beat.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder with the shards it trained on, to look for validation text.")
    ] = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="Run it, too, on changed text: probes R1-R4 and R6, in a child process.")
    ] = False,
    adapter: Annotated[
        Path | None, typer.Option(help="For --probe of a model that is not ours: a file with logprobs(tokens).")
    ] = None,
    probe_tokens: Annotated[int, typer.Option(min=16, help="Length of the text that is probed.")] = 3000,
    probe_seconds: Annotated[float, typer.Option(min=1, help="After so long the probe is ended.")] = 900.0,
    rerun: Annotated[
        bool,
        typer.Option("--rerun", help="Score its artifact again in a clean room: no network, no training data (R5)."),
    ] = False,
    val: Annotated[
        Path | None, typer.Option(help="For --rerun: folder with the validation data. Default: the embedded corpus.")
    ] = None,
    rerun_seconds: Annotated[float, typer.Option(min=1, help="After so long a rerun has failed.")] = 1200.0,
    md: Annotated[Path | None, typer.Option("--md", help="Write the whole audit as Markdown.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Recount a result from disk and hold it against the rules; exit 1 on a FAIL. Only --probe and --rerun run any of it."""
    from golfctl.audit import every, words
    from golfctl.audit.result import Answer
    from golfctl.store.files import write_atomic

    rules = rules_for(contest, Path(target).is_dir())
    targets, unreadable = _targets(target)
    found = [every.audit(item, rules, standing=standing, data=data) for item in targets]
    if probe or adapter is not None:
        found = _probed(found, targets, adapter, data, probe_tokens, probe_seconds)
    if rerun:
        found = _rerun(found, targets, val, rerun_seconds)
    if md is not None:
        try:
            write_atomic(md, words.markdown(found).encode("utf-8", "replace"))
        except OSError as error:
            raise InputError(f"{md}: can't be written: {error.strerror}") from None
    failed = [item for item in found if item.answer is Answer.FAIL]
    if as_json:
        output.print_json([item.as_json() for item in found] if len(found) > 1 else found[0].as_json())
    else:
        for item in found:
            for line in words.lines(item, brief=len(found) > 1):
                output.say(line)
        if len(found) > 1:
            output.say(f"{output.count(len(found), 'target')}: {len(failed)} with a FAIL")
    for text in unreadable:
        output.note(f"left out, can't be read: {text}")
    if failed:
        names = ", ".join(item.target for item in failed[:3])
        raise GateSaidNo(f"audit: FAIL for {names}{f' and {len(failed) - 3} more' if len(failed) > 3 else ''}")


def _probed(
    found: list[Audit], targets: list[Target], adapter: Path | None, data: Path | None, tokens: int, seconds: float
) -> list[Audit]:
    """The one audit with R1 to R4 (of an adapter also R6) behind it. Raises InputError for a tree of many."""
    from dataclasses import replace

    from golfctl.audit import probes

    if len(targets) > 1:
        raise InputError(f"--probe: one target at a time; there are {len(targets)} here")
    limits = probes.Limits(tokens, seconds)
    if adapter is not None:
        checks = probes.of_adapter(adapter, limits, targets[0])
    elif targets[0].runs:
        checks = probes.of_runs(targets[0], output.campaign(), data, limits)
    else:
        checks = probes.checks("nothing here says how to ask it; --adapter FILE does", targets[0].name)
    return [replace(found[0], checks=(*found[0].checks, *checks))]


def _rerun(found: list[Audit], targets: list[Target], val: Path | None, seconds: float) -> list[Audit]:
    """The one audit with R5 behind it. Raises InputError for a tree of many, or validation data that are none."""
    import sys
    from dataclasses import replace

    from golfctl.audit import again
    from golfctl.audit.cleanroom import Limits

    campaign = output.campaign() if targets and targets[0].runs else None
    check = again.checks(targets, campaign, val, Limits(seconds), sys.executable)
    return [replace(found[0], checks=(*found[0].checks, check))]


def rules_for(name: str | None, folder: bool) -> Contest:
    """The contest named; else, for a record folder, the field's; for what ran here, that of the campaign."""
    from dataclasses import replace

    from golfctl.audit import contest

    if name is not None:
        return contest.load(name)
    if folder:
        return contest.load("parameter-golf")
    from golfctl.store.status import open_state

    campaign = output.campaign()
    if campaign.preset in contest.names():
        known = contest.load(campaign.preset)
        return replace(known, limits=replace(known.limits, artifact_cap_bytes=campaign.rules.artifact_cap_bytes))
    rules = campaign.rules
    limits = contest.Limits(rules.artifact_cap_bytes, record_margin_nats=rules.record_margin_nats, alpha=rules.alpha)
    runs = open_state(campaign).runs.values()
    shown = [
        run.result.score for run in runs if run.spec.owner == campaign.base_name and run.result and run.result.score
    ]
    return contest.Contest(campaign.name, limits, lowest_bpb=min(shown, default=None), lowest_of="the base")


def _targets(name: str) -> tuple[list[Target], list[str]]:
    from golfctl.audit import target
    from golfctl.errors import NoCampaign

    path = Path(name)
    if path.is_dir():
        return target.records(path)
    try:
        campaign = output.campaign()
    except NoCampaign:
        raise InputError(
            f"{name}: no such folder, and there is no campaign here whose run or plan it could be"
        ) from None
    from golfctl.store.status import open_state

    return [target.of_campaign(campaign, open_state(campaign), name)], []
