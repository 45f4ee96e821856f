"""The hosts of one command: who is asked, who answers, who has room."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from golfctl.decide import Room
from golfctl.domain import rundir
from golfctl.domain.host import HostSpec, Look, Poll
from golfctl.domain.run import RunRecord
from golfctl.errors import HostError, HostUnreachable, InputError
from golfctl.hosts import open_host
from golfctl.hosts.background import Background, wait_for
from golfctl.hosts.base import Host
from golfctl.runner.tails import Tails

PATIENCE_S = 1.0
"""How long one look waits for slow hosts; what they answer later counts in the next look."""
GAP_S = 5.0
"""Most that one look in vain adds to a host's silence: time in which nobody asked (a stopped process, a transfer) is none."""
NOT_YET = "no answer yet"
FULL_S = 5.0
"""A host whose slots others hold is asked again after so long."""
RECORD_BYTES = 1 << 22


@dataclass
class _Silence:
    """A host that does not answer: what was said, since how many seconds of asking, and when that was last counted."""

    why: str
    seconds: float
    counted: float


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
        self._silences: dict[str, _Silence] = {}
        self._shut: dict[str, str] = {}
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
        """What is known of every unfinished run within reach; new log bytes go to the tails. Silent hosts are asked, too.

        A run is left out if its host is not in hosts.yaml, or is another machine's `local`.
        """
        wanted: dict[str, list[str]] = {alias: [] for alias in (*self._silences, *self._asked)}
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
        host = self.host(alias)
        if not names:
            host.idle()  # any question will do
        return host.look({name: self.tails.size(name) for name in names})

    def _answer(self, alias: str, names: list[str]) -> dict[str, Poll]:
        asked = self._asked[alias]
        if not asked.over.is_set():
            return self._in_vain(alias, names, NOT_YET)
        del self._asked[alias]
        try:
            looks = asked.result()
        except HostUnreachable as error:
            return self._in_vain(alias, names, str(error), failed=True)
        except HostError as error:  # it answers, and not what it should: never a reason to give runs up
            self._silences[alias] = _Silence(str(error), 0.0, time.monotonic())
            return {name: Poll("unreachable", why=str(error)) for name in names}
        self._silences.pop(alias, None)
        for name, look in looks.items():
            self.tails.add(name, look.log)
        launched_since = Poll("unreachable", why="not asked yet")
        return {name: looks[name].poll if name in looks else launched_since for name in names}

    def _in_vain(self, alias: str, names: list[str], why: str, failed: bool = False) -> dict[str, Poll]:
        """A look without an answer. Runs are only ever given up at one that has failed, not at one still under way."""
        self.silence(alias, why)
        seconds = self._silences[alias].seconds if failed else 0.0
        return {name: Poll("unreachable", why=why, silent_s=seconds) for name in names}

    def silence(self, alias: str, why: str) -> None:
        """The host did not answer; until it does, nothing new goes there."""
        now = time.monotonic()
        known = self._silences.get(alias)
        if known is None:
            self._silences[alias] = _Silence(why, 0.0, now)
        else:
            known.seconds += min(now - known.counted, GAP_S)
            known.counted = now
            known.why = why if why != NOT_YET else known.why

    @property
    def silent(self) -> dict[str, str]:
        """Aliases of hosts that did not answer when last asked, and what was said."""
        return {alias: silence.why for alias, silence in self._silences.items()}

    def gone(self) -> str:
        """Why nothing can be launched any more, "" if something can: no chosen host answers, for longer than its lost_after_s."""
        said = []
        for alias in self.chosen:
            silence = self._silences.get(alias)
            if alias not in self._shut and (silence is None or silence.seconds < self._specs[alias].lost_after_s):
                return ""
            said.append(self._shut.get(alias) or silence.why if silence else self._shut[alias])
        return "; ".join(said)

    def free(self, alias: str) -> Host | None:
        """The host if it can be asked something now; None while it still owes an answer or is silent."""
        return None if alias in self._asked or alias in self._silences else self.host(alias)

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

    def shut(self, alias: str, why: str) -> bool:
        """A host that can't be used: nothing more is launched there in this command. False if it is the last one."""
        self._shut[alias] = why
        return any(other not in self._shut for other in self.chosen)

    def rooms(self, running: Iterable[RunRecord]) -> tuple[Room, ...]:
        """The chosen hosts with the slots that are left beside these runs."""
        taken: dict[str, int] = {}
        for record in running:
            slots = self._specs[record.spec.host].slots
            taken[record.spec.host] = taken.get(record.spec.host, 0) + min(record.spec.processes, slots)
        return tuple(self._room(alias, taken.get(alias, 0)) for alias in self.chosen)

    def _room(self, alias: str, taken: int) -> Room:
        spec = self._specs[alias]
        full = time.monotonic() < self._full_until.get(alias, 0.0)
        closed = alias in self._silences or alias in self._shut or full
        return Room(alias, spec.slots, 0 if closed else max(0, spec.slots - taken), bool(spec.gpu))

    def lost_after_s(self) -> dict[str, float]:
        """Alias to the time after which a silent host's runs count as lost."""
        return {alias: spec.lost_after_s for alias, spec in self._specs.items()}

    # -- readiness

    def make_ready(self, waited_for: Iterable[RunRecord]) -> None:
        """Check and prepare every chosen host. One that can't be used is left out while another can.

        Raises HostError if none can be used, and none of them has runs that are waited for.
        """
        first: HostError | None = None
        for alias in self.chosen:
            try:
                host = self.host(alias)
                problems = host.check()
                if problems:
                    raise HostError(f"host {alias}: " + "; ".join(problems))
                host.prepare()
            except HostUnreachable as error:
                self.silence(alias, str(error))
                first = first or error
            except HostError as error:
                self.shut(alias, str(error))
                first = first or error
        expected = {record.spec.host for record in waited_for}
        usable = [alias for alias in self.chosen if alias not in self._shut and alias not in self._silences]
        if first and not usable and not expected.intersection(self._silences):
            raise first

    def release_recorded(self, records: Iterable[RunRecord]) -> None:
        """A kill between recording a run and freeing its space, on the host and in our tails, is made good here."""
        finished = {record.spec.name: record for record in records if record.finished}
        for name in self.tails.names() & finished.keys():
            self.tails.forget(name)
        done = {name: record for name, record in finished.items() if record.evidence}
        for alias in self.chosen:
            names = {name for name, record in done.items() if record.spec.host == alias}
            if not names or alias in self._silences or alias in self._shut:
                continue
            host = self.host(alias)
            with contextlib.suppress(HostError):
                for name in names.intersection(host.runs(held=True)):
                    # Only what was pulled and recorded: another campaign's run may bear the same name there.
                    content = host.read(name, rundir.EXIT, 0, RECORD_BYTES)
                    if hashlib.sha256(content).hexdigest() == done[name].evidence:
                        host.release(name)
