"""One data structure behind every report: the state of the campaign, arranged for reading. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from golfctl import stats
from golfctl.domain.gate import Answer
from golfctl.domain.run import Outcome, RunRecord
from golfctl.domain.state import State
from golfctl.domain.verdict import Verdict
from golfctl.judge import latest


@dataclass(frozen=True)
class Family:
    """The plans of one base that the final gate tested. p: of one of them alone; holm: adjusted for them all."""

    base: str
    plans: int
    p: float
    holm: float


@dataclass(frozen=True)
class GateRow:
    """A gate of one revision of a plan, as judged. family: at the final gate, where more plans than one were tested."""

    number: int
    name: str
    verdict: Verdict
    waived: str | None
    runs: tuple[RunRecord, ...]
    reference_runs: tuple[RunRecord, ...]
    family: Family | None = None


@dataclass(frozen=True)
class PlanRow:
    """A plan: its newest revision's gates in order, older revisions counted, and what it comes to."""

    id: str
    title: str
    parent: str
    revision: int
    gates: tuple[GateRow, ...]
    older: tuple[GateRow, ...]
    status: str


@dataclass(frozen=True)
class Side:
    """Runs of one owner under one gate's shape: the scores of completed seeds, and how many were started."""

    owner: str
    gate: int
    processes: int
    scores: tuple[float, ...]
    started: int

    @property
    def text(self) -> str:
        """`mean 2.402 (sd 0.014, n 3 of 3)`."""
        if not self.scores:
            return f"no score (n 0 of {self.started})"
        sample = stats.summarise(self.scores)
        sd = "" if sample.sd is None else f"sd {sample.sd:.4f}, "
        return f"mean {sample.mean:.4f} ({sd}n {sample.n} of {self.started})"


@dataclass(frozen=True)
class Summary:
    """Everything a report shows. references: what compressors and n-gram models reach on the same bytes, in bpb."""

    campaign: str
    base: str
    score: str
    plans: tuple[PlanRow, ...]
    bases: tuple[Side, ...]
    references: Mapping[str, float]
    runs: int
    unfinished: tuple[str, ...]
    outcomes: Mapping[str, int]
    usd: float
    wall_s: float
    events: int
    heads: Mapping[str, str]
    without_why: tuple[str, ...] = ()
    bytes_total: Mapping[str, int] = field(default_factory=dict)


def summarise(
    campaign: str,
    base: str,
    score: str,
    state: State,
    titles: Mapping[str, str],
    heads: Mapping[str, str],
    without_why: Sequence[str],
    only: str | None = None,
) -> Summary:
    """Arrange a state. titles: every plan file's id and title, in the order to show; only: one plan."""
    ids = [only] if only else list(dict.fromkeys([*titles, *state.revisions]))
    known = families(state)
    plans = tuple(_plan_row(plan, titles.get(plan, ""), state, known) for plan in ids)
    outcomes: dict[str, int] = {}
    for run in state.runs.values():
        outcomes[run.ending] = outcomes.get(run.ending, 0) + 1
    return Summary(
        campaign=campaign,
        base=base,
        score=score,
        plans=plans,
        bases=tuple(_base_sides(base, state)),
        references=_references(state),
        runs=len(state.runs),
        unfinished=tuple(run.spec.name for run in state.unfinished()),
        outcomes=outcomes,
        usd=state.spent_usd,
        wall_s=sum(run.wall_s or 0.0 for run in state.runs.values()),
        events=state.events,
        heads=heads,
        without_why=tuple(without_why),
    )


def families(state: State) -> dict[tuple[str, int, int], Family]:
    """By plan, revision and gate: the newest test of every plan at its last gate, adjusted by Holm among those of its base.

    Two tests of one verdict (against a number and against the parent) must both show it: the larger p is the plan's.
    """
    found: dict[str, dict[tuple[str, int, int], float]] = {}
    for plan, revisions in state.revisions.items():
        judged = [
            (key, max(tests))
            for item in revisions
            if (verdict := state.verdicts.get(key := (plan, item.number, item.frozen["gates"][-1]["number"])))
            and (tests := [verdict.numbers[name]["p"] for name in ("test", "versus") if name in verdict.numbers])
        ]
        if judged:
            key, p = judged[-1]
            found.setdefault(str(revisions[-1].frozen["base"]), {})[key] = p
    return {
        key: Family(base, len(tests), tests[key], adjusted)
        for base, tests in found.items()
        if len(tests) > 1
        for key, adjusted in zip(tests, stats.holm(list(tests.values())), strict=True)
    }


def _plan_row(plan: str, title: str, state: State, known: Mapping[tuple[str, int, int], Family]) -> PlanRow:
    revision = state.revision(plan)
    # A title comes from a plan file: where there is one, the plan is in use.
    gone = state.retired.get(plan) if not title else None
    if revision is None:
        return PlanRow(plan, title, "", 0, (), (), "not run yet")
    rows = {
        key: _gate_row(key, verdict, state, known.get(key)) for key, verdict in state.verdicts.items() if key[0] == plan
    }
    current = [row for key, row in sorted(rows.items()) if key[1] == revision.number]
    older = [row for key, row in sorted(rows.items()) if key[1] != revision.number]
    frozen = revision.frozen
    title = title or str(frozen.get("title", ""))
    total = len(frozen["gates"])
    status = f"retired: {gone.data['reason']}" if gone else _status(current, total)
    return PlanRow(plan, title, frozen["parent"], revision.number, tuple(current), tuple(older), status)


def _status(rows: Sequence[GateRow], total: int) -> str:
    if not rows:
        return "started, no verdict yet"
    last = rows[-1]
    waived = [str(row.number) for row in rows if row.waived]
    if waived and last.number == total and (last.verdict.answer is Answer.PASS or last.waived):
        return f"through all {total} gates, waived: {', '.join(waived)}"
    if last.verdict.answer is Answer.PASS and last.number == total:
        return f"PASSED all {total} gates"
    if last.verdict.answer is Answer.PASS:
        return f"passed gate {last.number} of {total}"
    if last.waived:
        return f"gate {last.number} {last.verdict.answer}, waived"
    return f"stopped by gate {last.number}: {last.verdict.answer}"


def _gate_row(key: tuple[str, int, int], verdict: Verdict, state: State, family: Family | None) -> GateRow:
    plan, revision, number = key
    frozen = next(item.frozen for item in state.revisions[plan] if item.number == revision)
    name = next((gate["name"] for gate in frozen["gates"] if gate["number"] == number), "")
    runs = [state.runs[name] for name in verdict.runs if name in state.runs]
    reference = [state.runs[name] for name in verdict.reference_runs if name in state.runs]
    return GateRow(number, name, verdict, state.waivers.get(key), tuple(runs), tuple(reference), family)


def _base_sides(base: str, state: State) -> list[Side]:
    groups: dict[tuple[int, int, str], list[RunRecord]] = {}
    for run in state.runs.values():
        if run.spec.owner == base:
            groups.setdefault((run.spec.gate, run.spec.processes, run.spec.shape), []).append(run)
    sides = []
    for (gate, processes, _), runs in sorted(groups.items()):
        newest = latest(runs)
        found = [run.result.score for run in newest if run.result and run.result.score is not None]
        sides.append(Side(base, gate, processes, tuple(found), len(newest)))
    return sides


def _references(state: State) -> Mapping[str, float]:
    """Of the newest completed run that states them; all runs on one data set state the same."""
    for run in reversed(list(state.runs.values())):
        if run.outcome is Outcome.COMPLETED and run.result and run.result.references:
            return run.result.references
    return {}
