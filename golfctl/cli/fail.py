"""`golfctl fail`: the memory of failures."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from golfctl.cli import output
from golfctl.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from golfctl.domain.plan import Plan
    from golfctl.store.campaign import Campaign
    from golfctl.store.deadends import Resemblance
    from golfctl.store.notebook import Failure

app = typer.Typer(help="The memory of failures: list, search, add, say why.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@app.command("list")
def fail_list(
    as_json: AsJson = False,
    field: Annotated[bool, typer.Option("--field", help="Also those recorded by the field.")] = False,
) -> None:
    """Every failure recorded in this campaign, oldest first; the field's known dead ends on request."""
    from golfctl.store.deadends import field_failures

    campaign = output.campaign()
    own, known = failures(campaign), field_failures(campaign)
    _show([*own, *known] if field else own, as_json)
    if as_json:
        return
    if not own and not field:
        output.note("no failures recorded in this campaign")
    if known and not field:
        output.note(
            f"{output.count(len(known), 'dead end')} of the field: golfctl fail list --field, fail search WORDS"
        )


@app.command("search")
def fail_search(
    words: Annotated[list[str], typer.Argument(help="What you think of trying, in any words.")],
    as_json: AsJson = False,
) -> None:
    """Recorded failures that speak of something, the closest first; the field's synonyms count."""
    from golfctl.store.deadends import search
    from golfctl.store.status import open_state

    campaign = output.campaign()
    found = search(campaign, open_state(campaign), " ".join(words))
    _show(found, as_json)
    if not found and not as_json:
        output.note("no recorded failure speaks of that")


@app.command("add")
def fail_add(
    subject: Annotated[str, typer.Argument(help="Short name of what was tried.")],
    title: Annotated[str, typer.Option(help="What was tried, in one line.")],
    numbers: Annotated[str, typer.Option(help="What was measured.")],
    why: Annotated[str, typer.Option(help="Why it failed, if known.")] = "",
    cause: Annotated[str, typer.Option(help="Failure class, e.g. worse-than-parent, too-slow, crash.")] = "noted",
    who: Annotated[str, typer.Option(help="Who tried it.")] = "",
    source: Annotated[str, typer.Option(help="Where it is written.")] = "",
) -> None:
    """Record a failure from elsewhere: another person's, or a paper's."""
    from golfctl.domain.event import Type
    from golfctl.store.ledger import Ledger

    campaign = output.campaign()
    data = {"subject": subject, "title": title, "numbers": numbers, "why": why, "cause": cause} | {
        key: text for key, text in (("who", who), ("source", source)) if text
    }
    for name, text in data.items():
        if text or name != "why":
            output.recorded("SUBJECT" if name == "subject" else f"--{name}", text)
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
        _refuse_why(campaign, subject)
    failure = next((item for item in reversed(found) if not item.why), found[-1])
    output.note(f"{failure.subject}: {failure.cause}: {failure.numbers}")
    why = output.recorded("WHY", " ".join(text) if text else typer.prompt("Why did it fail?", prompt_suffix=" "))
    _sync(campaign)
    Ledger(campaign.ledger_folder, campaign.state_folder).append(Type.FAILURE_WHY, {"failure": failure.id, "why": why})
    write_why(campaign.failures_file, failure.id, why, now())
    output.say(f"{subject}: written to {campaign.failures_file.name}")


@app.command("waive")
def fail_waive(
    plan: Annotated[str, typer.Argument(help="Plan id.")],
    reason: Annotated[str, typer.Option(help="Why it may run all the same; recorded for ever.")],
) -> None:
    """Let a plan run although it repeats a recorded failure; `not_a_repeat:` in its file does the same."""
    from golfctl.domain.event import Type
    from golfctl.store.deadends import resemblances
    from golfctl.store.ledger import Ledger
    from golfctl.store.marks import did_you_mean
    from golfctl.store.status import open_state

    campaign = output.campaign()
    reason = output.recorded("--reason", reason)
    plans = campaign.read_plans()[0]
    if plan not in plans:
        raise InputError(f"{plan}: no such plan without problems{did_you_mean(plan, plans)}")
    due = [item.failure.id for item in resemblances(campaign, plans, [plan], open_state(campaign)) if item.open]
    if not due:
        raise InputError(f"{plan}: no answer is due; there is nothing to waive")
    data = {"plan": plan, "failures": due, "reason": reason}
    Ledger(campaign.ledger_folder, campaign.state_folder).append(Type.REPEAT_WAIVED, data)
    output.say(f"{plan}: may run; {output.count(len(due), 'recorded failure')} it repeats waived")


def _show(found: Iterable[Failure], as_json: bool) -> None:
    if as_json:
        output.print_json([asdict(failure) for failure in found])
        return
    for failure in found:
        gate = f"gate {failure.gate}" if failure.gate else "noted"
        by = f"   recorded by {failure.who or failure.source}" if failure.who or failure.source else ""
        output.say(
            f"{failure.when[:10]:<10}  {failure.subject:<16} {gate:<7} {failure.cause:<18} {failure.numbers}{by}"
        )
        if failure.title:
            output.say(f"            tried: {failure.title}")
        output.say(f"            why: {failure.why or 'not yet said'}")
        if failure.source:
            output.say(f"            source: {failure.source}")


def _refuse_why(campaign: Campaign, subject: str) -> None:
    from golfctl.store.deadends import field_failures

    if any(failure.subject == subject for failure in field_failures(campaign)):
        raise InputError(f"{subject}: was recorded by the field; add what you found with `golfctl fail add`")
    raise InputError(f"{subject}: has no recorded failure; `golfctl fail list` shows them")


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


def resembling(campaign: Campaign, plans: Mapping[str, Plan], chosen: Iterable[str]) -> list[Resemblance]:
    """Which recorded failures the chosen plans resemble; with a damaged ledger that is said, and nothing found."""
    from golfctl.errors import LedgerError
    from golfctl.store.deadends import resemblances
    from golfctl.store.status import open_state

    try:
        return resemblances(campaign, plans, chosen, open_state(campaign))
    except LedgerError:
        output.note("resemblances to failures are not told: the ledger is damaged (golfctl ledger verify)")
        return []


def remind(campaign: Campaign, chosen: Iterable[str], strict: bool = True) -> None:
    """Before plans run for the first time: tell what each resembles most.

    Raises InputErrors, if strict, for those that owe an answer.
    """
    from golfctl.errors import InputErrors
    from golfctl.store.deadends import resemblances, unanswered
    from golfctl.store.status import open_state

    state = open_state(campaign)
    fresh = [name for name in chosen if state.revision(name) is None]
    if not fresh:
        return
    plans = campaign.read_plans()[0]
    found = resemblances(campaign, plans, fresh, state)
    for item in {item.plan: item for item in reversed(found)}.values():
        output.note(f"note: {item.plan}: {item.told}")
    if strict and (problems := unanswered(found, plans)):
        raise InputErrors(problems)
