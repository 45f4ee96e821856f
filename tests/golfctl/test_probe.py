"""Probe and speed probe on this machine, as the travelling file runs them: facts that can be checked, nothing left behind."""

from __future__ import annotations

import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from golfctl.hostside import children, machine, package, probe, ranks, speed
from golfctl.hostside.processes import MARKER, process_table

pytestmark = pytest.mark.service
SMI = """#!/bin/sh
case "$1" in
--query-gpu=*{refused}*) echo 'Field "{refused}" is not a valid field to query.' ; exit 2 ;;
--query-gpu=*utilization*) cat {here}/long ;;
--query-gpu=*) cut -d, -f1-6 {here}/long ;;
--query-compute-apps=*) cat {here}/apps ;;
esac
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The file that travels."""
    path = tmp_path / "golfctl.pyz"
    path.write_bytes(package.single_file())
    return path


def tool(file: Path, name: str, request: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Run a tool as a host does: its last answer, and what it said before."""
    command = [sys.executable, "-I", str(file), "tool", name]
    process = subprocess.run(
        command, input=json.dumps(request), capture_output=True, text=True, timeout=200, check=True
    )
    lines = [json.loads(line) for line in process.stdout.splitlines()]
    return lines[-1], [line["say"] for line in lines[:-1]]


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Poll; fail after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def silent(_: str) -> None:
    """Nobody listens."""


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put an nvidia-smi on the PATH that prints these rows, as the real one formats them (there is no GPU here)."""

    def install(gpus: list[str], apps: list[str], refused: str = "nothing-is-refused") -> None:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        (folder / "long").write_text("\n".join(gpus) + "\n")
        (folder / "apps").write_text("".join(f"{row}\n" for row in apps))
        (folder / "nvidia-smi").write_text(SMI.format(here=folder, refused=refused))
        (folder / "nvidia-smi").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    return install


def row(index: int, used: int = 4) -> str:
    """One GPU in nvidia-smi's csv,noheader,nounits."""
    name = "NVIDIA H100 80GB HBM3"
    return f"{index}, GPU-{index}-aa, {name}, 81559, {used}, 570.211.01, 0, [N/A], 31, 1980, 700.00"


# -- facts


def test_probe_tells_this_machine(file: Path, tmp_path: Path) -> None:
    """Through the travelling file: facts agree with what the system says by other means; no name of this machine."""
    request = {"root": str(tmp_path), "torch": True, "nonce": "n-1"}
    before = time.time()
    answer, said = tool(file, "probe", request)
    after = time.time()
    facts = answer["done"]
    assert facts["nonce"] == "n-1"
    assert before <= facts["time"] <= after
    assert 0 < facts["took_s"] <= after - before + 0.1
    assert facts["torch"]["version"] == importlib.metadata.version("torch")
    assert facts["torch"]["available"] is (facts["torch"]["devices"] > 0)
    assert facts["python"]["version"] == ".".join(map(str, sys.version_info[:3]))
    assert facts["cpu"]["count"] == os.cpu_count()
    assert 0 < facts["cpu"]["usable"] <= len(os.sched_getaffinity(0))
    assert 0 < facts["memory"]["available_bytes"] <= facts["memory"]["total_bytes"]
    stat = os.statvfs(tmp_path)
    assert facts["disk"]["root"]["total_bytes"] == stat.f_blocks * stat.f_frsize
    assert facts["boot"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert said == ["importing torch"]
    assert os.uname().nodename not in json.dumps({**facts, "disk": None, "python": None})


def test_probe_checks_data_and_refuses_a_bad_request(tmp_path: Path) -> None:
    """With a manifest the data folder is checked; a manifest without a folder is the caller's mistake."""
    (tmp_path / "a").write_bytes(b"12")
    request: dict[str, Any] = {"manifest": {"files": {"a": {"bytes": 3}}}, "data": str(tmp_path)}
    data = probe.run(request, silent)["data"]
    assert data["problems"] == ["a: 2 bytes of 3: cut off; fetch it again"]
    with pytest.raises(ValueError, match="data folder"):
        probe.run({"manifest": {"files": {}}}, silent)


def test_probe_reads_nvidia_smi(smi: Callable[..., None]) -> None:
    """Eight GPUs, one with a run of ours and one with someone else's process."""
    ours = subprocess.Popen(["sleep", "60"], env={**os.environ, MARKER: "/root/golf/runs/D.g1.s42.a1"})
    try:
        apps = [f"GPU-2-aa, {ours.pid}, 30000, /usr/bin/python3 -u train.py", "GPU-5-aa, 999999999, [N/A], [Not Found]"]
        smi([row(index, 40000 if index in (2, 5) else 4) for index in range(8)], apps)
        wait_until(lambda: probe.run_of(ours.pid) != "")
        gpus, driver, error = probe.gpu_facts()
    finally:
        ours.kill()
        ours.wait()
    assert (len(gpus), driver, error) == (8, "570.211.01", "")
    assert gpus[0] == {
        "index": 0,
        "uuid": "GPU-0-aa",
        "name": "NVIDIA H100 80GB HBM3",
        "memory_mib": 81559,
        "used_mib": 4,
        "utilisation": 0,
        "ecc_errors": None,
        "celsius": 31,
        "max_mhz": 1980,
        "limit_w": 700,
        "processes": [],
    }
    assert gpus[2]["processes"] == [{"pid": ours.pid, "name": "python3", "used_mib": 30000, "run": "D.g1.s42.a1"}]
    assert gpus[5]["processes"] == [{"pid": 999999999, "name": "", "used_mib": None, "run": ""}]


def test_probe_old_and_broken_nvidia_smi(smi: Callable[..., None], tmp_path: Path) -> None:
    """One that does not know a field still lists its GPUs; one that fails is quoted."""
    smi([row(0)], [], refused="ecc.errors")
    gpus, driver, error = probe.gpu_facts()
    assert [(gpu["name"], gpu["used_mib"]) for gpu in gpus] == [("NVIDIA H100 80GB HBM3", 4)]
    assert (driver, error) == ("570.211.01", "")
    (tmp_path / "bin" / "nvidia-smi").write_text(
        "#!/bin/sh\necho 'Failed to initialize NVML: \033[1mmismatch'\nexit 18\n"
    )
    assert probe.gpu_facts() == ([], "", "Failed to initialize NVML: mismatch")


def test_probe_python_without_torch(tmp_path: Path) -> None:
    """A bare environment has no torch, and says so; an interpreter that is not there is an error, not a crash."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "v")], check=True)
    facts = probe.python_facts(str(tmp_path / "v" / "bin" / "python"), torch=True)
    assert facts["torch"] == {"error": "ModuleNotFoundError: No module named 'torch'"}
    missing = probe.python_facts(str(tmp_path / "nowhere"), torch=True)
    assert "can't start" in missing["error"]
    assert "nowhere" in missing["error"]


def test_probe_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A real build decides: without Python.h the compiler is there and does not serve."""
    import sysconfig

    real = probe.compiler_facts(sysconfig.get_paths()["include"])
    assert real["works"] is (real["error"] == "")
    if real["path"]:
        without = probe.compiler_facts(str(tmp_path))
        assert without["works"] is False
        assert "Python.h" in without["error"]
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert probe.compiler_facts("")["error"] == "no C compiler"


# -- machine


@pytest.fixture
def system(tmp_path: Path) -> Callable[..., tuple[str, str]]:
    """A /proc and a /sys/fs/cgroup with these files, as container hosts show them."""

    def build(cgroup: str, **files: str) -> tuple[str, str]:
        (tmp_path / "proc" / "self").mkdir(parents=True)
        (tmp_path / "proc" / "self" / "cgroup").write_text(cgroup)
        (tmp_path / "proc" / "meminfo").write_text("MemTotal: 1000000 kB\nMemFree: 1 kB\nMemAvailable: 900000 kB\n")
        for name, text in files.items():
            path = tmp_path / "cg" / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return str(tmp_path / "proc"), str(tmp_path / "cg")

    return build


def test_machine_cgroup_v2_limits(system: Callable[..., tuple[str, str]]) -> None:
    """The smallest limit up the tree counts, page cache is not in the way, and a quota is a number of cores."""
    files = {
        "a__memory_dot_max": "400000000\n",
        "a__memory_dot_current": "300000000\n",
        "a__memory_dot_stat": "anon 5\ninactive_file 50000000\n",
        "a__b__memory_dot_max": "max\n",
        "a__b__cpu_dot_max": "50000 100000\n",
        "cpu_dot_max": "max 100000\n",
    }
    proc, groups = system("0::/a/b\n", **files)
    assert machine.memory(proc, groups) == {
        "total_bytes": 400000000,
        "available_bytes": 150000000,
        "limit_bytes": 400000000,
    }
    assert machine.cpus(proc, groups)["usable"] == 0.5


def test_machine_cgroup_v1_limits(system: Callable[..., tuple[str, str]]) -> None:
    """The same by the older names; its number for "no limit" is none."""
    files = {
        "memory__memory_dot_limit_in_bytes": "9223372036854771712\n",
        "memory__c__memory_dot_limit_in_bytes": "200000000\n",
        "memory__c__memory_dot_usage_in_bytes": "150000000\n",
        "cpu,cpuacct__cpu_dot_cfs_quota_us": "-1\n",
        "cpu,cpuacct__cpu_dot_cfs_period_us": "100000\n",
        "cpu,cpuacct__c__cpu_dot_cfs_quota_us": "25000\n",
        "cpu,cpuacct__c__cpu_dot_cfs_period_us": "100000\n",
    }
    proc, groups = system("4:memory:/c\n1:cpu,cpuacct:/c\n0::/\n", **files)
    assert machine.memory(proc, groups)["available_bytes"] == 50000000
    assert machine.cpus(proc, groups)["usable"] == 0.25


def test_machine_filesystems(tmp_path: Path) -> None:
    """The longest mount point wins, the later of two on one point; blanks in names are read; kinds on the network are known."""
    mounts = tmp_path / "mountinfo"
    place = str(tmp_path)
    mounts.write_text(
        "1 0 8:1 / / rw - ext4 /dev/sda rw\n"
        f"2 1 0:5 / {place}/vol rw,relatime shared:1 - nfs4 10.0.0.1:/x rw\n"
        f"3 1 0:6 / {place}/vol rw - fuse.juicefs JuiceFS rw\n"
        f"4 1 0:7 / {place}/my\\040disk rw - xfs /dev/sdb rw\n"
    )
    kinds = {name: machine.filesystem(f"{place}/{name}", str(mounts)) for name in ("vol/a/b", "volume", "my disk/c")}
    assert kinds == {"vol/a/b": "fuse.juicefs", "volume": "ext4", "my disk/c": "xfs"}
    network = ("nfs", "nfs4", "fuse", "fuse.juicefs", "ceph", "cifs")
    assert all(machine.is_network(kind) for kind in network)
    assert not any(machine.is_network(kind) for kind in ("ext4", "overlay", "tmpfs", "fuseblk", "9p", ""))
    assert machine.filesystem("/proc/self") == "proc"


# -- speed


def test_speed_on_the_cpu(file: Path, tmp_path: Path) -> None:
    """All figures of a CPU host within the time a person waits; numbers are consistent and nothing is left on the disk."""
    root = tmp_path / "root"
    answer, said = tool(file, "speed", {"root": str(root), "disk_bytes": 32 << 20, "cuda": False})
    done = answer["done"]
    assert (done["device"], done["gpus"]) == ("cpu", 0)
    assert done["notes"] == [] or all("page cache" in note for note in done["notes"])
    assert set(done["figures"]) == {"disk_read_mb_s", "matmul_tflops", "memory_gb_s", "all_reduce_gb_s"}
    for name, figure in done["figures"].items():
        assert 0 < figure["worst"] <= figure["value"], name
        assert figure["repeats"] >= 3
        assert figure["spread"] >= 0
        assert figure["unit"] == speed.UNITS[name]
    assert done["figures"]["all_reduce_gb_s"]["method"] == "gloo, 2 ranks, 8 MiB"
    assert len(done["figures"]["all_reduce_gb_s"]["each"]) == 2
    assert 1e-4 < done["figures"]["matmul_tflops"]["value"] < 100
    assert done["wall_s"] < 60
    assert said[-1] == "measuring the all-reduce"
    assert list(root.iterdir()) == []


def test_speed_without_torch(tmp_path: Path) -> None:
    """Memory and disk are measured all the same, and the note says what is missing."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "v")], check=True)
    request = {"root": str(tmp_path), "python": str(tmp_path / "v" / "bin" / "python"), "disk_bytes": 8 << 20}
    done = speed.run(request, silent)
    assert set(done["figures"]) == {"disk_read_mb_s", "memory_gb_s"}
    assert done["figures"]["memory_gb_s"]["method"] == "memcpy of 64 MiB, 1 thread"
    assert "torch: ModuleNotFoundError: No module named 'torch'" in done["notes"]


def test_speed_gpus_that_torch_cannot_use(smi: Callable[..., None], tmp_path: Path) -> None:
    """nvidia-smi lists a GPU and torch sees none: said, and the CPU's figures are given as such."""
    if Path("/dev/nvidiactl").exists():
        pytest.skip("there are GPUs here")
    smi([row(0)], [])
    done = speed.run({"root": str(tmp_path), "disk_bytes": 8 << 20}, silent)
    assert done["device"] == "cpu"
    assert any("sees no GPU" in note for note in done["notes"])
    assert "matmul_tflops" in done["figures"]


def test_speed_gives_up_in_time(tmp_path: Path) -> None:
    """An interpreter that never answers costs the time allowed and no more; its process is gone."""
    stuck = tmp_path / "python"
    stuck.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 300\n")
    stuck.chmod(0o755)
    done = speed.run({"root": str(tmp_path), "python": str(stuck), "disk_bytes": 8 << 20, "seconds": 3}, silent)
    assert "torch: no answer in time" in done["notes"]
    pid = int((tmp_path / "pid").read_text())
    assert pid not in process_table()


def test_speed_children_die_with_it(file: Path, tmp_path: Path) -> None:
    """Killed without warning, the tool takes its processes along."""
    process = subprocess.Popen(
        [sys.executable, "-I", str(file), "tool", "speed"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    found: set[int] = set()
    try:
        assert process.stdin
        assert process.stdout
        process.stdin.write(json.dumps({"root": str(tmp_path), "disk_bytes": 4 << 20}).encode())
        process.stdin.close()
        for line in process.stdout:
            if b"importing torch" in line:
                break
        wait_until(lambda: len(offspring(process.pid)) >= 2)
        found = offspring(process.pid)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        if process.stdout:
            process.stdout.close()
    wait_until(lambda: not any(pid in process_table() for pid in found))


def offspring(pid: int) -> set[int]:
    """Children of a process that are alive."""
    return {child for child, fields in process_table().items() if fields[0] == pid and fields[2] != "Z"}


def test_speed_names_the_slowest() -> None:
    """A GPU 5 % below the median of the others is named, an even set is not."""
    values = [690.0, 692.0, 688.0, 512.0]
    assert speed.slowest(values, [0, 1, 2, 3], "TFLOP/s") == "gpu 3: 512 TFLOP/s, others 690"
    assert speed.slowest([690.0, 660.0], [0, 1], "TFLOP/s") == ""
    assert speed.slowest([690.0], [0], "TFLOP/s") == ""


def test_speed_repeats_are_summarised() -> None:
    """Median and interquartile range; at least three repeats even where one takes long."""
    assert ranks.summary([1.0, 2.0, 3.0, 4.0, 100.0])["value"] == 3.0
    even = ranks.summary([2.0, 2.0, 2.0, 2.0])
    assert (even["value"], even["spread"], even["repeats"]) == (2.0, 0.0, 4)
    figure = ranks.repeat(lambda: 1.0, 8.0, warm_s=0.0, measure_s=0.0)
    assert figure == {"value": 8.0, "spread": 0.0, "repeats": 3}


def test_speed_disk_without_the_page_cache(tmp_path: Path) -> None:
    """A disk is read past the cache, or the note says that it was not."""
    figure, note = speed.disk_read(str(tmp_path), 16 << 20)
    assert figure["value"] > 0
    assert (", cached" in figure["method"]) is bool(note)
    shm, note = speed.disk_read("/dev/shm", 8 << 20)
    assert "could not be dropped" in note
    assert shm["method"] == "read of 8 MiB, cached"


# -- children


def test_children_lines_and_deadline(tmp_path: Path) -> None:
    """Output comes line by line; one that never ends is killed at the deadline, one that can't start is told."""
    lines: list[str] = []
    code, tail = children.run_lines(["sh", "-c", "echo a; echo b >&2; exit 3"], lines.append)
    assert (code, sorted(lines), sorted(tail)) == (3, ["a", "b"], ["a", "b"])
    with pytest.raises(TimeoutError):
        children.run_lines(["sh", "-c", f"echo $$ > {tmp_path}/pid; exec sleep 300"], timeout_s=1.0)
    code, tail = children.run_lines([str(tmp_path / "nothing")])
    assert code != 0
    assert tail == [f"can't start {tmp_path / 'nothing'}: No such file or directory"]


@pytest.fixture(autouse=True)
def no_leftovers() -> Iterator[None]:
    """Whatever a test did, this process has no children afterwards."""
    before = offspring(os.getpid())
    yield
    wait_until(lambda: offspring(os.getpid()) <= before)
