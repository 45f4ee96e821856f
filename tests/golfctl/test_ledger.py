"""The ledger: appending, chaining, and noticing every kind of damage."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from golfctl.domain.event import Type
from golfctl.errors import LedgerError
from golfctl.store.chain import scan
from golfctl.store.ledger import Ledger
from tests.golfctl.ledgerlab import append_at_once, flip, kill_writers


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger", tmp_path / "state")


def fill(ledger: Ledger, count: int = 4) -> Path:
    for number in range(count):
        ledger.append(Type.FAILURE_NOTE, {"number": number})
    return ledger.folder / f"{ledger.machine()}.jsonl"


def defects(ledger: Ledger) -> list[str]:
    return [defect for chain in ledger.chains() for defect in chain.defects]


def test_append_and_read_give_the_same_events(ledger: Ledger) -> None:
    """In order, chained, with nothing changed."""
    path = fill(ledger)
    assert [event.data["number"] for event in ledger.events()] == [0, 1, 2, 3]
    assert [json.loads(line)["seq"] for line in path.read_text().splitlines()] == [1, 2, 3, 4]
    assert not defects(ledger)


@pytest.mark.parametrize("keep", [0, 1, 3])
def test_cut_tail_is_noticed(ledger: Ledger, keep: int) -> None:
    """Whole lines removed from the end leave a valid chain; the witness knows better."""
    path = fill(ledger)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:keep]))
    assert any(f"last {4 - keep} line(s) were cut off" in defect for defect in defects(ledger))
    with pytest.raises(LedgerError):
        ledger.events()
    with pytest.raises(LedgerError):
        ledger.append(Type.REPORT, {})


def test_removed_file_is_noticed(ledger: Ledger) -> None:
    """The witness remains."""
    fill(ledger).unlink()
    assert defects(ledger)


def test_changed_line_is_noticed(ledger: Ledger) -> None:
    """A score edited afterwards breaks the chain at the next line, or against the witness if it is the last."""
    path = fill(ledger)
    for line in (b'"number":1', b'"number":3'):
        original = path.read_bytes()
        path.write_bytes(original.replace(line, b'"number":7'))
        assert defects(ledger)
        path.write_bytes(original)
    assert not defects(ledger)


def test_inserted_and_reordered_lines_are_noticed(ledger: Ledger) -> None:
    """Order is part of the chain."""
    path = fill(ledger)
    lines = path.read_bytes().splitlines(keepends=True)
    for damaged in ([lines[0], *lines], [lines[1], lines[0], *lines[2:]], [lines[0], *lines[2:]]):
        path.write_bytes(b"".join(damaged))
        assert defects(ledger)


def test_flipped_byte_is_found_and_located(ledger: Ledger) -> None:
    """Any byte of any line, the newlines too: the defect names the line that was changed."""
    path = fill(ledger, 5)
    whole = path.read_bytes()
    for at in range(len(whole)):
        number = flip(path, at, 1 + at % 255)
        assert [defect.split(":")[1] for defect in defects(ledger)] == [str(number)], f"byte {at}: {defects(ledger)}"
        path.write_bytes(whole)
    assert not defects(ledger)


def test_file_cut_anywhere_is_located(ledger: Ledger) -> None:
    """The defect names the first line that is not there."""
    path = fill(ledger, 5)
    whole = path.read_bytes()
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        assert [defect.split(":")[1] for defect in defects(ledger)] == [str(whole[:size].count(b"\n") + 1)]


def test_append_reads_the_last_line_only(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless somebody else wrote to the file since this machine's last append."""
    path = fill(ledger, 3)
    looked: list[str] = []
    monkeypatch.setattr("golfctl.store.ledger.scan", lambda *args: looked.append(args[1]) or scan(*args))
    fill(ledger, 2)
    assert not looked
    path.write_bytes(path.read_bytes())
    fill(ledger, 2)
    assert looked == [ledger.machine()]


def test_append_refuses_a_chain_that_was_changed_since(ledger: Ledger) -> None:
    """Whatever the file system says of its size."""
    path = fill(ledger, 3)
    flip(path, 20, 1)
    with pytest.raises(LedgerError, match="ledger verify"):
        fill(ledger, 1)


