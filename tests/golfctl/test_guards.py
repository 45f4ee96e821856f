"""Guards with real processes and files: what ends a run besides its numbers, and what exit.json then says."""

from __future__ import annotations

import contextlib
import errno
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

from golfctl.hostside import processes
from golfctl.hostside.guards import Frozen, artifact_bytes, artifact_files, deaf, last_lines, masker, oom_kills
from golfctl.hostside.watch import Supervisor
from tests.golfctl.test_supervise import FAMILY, Lab, wait_until

pytestmark = pytest.mark.service
needs_linux = pytest.mark.skipif(not processes.LINUX, reason="needs Linux: /proc")
NAP = "import time; print('up'); time.sleep(60)"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + FAMILY


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A lab whose processes are gone afterwards."""
    laboratory = Lab(tmp_path)
    yield laboratory
    for process in laboratory.started:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
    for folder in (tmp_path / "runs").glob("[!.]*"):
        processes.sweep(str(folder))


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process to look at."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    yield process
    process.kill()
    process.wait()


# -- what ends a run


def test_out_of_memory_ends_the_run_while_others_hang(lab: Lab) -> None:
    """One process says that memory ran out, its sibling waits for it: the run ends, with that line."""
    line = "[rank1]: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 9.00 GiB. GPU 1 has"
    end = lab.run(FAMILY + f"print({line!r}); time.sleep(60)", rules={"memory_errors": True})
    assert (end["outcome"], end["reason"]) == ("aborted", f"out of memory: {line}")
    assert (end["lines"], end["fault"]) == ([line], "")
    assert lab.left() == set()


def test_torch_out_of_memory_is_recognised_as_torch_prints_it(lab: Lab) -> None:
    """The real message of the torch installed here."""
    code = (
        "import time, torch\ntry:\n    torch.empty(1 << 50)\n"
        "except RuntimeError as error:\n    print(error, flush=True)\ntime.sleep(60)"
    )
    argv = [sys.executable, "-c", code]
    end = lab.run("", argv=argv, rules={"memory_errors": True, "wallclock_s": 100})
    assert end["outcome"] == "aborted"
    assert end["reason"].startswith("out of memory: ")
    assert "1125899906842624" in end["lines"][0] or "4503599627370496" in end["lines"][0]


def test_nccl_system_error_ends_the_run_and_blames_the_host(lab: Lab) -> None:
    """The rule ends it; the kind of error says that another machine may do."""
    code = FAMILY + "print('ncclSystemError: System call failed'); time.sleep(60)"
    end = lab.run(code, rules={"nccl_errors": True})
    assert (end["outcome"], end["fault"]) == ("aborted", "host")
    assert end["reason"] == "communication error: ncclSystemError: System call failed"


def test_printed_source_ends_nothing(lab: Lab) -> None:
    """A script that prints itself, errors it handles included, runs to its end."""
    source = (
        "except torch.OutOfMemoryError:\n    print('CUDA out of memory. Tried to allocate 3')  # ncclSystemError: x\n"
    )
    end = lab.run(f"print({source!r})", rules={"memory_errors": True, "nccl_errors": True, "nan": True})
    assert (end["outcome"], end["lines"], end["fault"]) == ("completed", [], "")


def test_artifact_over_the_cap_ends_the_run(lab: Lab) -> None:
    """All files that match count together, in the run folder and in the copy the run works in; others don't."""
    bundle = lab.root / "bundle"
    bundle.mkdir()
    code = (
        "import time; open('{out}/big.log','wb').write(bytes(90000)); open('a.ptz','wb').write(bytes(6000))\n"
        "time.sleep(2.5); open('{out}/b.ptz','wb').write(bytes(5001)); time.sleep(60)"
    )
    rules = {"artifact": {"globs": ["*.ptz", "[ab].*z"], "max_bytes": 11000}}
    end = lab.run("", argv=["{python}", "-c", code], cwd="bundle", own_copy=True, rules=rules)
    assert (end["outcome"], end["reason"]) == ("aborted", "artifact 11,001 bytes > 11,000")
    rules["artifact"]["max_bytes"] = 11001
    code = code.replace("time.sleep(60)", "time.sleep(1.5)")
    assert lab.run(code, "fits", cwd="bundle", own_copy=True, rules=rules)["outcome"] == "completed"


def test_artifact_bytes_counts_plain_files_once(tmp_path: Path) -> None:
    """Links and folders count nothing, a folder's name may hold what looks like a pattern."""
    folder = tmp_path / "run[1]*"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.ptz").write_bytes(bytes(10))
    (folder / "sub" / "b.ptz").write_bytes(bytes(100))
    (folder / "c.ptz").symlink_to(folder / "a.ptz")
    (folder / "d.ptz").mkdir()
    nowhere = str(tmp_path / "none")
    assert artifact_bytes(artifact_files(str(folder), ["*.ptz", "a*"], nowhere, nowhere).values()) == 10
    assert artifact_bytes(artifact_files(str(folder), ["*/*.ptz", "*.ptz"], nowhere, nowhere).values()) == 110


