"""Plans that are given up: the file is kept under plans/retired/, the reason in the ledger. What they measured stays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from golfctl.domain.event import Type
from golfctl.errors import InputError
from golfctl.store.files import write_atomic
from golfctl.store.ledger import Ledger
from golfctl.store.marks import did_you_mean
from golfctl.store.planfile import RETIRED, retirement
from golfctl.store.status import open_state

if TYPE_CHECKING:
    from golfctl.store.campaign import Campaign


@dataclass(frozen=True)
class Retired:
    """A retired plan: where its file lies (from the campaign's root), when it was retired ("" unknown), and why."""

    id: str
    file: str
    when: str
    why: str


def retire(campaign: Campaign, plan_id: str, reason: str) -> tuple[Path, list[str]]:
    """Move the plan's file to plans/retired/ and record the reason. Returns (where it is now, plans that depend on it).

    Raises InputError: no such plan, no reason in one line, a run of it that has not ended; LedgerError.
    """
    reason = reason.strip()
    if not reason or not reason.isprintable():
        raise InputError("--reason: must say why, in one line of text")
    path = campaign.plans_folder / f"{plan_id}.yaml"
    if not path.is_file():
        if known := retirement(campaign.plans_folder, plan_id):
            raise InputError(f"{plan_id}: was retired already: {known[1]}")
        raise InputError(f"{plan_id}: no such plan{did_you_mean(plan_id, campaign.context().ids)}")
    running = [run.spec.name for run in open_state(campaign).unfinished() if run.spec.owner == plan_id]
    if running:
        remedy = f"golfctl gate run {plan_id} brings it home, golfctl runs stop {running[0]} ends it"
        raise InputError(f"{plan_id}: {running[0]} has not ended; {remedy}")
    target = campaign.plans_folder / RETIRED / path.name
    if target.exists():
        raise InputError(f"{campaign.relative(target)}: exists; move it away first")
    plans = campaign.read_plans()[0]
    dependents = sorted(plan.id for plan in plans.values() if plan_id in plan.depends_on)
    # The record first: a crash between the two leaves a plan that can be retired again, never one that vanished unexplained.
    event = Ledger(campaign.ledger_folder, campaign.state_folder).append(
        Type.PLAN_RETIRED, {"plan": plan_id, "reason": reason}
    )
    target.parent.mkdir(exist_ok=True)
    write_atomic(
        target, f"# retired {event.time}: {reason}\n".encode() + path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    )
    path.unlink()
    return target, dependents


def retired(campaign: Campaign) -> list[Retired]:
    """Every retired plan, in order of ids."""
    found = []
    for path in sorted((campaign.plans_folder / RETIRED).glob("*.yaml")):
        if known := retirement(campaign.plans_folder, path.stem):
            found.append(Retired(path.stem, campaign.relative(path), *known))
    return found
