"""What to do next: a pure function from what is known to a list of actions. The runner only obeys.

    request, plans, state (the ledger's fold), polls (what hosts say of unfinished runs) -> [Action, ...]

For every requested plan, dependencies first: find its first gate without a PASS; launch what that gate still lacks (the
plan's own seeds and the reference runs it is compared with), wait for and pull what is under way, judge when everything has
ended. Nothing beyond a gate that said no is ever launched.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from golfctl.domain.gate import Answer, Gate, Kind
from golfctl.domain.host import Poll
from golfctl.domain.plan import ResolvedPlan
from golfctl.domain.run import Outcome, RunRecord
from golfctl.domain.state import State
from golfctl.judge import latest

MAX_LOST = 2
"""A run that was lost is started again this many times; then a person has to look."""
LOST_AFTER_S = 600.0
"""For a host hosts.yaml does not know any more."""
MAX_BLAMED = 1
"""A run that blamed its machine in its own log is started again this many times: what a log says can be printed by the code."""


@dataclass(frozen=True)
class Room:
    """A host as far as launching is concerned: its slots, and how many of them are free now.

    A run takes one slot for each of its processes. GPUs can't be shared: a run that wants more than there are never fits;
    shares of a CPU can, and it takes them all.
    """

    alias: str
    slots: int = 1
    free: int = 1
    gpus: bool = False

    def cost(self, gate: Gate) -> int | None:
        """Slots a run of this gate takes here, None if it never fits."""
        return None if self.gpus and gate.processes > self.slots else min(gate.processes, self.slots)


@dataclass(frozen=True)
class Request:
    """What was asked for: these plans, in this order, no gate beyond `through`, on these hosts.

    fail_fast: once a gate says no, nothing new is launched. dear: plan id to why no fresh run of it is paid for any more.
    troubles: run name to why it can't be brought home.
    lost_after_s: alias to seconds, for every host there is.
    """

    plans: tuple[str, ...]
    through: int
    rooms: tuple[Room, ...] = (Room("local"),)
    fail_fast: bool = False
    troubles: Mapping[str, str] = field(default_factory=dict)
    lost_after_s: Mapping[str, float] = field(default_factory=dict)
    dear: Mapping[str, str] = field(default_factory=dict)

    def room(self, alias: str) -> Room | None:
        """The host of this name, None if it was not asked for."""
        return next((room for room in self.rooms if room.alias == alias), None)


@dataclass(frozen=True)
class Launch:
    """Start a run. resume: the intent is recorded already, the host knows nothing of it yet. `gate` is the asking plan's."""

    plan: str
    owner: str
    bundle: str
    gate: Gate
    seed: int
    attempt: int
    resume: str | None
    host: str
    why: str


@dataclass(frozen=True)
class Hold:
    """The plan waits for a free slot."""

    plan: str
    why: str


@dataclass(frozen=True)
class Wait:
    """The run goes on, or its host does not answer; there is nothing to do but watch."""

    run: str
    why: str


@dataclass(frozen=True)
class Pull:
    """The run ended on its host: bring its files, verify them, record it."""

    run: str
    why: str


@dataclass(frozen=True)
class Lose:
    """Whatever knew of the run on its host is gone: record it as lost, with what is left of it."""

    run: str
    why: str


@dataclass(frozen=True)
class Withdraw:
    """The run was intended and never started; it may start elsewhere, as another attempt."""

    run: str
    why: str


@dataclass(frozen=True)
class Judge:
    """All runs the gate needs have ended. others: runs here under seeds of former revisions."""

    plan: str
    gate: Gate
    own: tuple[str, ...]
    parent: tuple[str, ...]
    base: tuple[str, ...]
    others: tuple[str, ...]
    why: str


@dataclass(frozen=True)
class Stop:
    """Nothing more can be done for this plan now, and why. done: it reached what was asked for."""

    plan: str
    gate: int | None
    done: bool
    why: str


Action = Launch | Hold | Wait | Pull | Lose | Withdraw | Judge | Stop


