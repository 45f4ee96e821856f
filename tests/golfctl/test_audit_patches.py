"""The mistakes that make byte patches look good, made by benchmarks/patch_mistakes.py: the audit finds each, and no other."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CAUGHT = {
    "honest": set(),
    "unshifted": {"R1", "A12 (warns)"},
    "divided-twice": {"R6", "A12 (warns)"},
    "tokens-as-patches": {"A6", "A12 (warns)"},
    "padding-counted": {"A7", "R6", "A12 (warns)"},
}


@pytest.mark.parametrize(
    "count", [pytest.param(2, marks=pytest.mark.service), pytest.param(len(CAUGHT), marks=pytest.mark.soak)]
)
def test_patch_mistakes_are_caught_and_the_honest_model_is_left_alone(tmp_path: Path, monkeypatch, count: int) -> None:
    """Each mistake, trained for a moment, claims a fraction of the honest score and is named by the check it belongs to."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import patch_mistakes

    settings = ["ITERATIONS=20", "NUM_LAYERS=1", "WARMDOWN_FRACTION=0.2"]
    rows = patch_mistakes.study(tmp_path, 8, settings, 240, patch_mistakes.CASES[:count])
    sys.modules.pop("patch_mistakes")
    told = {case.name: set(patch_mistakes.caught(checks).split(", ")) - {"-"} for case, _, checks in rows}
    told["unshifted"].discard("R3")  # what leaks also shows where a beginning of the text is asked alone
    assert told == {name: CAUGHT[name] for name in told}
    honest, *others = (claim for _, claim, _ in rows)
    assert all(claim < 0.4 * honest for claim in others)
