"""Leases with real processes: never two holders of one slot, and nobody's death keeps a slot."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from golfctl.hostside import leases
from golfctl.hostside.processes import LINUX, MARKER, boot_id, members, process_row

pytestmark = pytest.mark.service
EIGHT = [str(slot) for slot in range(8)]
HEAD = "import os, sys, time; from golfctl.hostside import leases\n"


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes of a test; gone afterwards."""
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        process.kill()
        process.communicate()


def spawn(code: str, started: list[subprocess.Popen[bytes]], *words: object, **more: Any) -> subprocess.Popen[bytes]:
    """Another process that runs `code`."""
    command = [sys.executable, "-c", HEAD + code, *map(str, words)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, **more)
    started.append(process)
    return process


def said(process: subprocess.Popen[bytes]) -> str:
    """The next line it prints."""
    assert process.stdout
    return process.stdout.readline().decode().strip()


def hold(started: list[subprocess.Popen[bytes]], folder: Path, slots: str, need: int, run: str = "") -> tuple[Any, str]:
    """A process that holds slots until it ends; the slots it says it got, or "None"."""
    code = (
        "lease = leases.acquire(sys.argv[1], sys.argv[2].split(','), int(sys.argv[3]), {'run': 'r', 'folder': sys.argv[4]})\n"
        "print(lease and ','.join(lease.slots), flush=True); sys.stdin.read()"
    )
    process = spawn(code, started, folder, slots, need, run)
    return process, said(process)


def lease_file(folder: Path, slot: str) -> Path:
    """The one lease.json of a slot."""
    return next(folder.glob(f"*/{slot}/lease.json"))


def take(folder: Path, slots: list[str], need: int = 1) -> list[str] | None:
    """Slots this process gets now."""
    lease = leases.acquire(str(folder), slots, need, {"run": "t", "campaign": "c"})
    return lease.slots if lease else None


def test_lease_takes_the_lowest_slots_all_or_none(tmp_path: Path) -> None:
    """Three of eight, then the next; six of the rest are refused and leave nothing; given back, all eight."""
    first = leases.acquire(str(tmp_path), EIGHT, 3, {"run": "a"})
    second = leases.acquire(str(tmp_path), list(reversed(EIGHT)), 1, {"run": "b"})
    assert first and second
    assert (first.slots, second.slots) == (["0", "1", "2"], ["3"])
    assert take(tmp_path, EIGHT, 5) is None
    assert set(leases.holders(str(tmp_path))) == {"0", "1", "2", "3"}
    first.free()
    first.free()
    assert set(leases.holders(str(tmp_path))) == {"3"}
    second.free()
    assert take(tmp_path, EIGHT, 8) == EIGHT


def test_lease_tells_who_holds_what(tmp_path: Path) -> None:
    """Owner, process, boot, time: what a person needs to find the holder."""
    assert leases.holders(str(tmp_path / "none")) == {}
    assert take(tmp_path, ["10", "9"]) == ["9"]
    info = leases.holders(str(tmp_path))["9"]
    row = process_row(os.getpid())
    assert row
    assert info["owner"] == {"run": "t", "campaign": "c"}
    assert (info["pid"], info["pid_start"], info["boot"], info["stale"]) == (os.getpid(), row[1], boot_id(), "")
    assert info["taken_at"].endswith("Z")
    assert 0 <= time.monotonic() - info["beat"] < 60
    assert info["expires_s"] == 60


def test_lease_environment_keeps_neighbours_apart(tmp_path: Path) -> None:
    """Each slot has its port and its cache folders; CUDA_VISIBLE_DEVICES is set for GPUs only."""
    cache = tmp_path / "cache"
    one = leases.acquire(str(tmp_path), EIGHT, 2, {}, gpus=True, cache=str(cache))
    two = leases.acquire(str(tmp_path), EIGHT, 1, {})
    assert one and two
    assert one.environment() == {
        "GOLFCTL_SLOTS": "0,1",
        "CUDA_VISIBLE_DEVICES": "0,1",
        "MASTER_PORT": "29500",
        "TORCHINDUCTOR_CACHE_DIR": f"{cache}/slot-0/inductor",
        "TRITON_CACHE_DIR": f"{cache}/slot-0/triton",
    }
    assert sorted(path.name for path in (cache / "slot-0").iterdir()) == ["inductor", "triton"]
    assert two.environment() == {"GOLFCTL_SLOTS": "2", "MASTER_PORT": "29532"}


