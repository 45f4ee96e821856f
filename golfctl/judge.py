"""The judge: runs in, a verdict out. Pure; it knows no files, hosts or clocks.

Order of the questions: did every started seed end well, are the costs within bounds, may the scores be compared at all, did the
diff change anything, and only then: is the score good enough.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from golfctl import looks, stats
from golfctl.domain.gate import Answer, Gate, Kind, Requirement
from golfctl.domain.plan import ResolvedPlan
from golfctl.domain.rules import Rules
from golfctl.domain.run import Outcome, RunRecord, RunResult
from golfctl.domain.verdict import Check, Verdict
from golfctl.remedy import Open, remedy

CAUSES = {
    "crash": "the run crashed",
    "oom": "out of memory",
    "nan": "the loss became nan or infinite",
    "stall": "the log stopped growing",
    "over-time": "the wall-clock limit was reached",
    "aborted": "a rule or a person stopped the run",
    "too-slow": "the step time is over its limit",
    "too-big": "code and model are over the cap",
    "cost": "a cost requirement is not met",
    "invalid": "the files of the run contradict each other",
    "not-comparable": "metric version or data differ from the reference",
    "dead-switch": "the diff changed nothing",
    "no-score": "the run ended without a score",
    "no-noise": "the seeds do not differ, or there is only one: no test is possible",
    "worse-than-parent": "the score is worse than the parent's",
    "no-visible-gain": "the score is not visibly better than the parent's",
    "off-track": "the score misses the target",
    "not-significant": "the seeds do not settle it",
}
"""Failure classes, as written to failures.md."""


@dataclass(frozen=True)
class Case:
    """What a gate judges. own, parent, base: every started run of that side under the gate's shape, any outcome.

    others: runs of this bundle and gate under seeds that a former revision declared; they stay visible.
    step_ratio: how much longer a step of the base takes on this gate's GPUs than on those its rule names; None: unknown.
    former: the verdicts among those of `others` that tested a score, see `looks.former`.
    final: the base's runs under the last gate's shape, to say from a short run where a long one would end.
    rewritten: verdicts of this plan at this gate under other code.
    """

    plan: ResolvedPlan
    revision: int
    gate: Gate
    rules: Rules
    own: Sequence[RunRecord]
    parent: Sequence[RunRecord]
    base: Sequence[RunRecord]
    others: Sequence[RunRecord] = ()
    step_ratio: float | None = None
    former: Sequence[looks.Look] = ()
    final: Sequence[RunRecord] = ()
    rewritten: int = 0


@dataclass(frozen=True)
class Finding:
    """A verdict in the making: the answer and what stands beside it."""

    answer: Answer
    reason: str
    cause: str = ""
    overriding: bool = False


def judge(case: Case) -> Verdict:
    """The gate's word on these runs. Raises ValueError if a run has not ended: then there is nothing to judge yet."""
    if any(not run.finished for run in case.own):
        raise ValueError("a run has not ended yet")
    runs = latest(case.own)
    numbers: dict[str, Any] = {"seeds": {str(run.spec.seed): _score(run) for run in runs}}
    checks: list[Check] = []
    if case.others:
        numbers["former_seeds"] = {str(run.spec.seed): _score(run) for run in latest(case.others)}
        seeds = ", ".join(str(run.spec.seed) for run in latest(case.others))
        checks.append(Check("seeds", f"run at this gate under former seeds: {seeds}", None))
    checks += [check for run in runs if (check := _former_attempts(run, case.own))]
    if case.rewritten:
        text = f"verdict {case.rewritten + 1} of this plan at this gate; the former judged other code and are not corrected for"
        checks.append(Check("rewritten", text, None))
    finding = _endings(case, runs) or _costs(case, runs, checks) or _validity(case, runs)
    if finding is None:
        finding = _judge_score(case, runs, numbers, checks)
    unseen = [requirement.metric for requirement in case.gate.require if _unmeasured(requirement, runs)]
    if unseen and finding.answer is not Answer.FAIL:
        finding = replace(finding, reason=f"{finding.reason}; not measured: {', '.join(unseen)}")
    reference = (*case.parent, *case.base) if case.plan.parent != case.plan.base else tuple(case.parent)
    return Verdict(
        plan=case.plan.id,
        revision=case.revision,
        gate=case.gate.number,
        answer=finding.answer,
        reason=finding.reason,
        cause=finding.cause,
        overriding=finding.overriding,
        numbers=numbers,
        checks=tuple(checks),
        runs=tuple(run.spec.name for run in (*case.own, *case.others)),
        reference_runs=tuple(dict.fromkeys(run.spec.name for run in reference)),
    )


