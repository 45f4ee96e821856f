"""Reading a campaign's state: the ledger's fold, checked against the witnesses that lie outside the ledger."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from golfctl.domain import rundir
from golfctl.domain.state import State
from golfctl.errors import LedgerError
from golfctl.store import ledgerindex, runs
from golfctl.store.campaign import Campaign
from golfctl.store.chain import collector_at_rest
from golfctl.store.ledger import Ledger
from golfctl.store.ledgerindex import Cover
from golfctl.store.notebook import ANCHOR

_REPORTED = re.compile(r"\b(m[0-9a-f]{6}) (\d+)@([0-9a-f]{12})\b")
_EVENT = re.compile(r"(m[0-9a-f]{6}):(\d+)")


def open_state(campaign: Campaign) -> State:
    """The state of the campaign. Raises LedgerError if the ledger is damaged."""
    return ledgerindex.latest(Ledger(campaign.ledger_folder, campaign.state_folder)).state


@collector_at_rest()
def verify(campaign: Campaign, indexed: bool = False) -> tuple[int, list[str], list[str]]:
    """(number of events, defects, remarks). A defect is evidence that something was changed, removed or cut off.

    indexed: lines whose bytes are those of the index are not parsed again; else every line is.
    """
    ledger = Ledger(campaign.ledger_folder, campaign.state_folder)
    if indexed:
        try:
            known = ledgerindex.read(ledger)
        except LedgerError as error:
            return 0, [str(error).removesuffix("; see `golfctl ledger verify`")], []
    else:
        chains = ledger.chains()
        if defects := [defect for chain in chains for defect in chain.defects]:
            return sum(chain.head.count for chain in chains), defects, []
        try:
            known = ledgerindex.cold(chains)
        except LedgerError as error:
            return sum(chain.head.count for chain in chains), [str(error)], []
    remarks = [
        f"{machine}.jsonl: a torn last line of {cover.torn} bytes (a crash while writing); the next event sets it aside"
        for machine, cover in known.covers.items()
        if cover.torn
    ]
    remarks += [
        f"{plan}: two machines froze its revision {found[-1].number} in two forms; no verdict under that number counts for it, "
        "and the next `golfctl gate run` makes a revision of its own"
        for plan, found in known.state.revisions.items()
        if known.state.forked(plan)
    ]
    defects = [*_witnesses(campaign, known.covers), *_runs(campaign, known.state)]
    return known.state.events, defects, remarks


def _witnesses(campaign: Campaign, chains: Mapping[str, Cover]) -> list[str]:
    """Every run folder and every report names the heads it saw, log.md and failures.md the events: all must still be there."""
    seen: set[tuple[str, str, int, str]] = set()
    unread = []
    for path in sorted(campaign.runs_folder.glob(f"*/{rundir.SPEC}")):
        try:
            seen |= {(path.parent.name, *head) for head in _heads(_json(path))}
        except (AttributeError, ValueError):
            unread.append(f"{campaign.relative(path)}: its `ledger` names no heads of the ledger")
    # The report's last line about the ledger is the report's own; what stands above it may be anybody's text.
    said = [line for line in _text(campaign.report_file).splitlines() if line.startswith("Ledger: ")][-1:]
    found = (match.groups() for line in said for match in _REPORTED.finditer(line))
    seen |= {(campaign.report_file.name, machine, int(count), digest) for machine, count, digest in found}
    known = {machine for _, machine, _, _ in seen} | set(chains) | _own(campaign)
    for path in (campaign.log_file, campaign.failures_file):
        marks = (match.groups() for mark in ANCHOR.findall(_text(path)) if (match := _EVENT.fullmatch(mark)))
        # A machine that nothing else here knows: the entry was pasted from another campaign.
        seen |= {(path.name, machine, int(number), "") for machine, number in marks if machine in known or not chains}
    checked = (_against(chains, *item) for item in sorted(seen))
    return unread + list(dict.fromkeys(text for text in checked if text))


def _own(campaign: Campaign) -> set[str]:
    """The name of this machine in this campaign, as far as it has one."""
    try:
        return {str(json.loads((campaign.state_folder / "machine.json").read_bytes())["name"])}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _heads(spec: Mapping[str, Any]) -> list[tuple[str, int, str]]:
    """(machine, count, digest) of a run's `ledger: {machine: count@digest}`. Raises AttributeError, ValueError if it is none."""
    parts = ((machine, *str(head).partition("@")) for machine, head in spec.get("ledger", {}).items())
    return [(machine, int(count), digest) for machine, count, _, digest in parts]


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _against(chains: Mapping[str, Cover], where: str, machine: str, count: int, digest: str) -> str | None:
    cover = chains.get(machine)
    have = cover.head.count if cover else 0
    if have < count:
        return f"{machine}.jsonl: {where} saw {count} events, {have} are left: its end was cut off"
    if cover is None or count == 0:
        return None
    actual = cover.digest(count)
    return (
        None
        if actual.startswith(digest[: len(actual)])
        else f"{machine}.jsonl:{count}: is not the event that {where} saw"
    )


def _runs(campaign: Campaign, state: State) -> list[str]:
    """Recorded runs whose folder is gone or was altered, and folders of runs nobody recorded."""
    runs_folder = campaign.runs_folder
    place = campaign.relative(runs_folder)
    found = []
    for name, run in state.runs.items():
        if not run.evidence:
            continue
        folder = runs_folder / name
        if not folder.is_dir():
            found.append(f"{place}/{name}: is missing")
        else:
            found += [f"{place}/{name}: {text}" for text in runs.altered(folder, run.evidence, [rundir.ARTIFACT])]
    known = set(state.runs)
    if campaign.runs_folder.is_dir():
        pulled = {path.parent.name for path in campaign.runs_folder.glob(f"*/{rundir.PULLED}")}
        found += [f"{place}/{name}: no event knows of this run" for name in sorted(pulled - known)]
    return found
