"""The keeper with real processes and second-scale times: when it acts, when it refuses, and that it acts once."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from golfctl.hostside import keeper, processes
from tests.golfctl.runlab import Lab, wait_until

pytestmark = pytest.mark.service
LONG = "import time; print('up', flush=True); time.sleep(300)"
COUNT = "echo x >> count; echo stopping $THING; "


class Kept(Lab):
    """A root with runs and a keeper."""

    def configure(self, after: float = 1.0, command: str = COUNT, persistent: bool = True) -> None:
        """Write keeper.json."""
        settings = {"abandon_after_s": after, "on_idle": command, "persistent": persistent}
        keeper.configure(str(self.root), settings)

    def start(self) -> bool:
        """Start the keeper."""
        return keeper.start(str(self.root), str(self.file))

    def contact(self) -> None:
        """A contact of a process that never made one before: it is written at once."""
        keeper._contacts.pop(str(self.root), None)
        keeper.contact(str(self.root), str(self.file))

    def running(self) -> bool:
        return keeper.running(str(self.root))

    def pid(self) -> int:
        return int((self.root / "keeper.lock").read_text())

    def count(self) -> int:
        """How often on_idle ran."""
        path = self.root / "count"
        return path.read_text().count("x") if path.exists() else 0

    def told(self) -> dict[str, Any]:
        path = self.root / "idle.json"
        content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return content

    def wait(self, state: str, seconds: float = 60.0) -> dict[str, Any]:
        """idle.json once it says so."""
        wait_until(lambda: self.told().get("state") == state, seconds)
        return self.told()

    def ended(self) -> None:
        """The keeper is gone by itself."""
        wait_until(lambda: not self.running(), 60)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Kept]:
    """A root whose keeper and runs are gone afterwards."""
    place = Kept(tmp_path)
    try:
        yield place
    finally:
        place.clean()
        end_keepers(tmp_path)


def end_keepers(root: Path) -> None:
    """None is left, however many there were."""
    (root / "keeper.json").unlink(missing_ok=True)  # without it none stays, nor is one started
    for pid in keepers(root):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not keepers(root))


def test_keeper_acts_once_after_silence(lab: Kept) -> None:
    """No run, no contact: on_idle runs in ROOT, idle.json tells how it went, the keeper ends; nobody makes it run again."""
    lab.configure()
    begin = time.monotonic()
    lab.contact()
    told = lab.wait("done")
    assert time.monotonic() - begin >= 1
    assert (told["code"], told["output"], told["why"], told["command"]) == (0, ["stopping"], "", COUNT)
    assert told["silent_s"] >= 1
    assert told["at"].endswith("Z") and told["ended_at"].endswith("Z")
    lab.ended()
    for _ in range(3):
        assert lab.start()  # it looks, and ends
        lab.ended()
    assert lab.count() == 1


def test_keeper_waits_for_a_run_and_counts_from_its_end(lab: Kept) -> None:
    """A run longer than abandon_after is not idleness; after its end the whole time must pass."""
    lab.configure(after=2.0)
    process = lab.launch("import time; time.sleep(5)")
    wait_until(lab.folder().exists)
    lab.contact()
    assert process.wait(60) == 0
    lab.wait("done")
    assert lab.count() == 1
    ended = (lab.folder() / "exit.json").stat().st_mtime
    assert (lab.root / "count").stat().st_mtime - ended > 1.9


def test_keeper_waits_while_a_controller_is_there_and_acts_when_it_is_killed(lab: Kept) -> None:
    """Contact every 0.2 s keeps it quiet for longer than abandon_after; SIGKILL of that process ends the peace."""
    # Contacts are written once a second, and this machine may be busy: five seconds of silence are no accident.
    lab.configure(after=5.0)
    code = (
        "import sys, time; from golfctl.hostside import keeper\n"
        "while True: keeper.contact(sys.argv[1], sys.argv[2]); time.sleep(0.2)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(lab.root), str(lab.file)])
    lab.started.append(process)
    wait_until(lab.running)
    time.sleep(7)
    assert lab.told() == {}
    process.kill()
    lab.wait("done")
    assert lab.count() == 1


def test_keeper_refuses_to_lose_files_and_says_so(lab: Kept) -> None:
    """Not persistent, with a run nobody pulled: refused with its name. Released, it acts."""
    lab.configure(persistent=False)
    lab.run("print('result')", "precious")
    lab.contact()
    told = lab.wait("refused")
    assert "precious" in told["why"] and "persistent" in told["why"]
    time.sleep(2)
    assert lab.count() == 0 and lab.running()
    for path in lab.folder("precious").iterdir():
        if path.name not in ("run.json", "exit.json"):
            path.unlink()
    lab.wait("done")
    assert lab.count() == 1


def test_keeper_may_leave_files_on_a_persistent_root(lab: Kept) -> None:
    """Declared persistent, an unpulled run does not keep the machine running."""
    lab.configure(persistent=True)
    lab.run("print('result')")
    lab.contact()
    lab.wait("done")
    assert lab.count() == 1


def test_keeper_failed_command_is_told_and_a_contact_arms_it_again(lab: Kept) -> None:
    """Exit code and last words are in idle.json; silence alone does not repeat it, a new contact and silence do."""
    lab.configure(
        command="for i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo line $i; done; printf '\\033[31mno\\n' >&2; echo x >> count; exit 7"
    )
    lab.contact()
    told = lab.wait("failed")
    assert (told["code"], told["why"]) == (7, "exit code 7")
    assert told["output"] == [f"line {number}" for number in range(4, 13)] + ["no"]
    lab.ended()
    assert lab.start()
    lab.ended()
    assert lab.count() == 1
    lab.contact()
    wait_until(lambda: lab.count() == 2, 60)
    lab.ended()


def test_keeper_killed_comes_back_with_the_next_contact_or_run_end(lab: Kept) -> None:
    """SIGKILL of the keeper: the next contact brings a new one; killed again, the end of a run does."""
    lab.configure(after=300)
    lab.contact()
    first = lab.pid()
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: not lab.running())
    lab.contact()
    assert lab.running() and lab.pid() != first
    process = lab.launch(LONG)
    lab.wait_for_log("up")
    os.kill(lab.pid(), signal.SIGKILL)
    wait_until(lambda: not lab.running())
    (lab.folder() / "stop").write_text("enough")
    assert process.wait(60) == 0
    assert lab.running()


def test_keeper_killed_in_the_middle_of_the_command_does_not_repeat_it(lab: Kept) -> None:
    """idle.json says running before the command starts; a new keeper says that its end is unknown, and does not act again."""
    lab.configure(command="echo x >> count; cp idle.json seen.json; sleep 30 & echo $! > sleeper; wait")
    lab.contact()
    wait_until(lambda: (lab.root / "sleeper").exists() and (lab.root / "sleeper").read_text().strip() != "", 60)
    assert json.loads((lab.root / "seen.json").read_text())["state"] == "running"
    os.kill(lab.pid(), signal.SIGKILL)
    wait_until(lambda: not lab.running())
    assert lab.start()
    lab.wait("interrupted")
    lab.ended()
    assert lab.count() == 1
    os.kill(int((lab.root / "sleeper").read_text()), signal.SIGKILL)


def test_keeper_is_one_however_many_start_it(lab: Kept) -> None:
    """Ten starts at once and contacts besides: one process holds the lock, and the command runs once."""
    lab.configure(after=120)
    code = "import sys; from golfctl.hostside import keeper; print(keeper.start(sys.argv[1], sys.argv[2]))"
    command = [sys.executable, "-c", code, str(lab.root), str(lab.file)]
    starts = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(10)]
    assert {process.communicate(timeout=60)[0] for process in starts} == {b"True\n"}
    wait_until(lambda: len(keepers(lab.root)) == 1)
    assert keepers(lab.root) == [lab.pid()]
    lab.configure()
    lab.wait("done")
    lab.ended()
    assert lab.count() == 1


def keepers(root: Path) -> list[int]:
    """Processes that keep this root, by their command lines."""
    found = []
    for pid in processes.process_table():
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if words[-3:-1] == [b"keep", str(root).encode()]:
                found.append(pid)
    return found


@pytest.mark.skipif(not processes.LINUX, reason="needs Linux: death signal and /proc")
def test_keeper_kills_orphans_first(lab: Kept) -> None:
    """A dead supervisor is no running run, and what it left is dead before on_idle starts."""
    lab.configure(
        command="cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | grep -c ^GOLFCTL_RUN=$PWD/runs/r > left; exit 0"
    )
    code = "import subprocess; print('up'); subprocess.Popen(['sleep', '300'], start_new_session=True).wait()"
    process = lab.launch(code)
    wait_until(lambda: len(lab.left()) == 2)
    process.kill()
    process.wait()
    wait_until(lambda: len(lab.left()) == 1)
    lab.contact()
    assert lab.wait("done")["leftover"] == []
    assert (lab.root / "left").read_text() == "0\n"
    assert lab.left() == set()


def test_keeper_ends_when_there_is_nothing_to_keep(lab: Kept) -> None:
    """Nothing configured: none starts. Configured away, or with ROOT gone: it ends."""
    assert not lab.start()
    lab.contact()
    assert not lab.running()
    lab.configure(after=60)
    lab.contact()
    first = lab.pid()
    keeper.configure(str(lab.root), {"abandon_after_s": None, "on_idle": ""})
    wait_until(lambda: not lab.running(), 60)
    lab.configure(after=60)
    assert lab.start() and lab.pid() != first
    second = lab.pid()
    lab.root.rename(lab.root.with_name("moved"))
    try:
        wait_until(lambda: processes.process_row(second) is None, 60)
    finally:
        lab.root.with_name("moved").rename(lab.root)


def test_keeper_is_detached(lab: Kept) -> None:
    """Own session, no file of its starter's, SIGHUP ignored, no part of a run: an ssh channel closes behind it."""
    lab.configure(after=300)
    code = "import sys; from golfctl.hostside import keeper; print(keeper.start(sys.argv[1], sys.argv[2]))"
    environment = {**os.environ, processes.MARKER: "/some/run"}
    command = [sys.executable, "-c", code, str(lab.root), str(lab.file)]
    done = subprocess.run(
        command, capture_output=True, timeout=60, check=True, env=environment
    )  # ends: no pipe is held
    assert done.stdout == b"True\n" and done.stderr == b""
    pid = lab.pid()
    assert os.getsid(pid) == pid
    os.kill(pid, signal.SIGHUP)
    time.sleep(0.3)  # what SIGHUP ends by default is gone by then
    if processes.LINUX:
        opened = {str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()}
        assert opened <= {"/dev/null", str(lab.root / "keeper.lock")}
        assert b"GOLFCTL_RUN=" not in Path(f"/proc/{pid}/environ").read_bytes()
        assert processes.process_row(pid)
    assert lab.running() and lab.pid() == pid


