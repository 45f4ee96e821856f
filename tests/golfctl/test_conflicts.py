"""Conflicts: declared or detected; an error in one stack, a note between independent plans, an override by a dependent."""

from __future__ import annotations

from pathlib import Path

import pytest

from golfctl.store.campaign import Campaign
from golfctl.store.check import check
from tests.golfctl import plankit

LINES = plankit.SCRIPT.splitlines(keepends=True)


def changed(*edits: tuple[int, str], before: str = plankit.SCRIPT) -> str:
    """The script with lines (from 1) replaced."""
    lines = before.splitlines(keepends=True)
    for number, text in edits:
        lines[number - 1] = text
    return "".join(lines)


@pytest.fixture
def campaign(tmp_path: Path) -> Campaign:
    return plankit.make(tmp_path)


def test_conflict_of_settings_is_told_to_the_plan_that_joins_them(campaign: Campaign) -> None:
    """A and B are fine alone; C can't have both."""
    plankit.plan(campaign, "A", "diffs:\n  - set: {WIDTH: 8}\n")
    plankit.plan(campaign, "B", "diffs:\n  - set: {WIDTH: 32}\n")
    plankit.plan(campaign, "C", "depends_on: [A, B]\n")
    assert plankit.said(campaign) == [
        "plans/C.yaml:4:13 depends_on: WIDTH is set to 8 by A and to 32 by B; they can't be stacked"
    ]


def test_conflict_free_when_both_set_the_same_value(campaign: Campaign) -> None:
    """Agreeing is no conflict."""
    for name in "AB":
        plankit.plan(campaign, name, "diffs:\n  - set: {WIDTH: 8}\n")
    plankit.plan(campaign, "C", "depends_on: [A, B]\ndiffs:\n  - set: {LEARNING_RATE: 1}\n")
    findings = check(campaign)
    assert findings.problems == ()
    assert [note for note in findings.notes if "same as" in note] == [
        f"B: is the same as A: both freeze to bundle {findings.resolved['A'].bundle[:12]}"
    ]


def test_conflict_with_a_dependency_is_an_override(campaign: Campaign) -> None:
    """A plan written on top of another may change what that one changed; it is said."""
    plankit.plan(campaign, "A", "diffs:\n  - set: {WIDTH: 8}\n")
    plankit.plan(campaign, "B", "depends_on: [A]\ndiffs:\n  - set: {WIDTH: 32}\n")
    findings = check(campaign)
    assert findings.problems == ()
    assert findings.notes == ("B: overrides: WIDTH is set to 8 by A and to 32 by B",)


def test_conflict_of_a_plan_with_itself(campaign: Campaign) -> None:
    """Two diffs of one plan that disagree are a mistake."""
    plankit.plan(campaign, "A", "diffs:\n  - set: {WIDTH: 8}\n  - set: {WIDTH: 9}\n")
    assert plankit.said(campaign) == ["plans/A.yaml:6:18 diffs[1].set.WIDTH: WIDTH is set to 9 here and to 8 before"]


def test_conflict_declared_is_an_error_in_a_stack(campaign: Campaign) -> None:
    """Whoever declares it, and also against a dependency."""
    plankit.plan(campaign, "A", "conflicts_with: [B]\n")
    plankit.plan(campaign, "B", "depends_on: [A]\n")
    plankit.plan(campaign, "C", "conflicts_with: [D]\ndepends_on: [D]\n")
    plankit.plan(campaign, "D")
    assert plankit.said(campaign) == [
        "plans/B.yaml:4:13 depends_on: A declares a conflict with B; both are in the stack of B",
        "plans/C.yaml:4:18 conflicts_with[0]: C declares a conflict with D; both are in the stack of C",
    ]


def test_conflict_between_independent_plans_is_a_note(campaign: Campaign) -> None:
    """Nothing stops them from running each on its own."""
    plankit.plan(campaign, "A", "diffs:\n  - set: {WIDTH: 8}\n")
    plankit.plan(campaign, "B", "diffs:\n  - set: {WIDTH: 32}\n")
    plankit.plan(campaign, "P", f"diffs:\n  - patch: {plankit.patch(campaign, 'p', *pair(9, '1'))}\n")
    plankit.plan(campaign, "Q", f"diffs:\n  - patch: {plankit.patch(campaign, 'q', *pair(9, '2'))}\n")
    plankit.plan(campaign, "R", f"diffs:\n  - patch: {plankit.patch(campaign, 'r', *pair(18, '3'))}\n")
    findings = check(campaign)
    assert findings.problems == ()
    assert findings.notes == (
        "WIDTH is set to different values by A (8), B (32): they can't be stacked side by side",
        "P and Q change the same lines of tiny.py: they can't be stacked side by side",
    )


def pair(number: int, text: str) -> tuple[str, str]:
    """The script before and after a change of one line inside a function."""
    return plankit.SCRIPT, changed((number, f"    pass  # {text}\n"))


@pytest.mark.service
def test_conflict_of_patches_on_the_same_lines(campaign: Campaign) -> None:
    """Two patches of one line can't be joined, even if git would take the second for applied."""
    plankit.plan(campaign, "P", f"diffs:\n  - patch: {plankit.patch(campaign, 'p', *pair(9, '1'))}\n")
    plankit.plan(campaign, "Q", f"diffs:\n  - patch: {plankit.patch(campaign, 'q', *pair(9, '2'))}\n")
    plankit.plan(campaign, "S", "depends_on: [P, Q]\n")
    found = plankit.said(campaign)
    assert found[0] == (
        "plans/S.yaml:4:13 depends_on: P and Q (patches/q.patch:3) change the same lines of tiny.py; they can't be stacked"
    )
    assert "does not apply" in found[1]


@pytest.mark.service
def test_patches_far_apart_stack_although_lines_moved(campaign: Campaign) -> None:
    """The first patch shifts what the second touches; that is no overlap."""
    longer = plankit.SCRIPT.replace("import os\n", "import os\n" + "# one more\n" * 7)
    plankit.plan(campaign, "P", f"diffs:\n  - patch: {plankit.patch(campaign, 'p', plankit.SCRIPT, longer)}\n")
    plankit.plan(campaign, "Q", f"diffs:\n  - patch: {plankit.patch(campaign, 'q', *pair(18, 'x'))}\n")
    plankit.plan(campaign, "S", "depends_on: [P, Q]\ndiffs:\n  - set: {WIDTH: 3}\n")
    findings = check(campaign)
    assert findings.problems == ()
    assert not any("same lines" in note for note in findings.notes)
