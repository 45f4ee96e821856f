"""Verdicts as sentences a person reads once: where the score stands, how sure that is, what more would cost, whether it pays.

docs/report.md says the rules. Pure; every figure comes from the verdict's own numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from golfctl.domain.gate import Answer
from golfctl.domain.units import duration
from golfctl.report.model import PlanReport, Report
from golfctl.report.summary import GateRow

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def decisive(plan: PlanReport) -> GateRow | None:
    """The verdict a plan stands by: that of the last gate it reached in its newest revision."""
    return plan.row.gates[-1] if plan.row.gates else None


def sentence(plan: PlanReport, report: Report, bar: bool = True) -> str:
    """What the plan comes to, in words. bar: with the bar of a record, where the field's records are known."""
    gate = decisive(plan)
    if gate is None:
        return _before(plan)
    verdict = gate.verdict
    # Where a gate holds the score against two things, the one that is shown less well decides.
    tests = [verdict.numbers[name] for name in ("test", "versus") if name in verdict.numbers]
    test = max(tests, key=lambda item: float(item["p"]), default=None)
    if verdict.answer is Answer.INCONCLUSIVE and test and verdict.cause == "not-significant":
        said = f"{_stand(gate, test)}; {_settle(plan, gate, test)}"
    elif test and verdict.cause in {"", "off-track", "worse-than-parent", "no-visible-gain"}:
        said = f"{_stand(gate, test)}."
    else:
        said = f"{verdict.reason}."
    waived = f" Waived: {gate.waived}." if gate.waived else ""
    return f"{verdict.answer}: {said}{_bar(plan, gate, report) if bar else ''}{waived}"


def _before(plan: PlanReport) -> str:
    for station in plan.stations:
        if station.state in {"running", "waiting"}:
            state = station.why or "it has not run there"
            return f"No verdict yet: gate {station.gate} {station.name} is next; {state}."
    return "No verdict."


def _stand(gate: GateRow, test: Mapping[str, Any]) -> str:
    """`mean 1.1171 is 0.0003 below the target 1.1174, half a seed sd: p = 0.24 with three seeds`."""
    numbers, effect = gate.verdict.numbers, float(test["effect"])
    against, level = _against(gate, test)
    away = abs(effect)
    where = "on" if round(away, 4) == 0 else "below" if effect < 0 else "above"
    start = f"{'mean ' if test['n'] > 1 else ''}{test['mean']:.4f} is "
    start += f"{where} {against}" if where == "on" else f"{away:.4f} {where} {against}"
    sd = (numbers.get("own") or {}).get("sd") or test["sd"]
    spread = f", {_times(away / sd)}" if sd else ""
    seeds = _count(int(test["n"]), "seed")
    return f"{start}{level}{spread}: p = {test['p']:.2g} with {seeds}"


def _against(gate: GateRow, test: Mapping[str, Any]) -> tuple[str, str]:
    """(what the score is held against, its level). A versus gate may ask for more than any gain."""
    numbers = gate.verdict.numbers
    if test is numbers.get("test"):
        return "the target", f" {numbers['target']:.4f}" if "target" in numbers else ""
    name = str((numbers.get("parent") or {}).get("name", "its parent"))
    bound = float(test["bound"])
    less = f" less the {-bound:.4f} that the gate asks for" if bound < 0 else ""
    mean = (numbers.get("parent") or {}).get("mean")
    return name, (f" ({mean:.4f})" if mean is not None else "") + less


def _times(ratio: float) -> str:
    """`half a seed sd`, `9.6 seed sds`."""
    if ratio < 0.05:
        return "less than a tenth of a seed sd"
    if 0.45 <= ratio < 0.55:
        return "half a seed sd"
    if 0.95 <= ratio < 1.05:
        return "one seed sd"
    return f"{ratio:.1f} seed sds" if ratio < 100 else f"{ratio:.0f} seed sds"


def _count(number: int, noun: str) -> str:
    word = NUMBERS[number] if number < len(NUMBERS) else str(number)
    return f"{word} {noun}{'' if number == 1 else 's'}"