def test_keeper_does_not_look_at_the_time_of_day(lab: Kept) -> None:
    """Files from the future and the past, as after a step of the clock, neither hasten nor delay it."""
    lab.configure(after=2.0)
    begin = time.monotonic()
    lab.contact()
    for hours in (-5, 7):
        os.utime(lab.root / "contact.json", (time.time() + 3600 * hours,) * 2)
        time.sleep(0.2)
    lab.wait("done")
    assert time.monotonic() - begin >= 2


def test_keeper_damaged_settings_are_told_and_do_nothing(lab: Kept) -> None:
    """Garbage in keeper.json is no order: idle.json says so, nothing runs, and good settings heal it."""
    lab.configure(after=120)
    lab.contact()
    (lab.root / "keeper.json").write_text("{")
    told = lab.wait("refused")
    assert f"{lab.root}/keeper.json" in told["why"]
    time.sleep(1.5)
    assert lab.count() == 0 and lab.running()
    lab.configure()
    lab.wait("done")


@pytest.mark.skipif(not processes.LINUX or os.geteuid() != 0, reason="needs root on Linux: mounts a small tmpfs")
def test_keeper_acts_on_a_full_disk_and_sees_contacts_there(tmp_path: Path) -> None:
    """Not a byte left on ROOT's disk: contacts still count, and on_idle still runs, once."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", root], check=False).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    lab = Kept(root)
    try:
        lab.configure(after=6.0, command=f"echo told; echo x >> {outside}")
        lab.contact()
        with contextlib.suppress(OSError), (root / "fill").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        before = (root / "contact.json").stat().st_mtime_ns
        for _ in range(3):
            time.sleep(2.5)
            lab.contact()
            assert (root / "contact.json").stat().st_mtime_ns > before
        assert not outside.exists()
        wait_until(outside.exists, 60)
        lab.ended()
        assert outside.read_text() == "x\n"
        assert lab.told() == {}  # there was no room to tell
    finally:
        end_keepers(root)
        subprocess.run(["umount", root], check=True)


def test_contact_costs_next_to_nothing_and_raises_nothing(lab: Kept, tmp_path: Path) -> None:
    """At most one write a second, however often it is called; a root that is not there is no error."""
    begin, written = time.monotonic(), set()
    lab.contact()
    path = lab.root / "contact.json"
    for _ in range(300):
        keeper.contact(str(lab.root))
        written.add(path.stat().st_mtime_ns)
        time.sleep(0.005)
    assert 2 <= len(written) <= time.monotonic() - begin + 1
    content = json.loads(path.read_text())
    assert content["boot"] == processes.boot_id()
    assert abs(float(content["monotonic"]) - time.monotonic()) < 60
    keeper.contact(str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"abandon_after": 5}, "abandon_after"),
        ({"abandon_after_s": 0}, "abandon_after_s"),
        ({"abandon_after_s": "5"}, "abandon_after_s"),
        ({"abandon_after_s": float("nan")}, "abandon_after_s"),
        ({"on_idle": ["stop"]}, "on_idle"),
        ({"on_idle": "a\0b"}, "on_idle"),
    ],
)
def test_keeper_refuses_wrong_settings(tmp_path: Path, settings: dict[str, Any], named: str) -> None:
    """A setting nobody would obey is an error, and nothing is written."""
    with pytest.raises(ValueError, match=named):
        keeper.configure(str(tmp_path), settings)
    assert list(tmp_path.iterdir()) == []


def test_keeper_needs_the_file_that_travels(lab: Kept) -> None:
    """Started from a program that is not the travelling file, it says so instead of running something else."""
    lab.configure()
    with pytest.raises(ValueError, match=r"must be the supervisor's \.pyz file"):
        keeper.start(str(lab.root), __file__)
    keeper.ensure(str(lab.root))
    assert not lab.running()


@pytest.mark.skipif(not processes.LINUX, reason="needs Linux: /proc")
def test_keeper_command_sees_what_the_first_process_was_given(lab: Kept) -> None:
    """What a container's first process was told (a pod's id) reaches on_idle; the keeper's own environment comes first."""
    first = keeper._first_environment()
    lab.configure(command="env > seen")
    lab.contact()
    lab.wait("done")
    seen = (lab.root / "seen").read_text()
    for name, value in first.items():
        if name not in os.environ and "\n" not in value and name not in ("_", "PWD", "SHLVL", "OLDPWD"):
            assert f"{name}={value}\n" in seen
    assert f"PATH={os.environ['PATH']}\n" in seen
