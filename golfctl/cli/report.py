"""`golfctl report`: what is known, on the terminal and in experiments/report.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from golfctl.cli import output
from golfctl.cli.fail import failures, titles
from golfctl.errors import InputError, LedgerError

if TYPE_CHECKING:
    from golfctl.report.summary import Summary
    from golfctl.store.campaign import Campaign


def report(
    plan: Annotated[str | None, typer.Argument(help="Only this plan; none: the whole campaign.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs; no file is written.")] = False,
) -> None:
    """Show every verdict with its numbers.

    The whole campaign's report is also written to experiments/report.md.
    """
    from dataclasses import asdict

    from golfctl.domain.event import Type
    from golfctl.report import markdown, terminal
    from golfctl.store.files import write_atomic
    from golfctl.store.ledger import Ledger, now
    from golfctl.store.status import verify

    campaign = output.campaign()
    if defects := verify(campaign, indexed=True)[1]:
        raise LedgerError(f"{defects[0]}; no report is written over a damaged record, see `golfctl ledger verify`")
    if as_json:
        output.print_json(asdict(build(campaign, plan)))
        return
    if plan is None:
        ledger = Ledger(campaign.ledger_folder, campaign.state_folder)
        ledger.append(Type.REPORT, {"ledger": {name: asdict(head) for name, head in ledger.heads().items()}})
        summary = build(campaign, None)
        campaign.report_file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(campaign.report_file, markdown.render(summary, now()).encode())
    else:
        summary = build(campaign, plan)
    terminal.render(summary, output.console())
    if plan is None:
        output.say(f"Report: {campaign.report_file.relative_to(campaign.root)}")


def build(campaign: Campaign, plan: str | None, as_written: bool = False) -> Summary:
    """The summary of a campaign, or of one plan. Raises InputError for an unknown plan.

    as_written: a plan that was edited since its last run stands as the new revision it will be, without verdicts.
    """
    from golfctl.report.summary import summarise
    from golfctl.store.check import check
    from golfctl.store.ledger import Ledger
    from golfctl.store.status import open_state

    known = titles(campaign)
    state = open_state(campaign)
    if as_written:
        state = state.seen_as(check(campaign, []).resolved)
    if plan is not None and plan not in {*known, *state.revisions}:
        raise InputError(f"{plan}: no such plan; there are {', '.join(sorted(known))}")
    heads = Ledger(campaign.ledger_folder, campaign.state_folder).heads()
    return summarise(
        campaign=campaign.name,
        base=campaign.base_name,
        score=campaign.rules.score,
        state=state,
        titles=known,
        heads={machine: f"{head.count}@{head.hash[:12]}" for machine, head in heads.items()},
        without_why=[failure.subject for failure in failures(campaign) if not failure.why],
        only=plan,
    )
