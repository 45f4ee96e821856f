"""Fills the report's model from a campaign: ledger, plan files, prices, the field's records, and logs where they are wanted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from shlex import quote
from typing import TYPE_CHECKING

from golfctl import budget
from golfctl.domain.gate import Answer, Gate, Kind
from golfctl.domain.plan import PatchDiff, Plan, SetDiff
from golfctl.domain.run import RunRecord
from golfctl.domain.state import State, fold
from golfctl.errors import InputError
from golfctl.estimate import share_per_hour
from golfctl.report import buildfield
from golfctl.report.model import Edge, GateSpec, PlanReport, Report, Station, Trace
from golfctl.report.summary import GateRow, PlanRow, summarise
from golfctl.store import bundle, conflicts, gates, targets
from golfctl.store.ledger import Ledger, now
from golfctl.store.marks import did_you_mean
from golfctl.store.notebook import failures_of
from golfctl.store.plangraph import stack_of
from golfctl.store.status import open_state

if TYPE_CHECKING:
    from golfctl.store.campaign import Campaign


def report_of(campaign: Campaign, only: str | None = None, full: bool = False) -> Report:
    """The report of a campaign, or of one plan. full: with curves from the logs, and what hosts cost beside their runs.

    Raises InputError for an unknown plan or a damaged leaderboard, LedgerError for a damaged ledger.
    """
    ledger = Ledger(campaign.ledger_folder, campaign.state_folder)
    events = ledger.events() if full else []
    state = fold(events) if full else open_state(campaign)
    files, _ = campaign.load_plans()
    unusable = sorted({path.stem for path in campaign.plans_folder.glob("*.y*ml")} - files.keys())
    ids = list(dict.fromkeys([*files, *state.revisions]))
    if only is not None:
        if only in unusable and only not in ids:
            raise InputError(
                f"{only}: its plan file has an error, or needs one that has; `golfctl plan check` names it"
            )
        if only not in ids:
            raise InputError(f"{only}: no such plan{did_you_mean(only, sorted(ids))}")
        ids = [only]
    titles = {name: plan.title for name, plan in files.items()}
    failures = failures_of(state, titles)
    heads = {machine: f"{head.count}@{head.hash[:12]}" for machine, head in ledger.heads().items()}
    without_why = [failure.subject for failure in failures if not failure.why]
    base, score = campaign.base_name, campaign.rules.score
    summary = summarise(campaign.name, base, score, state, titles, heads, without_why, only)
    money = budget.cost(state, campaign.hosts, budget.held_seconds(events, state), campaign.budget, only)
    prices = _prices(campaign, state)
    own_runs = _by_owner(state.runs.values())
    gains = {item.row.name: item.gain for item in money.plans}
    plans = tuple(
        _plan(campaign, row, files.get(row.id), files, state, own_runs.get(row.id, []), gains.get(row.id), prices)
        for row in summary.plans
    )
    field = buildfield.entries(campaign)
    return Report(
        summary=summary,
        score=score,
        cap_bytes=campaign.rules.artifact_cap_bytes,
        margin_nats=campaign.rules.record_margin_nats,
        target=_target(campaign, state),
        bar=buildfield.bars(campaign),
        gates=tuple(_spec(gate, prices) for gate in campaign.gates.values()),
        plans=plans,
        edges=_edges(campaign, {plan.id: files[plan.id] for plan in plans if plan.id in files}, plans),
        layers=buildfield.layers(base, field, plans, summary),
        entries=field,
        own=tuple(buildfield.own(base, plans, own_runs)),
        runs={name: run for name, run in state.runs.items() if only is None or _concerns(run, plans[0])},
        money=money,
        failures=tuple(failure for failure in failures if only in (None, failure.subject)),
        written=now(),
        traces=_traces(campaign, plans, state) if full else {},
        unusable=tuple(name for name in unusable if only in (None, name)),
    )


def _traces(campaign: Campaign, plans: Sequence[PlanReport], state: State) -> dict[str, Trace]:
    from golfctl.report import buildlogs  # it brings numpy, for which a terminal has no use

    return buildlogs.traces(campaign, plans, state)


def _concerns(run: RunRecord, plan: PlanReport) -> bool:
    return run.spec.owner == plan.id or any(run in gate.reference_runs for gate in (*plan.row.gates, *plan.row.older))


def _by_owner(runs: Iterable[RunRecord]) -> dict[str, list[RunRecord]]:
    found: dict[str, list[RunRecord]] = {}
    for run in runs:
        found.setdefault(run.spec.owner, []).append(run)
    return found


# --- gates -------------------------------------------------------------------------------------------------------------
def _prices(campaign: Campaign, state: State) -> dict[int, float]:
    """Dollars of one run by gate: what its scored runs cost so far, else its estimate at the default host."""
    host, found = campaign.hosts[campaign.host], {}
    known: dict[int, list[float]] = {}
    for run in state.runs.values():
        if run.scored:
            known.setdefault(run.spec.gate, []).append(run.usd)
    for number, gate in campaign.gates.items():
        paid = known.get(number)
        guess = gate.estimate_s * share_per_hour(host, gate.processes) / 3600
        found[number] = sum(paid) / len(paid) if paid else guess
    return found


def _spec(gate: Gate, prices: Mapping[int, float]) -> GateSpec:
    checks = tuple(map(str, gate.require))
    if gate.kind is Kind.VERSUS:
        checks = (f"score better than the parent's {gate.parent_seeds} seeds", *checks)
    usd = prices.get(gate.number, 0.0)
    return GateSpec(
        gate.number, gate.name, str(gate.kind), gate.processes, gate.seeds, checks, gate.overriding, gate.alpha, usd
    )


def _target(campaign: Campaign, state: State) -> float | None:
    """What the last threshold gate of golf.yaml asks of the score, in bpb."""
    for _, gate in sorted(campaign.gates.items(), reverse=True):
        score = next((item for item in gate.require if item.metric == "score"), None)
        if gate.kind is Kind.THRESHOLD and score is not None:
            found = targets.resolve(Plan("", "", "", campaign.base_name), gate, score, state).value
            judged = (verdict for key, verdict in reversed(state.verdicts.items()) if key[2] == gate.number)
            said = (verdict.numbers["target"] for verdict in judged if "target" in verdict.numbers)
            return found if found is not None else next(said, None)
    return None


# --- plans -------------------------------------------------------------------------------------------------------------
def _plan(
    campaign: Campaign,
    row: PlanRow,
    plan: Plan | None,
    files: Mapping[str, Plan],
    state: State,
    runs: Sequence[RunRecord],
    gain: budget.Gain | None,
    prices: Mapping[int, float],
) -> PlanReport:
    revision = state.revision(row.id)
    frozen = revision.frozen if revision else {}
    own_gates = [
        gates.apply(gate, plan.gates.get(number, {}) if plan else {}) for number, gate in campaign.gates.items()
    ]
    specs = tuple(_spec(gate, prices) for gate in own_gates)
    stations = _stations(row, specs, runs, row.id in state.retired and plan is None)
    return PlanReport(
        row=row,
        standing=_standing(row, stations),
        base=plan.base if plan else str(frozen.get("base", "")),
        hypothesis=plan.hypothesis if plan else "",
        expect=plan.expect if plan else {},
        measured=gain,
        risk=plan.risk if plan else "",
        tags=plan.tags if plan else (),
        depends_on=plan.depends_on if plan else tuple(frozen.get("stack", ()))[:-1][-1:],
        stack=tuple(frozen.get("stack", ())) or (stack_of(files, row.id) if plan else ()),
        diffs=_diffs(plan) if plan else (),
        seeds=plan.seeds if plan else tuple(frozen.get("seeds", ())),
        gates=specs,
        stations=stations,
        runs=tuple(run.spec.name for run in runs),
        bundle=revision.bundle if revision else "",
        parent_bundle=str(frozen.get("parent_bundle", "")),
        base_bundle=str(frozen.get("base_bundle", "")),
        target=_plan_target(plan, own_gates, row, state),
        usd=sum(run.usd for run in runs),
        again=_again(campaign, runs),
        filed=plan is not None,
    )


def _diffs(plan: Plan) -> tuple[str, ...]:
    found: list[str] = []
    for diff in plan.diffs:
        found += [f"{name} = {value}" for name, value in diff.values.items()] if isinstance(diff, SetDiff) else []
        found += [diff.path] if isinstance(diff, PatchDiff) else []
    return tuple(found)


def _plan_target(plan: Plan | None, own_gates: Sequence[Gate], row: PlanRow, state: State) -> float | None:
    for gate in reversed(own_gates):
        judged = next((item for item in row.gates if item.number == gate.number), None)
        if judged and "target" in judged.verdict.numbers:
            return float(judged.verdict.numbers["target"])
        score = next((item for item in gate.require if item.metric == "score"), None)
        if plan and gate.kind is Kind.THRESHOLD and score is not None:
            return targets.resolve(plan, gate, score, state).value
    return None


_STATES = {Answer.PASS: "passed", Answer.FAIL: "failed", Answer.INCONCLUSIVE: "inconclusive"}


def _stations(row: PlanRow, specs: Sequence[GateSpec], runs: Sequence[RunRecord], retired: bool) -> tuple[Station, ...]:
    found, open_until_here = [], not retired
    for spec in specs:
        judged = next((item for item in row.gates if item.number == spec.number), None)
        mine = [run for run in runs if run.spec.gate == spec.number]
        live = [run.spec.name for run in mine if not run.finished]
        state, why = _place(judged, live, open_until_here)
        open_until_here = open_until_here and state in {"passed", "waived"}
        usd = sum(run.usd for run in mine)
        found.append(Station(spec.number, spec.name, state, why, len(mine), usd))
    return tuple(found)


def _place(judged: GateRow | None, live: Sequence[str], reached: bool) -> tuple[str, str]:
    """(state, why) of a plan at a gate. reached: every gate before it is passed or waived."""
    if judged is None:
        if live:
            return "running", f"{len(live)} under way: {', '.join(live)}"
        return ("waiting", "") if reached else ("ahead", "")
    if judged.waived:
        return "waived", f"{judged.verdict.reason} (waived: {judged.waived})"
    return _STATES[judged.verdict.answer], judged.verdict.reason


def _standing(row: PlanRow, stations: Sequence[Station]) -> str:
    states = [item.state for item in stations]
    if row.status.startswith("retired"):
        return "retired"
    if states and all(state in {"passed", "waived"} for state in states):
        return "passed"
    if "failed" in states or "inconclusive" in states:
        return "stopped"
    return "active" if row.revision else "not run"


def _again(campaign: Campaign, runs: Sequence[RunRecord]) -> tuple[str, ...]:
    """Shell lines that unpack the frozen bundle of the newest scored run and start it with the same settings and no others."""
    run = next((run for run in reversed(runs) if run.scored), None)
    if run is None or not run.spec.argv:
        return ()
    archive = campaign.relative(campaign.bundles_folder / f"{run.spec.bundle}.tar.gz")
    env = [f"{name}={quote(value.replace('{out}', '.'))}" for name, value in sorted(run.spec.env.items())]
    words = [quote(word.replace("{python}", "python").replace("{out}", ".")) for word in run.spec.argv]
    return (
        f"mkdir again && tar -xzf {quote(archive)} -C again && cd again",
        " ".join(['env -i PATH="$PATH" HOME="$HOME"', *env, *words]),
    )


# --- between plans -----------------------------------------------------------------------------------------------------
def _edges(campaign: Campaign, files: Mapping[str, Plan], plans: Sequence[PlanReport]) -> tuple[Edge, ...]:
    """Dependencies; and pairs of plans that declare or show that they can't be stacked."""
    known = {plan.id for plan in plans}
    depends = [Edge("depends", plan.id, name, "") for plan in plans for name in plan.depends_on if name in known]
    stacked = {(min(pair), max(pair)) for plan in plans for pair in combinations(plan.stack, 2)}
    try:
        patches = bundle.patches_of(campaign, list(files.values()))
    except InputError:
        patches = {}  # `plan check` says what is wrong with them; a report shows what it can
    said: dict[tuple[str, str], str] = {}
    for plan in files.values():
        for name in plan.conflicts_with:
            if name in files:
                said.setdefault((min(plan.id, name), max(plan.id, name)), f"declared by {plan.id}")
    for one, two in sorted(_touching(files, patches) - stacked - said.keys()):
        if notes := conflicts.between([files[one], files[two]], patches, stacked):
            said[one, two] = "; ".join(notes)
    return (*depends, *(Edge("conflict", one, two, text) for (one, two), text in said.items()))


def _touching(files: Mapping[str, Plan], patches: conflicts.PlanPatches) -> set[tuple[str, str]]:
    """Pairs of plans of one base that set one variable to different values or patch one file."""
    users: dict[tuple[str, str], dict[str, str]] = {}
    for plan in files.values():
        for diff in plan.diffs:
            for name, value in diff.values.items() if isinstance(diff, SetDiff) else ():
                users.setdefault((plan.base, name), {})[plan.id] = value
        for _, items in patches.get(plan.id, ()):
            for item in items:
                # Two patches of one file always differ as far as this goes; whether they meet is `between`'s to say.
                users.setdefault((plan.base, f"{item.old or item.new}\0"), {})[plan.id] = plan.id
    return {
        (min(pair), max(pair))
        for values in users.values()
        if len(values) <= _CROWD
        for pair in combinations(values, 2)
        if values[pair[0]] != values[pair[1]]
    }


_CROWD = 40
"""Plans that set one variable, above which it is a study of that variable: its every pair would be a conflict."""
