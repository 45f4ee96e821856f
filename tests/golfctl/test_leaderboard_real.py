"""Twenty-three real record folders, as a careful reader wrote down what they hold. Skipped where they are not."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from golfctl.store import leaderboard
from tests.golfctl import recordkit

RECORDS = Path(os.environ.get("GOLFCTL_RECORDS") or Path(__file__).resolve().parents[3] / "shared" / "records")
pytestmark = pytest.mark.skipif(
    not (RECORDS / "folders.jsonl").exists(), reason="needs the folder of real logs; GOLFCTL_RECORDS names it"
)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The imported rows by folder name."""
    found = recordkit.campaign(tmp_path_factory.mktemp("real") / "golf")
    leaderboard.take(found, RECORDS)
    return {row["folder"]: row for row in leaderboard.load(found)}


def truths() -> list[dict[str, Any]]:
    """What the careful reader found, one entry a folder."""
    path = RECORDS / "folders.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.parametrize("truth", truths(), ids=lambda truth: truth["folder"].rpartition("/")[2])
def test_row_equals_the_careful_readers(truth: dict[str, Any], rows: dict[str, dict[str, Any]]) -> None:
    """Claimed value, mean, sample sd, number of logs behind them, over the cap, copies."""
    row = rows[Path(truth["folder"]).name]
    if list((RECORDS / row["track"] / row["folder"]).glob("submission*")):  # else the claim is not in this copy
        assert row["claimed"]["val_bpb"] == truth["claimed_val_bpb"]
        assert row["claimed"]["std"] == truth["claimed_std"]
        assert row["claimed"]["bytes_total"] == truth["claimed_bytes_total"]
        assert row["log_mean"] == (None if truth["mean"] is None else pytest.approx(truth["mean"], abs=6e-9))
        assert row["n"] == truth["n_seeds"]
    if truth["sample_std"] is not None:
        assert row["log_sd"] == pytest.approx(truth["sample_std"], abs=6e-9)
    assert len(row["logs"]) == truth["n_logs"]
    codes = recordkit.codes(row)
    assert ("over-cap" in codes) == bool(truth["any_over_cap"])
    over = {Path(name).name for name in truth["over_cap"] or []}
    assert {issue["text"].partition(":")[0] for issue in row["issues"] if issue["code"] == "over-cap"} == over
    assert ("duplicate-log" in codes) == bool(truth["byte_identical_logs"])


def test_summary_over_all_of_them(rows: dict[str, dict[str, Any]]) -> None:
    """Totals, so that no folder is lost on the way."""
    assert len(rows) == 23
    assert sum(len(row["logs"]) for row in rows.values()) == 64
