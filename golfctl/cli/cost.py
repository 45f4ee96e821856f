"""`golfctl cost`: what was spent, on what, and what it bought."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from golfctl.cli import output
from golfctl.cli.output import count
from golfctl.errors import InputError

if TYPE_CHECKING:
    from golfctl.budget import Cost, PlanCost, Row


def cost(
    plan: Annotated[str | None, typer.Argument(help="Plan id; none: the whole campaign.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Dollars by gate, plan and host; what aborts saved, what a gain cost, what is left of the budget."""
    from golfctl import budget
    from golfctl.domain.state import fold
    from golfctl.store.ledger import Ledger
    from golfctl.store.marks import did_you_mean

    campaign = output.campaign()
    events = Ledger(campaign.ledger_folder, campaign.state_folder).events()
    state = fold(events)
    known = sorted({*campaign.context().ids, *state.revisions})
    if plan is not None and plan not in known:
        raise InputError(f"{plan}: no such plan{did_you_mean(plan, known)}")
    found = budget.cost(state, campaign.hosts, budget.held_seconds(events, state), campaign.budget, plan)
    if as_json:
        output.print_json(_as_data(plan or campaign.name, found))
        return
    output.say(_head(plan or campaign.name, found))
    for row in found.gates:
        output.say(_line(row.name, row))
    for item in found.plans:
        output.say(_line(f"plan {item.row.name}", item.row))
        output.say(f"       {_bought(item)}")
    for row in found.owners:
        kind = "base" if row.name in campaign.bases else "plan"
        output.say(_line(f"{kind} {row.name}", row) + "   reference runs")
    for host in found.hosts:
        beside = f"   and ${host.idle_usd:.2f} while it started, idled or sent files" if host.idle_usd else ""
        output.say(_line(f"host {host.row.name}", host.row) + beside)


def _head(name: str, found: Cost) -> str:
    total = found.total
    parts = [f"${total.usd:.2f} spent in {count(total.runs, 'run')}"]
    if total.wasted_usd:
        parts.append(f"${total.wasted_usd:.2f} of it on runs that count for nothing")
    if total.saved_usd:
        parts.append(f"${total.saved_usd:.2f} saved by aborts")
    if found.under_way:
        parts.append(f"about ${found.under_way_usd:.2f} under way in {count(found.under_way, 'run')}")
    parts.append(
        "no cap"
        if found.cap_usd is None or found.left_usd is None
        else f"{_left(found.left_usd)} its cap of ${found.cap_usd:.2f}"
    )
    return f"{name}: {'; '.join(parts)}"


def _line(name: str, row: Row) -> str:
    from golfctl.domain.units import duration

    saved = f"   saved ${row.saved_usd:.2f}" if row.saved_usd else ""
    wasted = f"   for nothing ${row.wasted_usd:.2f}" if row.wasted_usd else ""
    return f"  {name:<22} {count(row.runs, 'run'):<9} {duration(row.seconds):<13} ${row.usd:.2f}{wasted}{saved}"


def _bought(item: PlanCost) -> str:
    left = "" if item.left_usd is None else f"; {_left(item.left_usd)} its cap"
    gain = item.gain
    if gain is None:
        return f"no scores of it and its parent at one gate{left}"
    against = f"{-gain.bpb:+.4f} bpb against {gain.parent} at gate {gain.gate} (n {gain.n} and {gain.parent_n})"
    if item.usd_per_mbpb is None:
        return f"no gain: {against}{left}"
    digits = 2 if item.usd_per_mbpb >= 0.1 else 4
    price = f": ${item.usd_per_mbpb:.{digits}f} per 0.001 bpb" if item.row.usd else ""
    return f"{against}{price}{left}"


def _left(usd: float) -> str:
    """`$46.00 left of`, `$54.00 over`: dollars against a cap, after what is spent and under way."""
    over = round(usd, 2) < 0
    return f"${abs(usd):.2f} {'over' if over else 'left of'}"


def _as_data(name: str, found: Cost) -> dict[str, Any]:
    from dataclasses import asdict

    return {"name": name, **asdict(found)}