@dataclass
class _Desk:
    """The actions gathered so far, with the runs already spoken of and the slots left."""

    request: Request
    free: dict[str, int]
    closed: str = ""  # why nothing new is launched
    refused: str = ""  # what the last launch that found no room needs
    actions: list[Action] = field(default_factory=list)
    named: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Need:
    """One side a gate needs runs of: whose, which bundle, which seeds."""

    owner: str
    bundle: str
    seeds: tuple[int, ...]
    reference: bool


def decide(
    request: Request, plans: Mapping[str, ResolvedPlan], state: State, polls: Mapping[str, Poll]
) -> list[Action]:
    """The next actions, in the order to do them. A plan without one waits for room that another run takes."""
    desk = _Desk(request, {room.alias: room.free for room in request.rooms})
    if request.fail_fast:
        desk.closed = _first_no(request, plans, state)
    for plan_id in request.plans:
        _advance(plans[plan_id], request.through, state, polls, desk)
    _orphans(state, polls, desk)
    return desk.actions


def _first_no(request: Request, plans: Mapping[str, ResolvedPlan], state: State) -> str:
    for plan_id in request.plans:
        gate = next_gate(plans[plan_id], state)
        verdict = state.verdict(plan_id, gate.number) if gate else None
        if verdict is not None:
            return f"not started: --fail-fast, and gate {verdict.gate} of {plan_id} said {verdict.answer}"
    return ""


def next_gate(plan: ResolvedPlan, state: State) -> Gate | None:
    """The first gate that neither passed nor was waived; None when all are behind."""
    for gate in plan.gates:
        verdict = state.verdict(plan.id, gate.number)
        passed = verdict is not None and verdict.answer is Answer.PASS
        if not passed and not state.waived(plan.id, gate.number):
            return gate
    return None


def needs(plan: ResolvedPlan, gate: Gate) -> list[Need]:
    """The runs a gate's verdict rests on: reference sides first, so that a plan's verdict comes as early as it can."""
    own = Need(plan.id, plan.bundle, plan.seeds_for(gate), reference=False)
    sides = {item.relative_to for item in gate.require if item.relative_to}
    if gate.kind is Kind.VERSUS:
        sides.add("parent")
    reference_seeds = plan.seeds[: gate.parent_seeds]
    found: dict[str, Need] = {}
    if "base" in sides:
        found[plan.base_bundle] = Need(plan.base, plan.base_bundle, reference_seeds, reference=True)
    if "parent" in sides:
        found[plan.parent_bundle] = Need(plan.parent, plan.parent_bundle, reference_seeds, reference=True)
    return [*found.values(), own]


def _advance(
    plan: ResolvedPlan,
    through: int,
    state: State,
    polls: Mapping[str, Poll],
    desk: _Desk,
) -> None:
    gate = next_gate(plan, state)
    if gate is None or gate.number > through:
        desk.actions.append(Stop(plan.id, gate.number if gate else None, True, _done_text(plan, gate, state)))
        return
    verdict = state.verdict(plan.id, gate.number)
    if verdict is not None:
        text = f"gate {gate.number} said {verdict.answer}: {verdict.reason}"
        desk.actions.append(Stop(plan.id, gate.number, False, text))
        return
    if problem := _parent_failed(plan, gate, state):
        desk.actions.append(Stop(plan.id, gate.number, False, problem))
        return
    if problem := _used_up(plan, gate, state):
        desk.actions.append(Stop(plan.id, gate.number, False, problem))
        return
    wanted = [(need, seed) for need in needs(plan, gate) for seed in need.seeds]
    # Obstacles first: a plan that can't go on must not take slots, or launches it shares with other plans, from them. What its
    # runs left is collected all the same, see _orphans.
    obstacles = (_obstacle(_attempts(need, gate, seed, state), need, polls, desk.request) for need, seed in wanted)
    if problem := next((text for text in obstacles if text), None):
        desk.actions.append(Stop(plan.id, gate.number, False, problem))
        return
    if all(room.cost(gate) is None for room in desk.request.rooms):
        most = max(room.slots for room in desk.request.rooms)
        text = (
            f"gate {gate.number} needs {gate.processes} GPUs, the hosts named have at most {most}; add one with --host"
        )
        desk.actions.append(Stop(plan.id, gate.number, False, text))
        return
    before = len(desk.actions)
    desk.refused = ""
    ended = [_advance_run(plan, gate, need, seed, state, polls, desk) for need, seed in wanted]
    if all(ended):
        desk.actions.append(_judgement(plan, gate, state))
    elif desk.refused and desk.refused == _closed(plan.id, desk) and len(desk.actions) == before:
        desk.actions.append(Stop(plan.id, gate.number, False, desk.refused))
    elif desk.refused:
        desk.actions.append(Hold(plan.id, desk.refused))


