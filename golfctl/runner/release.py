"""Handing a machine back: only when nothing runs there and everything it has done for us is here, verified."""

from __future__ import annotations

import os
import subprocess

from golfctl.domain.state import State
from golfctl.errors import HostError, InputError
from golfctl.hosts import open_host
from golfctl.hosts.base import Host
from golfctl.hosts.transfer import whole
from golfctl.hostside.files import one_line
from golfctl.store.campaign import Campaign

HOOK_S = 300.0


def release(campaign: Campaign, alias: str, state: State) -> str:
    """Run the host's on_release command here; what happened, as one line.

    Raises HostError, with nothing done, while a run goes on there or its results are not verified here.
    """
    spec = campaign.hosts[alias]
    if not spec.on_release:
        raise InputError(
            f"host {alias}: on_release is not set in hosts.yaml; it names the command that hands the machine back"
        )
    host = open_host(spec)
    try:
        kept = unfetched(campaign, host, state)
    finally:
        host.close()
    if kept:
        raise HostError(f"host {alias}: not released: {'; '.join(kept[:5])}")
    environment = {**os.environ, "GOLFCTL_HOST": alias}
    try:
        done = subprocess.run(
            ["sh", "-c", spec.on_release], env=environment, capture_output=True, timeout=HOOK_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise HostError(f"host {alias}: on_release did not end in {HOOK_S:.0f} s; look at the machine") from None
    if done.returncode:
        said = one_line((done.stderr or done.stdout)[-500:].decode("utf-8", "replace"))
        raise HostError(f"host {alias}: on_release failed with exit code {done.returncode}: {said}")
    return f"host {alias}: released"


def unfetched(campaign: Campaign, host: Host, state: State) -> list[str]:
    """What stands in the way of handing a host back, one line each."""
    alias = host.spec.alias
    lying = host.sweep()
    holders = [info for info in host.holders().values() if not info.get("stale")]
    found = [
        f"{run.spec.name} is recorded as under way there; golfctl gate run brings it home"
        for run in state.unfinished()
        if run.spec.host == alias
    ]
    for name, fact in lying.items():
        ours = name in state.runs and state.runs[name].spec.host == alias
        whose = "" if ours else f" (of {fact['campaign'] or 'another campaign'})"
        if fact["state"] == "running":
            found.append(f"{name}{whose} is running")
        elif fact["unpulled"] and not (ours and whole(campaign.runs_folder / name)):
            found.append(f"{name}{whose} has files that were not fetched")
    for owner in (info.get("owner") or {} for info in holders):
        if owner.get("run") not in lying:  # somebody who shares the slots and not the folder
            found.append(f"{owner.get('run', 'a run')} (of {owner.get('campaign') or 'another campaign'}) holds a slot")
    return found
