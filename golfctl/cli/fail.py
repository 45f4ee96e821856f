"""`golfctl fail`: the memory of failures."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from golfctl.cli import output
from golfctl.errors import InputError

if TYPE_CHECKING:
    from golfctl.store.campaign import Campaign
    from golfctl.store.notebook import Failure

app = typer.Typer(help="The memory of failures: list, add, say why.", no_args_is_help=True)


@app.command("list")
def fail_list(as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False) -> None:
    """Every recorded failure, oldest first."""
    found = failures(output.campaign())
    if as_json:
        output.print_json([asdict(failure) for failure in found])
        return
    for failure in found:
        gate = f"gate {failure.gate}" if failure.gate else "noted"
        output.say(f"{failure.when[:10]}  {failure.subject:<16} {gate:<7} {failure.cause:<18} {failure.numbers}")
        output.say(f"            why: {failure.why or 'not yet said'}")
    if not found:
        output.note("no failures recorded")


@app.command("add")
def fail_add(
    subject: Annotated[str, typer.Argument(help="Short name of what was tried.")],
    title: Annotated[str, typer.Option(help="What was tried, by whom, where.")],
    numbers: Annotated[str, typer.Option(help="What was measured.")],
    why: Annotated[str, typer.Option(help="Why it failed, if known.")] = "",
    cause: Annotated[str, typer.Option(help="Failure class, e.g. worse-than-parent, too-slow, crash.")] = "noted",
) -> None:
    """Record a failure from elsewhere: another person's, or a paper's."""
    from golfctl.domain.event import Type
    from golfctl.store.ledger import Ledger

    campaign = output.campaign()
    for name, text in (("SUBJECT", subject), ("--title", title), ("--numbers", numbers)):
        if not text.strip() or "\n" in text:
            raise InputError(f"{name}: must be one line of text")
    data = {"subject": subject, "title": title, "numbers": numbers, "why": why, "cause": cause}
    Ledger(campaign.ledger_folder, campaign.state_folder).append(Type.FAILURE_NOTE, data)
    _sync(campaign)
    output.say(f"{subject}: recorded in {campaign.failures_file.name}")


@app.command("why")
def fail_why(
    subject: Annotated[str, typer.Argument(help="Plan id or name of the failure.")],
    text: Annotated[
        list[str] | None, typer.Argument(help="The reason, in one line; asked for when it is missing.")
    ] = None,
) -> None:
    """Say why something failed. What was said before stays."""
    from golfctl.domain.event import Type
    from golfctl.store.ledger import Ledger, now
    from golfctl.store.notebook import write_why

    campaign = output.campaign()
    found = [failure for failure in failures(campaign) if failure.subject == subject]
    if not found:
        raise InputError(f"{subject}: has no recorded failure; `golfctl fail list` shows them")
    failure = next((item for item in reversed(found) if not item.why), found[-1])
    output.note(f"{failure.subject}: {failure.cause}: {failure.numbers}")
    why = " ".join(text).strip() if text else typer.prompt("Why did it fail?", prompt_suffix=" ").strip()
    if not why or "\n" in why:
        raise InputError("the reason must be one line of text")
    _sync(campaign)
    Ledger(campaign.ledger_folder, campaign.state_folder).append(Type.FAILURE_WHY, {"failure": failure.id, "why": why})
    write_why(campaign.failures_file, failure.id, why, now())
    output.say(f"{subject}: written to {campaign.failures_file.name}")


# --- shared ----------------------------------------------------------------------------------------------------------
def failures(campaign: Campaign) -> list[Failure]:
    """Every recorded failure with its newest why."""
    from golfctl.store.notebook import failures_of
    from golfctl.store.status import open_state

    return failures_of(open_state(campaign), titles(campaign))


def titles(campaign: Campaign) -> dict[str, str]:
    """Plan id to title, from the files that can be read; a broken plan file is no reason to show nothing."""
    plans, _ = campaign.load_plans()
    return {plan.id: plan.title for plan in plans.values()}


def _sync(campaign: Campaign) -> None:
    from golfctl.store.notebook import sync
    from golfctl.store.status import open_state

    sync(campaign.log_file, campaign.failures_file, open_state(campaign), titles(campaign))
