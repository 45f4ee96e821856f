"""Looks: seeds added after a verdict are judged with the former ones where that was declared, and cost alpha where not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from golfctl import judge as judging
from golfctl import looks, sequential
from golfctl.decide import gate_terms
from golfctl.domain.gate import Answer, Gate, Requirement
from golfctl.domain.rules import Rules
from golfctl.domain.run import RunRecord
from golfctl.domain.state import Revision, State
from golfctl.domain.verdict import Verdict
from tests.golfctl.factories import bundle, gate, plan, run

TARGET = (Requirement("score", "<=", 2.35),)
FIRST = (1337, 42, 2025)


def final(count: int) -> Gate:
    return gate(4, require=TARGET, seeds=3, alpha=0.01, looks=count)


def seeds(at: Gate, numbers: Sequence[int], scores: Sequence[float]) -> list[RunRecord]:
    return [run("A", at, seed, score) for seed, score in zip(numbers, scores, strict=True)]


def judge(at: Gate, own: Sequence[RunRecord], former: Sequence[looks.Look] = ()) -> Verdict:
    others = [record for look in former for record in look.runs]
    return judging.judge(judging.Case(plan(), 1 + len(former), at, Rules(), own, [], [], others, former=former))


def known(at: Gate, verdicts: Sequence[Verdict], runs: Sequence[RunRecord], seeds: Sequence[Sequence[int]]) -> State:
    """A state in which every verdict has a revision of its own; one more revision stands without a verdict."""
    revisions = [
        Revision("A", number, f"d{number}", bundle("A"), {"seeds": list(item), "gates": [gate_terms(at)]})
        for number, item in enumerate(seeds, 1)
    ]
    found = {(item.plan, item.revision, item.gate): item for item in verdicts}
    return State(runs={item.spec.name: item for item in runs}, verdicts=found, revisions={"A": revisions})


def test_added_seeds_are_judged_with_the_former_ones_at_the_declared_level() -> None:
    """Two looks of three seeds: the second tests all six, at the level of a design with looks at three and six."""
    at = final(2)
    first, second = seeds(at, FIRST, [2.34, 2.345, 2.335]), seeds(at, (7, 8, 9), [2.338, 2.342, 2.339])
    before = judge(at, first)
    level = sequential.nominal_alpha(0.01, 2, "pocock", (3, 6))[0]
    assert (before.answer, before.numbers["alpha"]) == (Answer.INCONCLUSIVE, level)
    assert "look 1 of 2, at 3, 6 seeds" in before.reason

    state = known(at, [before], [*first, *second], [FIRST, (7, 8, 9)])
    former = looks.former(state, "A", at, [item.spec.name for item in first], gate_terms(at))
    verdict = judge(at, second, former)
    assert (verdict.answer, verdict.numbers["test"]["n"], verdict.numbers["alpha"]) == (Answer.PASS, 6, level)
    assert verdict.numbers["former_seeds"] == {"1337": 2.34, "42": 2.345, "2025": 2.335}
    assert len(verdict.runs) == 6


def test_third_look_counts_the_first_two_once_each() -> None:
    """The second verdict names the first one's runs, too; they are still two looks."""
    at = final(3)
    groups = [seeds(at, numbers, [2.34, 2.36, 2.35]) for numbers in (FIRST, (7, 8, 9), (10, 11, 12))]
    before = judge(at, groups[0])
    again = judge(at, groups[1], (looks.Look(tuple(groups[0]), 0.005, True),))
    everything = [item for group in groups for item in group]
    state = known(at, [before, again], everything, [FIRST, (7, 8, 9), (10, 11, 12)])
    former = looks.former(state, "A", at, [item.spec.name for item in everything[:6]], gate_terms(at))
    assert [[item.spec.seed for item in look.runs] for look in former] == [list(FIRST), [7, 8, 9]]
    verdict = judge(at, groups[2], former)
    assert verdict.numbers["test"]["n"] == 9
    assert "look 3 of 3, at 3, 6, 9 seeds" in verdict.reason


def test_look_that_was_not_declared_costs_alpha_and_says_so() -> None:
    """One look declared, judged, and other seeds started: these alone, at half of alpha; the verdict names the sum."""
    at = final(1)
    first, second = seeds(at, FIRST, [2.34, 2.36, 2.35]), seeds(at, (7, 8, 9), [2.33, 2.335, 2.325])
    before = judge(at, first)
    assert before.numbers["alpha"] == 0.01
    verdict = judge(at, second, (looks.Look(tuple(first), 0.01, True),))
    assert (verdict.numbers["alpha"], verdict.numbers["test"]["n"]) == (0.005, 3)
    assert "look 2, not as declared (looks: 1)" in verdict.reason
    assert "up to 0.015 instead of 0.01" in verdict.reason


@pytest.mark.parametrize("change", ["terms", "fewer seeds"])
def test_former_looks_under_other_terms_are_not_pooled(change: str) -> None:
    """More looks declared afterwards, or groups of other sizes, are no design that was fixed beforehand."""
    at = final(2)
    first, second = seeds(at, FIRST, [2.34, 2.36, 2.35]), seeds(at, (7, 8, 9), [2.33, 2.335, 2.325])
    look = looks.Look(tuple(first), 0.01, change != "terms")
    if change == "fewer seeds":
        look = replace(look, runs=look.runs[:2])
    verdict = judge(at, second, (look,))
    assert (verdict.numbers["test"]["n"], verdict.numbers["alpha"]) == (3, 0.005)
    assert "not as declared" in verdict.reason