def _former_attempts(run: RunRecord, own: Sequence[RunRecord]) -> Check | None:
    """Attempts that counted for nothing are said beside every verdict."""
    former = [item for item in own if item.spec.seed == run.spec.seed and item is not run and not item.withdrawn]
    if not former:
        return None
    said = "; ".join(f"{item.outcome}: {item.excused or item.reason}" for item in former)
    return Check("attempts", f"seed {run.spec.seed}: {len(former)} before it counted for nothing ({said})", None)


def latest(runs: Sequence[RunRecord]) -> list[RunRecord]:
    """The newest attempt of every seed, in order of seeds. Earlier attempts stay in the verdict's `runs`."""
    newest: dict[int, RunRecord] = {}
    for run in sorted(runs, key=lambda run: run.spec.attempt):
        newest[run.spec.seed] = run
    return list(newest.values())


def scores(runs: Sequence[RunRecord]) -> list[float]:
    """Scores of the runs that completed, newest attempts only."""
    return [score for run in latest(runs) if (score := _score(run)) is not None]


def resolve_bound(requirement: Requirement, case: Case) -> float | None:
    """The number a score requirement stands for; None while the side it is relative to has no score."""
    if requirement.relative_to is None:
        return requirement.value
    side = scores(case.base if requirement.relative_to == "base" else case.parent)
    return stats.summarise(side).mean + requirement.value if side else None


def _score(run: RunRecord) -> float | None:
    return run.result.score if run.outcome is Outcome.COMPLETED and run.result else None


def _endings(case: Case, runs: Sequence[RunRecord]) -> Finding | None:
    """Every started seed has to end well: a technique that crashes on one seed of three has failed on it."""
    for run in runs:
        if run.outcome is Outcome.COMPLETED:
            continue
        text = f"seed {run.spec.seed} {run.outcome}: {run.reason}"
        if run.outcome is Outcome.LOST and run.result and run.result.score is not None:
            text = f"seed {run.spec.seed} was lost after its score was seen ({run.result.score:.4f}): {run.reason}"
            return Finding(Answer.INCONCLUSIVE, f"{text}; it is not drawn again: declare other seeds", "lost")
        cause = _ending_cause(run)
        return Finding(Answer.FAIL, text, cause, overriding=cause == "too-slow" and case.gate.overriding)
    return None


_CAUSE_WORDS = ((r"\b(nan|inf(inity)?)\b", "nan"), (r"\bstep_avg", "too-slow"), (r"\bstall", "stall"))


def _ending_cause(run: RunRecord) -> str:
    """The class of a bad ending. The supervisor's own words are trusted; of a crash's last line only the memory error is."""
    reason = run.reason.lower()
    if run.outcome is Outcome.OVER_TIME:
        return "over-time"
    if run.outcome is Outcome.CRASHED:
        return "oom" if "out of memory" in reason else "crash"
    return next((cause for pattern, cause in _CAUSE_WORDS if re.search(pattern, reason)), "aborted")


