"""Many plans tested against one base: the report says what is left of each p."""

from __future__ import annotations

from dataclasses import replace

import pytest

from golfctl import judge as judging
from golfctl.decide import gate_terms
from golfctl.domain.rules import Rules
from golfctl.domain.state import Revision, State
from golfctl.domain.verdict import Verdict
from golfctl.report.summary import families, summarise
from golfctl.report.text import beside_lines
from tests.golfctl.factories import bundle, gates, plan, runs

FINAL = gates()[-1]
BASE = runs("base", FINAL, [2.40, 2.41, 2.39])


def judged(name: str, scores: list[float]) -> Verdict:
    return judging.judge(judging.Case(plan(name), 1, FINAL, Rules(), runs(name, FINAL, scores), BASE, BASE))


def state(**found: Verdict) -> State:
    """One revision of every plan, each judged at the final gate."""
    terms = [gate_terms(gate) for gate in gates()]
    frozen = {"seeds": [1337, 42, 2025], "gates": terms, "base": "base", "parent": "base"}
    return State(
        verdicts={(name, 1, 4): verdict for name, verdict in found.items()},
        revisions={name: [Revision(name, 1, "d", bundle(name), frozen)] for name in found},
    )


def test_report_shows_holm_beside_the_p_of_each_plan() -> None:
    """Three plans: the smallest p counts three times, the others keep the order."""
    known = state(
        A=judged("A", [2.33, 2.32, 2.31]), B=judged("B", [2.34, 2.33, 2.32]), C=judged("C", [2.401, 2.392, 2.408])
    )
    found = families(known)
    p = {name: verdict.numbers["test"]["p"] for (name, _, _), verdict in known.verdicts.items()}
    assert {name: item.p for (name, _, _), item in found.items()} == p
    assert found["A", 1, 4].holm == pytest.approx(3 * p["A"])
    assert found["B", 1, 4].holm == pytest.approx(2 * p["B"])
    row = next(row for row in summarise("c", "base", "bpb", known, {}, {}, [], only="A").plans)
    (line,) = [line for line in beside_lines(row.gates[0]) if "Holm" in line]
    assert line == (
        f"3 plans on base were tested at their final gate: p = {p['A']:.2g} alone, "
        f"{3 * p['A']:.2g} by Holm's correction for all of them"
    )


def test_plan_that_was_not_tested_counts_for_nothing() -> None:
    """A crash at the final gate is no test, a plan on another base another family, and one alone needs no correction."""
    gain = judged("A", [2.33, 2.32, 2.31])
    assert families(state(A=gain, B=replace(judged("B", [2.3, 2.4, 2.35]), numbers={}))) == {}
    known = state(A=gain, B=judged("B", [2.34, 2.33, 2.32]))
    known.revisions["B"] = [
        replace(known.revisions["B"][0], frozen={**known.revisions["B"][0].frozen, "base": "other"})
    ]
    assert families(known) == {}


def test_newest_test_of_a_plan_is_its_only_one() -> None:
    """A plan that was judged again with more seeds is one plan; its former verdict is no second one."""
    known = state(A=judged("A", [2.33, 2.32, 2.31]), B=judged("B", [2.34, 2.33, 2.32]))
    known.revisions["A"].append(replace(known.revisions["A"][0], number=2))
    known.verdicts["A", 2, 4] = replace(judged("A", [2.31, 2.3, 2.3]), revision=2)
    assert set(families(known)) == {("A", 2, 4), ("B", 1, 4)}
