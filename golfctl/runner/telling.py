"""Tells an observer what was heard of runs under way. Whoever watches uses it: the runner, and `golfctl runs attach`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from golfctl.domain.gate import Gate, Kind
from golfctl.domain.host import Poll
from golfctl.domain.plan import ResolvedPlan
from golfctl.domain.run import RunRecord, RunSpec
from golfctl.domain.state import State
from golfctl.domain.verdict import Verdict
from golfctl.logs import Progress
from golfctl.runner.fleet import NOT_YET, Fleet


class Observer(Protocol):
    """What a runner tells while it works. The command line draws it; tests may listen."""

    def launched(self, spec: RunSpec, gate: Gate, adopted: bool) -> None: ...
    def progressed(self, spec: RunSpec, progress: Progress) -> None: ...
    def finished(self, record: RunRecord) -> None: ...
    def judged(self, plan: ResolvedPlan, gate: Gate, verdict: Verdict) -> None: ...
    def silent(self, host: str, why: str) -> None: ...
    def back(self, host: str) -> None: ...
    def held(self, plan: str, why: str) -> None: ...


class Telling:
    """Remembers what was told, so that nothing is told twice."""

    def __init__(self, fleet: Fleet, observer: Observer) -> None:
        self._fleet, self.observer = fleet, observer
        self._seen: set[str] = set()
        self._told: dict[str, Progress] = {}
        self._silent: set[str] = set()
        self._held: dict[str, str] = {}

    def launched(self, spec: RunSpec, gate: Gate, adopted: bool) -> None:
        """A run is under way."""
        self._seen.add(spec.name)
        self.observer.launched(spec, gate, adopted=adopted)

    def held(self, holds: Mapping[str, str]) -> None:
        """Plans that wait for room, and why; said once each."""
        for plan, why in holds.items():
            if plan not in self._held:
                self.observer.held(plan, why)
        self._held = dict(holds)

    def look(self, state: State, polls: Mapping[str, Poll]) -> None:
        """What was heard since the last look."""
        silent = self._fleet.silent
        for alias, why in silent.items():
            if alias not in self._silent and why != NOT_YET:
                self._silent.add(alias)
                self.observer.silent(alias, why)
        for alias in self._silent - set(silent):
            self.observer.back(alias)
        self._silent &= set(silent)
        for name, poll in polls.items():
            spec = state.runs[name].spec
            if poll.state == "running" and name not in self._seen:
                self.launched(spec, Gate(spec.gate, "", Kind.THRESHOLD), adopted=True)
            newest = self._fleet.tails.newest(name)
            if newest is not None and self._told.get(name) != newest:
                self._told[name] = newest
                self.observer.progressed(spec, newest)
