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


@pytest.mark.service
def test_patch_mistakes_are_caught_and_the_honest_model_is_left_alone(tmp_path: Path, monkeypatch) -> None:
    """Each mistake, trained for a moment, claims a fraction of the honest score and is named by the check it belongs to."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import patch_mistakes

    settings = ["ITERATIONS=20", "NUM_LAYERS=1", "WARMDOWN_FRACTION=0.2"]
    found = {case.name: (claim, checks) for case, claim, checks in patch_mistakes.study(tmp_path, 8, settings, 240)}
    sys.modules.pop("patch_mistakes")
    told = {name: set(patch_mistakes.caught(checks).split(", ")) - {"-"} for name, (_, checks) in found.items()}
    told["unshifted"].discard("R3")  # what leaks also shows where a beginning of the text is asked alone
    assert told == CAUGHT
    honest = found["honest"][0]
    assert all(claim < 0.4 * honest for name, (claim, _) in found.items() if name != "honest")
