"""Reading a campaign's state: the ledger's fold, checked against the witnesses that lie outside the ledger."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from golfctl.domain import rundir
from golfctl.domain.state import State, fold
from golfctl.store import runs
from golfctl.store.campaign import Campaign
from golfctl.store.ledger import Chain, Ledger

_REPORTED = re.compile(r"\b(m[0-9a-f]{6}) (\d+)@([0-9a-f]{12})\b")
_MARKED = re.compile(r"<!-- event (m[0-9a-f]{6}):(\d+) -->")


def open_state(campaign: Campaign) -> State:
    """The state of the campaign. Raises LedgerError if the ledger is damaged."""
    return fold(Ledger(campaign.ledger_folder, campaign.state_folder).events())


def verify(campaign: Campaign) -> tuple[int, list[str], list[str]]:
    """(number of events, defects, remarks). A defect is evidence that something was changed, removed or cut off."""
    chains = Ledger(campaign.ledger_folder, campaign.state_folder).chains()
    defects = [defect for chain in chains for defect in chain.defects]
    remarks = [
        f"{chain.machine}.jsonl: a torn last line of {len(chain.torn)} bytes (a crash while writing); "
        "the next event sets it aside"
        for chain in chains
        if chain.torn
    ]
    events = [event for chain in chains for event in chain.events]
    if not defects:
        defects += _witnesses(campaign, chains)
        defects += _runs(campaign, fold(events))
    return len(events), defects, remarks


def _witnesses(campaign: Campaign, chains: list[Chain]) -> list[str]:
    """Every run folder and every report names the heads it saw, log.md and failures.md the events: all must still be there."""
    by_machine = {chain.machine: chain for chain in chains}
    seen: set[tuple[str, str, int, str]] = set()
    for path in sorted(campaign.runs_folder.glob(f"*/{rundir.SPEC}")):
        for machine, head in _json(path).get("ledger", {}).items():
            count, _, digest = str(head).partition("@")
            seen.add((path.parent.name, machine, int(count), digest))
    for path in (campaign.report_file, campaign.log_file, campaign.failures_file):
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        seen |= {(path.name, machine, int(count), digest) for machine, count, digest in _REPORTED.findall(text)}
        seen |= {(path.name, machine, int(number), "") for machine, number in _MARKED.findall(text)}
    checked = (_against(by_machine, *item) for item in sorted(seen))
    return list(dict.fromkeys(text for text in checked if text))


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _against(chains: dict[str, Chain], where: str, machine: str, count: int, digest: str) -> str | None:
    chain = chains.get(machine)
    have = chain.head.count if chain else 0
    if have < count:
        return f"{machine}.jsonl: {where} saw {count} events, {have} are left: its end was cut off"
    if chain is None or count == 0:
        return None
    actual = chain.events[count].prev if count < have else chain.head.hash
    return None if actual.startswith(digest) else f"{machine}.jsonl:{count}: is not the event that {where} saw"


def _runs(campaign: Campaign, state: State) -> list[str]:
    """Recorded runs whose folder is gone or was altered, and folders of runs nobody recorded."""
    place = campaign.relative(campaign.runs_folder)
    found = []
    for name, run in state.runs.items():
        folder = campaign.runs_folder / name
        if run.evidence and not folder.is_dir():
            found.append(f"{place}/{name}: is missing")
        elif run.evidence:
            found += [f"{place}/{name}: {text}" for text in runs.altered(folder, run.evidence, [rundir.ARTIFACT])]
    known = set(state.runs)
    if campaign.runs_folder.is_dir():
        pulled = {path.parent.name for path in campaign.runs_folder.glob(f"*/{rundir.PULLED}")}
        found += [f"{place}/{name}: no event knows of this run" for name in sorted(pulled - known)]
    return found
