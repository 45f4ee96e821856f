"""`golfctl plan rebase` and `retire`: a plan on a new base, a plan given up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from golfctl.cli import output
from golfctl.errors import GateSaidNo

if TYPE_CHECKING:
    from golfctl.store.campaign import Campaign
    from golfctl.store.rebase import Rebase
    from golfctl.store.threeway import Conflict

PlanId = Annotated[str, typer.Argument(help="Plan id.")]
LONGEST = 12
"""Lines shown of each side of a conflict."""


def plan_rebase(
    plan_id: PlanId,
    base: Annotated[str, typer.Option(help="The base it shall build on.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would carry; write nothing.")] = False,
    partial: Annotated[
        bool, typer.Option("--partial", help="Leave out what does not carry, and say so in the plan's file.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Carry a plan's settings and patches to another base: a new revision. The former text is kept under plans/old/.

    Nothing is written, and the exit code is 1, if something does not carry.
    """
    from golfctl.store import rewrite
    from golfctl.store.rebase import rebase

    campaign = output.campaign()
    found = rebase(campaign, plan_id, base)
    write = not dry_run and (partial or not found.left)
    path, kept = rewrite.write(campaign, found) if write else (None, None)
    if as_json:
        files = {"file": campaign.relative(path), "kept": campaign.relative(kept)} if path and kept else {}
        output.print_json(_as_data(found) | {"written": write} | files)
    else:
        _tell(found)
    if path and kept:
        if not as_json:
            output.say(f"{campaign.relative(path)} now builds on {base}; before: {campaign.relative(kept)}")
        _tell_dependents(campaign, plan_id, base)
    elif found.left:
        count = output.count(len(found.left), "part")
        raise GateSaidNo(
            f"{plan_id}: {count} of it {'do' if len(found.left) > 1 else 'does'} not carry to {base}; nothing was changed. "
            "Mend the plan, or leave them out with --partial"
        )


def _tell(found: Rebase) -> None:
    output.say(f"{found.before.id}: {found.before.base} -> {found.after.base}")
    for item in found.items:
        kind = "" if item.where == "diffs" else f" ({item.where})"
        detail = f": {item.detail}" if item.detail else ""
        output.say(f"  {item.what}{kind}   {item.outcome}{detail}")
        for conflict in item.conflicts:
            _tell_conflict(conflict, found)
    if not found.items:
        output.say("  it holds no diffs")


def _tell_conflict(conflict: Conflict, found: Rebase) -> None:
    place = f"{conflict.file}:{conflict.line}" if conflict.line else conflict.file
    output.say(f"    {place}: {conflict.reason}")
    for name, lines in ((found.after.base, conflict.here), (found.before.id, conflict.wanted)):
        for line in lines[:LONGEST]:
            output.say(f"      {name}| {line}")
        if len(lines) > LONGEST:
            output.say(f"      {name}| ... {output.count(len(lines) - LONGEST, 'more line')}")


def _as_data(found: Rebase) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "plan": found.before.id,
        "before": found.before.base,
        "after": found.after.base,
        "carries": not found.left,
        "parts": [asdict(item) for item in found.items],
        "patches": sorted(found.patches),
    }


def _tell_dependents(campaign: Campaign, plan_id: str, base: str) -> None:
    for plan in campaign.read_plans()[0].values():
        if plan_id in plan.depends_on and plan.base != base:
            output.note(f"note: {plan.id} depends on it; next: golfctl plan rebase {plan.id} --base {base}")


def plan_retire(
    plan_id: PlanId,
    reason: Annotated[str, typer.Option(help="Why it is given up; recorded and shown.")],
) -> None:
    """Give a plan up: its file goes to plans/retired/, the reason into the ledger. What it measured stays in every report."""
    from golfctl.store.retire import retire

    campaign = output.campaign()
    path, dependents = retire(campaign, plan_id, output.recorded("--reason", reason))
    output.say(f"{plan_id} is retired; its file: {campaign.relative(path)}")
    if dependents:
        output.note(
            f"note: {', '.join(dependents)} can't run without it: write other dependencies, or retire them, too"
        )