def _costs(case: Case, runs: Sequence[RunRecord], checks: list[Check]) -> Finding | None:
    """Bounds on every run: the cap always, and what the gate requires besides the score."""
    cap = Requirement("artifact_bytes", "<=", float(case.rules.artifact_cap_bytes))
    wanted = [cap] if not any(item == cap for item in case.gate.require) else []
    wanted += [item for item in case.gate.require if item.metric != "score"]
    failed: Finding | None = None
    for requirement in wanted:
        for run in runs:
            check = _cost_check(case.gate, requirement, run, case.step_ratio)
            checks.append(check)
            if check.ok is False and failed is None:
                cause = {"artifact_bytes": "too-big", "step_avg_ms": "too-slow"}.get(requirement.metric, "cost")
                failed = Finding(Answer.FAIL, check.text, cause, overriding=case.gate.overriding)
    return failed


def _unmeasured(requirement: Requirement, runs: Sequence[RunRecord]) -> bool:
    """Whether a limit was asked for that some run does not show: it passes, and the verdict has to say so."""
    return requirement.metric != "score" and any(
        run.result is None or run.result.metric(requirement.metric) is None for run in runs
    )


def _cost_check(gate: Gate, requirement: Requirement, run: RunRecord, step_ratio: float | None) -> Check:
    measured = run.result.metric(requirement.metric) if run.result else None
    who = f"seed {run.spec.seed}"
    if measured is None:
        # The cap must be shown; any other unmeasured cost is said to be so.
        ok = False if requirement.metric == "artifact_bytes" else None
        return Check(requirement.metric, f"{who}: {requirement.metric} was not measured", ok)
    if requirement.metric == "step_avg_ms" and gate.at_gpus and gate.at_gpus != run.spec.processes:
        text = f"{who}: step_avg_ms {measured:.1f} on {run.spec.processes}"
        if step_ratio is None:
            return Check(
                requirement.metric, f"{text} is not checkable against {requirement} at {gate.at_gpus} GPUs", None
            )
        scaled = measured / step_ratio
        ok = requirement.met(scaled, requirement.value)
        text += f" = {scaled:.1f} at {gate.at_gpus} GPUs (the base's ratio {step_ratio:.2f})"
        return Check(requirement.metric, text if ok else f"{text}, required {requirement}", ok)
    ok = requirement.met(measured, requirement.value)
    sign = "" if ok else f", required {requirement.operator} {requirement.value:,.10g}"
    return Check(requirement.metric, f"{who}: {requirement.metric} {measured:,.10g}{sign}", ok)


def _validity(case: Case, runs: Sequence[RunRecord]) -> Finding | None:
    for run in runs:
        invalid = [text for text in (run.result.warnings if run.result else ()) if text.startswith("invalid:")]
        if invalid:
            return Finding(Answer.FAIL, f"seed {run.spec.seed}: {invalid[0]}", "invalid")
    return None


def _judge_score(case: Case, runs: Sequence[RunRecord], numbers: dict[str, Any], checks: list[Check]) -> Finding:
    requirement = next((item for item in case.gate.require if item.metric == "score"), None)
    if requirement is None and case.gate.kind is Kind.THRESHOLD:
        return Finding(Answer.PASS, _cost_sentence(runs))
    missing = [run.spec.seed for run in runs if _score(run) is None]
    if missing:
        return Finding(Answer.FAIL, f"seed {missing[0]} ended without a score", "no-score")
    joined = looks.pooled(case.gate, runs, case.former)
    case = replace(case, own=[*joined, *case.own])
    runs = latest(case.own)
    own = scores(runs)
    numbers["own"] = asdict(stats.summarise(own))
    case = _alike(case, runs, checks)
    if problem := _incomparable(runs, _compared(case, requirement)):
        return Finding(Answer.INCONCLUSIVE, problem, "not-comparable")
    if twin := _dead_switch(runs, latest(case.parent)):
        return Finding(Answer.FAIL, twin, "dead-switch")
    if len(own) > 1 and len(set(own)) == 1:
        text = f"{len(own)} seeds score {own[0]} alike: does the code read the seed?"
        return Finding(Answer.INCONCLUSIVE, text, "no-noise")
    _beside(case, own, numbers)
    findings = []
    if requirement is not None:
        findings.append(_threshold(case, requirement, own, numbers, checks))
    if case.gate.kind is Kind.VERSUS:
        findings.append(_versus(case, own, numbers, checks))
    order = {Answer.FAIL: 0, Answer.INCONCLUSIVE: 1, Answer.PASS: 2}
    return min(findings, key=lambda finding: order[finding.answer])


