"""The hosts of one command: who is asked, who answers, who has room."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from golfctl.decide import Room
from golfctl.domain.host import HostSpec, Look, Poll
from golfctl.domain.run import RunRecord
from golfctl.errors import HostError, InputError
from golfctl.hosts import open_host
from golfctl.hosts.background import Background, wait_for
from golfctl.hosts.base import Host
from golfctl.runner.tails import Tails

PATIENCE_S = 1.0
"""How long one look waits for slow hosts; what they answer later counts in the next look."""
NOT_YET = "no answer yet"
FULL_S = 5.0
"""A host whose slots others hold is asked again after so long."""


class Fleet:
    """Hosts by alias, opened when first needed. `chosen`: where new runs may go, in order of preference."""

    def __init__(
        self,
        specs: Mapping[str, HostSpec],
        chosen: Sequence[str],
        machine: str,
        tails: Path,
        opened: Mapping[str, Host] | None = None,
    ) -> None:
        self._specs, self.chosen, self._machine = specs, tuple(chosen), machine
        self.tails = Tails(tails)
        self._hosts = dict(opened or {})
        self._asked: dict[str, Background[dict[str, Look]]] = {}
        self._first_silence: dict[str, float] = {}
        self._full_until: dict[str, float] = {}
        self._bundles: set[tuple[str, str]] = set()

    def host(self, alias: str) -> Host:
        """The host of this name. Raises InputError if hosts.yaml no longer has it."""
        if alias not in self._hosts:
            if alias not in self._specs:
                raise InputError(f"host {alias}: is no longer in golf.yaml or hosts.yaml")
            self._hosts[alias] = open_host(self._specs[alias])
        return self._hosts[alias]

    def close(self) -> None:
        """Let go of all; what runs goes on."""
        for host in self._hosts.values():
            host.close()

    # -- who answers

    def look(self, unfinished: Iterable[RunRecord]) -> dict[str, Poll]:
        """What is known of every unfinished run within reach; new log bytes go to the tails.

        A run is left out if its host is not in hosts.yaml, or is another machine's `local`.
        """
        wanted: dict[str, list[str]] = {}
        for record in unfinished:
            spec = record.spec
            if spec.host in self._specs and self._in_reach(record):
                wanted.setdefault(spec.host, []).append(spec.name)
        for alias, names in wanted.items():
            if alias not in self._asked:
                self._asked[alias] = Background(partial(self._look_at, alias, tuple(names)))
        wait_for(self._asked.values(), PATIENCE_S)
        polls: dict[str, Poll] = {}
        for alias, names in wanted.items():
            polls |= self._answer(alias, names)
        return polls

    def _in_reach(self, record: RunRecord) -> bool:
        """Another machine's `local` host is not ours, unless its folder happens to lie here, too."""
        spec = record.spec
        if self._specs[spec.host].kind != "local" or record.machine == self._machine:
            return True
        return spec.name in self.host(spec.host).runs()

    def _look_at(self, alias: str, names: Sequence[str]) -> dict[str, Look]:
        return self.host(alias).look({name: self.tails.size(name) for name in names})

    def _answer(self, alias: str, names: list[str]) -> dict[str, Poll]:
        asked = self._asked[alias]
        now = time.monotonic()
        if not asked.over.is_set():
            return self._silence(alias, names, now, NOT_YET)
        del self._asked[alias]
        try:
            looks = asked.result()
        except HostError as error:
            return self._silence(alias, names, now, str(error))
        self._first_silence.pop(alias, None)
        for name, look in looks.items():
            self.tails.add(name, look.log)
        launched_since = Poll("unreachable", why="not asked yet")
        return {name: looks[name].poll if name in looks else launched_since for name in names}

    def _silence(self, alias: str, names: list[str], now: float, why: str) -> dict[str, Poll]:
        since = self._first_silence.setdefault(alias, now)
        return {name: Poll("unreachable", why=why, silent_s=now - since) for name in names}

    @property
    def silent(self) -> set[str]:
        """Aliases of hosts that did not answer the last look."""
        return set(self._first_silence)

    def free(self, alias: str) -> Host | None:
        """The host if it can be asked something now; None while it still owes an answer."""
        return None if alias in self._asked else self.host(alias)

    def bring(self, alias: str, sha: str, archive: Callable[[], Path]) -> None:
        """See to it that a host has a bundle; it is asked once in a command."""
        if (alias, sha) not in self._bundles:
            host = self.host(alias)
            if not host.has_bundle(sha):
                host.put(sha, archive())
            self._bundles.add((alias, sha))

    # -- who has room

    def full(self, alias: str) -> None:
        """Somebody else holds its slots."""
        self._full_until[alias] = time.monotonic() + FULL_S

    def rooms(self, running: Iterable[RunRecord]) -> tuple[Room, ...]:
        """The chosen hosts with the slots that are left beside these runs."""
        taken: dict[str, int] = {}
        for record in running:
            slots = self._specs[record.spec.host].slots
            taken[record.spec.host] = taken.get(record.spec.host, 0) + min(record.spec.processes, slots)
        return tuple(self._room(alias, taken.get(alias, 0)) for alias in self.chosen)

    def _room(self, alias: str, taken: int) -> Room:
        spec = self._specs[alias]
        shut = alias in self.silent or time.monotonic() < self._full_until.get(alias, 0.0)
        free = 0 if shut else max(0, spec.slots - taken)
        return Room(alias, spec.slots, free, bool(spec.gpu), spec.lost_after_s)

    # -- readiness

    def make_ready(self) -> None:
        """Check and prepare every chosen host. Raises HostError naming the first that can't be used."""
        for alias in self.chosen:
            host = self.host(alias)
            problems = host.check()
            if problems:
                raise HostError(f"host {alias}: " + "; ".join(problems))
            host.prepare()

    def release_recorded(self, records: Iterable[RunRecord]) -> None:
        """A kill between recording a run and freeing its space on the host is made good here."""
        # Without evidence nothing was pulled: then the name may be another campaign's run on a shared host.
        done = [record.spec for record in records if record.finished and record.evidence]
        for alias in self.chosen:
            names = {spec.name for spec in done if spec.host == alias}
            host = self.host(alias)
            for name in names.intersection(host.runs(held=True)) if names else ():
                with contextlib.suppress(HostError):
                    host.release(name)
