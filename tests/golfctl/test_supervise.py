"""The supervisor with real processes: how runs end, what they leave, and that nothing survives them."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from golfctl.hostside import processes
from golfctl.hostside.processes import sweep
from tests.golfctl.runlab import FAMILY, Lab, laboratory, wait_until

pytestmark = pytest.mark.service


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A lab whose processes are gone afterwards."""
    with laboratory(tmp_path) as place:
        yield place


def test_supervise_normal_end_lists_every_file(lab: Lab) -> None:
    """Exit code 0 is completed; exit.json holds bytes and sha256 of each file, and words in argv and env are filled."""
    code = (
        "import os; os.mkdir('{out}/sub'); open('{out}/sub/a.bin','wb').write(bytes(300000)); "
        "os.symlink('/etc/hostname', '{out}/link'); "
        "print('step:3/3 train_loss:2.5 step_avg:9.00ms'); print(os.environ['WHERE'], os.environ['PYTHONUNBUFFERED'])"
    )
    end = lab.run(code, env={"WHERE": "{out}/x"}, rules={"nan": True})
    assert (end["outcome"], end["reason"], end["code"], end["signal"]) == ("completed", "exit code 0", 0, None)
    assert end["last_step"] == 3
    assert end["log_tail"][-1] == f"{lab.folder()}/x 1"
    assert set(end["files"]) == {"run.json", "train.log", "supervise.log", "sub/a.bin"}
    assert end["files"]["sub/a.bin"] == {"bytes": 300000, "sha256": hashlib.sha256(bytes(300000)).hexdigest()}
    assert end["ended_at"].endswith("Z")
    assert 0 < end["wall_s"] < 20
    assert not (lab.folder() / ".reserve").exists()
    assert end["leftover"] == []


def test_supervise_crash_tells_code_and_last_line(lab: Lab) -> None:
    """A crash carries its exit code and the line that says why."""
    end = lab.run("print('starting'); raise SystemExit('CUDA out of \\x1b[31mmemory\\x07')")
    assert (end["outcome"], end["code"]) == ("crashed", 1)
    assert end["reason"] == "exit code 1: CUDA out of memory\ufffd"
    assert lab.run("import os; os._exit(7)", "quiet")["reason"] == "exit code 7"