def _closed(plan: str, desk: _Desk) -> str:
    """Why nothing fresh is launched for a plan; "" where it may be."""
    return desk.closed or desk.request.dear.get(plan, "")


def _used_up(plan: ResolvedPlan, gate: Gate, state: State) -> str | None:
    """Runs that a verdict under other terms rests on can't be judged again: that would be a choice among verdicts.

    The same terms and seeds give the same verdict, so a revision that changed something else keeps what it earned.
    """
    used = state.judged_elsewhere(plan.id, gate.number)
    seeds = plan.seeds_for(gate)
    for run in state.runs_of(plan.bundle, gate.shape, gate.number):
        verdict = used.get(run.spec.name)
        if verdict is None or run.spec.seed not in seeds:
            continue
        former = next(item for item in state.revisions[verdict.plan] if item.number == verdict.revision)
        same_seeds = tuple(former.frozen["seeds"]) == plan.seeds
        terms = next((item for item in former.frozen["gates"] if item["number"] == gate.number), None)
        if verdict.plan != plan.id or not same_seeds or terms != gate_terms(gate):
            who = f"revision {verdict.revision} of {verdict.plan}"
            return (
                f"{run.spec.name} was judged for {who} ({verdict.answer}); under changed terms, seeds or names it can't be "
                "judged again: declare seeds that no verdict has used"
            )
    return None


def gate_terms(gate: Gate) -> dict[str, object]:
    """A gate as the ledger keeps it: everything its verdict depends on."""
    data = asdict(gate)
    del data["device"]  # where it runs, not what is asked
    data["kind"] = str(gate.kind)
    data["require"] = [str(item) for item in gate.require]
    return data


def _orphans(state: State, polls: Mapping[str, Poll], desk: _Desk) -> None:
    """Runs nobody asked about: what ended is collected; what runs is waited for only if it takes the room we need."""
    for name, poll in polls.items():
        if name in desk.named or name in desk.request.troubles:  # it was tried often enough
            continue
        if poll.state == "exited":
            desk.actions.append(Pull(name, f"{name}: ended; no plan asks for it any more"))
        elif poll.state == "dead" or (poll.state == "absent" and state.runs[name].started):
            desk.actions.append(Lose(name, "nothing on its host knows of it any more; no plan asks for it either"))
        elif poll.state == "running" and any(isinstance(action, Hold) for action in desk.actions):
            desk.actions.append(Wait(name, f"{name}: takes the slots that are needed"))


def _attempts(need: Need, gate: Gate, seed: int, state: State) -> list[RunRecord]:
    """Every attempt at one run a gate needs, oldest first.

    A reference run serves every gate of its shape; a plan's own runs count for the gate they were started for.
    """
    found = state.runs_of(need.bundle, gate.shape, None if need.reference else gate.number)
    return sorted((run for run in found if run.spec.seed == seed), key=lambda run: run.spec.attempt)


