"""Record folders: what is claimed, what the logs say, and every issue there is a name for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from golfctl.errors import InputError
from golfctl.store import claims, leaderboard, records, tables, techniques
from tests.golfctl import recordkit
from tests.golfctl.recordkit import TRACK, codes, log, only, record, three

GOOD = {"name": "A try", "author": "me", "date": "2026-05-02", "val_bpb": 1.102, "bytes_total": 15050002}


@pytest.fixture
def board(tmp_path: Path) -> Any:
    """A campaign to import into."""
    return recordkit.campaign(tmp_path / "golf")


def test_row_holds_claim_logs_mean_and_headroom(board: Any, tmp_path: Path) -> None:
    """A record without fault: three seeds, the claim is their mean."""
    record(tmp_path / "field", "2026-05-01_XSA_Int6", GOOD, **three(1.101, 1.102, 1.103))
    row = only(board, tmp_path / "field")
    assert row["issues"] == []
    assert (row["track"], row["folder"], row["date"]) == (TRACK, "2026-05-01_XSA_Int6", "2026-05-02")
    assert (row["log_mean"], row["n"], row["n_seeds"]) == (1.102, 3, 3)
    assert row["log_sd"] == pytest.approx(0.001)
    assert row["artifact_max"] == 15_050_003
    assert row["headroom_bytes"] == 16_000_000 - 15_050_003
    assert [item["seed"] for item in row["logs"]] == [1, 2, 3]
    assert {"xsa", "quantisation:int6"} <= set(row["tags"])
    assert row["authors"] == ["me"]


CASES: dict[str, tuple[dict[str, Any] | None, str, dict[str, str]]] = {
    "over-cap": ({"val_bpb": 1.102}, "", three(1.101, 1.102, 1.103) | {"train_seed1": log(1.101, 1, model=15_950_001)}),
    "duplicate-log": ({"val_bpb": 1.102}, "", three(1.101, 1.102, 1.103) | {"train": log(1.101, 1, model=15_000_001)}),
    "claim-without-log": ({"val_bpb": 1.1}, "", {}),
    "claim-differs": ({"val_bpb": 1.0123}, "", three(1.101, 1.102, 1.103)),
    "best-seed-as-mean": ({"val_bpb": 1.101}, "", three(1.101, 1.102, 1.103)),
    "claim-is-prequant": ({"val_bpb": 1.0345}, "", {"train": log(1.1, 1, prequant=1.0345)}),
    "seed-differs-from-name": ({"val_bpb": 1.102}, "", {"train_seed9": log(1.102, 1)}),
    "bytes-claim-differs": ({"val_bpb": 1.102, "bytes_total": 15123456}, "", three(1.101, 1.102, 1.103)),
    "over-time": ({"val_bpb": 1.1}, "", {"train": log(1.1, 1, ms=2_400_000)}),
    "eval-over-time": ({"val_bpb": 1.1}, "", {"train": log(1.1, 1, eval_ms=700_000)}),
    "few-seeds": ({"val_bpb": 1.1}, "", {"train": log(1.1, 1)}),
    "outcome-not-ok": ({"val_bpb": 1.1}, "", {"train": log(1.1, 1), "train_seed2": "".join(log(1.1, 2)[:400])}),
}


@pytest.mark.parametrize("code", CASES)
def test_issue_is_found_where_it_is_and_nowhere_else(code: str, board: Any, tmp_path: Path) -> None:
    """One fault, one code; what a fault brings with it by nature (one log is few seeds) is allowed beside it."""
    claim, readme, logs = CASES[code]
    record(tmp_path / "field", "2026-05-01_Try", claim, readme, **logs)
    found = codes(only(board, tmp_path / "field"))
    assert code in found
    assert found - {code} <= {"few-seeds"}


def test_broken_submission_is_named_and_the_readme_speaks(board: Any, tmp_path: Path) -> None:
    """submission.json that is no JSON: the README's table is the claim."""
    table = "| Seed | Pre-quant BPB | **Sliding BPB** |\n|--|--:|--|\n| 1 | 1.2 | 1.101 |\n| **Mean** | | **1.102** |\n"
    readme = f"# A try\n\n{table}"
    folder = record(tmp_path / "field", "2026-05-01_Try", None, readme, **three(1.101, 1.102, 1.103))
    (folder / "submission.json").write_text("{'val_bpb': 1.1,}")
    row = only(board, tmp_path / "field")
    assert codes(row) == {"submission-unreadable"}
    assert (row["claimed"]["val_bpb"], row["claimed"]["source"]) == (1.102, "README")
    assert row["claimed"]["seeds"] == {"1": 1.101}