def _cost_sentence(runs: Sequence[RunRecord]) -> str:
    parts = []
    for name, unit in (("artifact_bytes", "bytes"), ("step_avg_ms", "ms")):
        values = [value for run in runs if run.result and (value := run.result.metric(name)) is not None]
        if values:
            parts.append(f"{name} {max(values):,.10g} {unit}" if unit == "bytes" else f"{name} {max(values):,.1f}")
    return "ran to its end; " + ", ".join(parts) if parts else "ran to its end"


def _compared(case: Case, requirement: Requirement | None) -> list[RunRecord]:
    """The runs of the sides that this gate's answer rests on."""
    relative = requirement.relative_to if requirement else None
    parent = case.gate.kind is Kind.VERSUS or relative == "parent"
    return [*(latest(case.parent) if parent else ()), *(latest(case.base) if relative == "base" else ())]


def _alike(case: Case, runs: Sequence[RunRecord], checks: list[Check]) -> Case:
    """The case without reference runs of other versions, where enough of the same version are left to compare with.

    A base that was run again after a new torch serves; what was left out is said.
    """
    sides: dict[str, list[RunRecord]] = {}
    for name in ("parent", "base", "final"):
        side = list(getattr(case, name))
        kept = [run for run in side if not _incomparable(runs, [run])]
        if len(kept) < len(side) and len(scores(kept)) >= max(2, case.gate.parent_seeds):
            gone = ", ".join(run.spec.name for run in side if run not in kept)
            checks.append(Check("versions", f"left out, of other versions: {gone}", None))
            side = kept
        sides[name] = side
    return replace(case, parent=sides["parent"], base=sides["base"], final=sides["final"])


def _incomparable(runs: Sequence[RunRecord], others: Sequence[RunRecord]) -> str | None:
    """Scores of different metric versions, validation data or torch versions are never compared."""
    for name in ("metric_version", "data"):
        sides = {getattr(run.result, name) for run in (*runs, *others) if isinstance(run.result, RunResult)}
        if len(sides) > 1:
            return f"{name} differs between the runs: {', '.join(sorted(str(side)[:12] for side in sides))}"
    versions = {run.result.environment.get("torch") for run in (*runs, *others) if isinstance(run.result, RunResult)}
    if len(versions := versions - {None}) > 1:
        return f"the version of torch differs between the runs: {', '.join(sorted(map(str, versions)))}"
    return None


def _dead_switch(runs: Sequence[RunRecord], others: Sequence[RunRecord]) -> str | None:
    """Every seed with a twin scores as it does to the last digit, with the same loss and size: the diff never acted.

    Digits have to be many: a log that prints four of them has equal scores by rounding.
    """
    by_seed = {run.spec.seed: run for run in others}
    pairs = [
        (run, twin) for run in runs if (twin := by_seed.get(run.spec.seed)) and twin.spec.bundle != run.spec.bundle
    ]
    if not pairs or not all(_same_result(*pair) for pair in pairs):
        return None
    run, twin = pairs[0]
    who = f"seed {run.spec.seed} scores exactly as {twin.spec.owner} does"
    return f"{who} ({_score(run)}): the diff changed nothing"


def _same_result(run: RunRecord, twin: RunRecord) -> bool:
    if not run.result or not twin.result or _score(run) is None:
        return False
    mine, other = run.result, twin.result
    fine = any(value is not None and round(value, 5) != value for value in (mine.score, mine.val_loss))
    return fine and (mine.score, mine.val_loss, mine.model_bytes) == (other.score, other.val_loss, other.model_bytes)


