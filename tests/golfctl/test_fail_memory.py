"""Which recorded failures a plan is told of, and when it owes an answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from golfctl.domain.event import Event, Type
from golfctl.domain.gate import Answer
from golfctl.domain.state import State, fold
from golfctl.domain.verdict import Verdict
from golfctl.store import bundle
from golfctl.store.campaign import Campaign, load
from golfctl.store.deadends import Resemblance, every_failure, resemblances, search, unanswered
from tests.golfctl import plankit

FIELD = "preset: cpu-demo\n"
LOOPED = "id: {id}\ntitle: Run the block twice\nhypothesis: more depth for the same bytes\ndiffs:\n  - set: {{WIDTH: {width}}}\n"


@pytest.fixture
def campaign(tmp_path: Path) -> Campaign:
    """Without a preset: what the field knows is not about it."""
    return plankit.make(tmp_path)


def write(campaign: Campaign, name: str, width: int = 8, more: str = "", folder: str = "") -> None:
    path = campaign.plans_folder / folder / f"{name}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(LOOPED.format(id=name, width=width) + more)


def event(seq: int, kind: Type, **data: object) -> Event:
    return Event("m000001", seq, "", f"2026-01-0{seq}T00:00:00Z", kind, data)


def failed(seq: int, plan: str, reason: str = "1.3 against 1.2") -> Event:
    made = Verdict(plan, seq, 2, Answer.FAIL, reason, cause="worse-than-parent")
    return event(seq, Type.VERDICT, **made.as_data())


def told(campaign: Campaign, state: State, *chosen: str) -> list[Resemblance]:
    return resemblances(campaign, campaign.read_plans()[0], chosen, state)


def test_own_failure_is_told_to_a_plan_that_repeats_it(campaign: Campaign) -> None:
    """Its why and numbers, and whose it was; the same settings need an answer, which names file and remedy."""
    write(campaign, "A")
    write(campaign, "B", more="tags: [depth]\n")
    why = event(2, Type.FAILURE_WHY, failure="m000001:1", why="too slow")
    (item,) = told(campaign, fold([failed(1, "A"), why]), "B")
    assert item.told == (
        'resembles a recorded failure: "Run the block twice" (too slow). 1.3 against 1.2. '
        "Both: WIDTH=8. Recorded by this campaign."
    )
    assert item.open
    (problem,) = unanswered([item, item], campaign.read_plans()[0])
    assert str(problem).startswith("plans/B.yaml not_a_repeat: missing: the plan repeats the recorded failure 'A'")
    assert "golfctl fail waive B --reason WHY" in str(problem)


def test_plan_owes_no_answer_for_another_value(campaign: Campaign) -> None:
    """It is told, and may run."""
    write(campaign, "A")
    write(campaign, "B", width=32)
    (item,) = told(campaign, fold([failed(1, "A")]), "B")
    assert not item.strong
    assert unanswered([item], campaign.read_plans()[0]) == []


def test_plan_is_not_told_of_its_own_failure(campaign: Campaign) -> None:
    """Its revisions are shown elsewhere. A plan that builds on a failed one goes on from it knowingly."""
    write(campaign, "A")
    write(campaign, "B", more="depends_on: [A]\n")
    state = fold([failed(1, "A")])
    assert told(campaign, state, "A") == []
    assert [item.strong for item in told(campaign, state, "B")] == [False]


def test_answer_in_the_file_or_a_waiver_closes_it(campaign: Campaign) -> None:
    """Either is shown with the resemblance; a plan that has run already is asked nothing more."""
    write(campaign, "A")
    write(campaign, "B", more="not_a_repeat: the kernel is new\n")
    write(campaign, "C")
    failure = failed(1, "A")
    waived = event(2, Type.REPEAT_WAIVED, plan="C", failures=["m000001:1"], reason="on purpose")
    frozen = event(3, Type.PLAN_FROZEN, plan="C", revision=1, digest="d", bundle="b")
    (in_file,) = told(campaign, fold([failure]), "B")
    assert in_file.strong and not in_file.open
    assert in_file.told.endswith("Answered: the kernel is new")
    assert [item.answer for item in told(campaign, fold([failure, waived]), "C")] == ["on purpose"]
    assert [item.open for item in told(campaign, fold([failure]), "C")] == [True]
    assert [item.open for item in told(campaign, fold([failure, waived]), "C")] == [False]
    assert [item.open for item in told(campaign, fold([failure, frozen]), "C")] == [False]


def test_waiver_answers_only_what_it_names(campaign: Campaign) -> None:
    """Also after the waived idea failed once more; never another failure that an edited plan comes to resemble."""
    write(campaign, "A")
    write(campaign, "C")
    waived = event(2, Type.REPEAT_WAIVED, plan="C", failures=["m000001:1"], reason="on purpose")
    again = told(campaign, fold([failed(1, "A"), waived, failed(3, "A")]), "C")
    assert [(item.failure.id, item.answer) for item in again] == [("m000001:3", "on purpose")]
    write(campaign, "B", width=32)
    write(campaign, "C", width=32)
    found = told(campaign, fold([failed(1, "A"), waived, failed(3, "B")]), "C")
    assert {item.failure.subject: (item.open, item.answer) for item in found if item.strong} == {"B": (True, "")}


def test_answer_makes_no_new_revision(campaign: Campaign) -> None:
    """Words change nothing that a verdict depends on."""
    write(campaign, "A")
    before = bundle.resolve(campaign, campaign.read_plans()[0], "A").digest
    write(campaign, "A", more="not_a_repeat: the kernel is new\n")
    assert bundle.resolve(campaign, campaign.read_plans()[0], "A").digest == before


def test_plan_that_failed_twice_is_told_once(campaign: Campaign) -> None:
    """With its last numbers; also when it was retired."""
    write(campaign, "A", folder="retired")
    write(campaign, "B")
    state = fold([failed(1, "A", "first"), failed(2, "A", "second")])
    (item,) = told(campaign, state, "B")
    assert item.failure.numbers == "second"
    assert item.failure.title == "Run the block twice"


def test_field_is_known_where_a_preset_was_used(tmp_path: Path) -> None:
    """Shown as the field's, with its source; a campaign about something else is left alone."""
    campaign = plankit.make(tmp_path, plankit.GOLF + FIELD)
    plankit.plan(campaign, "D")
    path = campaign.plans_folder / "D.yaml"
    path.write_text(path.read_text().replace("A plan", "Int5 MLP pays for a larger bigram table"))
    (item,) = told(campaign, fold([]), "D")
    assert '"BigramHash beyond 10240 buckets" (gain below parameter cost' in item.told
    assert "Recorded by the field, contest 2026-03-20 10L_Int5MLP README" in item.told
    (tmp_path / "golf.yaml").write_text(plankit.GOLF)
    assert told(load(tmp_path), fold([]), "D") == []


def test_search_knows_the_words_of_the_field(campaign: Campaign) -> None:
    """The campaign's own under a synonym; nothing for what nobody spoke of."""
    write(campaign, "A")
    note = event(
        2, Type.FAILURE_NOTE, subject="x", title="SwiGLU MLP", numbers="+0.01", why="", cause="noted", who="Ann"
    )
    state = fold([failed(1, "A"), note])
    assert [failure.subject for failure in search(campaign, state, "gated feed-forward")] == ["x"]
    assert search(campaign, state, "tokenizer") == []
    assert [failure.who for failure in every_failure(campaign, state)] == ["", "Ann"]


def test_not_a_repeat_must_be_text(campaign: Campaign) -> None:
    """As any key of a plan: kind and place are told."""
    plankit.plan(campaign, "A", "not_a_repeat: [x]\n")
    assert plankit.said(campaign)[0].startswith("plans/A.yaml:4:15 not_a_repeat: ")