@pytest.mark.parametrize(
    "content",
    [
        {"mean_val_bpb": 1.102},
        {"val_bpb": "1.102"},
        {"results": {"val_bpb": 1.102}},
        {"mean_bpb": 1.102, "std_bpb": 0.001},
        {"blurb": "Mean of 3 seeds: 1.102 (std 0.001)", "val_loss": 1.102},
    ],
    ids=str,
)
def test_claim_is_read_from_submissions_of_many_shapes(content: dict[str, Any], tmp_path: Path) -> None:
    """Other names, text for a number, a level deeper, only in words."""
    found = claims.read(record(tmp_path, "2026-05-01_Try", content))
    assert found.bpb == claims.Number(1.102, 3)


def test_claim_in_utf16_is_read(tmp_path: Path) -> None:
    """As some editors save it."""
    folder = record(tmp_path, "2026-05-01_Try", {})
    (folder / "submission.json").write_text(json.dumps({"val_bpb": 1.25}), encoding="utf-16")
    assert claims.read(folder).bpb == claims.Number(1.25, 2)


@pytest.mark.parametrize(
    "content", ["[]", "null", '"x"', '{"val_bpb": true}', '{"val_bpb": 1e999}', '{"seeds": {"1": []}}', "[" * 9000]
)
def test_odd_submission_claims_nothing_and_breaks_nothing(content: str, tmp_path: Path) -> None:
    """Whatever stands there, a claim is read or none is."""
    folder = record(tmp_path, "2026-05-01_Try", {})
    (folder / "submission.json").write_text(content)
    assert claims.read(folder).bpb is None


def test_seed_claims_are_held_against_their_logs(board: Any, tmp_path: Path) -> None:
    """A seed without a log, and a seed whose log says something else, from a README's table."""
    readme = "| seed | val_bpb |\n|---|---|\n| 1 | 1.1010 |\n| 2 | 1.0950 |\n| 7 | 1.1011 |\n"
    record(tmp_path / "field", "2026-05-01_Try", {"val_bpb": 1.102}, readme, **three(1.101, 1.102, 1.103))
    texts = [issue["text"] for issue in only(board, tmp_path / "field")["issues"]]
    assert len(texts) == 2
    assert any("claims 1.0950 for seed 2" in text and "says 1.1020" in text for text in texts)
    assert any("for seed 7" in text and "no log" in text for text in texts)


def test_author_names_the_score_among_the_logs_evaluations(board: Any, tmp_path: Path) -> None:
    """The claim is another evaluation than the proposed one: its label is taken for all logs, and says why."""
    extra = "final_sliding_window_exact val_loss:1.80000000 val_bpb:1.05000000"
    record(tmp_path / "field", "2026-05-01_Try", {"val_bpb": 1.102}, **three(1.101, 1.102, 1.103, extra=extra))
    row = only(board, tmp_path / "field")
    assert row["log_mean"] == 1.102
    assert {(item["label"], item["reason"]) for item in row["logs"]} == {("final_int8_zlib_roundtrip_exact", "claimed")}


