"""Looks at a campaign without touching it: the ledger, plan files, and what hosts say of runs under way. Starts nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from golfctl import budget
from golfctl.decide import Action, Hold, Judge, Launch, Request, Stop, decide
from golfctl.domain.host import Poll
from golfctl.domain.plan import ResolvedPlan
from golfctl.domain.run import RunRecord
from golfctl.domain.state import State
from golfctl.errors import InputError
from golfctl.estimate import share_per_hour
from golfctl.logs import Progress, progress
from golfctl.report.watching import Ended, HostSeen, Judged, RunSeen, Snapshot, Waiting
from golfctl.runner.fleet import NOT_YET, Fleet
from golfctl.store import ledgerindex
from golfctl.store.campaign import Campaign
from golfctl.store.check import check
from golfctl.store.ledger import Ledger, now
from golfctl.store.plangraph import stack_of

LATELY = 5
"""Verdicts and ended runs that are shown."""
CURVE = 4000
"""Losses of a run that are kept; beyond, every second one is dropped."""


class Watcher:
    """One campaign as it is now, and again. `copies`: folder for its own copies of logs; close it at last."""

    def __init__(self, campaign: Campaign, copies: Path) -> None:
        self._campaign = campaign
        self._ledger = Ledger(campaign.ledger_folder, campaign.state_folder)
        # Its own copies of the logs: a runner at work in this campaign keeps the others.
        self._fleet = Fleet(campaign.hosts, (campaign.host,), self._ledger.machine(), copies)
        self._curves: dict[str, _Curve] = {}
        self._state: tuple[object, State] = (None, State())
        self._plans: tuple[object, Mapping[str, ResolvedPlan]] = (None, {})

    def close(self) -> None:
        """Let go of the hosts; what runs goes on."""
        self._fleet.close()

    def look(self) -> Snapshot:
        """Ask again. Raises LedgerError for a damaged ledger, InputError for a broken golf.yaml."""
        campaign, state = self._campaign, self._read()
        unfinished = state.unfinished()
        polls = self._fleet.look(unfinished)
        coming = budget.under_way(state, campaign.hosts)
        running = [run for run in unfinished if _poll(polls, run).state in {"running", "unreachable"}]
        left = campaign.budget.usd
        waiting, others = self._queue(state, polls, running)
        return Snapshot(
            campaign=campaign.name,
            base=campaign.base_name,
            when=now(),
            runs=tuple(self._run(run, _poll(polls, run)) for run in unfinished),
            waiting=waiting,
            hosts=self._hosts(running),
            ended=_ended(state),
            judged=_judged(state),
            spent_usd=state.spent_usd,
            under_way_usd=sum(coming.values()),
            usd_per_hour=sum(self._price(run) for run in running),
            left_usd=None if left is None else left - state.spent_usd - sum(coming.values()),
            others=others,
        )

    def _read(self) -> State:
        mark = [(path.name, path.stat().st_size) for path in sorted(self._campaign.ledger_folder.glob("*"))]
        if self._state[0] != mark:
            self._state = (mark, ledgerindex.latest(self._ledger).state)
        return self._state[1]

    # -- runs and hosts

    def _run(self, run: RunRecord, poll: Poll) -> RunSeen:
        spec, seen = run.spec, self._fleet.tails.newest(run.spec.name)
        elapsed = max(0.0, (datetime.now(UTC) - datetime.fromisoformat(run.launched_at)).total_seconds())
        curve = self._curves.setdefault(spec.name, _Curve(self._fleet.tails.path(spec.name)))
        states = {"running": "running", "unreachable": "silent", "absent": "unknown", "broken": "unknown"}
        return RunSeen(
            name=spec.name,
            plan=spec.owner,
            gate=spec.gate,
            seed=spec.seed,
            host=spec.host,
            state=states.get(poll.state, "ended"),
            elapsed_s=elapsed,
            usd=elapsed * self._price(run) / 3600,
            left_s=_left(seen) if poll.state == "running" else None,
            curve=curve.values(),
            why=poll.why,
            **_figures(seen),
        )

    def _price(self, run: RunRecord) -> float:
        host = self._campaign.hosts.get(run.spec.host)
        return share_per_hour(host, run.spec.processes) if host else 0.0

    def _hosts(self, running: list[RunRecord]) -> tuple[HostSeen, ...]:
        """The campaign's own host and all with runs; a host without any is not asked."""
        silent, found = self._fleet.silent, []
        for alias, spec in self._campaign.hosts.items():
            mine = [run for run in running if run.spec.host == alias]
            if mine or alias == self._campaign.host:
                busy = sum(min(run.spec.processes, spec.slots) for run in mine)
                said = silent.get(alias, "")
                found.append(HostSeen(alias, spec.slots, busy, spec.usd_per_hour, "" if said == NOT_YET else said))
        return tuple(found)

    # -- the queue

    def _queue(
        self, state: State, polls: Mapping[str, Poll], running: list[RunRecord]
    ) -> tuple[tuple[Waiting, ...], int]:
        """What `golfctl gate run` and `golfctl seeds` would do next, plan by plan; and how many plans have nothing ahead."""
        plans = self._resolved()
        rooms = self._fleet.rooms([run for run in running if run.spec.host in self._campaign.hosts])
        request = Request(tuple(plans), max(self._campaign.gates), rooms, lost_after_s=self._fleet.lost_after_s())
        first: dict[str, Waiting] = {}
        stopped = 0
        for action in decide(request, plans, state.seen_as(plans), polls):
            if isinstance(action, Stop):
                stopped += 1
            elif (found := _waiting(action)) is not None:
                first.setdefault(found.plan, found)
        return tuple(first.values()), stopped

    def _resolved(self) -> Mapping[str, ResolvedPlan]:
        """Plans that could run, dependencies first, as their files are now. Those that can't be read are left out."""
        files = [(path.name, path.stat().st_mtime_ns) for path in sorted(self._campaign.plans_folder.rglob("*"))]
        if self._plans[0] != files:
            try:
                found = check(self._campaign)
            except InputError:
                return self._plans[1]  # a file that an editor is just writing
            known = {name: found.plans[name] for name in found.resolved}
            order = dict.fromkeys(part for name in known for part in stack_of(known, name))
            sound = {name: found.resolved[name] for name in order}
            self._plans = (files, {name: plan for name, plan in sound.items() if plan.bundle != plan.parent_bundle})
        return self._plans[1]


