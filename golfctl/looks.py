"""Looks: how often a result was judged before, and what that leaves of alpha. Pure.

A look is a verdict that tested a score. Seeds no verdict has used, declared in a new revision under the same terms, are the next
look: it judges the former looks' seeds together with them, at the level of a group-sequential design. A look beyond the declared
ones is possible; it judges its new seeds alone, and costs alpha.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from golfctl import sequential
from golfctl.domain.gate import Gate
from golfctl.domain.run import RunRecord
from golfctl.domain.state import State
from golfctl.domain.verdict import Verdict


@dataclass(frozen=True)
class Look:
    """A former verdict on the same code at the same gate.

    spent: the error rate it took, see Level; same_terms: declared as the present one is, but for its seeds.
    """

    runs: tuple[RunRecord, ...]
    spent: float
    same_terms: bool


@dataclass(frozen=True)
class Level:
    """The level a look tests at, and in words why; "" where it is the gate's alpha.

    spent: what it adds to the error rate of all looks together. The first of declared looks answers for all of them.
    """

    alpha: float
    spent: float
    text: str = ""


def former(
    state: State,
    plan_id: str,
    gate: Gate,
    others: Collection[str],
    terms: Mapping[str, object],
    own: Collection[str] = (),
) -> tuple[Look, ...]:
    """The looks at this code at this gate, oldest first: each with the runs that none before it had.

    others: names of its runs in the present shape, under seeds of other verdicts; terms: `decide.gate_terms` of the gate. A look
    under another shape (other settings of the gate, another GPU) counts as one, too; its runs can't be judged with these.
    own: names of the runs that are judged now; a former revision's word on them is the same look.
    """
    revision = state.revision(plan_id)
    bundle = revision.bundle if revision else ""
    verdicts = [verdict for verdict, code in _tested(state, plan_id, gate) if code == bundle]
    found: list[Look] = []
    seen: set[str] = set(own)
    for verdict in sorted(
        verdicts, key=lambda verdict: len(verdict.runs)
    ):  # a later look names the runs of the earlier
        fresh = [name for name in verdict.runs if name not in seen]
        if not fresh:
            continue
        seen.update(fresh)
        frozen = next(item for item in state.revisions[verdict.plan] if item.number == verdict.revision).frozen
        same = all(name in others for name in fresh)
        same = same and next((item for item in frozen["gates"] if item["number"] == gate.number), None) == terms
        spent = verdict.numbers.get("alpha_spent", verdict.numbers["alpha"])  # old verdicts: Bonferroni's share is both
        found.append(Look(tuple(state.runs[name] for name in fresh), spent, same))
    return tuple(found)


def rewritten(state: State, plan_id: str, gate: Gate) -> int:
    """How many verdicts this plan has at this gate under other code: another technique by definition, and told all the same."""
    revision = state.revision(plan_id)
    bundle = revision.bundle if revision else ""
    return sum(verdict.plan == plan_id and code != bundle for verdict, code in _tested(state, plan_id, gate))


def _tested(state: State, plan_id: str, gate: Gate) -> list[tuple[Verdict, str]]:
    """Every verdict at this gate that tested a score, but for the present revision's, and the bundle it judged."""
    revision = state.revision(plan_id)
    current = (plan_id, revision.number if revision else 0)
    bundles = {(item.plan, item.number): item.bundle for known in state.revisions.values() for item in known}
    return [
        (verdict, bundles[plan, number])
        for (plan, number, at), verdict in state.verdicts.items()
        if at == gate.number and (plan, number) != current and "alpha" in verdict.numbers
    ]


def pooled(gate: Gate, own: Sequence[RunRecord], looks: Sequence[Look]) -> list[RunRecord]:
    """The runs of former looks that this look judges together with its own; empty unless the looks are those declared.

    Declared are `gate.looks` looks under one set of terms, each with as many new seeds as the first.
    """
    if not looks or len(looks) >= gate.looks:
        return []
    fits = all(look.same_terms and len({run.spec.seed for run in look.runs}) == len(own) for look in looks)
    return [run for look in looks for run in look.runs] if fits else []


def level(gate: Gate, new: int, looks: Sequence[Look], joined: bool, m: int | None) -> Level:
    """The nominal level of the next look. new: its new seeds; joined: whether it also judges the former looks' (see `pooled`).

    m: seeds of the other side of a Welch test; None for a one-sample or paired one; 0 for a test that has no noise of its own.
    """
    number = len(looks) + 1
    if looks and not joined:
        share = gate.alpha / max(number, gate.looks)
        text = (
            f"look {number}, not as declared (looks: {gate.looks}): its new seeds alone, at {gate.alpha:g} / "
            f"{max(number, gate.looks)}; with the former looks up to {sum(look.spent for look in looks) + share:.3g} "
            f"instead of {gate.alpha:g}"
        )
        return Level(_kept(share, new, m), share, text)
    if gate.looks == 1:
        alpha = _kept(gate.alpha, new, m)
        kept = f"Welch's test of {new} against {m} seeds keeps {gate.alpha:g} at {alpha:.3g}"
        return Level(alpha, gate.alpha, "" if alpha == gate.alpha else kept)
    spent = 0.0 if joined else gate.alpha
    if new < 2 or m == 0 or not sequential.MIN_ALPHA <= gate.alpha <= sequential.MAX_ALPHA:
        # Bonferroni holds for any dependence between the looks.
        alpha = _kept(gate.alpha / gate.looks, new * number, m)
        return Level(alpha, spent, f"look {number} of {gate.looks}, alpha {gate.alpha:g} / {gate.looks}")
    sizes = [new * (look + 1) for look in range(gate.looks)]
    alpha = sequential.nominal_alpha(gate.alpha, gate.looks, sequential.Kind.POCOCK, sizes, m)[number - 1]
    text = f"look {number} of {gate.looks}, at {', '.join(map(str, sizes))} seeds: each at {alpha:.3g}, {gate.alpha:g} in all"
    return Level(alpha, spent, text)


def _kept(alpha: float, own: int, m: int | None) -> float:
    """The level that keeps alpha in one look. own: the seeds that it judges."""
    return sequential.welch_alpha(alpha, own, m) if m and own > 1 else alpha