def _beside(case: Case, own: Sequence[float], numbers: dict[str, Any]) -> None:
    """Figures printed beside a verdict that do not decide it: the parent's noise and Welch against it."""
    parent = scores(case.parent)
    if not parent or _incomparable(latest(case.own), latest(case.parent)):
        return
    numbers["parent"] = asdict(stats.summarise(parent)) | {"name": case.plan.parent}
    if len(own) > 1 and len(set(parent)) > 1:
        numbers["welch"] = asdict(stats.welch(own, parent))
    readings = stats.margin_readings(case.rules.record_margin_nats, None)
    numbers["margin_readings_bpb"] = readings


def _threshold(
    case: Case, requirement: Requirement, own: Sequence[float], numbers: dict[str, Any], checks: list[Check]
) -> Finding:
    bound = resolve_bound(requirement, case)
    if bound is None:
        return Finding(Answer.INCONCLUSIVE, f"{requirement}: {requirement.relative_to} has no score yet", "no-score")
    numbers["target"] = bound
    target = f"target {bound:.4f}" + (f" ({requirement})" if requirement.relative_to else "")
    if len(own) == 1:
        if case.gate.number == case.plan.gates[-1].number:
            return Finding(
                Answer.INCONCLUSIVE, f"one seed, {own[0]:.4f}, shows no noise: no test is possible", "no-noise"
            )
        expected, how = _expected(case, requirement, own[0])
        numbers["expected"] = expected
        met = requirement.met(expected, bound)
        checks.append(Check("score", f"{how} against {target}", met))
        text = f"{case.rules.score} {how} {'reaches' if met else 'misses'} the {target}"
        return Finding(Answer.PASS if met else Answer.FAIL, text, "" if met else "off-track")
    shown = stats.one_sample(own, bound)
    side = scores(case.base if requirement.relative_to == "base" else case.parent) if requirement.relative_to else []
    if requirement.relative_to and (poor := _poor(str(requirement.relative_to), side, max(2, case.gate.parent_seeds))):
        return poor
    # A target that is itself a mean of a few runs has noise of its own: both sides' noise has to count.
    test = stats.welch(own, side, -requirement.value) if side else shown
    numbers["test"] = asdict(test)
    text = (
        f"mean {shown.mean:.4f} sd {shown.sd:.4f} n {shown.n}   95 % CI [{shown.low:.4f}, {shown.high:.4f}]   "
        f"p = {test.p:.2g} ({test.test}) against {target}"
    )
    return _from_test(test, case, text, numbers, checks, "off-track", len(side) if test is not shown else None)


def _expected(case: Case, requirement: Requirement, score: float) -> tuple[float, str]:
    """What a score at this gate lets expect at the last one, and how to say it.

    A target in numbers is meant for the end. Where this gate's runs are other than the last gate's (shorter, say), the base's
    own way from here to there is added; a relative target needs none, it is compared with runs like this one.
    """
    if requirement.relative_to or case.gate.shape == case.plan.gates[-1].shape:
        return score, f"{score:.4f}"
    here, there = scores(case.base), scores(case.final)
    if not here or not there or _incomparable(latest(case.own), [*latest(case.base), *latest(case.final)]):
        return (
            score,
            f"{score:.4f} (not extrapolated: {case.plan.base} lacks such runs here or at gate {case.plan.gates[-1].number})",
        )
    start, end = stats.summarise(here).mean, stats.summarise(there).mean
    expected = score + end - start
    where = f"gate {case.plan.gates[-1].number}"
    return (
        expected,
        f"{score:.4f}, {expected:.4f} expected at {where} as {case.plan.base} goes from {start:.4f} to {end:.4f},",
    )