class _Curve:
    """Train losses in the copy of a log that grows."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset, self._losses, self._every, self._count = path, 0, list[float](), 1, 0

    def values(self) -> tuple[float, ...]:
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                content = file.read()
        except OSError:
            return tuple(self._losses)
        whole = content[: content.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            seen = progress(line.decode(errors="replace"))
            if seen and seen.train_loss is not None and math.isfinite(seen.train_loss):
                self._add(seen.train_loss)
        return tuple(self._losses)

    def _add(self, loss: float) -> None:
        if self._count % self._every == 0:
            self._losses.append(loss)
        self._count += 1
        if len(self._losses) >= CURVE:
            self._losses = self._losses[::2]
            self._every *= 2


def _poll(polls: Mapping[str, Poll], run: RunRecord) -> Poll:
    """What is known of a run; of one on a host that is not within reach, nothing."""
    return polls.get(run.spec.name, Poll("absent", why="its host is out of reach from here"))


def _figures(seen: Progress | None) -> dict[str, Any]:
    names = ("step", "steps", "step_avg_ms", "train_loss", "val_bpb")
    return {name: getattr(seen, name) for name in names} if seen else {}


def _left(seen: Progress | None) -> float | None:
    if seen is None or not seen.steps or seen.step_avg_ms is None:
        return None
    seconds = (seen.steps - seen.step) * seen.step_avg_ms / 1000
    return seconds if 0 <= seconds < 1e7 else None


def _waiting(action: Action) -> Waiting | None:
    """The part of an action that is about a plan in the queue; what is under way stands among the runs."""
    if isinstance(action, Launch):
        return Waiting(action.plan, "next", f"{_short(action)}, on {action.host}")
    if isinstance(action, Hold):
        return Waiting(action.plan, "waits", _short(action))
    if isinstance(action, Judge):
        return Waiting(action.plan, "to judge", _short(action))
    return None


def _short(action: Launch | Hold | Judge) -> str:
    return action.why.removeprefix(f"{action.plan}, ")


def _ended(state: State) -> tuple[Ended, ...]:
    """The newest runs with an end, newest first; a ledger keeps them in order of launch."""
    finished = [run for run in state.runs.values() if run.finished][-LATELY:]
    return tuple(
        Ended(
            run.spec.name,
            run.ending,
            run.result.score if run.result else None,
            run.usd,
            "" if run.ending == "completed" else run.reason,
        )
        for run in reversed(finished)
    )


def _judged(state: State) -> tuple[Judged, ...]:
    events = sorted(state.verdict_events.items(), key=lambda item: (item[1].time, item[1].machine, item[1].seq))
    newest = [state.verdicts[key] for key, _ in events[-LATELY:]]
    return tuple(Judged(item.plan, item.gate, str(item.answer), item.reason) for item in reversed(newest))
