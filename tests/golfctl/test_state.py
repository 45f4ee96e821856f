"""The fold: events in any order across machines, one meaning."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest

from golfctl.domain.event import Event, Type, parse
from golfctl.domain.gate import Answer, Requirement
from golfctl.domain.run import Outcome
from golfctl.domain.state import State, fold
from golfctl.domain.verdict import Verdict
from tests.golfctl.factories import gates, plan, result, spec

SMOKE = gates()[0]
RUN = spec("A", SMOKE)


def event(kind: Type, data: dict[str, object], machine: str = "m000001", seq: int = 1) -> Event:
    return Event(machine, seq, "", "2026-01-01T00:00:00Z", kind, data)


INTENT = event(Type.RUN_INTENT, {"spec": asdict(RUN)})
FINISH = event(
    Type.RUN_FINISHED,
    {"run": RUN.name, "outcome": "completed", "reason": "", "wall_s": 9.0, "usd": 0.5, "result": asdict(result(2.1))},
    machine="m000002",
)


def test_which_of_two_endings_counts_does_not_hang_on_clocks() -> None:
    """Another machine that never saw the result records the run as lost: the score that was seen stays, in either order."""
    lost = event(
        Type.RUN_FINISHED,
        {"run": RUN.name, "outcome": "lost", "reason": "", "wall_s": None, "usd": 0.0, "result": None},
        machine="m000003",
    )
    for events in ([INTENT, FINISH, lost], [INTENT, lost, FINISH]):
        record = fold(events).runs[RUN.name]
        assert (record.outcome, record.scored, record.usd) == (Outcome.COMPLETED, True, 0.5)


def verdict(answer: Answer) -> Event:
    return event(Type.VERDICT, Verdict("A", 1, 1, answer, "said").as_data())


def test_run_is_known_from_intent_to_end() -> None:
    """Intent, start, finish; the result comes back as it went in."""
    assert not fold([INTENT]).runs[RUN.name].started
    assert fold([INTENT, event(Type.RUN_STARTED, {"run": RUN.name})]).runs[RUN.name].started
    record = fold([INTENT, FINISH]).runs[RUN.name]
    assert (record.outcome, record.result, record.usd) == (Outcome.COMPLETED, result(2.1), 0.5)


def test_order_across_machines_does_not_matter() -> None:
    """A clock that is behind may put the end before the intent."""
    assert fold([FINISH, INTENT]).runs == fold([INTENT, FINISH]).runs


def test_repeated_intent_is_the_same_run() -> None:
    """A resumed launch writes no second run."""
    assert len(fold([INTENT, FINISH, INTENT]).runs) == 1
    assert fold([INTENT, FINISH, INTENT]).runs[RUN.name].finished


def test_first_verdict_stands() -> None:
    """A second verdict on the same revision and gate would be a second look."""
    frozen = event(Type.PLAN_FROZEN, {"plan": "A", "revision": 1, "digest": "d", "bundle": "b"})
    state = fold([frozen, verdict(Answer.FAIL), verdict(Answer.PASS)])
    said = state.verdict("A", 1)
    assert said is not None
    assert said.answer is Answer.FAIL


def test_waiver_belongs_to_a_revision() -> None:
    """A new revision starts without the old one's waivers."""
    frozen = [
        event(Type.PLAN_FROZEN, {"plan": "A", "revision": number, "digest": str(number), "bundle": "b"})
        for number in (1, 2)
    ]
    waiver = event(Type.WAIVER, {"plan": "A", "revision": 1, "gate": 2, "reason": "because"})
    assert fold([frozen[0], waiver]).waived("A", 2) == "because"
    assert fold([*frozen, waiver]).waived("A", 2) is None


def test_number_that_two_machines_gave_to_two_forms_names_neither() -> None:
    """What one form passed the other never ran: nothing under that number holds, in either order, and the next is its own."""
    ours, theirs = (
        event(Type.PLAN_FROZEN, {"plan": "A", "revision": 1, "digest": digest, "bundle": "b"}, machine)
        for machine, digest in (("m000001", "digest-A"), ("m000002", "other"))
    )
    waiver = event(Type.WAIVER, {"plan": "A", "revision": 1, "gate": 2, "reason": "because"})
    for events in ([ours, verdict(Answer.PASS), waiver, theirs], [theirs, ours, verdict(Answer.PASS), waiver]):
        state = fold(events)
        assert state.forked("A")
        assert (state.verdict("A", 1), state.waived("A", 2)) == (None, None)
        assert state.revision("A") == fold(events[::-1]).revision("A")
        seen = state.seen_as({"A": plan("A")}).revision("A")
        assert seen is not None
        assert (seen.number, seen.digest) == (2, "digest-A")
    assert not fold([ours, replace(ours, machine="m000002")]).forked("A")


def test_empty_ledger_is_an_empty_state() -> None:
    """Nothing is invented."""
    assert fold([]) == State()


@pytest.mark.parametrize("line", [b"", b"{}", b"[]", b"null", b'{"seq":1}', b"\xff", b'{"seq":"x"}'])
def test_parse_refuses_what_is_no_event(line: bytes) -> None:
    """Any garbage is a ValueError, never another exception."""
    with pytest.raises(ValueError, match=r".*"):
        parse(line)


def test_event_line_round_trips() -> None:
    """What is hashed is what is read."""
    assert parse(INTENT.line()).line() == INTENT.line()


@pytest.mark.parametrize(
    ("requirement", "text"),
    [
        (Requirement("score", "<=", 1.1174), "score <= 1.1174"),
        (Requirement("score", "<=", -0.05, "base"), "score <= base - 0.05"),
        (Requirement("score", "<", 0.0, "parent"), "score < parent + 0"),
    ],
)
def test_requirement_prints_as_it_is_written(requirement: Requirement, text: str) -> None:
    """People see the form they wrote."""
    assert str(requirement) == text
