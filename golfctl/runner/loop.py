"""Obeys decide.py: freeze, launch, watch, collect, judge, record. May be killed at any instant; the next call goes on.

Every step is either recorded before it is done (an intent) or can be repeated without harm (put, start, pull, release).
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict

from golfctl import budget, looks
from golfctl import decide as deciding
from golfctl import judge as judging
from golfctl.decide import Action, Hold, Judge, Launch, Lose, Pull, Request, Stop, Wait, Withdraw, gate_terms
from golfctl.domain.event import Type
from golfctl.domain.host import Poll
from golfctl.domain.plan import ResolvedPlan
from golfctl.domain.run import Outcome, RunSpec
from golfctl.domain.state import State
from golfctl.errors import HostError, HostUnreachable, InputError
from golfctl.estimate import of_run
from golfctl.hosts.base import Host
from golfctl.runner.collect import collect, lose, record_end
from golfctl.runner.fleet import Fleet
from golfctl.runner.launch import specify, step_ratio
from golfctl.runner.telling import Observer, Telling
from golfctl.store import bases, bundle, ledgerindex, notebook
from golfctl.store.campaign import Campaign
from golfctl.store.ledger import Ledger

POLL_S = 0.25
LOOK_S = 1.0
"""Longest time spent on launches and pulls while other runs go on unseen."""
PULL_TRIES = 4
"""A run that can't be brought home so many times stops its plan; the others go on."""
PULL_WAIT_S = 2.0


