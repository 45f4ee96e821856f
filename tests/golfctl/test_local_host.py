"""The local host end to end: bundles down, runs, files up; killed and repeated at every step."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from golfctl.domain.host import HostSpec
from golfctl.domain.run import RunSpec
from golfctl.errors import HostError
from golfctl.hosts.local import LocalHost
from golfctl.hostside.processes import LINUX, members

pytestmark = pytest.mark.service
SHA = "ab" * 32
SCRIPT = """
import os, subprocess, sys, time
from pathlib import Path
out, mode = Path(sys.argv[1]), sys.argv[2]
print("step:1/1 train_loss:2.0 step_avg:1.00ms")
(out / "sub").mkdir()
(out / "sub" / "artifact.golf").write_bytes(bytes(range(256)) * 4096)
(out / "count").open("a").write("x")
if mode == "family":
    subprocess.Popen(["sleep", "300"], start_new_session=True)
    print("up")
    time.sleep(300)
"""


def archive(path: Path, files: dict[str, str]) -> Path:
    """A tar.gz of text files."""
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    return path


def run_spec(name: str = "r1", mode: str = "short", **changes: object) -> RunSpec:
    """A run of SCRIPT."""
    argv = ("{python}", "pkg/main.py", "{out}", mode)
    values = {"name": name, "owner": "A", "bundle": SHA, "gate": 1, "seed": 1, "attempt": 1, "host": "here"}
    return RunSpec(**{**values, "shape": "s", "processes": 1, "argv": argv, **changes})  # type: ignore[arg-type]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[LocalHost]:
    """A prepared host with the bundle on it; what runs at the end is stopped."""
    local = LocalHost(HostSpec("here", root=str(tmp_path / "root")))
    local.prepare()
    local.put(SHA, archive(tmp_path / "b.tar.gz", {"pkg/main.py": SCRIPT, "pkg/data.txt": "x"}))
    yield local
    for name in local.runs():
        with contextlib.suppress(HostError):
            local.stop(name, "test is over")
            wait_until(lambda name=name: local.poll(name).state != "running")


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Poll; fail after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def finish(host: LocalHost, name: str = "r1") -> None:
    """Start a short run and wait for its end."""
    assert host.start(run_spec(name)) == "claimed"
    wait_until(lambda: host.poll(name).state == "exited")


def no_litter(folder: Path) -> bool:
    """Whether a folder holds no hidden entry."""
    return not any(path.name.startswith(".") for path in folder.iterdir())


def test_run_goes_down_and_comes_up(host: LocalHost, tmp_path: Path) -> None:
    """put, start, poll, read, pull, release: the whole way, and each step again without harm."""
    assert host.check() == []
    assert host.has_bundle(SHA)
    assert host.poll("r1").state == "absent"
    finish(host)
    assert host.start(run_spec()) == "ours"
    end = host.poll("r1").exit
    assert end is not None
    assert end["outcome"] == "completed"
    assert host.read("r1", "train.log", 7, 3) == b"1 t"
    assert host.read("r1", "train.log", 10_000) == b""
    assert host.read("r1", "not-yet.txt", 0) == b""
    into = tmp_path / "runs" / "r1"
    host.pull("r1", into)
    host.pull("r1", into)
    assert (into / "sub" / "artifact.golf").read_bytes() == bytes(range(256)) * 4096
    pulled = json.loads((into / "pulled.json").read_text())
    assert pulled["dead"] is False
    assert set(pulled["files"]) == {*end["files"], "exit.json"}
    for name, fact in pulled["files"].items():
        assert hashlib.sha256((into / name).read_bytes()).hexdigest() == fact["sha256"]
    assert no_litter(into.parent)
    host.release("r1")
    host.release("r1")
    assert sorted(path.name for path in (host.root / "runs" / "r1").iterdir()) == ["exit.json", "run.json"]
    assert host.start(run_spec()) == "ours"
    assert host.poll("r1").state == "exited"
    assert host.runs() == ["r1"]
    assert list((host.root / "inbox").iterdir()) == []


def test_bundle_files_are_read_only_and_kept(host: LocalHost, tmp_path: Path) -> None:
    """No write bits on a bundle's files; a second put with the same name changes nothing."""
    file = host.root / "bundles" / SHA / "pkg" / "main.py"
    assert file.stat().st_mode & 0o777 == 0o444
    host.put(SHA, archive(tmp_path / "other.tar.gz", {"pkg/main.py": "other"}))
    assert file.read_text() == SCRIPT
    finish(host)
    assert sorted(path.name for path in file.parent.iterdir()) == ["data.txt", "main.py"]  # no __pycache__