def test_supervise_names_the_signal_that_killed_the_child(lab: Lab) -> None:
    """Killed from outside is crashed, with the signal's name and no exit code."""
    end = lab.run("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert (end["outcome"], end["code"], end["signal"]) == ("crashed", None, "SIGKILL")
    assert end["reason"] == "killed by SIGKILL"


def test_supervise_tells_a_program_that_cannot_start(lab: Lab) -> None:
    """No such program, no such folder: a crash with that reason, at once."""
    end = lab.run("", argv=["no-such-program-here"])
    assert end["outcome"] == "crashed"
    assert end["reason"].startswith("can't start no-such-program-here")
    assert "nowhere" in lab.run("", "b", cwd=str(lab.root / "nowhere"))["reason"]


def test_supervise_aborts_on_nan_at_once(lab: Lab) -> None:
    """A nan stops the run, its children included."""
    begin = time.monotonic()
    end = lab.run(FAMILY + "print('step:4/9 train_loss:nan'); time.sleep(60)", rules={"nan": True})
    assert time.monotonic() - begin < 10
    assert (end["outcome"], end["reason"], end["last_step"]) == ("aborted", "train_loss is nan at step 4", 4)
    assert lab.left() == set()


def test_supervise_rule_beats_exit_code(lab: Lab) -> None:
    """A run that prints a nan and leaves with 0, without ending its line, is not completed."""
    end = lab.run("import sys; sys.stdout.write('step:1 loss:nan')", rules={"nan": True})
    assert (end["outcome"], end["code"]) == ("aborted", 0)


def test_supervise_limit_reacts_within_a_second(lab: Lab) -> None:
    """From the line's printing (the child's own clock reading) to the child's death less than one second passes."""
    code = (
        "import signal, sys, time\n"
        "def bye(*_):\n"
        "    print('reaction', time.monotonic() - begin); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, bye)\n"
        "print('step:10/200 train_loss:3.1 train_time:9ms step_avg:900.00ms'); time.sleep(0.3)\n"
        "begin = time.monotonic()\n"
        "print('step:50/200 train_loss:3.1 train_time:9ms step_avg:664.00ms'); time.sleep(60)\n"
    )
    rules = {"limits": [{"metric": "step_avg_ms", "max": 400.0, "after_step": 50}]}
    end = lab.run(code, rules=rules)
    assert end["outcome"] == "aborted"
    assert end["reason"] == "step_avg_ms 664 > 400 at step 50 (limit from step 50)"
    assert float(end["log_tail"][-1].split()[1]) < 1.0


def test_supervise_aborts_a_stalled_run(lab: Lab) -> None:
    """A log that stands still ends the run, however busy the process is; one that grows does not."""
    end = lab.run("print('up')\nwhile True: pass", rules={"stall_s": 0.7})
    assert end["outcome"] == "aborted"
    assert end["reason"].startswith("stall: ")
    busy = "import time\nfor i in range(12): print(i); time.sleep(0.15)"
    assert lab.run(busy, "busy", rules={"stall_s": 1.0})["outcome"] == "completed"


def test_supervise_ends_a_run_over_time_and_kills_the_stubborn(lab: Lab) -> None:
    """The wallclock ends it as over_time; who has its own answer to TERM and stays is killed after the grace."""
    code = "import signal, time; signal.signal(signal.SIGTERM, lambda *_: print('no')); print('up'); time.sleep(60)"
    end = lab.run(code, rules={"wallclock_s": 1.0, "grace_s": 0.5})
    assert (end["outcome"], end["signal"]) == ("over_time", "SIGKILL")
    assert 1.4 < end["wall_s"] < 5


def test_supervise_obeys_the_stop_file(lab: Lab) -> None:
    """The text of the stop file is the reason, as one harmless line."""
    process = lab.launch(FAMILY + "time.sleep(60)")
    lab.wait_for_log("up")
    (lab.folder() / "stop").write_text("enough\n\x1b[2Jseen \n")
    assert process.wait(20) == 0
    end = lab.exit()
    assert (end["outcome"], end["reason"]) == ("aborted", "enough seen")
    assert "stop" not in end["files"]
    assert lab.left() == set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_supervise_passes_a_signal_on(lab: Lab, number: signal.Signals) -> None:
    """TERM and INT to the supervisor end the run in order, exit.json included."""
    process = lab.launch(FAMILY + "time.sleep(60)")
    lab.wait_for_log("up")
    process.send_signal(number)
    assert process.wait(20) == 0
    assert (lab.exit()["outcome"], lab.exit()["reason"]) == ("aborted", f"supervisor got {number.name}")
    assert lab.left() == set()


def test_supervise_reaps_what_a_finished_child_leaves(lab: Lab) -> None:
    """A child that ends well leaves no daemon behind, and its outcome is untouched by the sweeping."""
    code = (
        "import os, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork(): os._exit(0)\n"
        "    os.environ.clear(); time.sleep(300)\n"
        "time.sleep(0.2)"
    )
    begin = time.monotonic()
    assert lab.run(code)["outcome"] == "completed"
    assert time.monotonic() - begin < 15
    assert lab.left() == set()


def test_supervise_killed_takes_its_child_along_and_sweep_finds_the_rest(lab: Lab) -> None:
    """SIGKILL: the child dies with its parent, the grandchild in its own session is found by its environment."""
    if not processes.LINUX:
        pytest.skip("needs Linux: death signal and /proc")
    process = lab.launch(FAMILY + "time.sleep(60)")
    lab.wait_for_log("up")
    wait_until(lambda: len(lab.left()) == 2)
    child = lab.beat()["child_pid"]
    process.kill()
    process.wait()
    wait_until(lambda: child not in lab.left())
    assert len(lab.left()) == 1
    assert not processes.alive(lab.beat())
    assert sweep(str(lab.folder())) == []
    assert lab.left() == set()
    assert not (lab.folder() / "exit.json").exists()


def test_supervise_killed_at_any_moment_leaves_a_clear_state(lab: Lab) -> None:
    """SIGKILL 0 to 250 ms after the launch: no folder, or one with spec and heartbeat; asking again starts it at most once."""
    if not processes.LINUX:
        pytest.skip("needs Linux: death signal and /proc")
    code = "import time; open('{out}/../../' + '{out}'.split('/')[-1], 'a').write('x'); time.sleep(0.05)"
    seen = set()
    for turn in range(16):
        name = f"k{turn}"
        process = lab.launch(code, name)
        if turn >= 12:  # on a slow machine the others may all fall before the claim
            wait_until(lab.folder(name).exists)
        time.sleep(turn % 12 / 48)
        process.kill()
        process.wait()
        folder = lab.folder(name)
        before = folder.exists()
        if before:
            assert lab.beat(name)["pid"] == process.pid
            assert json.loads((folder / "run.json").read_text())["cwd"] == str(lab.root)
            assert not processes.alive(lab.beat(name))
            assert sweep(str(folder)) == []
        assert lab.left(name) == set()
        ran = (lab.root / name).exists()
        assert lab.launch(code, name).wait(60) == 0
        assert (folder / "exit.json").exists() or before
        # The child may have died between opening its file and writing to it; what it must never do is write twice.
        assert not ran or (lab.root / name).read_text() in {"", "x"}
        seen.add(before)
    assert seen == {False, True}, "the kills all fell on one side of the claim"


def test_supervise_heartbeat_names_the_living(lab: Lab) -> None:
    """pid, start time and step are the real ones; a recycled pid or another boot is not mistaken for the supervisor."""
    process = lab.launch("import time; print('step:5/9 train_loss:1.0'); time.sleep(60)")
    wait_until(lambda: (lab.folder() / "heartbeat.json").exists() and lab.beat()["last_step"] == 5)
    beat = lab.beat()
    assert beat["pid"] == process.pid
    assert beat["log_bytes"] == len("step:5/9 train_loss:1.0\n")
    assert processes.process_table()[beat["child_pid"]][:2] == (process.pid, beat["child_start"])
    assert processes.alive(beat)
    assert not processes.alive({**beat, "pid_start": "1"})
    assert not processes.alive({**beat, "boot": "another"})
    assert not processes.alive(None)
    wait_until(lambda: lab.beat()["beat"] > beat["beat"], 5)


def test_supervise_twenty_starts_at_once_run_one_child(lab: Lab) -> None:
    """Every supervisor exits 0, silently; one child ran."""
    code = "import os; open('{out}/../../count','a').write('x'); print(os.getpid())"
    started = [lab.launch(code, name="same") for _ in range(20)]
    assert [process.wait(60) for process in started] == [0] * 20
    assert (lab.root / "count").read_text() == "x"
    assert lab.exit("same")["outcome"] == "completed"
    assert [path.name for path in (lab.root / "runs").iterdir()] == ["same"]
    before = (lab.folder("same") / "exit.json").stat().st_mtime_ns
    lab.run(code, name="same")
    assert (lab.folder("same") / "exit.json").stat().st_mtime_ns == before


def test_supervise_late_starters_say_exists_whatever_became_of_the_inbox(lab: Lab) -> None:
    """Whoever comes second finds the inbox file gone, empty or torn, as a tidying starter leaves it: the run exists, no error."""
    for turn, leave in enumerate((None, "", '{"argv": [')):
        name = f"late{turn}"
        started = [lab.launch("pass", name)]
        inbox = lab.root / "inbox" / f"{name}.json"
        command = [sys.executable, "-I", "-S", str(lab.file), str(lab.root), name]
        for _ in range(8):
            started.append(subprocess.Popen(command))
            lab.started.append(started[-1])
        wait_until(lab.folder(name).exists)
        inbox.unlink() if leave is None else inbox.write_text(leave)
        assert [process.wait(60) for process in started] == [0] * 9


def test_supervise_respects_any_existing_folder(lab: Lab) -> None:
    """A name somebody took, even by an empty folder, is taken."""
    lab.folder().mkdir(parents=True)
    assert lab.launch("raise SystemExit(1)").wait(20) == 0
    assert list(lab.folder().iterdir()) == []


def test_supervise_refuses_a_bad_spec_and_claims_nothing(lab: Lab, capfd: pytest.CaptureFixture[str]) -> None:
    """A misspelt rule, an empty argv, broken JSON, no inbox file, a bad name: one line on stderr, exit code 1, no run."""
    assert lab.launch("pass", rules={"wallclok_s": 1}).wait(20) == 1
    assert lab.launch("pass", argv=[]).wait(20) == 1
    (lab.root / "inbox" / "torn.json").write_text('{"argv": [')
    (lab.root / "inbox" / "empty.json").write_text("")
    (lab.root / "inbox" / "list.json").write_text("[]")
    (lab.root / "inbox" / "deep.json").write_text("[" * 100_000)
    (lab.root / "inbox" / "env.json").write_text('{"argv": ["true"], "env": ["A=1"]}')
    for name in ("torn", "empty", "list", "deep", "env", "missing", "../evil"):
        assert lab.ask(name) == (1, "")
    said = capfd.readouterr().err.strip().splitlines()
    assert len(said) == 9
    assert all(line.startswith("supervise: ") for line in said)
    assert all(f"{lab.root}/inbox/{name}.json" in line for name, line in zip(["r", "r", "torn"], said, strict=False))
    assert all(line.count(str(lab.root)) == 1 for line in said[:-1])
    assert not any((lab.root / "runs").glob("*")) and not any((lab.root / "runs").glob(".*"))


def test_supervise_loses_no_bytes_of_a_loud_child(lab: Lab) -> None:
    """30 MB with megabyte lines, carriage returns and broken UTF-8 arrive whole; the metric after them still counts."""
    code = (
        "import sys; out = sys.stdout.buffer\n"
        "for i in range(30): out.write(b'\\xff' * (1 << 20) + b'\\r\\n'[i % 2:])\n"
        "out.write(b'\\rstep:8/9 train_loss:1.5\\r')"
    )
    end = lab.run(code, rules={"nan": True})
    assert end["outcome"] == "completed"
    assert end["last_step"] == 8
    expected = b"".join(b"\xff" * (1 << 20) + b"\r\n"[i % 2 :] for i in range(30)) + b"\rstep:8/9 train_loss:1.5\r"
    assert end["files"]["train.log"]["sha256"] == hashlib.sha256(expected).hexdigest()
    assert max(map(len, end["log_tail"])) <= 500
    assert end["log_tail"][-1] == "step:8/9 train_loss:1.5"


def test_supervise_full_disk_stops_the_run_and_tells(tmp_path: Path) -> None:
    """On a 1 MB disk the child fills: it is stopped, and exit.json says why."""
    if os.geteuid() != 0 or not processes.LINUX:
        pytest.skip("needs root on Linux: mounts a small tmpfs")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path], check=False)
    if mounted.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        lab = Lab(tmp_path)
        code = (
            "import time; f = open('{out}/fill','wb', buffering=0)\n"
            "try:\n"
            "    while True: f.write(bytes(4096))\n"
            "except OSError: time.sleep(60)"
        )
        begin = time.monotonic()
        end = lab.run(code)
        assert time.monotonic() - begin < 15
        assert end["outcome"] == "crashed"
        assert "No space left on device" in end["reason"]
        assert "fill" in end["files"]
        assert lab.left() == set()
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_supervise_works_without_proc(lab: Lab) -> None:
    """Where environments can't be read (macOS) the tree from `ps` is enough to end a family in several sessions."""
    if subprocess.run(["sh", "-c", "command -v ps"], stdout=subprocess.DEVNULL, check=False).returncode:
        pytest.skip("needs ps")
    driver = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from golfctl.hostside import processes, supervise, watch\n"
        "processes.LINUX = watch.LINUX = False\n"
        "sys.exit(supervise.main(sys.argv[2:]))"
    )
    content = {
        "argv": ["{python}", "-c", FAMILY + "time.sleep(60)"],
        "heartbeat_s": 0.2,
        "rules": {"wallclock_s": 2},
    }
    (lab.root / "inbox" / "r.json").write_text(json.dumps(content))
    command = [sys.executable, "-I", "-S", "-c", driver, str(lab.file), str(lab.root), "r"]
    assert subprocess.run(command, timeout=60, check=False).returncode == 0
    assert lab.exit()["outcome"] == "over_time"
    assert lab.exit()["leftover"] == []
    assert len(lab.beat()["known"]) == 2
    assert lab.left() == set()
