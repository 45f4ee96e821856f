"""Everything a report shows, as frozen data: what the terminal, Markdown, the HTML page and the pictures are made from. Pure.

`Summary` (report/summary.py) is the part that the ledger alone says; `Report` adds plan files, prices, the field's records and
logs. report/build.py fills it; nothing that draws reads a file. Scores are in bits per byte, lower is better; `delta` is measured
minus parent (negative is better); texts are as people and hosts wrote them: who shows them escapes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from golfctl.budget import Cost, Gain
from golfctl.domain.run import RunRecord
from golfctl.report.summary import PlanRow, Summary
from golfctl.store.notebook import Failure

Span = tuple[float, float]


@dataclass(frozen=True)
class GateSpec:
    """What a gate asks. checks: its requirements as they are written, `score <= base - 0.05`. usd: dollars of one run."""

    number: int
    name: str
    kind: str
    processes: int
    seeds: int
    checks: tuple[str, ...]
    overriding: bool
    alpha: float
    usd: float


@dataclass(frozen=True)
class Station:
    """A plan at a gate. state: `passed`, `failed`, `inconclusive`, `waived`, `running`, `waiting` (it is next) or `ahead`.

    why: the verdict's reason (with a waiver's), or what is under way. usd: of the plan's own runs there, all revisions.
    """

    gate: int
    name: str
    state: str
    why: str
    runs: int
    usd: float


@dataclass(frozen=True)
class PlanReport:
    """A plan. row: its verdicts; stations: one for each gate, in order.

    standing: `passed` (all gates), `active`, `stopped`, `retired` or `not run`.
    expect: what the plan file expects, e.g. score, bytes, step_avg_ms (low, high). measured: what it gained, None without scores.
    diffs: `NAME = value` or the path of a patch. stack: plans whose diffs its bundle holds, itself last.
    bundle, parent_bundle, base_bundle: sha256 hex, "" before the first run. runs: names of all its own runs, any revision.
    target: bpb its last threshold gate asks for, None where it can't be told. again: shell lines that repeat its newest run.
    filed: its file is in plans/ and has no error; else hypothesis, expect, risk, tags and diffs are not empty but unknown.
    """

    row: PlanRow
    standing: str
    base: str
    hypothesis: str
    expect: Mapping[str, Span]
    measured: Gain | None
    risk: str
    tags: tuple[str, ...]
    depends_on: tuple[str, ...]
    stack: tuple[str, ...]
    diffs: tuple[str, ...]
    seeds: tuple[int, ...]
    gates: tuple[GateSpec, ...]
    stations: tuple[Station, ...]
    runs: tuple[str, ...]
    bundle: str
    parent_bundle: str
    base_bundle: str
    target: float | None
    usd: float
    again: tuple[str, ...]
    filed: bool = True

    @property
    def id(self) -> str:
        """The plan's id."""
        return self.row.id

    @property
    def delta(self) -> float | None:
        """Measured change of the score against the parent, negative is better."""
        return None if self.measured is None else -self.measured.bpb

    @property
    def expected(self) -> Span | None:
        """Expected change of the score, (low, high)."""
        return self.expect.get("score")


@dataclass(frozen=True)
class Edge:
    """Between two plans. kind: `depends` (source builds on target) or `conflict` (declared or found; text says what)."""

    kind: str
    source: str
    target: str
    text: str


@dataclass(frozen=True)
class Layer:
    """One layer of the technique stack. kind: `record`, `base` or `plan`. below: name of the layer it lies on, "" for the first.

    score: where it stands. delta: against the layer below. low, high: where it is expected to stand, while nothing is measured.
    key: of its full record (see `Entry.key`; plans and bases: `plan:ID`, `base:NAME`). text: what it adds.
    """

    name: str
    kind: str
    below: str
    score: float | None
    delta: float | None
    low: float | None
    high: float | None
    key: str
    text: str


@dataclass(frozen=True)
class Entry:
    """A record of the field's leaderboard. mean, sd, n: of its logs; claimed: what its author says. wrong: why it breaks a limit.

    frontier: it moved the frontier. scheme: quantisation and codec, as far as it names them. size: bytes of code and model.
    """

    folder: str
    track: str
    date: str
    title: str
    authors: tuple[str, ...]
    mean: float | None
    sd: float | None
    n: int
    claimed: float | None
    size: int | None
    scheme: str
    tags: tuple[str, ...]
    issues: tuple[str, ...]
    wrong: tuple[str, ...]
    frontier: bool

    @property
    def key(self) -> str:
        """Names its full record."""
        return f"entry:{self.track}/{self.folder}"

    @property
    def score(self) -> float | None:
        """What its logs say, else what is claimed."""
        return self.mean if self.mean is not None else self.claimed


@dataclass(frozen=True)
class Own:
    """A result of this campaign as a point: the mean of a plan's (or base's) runs at its highest gate with scores.

    when: UTC of the last of these launches. low, high: 95 % confidence interval, None with one seed.
    """

    name: str
    key: str
    gate: int
    when: str
    score: float
    low: float | None
    high: float | None
    n: int
    size: int | None
    scheme: str


@dataclass(frozen=True)
class Trace:
    """What a run's log says, thinned to what a picture shows. train: (step, ms, loss); val: (step, ms, bpb); ms nan: not said.

    step_ms: quantiles of the step times between two lines of the log, in order, () where it says no times.
    """

    train: tuple[tuple[float, float, float], ...]
    val: tuple[tuple[float, float, float], ...]
    step_ms: tuple[float, ...]


@dataclass(frozen=True)
class Report:
    """One campaign, or one plan of it. cap_bytes: of the rules. target: bpb the campaign aims at, None where nobody says.

    bar: score a new record needs, by reading of the margin ({} without a leaderboard). money: `budget.cost`.
    gates: the campaign's; a plan's own differ where its file says so. own: plans and bases with scores.
    traces: run name to curves, only where they were asked for. unusable: plans whose file has an error, or needs one that has.
    """

    summary: Summary
    score: str
    cap_bytes: int
    margin_nats: float
    target: float | None
    bar: Mapping[str, float]
    gates: tuple[GateSpec, ...]
    plans: tuple[PlanReport, ...]
    edges: tuple[Edge, ...]
    layers: tuple[Layer, ...]
    entries: tuple[Entry, ...]
    own: tuple[Own, ...]
    runs: Mapping[str, RunRecord]
    money: Cost
    failures: tuple[Failure, ...]
    written: str
    traces: Mapping[str, Trace] = field(default_factory=dict)
    unusable: tuple[str, ...] = ()

    @property
    def frontier(self) -> Entry | None:
        """Where the field stands."""
        return next((entry for entry in reversed(self.entries) if entry.frontier), None)

    def plan(self, name: str) -> PlanReport | None:
        """The plan with this id."""
        return next((plan for plan in self.plans if plan.id == name), None)


def compared(plan: PlanReport, runs: Mapping[str, RunRecord]) -> list[RunRecord]:
    """The runs that show a plan: at the furthest gate where one has ended, those it is compared with, then its own."""
    own = [runs[name] for name in plan.runs if name in runs]
    ended = [run for run in own if run.spec.bundle == plan.bundle and run.finished]
    furthest = max((run.spec.gate for run in ended), default=0)
    judged = next((gate for gate in plan.row.gates if gate.number == furthest), None)
    return [*(judged.reference_runs if judged else ()), *(run for run in ended if run.spec.gate == furthest)]
