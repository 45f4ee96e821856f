"""`golfctl audit`: is this result valid?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from golfctl.cli import output
from golfctl.errors import GateSaidNo, InputError

if TYPE_CHECKING:
    from golfctl.audit.contest import Contest
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
    md: Annotated[Path | None, typer.Option("--md", help="Write the whole audit as Markdown.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Recount a result from disk and hold it against the rules; exit 1 on a FAIL. Nothing of it is run or unpickled."""
    from golfctl.audit import every, words
    from golfctl.audit.result import Answer
    from golfctl.store.files import write_atomic

    rules = _contest(contest, Path(target).is_dir())
    targets, unreadable = _targets(target)
    found = [every.audit(item, rules, standing=standing, data=data) for item in targets]
    if md is not None:
        write_atomic(md, words.markdown(found).encode())
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


def _contest(name: str | None, folder: bool) -> Contest:
    """The contest named; else, for a record folder, the field's; for what ran here, that of the campaign."""
    from dataclasses import replace

    from golfctl.audit import contest

    if name is not None:
        return contest.load(name)
    if folder:
        return contest.load("parameter-golf")
    campaign = output.campaign()
    if campaign.preset in contest.names():
        known = contest.load(campaign.preset)
        return replace(known, limits=replace(known.limits, artifact_cap_bytes=campaign.rules.artifact_cap_bytes))
    rules = campaign.rules
    limits = contest.Limits(rules.artifact_cap_bytes, record_margin_nats=rules.record_margin_nats, alpha=rules.alpha)
    return contest.Contest(campaign.name, limits)


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
