"""The GPU benchmark proves itself without a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainer.tiny import call, environment

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_side_by_side.py"


@pytest.mark.service
def test_gpu_side_by_side_tests_itself(tmp_path: Path) -> None:
    """Our trainer and a stand-in with the contest's lines are run in turns, compared and written down."""
    page = tmp_path / "page.md"
    done = call(SCRIPT, "--self-test", "--pairs", 1, "--out", page, env=environment(tmp_path / "cache"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert "| script | 20.00 | 6,400 |" in text
    assert "Step time, ours over the script's: **" in text
    assert text.count("7,828 |") == 2