def test_other_experiments_beside_the_record_do_not_count(board: Any, tmp_path: Path) -> None:
    """A log of other settings with another score stays visible, and the mean is that of the claim's own."""
    logs = {"train_a": log(1.3, 1), "train_b": log(1.6, 1, params=9_000_000)}
    record(tmp_path / "field", "2026-05-01_Try", {"val_bpb": 1.3}, track="track_non_record_16mb", **logs)
    row = only(board, tmp_path / "field")
    assert (row["log_mean"], row["n"], row["issues"]) == (1.3, 1, [])
    assert "another experiment" in row["logs"][1]["why"]


def test_bad_seed_of_the_same_settings_always_counts(board: Any, tmp_path: Path) -> None:
    """A seed that went wrong can't be left out as another experiment."""
    record(tmp_path / "field", "2026-05-01_Try", {"val_bpb": 1.1015}, **three(1.101, 1.102, 1.35))
    row = only(board, tmp_path / "field")
    assert row["n"] == 3
    assert "claim-differs" in codes(row)


def test_copies_count_once_in_the_mean(board: Any, tmp_path: Path) -> None:
    """Two names for one log are one seed."""
    logs = three(1.101, 1.102, 1.103)
    record(tmp_path / "field", "2026-05-01_Try", {"val_bpb": 1.102}, train=logs["train_seed1"], **logs)
    row = only(board, tmp_path / "field")
    assert (row["n"], row["log_mean"]) == (3, 1.102)


def test_time_within_a_step_is_a_note_and_none_on_an_unlimited_track(board: Any, tmp_path: Path) -> None:
    """Scripts stop after the step in which the clock ran out; a non-record track has no clock."""
    record(tmp_path / "field", "2026-05-01_Near", {"val_bpb": 1.1}, train=log(1.1, 1, ms=600_090))
    record(
        tmp_path / "field",
        "2026-05-01_Long",
        {"val_bpb": 1.1},
        track="track_non_record_16mb",
        train=log(1.1, 2, ms=9_000_000),
    )
    leaderboard.take(board, tmp_path / "field")
    long, near = leaderboard.load(board)
    assert codes(near, "note") == {"over-time", "few-seeds"}
    assert codes(near, "wrong") == set()
    assert codes(long) == set()


def test_log_shared_with_an_earlier_record_is_named_in_the_later(board: Any, tmp_path: Path) -> None:
    """Evidence borrowed from another folder."""
    record(tmp_path / "field", "2026-05-01_First", {"val_bpb": 1.1}, train=log(1.1, 1))
    record(tmp_path / "field", "2026-05-03_Later", {"val_bpb": 1.1}, sub__train_seed1=log(1.1, 1))
    leaderboard.take(board, tmp_path / "field")
    first, later = leaderboard.load(board)
    assert "duplicate-log" not in codes(first)
    assert any("train.log of 2026-05-01_First" in issue["text"] for issue in later["issues"])


def test_import_twice_and_by_another_path_writes_the_same_bytes(board: Any, tmp_path: Path) -> None:
    """No absolute path and no time of import stands in the file."""
    for day in (1, 2, 3):
        record(tmp_path / "field", f"2026-05-0{day}_Try", {"val_bpb": 1.1 - day / 100}, train=log(1.1 - day / 100, day))
    leaderboard.take(board, tmp_path / "field")
    first = leaderboard.file_of(board).read_bytes()
    leaderboard.take(board, tmp_path / "field" / TRACK)
    leaderboard.take(board, tmp_path / "field" / TRACK / "2026-05-02_Try")
    (tmp_path / "link").symlink_to(tmp_path / "field")
    leaderboard.take(board, tmp_path / "link")
    assert leaderboard.file_of(board).read_bytes() == first
    assert str(tmp_path).encode() not in first


