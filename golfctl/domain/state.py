"""The state of a campaign: the fold of its ledger. Pure: events in, state out.

No decision may depend on the order of events of different machines; within one machine order is the chain's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any

from golfctl.domain import verdict as verdicts
from golfctl.domain.event import Event, Made, Type, made
from golfctl.domain.plan import ResolvedPlan
from golfctl.domain.run import Outcome, RunRecord, RunResult, RunSpec
from golfctl.domain.verdict import Verdict
from golfctl.errors import LedgerError


@dataclass(frozen=True)
class Revision:
    """A plan as it was frozen before its first run: number counts from 1."""

    plan: str
    number: int
    digest: str
    bundle: str
    frozen: Mapping[str, Any]


@dataclass
class State:
    """Everything known about a campaign, derived from the ledger alone."""

    runs: dict[str, RunRecord] = field(default_factory=dict)
    verdicts: dict[tuple[str, int, int], Verdict] = field(default_factory=dict)
    verdict_events: dict[tuple[str, int, int], Event] = field(default_factory=dict)
    waivers: dict[tuple[str, int, int], str] = field(default_factory=dict)
    revisions: dict[str, list[Revision]] = field(default_factory=dict)
    retired: dict[str, Event] = field(default_factory=dict)
    notes: list[Event] = field(default_factory=list)
    whys: list[Event] = field(default_factory=list)
    repeats_waived: dict[tuple[str, str], str] = field(default_factory=dict)  # plan and failure id -> reason
    events: int = 0

    def seen_as(self, plans: Mapping[str, ResolvedPlan]) -> State:
        """This state as it will be once these plans are frozen: one that was edited since its last run is a new revision.

        Without it, questions about a plan would be answered from verdicts on its former form.
        """
        revisions = {plan: list(known) for plan, known in self.revisions.items()}
        for plan in plans.values():
            known = revisions.setdefault(plan.id, [])
            if known and (known[-1].digest != plan.digest or self.forked(plan.id)):
                known.append(Revision(plan.id, known[-1].number + 1, plan.digest, plan.bundle, known[-1].frozen))
        return replace(self, revisions=revisions)

    def judged_elsewhere(self, plan: str, gate: int) -> dict[str, Verdict]:
        """Run name to the verdict that used it as its own, for verdicts on other plans or other revisions of this one."""
        revision = self.revision(plan)
        current = (plan, revision.number if revision else 0)
        return {
            name: verdict
            for (other, number, at), verdict in self.verdicts.items()
            if at == gate and (other, number) != current
            for name in verdict.runs
        }

    def revision(self, plan: str) -> Revision | None:
        """The newest revision of a plan, None if it never ran."""
        return self.revisions[plan][-1] if self.revisions.get(plan) else None

    def forked(self, plan: str) -> bool:
        """Whether two machines that had not heard of each other froze the plan's newest revision in two forms.

        Its number then names neither: no verdict and no waiver under it holds for the plan, which needs a revision of its own.
        """
        revision = self.revision(plan)
        return revision is not None and any(
            item.number == revision.number and item.digest != revision.digest for item in self.revisions[plan]
        )

    def verdict(self, plan: str, gate: int) -> Verdict | None:
        """What the gate said about the plan's newest revision, None if nothing yet."""
        revision = self.revision(plan)
        return self.verdicts.get((plan, revision.number, gate)) if revision and not self.forked(plan) else None

    def waived(self, plan: str, gate: int) -> str | None:
        """The reason of a waiver for the newest revision, None without one."""
        revision = self.revision(plan)
        return self.waivers.get((plan, revision.number, gate)) if revision and not self.forked(plan) else None

    def runs_of(self, bundle: str, shape: str, gate: int | None = None) -> list[RunRecord]:
        """Every run of a bundle under one shape (of one gate, if given), in order of launch."""
        return [
            run
            for run in self.runs.values()
            if run.spec.bundle == bundle and run.spec.shape == shape and (gate is None or run.spec.gate == gate)
        ]

    def unfinished(self) -> list[RunRecord]:
        """Runs whose end is not recorded."""
        return [run for run in self.runs.values() if not run.finished]

    @property
    def spent_usd(self) -> float:
        """Dollars of all finished runs."""
        return sum(run.usd for run in self.runs.values())


def fold(events: Iterable[Event], state: State | None = None) -> State:
    """The state after these events. state: what earlier events came to; it is gone on from, and stays as it is.

    Raises LedgerError if an event speaks of a run that nothing launched.
    """
    state = _copy(state) if state else State()
    known = list(events)
    state.events += len(known)
    # What is spoken of comes first, whatever the clocks of different machines say.
    for handlers in (_DECLARATIONS, _HANDLERS):
        for event in known:
            if handler := handlers.get(event.type):
                handler(state, event)
    return state


def _defaults(kind: Any) -> dict[str, Any]:
    """What the fields of a dataclass are that nobody gives; equal defaults are one object."""
    given = {item.name: item.default for item in fields(kind) if item.default is not MISSING}
    return given | {item.name: item.default_factory() for item in fields(kind) if item.default_factory is not MISSING}


_DEFAULTS: dict[type, dict[str, Any]] = {kind: _defaults(kind) for kind in (RunSpec, RunResult, RunRecord)}
_NAMES: dict[type, set[str]] = {kind: {item.name for item in fields(kind)} for kind in (RunSpec, RunResult)}