def test_start_from_many_threads_and_processes_runs_once(host: LocalHost) -> None:
    """Eight threads and four processes ask at once: one True, one child."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[2]); from tests.golfctl.test_local_host import *; "
        "print(LocalHost(HostSpec('here', root=sys.argv[1])).start(run_spec('many')))"
    )
    command = [sys.executable, "-c", code, str(host.root), str(Path(__file__).parents[2])]
    others = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: host.start(run_spec("many")), range(8)))
    answers += [process.communicate()[0].strip() for process in others]
    assert [process.returncode for process in others] == [0] * 4
    assert sorted(answers) == ["claimed", *["ours"] * 11]
    wait_until(lambda: host.poll("many").state == "exited")
    assert host.read("many", "count", 0) == b"x"


def test_run_outlives_its_controller(host: LocalHost) -> None:
    """The controller is killed with SIGKILL right after start; another one finds the run and its end."""
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[2]); from tests.golfctl.test_local_host import *; "
        "LocalHost(HostSpec('here', root=sys.argv[1])).start(run_spec('r1', 'family')); os.kill(os.getpid(), 9)"
    )
    command = [sys.executable, "-c", code, str(host.root), str(Path(__file__).parents[2])]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert host.poll("r1").state == "running"
    assert host.busy() == 1
    with pytest.raises(HostError, match="is running"):
        host.release("r1")
    with pytest.raises(HostError, match="is running"):
        host.pull("r1", host.root / "x")
    host.stop("r1", "seen\nenough")
    wait_until(lambda: host.poll("r1").state == "exited")
    end = host.poll("r1").exit
    assert end is not None
    assert (end["outcome"], end["reason"]) == ("aborted", "seen enough")
    assert host.busy() == 0


def test_inbox_file_without_a_run_loses_nothing(host: LocalHost) -> None:
    """A controller killed between writing the inbox file and starting: the run is absent, ask again."""
    (host.root / "inbox" / "r1.json").write_text('{"argv": ["tor')
    assert host.poll("r1").state == "absent"
    finish(host)


def test_dead_supervisor_is_told_and_swept(host: LocalHost, tmp_path: Path) -> None:
    """SIGKILL to the supervisor: poll says dead, nothing with the marker survives, what was written is pulled."""
    if not LINUX:
        pytest.skip("needs Linux: death signal and /proc")
    host.start(run_spec("r1", "family"))
    wait_until(lambda: b"up" in host.read("r1", "train.log", 0))
    marker = str((host.root / "runs" / "r1").resolve())
    wait_until(lambda: len(members(marker, {})) == 2)
    beat = host.poll("r1").heartbeat
    assert beat is not None
    os.kill(beat["pid"], signal.SIGKILL)
    wait_until(lambda: host.poll("r1").state == "dead")
    assert members(marker, {}) == set()
    assert host.busy() == 0
    with pytest.raises(HostError, match="is dead"):
        host.pull("r1", tmp_path / "r1")
    host.pull_partial("r1", tmp_path / "r1")
    pulled = json.loads((tmp_path / "r1" / "pulled.json").read_text())
    assert pulled["dead"] is True
    assert {"train.log", "run.json", "sub/artifact.golf"} <= set(pulled["files"])
    host.release("r1")
    assert host.poll("r1").state == "dead"
    assert host.start(run_spec("r1", "other")) == "exists"


def test_pull_catches_a_flipped_byte_and_a_cut_file(host: LocalHost, tmp_path: Path) -> None:
    """A file that differs from exit.json is named, and nothing is left behind."""
    finish(host)
    artifact = host.root / "runs" / "r1" / "sub" / "artifact.golf"
    good = artifact.read_bytes()
    into = tmp_path / "home" / "r1"
    for bad in (good[:1000] + b"!" + good[1001:], good[:-1], b""):
        artifact.write_bytes(bad)
        with pytest.raises(
            HostError, match=r"here:r1/sub/artifact\.golf: .* arrived \(3 times\), exit\.json says 1048576 bytes"
        ):
            host.pull("r1", into)
        assert list(into.parent.iterdir()) == []
    artifact.unlink()
    with pytest.raises(HostError, match="artifact.golf: listed in exit.json and not there"):
        host.pull("r1", into)
    artifact.write_bytes(good)
    host.pull("r1", into)
    assert (into / "pulled.json").is_file()


def test_pull_killed_in_the_middle_leaves_nothing_half(host: LocalHost, tmp_path: Path) -> None:
    """SIGKILL while copying: the folder is not there; the next pull is whole and tidies up."""
    finish(host)
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[3]); from tests.golfctl.test_local_host import *\n"
        "class Dying(LocalHost):\n"
        "    def _blocks(self, name, file):\n"
        "        yield b'half'\n"
        "        os.kill(os.getpid(), 9)\n"
        "Dying(HostSpec('here', root=sys.argv[1])).pull('r1', Path(sys.argv[2]))"
    )
    into = tmp_path / "home" / "r1"
    command = [sys.executable, "-c", code, str(host.root), str(into), str(Path(__file__).parents[2])]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert not into.exists()
    assert not no_litter(into.parent)
    host.pull("r1", into)
    assert (into / "pulled.json").is_file()
    assert no_litter(into.parent)


def test_pull_refuses_a_folder_that_is_not_its_own(host: LocalHost, tmp_path: Path) -> None:
    """What a person put there is never overwritten."""
    finish(host)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(HostError, match="is not a pulled run"):
        host.pull("r1", tmp_path / "mine")
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"


def test_pull_refuses_names_that_lead_outside(host: LocalHost, tmp_path: Path) -> None:
    """A hostile exit.json can't write beside the run's folder, nor forge pulled.json."""
    finish(host)
    path = host.root / "runs" / "r1" / "exit.json"
    good = json.loads(path.read_text())
    for name in ("../evil", "/tmp/evil", "a/../../evil", "./pulled.json", "pulled.json", "exit.json", ""):
        path.write_text(json.dumps({**good, "files": {name: {"bytes": 0, "sha256": ""}}}))
        with pytest.raises(HostError, match="a name no run file may have"):
            host.pull("r1", tmp_path / "home" / "r1")
    path.write_text(json.dumps({"outcome": "completed"}))
    with pytest.raises(HostError, match="damaged"):
        host.pull("r1", tmp_path / "home" / "r1")
    assert list((tmp_path / "home").iterdir()) == []


def test_read_refuses_links_pipes_and_paths_outside(host: LocalHost) -> None:
    """Only plain files of the run's own folder can be read."""
    finish(host)
    folder = host.root / "runs" / "r1"
    (folder / "link").symlink_to("/etc/hostname")
    os.mkfifo(folder / "pipe")
    for file in ("link", "pipe", "../r1/run.json", "/etc/hostname"):
        with pytest.raises(HostError):
            host.read("r1", file, 0)


