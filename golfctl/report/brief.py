"""The brief: one page that brings a fresh person, or a program, up to date. Pure: the report's model to data, and to Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from shlex import quote

from golfctl.domain.rules import Rules
from golfctl.report import text, verdicts
from golfctl.report.markdown import code, escape, table
from golfctl.report.model import PlanReport, Report

MOST = 15
"""Rows of a table on the page; the JSON holds all."""


@dataclass(frozen=True)
class Step:
    """Something to do next. what: `gate` or `settle` (more seeds). gain: bpb, positive is better, None where nobody said.

    command: what to do, for `gate` a command line. measured: the gain is what runs showed, else the middle of what the plan
    expects. usd: of the next gate's own runs, or of the missing seeds. per_usd: gain over usd, None without a gain or a price.
    affordable: within what is left of the campaign's cap. blocked: what it builds on and the gate that stopped that, "" if none
    did: it can't pass that gate either, and comes last.
    """

    plan: str
    what: str
    gate: int
    command: str
    gain: float | None
    measured: bool
    usd: float
    per_usd: float | None
    affordable: bool
    blocked: str


@dataclass(frozen=True)
class Tried:
    """A plan that has run. why: what a person said of its failure, "" if nothing was said or it did not fail."""

    plan: str
    title: str
    standing: str
    verdict: str
    expected: str
    why: str


@dataclass(frozen=True)
class Brief:
    """What one has to know. best: the campaign's best mean with its owner and gate; left_usd: None without a cap."""

    campaign: str
    written: str
    rules: Rules
    gates: tuple[str, ...]
    base: str
    base_scores: tuple[str, ...]
    best: str
    target: float | None
    frontier: str
    bar: tuple[str, ...]
    running: tuple[str, ...]
    spent_usd: float
    saved_usd: float
    under_way_usd: float
    left_usd: float | None
    steps: tuple[Step, ...]
    tried: tuple[Tried, ...]
    untold: tuple[str, ...]
    unusable: str


def brief_of(report: Report, rules: Rules) -> Brief:
    """The brief of a campaign. report: of the whole campaign."""
    money, whys = report.money, {item.subject: item.why for item in report.failures if item.why}
    ran = [plan for plan in report.plans if plan.row.revision]
    best = min(report.own, key=lambda item: item.score, default=None)
    field = report.frontier
    return Brief(
        campaign=report.summary.campaign,
        written=report.written,
        rules=rules,
        gates=tuple(
            f"gate {gate.number} {gate.name}: {gate.processes} process{'es' * (gate.processes > 1)}, {gate.seeds} "
            f"seed{'s' * (gate.seeds > 1)}, {'; '.join(gate.checks)}; about ${gate.usd * gate.seeds:.2f}"
            for gate in report.gates
        ),
        base=report.summary.base,
        base_scores=tuple(text.side_line(side, report.score) for side in report.summary.bases),
        best=f"{best.name}: {best.score:.4f} at gate {best.gate} (n {best.n})" if best else "",
        target=report.target,
        frontier=f"{field.score:.4f} by {field.folder} of {field.date}" if field and field.score is not None else "",
        bar=tuple(f"{value:.4f} read as {name}" for name, value in report.bar.items()),
        running=tuple(name for name in report.summary.unfinished),
        spent_usd=money.total.usd,
        saved_usd=money.total.saved_usd,
        under_way_usd=money.under_way_usd,
        left_usd=money.left_usd,
        steps=_steps(report),
        tried=tuple(
            Tried(
                plan.id,
                plan.row.title,
                plan.standing,
                verdicts.sentence(plan, report, bar=False),
                verdicts.expected(plan),
                whys.get(plan.id, ""),
            )
            for plan in ran
        ),
        untold=report.summary.without_why,
        unusable=text.unusable_line(report),
    )


def _steps(report: Report) -> tuple[Step, ...]:
    """By gain per dollar, the best first; then what costs nothing by gain; last what nobody expects anything of."""
    left = report.money.left_usd
    found = [step for plan in report.plans if (step := _step(plan, left, _blocked(plan, report))) is not None]
    return tuple(sorted(found, key=_rank))


def _rank(step: Step) -> tuple[bool, bool, bool, float, str]:
    worth = step.per_usd if step.per_usd is not None else step.gain
    return not step.affordable, bool(step.blocked), step.gain is None, -(worth or 0.0), step.plan


def _blocked(plan: PlanReport, report: Report) -> str:
    """`builds on X, which gate 4 stopped`: a stack does not pass a gate that its foundation did not pass."""
    for name in plan.stack[:-1]:
        below = report.plan(name)
        for station in below.stations if below else ():
            if station.state in {"failed", "inconclusive"}:
                return f"builds on {name}, which gate {station.gate} stopped"
    return ""


def _step(plan: PlanReport, left: float | None, blocked: str = "") -> Step | None:
    """The next gate of a plan, or the seeds that would settle its last one where that pays; None for a plan at its end."""
    gain, measured = _gain(plan)
    usd, what, number = 0.0, "gate", 0
    waiting = next((item for item in plan.stations if item.state == "waiting"), None)
    if plan.standing == "retired" or any(item.state == "running" for item in plan.stations):
        return None
    if waiting is not None and plan.standing in {"active", "not run"}:
        spec = next(gate for gate in plan.gates if gate.number == waiting.gate)
        number, usd = spec.number, spec.usd * spec.seeds
        last = number == plan.gates[-1].number
        command = f"golfctl seeds {quote(plan.id)}" if last else f"golfctl gate run {quote(plan.id)} --through {number}"
    elif (gate := verdicts.decisive(plan)) is not None and verdicts.worth_settling(plan):
        number, what = gate.number, "settle"
        usd = float(gate.verdict.numbers.get("settle_usd", 0.0))
        needed = gate.verdict.numbers["seeds_needed"]
        command = f"declare {needed} new seeds in plans/{plan.id}.yaml"
    else:
        return None
    per_usd = gain / usd if gain is not None and usd > 0 else None
    affordable = left is None or usd <= max(left, 0.0)
    return Step(plan.id, what, number, command, gain, measured, usd, per_usd, affordable, blocked)


