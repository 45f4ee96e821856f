"""failures.md and log.md: appended once, never rewritten."""

from __future__ import annotations

from pathlib import Path

import pytest

from golfctl.domain.event import Event, Type
from golfctl.domain.gate import Answer
from golfctl.domain.state import State, fold
from golfctl.domain.verdict import Verdict
from golfctl.errors import InputError
from golfctl.store import notebook

TITLES = {"A": "A bold idea"}


def event(seq: int, kind: Type, data: dict[str, object]) -> Event:
    return Event("m000001", seq, "", f"2026-01-0{seq}T00:00:00Z", kind, data)


def state(*events: Event) -> State:
    return fold(events)


def verdict(seq: int, gate: int, answer: Answer) -> Event:
    made = Verdict("A", 1, gate, answer, "2.43 against 2.40", cause="worse-than-parent", runs=("A.g1",))
    return event(seq, Type.VERDICT, made.as_data())


@pytest.fixture
def paths(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "log.md", tmp_path / "failures.md"


def test_sync_writes_each_entry_once(paths: tuple[Path, Path]) -> None:
    """Twice the same state: the second time nothing changes."""
    log, failures = paths
    known = state(verdict(1, 1, Answer.PASS), verdict(2, 2, Answer.FAIL))
    notebook.sync(log, failures, known, TITLES)
    first = log.read_text(), failures.read_text()
    notebook.sync(log, failures, known, TITLES)
    assert (log.read_text(), failures.read_text()) == first
    assert first[0].count("## ") == 2
    assert first[1].count("## ") == 1
    assert "A bold idea" in first[1]


def test_sync_appends_what_a_crash_kept_from_being_written(paths: tuple[Path, Path]) -> None:
    """An entry that is missing is added, whatever stands there already."""
    log, failures = paths
    notebook.sync(log, failures, state(verdict(1, 1, Answer.PASS)), TITLES)
    log.write_text(log.read_text() + "\nMy own note, no newline at the end")
    notebook.sync(log, failures, state(verdict(1, 1, Answer.PASS), verdict(2, 2, Answer.FAIL)), TITLES)
    text = log.read_text()
    assert "My own note, no newline at the end\n" in text
    assert text.count("<!-- event") == 2


def test_why_takes_the_place_of_the_stub_and_later_ones_are_added(paths: tuple[Path, Path]) -> None:
    """The first why replaces the placeholder; a second one does not replace the first."""
    log, failures = paths
    notebook.sync(log, failures, state(verdict(1, 2, Answer.FAIL)), TITLES)
    notebook.write_why(failures, "m000001:1", "too few heads rotate", "2026-01-03T00:00:00Z")
    notebook.write_why(failures, "m000001:1", "confirmed at 8 layers", "2026-01-04T00:00:00Z")
    text = failures.read_text()
    assert "- why: too few heads rotate\n" in text
    assert "- why (2026-01-04): confirmed at 8 layers" in text
    assert notebook.OPEN_WHY not in text


def test_why_never_touches_what_a_person_wrote(paths: tuple[Path, Path]) -> None:
    """A why written by hand in the file stays; the command adds its own line to the right entry."""
    log, failures = paths
    notebook.sync(log, failures, state(verdict(1, 1, Answer.FAIL), verdict(2, 2, Answer.FAIL)), TITLES)
    text = (
        failures.read_text().replace(f"- why: {notebook.OPEN_WHY}", "- why: my own words", 1) + "\nA closing remark.\n"
    )
    failures.write_text(text)
    notebook.write_why(failures, "m000001:1", "the tool's words", "2026-01-03T00:00:00Z")
    after = failures.read_text()
    for line in text.splitlines():
        assert line in after.splitlines()
    assert after.index("the tool's words") < after.index("at gate 2")


def test_why_for_a_missing_entry_is_refused(paths: tuple[Path, Path]) -> None:
    """Nothing is written to a file that has no such entry."""
    with pytest.raises(InputError, match="has no entry"):
        notebook.write_why(paths[1], "m000001:9", "x", "2026-01-03T00:00:00Z")


def test_failures_carry_their_newest_why() -> None:
    """Notes by hand and failed gates in one list, oldest first."""
    note = {"subject": "jepa", "title": "JEPA loss", "numbers": "+0.01", "why": "", "cause": "noted"}
    known = state(
        verdict(1, 2, Answer.FAIL),
        event(2, Type.FAILURE_NOTE, note),
        event(3, Type.FAILURE_WHY, {"failure": "m000001:2", "why": "collapse"}),
        verdict(4, 3, Answer.INCONCLUSIVE),
    )
    found = notebook.failures_of(known, TITLES)
    assert [(failure.subject, failure.why) for failure in found] == [("A", ""), ("jepa", "collapse")]


def test_entry_says_whose_failure_it_was(paths: tuple[Path, Path]) -> None:
    """The campaign's own, or who tried it and where that is written; in the file and in the list."""
    note = {"subject": "jepa", "title": "JEPA loss", "numbers": "+0.01", "why": "", "cause": "noted"}
    known = state(
        verdict(1, 2, Answer.FAIL), event(2, Type.FAILURE_NOTE, note | {"who": "Ann", "source": "contest #1"})
    )
    notebook.sync(*paths, known, TITLES)
    text = paths[1].read_text()
    assert "- tried: A bold idea\n- who: this campaign\n- numbers:" in text
    assert "- tried: JEPA loss\n- who: Ann, contest #1\n- numbers:" in text
    found = notebook.failures_of(known, TITLES)
    assert [(failure.who, failure.source) for failure in found] == [("", ""), ("Ann", "contest #1")]