RACER = """
import fcntl
folder, marks, slots, turns, die = sys.argv[1], sys.argv[2], sys.argv[3].split(","), int(sys.argv[4]), sys.argv[5] == "die"
sys.stdin.readline()
used, deadline = set(), time.monotonic() + 200
while turns and time.monotonic() < deadline:
    lease = leases.acquire(folder, slots, 1 + turns % 3, {"run": str(os.getpid())})
    if lease is None:
        time.sleep(0.002)
        continue
    held = []
    for slot in lease.slots:
        held.append(os.open(os.path.join(marks, slot), os.O_CREAT | os.O_RDWR))
        fcntl.flock(held[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises if any other process holds the slot, too
    used |= set(lease.slots)
    time.sleep(0.01)
    turns -= 1
    if die and not turns:
        os.kill(os.getpid(), 9)
    for descriptor in held:
        os.close(descriptor)
    lease.free()
print("turns left", turns, *sorted(used, key=int), flush=True)
"""


def test_lease_race_never_has_two_holders(tmp_path: Path, started: list[subprocess.Popen[bytes]]) -> None:
    """Twenty processes, eight slots, one to three each, five killed holding: no slot is ever held twice, and all are used."""
    marks = tmp_path / "marks"
    marks.mkdir()
    words = (tmp_path / "leases", marks, ",".join(EIGHT), 10)
    racers = [spawn(RACER, started, *words, "die" if number < 5 else "live") for number in range(20)]
    for racer in racers:
        assert racer.stdin
        racer.stdin.write(b"\n")
        racer.stdin.flush()
    used: set[str] = set()
    for number, racer in enumerate(racers):
        out, _ = racer.communicate(timeout=250)
        assert racer.returncode == (-signal.SIGKILL if number < 5 else 0), out
        if number >= 5:
            assert out.decode().startswith("turns left 0"), out
            used |= set(out.decode().split()[3:])
    assert used == set(EIGHT)
    assert take(tmp_path / "leases", EIGHT, 8) == EIGHT