def _settle(plan: PlanReport, gate: GateRow, test: Mapping[str, Any]) -> str:
    """What would settle it, its price, and whether that pays."""
    numbers = gate.verdict.numbers
    if float(test["effect"]) >= 0:
        return "it points the wrong way, not yet beyond the noise. Not worth more seeds."
    needed = numbers.get("seeds_needed")
    if needed is None:
        return "more than 10,000 seeds would be needed. Not worth it alone."
    sides = "" if test["test"] in {"one-sample t", "paired t"} else " on each side"
    price = _price(numbers)
    said = f"about {needed} seeds{sides}{f'{price},' if price else ''} would be needed"
    if not worth_settling(plan):
        return f"{said}. Not worth it alone."
    usd, runs = attempt_usd(plan), attempt_runs(plan)
    new = f"costs ${usd:,.2f}" if numbers.get("settle_usd") and usd else f"takes {runs} runs"
    return f"{said}. Worth it: a new plan {new} up to its last gate."


def worth_settling(plan: PlanReport) -> bool:
    """Whether the seeds that would settle its last verdict cost no more than a new plan through all gates."""
    gate = decisive(plan)
    if gate is None or gate.verdict.cause != "not-significant" or gate.waived:
        return False
    numbers = gate.verdict.numbers
    needed, usd, limit = numbers.get("seeds_needed"), numbers.get("settle_usd"), attempt_usd(plan)
    if needed is None:
        return False
    return bool(usd <= limit) if usd and limit else bool(needed <= attempt_runs(plan))


def _price(numbers: Mapping[str, Any]) -> str:
    usd, seconds = numbers.get("settle_usd"), numbers.get("settle_s")
    if usd:
        return f", some ${usd:,.2f}" if usd < 10 else f", some ${usd:,.0f}"
    return f", some {duration(seconds)} of runs" if seconds else ""


def attempt_usd(plan: PlanReport) -> float:
    """Dollars of one new plan through all gates: its own runs, if every gate passes. The measure of what an answer may cost."""
    return sum(gate.usd * gate.seeds for gate in plan.gates)


def attempt_runs(plan: PlanReport) -> int:
    """The same in runs, where they cost nothing."""
    return sum(gate.seeds for gate in plan.gates)


def _bar(plan: PlanReport, gate: GateRow, report: Report) -> str:
    """Against a record's bar in each reading, at a plan's last gate, where the field's records are known."""
    own = gate.verdict.numbers.get("own")
    if not report.bar or not own or gate.number != plan.gates[-1].number:
        return ""
    bars = ", ".join(f"{value:.4f} read as {name}" for name, value in report.bar.items())
    under = [name for name, value in report.bar.items() if own["mean"] < value]
    said = (
        "under every reading"
        if len(under) == len(report.bar)
        else f"under {' and '.join(under)} only"
        if under
        else "under no reading"
    )
    return f" The bar of a record ({report.margin_nats:g} nats: {bars}) is reached by the mean {said}."


def expected(plan: PlanReport) -> str:
    """`expected -0.0030 to -0.0020, measured -0.0003 at gate 4 (n 3 against 3): short of it`; "" where nothing is known."""
    span, gain = plan.expected, plan.measured
    if span is None and gain is None:
        return ""
    if not plan.filed:
        said = "no plan file in use says what it expected"
    else:
        said = "no change of the score was foretold" if span is None else f"expected {_span(span)}"
    if gain is None:
        return f"{said}, nothing measured yet"
    delta = -gain.bpb
    text = (
        f"{said}, measured {delta:+.4f} against {gain.parent} at gate {gain.gate} (n {gain.n} against {gain.parent_n})"
    )
    return text if span is None else f"{text}: {_compared(delta, span)}"


def _span(span: tuple[float, float]) -> str:
    low, high = span
    return f"{low:+.4f}" if low == high else f"{low:+.4f} to {high:+.4f}"


def _compared(delta: float, span: tuple[float, float]) -> str:
    low, high = span
    if delta < low:
        return "better than expected"
    if delta <= high:
        return "as expected"
    return "short of it" if delta < 0 else "the wrong way"


def sizes(plan: PlanReport) -> str:
    """`bytes: expected +10,000 to +40,000`: what else the plan foretold."""
    rest = [(name, span) for name, span in plan.expect.items() if name != "score"]
    return "; ".join(f"{name}: expected {low:+,.10g} to {high:+,.10g}" for name, (low, high) in rest)