def _obstacle(attempts: Sequence[RunRecord], need: Need, polls: Mapping[str, Poll], request: Request) -> str | None:
    """Why a plan can't go on for the sake of this run; None if it can."""
    if not attempts:
        return None
    run = attempts[-1]
    lost = sum(item.host_failed for item in attempts)
    blamed = sum(item.fault == "host" for item in attempts)
    if run.to_repeat:
        text = f"{run.spec.name}: its host failed it ({run.reason}), {lost} times in all; {_retry_hint(run)}"
        return text if not run.excused and (lost > MAX_LOST or blamed > MAX_BLAMED) else None
    if not run.finished and run.spec.name in polls and polls[run.spec.name].state == "broken":
        return f"{run.spec.name} can't be examined on {run.spec.host}: {polls[run.spec.name].why}; look at it there"
    if run.spec.name in request.troubles:
        return f"{run.spec.name} has ended and can't be brought home: {request.troubles[run.spec.name]}"
    if not run.finished and run.spec.name not in polls:
        return f"{run.spec.name} is under way on host {run.spec.host} of machine {run.machine}, out of reach from here"
    if not run.finished or not need.reference:
        return None
    if run.outcome is not Outcome.COMPLETED:
        return f"the reference run {run.spec.name} {run.outcome}: {run.reason}; {_retry_hint(run)}"
    if run.result is None or run.result.score is None:
        return f"the reference run {run.spec.name} has no score; its base or plan needs a look"
    return None


def _advance_run(
    plan: ResolvedPlan, gate: Gate, need: Need, seed: int, state: State, polls: Mapping[str, Poll], desk: _Desk
) -> bool:
    """One run a gate needs, nothing standing in its way: True if it ended, False if an action was named for it."""
    attempts = _attempts(need, gate, seed, state)
    what = f"{need.owner}, gate {gate.number}, seed {seed}"
    avoid = {item.spec.host for item in attempts if item.host_failed}
    if not attempts:
        _launch(desk, Launch(plan.id, need.owner, need.bundle, gate, seed, 1, None, "", f"{what}: not run yet"), need)
        return False
    run = attempts[-1]
    if run.to_repeat:
        word = "set aside" if run.excused else f"failed by {run.spec.host}"
        why = f"{what}: attempt {run.spec.attempt} was {word}"
        launch = Launch(plan.id, need.owner, need.bundle, gate, seed, run.spec.attempt + 1, None, "", why)
        _launch(desk, launch, need, avoid)
        return False
    if run.finished:
        return True
    _attend(desk, plan, gate, need, run, polls[run.spec.name], what)
    return False


def _retry_hint(run: RunRecord) -> str:
    return f'look at it, then `golfctl runs retry {run.spec.name} --reason "..."`'


def _launch(desk: _Desk, launch: Launch, need: Need, avoid: Collection[str] = ()) -> None:
    """Put a launch on the first host with room, one that failed this run before only if there is no other."""
    gate = launch.gate
    key = launch.resume or f"{need.bundle} {gate.shape} {'' if need.reference else gate.number} {launch.seed}"
    if key in desk.named:
        return
    # What was intended already has been paid for: it counts as under way. What is not launched is left to other plans.
    if closed := desk.closed if launch.resume else _closed(launch.plan, desk):
        desk.refused = closed
        return
    desk.named.add(key)
    fits = [room for room in desk.request.rooms if room.cost(gate) is not None]
    if launch.host:
        fits = [room for room in fits if room.alias == launch.host]
    fits = [room for room in fits if room.alias not in avoid] or fits
    for room in fits:
        cost = room.cost(gate) or 0
        if cost <= desk.free[room.alias]:
            desk.free[room.alias] -= cost
            desk.actions.append(replace(launch, host=room.alias))
            return
    desk.refused = f"{launch.why}; waits for {gate.processes} free on {' or '.join(room.alias for room in fits)}"
    for room in fits:
        desk.free[room.alias] = 0  # nothing smaller may slip past a run that waits for room, or it would wait for ever


