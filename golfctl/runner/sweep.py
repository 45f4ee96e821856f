"""Orphans: what lies or runs on a host although nobody here waits for it."""

from __future__ import annotations

from dataclasses import dataclass

from golfctl.domain.run import Outcome
from golfctl.domain.state import State
from golfctl.hosts.base import Host
from golfctl.hosts.transfer import whole
from golfctl.store.campaign import Campaign


@dataclass(frozen=True)
class Orphan:
    """A run on a host. ours: this campaign's ledger knows it."""

    name: str
    state: str
    ours: bool
    unpulled: bool
    why: str

    def fetch(self, campaign: Campaign, host: Host) -> None:
        """Bring its files here, verified where it ended by itself, then free its space. Raises HostError."""
        folder = campaign.runs_folder / self.name
        if self.state == "exited":
            host.pull(self.name, folder)
        else:
            host.pull_partial(self.name, folder)
        host.release(self.name)


def orphans(campaign: Campaign, host: Host, state: State) -> list[Orphan]:
    """Runs of this campaign that the ledger gave up, and running ones it does not know. Raises HostError."""
    found = []
    for name, fact in host.sweep().items():
        record = state.runs.get(name)
        ours = record is not None and record.spec.host == host.spec.alias
        same_campaign = fact["campaign"] in {"", campaign.name}
        if record is not None and ours and not record.finished:
            continue  # it is waited for
        here = whole(campaign.runs_folder / name)
        if fact["state"] == "running":
            lost = record is not None and record.outcome is Outcome.LOST
            why = "runs, and was given up as lost" if lost else f"runs for {fact['campaign'] or 'an unknown campaign'}"
        elif fact["unpulled"] and not here and (ours or same_campaign):
            why = f"{fact['state']}, and its files were not fetched"
        else:
            continue
        found.append(Orphan(name, fact["state"], ours, bool(fact["unpulled"]) and not here, why))
    return found