@needs_linux
def test_stopped_processes_end_the_run(lab: Lab) -> None:
    """Child and grandchild stopped from outside: aborted though the log may stand still for long."""
    process = lab.launch(FAMILY + "time.sleep(60)", rules={"frozen_s": 1.0, "stall_s": 300})
    lab.wait_for_log("up")
    wait_until(lambda: len(lab.left()) == 2)
    for pid in lab.left():
        os.kill(pid, signal.SIGSTOP)
    assert process.wait(60) == 0
    end = lab.exit()
    assert end["outcome"] == "aborted"
    # A process that waits for its disk when it is stopped is seen in state D first.
    assert re.fullmatch(
        r"stall: every process of the run is stopped \(T\)( or uninterruptible \(D\))? for 1 s", end["reason"]
    )
    assert lab.left() == set()


@needs_linux
def test_one_process_that_goes_on_is_enough(lab: Lab) -> None:
    """A stopped child with a sleeping grandchild is not frozen; nor is a run stopped for a moment."""
    code = (
        "import os, signal, subprocess, time\n"
        "other = subprocess.Popen(['sleep', '3'], start_new_session=True)\n"
        "waker = subprocess.Popen(['sh', '-c', f'sleep 2.5; kill -CONT {os.getpid()}'])\n"
        "os.kill(os.getpid(), signal.SIGSTOP); print('woken', flush=True)"
    )
    end = lab.run(code, rules={"frozen_s": 1.0})
    assert (end["outcome"], end["log_tail"]) == ("completed", ["woken"])


@needs_linux
def test_uninterruptible_processes_are_seen() -> None:
    """A process the kernel's freezer holds in state D, using no CPU, is frozen; thawed it is not."""
    group = Path("/sys/fs/cgroup/freezer") / f"golfctl-test-{os.getpid()}"
    try:
        group.mkdir()
        if not (group / "freezer.state").exists():
            group.rmdir()
            pytest.skip("needs the freezer of cgroup version 1")
    except OSError:
        pytest.skip("needs the freezer of cgroup version 1, and root")
    process = subprocess.Popen(["sleep", "300"])
    try:
        (group / "cgroup.procs").write_text(str(process.pid))
        (group / "freezer.state").write_text("FROZEN")
        wait_until(lambda: (processes.process_row(process.pid) or (0, "", ""))[2] == "D")
        guard = Frozen(1.0)
        said = [guard.look(float(second) / 4, process.pid, lambda: {process.pid}) for second in range(8)]
        assert said[:4] == [None] * 4  # the first look has nothing to compare the CPU time with
        assert said[-1] == "stall: every process of the run is uninterruptible (D) for 1 s"
        (group / "freezer.state").write_text("THAWED")
        wait_until(lambda: (processes.process_row(process.pid) or (0, "", ""))[2] == "S")
        assert guard.look(3.0, process.pid, lambda: {process.pid}) is None
        assert guard.look(9.0, None, set) is None
    finally:
        (group / "freezer.state").write_text("THAWED")
        process.kill()
        process.wait()
        wait_until(lambda: not (group / "cgroup.procs").read_text())
        group.rmdir()


@needs_linux
def test_stall_tells_what_the_processes_did(lab: Lab) -> None:
    """A busy loop used CPU, a sleeper did not."""
    busy = lab.run("print('up', flush=True)\nwhile True: pass", rules={"stall_s": 1.0})["reason"]
    assert busy.startswith("stall: train.log did not grow for 1 s; its 1 process used ")
    assert float(busy.split("used ")[1].split()[0]) > 0
    idle = lab.run(FAMILY + "time.sleep(60)", "idle", rules={"stall_s": 1.0})["reason"]
    assert idle == "stall: train.log did not grow for 1 s; its 2 processes used 0.0 s of CPU meanwhile (state 2 S)"


@needs_linux
def test_processes_that_ignore_term_are_not_waited_for(lab: Lab) -> None:
    """Child and grandchild inherit the ignored signal: the long grace is not spent on them. A handler gets it."""
    begin = time.monotonic()
    end = lab.run(DEAF + "print('step:1 train_loss:nan'); time.sleep(90)", rules={"nan": True, "grace_s": 50})
    assert (end["outcome"], end["signal"], end["leftover"]) == ("aborted", "SIGKILL", [])
    assert time.monotonic() - begin < 40
    tidy = (
        "import signal, sys, time\n"
        "def bye(*_): time.sleep(1.5); print('tidy', flush=True); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, bye); print('step:1 train_loss:nan', flush=True); time.sleep(90)"
    )
    end = lab.run(tidy, "tidy", rules={"nan": True, "grace_s": 50})
    assert (end["log_tail"][-1], end["code"]) == ("tidy", 0)


