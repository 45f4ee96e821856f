"""YAML with places: what is read, what is refused, and where it stands."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from golfctl.errors import InputErrors
from golfctl.store import marks
from tests.golfctl.plankit import refusals


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "f.yaml is empty"),
        (b"# only a comment\n", "f.yaml is empty"),
        (b"id: D\ntitle: caf\xe9\n", "f.yaml:2:11 not UTF-8: byte 0xe9 at offset 16"),
        (b"diffs:\n\t- a\n", "f.yaml:2:1 a tab in the indentation"),
        (b"- a\n- b\n", "f.yaml:1:1 the file holds a list"),
        (b"word\n", "f.yaml:1:1 the file holds one value"),
        (b"a: b: c\n", "f.yaml:1:5 not YAML: mapping values are not allowed"),
        (b"a: [1,\nb: 2\n", "f.yaml:"),
        (b"a: 1\n---\nb: 1\n", "f.yaml:2:1 a second document"),
        (b"a: \x07\n", "f.yaml:1:4 control character U+0007"),
        (b"a: " + b"[" * 40 + b"]" * 40, "nested deeper than 32"),
        (b"a: " + b"x" * marks.MAX_BYTES, "f.yaml has 1000003 bytes"),
    ],
)
def test_marks_refuses_a_file_that_is_no_document(content: bytes, message: str) -> None:
    """One line says what is wrong and where."""
    (found,) = refusals(marks.read, content, "f.yaml")
    assert message in found
    assert "\n" not in found


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: 1\nb: 2\na: 3\n", "f.yaml:3:1 a: duplicate key; the first stands in line 1"),
        (b"x:\n  - {k: 1, k: 2}\n", "f.yaml:2:12 x[0].k: duplicate key; the first stands in line 2"),
        (b"s: {COMPILE: on}\n", "f.yaml:1:14 s.COMPILE: `on` is a truth value"),
        (b"id: NO\n", "f.yaml:1:5 id: `NO` is a truth value"),
        (b"a: &x 1\nb: *x\n", "f.yaml:2:4 b: '*x': aliases are not used"),
        (b"a: !!python/name:os.system x\n", "f.yaml:1:4 a: tag tag:yaml.org,2002:python/name:os.system: tags are"),
        (b"? [1]\n: 2\n", "f.yaml:1:3 a key must be plain text"),
        (b"{~: 2}\n", "f.yaml:1:2 a key must be plain text"),
    ],
)
def test_marks_reports_what_it_refuses_with_its_place(content: bytes, message: str) -> None:
    """The rest of the file is still read."""
    document = marks.read(content, "f.yaml")
    assert str(document.problems[0]).startswith(message)


def test_marks_reads_scalars_as_yaml_1_2_does() -> None:
    """Numbers with an exponent are numbers; octals, times, dates and words stay text; a sign is kept."""
    content = b"a: 1e-3\nb: 010\nc: 1:30\nd: 2026-03-23\ne: ~\nf: 'on'\ng: -2.50\nh: true\ni: 1_000\n1: x\n'1': y\n"
    document = marks.read(content, "f.yaml")
    assert document.value == {
        "a": 0.001, "b": "010", "c": "1:30", "d": "2026-03-23", "e": None, "f": "on", "g": -2.5, "h": True, "i": "1_000",
        1: "x", "1": "y",
    }  # fmt: skip
    assert document.text(["g"]) == "-2.50"
    assert document.problems == ()


def test_marks_places_keys_and_values() -> None:
    """A finding can be about a key or its value, and about the deepest part of a path that exists."""
    document = marks.read("é: 1\ndiffs:\n  - pathch: x\n".encode(), "f.yaml")
    assert str(document.problem(["diffs", 0, "pathch"], "no", key=True)) == "f.yaml:3:5 diffs[0].pathch: no"
    assert str(document.problem(["diffs", 0, "pathch"], "no")) == "f.yaml:3:13 diffs[0].pathch: no"
    assert str(document.problem(["diffs", 0, "gone", "x"], "no")) == "f.yaml:3:5 diffs[0].gone.x: no"


@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace"))))
def test_marks_any_bytes_give_a_document_or_input_errors(content: bytes) -> None:
    """No input raises anything else."""
    try:
        document = marks.read(content, "f.yaml")
    except InputErrors as error:
        assert error.problems
    else:
        assert isinstance(document.value, dict)
