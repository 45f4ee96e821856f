"""Hosts: machines, what one can say about a run on them, and the room they have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class HostSpec:
    """A machine from hosts.yaml. `slots` processes (GPUs, or shares of a CPU) run at once.

    usd_per_hour is 0 for a machine one owns; `root` is its folder for bundles and runs.
    gpu: model of its GPUs; results of different models are never compared. "": no GPU, slots are shares of the CPU.
    address, user, port, identity, jump: how ssh finds it; what is empty comes from ~/.ssh/config, where `address` may be a Host.
    python: starts what golfctl brings there; runs use the virtual environment that `host prepare` made, where there is one.
    cache: folder for compile caches, on a disk of its own. leases: folder shared by all who use its GPUs; "": ROOT/leases.
    data: folder with the data shards; manifest: file here that lists them (see hosts/preflight.py).
    persistent: whether ROOT survives the machine's stop. abandon_after_s: with no run and no contact for so long, on_idle
    (a shell command of the user's) runs there, once. on_release: a shell command run here once all results are verified.
    lost_after_s: a run whose host can't be reached for so long counts as lost. secret_env: names of variables handed to runs.
    """

    alias: str
    kind: str = "local"
    slots: int = 1
    usd_per_hour: float = 0.0
    root: str = ""
    gpu: str = ""
    address: str = ""
    user: str = ""
    port: int | None = None
    identity: str = ""
    jump: str = ""
    python: str = "python3"
    cache: str = ""
    leases: str = ""
    data: str = ""
    manifest: str = ""
    persistent: bool = False
    abandon_after_s: float | None = None
    on_idle: str = ""
    on_release: str = ""
    lost_after_s: float = 600.0
    secret_env: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Poll:
    """What a host says about a run right now.

    state: "absent" (no such folder), "running", "exited" (exit.json is there), "dead" (folder without exit.json
    and no live supervisor: it was killed or the machine restarted), "broken" (its files can't be read there; why says what),
    "unreachable" (the host did not answer: nothing is known).
    exit: the content of exit.json when exited. heartbeat: the supervisor's last heartbeat, if any.
    silent_s: seconds this process has asked in vain; why: what the connection said.
    """

    state: str
    exit: Mapping[str, Any] | None = None
    heartbeat: Mapping[str, Any] | None = None
    why: str = ""
    silent_s: float = 0.0


@dataclass(frozen=True)
class Look:
    """One run as seen in one answer of its host: its state, and what its log holds beyond the offset asked for."""

    poll: Poll
    log: bytes = b""
