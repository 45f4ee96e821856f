"""The frontier over time, and plans held against it: pure rules first, then the commands as a person types them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from golfctl.domain.gate import Requirement
from golfctl.domain.plan import Plan
from golfctl.domain.run import Outcome
from golfctl.domain.state import State
from golfctl.store.frontier import Target, check, frontier, of_track
from golfctl.store.targets import resolve
from tests.golfctl import factories, plankit, recordkit
from tests.golfctl.campaigns import golfctl
from tests.golfctl.recordkit import log, record, three


def row(folder: str, date: str, mean: float | None, claimed: float | None = None, **changes: Any) -> dict[str, Any]:
    """A row of the leaderboard with what the frontier looks at."""
    values = {
        "folder": folder,
        "date": date,
        "track": "track_10min",
        "log_mean": mean,
        "n": 3,
        "tags": [],
        "issues": [],
    }
    loss = mean * 1.7 if mean is not None else None
    return values | {"claimed": {"val_bpb": claimed}, "log_loss": loss, "headroom_bytes": 5} | changes


def wrong(code: str, level: str = "wrong") -> list[dict[str, str]]:
    """Issues with one of this code."""
    return [{"code": code, "level": level, "text": f"{code} it is"}]


def test_only_records_that_beat_all_earlier_ones_are_steps() -> None:
    """With the gain over the step before, in bpb and in nats per token of the record's own tokenizer."""
    rows = [row("a", "2026-01-01", 1.2), row("b", "2026-01-02", 1.25), row("c", "2026-01-03", 1.1)]
    found = frontier(rows)
    assert [step.folder for step in found.steps] == ["a", "c"]
    assert found.steps[0].gain_bpb is None
    assert found.steps[1].gain_bpb == pytest.approx(0.1)
    assert found.steps[1].gain_nats == pytest.approx(0.17)
    assert found.steps[1].bytes_per_token == pytest.approx(1.7 / math.log(2))


def test_claim_without_a_log_is_marked_and_moves_nothing() -> None:
    """However good it is."""
    found = frontier([row("a", "2026-01-01", 1.2), row("b", "2026-01-02", None, 0.5), row("c", "2026-01-03", 1.1)])
    assert [step.folder for step in found.steps] == ["a", "c"]
    assert found.claims == (("b", 0.5),)


def test_record_over_a_limit_is_left_out_and_said_so() -> None:
    """A note about the same code leaves it in; `everything` counts it."""
    rows = [row("a", "2026-01-01", 1.2), row("big", "2026-01-02", 1.0, issues=wrong("over-cap"))]
    rows.append(row("near", "2026-01-03", 1.1, issues=wrong("over-time", "note")))
    found = frontier(rows)
    assert [step.folder for step in found.steps] == ["a", "near"]
    assert found.excluded == (("big", "over-cap it is"),)
    assert [step.folder for step in frontier(rows, everything=True).steps] == ["a", "big"]


def test_of_one_day_only_the_best_moves_the_frontier() -> None:
    """Folders have dates, no hours."""
    rows = [row("worse", "2026-01-01", 1.2), row("best", "2026-01-01", 1.1)]
    assert [step.folder for step in frontier(rows).steps] == ["best"]


def test_tracks_without_a_clock_make_no_frontier_by_default() -> None:
    """Two hours of training are no record in ten minutes."""
    rows = [row("a", "2026-01-01", 1.2), row("slow", "2026-01-02", 1.0, track="track_non_record_16mb")]
    assert [item["folder"] for item in of_track(rows, None)] == ["a"]
    assert [item["folder"] for item in of_track(rows, "track_non_record_16mb")] == ["slow"]


def test_check_knows_all_three_readings_of_the_margin() -> None:
    """0.005 at 3.5 bytes a token: 0.0021, 0.0050 or 0.0072 bpb below the frontier."""
    best = frontier([row("a", "2026-01-01", 1.1, log_loss=1.1 * 3.5 * math.log(2))]).best
    assert best is not None
    values = {"old": 1.1, "some": 1.0955, "most": 1.0945, "new": 1.09, "open": None}
    found = check([Target(name, 4, "score", value) for name, value in values.items()], best, 0.005)
    assert {item.target.plan: item.status for item in found} == {
        "old": "stale",
        "some": "short",
        "most": "short",
        "new": "ahead",
        "open": "not checkable",
    }
    assert found[0].bars == pytest.approx(
        {
            "nats per token": 1.1 - 0.005 / math.log(2) / 3.5,
            "bpb": 1.1 - 0.005,
            "nats per byte": 1.1 - 0.005 / math.log(2),
        }
    )


