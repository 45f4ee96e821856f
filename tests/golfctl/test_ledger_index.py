"""The ledger's index: the same state as without it, never trusted over the files, and gone at any time."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from golfctl.domain.event import GENESIS, Event, Type, line_hash
from golfctl.domain.state import State, fold
from golfctl.errors import LedgerError
from golfctl.store import ledgerindex
from golfctl.store.columns import pack, unpack
from golfctl.store.ledger import Ledger
from tests.golfctl import factories
from tests.golfctl.ledgerlab import flip, write_long

RUNS = 20


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    """60 events, in a world in which that is many."""
    monkeypatch.setattr(ledgerindex, "SHORTEST", 10)
    write_long(tmp_path / "ledger", RUNS, plans=3)
    yield Ledger(tmp_path / "ledger", tmp_path / "state")
    ledgerindex._kept.clear()


def index(ledger: Ledger) -> Path:
    return ledger.state / ledgerindex.FILE


def read(ledger: Ledger) -> State:
    """As a process of its own would, to its end."""
    ledgerindex._kept.clear()
    state = ledgerindex.read(ledger).state
    ledgerindex.write_due()
    return state


def latest(ledger: Ledger) -> State:
    return ledgerindex.latest(ledger).state


def exact(state: State) -> str:
    """Everything in it, kinds of numbers and order too."""
    return repr(state)


def test_state_is_the_same_with_index_and_without(ledger: Ledger) -> None:
    """Made by the first reader, used by the second."""
    cold = fold(ledger.events())
    assert exact(read(ledger)) == exact(cold)
    written = index(ledger).stat().st_mtime_ns
    assert exact(read(ledger)) == exact(cold)
    assert index(ledger).stat().st_mtime_ns == written


def test_events_since_the_index_count(ledger: Ledger, tmp_path: Path) -> None:
    """Of this machine, which is new to the index, and of one that it knows."""
    read(ledger)
    written = index(ledger).stat().st_mtime_ns
    for subject in ("one", "two"):
        ledger.append(
            Type.RUN_FINISHED, {"run": "plan1.g2.s1.a1.62494b12-6505-abcdef", "outcome": "lost", "reason": subject}
        )
        for reader in (latest, read):
            assert exact(reader(ledger)) == exact(fold(ledger.events()))
    assert index(ledger).stat().st_mtime_ns == written, "the index should still have served"
    path = ledger.chain_path("mabcdef")
    content = path.read_bytes()
    write_long(tmp_path / "longer", 2 * RUNS, plans=3)
    path.write_bytes((tmp_path / "longer" / path.name).read_bytes())
    assert not path.read_bytes().startswith(content), "another chain, not a longer one"
    path.with_suffix(".head").write_bytes((tmp_path / "longer" / "mabcdef.head").read_bytes())
    assert len(latest(ledger).runs) == 2 * RUNS


def test_older_events_of_another_machine_fall_into_place(ledger: Ledger, tmp_path: Path) -> None:
    """After a merge the order is that of a reader who never had an index; the index is made anew once."""
    read(ledger)
    write_long(tmp_path / "other", 2, machine="m000001", plans=7)
    for path in (tmp_path / "other").iterdir():
        path.rename(ledger.folder / path.name)
    assert exact(latest(ledger)) == exact(fold(ledger.events()))
    ledgerindex.write_due()
    written = index(ledger).stat().st_mtime_ns
    assert exact(read(ledger)) == exact(fold(ledger.events()))
    assert index(ledger).stat().st_mtime_ns == written


@pytest.mark.parametrize("seed", range(4))
def test_any_history_of_two_machines_comes_to_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Whatever their clocks say, step by step: by what was read before, by the index, and by reading everything."""
    monkeypatch.setattr(ledgerindex, "SHORTEST", 1)
    chance = random.Random(seed)
    ledger = Ledger(tmp_path / "ledger", tmp_path / "state")
    ledger.folder.mkdir()
    heads = {"m00000a": (0, GENESIS), "m00000b": (0, GENESIS)}
    clock, names = 20, []
    for step in range(30):
        machine = chance.choice(sorted(heads))
        clock += chance.choice((-3, 0, 1, 1, 2))
        if not names or chance.random() < 0.4:
            names.append(f"run{step}")
            spec = asdict(factories.spec(names[-1], factories.gate())) | {"name": names[-1]}
            kind, data = Type.RUN_INTENT, {"spec": spec}
        elif chance.random() < 0.7:
            kind, data = Type.RUN_FINISHED, {"run": chance.choice(names), "outcome": "lost", "reason": str(step)}
        else:
            kind, data = Type.PLAN_RETIRED, {"plan": "p", "reason": str(step)}
        count, before = heads[machine]
        line = Event(machine, count + 1, before, f"2026-10-01T00:00:{clock:02d}Z", kind, data).line()
        heads[machine] = (count + 1, line_hash(line))
        with ledger.chain_path(machine).open("ab") as file:
            file.write(line + b"\n")
        (ledger.folder / f"{machine}.head").write_text(json.dumps({"count": count + 1, "hash": line_hash(line)}))
        cold = exact(fold(ledger.events()))
        assert exact(latest(ledger)) == cold
        if step % 3 == 0:
            assert exact(read(ledger)) == cold


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "flipped", "other code", "nonsense with a checksum"])
def test_damaged_index_is_made_anew(ledger: Ledger, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a word, and the state is right."""
    cold = exact(read(ledger))
    whole = index(ledger).read_bytes()
    if damage == "missing":
        index(ledger).unlink()
    elif damage == "flipped":
        flip(index(ledger), len(whole) // 2, 1)
    elif damage == "other code":
        monkeypatch.setattr(ledgerindex, "_code", lambda: "another")
    elif damage == "nonsense with a checksum":
        body = json.dumps({"code": ledgerindex._code(), "covers": {"mabcdef": [1, 2]}, "runs": 3}).encode()
        index(ledger).write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
    else:
        index(ledger).write_bytes(whole[: len(whole) // 2 if damage == "cut" else 0])
    assert exact(read(ledger)) == cold
    assert exact(read(ledger)) == cold
    assert (index(ledger).read_bytes() == whole) == (damage != "other code")


def test_index_is_not_trusted_over_the_files(ledger: Ledger) -> None:
    """A changed byte under it is found and located."""
    read(ledger)
    path = ledger.chain_path("mabcdef")
    number = flip(path, path.read_bytes().index(b'"score":2.4') + len(b'"score":2.4'), 1)
    ledgerindex._kept.clear()
    with pytest.raises(LedgerError, match=f"mabcdef.jsonl:{number}: the chain is broken here"):
        read(ledger)


def test_cut_file_under_an_index_is_noticed(ledger: Ledger) -> None:
    """By whole lines, which leaves a valid chain."""
    read(ledger)
    path = ledger.chain_path("mabcdef")
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-2]))
    for reader in (latest, read):
        with pytest.raises(LedgerError, match=r"mabcdef.jsonl:59: its last 2 line\(s\) were cut off: 60 were written"):
            reader(ledger)


def test_state_that_was_read_stays_as_it_was(ledger: Ledger) -> None:
    """What came later makes a new one."""
    before = latest(ledger)
    said = exact(before)
    ledger.append(
        Type.RUN_FINISHED, {"run": "plan1.g2.s1.a1.62494b12-6505-abcdef", "outcome": "lost", "reason": "later"}
    )
    assert exact(latest(ledger)) != said
    assert exact(before) == said


@pytest.mark.parametrize(
    "values",
    [
        [{"a": 1}, {"a": 1.0}, {"a": True}, {"a": 0.0}, {"a": -0.0}, {"a": None}],
        [{"a": 1, "b": [1]}, {"b": [1], "a": 1}, {"a": 1}, {}, {"a": 1, "b": [1.0]}],
        [{str(key): key * number for key in range(20)} for number in range(5)],
        [("a", "b"), (), ("a", "b")],
        ["x"] * 5 + ["y"],
        [None, "x", 1.5],
        [3, 3, 3],
        [True, True],
        [],
    ],
    ids=repr,
)
def test_columns_give_back_what_was_packed(values: list[object]) -> None:
    """To the kind of each number and the order of keys, through JSON."""
    assert repr(list(unpack(json.loads(json.dumps(pack(values)))))) == repr(values)
