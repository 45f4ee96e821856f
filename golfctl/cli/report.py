"""`golfctl report`: what is known, on the terminal and in experiments/report.md."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from golfctl.cli import output
from golfctl.cli.fail import failures, titles
from golfctl.cli.figure import write_page
from golfctl.errors import InputError, LedgerError

if TYPE_CHECKING:
    from golfctl.report.model import Report
    from golfctl.report.summary import Summary
    from golfctl.store.campaign import Campaign


def report(
    plan: Annotated[str | None, typer.Argument(help="Only this plan; none: the whole campaign.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs; no file is written.")] = False,
    md: Annotated[Path | None, typer.Option("--md", help="Also write it as Markdown to this file.")] = None,
    page: Annotated[Path | None, typer.Option("--html", help="Also write one HTML page that holds everything.")] = None,
    show: Annotated[bool, typer.Option("--open", help="Open that page in a browser.")] = False,
) -> None:
    """Show every verdict in words and numbers, every seed, and for one plan how to run it again.

    The whole campaign's report is also written to experiments/report.md.
    """
    from dataclasses import asdict

    from golfctl.domain.event import Type
    from golfctl.report import markdown, terminal
    from golfctl.report.build import report_of
    from golfctl.store.ledger import Ledger
    from golfctl.store.status import verify

    campaign = output.campaign()
    if defects := verify(campaign, indexed=True)[1]:
        raise LedgerError(f"{defects[0]}; no report is written over a damaged record, see `golfctl ledger verify`")
    if as_json:
        output.print_json(_as_data(report_of(campaign, plan)))
        return
    if plan is None:
        ledger = Ledger(campaign.ledger_folder, campaign.state_folder)
        ledger.append(Type.REPORT, {"ledger": {name: asdict(head) for name, head in ledger.heads().items()}})
    found = report_of(campaign, plan)
    targets = [campaign.report_file] if plan is None else []
    targets += [md] if md else []
    for target in targets:
        _write(target, markdown.render(found))
    terminal.render(found, output.console(), full=plan is not None)
    for target in targets:
        output.say(f"Report: {campaign.relative(target)}")
    if page or show:
        write_page(plan, page or campaign.report_file.with_suffix(".html"), show)


def _write(target: Path, content: str) -> None:
    from golfctl.store.files import write_atomic

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(target, content.encode())
    except OSError as error:
        raise InputError(f"{target}: can't be written: {error.strerror}") from None


def _as_data(found: Report) -> dict[str, Any]:
    """The summary, and for each plan what else the report shows of it."""
    from dataclasses import asdict

    from golfctl.report import verdicts

    plans = []
    for row, plan in zip(asdict(found.summary)["plans"], found.plans, strict=True):
        more = {name: value for name, value in vars(plan).items() if name not in {"row", "gates", "stations"}}
        said = {"verdict": verdicts.sentence(plan, found), "expected": verdicts.expected(plan)}
        plans.append({**row, **more, "measured": plan.measured and asdict(plan.measured), **said})
    return {
        **asdict(found.summary),
        "plans": plans,
        "target": found.target,
        "bar": found.bar,
        "unusable": found.unusable,
        "written": found.written,
    }


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