def test_relative_target_is_the_mean_of_that_sides_finished_runs() -> None:
    """Under the gate's own shape; failed runs and runs of other gates give nothing, and without any there is no number."""
    last, other = factories.gate(4), factories.gate(2)
    plan = Plan("mine", "t", "h", "base", depends_on=("below",))
    runs = [*factories.runs("base", last, [1.2, 1.3]), factories.run("base", other, 7, 0.5)]
    runs.append(factories.run("base", last, 9, outcome=Outcome.CRASHED))
    state = State(runs={run.spec.name: run for run in runs})
    found = resolve(plan, last, Requirement("score", "<=", -0.05, "base"), state)
    assert found.value == pytest.approx(1.2)
    missing = resolve(plan, last, Requirement("score", "<=", -0.05, "parent"), state)
    assert missing.value is None
    assert missing.why == "below has no finished run at gate 4"


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """A campaign with a base, and a field of five records beside it."""
    root = tmp_path / "golf"
    root.mkdir()
    plankit.make(root, recordkit.GOLF.replace("name: board", "name: board\nbase: tiny").replace("DATA: a", "WIDTH: 16"))
    field = tmp_path / "field"
    record(field, "2026-05-01_Base", {"val_bpb": 1.2}, train_seed1=log(1.2, 1))
    record(field, "2026-05-02_SmearGate", {"val_bpb": 1.1}, **three(1.1, 1.101, 1.102))
    record(
        field,
        "2026-05-03_TooBig",
        {"val_bpb": 1.0},
        **three(1.0, 1.001, 1.002) | {"train_seed1": log(1, 1, model=2**24)},
    )
    record(field, "2026-05-04_OnlyWords", {"val_bpb": 0.9})
    record(field, "2026-05-05_Copy", {"val_bpb": 1.2}, train_seed1=log(1.2, 1))
    return root


def test_import_says_the_field_in_one_line(board: Path) -> None:
    """Folders, logs, frontier, and what is wrong most."""
    said = golfctl(board, "leaderboard", "import", "../field").stdout
    assert said.startswith(
        "5 folders, 8 logs. Frontier 1.1010. 1 folder over the cap, 1 duplicate log, 1 claim without a log"
    )
    assert said.rstrip().endswith("golfctl leaderboard show --issues")
    counts = json.loads(golfctl(board, "leaderboard", "import", "../field", "--json").stdout)
    assert (counts["folders"], counts["logs"], counts["over_cap"], counts["rows"]) == (5, 8, 1, 5)


def test_show_lists_issues_and_one_record_in_80_columns(board: Path) -> None:
    """The table by date, the sentences, one folder by a part of its name; JSON beside each."""
    golfctl(board, "leaderboard", "import", "../field")
    table = golfctl(board, "leaderboard", "show").stdout.splitlines()
    assert len(table) == 6
    assert max(map(len, table)) <= 80
    assert "SmearGate" in table[2]
    assert "1.1000  1.1010  3" in table[2]
    issues = golfctl(board, "leaderboard", "show", "--issues").stdout
    assert "best-seed-as-mean: claims 1.1, the best of 3" in issues
    one = golfctl(board, "leaderboard", "show", "Smear").stdout
    assert "* train_seed3.log  seed 3  1.102 final_int8_zlib_roundtrip_exact" in one
    assert json.loads(golfctl(board, "leaderboard", "show", "Smear", "--json").stdout)["n"] == 3
    assert len(json.loads(golfctl(board, "leaderboard", "show", "--json").stdout)) == 5
    assert "5 records are called so" in golfctl(board, "leaderboard", "show", "2026-05-0", expect=2).stderr
    golfctl(board, "leaderboard", "show", "--track", "nowhere", expect=2)


def test_frontier_says_what_it_leaves_out(board: Path) -> None:
    """The record over the cap by name, the claim without a log by name."""
    golfctl(board, "leaderboard", "import", "../field")
    done = golfctl(board, "leaderboard", "frontier")
    assert [line[:18] for line in done.stdout.splitlines() if line.startswith("2026")] == [
        "2026-05-01  1.2000",
        "2026-05-02  1.1010",
    ]
    assert "2026-05-03_TooBig" in done.stderr
    assert "2026-05-04_OnlyWords 0.9000" in done.stderr
    found = json.loads(golfctl(board, "leaderboard", "frontier", "--all", "--json").stdout)
    assert [step["folder"] for step in found["steps"]][-1] == "2026-05-03_TooBig"


def test_check_names_overtaken_plans_and_exits_1(board: Path) -> None:
    """With the command that retires them; a plan relative to a base without runs can't be checked."""
    campaign = recordkit.load(board)
    plankit.plan(campaign, "old", 'diffs: [{set: {WIDTH: 8}}]\ngates: {1: {require: {score: "<= 1.15"}}}\n')
    plankit.plan(campaign, "open", 'diffs: [{set: {WIDTH: 9}}]\ngates: {1: {require: {score: "<= base - 0.1"}}}\n')
    plankit.plan(campaign, "new", "diffs: [{set: {WIDTH: 7}}]\n")
    golfctl(board, "leaderboard", "check", expect=2)
    golfctl(board, "leaderboard", "import", "../field")
    done = golfctl(board, "leaderboard", "check", expect=1)
    assert 'golfctl plan retire old --reason "the frontier is at 1.1010"' in done.stdout
    assert "open  gate 1  score <= base - 0.1: NOT CHECKABLE, tiny has no finished run at gate 1" in done.stdout
    assert "new  gate 1  score <= 1.05: still ahead" in done.stdout
    assert done.stdout.count("a record needs") == 3
    found = json.loads(golfctl(board, "leaderboard", "check", "--json", expect=1).stdout)
    assert {item["target"]["plan"]: item["status"] for item in found["plans"]}["old"] == "stale"
    golfctl(board, "plan", "retire", "old", "--reason", "overtaken")
    golfctl(board, "leaderboard", "check")