@needs_linux
def test_deaf_reads_what_the_kernel_says(sleeper: subprocess.Popen[bytes]) -> None:
    """Default, stopped, ignoring, gone."""
    assert not deaf(sleeper.pid)
    os.kill(sleeper.pid, signal.SIGSTOP)
    wait_until(lambda: deaf(sleeper.pid))
    ignoring = subprocess.Popen(["sh", "-c", "trap '' TERM; exec sleep 300"])
    try:
        wait_until(lambda: deaf(ignoring.pid))
    finally:
        ignoring.kill()
        ignoring.wait()
    assert not deaf(ignoring.pid)


def test_windowed_limit_quotes_both_ends(lab: Lab) -> None:
    """exit.json holds the two lines the mean was taken between."""
    code = (
        "import time\n"
        "for s in range(0, 99, 7): print(f'step:{s}/99 train_time:{s * 500}ms step_avg:500.00ms', flush=True)\n"
        "time.sleep(60)"
    )
    rules = {
        "limits": [{"metric": "step_avg_ms", "max": 130, "after_step": 20, "window": 50, "scale": 2.0, "at_gpus": 8}]
    }
    end = lab.run(code, rules=rules)
    assert end["reason"] == "step_avg_ms 500 on this host = 250 at 8 GPUs > 130 over steps 21-77"
    assert [line.split()[0] for line in end["lines"]] == ["step:21/99", "step:77/99"]


# -- whose fault it was


def test_crash_that_blames_the_machine(lab: Lab) -> None:
    """The line may stand far above the last one: every rank prints its traceback. A plain crash blames nobody."""
    ecc = "RuntimeError: CUDA error: uncorrectable ECC error encountered"
    end = lab.run(f"import sys; print({ecc!r}); [print('trace', i) for i in range(100)]; sys.exit(1)")
    assert (end["outcome"], end["fault"], end["lines"]) == ("crashed", "host", [ecc])
    assert end["reason"] == "exit code 1: trace 99"
    plain = lab.run("raise ValueError('bad shape')", "plain")
    assert (plain["outcome"], plain["fault"], plain["lines"]) == ("crashed", "", [])
    number = lab.run(f"print({ecc!r}); print('step:1 train_loss:nan')", "number", rules={"nan": True})
    assert (number["outcome"], number["fault"]) == ("aborted", "")


def test_program_that_cannot_start_blames_the_host(lab: Lab) -> None:
    """No line of the code has run."""
    end = lab.run("", argv=["/nowhere/python3", "-c", "pass"])
    assert (end["outcome"], end["fault"]) == ("crashed", "host")


@needs_linux
def test_kill_by_the_kernel_for_want_of_memory_is_told(lab: Lab) -> None:
    """A supervisor in a memory cgroup of 150 MB whose child takes 400 MB."""
    own = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    path = next((row[2] for row in own if "memory" in row[1].split(",")), None)
    if path is None:
        pytest.skip("needs the memory controller of cgroup version 1")
    parents = [Path("/sys/fs/cgroup/memory" + path), Path("/sys/fs/cgroup/memory")]
    parent = next((place for place in parents if (place / "memory.limit_in_bytes").exists()), None)
    group = (parent or Path("/nowhere")) / f"golfctl-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(150 << 20))
    except OSError:
        pytest.skip("needs root and a memory cgroup that can be written")
    try:
        spec = {"argv": ["{python}", "-c", "print('taking', flush=True); a = b'x' * (400 << 20); print(len(a))"]}
        (lab.root / "inbox" / "r.json").write_text(json.dumps(spec))
        words = [sys.executable, "-I", "-S", str(lab.file), str(lab.root), "r"]
        command = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(group / "cgroup.procs"), *words]
        assert subprocess.run(command, timeout=60, check=False).returncode == 0
    finally:
        wait_until(lambda: not (group / "cgroup.procs").read_text())
        group.rmdir()
    end = lab.exit()
    if end["outcome"] == "completed":
        pytest.skip("this kernel does not enforce the limit (swap)")
    assert (end["outcome"], end["signal"]) == ("crashed", "SIGKILL")
    assert end["reason"] == "out of memory: the kernel killed 1 process here meanwhile; killed by SIGKILL: taking"


@needs_linux
def test_oom_kills_are_counted_or_unknown() -> None:
    """A number on every Linux we know."""
    count = oom_kills()
    assert count is None or count >= 0


# -- secrets


