"""Sentences and table rows both renderers share."""

from __future__ import annotations

from collections.abc import Sequence

from golfctl.domain.gate import Answer
from golfctl.domain.run import Outcome, RunRecord
from golfctl.domain.units import duration
from golfctl.hostside.files import scrub
from golfctl.report.model import PlanReport, Report
from golfctl.report.summary import GateRow, PlanRow, Side, Summary

MARK = {Answer.PASS: "PASS", Answer.FAIL: "FAIL", Answer.INCONCLUSIVE: "INCONCLUSIVE"}


def gate_line(row: GateRow) -> str:
    """`gate 2 full   FAIL   val_bpb 2.4310   +0.0290 against base ...`."""
    waived = f"   WAIVED: {row.waived}" if row.waived else ""
    return f"gate {row.number} {row.name:<6} {MARK[row.verdict.answer]:<5} {row.verdict.reason}{waived}"


def beside_lines(row: GateRow) -> list[str]:
    """Figures that stand beside a verdict without deciding it."""
    numbers = row.verdict.numbers
    found = []
    if "welch" in numbers:
        test, parent = numbers["welch"], numbers["parent"]
        found.append(
            f"against {parent['name']} (mean {parent['mean']:.4f}, sd {parent['sd']:.4f}, n {parent['n']}): "
            f"{test['mean'] - parent['mean']:+.4f}, Welch t = {test['t']:.2f}, df = {test['df']:.1f}, p = {test['p']:.2g}, "
            f"95 % CI of the difference [{test['low']:+.4f}, {test['high']:+.4f}]"
        )
        readings = numbers.get("margin_readings_bpb", {})
        named = ", ".join(f"{value:.4f} bpb read as {name}" for name, value in readings.items())
        found.append(f"the record margin beside it: {named}; gain {parent['mean'] - test['mean']:.4f} bpb")
    if family := row.family:
        found.append(
            f"{family.plans} plans on {family.base} were tested at their final gate: p = {family.p:.2g} alone, "
            f"{family.holm:.2g} by Holm's correction for all of them"
        )
    return found


SEED_HEAD = ("seed", "attempt", "outcome", "score", "step_avg", "code + model bytes", "run")


def seed_row(run: RunRecord) -> tuple[str, ...]:
    """Cells of SEED_HEAD for a started run, whatever became of it."""
    result = run.result
    score = f"{result.score:.6f}" if result and result.score is not None else "none"
    step = f"{result.step_avg_ms:.1f} ms" if result and result.step_avg_ms is not None else "?"
    size = f"{result.artifact_bytes:,}" if result and result.artifact_bytes is not None else "?"
    return (str(run.spec.seed), str(run.spec.attempt), outcome(run), score, step, size, run.spec.name)


def outcome(run: RunRecord) -> str:
    """`completed`, `crashed: exit code 1`, `lost: ... (set aside: a person's reason)`."""
    said = str(run.outcome) if run.outcome is Outcome.COMPLETED else run.ending
    if run.finished and run.outcome is not Outcome.COMPLETED and run.reason:
        said = f"{said}: {run.reason}"
    return f"{said} (set aside: {run.excused})" if run.excused else said


def seeds_line(runs: Sequence[RunRecord]) -> str:
    """`seeds 1337 2.2946, 42 2.2913, 2025 crashed: exit code 1`: every started run, in few words."""
    return "seeds " + ", ".join(f"{run.spec.seed} {_in_short(run)}" for run in runs)


def _in_short(run: RunRecord) -> str:
    score = run.result.score if run.outcome is Outcome.COMPLETED and run.result else None
    return outcome(run) if score is None else f"{score:.4f}"


def runs_by_gate(plan: PlanReport, report: Report) -> dict[int, list[RunRecord]]:
    """Gate to every run the plan started there, in any revision, in order of launch."""
    found: dict[int, list[RunRecord]] = {}
    for name in plan.runs:
        run = report.runs[name]
        found.setdefault(run.spec.gate, []).append(run)
    return dict(sorted(found.items()))


def code_line(plan: PlanReport) -> str:
    """The exact code: sha256 of the bundle, of what it is compared with, and of the base."""
    if not plan.bundle:
        return ""
    return f"code {plan.bundle}, compared with {plan.parent_bundle}, on base {plan.base} {plan.base_bundle}"


def plain(text: str, limit: int = 600) -> str:
    """As one line without control characters or bidi marks; what is longer ends in an ellipsis."""
    if len(text) <= limit and text.isprintable() and "  " not in text:
        return text.strip()  # nothing to do, as nearly always: a report has 100,000 cells
    line = scrub(" ".join(text.split()), limit + 1)
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def side_line(side: Side, score: str) -> str:
    """`gate 3, 2 processes: val_bpb mean 2.9772 (sd 0.0149, n 3 of 3)`."""
    processes = "1 process" if side.processes == 1 else f"{side.processes} processes"
    return f"gate {side.gate}, {processes}: {score} {side.text}"


def unusable_line(report: Report) -> str:
    """Plan files that the report could not use, "" where there are none: what is not said of their plans is not said by them."""
    if not report.unusable:
        return ""
    names = ", ".join(report.unusable[:10]) + (f" and {len(report.unusable) - 10} more" * (len(report.unusable) > 10))
    return f"Plan files with an error, left out of this report: {names}; golfctl plan check says what is wrong"


def accounting(summary: Summary) -> str:
    """How many runs were started and what became of them: dropped seeds stay visible."""
    parts = ", ".join(f"{count} {name}" for name, count in sorted(summary.outcomes.items()))
    return f"{summary.runs} runs started: {parts or 'none'}; {duration(summary.wall_s)} of run time, ${summary.usd:.2f}"


def ledger_line(summary: Summary) -> str:
    """Count and heads: a witness against a ledger cut later."""
    heads = ", ".join(f"{machine} {head}" for machine, head in sorted(summary.heads.items()))
    return f"{summary.events} events, chain intact ({heads})"


def references_line(summary: Summary) -> str:
    """What others reach on the same bytes, best last."""
    ordered = sorted(summary.references.items(), key=lambda item: -item[1])
    return "  ".join(f"{name} {value:.3f}" for name, value in ordered)


def plan_heading(row: PlanRow) -> str:
    """`ngram-tables (revision 1, against tiny-bytes): PASSED all 4 gates`."""
    where = f" (revision {row.revision}, against {row.parent})" if row.revision else ""
    return f"{row.id}{where}: {row.status}"