class Runner:
    """One campaign on some of its hosts, for as long as a command lasts."""

    def __init__(
        self,
        campaign: Campaign,
        hosts: Sequence[str],
        observer: Observer,
        *,
        fail_fast: bool = False,
        opened: Mapping[str, Host] | None = None,
    ) -> None:
        """opened: hosts somebody has begun to connect to."""
        self.campaign = campaign
        self.ledger = Ledger(campaign.ledger_folder, campaign.state_folder)
        self.fleet = Fleet(campaign.hosts, hosts, self.ledger.machine(), campaign.state_folder / "tails", opened)
        self._telling = Telling(self.fleet, observer)
        self._fail_fast = fail_fast
        self._state: tuple[object, State] | None = None
        self._failed_pulls: dict[str, tuple[int, float, str]] = {}  # run -> tries, when to try again, what was said
        self._dear: dict[str, str] = {}  # plan -> the cap that its next run would pass

    def state(self) -> State:
        """The fold of the ledger as it stands."""
        mark = [(path.name, path.stat().st_size) for path in sorted(self.campaign.ledger_folder.glob("*"))]
        if self._state is None or self._state[0] != mark:
            self._state = (mark, ledgerindex.latest(self.ledger).state)
        return self._state[1]

    def run(self, plans: Mapping[str, ResolvedPlan], requested: Sequence[str], through: int) -> list[Stop]:
        """Do everything the request allows; return why each plan stopped. Raises HostError, LedgerError, InputError."""
        with self._only_one():
            self.fleet.make_ready(self.state().unfinished())
            self._freeze(plans, requested)
            self.fleet.release_recorded(self.state().runs.values())
            while True:
                state = self.state()
                polls = self.fleet.look(state.unfinished())
                self._telling.look(state, polls)
                actions = deciding.decide(self._request(requested, through, state, polls), plans, state, polls)
                stops = [action for action in actions if isinstance(action, Stop)]
                over = len(stops) == len(requested)
                assert over or len(stops) < len(actions), (
                    f"{len(requested)} plans, {len(stops)} stops, nothing else to do"
                )
                moving = any(isinstance(action, Launch | Wait | Pull) for action in actions)  # then everybody sees why
                holds = {action.plan: action.why for action in actions if isinstance(action, Hold)}
                self._telling.held({} if moving else holds)
                if gone := self._stuck(actions):
                    raise HostError(
                        f"nothing can be started any more: {gone}; golfctl gate run goes on when a host is back"
                    )
                busy = self._do_some(actions, plans)
                if over and len(stops) == len(actions):
                    self._sync(plans)
                    return stops
                if not busy:
                    time.sleep(POLL_S)

    def _stuck(self, actions: Sequence[Action]) -> str:
        """Why there is nothing but waiting for hosts that will not come back, "" if there is more to do."""
        return (
            self.fleet.gone()
            if all(isinstance(action, Stop | Hold) for action in actions)
            and any(isinstance(action, Hold) for action in actions)
            else ""
        )

    def next_actions(self, plans: Mapping[str, ResolvedPlan], requested: Sequence[str], through: int) -> list[Action]:
        """What `run` would do first; does nothing."""
        state = self.state().seen_as(plans)
        polls = self.fleet.look(state.unfinished())
        return deciding.decide(self._request(requested, through, state, polls), plans, state, polls)

    def close(self) -> None:
        """Let go of the hosts."""
        self.fleet.close()

    def _request(self, requested: Sequence[str], through: int, state: State, polls: Mapping[str, Poll]) -> Request:
        running = [
            state.runs[name] for name, poll in polls.items() if poll.state in {"running", "broken", "unreachable"}
        ]
        troubles = {name: text for name, (tries, _, text) in self._failed_pulls.items() if tries >= PULL_TRIES}
        rooms, lost_after_s = self.fleet.rooms(running), self.fleet.lost_after_s()
        return Request(tuple(requested), through, rooms, self._fail_fast, troubles, lost_after_s, self._dear)

    # --- before anything runs ----------------------------------------------------------------------------------------
    @contextmanager
    def _only_one(self) -> Iterator[None]:
        """Two runners in one campaign would both decide. The lock dies with its process."""
        self.campaign.state_folder.mkdir(parents=True, exist_ok=True)
        with (self.campaign.state_folder / "runner.lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                pid = lock.read().strip() or "unknown"
                raise HostError(
                    f"{self.campaign.name}: another golfctl (pid {pid}) is running gates here; watch it with `golfctl runs tail`"
                ) from None
            lock.truncate(0)
            lock.write(f"{os.getpid()}\n")
            lock.flush()
            yield

    def _freeze(self, plans: Mapping[str, ResolvedPlan], requested: Sequence[str]) -> None:
        """Record what each plan is before its first run; a changed plan becomes a new revision."""
        state = self.state()
        for plan_id in requested:
            plan = plans[plan_id]
            known = state.revision(plan_id)
            if known is not None and known.digest == plan.digest and not state.forked(plan_id):
                continue
            data = {
                "plan": plan.id,
                "revision": known.number + 1 if known else 1,
                "digest": plan.digest,
                "title": plan.title,
                "base": plan.base,
                "stack": plan.stack,
                "bundle": plan.bundle,
                "parent": plan.parent,
                "parent_bundle": plan.parent_bundle,
                "base_bundle": plan.base_bundle,
                "seeds": plan.seeds,
                "gates": [deciding.gate_terms(gate) for gate in plan.gates],
            }
            self.ledger.append(Type.PLAN_FROZEN, data)

    # --- obeying -----------------------------------------------------------------------------------------------------
    def _do_some(self, actions: Sequence[Action], plans: Mapping[str, ResolvedPlan]) -> bool:
        """Obey in order; whether something was done. What is left after LOOK_S is decided anew, from another look."""
        busy, enough = False, time.monotonic() + LOOK_S
        for action in actions:
            busy = self._do(action, plans) or busy
            if busy and time.monotonic() > enough:
                break
        return busy

    def _do(self, action: Action, plans: Mapping[str, ResolvedPlan]) -> bool:
        """Obey; whether something was done. A host that falls silent meanwhile is asked again after the next look."""
        try:
            if isinstance(action, Launch):
                return self._launch(action, plans[action.plan])
            if isinstance(action, Pull):
                return self._collect(action.run)
            if isinstance(action, Lose):
                return self._lose(action)
            if isinstance(action, Withdraw):
                self._withdraw(action.run, action.why)
                return True
            if isinstance(action, Judge):
                self._judge(action, plans)
                return True
        except HostUnreachable as error:
            if isinstance(action, Pull | Lose):
                self.fleet.silence(self.state().runs[action.run].spec.host, str(error))
            return False
        return False

    def _launch(self, action: Launch, plan: ResolvedPlan) -> bool:
        host = self.fleet.free(action.host)
        if host is None:
            return False
        if not action.resume and (said := self._over_cap(action)):
            self._dear[action.plan] = f"budget: {said}; nothing more was started"
            return True
        try:
            # What may take long and can be repeated comes first: once the intent is written, only `start` is uncertain.
            self.fleet.bring(action.host, action.bundle, lambda: bundle.archive_of(self.campaign, action.bundle))
            spec = self._spec(action, plan)
            answer = host.start(spec)
        except HostUnreachable as error:
            self.fleet.silence(action.host, str(error))
            return False
        except HostError as error:
            if not self.fleet.shut(action.host, str(error)):
                raise
            self._telling.observer.silent(action.host, f"{error}; nothing more is started there")
            return True
        if answer == "full":
            self.fleet.full(action.host)
            return False
        if answer == "exists":
            self._withdraw(spec.name, f"host {spec.host} has a run of this name that this ledger does not know")
            return True
        self.ledger.append(Type.RUN_STARTED, {"run": spec.name, "adopted": answer == "ours"})
        self._telling.launched(spec, action.gate, adopted=answer == "ours")
        return True

    def _over_cap(self, action: Launch) -> str | None:
        """The cap that a fresh run would pass as things stand now: runs may have taken longer than was guessed at the start."""
        if self.campaign.budget == budget.Budget():
            return None  # no cap; a long ledger takes its time
        state, hosts = self.state(), self.campaign.hosts
        ahead = of_run(action, state, hosts[action.host])
        return budget.refusal(self.campaign.budget, state, ahead, budget.under_way(state, hosts))

    def _withdraw(self, name: str, why: str) -> None:
        """Record that a run was intended and never started."""
        record = self.state().runs[name]
        data = {"reason": why, "wall_s": None, "result": None, "withdrawn": True}
        record_end(self.campaign, self.ledger, self.campaign.hosts[record.spec.host], record, Outcome.LOST, data)
        self._telling.observer.finished(self.state().runs[name])

    def _spec(self, action: Launch, plan: ResolvedPlan) -> RunSpec:
        """The run to start: the one that was intended already, or a new one whose intent is recorded now."""
        state = self.state()
        if action.resume:
            return state.runs[action.resume].spec
        heads = {machine: f"{head.count}@{head.hash[:12]}" for machine, head in self.ledger.heads().items()}
        spec = specify(
            self.campaign, self.fleet.host(action.host).spec, action, plan, state, heads, self.ledger.machine()
        )
        self.ledger.append(Type.RUN_INTENT, {"spec": asdict(spec), "plan": plan.id, "why": action.why})
        return spec

    def _collect(self, name: str) -> bool:
        state = self.state()
        record = state.runs[name]
        tries, again, _ = self._failed_pulls.get(name, (0, 0.0, ""))
        host = self.fleet.free(record.spec.host)
        if host is None or time.monotonic() < again:
            return False
        try:
            collect(self.campaign, self.ledger, host, record, state, self.fleet.tails)
        except HostUnreachable:
            raise
        except HostError as error:
            self._failed_pulls[name] = (tries + 1, time.monotonic() + PULL_WAIT_S, str(error))
            return False
        self._telling.observer.finished(self.state().runs[name])
        return True

    def _lose(self, action: Lose) -> bool:
        record = self.state().runs[action.run]
        alias = record.spec.host
        host = self.fleet.free(alias)
        lose(self.campaign, self.ledger, host, record, action.why, self.state(), self.fleet.tails)
        self._telling.observer.finished(self.state().runs[action.run])
        return True

    def _judge(self, action: Judge, plans: Mapping[str, ResolvedPlan]) -> None:
        plan, state = plans[action.plan], self.state()
        revision = state.revision(plan.id)
        if revision is None:
            raise InputError(f"{plan.id}: was never frozen")
        case = judging.Case(
            plan=plan,
            revision=revision.number,
            gate=action.gate,
            rules=self.campaign.rules,
            own=[state.runs[name] for name in action.own],
            others=[state.runs[name] for name in action.others],
            parent=[state.runs[name] for name in action.parent],
            base=[state.runs[name] for name in action.base],
            step_ratio=step_ratio(plan, action.gate, state, bases.load(self.campaign, plan.base)),
            former=looks.former(state, plan.id, action.gate, action.others, gate_terms(action.gate), action.own),
            rewritten=looks.rewritten(state, plan.id, action.gate),
            final=[run for run in state.runs_of(plan.base_bundle, plan.gates[-1].shape) if run.finished],
        )
        verdict = judging.judge(case)
        self.ledger.append(Type.VERDICT, verdict.as_data())
        self._sync(plans)
        self._telling.observer.judged(plan, action.gate, verdict)

    def _sync(self, plans: Mapping[str, ResolvedPlan]) -> None:
        titles = {plan.id: plan.title for plan in plans.values()}
        notebook.sync(self.campaign.log_file, self.campaign.failures_file, self.state(), titles)
