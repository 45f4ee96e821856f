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
from typing import Any, Protocol

from golfctl import decide as deciding
from golfctl import judge as judging
from golfctl.decide import Action, Judge, Launch, Lose, Pull, Request, Stop, Wait
from golfctl.domain import rundir
from golfctl.domain.event import Type
from golfctl.domain.gate import Gate, Kind
from golfctl.domain.host import HostSpec, Poll
from golfctl.domain.plan import ResolvedPlan
from golfctl.domain.run import Outcome, RunRecord, RunResult, RunSpec
from golfctl.domain.state import State, fold
from golfctl.domain.verdict import Verdict
from golfctl.errors import HostError, InputError
from golfctl.hosts import open_host
from golfctl.hosts.base import Host
from golfctl.logs import baseline
from golfctl.logs.record import Progress
from golfctl.store import bases, bundle, notebook, runs
from golfctl.store.campaign import Campaign
from golfctl.store.ledger import Ledger

POLL_S = 0.25
RULE_AFTER_STEP = 20
"""A step-time rule looks away while caches are cold."""
SYSTEM_VARIABLES = frozenset({"PATH", "HOME", "USER", "TMPDIR", "LANG", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES"})
"""Left to the host even if the code reads them; every other variable the code reads is set by us or absent."""


class Observer(Protocol):
    """What a runner tells while it works. The command line draws it; tests may listen."""

    def launched(self, spec: RunSpec, gate: Gate, adopted: bool) -> None: ...
    def progressed(self, spec: RunSpec, progress: Progress) -> None: ...
    def finished(self, record: RunRecord) -> None: ...
    def judged(self, plan: ResolvedPlan, gate: Gate, verdict: Verdict) -> None: ...


class Runner:
    """One campaign on one host, for as long as a command lasts."""

    def __init__(self, campaign: Campaign, host_spec: HostSpec, observer: Observer) -> None:
        self.campaign = campaign
        self.ledger = Ledger(campaign.ledger_folder, campaign.state_folder)
        self.host: Host = open_host(host_spec)
        self.observer = observer
        self._offsets: dict[str, int] = {}
        self._seen: set[str] = set()

    def state(self) -> State:
        """The fold of the ledger as it stands."""
        return fold(self.ledger.events())

    def run(self, plans: Mapping[str, ResolvedPlan], requested: Sequence[str], through: int) -> list[Stop]:
        """Do everything the request allows; return why each plan stopped. Raises HostError, LedgerError, InputError."""
        with self._only_one():
            self._check_host()
            self._freeze(plans, requested)
            self._release_finished()
            while True:
                state = self.state()
                polls = self._poll(state)
                actions = deciding.decide(self._request(requested, through, state, polls), plans, state, polls)
                stops = [action for action in actions if isinstance(action, Stop)]
                work = [action for action in actions if not isinstance(action, Stop | Wait)]
                over = len(stops) == len(requested)
                assert over or len(stops) < len(actions), (
                    f"{len(requested)} plans, {len(stops)} stops, nothing else to do"
                )
                for item in work:
                    self._do(item, plans, state)
                if over and len(stops) == len(actions):
                    self._sync(plans)
                    return stops
                for action in actions:
                    if isinstance(action, Wait):
                        self._watch(state.runs[action.run].spec)
                if not work:
                    time.sleep(POLL_S)

    def next_actions(self, plans: Mapping[str, ResolvedPlan], requested: Sequence[str], through: int) -> list[Action]:
        """What `run` would do first; does nothing."""
        state = self.state().seen_as(plans)
        polls = self._poll(state)
        return deciding.decide(self._request(requested, through, state, polls), plans, state, polls)

    def _request(self, requested: Sequence[str], through: int, state: State, polls: Mapping[str, Poll]) -> Request:
        slots = self.host.spec.slots
        running = [state.runs[name].spec.processes for name, poll in polls.items() if poll.state == "running"]
        taken = sum(min(processes, slots) for processes in running)
        return Request(tuple(requested), through, slots, max(0, slots - taken))

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

    def _check_host(self) -> None:
        problems = self.host.check()
        if problems:
            raise HostError(f"host {self.host.spec.alias}: " + "; ".join(problems))
        self.host.prepare()

    def _freeze(self, plans: Mapping[str, ResolvedPlan], requested: Sequence[str]) -> None:
        """Record what each plan is before its first run; a changed plan becomes a new revision."""
        state = self.state()
        for plan_id in requested:
            plan = plans[plan_id]
            known = state.revision(plan_id)
            if known is not None and known.digest == plan.digest:
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

    def _release_finished(self) -> None:
        """A kill between recording a run and freeing its space on the host is made good here."""
        here = set(self.host.runs())
        for record in self.state().runs.values():
            # Without evidence nothing was pulled: then the name may be another campaign's run on a shared host.
            if record.finished and record.evidence and record.spec.name in here:
                self.host.release(record.spec.name)

    # --- obeying -----------------------------------------------------------------------------------------------------
    def _poll(self, state: State) -> dict[str, Poll]:
        """What our host says of the unfinished runs it may know. Another machine's `local` host is out of reach."""
        machine, known, polls = self.ledger.machine(), set(self.host.runs()), {}
        for record in state.unfinished():
            name = record.spec.name
            ours = self.host.spec.kind != "local" or record.machine == machine or name in known
            if record.spec.host == self.host.spec.alias and ours:
                polls[name] = self.host.poll(name)
        return polls

    def _do(self, action: Action, plans: Mapping[str, ResolvedPlan], state: State) -> None:
        if isinstance(action, Launch):
            self._launch(action, plans[action.plan], state)
        elif isinstance(action, Pull):
            self._collect(state.runs[action.run])
        elif isinstance(action, Lose):
            self._lose(state.runs[action.run])
        elif isinstance(action, Judge):
            self._judge(action, plans, state)

    def _launch(self, action: Launch, plan: ResolvedPlan, state: State) -> None:
        spec = state.runs[action.resume].spec if action.resume else self._spec(action, plan, state)
        if not action.resume:
            self.ledger.append(Type.RUN_INTENT, {"spec": asdict(spec), "plan": plan.id, "why": action.why})
        if not self.host.has_bundle(spec.bundle):
            self.host.put(spec.bundle, bundle.archive_of(self.campaign, spec.bundle))
        started = self.host.start(spec)
        if not started and not action.resume:
            # We have only just named it: whatever bears that name there is not ours, and its result would be another's.
            record = self.state().runs[spec.name]
            reason = f"host {spec.host} has a run of this name that this ledger does not know"
            self._record_end(record, Outcome.LOST, reason, None, None)
            return
        self.ledger.append(Type.RUN_STARTED, {"run": spec.name, "adopted": not started})
        self._seen.add(spec.name)
        self.observer.launched(spec, action.gate, adopted=not started)

    def _spec(self, action: Launch, plan: ResolvedPlan, state: State) -> RunSpec:
        base, gate = bases.load(self.campaign, plan.base), action.gate
        stem, end = f"{action.owner}.g{gate.number}.s{action.seed}", f"{action.bundle[:8]}-{gate.shape[:4]}"
        attempt = action.attempt
        while f"{stem}.a{attempt}.{end}" in state.runs:
            attempt += 1
        template = base.launch if gate.processes == 1 else base.launch_many
        settings = bundle.settings_of(self.campaign, action.bundle)
        env = {**settings, **gate.env, base.vars["seed"]: str(action.seed), base.vars["out"]: "{out}"}
        reads = base.variables(bundle.tree_of(self.campaign, action.bundle))
        heads = {machine: f"{head.count}@{head.hash[:12]}" for machine, head in self.ledger.heads().items()}
        return RunSpec(
            name=f"{stem}.a{attempt}.{end}",
            owner=action.owner,
            bundle=action.bundle,
            gate=gate.number,
            seed=action.seed,
            attempt=attempt,
            host=self.host.spec.alias,
            shape=gate.shape,
            processes=gate.processes,
            # {python} is filled on the host: the ledger is published and names no folder of anybody's machine
            argv=tuple(word.replace("{processes}", str(gate.processes)) for word in template),
            env=env,
            rules=_rules(gate),
            unset=tuple(sorted(set(reads) - set(env) - SYSTEM_VARIABLES)),
            witness=heads,
        )

    def _watch(self, spec: RunSpec) -> None:
        """Read what the run logged since the last look and tell the newest progress."""
        if spec.name not in self._seen:
            self._seen.add(spec.name)
            self.observer.launched(spec, Gate(spec.gate, "", Kind.THRESHOLD), adopted=True)
        offset = self._offsets.get(spec.name, 0)
        content = self.host.read(spec.name, rundir.LOG, offset)
        complete = content.rfind(b"\n") + 1
        self._offsets[spec.name] = offset + complete
        found = [
            item
            for line in content[:complete].decode(errors="replace").splitlines()
            if (item := baseline.progress(line))
        ]
        if found:
            self.observer.progressed(spec, found[-1])

    def _collect(self, record: RunRecord) -> None:
        """Pull, verify, translate, record, and only then free the space on the host."""
        name = record.spec.name
        poll = self.host.poll(name)
        ending = dict(poll.exit or {})
        folder = self.campaign.runs_folder / name
        self.host.pull(name, folder)
        outcome = Outcome(ending.get("outcome", "crashed"))
        result = self._read_result(record.spec)
        self._record_end(record, outcome, str(ending.get("reason", "")), result, ending.get("wall_s"))
        self.host.release(name)

    def _lose(self, record: RunRecord) -> None:
        name = record.spec.name
        folder = self.campaign.runs_folder / name
        if self.host.poll(name).state == "dead":
            self.host.pull_partial(name, folder)
        self._record_end(record, Outcome.LOST, f"its supervisor on {record.spec.host} is gone", None, None)
        if name in self.host.runs():
            self.host.release(name)

    def _read_result(self, spec: RunSpec) -> RunResult:
        base = bases.load(self.campaign, self._base_of(spec))
        ours = base.kind == "trainer"
        counted = runs.Counted(
            bundle.code_bytes_of(self.campaign, spec.bundle, base),
            base.artifact,
            self.campaign.rules.score_label if ours else base.score_label,
            bundle.trainer_code_sha256(self.campaign, spec.bundle) if ours else None,
        )
        return runs.read_result(self.campaign.runs_folder / spec.name, counted)

    def _base_of(self, spec: RunSpec) -> str:
        state = self.state()
        for revisions in state.revisions.values():
            for revision in revisions:
                if spec.bundle in {revision.bundle, revision.frozen["parent_bundle"], revision.frozen["base_bundle"]}:
                    return str(revision.frozen["base"])
        return self.campaign.base_name

    def _record_end(
        self, record: RunRecord, outcome: Outcome, reason: str, result: RunResult | None, wall_s: float | None
    ) -> None:
        usd = self.host.spec.usd_per_hour * (wall_s or 0.0) / 3600
        data = {
            "run": record.spec.name,
            "outcome": str(outcome),
            "reason": reason,
            "wall_s": wall_s,
            "usd": usd,
            "evidence": runs.evidence(self.campaign.runs_folder / record.spec.name),
            "result": asdict(result) if result else None,
        }
        self.ledger.append(Type.RUN_FINISHED, data)
        self.observer.finished(self.state().runs[record.spec.name])

    def _judge(self, action: Judge, plans: Mapping[str, ResolvedPlan], state: State) -> None:
        plan = plans[action.plan]
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
        )
        verdict = judging.judge(case)
        self.ledger.append(Type.VERDICT, verdict.as_data())
        self._sync(plans)
        self.observer.judged(plan, action.gate, verdict)

    def _sync(self, plans: Mapping[str, ResolvedPlan]) -> None:
        titles = {plan.id: plan.title for plan in plans.values()}
        notebook.sync(self.campaign.log_file, self.campaign.failures_file, self.state(), titles)


def _rules(gate: Gate) -> dict[str, Any]:
    """What the host enforces while the run goes on; a step-time rule only where it is meant for this many processes."""
    rules: dict[str, Any] = {"wallclock_s": gate.wallclock_s, "stall_s": gate.stall_s, "nan": True, "limits": []}
    for item in gate.require:
        here = gate.at_gpus in {None, gate.processes}
        if item.metric == "step_avg_ms" and gate.overriding and here and item.operator in {"<=", "<"}:
            rules["limits"].append({"metric": "step_avg_ms", "max": item.value, "after_step": RULE_AFTER_STEP})
    return rules