def test_secrets_are_nowhere_in_exit_json(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the reason, the offending lines and the tail, also where cutting to length would leave half of one."""
    token = "hf_" + "s3cr3t+/.*" * 12
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.setenv("SHORT", "1")
    code = (
        "import os, time; token = os.environ['HF_TOKEN']; print('login', token)\n"
        "print('x' * 450 + token); print('CUDA out of memory. Tried to allocate 1 GiB ' + 'y' * 180 + token, flush=True)\n"
        "time.sleep(60)"
    )
    names = ["HF_TOKEN", "EMPTY", "SHORT", "UNSET"]
    end = lab.run(code, secret_env=names, rules={"memory_errors": True})
    assert end["outcome"] == "aborted"
    assert end["reason"].startswith("out of memory: CUDA out of memory. Tried to allocate 1 GiB yyy")
    assert end["log_tail"][0] == "login ***"
    assert end["lines"][0].endswith("y***")
    assert "s3cr3t" not in json.dumps(end)
    crash = lab.run("import os, sys; sys.exit('denied for ' + os.environ['HF_TOKEN'])", "crash", secret_env=names)
    assert crash["reason"] == "exit code 1: denied for ***"


def test_masker_hides_each_line_of_a_key_and_leaves_short_values() -> None:
    """A value of several lines is printed line by line; two letters are no secret."""
    mask = masker(["KEY", "TWO", "LONG"], {"KEY": "-- begin\nabcdef\n-- end", "TWO": "ab", "LONG": "abcdefgh"})
    assert mask("key abcdef, abcdefgh and ab") == "key ***, *** and ab"
    assert masker([], {})("text") == "text"
    with pytest.raises(ValueError, match="secret_env"):
        Supervisor("/nowhere", {"argv": ["true"], "secret_env": "HF_TOKEN"})


def test_last_lines_of_a_long_log_start_with_a_whole_one(tmp_path: Path) -> None:
    """A line whose beginning is missing could hold the end of a secret that is no longer recognised."""
    log = tmp_path / "train.log"
    log.write_bytes(b"secret" * 100_000 + b"\nend\n")
    assert last_lines(str(log), 5, masker(["S"], {"S": "secret" * 100_000})) == ["end"]
    assert last_lines(str(tmp_path / "none"), 5) == []


# -- lease


DRIVER = """
import errno, json, os, sys
sys.path.insert(0, sys.argv[1])
from golfctl.hostside.watch import Supervisor
class Slots:
    said = []
    def environment(self): return {"SLOT": "5", "MINE": "lease"}
    def beat(self):
        self.said.append("beat")
        if sys.argv[3] != "0" and len(self.said) > 1: raise OSError(int(sys.argv[3]), "slot 5 was given away")
    def free(self): self.said.append("free " + str(os.path.exists(sys.argv[2] + "/exit.json")))
lease = Slots()
spec = json.loads(sys.argv[4])
try:
    Supervisor(sys.argv[2], spec, lease).run()
finally:
    print(json.dumps(lease.said))
"""


def with_lease(lab: Lab, number: int, code: str, name: str, **spec: Any) -> list[str]:
    """What happened to the lease of a run; its supervisor is a process of its own, as it changes signal handlers."""
    lab.folder(name).mkdir(parents=True)
    content = json.dumps({"argv": ["{python}", "-c", code], "heartbeat_s": 0.1, **spec})
    command = [sys.executable, "-I", "-S", "-c", DRIVER, str(lab.file), str(lab.folder(name)), str(number), content]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=60, check=False)
    said: list[str] = json.loads(done.stdout)
    return said


def test_lease_beats_sets_the_environment_and_is_freed_last(lab: Lab) -> None:
    """Its variables win over the spec's; it is given back once, when exit.json is there."""
    code = "import os, time; print(os.environ['SLOT'], os.environ['MINE'], os.environ['OTHER']); time.sleep(1)"
    said = with_lease(lab, 0, code, "r", env={"MINE": "spec", "OTHER": "spec"})
    assert lab.exit()["log_tail"] == ["5 lease spec"]
    assert said[-1] == "free True"
    assert said[:-1] == ["beat"] * (len(said) - 1)
    assert len(said) > 3


def test_lost_lease_ends_the_run_and_a_failed_beat_does_not(lab: Lab) -> None:
    """ESTALE: somebody else uses the GPU now. A full disk may pass."""
    with_lease(lab, errno.ESTALE, NAP, "lost")
    end = lab.exit("lost")
    assert (end["outcome"], end["reason"], end["fault"]) == ("aborted", "lease lost: slot 5 was given away", "host")
    with_lease(lab, errno.ENOSPC, "import time; time.sleep(1)", "full")
    assert lab.exit("full")["outcome"] == "completed"


def test_lease_is_freed_even_if_exit_json_cannot_be_written(lab: Lab) -> None:
    """The run folder vanishes meanwhile: the supervisor fails, the slot is given back."""
    code = "import shutil, time; time.sleep(0.3); shutil.rmtree('{out}')"
    said = with_lease(lab, 0, code, "gone")
    assert said[-1] == "free False"