def test_start_tells_what_is_wrong_and_claims_nothing(host: LocalHost) -> None:
    """A missing bundle, no argv, a bad variable, a misspelt rule, a bad name: one HostError line, no run."""
    for spec, said in [
        (run_spec(bundle="cd" * 32), "no such bundle"),
        (run_spec(argv=()), "argv is empty"),
        (run_spec(env={"A-B": "1"}), "'A-B'"),
        (run_spec(rules={"wallclok_s": 1}), "rules.wallclok_s: unknown rule"),
        (run_spec(name="../r1"), "is no name in runs"),
    ]:
        with pytest.raises(HostError, match=said) as caught:
            host.start(spec)
        assert "\n" not in str(caught.value)
    assert host.runs() == []
    assert no_litter(host.root / "runs")


def test_starters_answered_full_leave_each_other_s_order_alone(host: LocalHost) -> None:
    """Three processes ask for the one slot until they get it: no error, one claim; litter of a killed starter goes, too."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    litter = host.root / "inbox" / f".next.{ended.pid}-ab12.json"
    litter.write_text("{}")
    assert host.start(run_spec("holder", "family")) == "claimed"
    code = (
        "import sys; sys.path.insert(0, sys.argv[2]); from tests.golfctl.test_local_host import *; "
        "here = LocalHost(HostSpec('here', root=sys.argv[1])); said = ['full']\n"
        "while said[-1] == 'full': said.append(here.start(run_spec('next')))\n"
        "print(len(said) > 2, said[-1])"
    )
    command = [sys.executable, "-c", code, str(host.root), str(Path(__file__).parents[2])]
    others = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    time.sleep(3)
    host.stop("holder", "make room")
    said = [process.communicate()[0].split() for process in others]
    assert sorted(said) == [["True", "claimed"], ["True", "ours"], ["True", "ours"]]
    assert not litter.exists()
    assert list((host.root / "inbox").iterdir()) == []
