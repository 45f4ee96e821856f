"""Hosts: machines, and what one can say about a run on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class HostSpec:
    """A machine from hosts.yaml. `slots` processes (GPUs, or shares of a CPU) run at once.

    usd_per_hour is 0 for a machine one owns; `root` is its folder for bundles and runs.
    """

    alias: str
    kind: str = "local"
    slots: int = 1
    usd_per_hour: float = 0.0
    root: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Poll:
    """What a host says about a run right now.

    state: "absent" (no such folder), "running", "exited" (exit.json is there), "dead" (folder without exit.json
    and no live supervisor: it was killed or the machine restarted).
    exit: the content of exit.json when exited. heartbeat: the supervisor's last heartbeat, if any.
    """

    state: str
    exit: Mapping[str, Any] | None = None
    heartbeat: Mapping[str, Any] | None = None