def test_torn_last_line_is_set_aside_and_nothing_before_it_is_lost(ledger: Ledger) -> None:
    """A crash in the middle of a write: the next append goes on, the fragment is kept."""
    path = fill(ledger)
    with path.open("ab") as file:
        file.write(b'{"seq":5,"prev":"abc')
    assert len(ledger.events()) == 4
    ledger.append(Type.REPORT, {})
    assert len(ledger.events()) == 5
    assert path.with_suffix(".torn").read_bytes() == b'{"seq":5,"prev":"abc\n'
    assert not defects(ledger)


def test_crash_between_line_and_witness_is_harmless(ledger: Ledger) -> None:
    """The witness may lag behind by a line."""
    path = fill(ledger)
    head = path.with_suffix(".head").read_bytes()
    ledger.append(Type.REPORT, {})
    path.with_suffix(".head").write_bytes(head)
    assert not defects(ledger)
    ledger.append(Type.REPORT, {})
    assert len(ledger.events()) == 6


def test_concurrent_appends_lose_nothing(ledger: Ledger) -> None:
    """Eight threads, one chain."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: ledger.append(Type.FAILURE_NOTE, {"number": number}), range(40)))
    assert sorted(event.data["number"] for event in ledger.events()) == list(range(40))
    assert not defects(ledger)


@pytest.mark.service
def test_eight_processes_lose_nothing(tmp_path: Path) -> None:
    """Each appends as fast as it can; every event is there, and in the chain. benchmarks/ledger.py does it with 10,000 each."""
    ledger = Ledger(tmp_path / "ledger", tmp_path / "state")
    append_at_once(ledger, processes=8, events=30)
    assert sorted(event.data["number"] for event in ledger.events()) == list(range(240))
    assert not defects(ledger)


@pytest.mark.service
def test_killed_writers_lose_nothing_and_the_next_goes_on(tmp_path: Path) -> None:
    """SIGKILL at random instants, and what a power cut leaves: the next append sets half a line aside and goes on."""
    killed = kill_writers(tmp_path, trials=30, longest=1 << 18)
    assert killed.trials == 30
    assert killed.torn_by_cut > 5


@pytest.mark.soak
def test_thousand_killed_writers_lose_nothing(tmp_path: Path) -> None:
    """As above, with lines long enough to be caught in the middle of a write."""
    print(kill_writers(tmp_path, trials=1000))


@pytest.mark.service
def test_processes_killed_while_appending_lose_no_event_they_saw_written(ledger: Ledger) -> None:
    """SIGKILL at any instant: every acknowledged event is there, the chain is whole."""
    code = (
        "import sys; from pathlib import Path; from golfctl.store.ledger import Ledger; from golfctl.domain.event import Type\n"
        "ledger = Ledger(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "while True: print(ledger.append(Type.FAILURE_NOTE, {'x': 'y' * 5000}).seq, flush=True)"
    )
    acknowledged = 0
    for lines in (1, 3, 7):
        command = [sys.executable, "-c", code, str(ledger.folder), str(ledger.state)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(lines):
                acknowledged = int(process.stdout.readline())
            process.kill()
    assert len(ledger.events()) >= acknowledged
    assert not defects(ledger)


def test_other_machines_chain_is_merged_and_never_written(ledger: Ledger, tmp_path: Path) -> None:
    """Two machines, two files, one history."""
    fill(ledger, 2)
    other = Ledger(ledger.folder, tmp_path / "other-state")
    fill(other, 3)
    assert ledger.machine() != other.machine()
    assert len(ledger.events()) == 5
    assert len(list(ledger.folder.glob("*.jsonl"))) == 2


def test_unwritable_folder_is_one_clear_line(tmp_path: Path) -> None:
    """A file where the folder should be (works for root too, unlike permissions)."""
    (tmp_path / "ledger").write_text("in the way")
    with pytest.raises(LedgerError, match="the ledger can't be written .*nothing was recorded"):
        Ledger(tmp_path / "ledger", tmp_path / "state").append(Type.REPORT, {})


def test_machine_name_says_nothing_about_the_machine(ledger: Ledger) -> None:
    """Ledgers are published: the name is random, and stable."""
    assert ledger.machine() == ledger.machine()
    assert len(ledger.machine()) == 7