def _attend(desk: _Desk, plan: ResolvedPlan, gate: Gate, need: Need, run: RunRecord, poll: Poll, what: str) -> None:
    """An unfinished run: what its host says decides."""
    name, host = run.spec.name, run.spec.host
    room = desk.request.room(host)
    if poll.state == "absent" and not run.started and room is not None and not _better_elsewhere(desk, gate, room):
        launch = Launch(plan.id, need.owner, need.bundle, gate, run.spec.seed, run.spec.attempt, name, host, "")
        _launch(desk, replace(launch, why=f"{what}: intended, not started"), need)
        return
    if name in desk.named:
        return
    desk.named.add(name)
    if poll.state == "unreachable":
        desk.actions.append(_unreachable(run, poll, desk.request.lost_after_s.get(host, LOST_AFTER_S)))
        return
    actions: dict[str, Action] = {
        "running": Wait(name, f"{what}: running on {host}"),
        "exited": Pull(name, f"{what}: ended on {host}"),
        "dead": Lose(name, f"nothing on {host} knows of it any more; its supervisor is gone"),
        "absent": Lose(name, f"its folder on {host} is gone")
        if run.started
        else Withdraw(name, f"it was never started on {host}"),
    }
    desk.actions.append(actions[poll.state])


def _better_elsewhere(desk: _Desk, gate: Gate, room: Room) -> bool:
    """Whether a run that was not started yet need not wait for this host: another one has room for it now."""
    fits = {item.alias: cost for item in desk.request.rooms if (cost := item.cost(gate)) is not None}
    here = room.alias in fits and fits[room.alias] <= desk.free[room.alias]
    return not here and any(cost <= desk.free[alias] for alias, cost in fits.items())


def _unreachable(run: RunRecord, poll: Poll, lost_after_s: float) -> Action:
    """A lost connection is never a failed run; only a host that is gone for long is."""
    if poll.silent_s < lost_after_s:
        return Wait(run.spec.name, f"{run.spec.host} does not answer ({poll.why}); the run goes on without us")
    return Lose(run.spec.name, f"{run.spec.host} has not answered for {poll.silent_s:.0f} s")  # recorded: no address


def _judgement(plan: ResolvedPlan, gate: Gate, state: State) -> Judge:
    wanted = set(plan.seeds_for(gate))
    mine = state.runs_of(plan.bundle, gate.shape, gate.number)
    sides = (
        [run for run in mine if run.spec.seed in wanted],
        state.runs_of(plan.parent_bundle, gate.shape),
        state.runs_of(plan.base_bundle, gate.shape),
        # Seeds of former revisions; a run that only served as another plan's reference is not one of them.
        [
            run
            for run in mine
            if run.spec.seed not in wanted and run.spec.name in state.judged_elsewhere(plan.id, gate.number)
        ],
    )
    own, parent, base, others = (tuple(run.spec.name for run in side if run.finished) for side in sides)
    seeds = ", ".join(str(run.spec.seed) for run in latest(sides[0]))
    return Judge(plan.id, gate, own, parent, base, others, f"gate {gate.number} of {plan.id}: seed {seeds} ended")


def _parent_failed(plan: ResolvedPlan, gate: Gate, state: State) -> str | None:
    """A stack does not pass a gate that its foundation did not pass, unless that was waived."""
    for dependency in plan.stack[:-1]:
        for number in range(1, gate.number + 1):
            verdict = state.verdict(dependency, number)
            if verdict and verdict.answer is not Answer.PASS and not state.waived(dependency, number):
                return f"it depends on {dependency}, to which gate {number} said {verdict.answer}: {verdict.reason}"
    return None


def _done_text(plan: ResolvedPlan, gate: Gate | None, state: State) -> str:
    waived = [str(item.number) for item in plan.gates if state.waived(plan.id, item.number)]
    suffix = f" (waived: {', '.join(waived)})" if waived else ""
    return ("all gates passed" if gate is None else f"gate {gate.number} is next and was not asked for") + suffix


def ready_for_final(plans: Sequence[ResolvedPlan], state: State) -> list[str]:
    """Plans whose next gate is their last one: what `golfctl seeds` may run."""
    found = []
    for plan in plans:
        gate = next_gate(plan, state)
        if gate is not None and gate.number == plan.gates[-1].number and not state.verdict(plan.id, gate.number):
            found.append(plan.id)
    return found