def _versus(case: Case, own: Sequence[float], numbers: dict[str, Any], checks: list[Check]) -> Finding:
    parent = scores(case.parent)
    if poor := _poor(case.plan.parent, parent, max(2, case.gate.parent_seeds)):
        return poor
    margin = case.gate.min_gain
    if len(own) == 1:
        test, others = stats.one_against_sample(own[0], parent, margin), 0
    elif case.gate.paired:
        paired = _paired(case, margin)
        if paired is None:
            return Finding(Answer.INCONCLUSIVE, f"paired by seed: {case.plan.parent} lacks a seed", "not-comparable")
        test, others = paired, None
    else:
        test, others = stats.welch(own, parent, margin), len(parent)
    numbers["versus"] = asdict(test)
    side = stats.summarise(parent)
    delta = test.effect - margin
    ratio = f", {abs(delta) / side.sd:.1f}x its seed sd" if side.sd else ""
    mean = stats.summarise(own).mean
    text = f"{case.rules.score} {mean:.4f}   {delta:+.4f} against {case.plan.parent}{ratio}   p = {test.p:.2g}"
    cause = "worse-than-parent" if delta > 0 else "no-visible-gain"
    return _from_test(test, case, text, numbers, checks, cause, others)


def _poor(name: str, side: Sequence[float], needed: int) -> Finding | None:
    """Why a side can't be tested against: too few scores to know its noise, or none to be seen in them."""
    if len(side) < needed:
        return Finding(
            Answer.INCONCLUSIVE, f"{name} has {len(side)} score(s) at this gate, {needed} are needed", "not-comparable"
        )
    if len(set(side)) == 1:
        text = f"the seeds of {name} score {side[0]} alike: does the code read the seed?"
        return Finding(Answer.INCONCLUSIVE, text, "no-noise")
    return None


def _paired(case: Case, margin: float) -> stats.Comparison | None:
    """The t-test of the differences seed by seed; None if a seed is missing on the parent's side."""
    by_seed = {run.spec.seed: score for run in latest(case.parent) if (score := _score(run)) is not None}
    pairs = [(score, by_seed.get(run.spec.seed)) for run in latest(case.own) if (score := _score(run)) is not None]
    differences = [score - other for score, other in pairs if other is not None]
    return replace(stats.one_sample(differences, -margin), test="paired t") if len(differences) == len(pairs) else None


def _from_test(
    test: stats.Comparison,
    case: Case,
    text: str,
    numbers: dict[str, Any],
    checks: list[Check],
    cause: str,
    others: int | None,
) -> Finding:
    """PASS: the upper bound is below the threshold. FAIL: the lower bound is above it. Else what would settle it.

    others: scores of the other side of a Welch test, None without one, 0 for a prediction, see `looks.level`.
    """
    joined = {run.spec.name for look in case.former for run in look.runs} & {run.spec.name for run in case.own}
    new = len({run.spec.seed for run in case.own if run.spec.name not in joined})
    level = looks.level(case.gate, new, case.former, bool(joined), others)
    checks.append(Check("score", f"{text}, alpha {level.alpha:.4g}", test.p < level.alpha))
    if level.text:
        checks.append(Check("looks", level.text, None))
        text = f"{text} ({level.text})"
    numbers |= {"alpha": level.alpha, "alpha_spent": level.spent}
    if test.se <= 1e-12 * max(1.0, abs(test.mean)):
        return Finding(
            Answer.INCONCLUSIVE, f"{text}: scores that do not differ show no noise, no test is possible", "no-noise"
        )
    last = case.gate.number == case.plan.gates[-1].number
    if last and case.gate.alpha > case.rules.alpha:
        text = f"{text} (the gate's own alpha is {case.gate.alpha:g}, the rules say {case.rules.alpha:g})"
    if last and test.n == 1:
        text = f"{text} (one run: its own noise is not seen)"
    if test.p < level.alpha:
        return Finding(Answer.PASS, text)
    if test.p_worse < level.alpha:
        return Finding(Answer.FAIL, text, cause)
    relative = any(item.metric == "score" and item.relative_to == "base" for item in case.gate.require)
    other = latest(case.base if relative and case.gate.kind is not Kind.VERSUS else case.parent)
    left = Open(test, level.alpha, case.gate, len(case.former), latest(case.own), other)
    return Finding(Answer.INCONCLUSIVE, f"{text}; {remedy(left, numbers)}", "not-significant")