def _gain(plan: PlanReport) -> tuple[float | None, bool]:
    """(gain in bpb, whether it was measured): what the newest revision showed, else the middle of what the plan expects."""
    if plan.measured is not None:
        return plan.measured.bpb, True
    if plan.expected is not None:
        return -sum(plan.expected) / 2, False
    return None, False


# --- the page ------------------------------------------------------------------------------------------------------------
def render(brief: Brief) -> str:
    """The page as Markdown. Nothing that people or hosts wrote is Markdown in it."""
    rules = brief.rules
    lines = [
        f"# Brief of {escape(brief.campaign)}",
        "",
        f"Written {brief.written} from the ledger and the plan files.",
        "",
    ]
    lines += ["## Rules", ""]
    lines += [
        f"- {escape(rules.score)}, lower is better, from the log line {code(rules.score_label)}",
        f"- code and model: at most {rules.artifact_cap_bytes:,} bytes",
        f"- final test at alpha {rules.alpha:g}; a record has to gain {rules.record_margin_nats:g} nats",
    ]
    lines += [f"- {escape(gate)}" for gate in brief.gates]
    lines += ["- only PASS advances; every started seed counts; plans are frozen by their first run"]
    lines += ["", "## Where it stands", ""]
    lines += [
        f"- base {escape(brief.base or 'none')}, {escape(side)}" for side in brief.base_scores or ("no runs yet",)
    ]
    lines += [f"- best of this campaign: {escape(brief.best)}"] * bool(brief.best)
    lines += [f"- target: {brief.target:.4f}"] if brief.target is not None else []
    lines += [
        f"- the field's frontier: {escape(brief.frontier)}; a record needs {escape(', '.join(brief.bar))}"
    ] * bool(brief.frontier)
    lines += ["- running: " + (", ".join(map(code, brief.running[:MOST])) or "nothing")]
    lines += ["", "## What the budget allows", "", f"- {_money(brief)}", *_next(brief), *_tried(brief)]
    lines += ["", "## Before you begin", "", *_manners(brief), ""]
    return "\n".join(lines)


def _money(brief: Brief) -> str:
    left = "no cap" if brief.left_usd is None else f"${brief.left_usd:.2f} left of the cap"
    parts = [f"${brief.spent_usd:.2f} spent", f"about ${brief.under_way_usd:.2f} under way"]
    return escape("; ".join([*parts, f"${brief.saved_usd:.2f} saved by aborts", left]))


FIGURE = (
    "Gain per dollar: what the plan's runs gained against its parent so far (measured), else the middle of what its file "
    "expects, over the price of its own runs at the next gate, or of the seeds that would settle the last one. Reference runs "
    "it may need are not in it, nor is the chance that it fails: an untested expectation ranks as if it were true."
)


def _next(brief: Brief) -> list[str]:
    lines = ["", "## Next best steps", ""]
    if not brief.steps:
        return [*lines, "No plan has a next gate: write one with `golfctl plan new ID`."]
    rows = [_step_row(step) for step in brief.steps[:MOST]]
    lines += table(("plan", "next", "gain, bpb", "price", "bpb per $", "command"), rows)
    lines += _more(brief.steps)
    return [*lines, "", FIGURE]


def _step_row(step: Step) -> tuple[str, ...]:
    what = f"gate {step.gate}" if step.what == "gate" else f"more seeds at gate {step.gate}"
    gain = "not said" if step.gain is None else f"{step.gain:+.4f} {'measured' if step.measured else 'expected'}"
    price = f"${step.usd:.2f}{'' if step.affordable else ', over the cap'}"
    return (
        step.plan,
        what,
        gain,
        price,
        "-" if step.per_usd is None else f"{step.per_usd:+.4f}",
        step.blocked or step.command,
    )


def _tried(brief: Brief) -> list[str]:
    lines = ["", "## What was tried", ""]
    if not brief.tried:
        return [*lines, "Nothing has run yet."]
    newest = sorted(brief.tried, key=lambda item: item.standing != "passed")[:MOST]
    for item in newest:
        lines.append(f"- **{escape(item.plan)}** ({escape(item.title)}): {escape(item.verdict)}")
        lines += [f"  {escape(item.expected)}."] * bool(item.expected)
        lines += [f"  Why: {escape(item.why)}"] * bool(item.why)
    return lines + _more(brief.tried)


def _more(items: Sequence[object]) -> list[str]:
    return ["", f"and {len(items) - MOST} more: `golfctl brief --json`"] if len(items) > MOST else []


def _manners(brief: Brief) -> list[str]:
    lines = [
        f"- nobody has said why {escape(name)} failed: {code(f'golfctl fail why {quote(name)}')}"
        for name in brief.untold[:MOST]
    ]
    lines += [f"- {escape(brief.unusable)}"] * bool(brief.unusable)
    return [
        *lines,
        "- read `failures.md`, then `golfctl fail search WORDS` before you write a plan: the field's dead ends are in it",
        "- `golfctl plan check` before, `golfctl gate run ID --dry-run` for the price, `golfctl report ID` afterwards",
    ]