def _copy(state: State) -> State:
    copied = replace(state)
    for name, value in vars(state).items():
        if isinstance(value, dict | list):
            setattr(copied, name, value.copy())
    copied.revisions = {plan: list(known) for plan, known in state.revisions.items()}
    return copied


def spec_from_data(data: Mapping[str, Any]) -> RunSpec:
    """The run specification in an intent's data."""
    return _from_data(RunSpec, data, ("argv", "unset"))


def result_from_data(data: Mapping[str, Any] | None) -> RunResult | None:
    """The result in a finish event's data."""
    return None if data is None else _from_data(RunResult, data, ("warnings",))


def _from_data(kind: type[Made], data: Mapping[str, Any], tuples: tuple[str, ...]) -> Made:
    values = {**_DEFAULTS[kind], **data}
    for key in tuples:
        values[key] = tuple(values[key])
    return made(kind, values) if values.keys() == _NAMES[kind] else kind(**values)  # it says what is wrong


def _intent(state: State, event: Event) -> None:
    spec = spec_from_data(event.data["spec"])
    if spec.name not in state.runs:  # a repeated intent continues the same run
        values = {"spec": spec, "machine": event.machine, "launched_at": event.time}
        state.runs[spec.name] = made(RunRecord, {**_DEFAULTS[RunRecord], **values})


def _spoken_of(state: State, event: Event) -> RunRecord:
    """The run of an event. Raises LedgerError where no file has its launch, which another machine may have recorded."""
    try:
        return state.runs[event.data["run"]]
    except KeyError:
        raise LedgerError(
            f"{event.machine}.jsonl:{event.seq}: speaks of run {event.data.get('run')}, whose launch is in no file here: "
            "the file of another machine is missing"
        ) from None


def _started(state: State, event: Event) -> None:
    run = _spoken_of(state, event)
    state.runs[run.spec.name] = _with(run, started=True)


def _finished(state: State, event: Event) -> None:
    data = event.data
    before = _spoken_of(state, event)
    ending = _with(
        before,
        started=not data.get("withdrawn", False),
        withdrawn=data.get("withdrawn", False),
        evidence=data.get("evidence", ""),
        outcome=Outcome(data["outcome"]),
        reason=data["reason"],
        result=result_from_data(data.get("result")),
        wall_s=data.get("wall_s"),
        usd=data.get("usd", 0.0),
        fault=data.get("fault", ""),
        saved_usd=data.get("saved_usd", 0.0),
    )
    # Two machines may have recorded an end; which one counts must not depend on their clocks.
    state.runs[data["run"]] = max(before, ending, key=_weight) if before.finished else ending


def _with(run: RunRecord, **changes: Any) -> RunRecord:
    """`dataclasses.replace` in a fifth of its time: a ledger may hold 100,000 runs."""
    return made(RunRecord, {**vars(run), **changes})


def _weight(run: RunRecord) -> tuple[bool, bool, bool, str]:
    """What an ending is worth against another of the same run: a score that was seen first, evidence before its lack."""
    return run.scored, bool(run.evidence), run.outcome is not Outcome.LOST, run.evidence


def _frozen(state: State, event: Event) -> None:
    data = event.data
    revision = Revision(data["plan"], data["revision"], data["digest"], data["bundle"], data)
    known = state.revisions.setdefault(revision.plan, [])
    known.append(revision)
    # Two machines may have frozen one number in two forms; which is the newest must not depend on their clocks.
    known.sort(key=lambda item: (item.number, item.digest))


def _verdict(state: State, event: Event) -> None:
    verdict = verdicts.from_data(event.data)
    key = (verdict.plan, verdict.revision, verdict.gate)
    # The first word stands: a second verdict on the same revision and gate would be a second look.
    if key not in state.verdicts:
        state.verdicts[key] = verdict
        state.verdict_events[key] = event


def _retry(state: State, event: Event) -> None:
    run = _spoken_of(state, event)
    state.runs[run.spec.name] = replace(run, excused=event.data["reason"])


def _waiver(state: State, event: Event) -> None:
    data = event.data
    state.waivers[(data["plan"], data["revision"], data["gate"])] = data["reason"]


def _retired(state: State, event: Event) -> None:
    # Of one machine the last word counts, of two machines that of the first by name: no decision hangs on their clocks.
    known = state.retired.get(event.data["plan"])
    if known is None or (event.machine, -event.seq) < (known.machine, -known.seq):
        state.retired[event.data["plan"]] = event


def _repeat_waived(state: State, event: Event) -> None:
    data = event.data
    state.repeats_waived.update({(data["plan"], failure): data["reason"] for failure in data["failures"]})


_DECLARATIONS: dict[Type, Callable[[State, Event], None]] = {Type.RUN_INTENT: _intent, Type.PLAN_FROZEN: _frozen}
_HANDLERS: dict[Type, Callable[[State, Event], None]] = {
    Type.RUN_STARTED: _started,
    Type.RUN_FINISHED: _finished,
    Type.VERDICT: _verdict,
    Type.WAIVER: _waiver,
    Type.RUN_EXCUSED: _retry,
    Type.PLAN_RETIRED: _retired,
    Type.FAILURE_NOTE: lambda state, event: state.notes.append(event),
    Type.FAILURE_WHY: lambda state, event: state.whys.append(event),
    Type.REPEAT_WAIVED: _repeat_waived,
}