def test_lease_killed_at_any_line_keeps_nothing(tmp_path: Path, started: list[subprocess.Popen[bytes]]) -> None:
    """SIGKILL at each line of a claim, a beat and a free in turn: the slots are there for the next, at once."""
    code = (
        "count = 0\n"
        "def trace(frame, event, argument):\n"
        "    global count\n"
        "    if not frame.f_code.co_filename.endswith(('leases.py', 'files.py')): return None\n"
        "    count += 1\n"
        "    if count == int(sys.argv[2]): os.kill(os.getpid(), 9)\n"
        "    return trace\n"
        "sys.settrace(trace)\n"
        "lease = leases.acquire(sys.argv[1], ['0', '1'], 2, {'run': 'x'})\n"
        "lease._info['beat'] -= 100\n"
        "lease.beat(); lease.free()\n"
        "sys.settrace(None); print(count)"
    )
    whole = spawn(code, started, tmp_path, 0)
    lines = int(whole.communicate(timeout=60)[0])
    assert lines > 200
    for kill_at in range(1, lines, lines // 40):
        process = spawn(code, started, tmp_path, kill_at)
        assert process.wait(60) == -signal.SIGKILL
        lease = leases.acquire(str(tmp_path), ["0", "1"], 2, {"run": "next"})
        assert lease, f"killed at line {kill_at}"
        lease.free()
        assert leases.holders(str(tmp_path)) == {}


def test_lease_of_the_living_is_kept_however_silent(tmp_path: Path, started: list[subprocess.Popen[bytes]]) -> None:
    """A holder that can be looked at needs no beat; stopped by a signal it lives. Killed it does not, also as a zombie."""
    process, slots = hold(started, tmp_path, "0", 1)
    assert slots == "0"
    change(lease_file(tmp_path, "0"), beat=time.monotonic() - 1000)
    process.send_signal(signal.SIGSTOP)
    assert take(tmp_path, ["0"]) is None
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and not collected: a zombie
    assert leases.holders(str(tmp_path))["0"]["stale"] == "its holder is dead"
    assert take(tmp_path, ["0"]) == ["0"]


def change(path: Path, **values: Any) -> None:
    """Other values in a lease.json."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("values", "stale"),
    [
        ({"pid_start": "1"}, "its holder is dead"),
        ({"pid": 2**31 + 5}, "its holder is dead"),
        ({"boot": "another"}, "the machine was started again since"),
        ({"pid_namespace": "pid:[1]"}, ""),
        ({"pid_namespace": "pid:[1]", "pid": 1, "beat": 0.0}, "no beat for "),
        ({"pid_namespace": "pid:[1]", "beat": 1e12}, "the machine was started again since"),
        ({"pid_namespace": "pid:[1]", "beat": 0.0, "expires_s": 1e12}, ""),
    ],
)
def test_lease_is_stale_only_if_its_holder_is_gone(tmp_path: Path, values: dict[str, Any], stale: str) -> None:
    """A recycled pid, another boot, and, where the pid means nothing, silence beyond the expiry."""
    assert take(tmp_path, ["0"]) == ["0"]
    change(lease_file(tmp_path, "0"), **values)
    told = leases.holders(str(tmp_path))["0"]["stale"]
    assert told.startswith(stale) and bool(told) == bool(stale)
    assert take(tmp_path, ["0"]) == (["0"] if stale else None)


@pytest.mark.skipif(not LINUX or os.geteuid() != 0, reason="needs root on Linux: makes a pid namespace")
def test_lease_in_another_pid_namespace_lives_by_its_beat(
    tmp_path: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    """A container's pid 1 is not our pid 1: its lease is kept while it beats, and ours by those inside."""
    code = (
        "lease = leases.acquire(sys.argv[1], ['0', '1'], 1, {'run': 'inside'})\n"
        "print(os.getpid(), leases.acquire(sys.argv[1], ['1'], 1, {}), flush=True); sys.stdin.read()"
    )
    outer = leases.acquire(str(tmp_path), ["1"], 1, {"run": "outside"})
    assert outer
    command = [
        "unshare",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        sys.executable,
        "-c",
        HEAD + code,
        str(tmp_path),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE)
    started.append(process)
    line = said(process)
    if not line:
        pytest.skip("needs the right to make a pid namespace")
    assert line == "1 None"
    assert take(tmp_path, ["0"]) is None
    process.kill()
    process.wait()
    assert take(tmp_path, ["0"]) is None  # nobody here can know that it died
    change(lease_file(tmp_path, "0"), beat=time.monotonic() - 61)
    assert take(tmp_path, ["0"]) == ["0"]


def test_lease_beat_writes_now_and_then_and_notices_a_loss(tmp_path: Path) -> None:
    """Beats within ten seconds cost nothing; a later one is written; a lease given to another is an error, and not freed."""
    lease = leases.acquire(str(tmp_path), EIGHT, 2, {"run": "a"})
    assert lease
    path = lease_file(tmp_path, "1")
    before = path.stat().st_ino
    lease.beat()
    assert path.stat().st_ino == before
    lease._info["beat"] -= 11
    lease.beat()
    assert path.stat().st_ino != before
    assert time.monotonic() - json.loads(path.read_text())["beat"] < 10
    change(path, token="another's")
    lease._info["beat"] -= 11
    with pytest.raises(OSError, match="slot 1 was given to another run"):
        lease.beat()
    lease.free()
    assert set(leases.holders(str(tmp_path))) == {"1"}


@pytest.mark.parametrize("garbage", [b"", b"\0\0\0", b"{", b"[1]", b'{"pid": "x"}', b"[" * 100_000, b"half", b"nan"])
def test_lease_survives_garbage(tmp_path: Path, garbage: bytes) -> None:
    """A damaged file counts as held until it is old; its living holder mends it, and can free it."""
    lease = leases.acquire(str(tmp_path), ["0"], 1, {"run": "a"})
    assert lease
    path = lease_file(tmp_path, "0")
    whole = path.read_bytes()
    if garbage.startswith(b"half"):
        garbage = whole[: len(whole) // 2]
    elif garbage.startswith(b"nan"):
        garbage = re.sub(rb'"beat": [^,\n]+', b'"beat": NaN', whole)
    path.write_bytes(garbage)
    assert take(tmp_path, ["0"]) is None
    lease._info["beat"] -= 11
    lease.beat()
    assert leases.holders(str(tmp_path))["0"]["owner"] == {"run": "a"}
    path.write_bytes(garbage)
    os.utime(path, (time.time() - 100, time.time() - 100))
    assert leases.holders(str(tmp_path))["0"]["stale"] == "damaged"
    assert take(tmp_path, ["0"]) == ["0"]
    lease.free()
    assert leases.holders(str(tmp_path))["0"]["owner"]["run"] == "t"


def test_lease_survives_litter_where_slots_are(tmp_path: Path) -> None:
    """A folder without lease.json and a file in a slot's place are nobody's."""
    lease = leases.acquire(str(tmp_path), ["0"], 1, {})
    assert lease
    level = lease_file(tmp_path, "0").parent.parent
    lease.free()
    (level / "0").mkdir()
    (level / "1").write_text("x")
    assert leases.holders(str(tmp_path)) == {}
    assert take(tmp_path, ["0", "1"], 2) == ["0", "1"]


def test_lease_folder_that_cannot_be_used_is_a_clear_error(tmp_path: Path) -> None:
    """A file in the way, no right to write: the error names the place."""
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"leases can't be kept here: .*file"):
        leases.acquire(str(tmp_path / "file"), ["0"], 1, {})
    with pytest.raises(OSError, match="leases can't be kept here"):
        leases.acquire("/proc/leases", ["0"], 1, {})


@pytest.mark.parametrize(
    ("slots", "need", "named"),
    [
        (["0", "../1"], 1, "slots"),
        (["0", "01"], 1, "slots"),
        (["0", "0"], 1, "twice"),
        ([0, 1], 1, "slots"),
        (["0"], 2, "need"),
        (["0"], 0, "need"),
        (["0"], True, "need"),
        ([], 1, "need"),
    ],
)
def test_lease_refuses_what_can_never_be_held(tmp_path: Path, slots: Any, need: Any, named: str) -> None:
    """Slots that are no numbers, more than there are: refused before anything is written."""
    with pytest.raises(ValueError, match=named):
        leases.acquire(str(tmp_path), slots, need, {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not LINUX or os.geteuid() != 0, reason="needs root on Linux: mounts a small tmpfs")
def test_lease_on_a_full_disk_takes_all_or_nothing(tmp_path: Path) -> None:
    """However few inodes are left: either the lease is whole, or the error says the disk is full and no slot is held."""
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "nr_inodes=40", "tmpfs", tmp_path], check=False).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        folder, outcomes = tmp_path / "leases", set()
        for count in range(32):
            (tmp_path / f"fill{count}").touch()
        for count in reversed(range(32)):
            try:
                lease = leases.acquire(str(folder), EIGHT, 4, {})
                assert lease
                assert len(lease.slots) == len(leases.holders(str(folder))) == 4
                lease.free()
                outcomes.add("whole")
            except OSError as error:
                assert "No space left on device" in str(error)
                outcomes.add("full")
            assert leases.holders(str(folder)) == {}
            (tmp_path / f"fill{count}").unlink()
        assert outcomes == {"whole", "full"}
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.skipif(not LINUX, reason="needs Linux: environments in /proc")
def test_lease_sweeps_the_dead_holders_run_before_it_gives_the_slot_away(
    tmp_path: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    """What the dead one's training left is killed; a run of that name that another supervises is not touched."""
    for number, same in enumerate((True, False)):
        run = tmp_path / f"run{number}"
        run.mkdir()
        environment = {**os.environ, MARKER: os.path.realpath(run)}
        training = spawn("print('up', flush=True); time.sleep(300)", started, env=environment)
        assert said(training) == "up"
        holder, slots = hold(started, tmp_path / "leases", "0", 1, str(run))
        assert slots == "0"
        info = json.loads(lease_file(tmp_path / "leases", "0").read_text())
        beat = {key: info[key] for key in ("pid", "pid_start", "boot")}
        (run / "heartbeat.json").write_text(json.dumps(beat if same else {**beat, "pid": os.getpid()}))
        assert take(tmp_path / "leases", ["0"]) is None
        assert training.poll() is None
        holder.kill()
        holder.wait()
        lease = leases.acquire(str(tmp_path / "leases"), ["0"], 1, {})
        assert lease
        lease.free()
        assert (members(os.path.realpath(run), {}) == set()) is same
        assert (training.poll() is not None) is same
