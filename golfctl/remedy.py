"""What would settle a question that a gate left open, if the measured effect and noise were the true ones, and its price."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from golfctl import stats
from golfctl.domain.gate import Gate
from golfctl.domain.run import Outcome, RunRecord
from golfctl.domain.units import duration

ALONE = frozenset({"one-sample t", "paired t"})
"""Tests in which the other side's seeds do not grow."""


@dataclass(frozen=True)
class Open:
    """An INCONCLUSIVE test. own, other: the newest attempt of each seed it judged, on each side; looks: those before it."""

    test: stats.Comparison
    alpha: float
    gate: Gate
    looks: int
    own: Sequence[RunRecord]
    other: Sequence[RunRecord]


def remedy(case: Open, numbers: dict[str, Any]) -> str:
    """The sentence; `numbers` gets seeds_needed, and settle_usd and settle_s where runs tell what they took.

    While a declared look is left, former seeds go on counting. After the last one new seeds are judged alone, at
    alpha / (number of looks), see docs/statistics.md.
    """
    test, alone = case.test, case.test.test in ALONE
    if test.effect >= 0:
        return "it points the wrong way, not yet beyond the noise"
    afresh = case.looks + 1 >= case.gate.looks
    alpha = case.gate.alpha / (case.looks + 2) if afresh else case.alpha
    needed = (
        stats.seeds_needed(test.effect, test.sd, alpha)
        if alone
        else stats.seeds_needed_each(test.effect, *_spreads(case), alpha)
    )
    if needed is not None and not afresh:
        needed = max(needed, len(case.own) + 1)
    numbers["seeds_needed"] = needed
    if needed is None:
        return "more than 10,000 seeds would be needed to settle it"
    sides = [(case.own, needed if afresh else needed - len(case.own))]
    if not alone:
        sides.append((case.other, max(0, needed - len(case.other))))
    seeds = f"{needed} new seeds" if afresh else f"{needed} seeds"
    against = "" if alone else f" against {needed} of the other side" if afresh else " on each side"
    judged = f", judged alone at {alpha:.3g}," if afresh else ""
    return f"about {seeds}{against}{judged} would settle it{_price(sides, numbers)}"


def _spreads(case: Open) -> tuple[float, float]:
    """The sds of the two sides. A single run has none of its own: it is taken to be as noisy as the others."""
    own, other = _sd(case.own), _sd(case.other)
    known = next((sd for sd in (own, other) if sd is not None), case.test.sd)
    return (known if own is None else own), (known if other is None else other)


def _sd(side: Sequence[RunRecord]) -> float | None:
    scores = [run.result.score for run in side if run.result and run.result.score is not None]
    return stats.summarise(scores).sd if len(scores) > 1 else None


def _price(sides: Sequence[tuple[Sequence[RunRecord], int]], numbers: dict[str, Any]) -> str:
    """What the missing seeds would take, as the runs of their side did: ", some $150 more", or the time where it is free."""
    seconds = usd = 0.0
    for side, more in sides:
        ended = [run for run in side if run.outcome is Outcome.COMPLETED and run.wall_s is not None]
        if not ended:
            return ""
        seconds += more * sum(run.wall_s or 0.0 for run in ended) / len(ended)
        usd += more * sum(run.usd for run in ended) / len(ended)
    numbers |= {"settle_usd": usd, "settle_s": seconds}
    if usd:
        return f", some ${usd:,.2f} more" if usd < 10 else f", some ${usd:,.0f} more"
    return f", some {duration(seconds)} of runs more" if seconds else ""
