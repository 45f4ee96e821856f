"""Record folders made to deceive, to hang or to break the import: what can't be trusted is said, and the rest is read."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from golfctl.store import evidence, leaderboard
from golfctl.store.frontier import frontier
from tests.golfctl import recordkit
from tests.golfctl.recordkit import codes, log, only, record, three


@pytest.fixture
def board(tmp_path: Path) -> Any:
    """A campaign to import into."""
    return recordkit.campaign(tmp_path / "golf")


def texts(row: dict[str, Any], code: str) -> list[str]:
    """The sentences of a row's issues of one code."""
    return [issue["text"] for issue in row["issues"] if issue["code"] == code]


def test_total_that_a_log_prints_counts_where_it_is_larger(board: Any, tmp_path: Path) -> None:
    """Code and model fit, the log's own total does not: over the cap, and off the frontier; a smaller total helps nobody."""
    over = log(1.1, 1).replace("int8+zlib: 15050000", "int8+zlib: 17900000")
    under = log(1.2, 2).replace("int8+zlib: 15050000", "int8+zlib: 9000000")
    record(tmp_path / "field", "2026-05-01_Over", {"val_bpb": 1.1}, train=over)
    record(tmp_path / "field", "2026-05-02_Under", {"val_bpb": 1.2}, train=under)
    leaderboard.take(board, tmp_path / "field")
    first, second = leaderboard.load(board)
    assert (first["artifact_max"], first["headroom_bytes"]) == (17_900_000, -1_900_000)
    assert "over-cap" in codes(first, "wrong")
    assert (second["artifact_max"], "over-cap" in codes(second)) == (15_050_000, False)
    for row in (first, second):
        assert any("code and model are 15,050,000" in text for text in texts(row, "sizes-contradict"))
    assert [step.folder for step in frontier([first, second]).steps] == ["2026-05-02_Under"]


def test_pipes_links_and_folders_in_place_of_files_are_named_and_never_opened(board: Any, tmp_path: Path) -> None:
    """A pipe would be waited for for ever, a link leads out of the tree, a folder can't be read; the logs are."""
    (tmp_path / "secret.md").write_text("# a title from outside\n")
    folder = record(tmp_path / "field", "2026-05-01_Try", {"val_bpb": 1.102}, **three(1.101, 1.102, 1.103))
    os.mkfifo(folder / "submission_pipe.json")
    (folder / "submission_x.json").mkdir()
    (folder / "README.md").symlink_to(tmp_path / "secret.md")
    (folder / "train_seed4.log").symlink_to("/dev/zero")
    os.mkfifo(folder / "train_seed5.log")
    row = only(board, tmp_path / "field")
    assert (row["n"], row["claimed"]["val_bpb"], row["title"]) == (3, 1.102, "2026-05-01_Try")
    names = ("README.md", "submission_pipe.json", "submission_x.json")
    assert sorted(texts(row, "unreadable")) == [f"{name} is no plain file" for name in names]


def test_log_that_cannot_be_read_is_its_records_issue(
    board: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fails for one file: its record says so, without the path it was read by, and the others are imported."""
    record(tmp_path / "field", "2026-05-01_Bad", {"val_bpb": 1.102}, **three(1.101, 1.102, 1.103))
    record(tmp_path / "field", "2026-05-02_Good", {"val_bpb": 1.05}, train=log(1.05, 7))
    real = evidence.read_file

    def failing(path: Path) -> Any:
        if path.name == "train_seed2.log":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(evidence, "read_file", failing)
    leaderboard.take(board, tmp_path / "field")
    bad, good = leaderboard.load(board)
    assert texts(bad, "unreadable") == ["train_seed2.log: Permission denied"]
    assert (bad["n"], good["n"]) == (2, 1)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_closed_folder_is_said_and_the_rest_is_imported(board: Any, tmp_path: Path) -> None:
    """In a record it is the record's issue, beside the records it is told."""
    folder = record(tmp_path / "field", "2026-05-01_Try", {"val_bpb": 1.1}, train=log(1.1, 1))
    closed = [folder / "logs", tmp_path / "field" / "data"]
    for path in closed:
        path.mkdir(mode=0)
    rows, unreadable = leaderboard.take(board, tmp_path / "field")
    for path in closed:
        path.chmod(0o700)
    assert texts(rows[0], "unreadable") == ["logs: Permission denied"]
    assert [text.rpartition("/")[2] for text in unreadable] == ["data: Permission denied"]


def test_one_run_under_three_seeds_is_one_run(board: Any, tmp_path: Path) -> None:
    """Copies with another seed and other times: the losses are the same, and so is the score to the last digit."""
    logs = {f"train_seed{seed}": log(1.1, 1, ms=590_000 + seed).replace("seed:1", f"seed:{seed}") for seed in (1, 2, 3)}
    row = only(board, record(tmp_path / "field", "2026-05-01_Try", {"val_bpb": 1.1}, **logs))
    assert row["n"] == 1
    assert {"duplicate-log", "few-seeds"} <= codes(row, "note")
    assert [text.partition(" ")[0] for text in texts(row, "seeds-alike")] == ["train_seed2.log", "train_seed3.log"]


def test_equal_scores_of_seeds_whose_losses_differ_are_named(board: Any, tmp_path: Path) -> None:
    """Eight equal digits are no chance."""
    record(tmp_path / "field", "2026-05-01_Try", {"val_bpb": 1.1}, **three(1.1, 1.1, 1.102))
    row = only(board, tmp_path / "field")
    assert texts(row, "seeds-alike") == [
        "train_seed2.log scores 1.10000000 as train_seed1.log does, under another seed"
    ]
    assert row["n"] == 3


@pytest.mark.parametrize(
    ("claimed", "date", "differs"),
    [
        ("2020-01-01", "2026-05-09", True),
        ("2026-05-10T08:00", "2026-05-10", False),
        ("2019-02-31", "2026-05-09", False),
        ("2027-13-01", "2026-05-09", False),
        (20200101, "2026-05-09", False),
    ],
)
def test_claimed_date_does_not_make_a_record_older_than_its_folder(
    board: Any, tmp_path: Path, claimed: object, date: str, differs: bool
) -> None:
    """The later one counts, only days of the calendar are dates, and a claim that is overruled is told."""
    record(tmp_path / "field", "2026-05-09_Back", {"val_bpb": 1.1, "date": claimed}, train=log(1.1, 1))
    row = only(board, tmp_path / "field")
    assert (row["date"], "date-differs" in codes(row)) == (date, differs)


def test_limits_that_no_log_shows_are_said_and_marked_on_the_frontier(board: Any, tmp_path: Path) -> None:
    """A record that prints neither size nor times keeps no limit that anybody can see."""
    bare = "seed:1\nfinal_int8_zlib_roundtrip_exact val_loss:1.87000000 val_bpb:1.10000000\n"
    record(tmp_path / "field", "2026-05-01_Bare", {"val_bpb": 1.1}, train=bare)
    row = only(board, tmp_path / "field")
    assert codes(row, "note") >= {"size-unknown", "time-unknown"}
    (step,) = frontier([row]).steps
    assert [text.partition(":")[0] for text in step.unverified] == [
        "the bytes of code and model",
        "how long it trained",
        "how long it was evaluated",
    ]
    open_track = record(tmp_path / "other", "2026-05-01_Bare", {"val_bpb": 1.1}, track="track_unlimited", train=bare)
    leaderboard.take(board, open_track)
    assert "time-unknown" not in codes(leaderboard.load(board)[1])