def test_reimport_updates_its_rows_and_keeps_those_of_other_trees(board: Any, tmp_path: Path) -> None:
    """Identity is track and folder name."""
    one = record(tmp_path / "one", "2026-05-01_Try", {"val_bpb": 1.1}, train=log(1.1, 1))
    record(tmp_path / "two", "2026-05-02_Try", {"val_bpb": 1.2}, train=log(1.2, 1))
    leaderboard.take(board, tmp_path / "one")
    leaderboard.take(board, tmp_path / "two")
    (one / "train.log").write_text(log(1.15, 1))
    leaderboard.take(board, tmp_path / "one")
    assert [row["log_mean"] for row in leaderboard.load(board)] == [1.15, 1.2]


def test_folders_finds_records_of_every_kind_and_nothing_else(tmp_path: Path) -> None:
    """By submission, by name, by log; sub-folders of a record, hidden folders and links are none."""
    field = tmp_path / "field"
    record(field, "named oddly", {"val_bpb": 1.1})
    record(field, "2026-05-01_Readme", readme="# words")
    record(field, "2026-05-02_Deep", {}, logs__train=log())
    (field / "loose").mkdir()
    (field / "loose" / "run.txt").write_text(log())
    (field / "data").mkdir()
    (field / "data" / "README.md").write_text("no record")
    (field / "data" / "notes.txt").write_text("words only")
    (field / ".git").mkdir()
    (field / ".git" / "submission.json").write_text("{}")
    (field / "loop").symlink_to(field)
    (field / "README.md").write_text("the field")
    names = [path.relative_to(field.resolve()).as_posix() for path in records.folders(field)[0]]
    assert names == ["loose", f"{TRACK}/2026-05-01_Readme", f"{TRACK}/2026-05-02_Deep", f"{TRACK}/named oddly"]


def test_tree_without_records_is_the_users_fault(board: Any, tmp_path: Path) -> None:
    """One line that says what was looked for; a second record of the same name is refused, too."""
    (tmp_path / "empty").mkdir()
    for tree in ("empty", "missing"):
        with pytest.raises(InputError) as error:
            leaderboard.take(board, tmp_path / tree)
        assert "\n" not in str(error.value)
    record(tmp_path / "a", "2026-05-01_Try", {"val_bpb": 1.1})
    record(tmp_path / "a" / "b", "2026-05-01_Try", {"val_bpb": 1.1})
    with pytest.raises(InputError, match="import one tree at a time"):
        leaderboard.take(board, tmp_path / "a")


def test_damaged_leaderboard_names_its_line(board: Any, tmp_path: Path) -> None:
    """A file somebody edited."""
    record(tmp_path / "field", "2026-05-01_Try", {"val_bpb": 1.1})
    leaderboard.take(board, tmp_path / "field")
    with leaderboard.file_of(board).open("a") as file:
        file.write('{"folder": 3}\n')
    with pytest.raises(InputError, match=r"leaderboard\.jsonl:2: "):
        leaderboard.load(board)


def test_seed_table_prefers_the_score_after_all_steps() -> None:
    """Of a table's columns, what was scored last; guessed values prove nothing."""
    head = "| Seed | Pre-TTT bpb | **Post-TTT bpb** | TTT time |\n|--|--|--|--|\n"
    text = f"{head}| 5 | 1.2 | **1.1192** | 410s |\n| 6 | 1.2 | ~1.12 | - |\n"
    found = tables.seed_table(f"words\n\n{text}\nmore | words\n")
    assert found is not None
    assert (found.column, found.seeds) == ("Post-TTT bpb", {5: "1.1192"})


def test_tags_leave_out_what_a_record_does_without() -> None:
    """`no TTT` is no TTT."""
    found = techniques.tags(
        "MLP3x SmearGate, 11L Int6 QAT. No TTT (it hurts), no bigram. WD=0.04; warmdown WD3600; EMA"
    )
    assert found == ["quantisation:int6", "qat", "smeargate", "ema", "muon-wd", "warmdown"]
    assert "muon-wd" not in techniques.tags("FP16Embed WD3600")