def test_changed_terms_are_seen() -> None:
    """A revision that declares one look more than the verdict's had other terms."""
    at = final(1)
    first = seeds(at, FIRST, [2.34, 2.36, 2.35])
    state = known(at, [judge(at, first)], first, [FIRST, (7, 8, 9)])
    names = [item.spec.name for item in first]
    assert [look.same_terms for look in looks.former(state, "A", at, names, gate_terms(at))] == [True]
    assert [look.same_terms for look in looks.former(state, "A", at, names, gate_terms(final(2)))] == [False]


def test_welch_against_many_base_seeds_tests_at_the_level_that_keeps_alpha() -> None:
    """Three seeds against three: 0.01; against ten it would accept 1.6 %, so the level is lower, and the verdict says so."""
    at = gate(4, require=(Requirement("score", "<=", -0.05, "base"),), seeds=3, alpha=0.01)
    own, base = seeds(at, FIRST, [2.34, 2.36, 2.35]), [run("base", at, 50 + n, 2.4 + n / 1000) for n in range(10)]
    few, many = (judging.judge(judging.Case(plan(), 1, at, Rules(), own, [], side)) for side in (base[:3], base))
    assert (few.numbers["alpha"], many.numbers["alpha"]) == (0.01, sequential.welch_alpha(0.01, 3, 10))
    assert "Welch's test of 3 against 10 seeds keeps 0.01 at 0.00" in many.reason
    assert "Welch's" not in few.reason


def test_looks_that_were_added_are_summed_by_what_each_may_accept() -> None:
    """Two declared looks are 0.01 in all, however low the level of each; a third adds its share."""
    at = final(2)
    groups = [seeds(at, numbers, [2.34, 2.36, 2.35]) for numbers in (FIRST, (7, 8, 9), (10, 11, 12))]
    first = judge(at, groups[0])
    second = judge(at, groups[1], (looks.Look(tuple(groups[0]), first.numbers["alpha_spent"], True),))
    assert (first.numbers["alpha_spent"], second.numbers["alpha_spent"]) == (0.01, 0.0)
    third = judge(
        at,
        groups[2],
        tuple(looks.Look(tuple(group), spent, True) for group, spent in zip(groups, (0.01, 0.0), strict=False)),
    )
    assert (third.numbers["alpha"], third.numbers["test"]["n"]) == (pytest.approx(0.01 / 3), 3)
    assert "look 3, not as declared (looks: 2)" in third.reason
    assert "up to 0.0133 instead of 0.01" in third.reason


def test_verdict_that_tested_nothing_is_no_look() -> None:
    """A crash says nothing about the score: other seeds have all of alpha."""
    at = final(1)
    first = [*seeds(at, FIRST[:2], [2.3, 2.31]), run("A", at, 2025, score=None)]
    before = judge(at, first)
    assert before.cause == "no-score"
    state = known(at, [before], first, [FIRST, (7, 8, 9)])
    assert looks.former(state, "A", at, [item.spec.name for item in first], gate_terms(at)) == ()


def test_look_under_another_shape_costs_alpha_all_the_same() -> None:
    """The gate's settings changed in between (or the GPU did): the second look tests its own seeds at half of alpha."""
    before, after = final(1), replace(final(1), env={"ITERATIONS": "4"})
    first, second = seeds(before, FIRST, [2.34, 2.36, 2.345]), seeds(after, (7, 8, 9), [2.30, 2.301, 2.302])
    verdict = judge(before, first)
    assert verdict.answer is Answer.INCONCLUSIVE
    state = known(before, [verdict], [*first, *second], [FIRST, (7, 8, 9)])
    former = looks.former(state, "A", after, [], gate_terms(after), [item.spec.name for item in second])
    assert [look.same_terms for look in former] == [False]
    again = judge(after, second, former)
    assert again.numbers["alpha"] == 0.005
    assert "look 2, not as declared" in again.reason


def test_word_of_a_former_revision_on_the_same_runs_is_the_same_look() -> None:
    """A revision that changed nothing the gate depends on is judged as the first one was."""
    at = final(1)
    first = seeds(at, FIRST, [2.34, 2.36, 2.345])
    state = known(at, [judge(at, first)], first, [FIRST, FIRST])
    assert looks.former(state, "A", at, [], gate_terms(at), [item.spec.name for item in first]) == ()


def test_verdicts_on_other_code_are_counted_and_said() -> None:
    """Another bundle under the same name is another technique; that it is the third try stands beside the verdict."""
    at = final(1)
    first = seeds(at, FIRST, [2.34, 2.36, 2.345])
    state = known(at, [judge(at, first)], first, [FIRST, FIRST])
    state.revisions["A"][1] = replace(state.revisions["A"][1], bundle="f" * 64)
    assert looks.rewritten(state, "A", at) == 1
    assert looks.former(state, "A", at, [], gate_terms(at)) == ()
    case = judging.Case(plan(), 2, at, Rules(), first, [], [], rewritten=1)
    assert any("verdict 2 of this plan at this gate" in check.text for check in judging.judge(case).checks)
