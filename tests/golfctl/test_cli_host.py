"""`golfctl host ...` as a person uses it, against a real sshd: from the first key to handing the machine back."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.golfctl.campaigns import GOLFCTL, golfctl, make, processes_of
from tests.golfctl.sshlab import Home, Sshd, new_key, ssh_home, sshd, wait_until
from tests.golfctl.test_setup_host import wheel

__all__ = ["ssh_home", "sshd"]
pytestmark = pytest.mark.service


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A campaign of three plans; what runs at the end is stopped."""
    yield make(tmp_path / "golf", step_seconds=0.01)
    if processes_of(tmp_path):
        golfctl(tmp_path / "golf", "runs", "stop", "--all", expect=None)
        golfctl(tmp_path / "golf", "host", "sweep", "pod1", "--stop", "--others", expect=None)
        wait_until(lambda: not processes_of(tmp_path), 60)


def entry(root: Path, alias: str = "pod1", **fields: Any) -> None:
    """Write or change one entry of hosts.yaml."""
    path = root / "hosts.yaml"
    hosts = yaml.safe_load(path.read_text()) if path.exists() else {}
    start = {"kind": "ssh", "address": "pod1", "root": str(root.parent / f"far {alias}")}
    hosts[alias] = {**hosts.get(alias, start), **fields}
    path.write_text(yaml.safe_dump(hosts))


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """The error, which is one line and no bug of ours."""
    (line,) = done.stderr.splitlines()[-1:]
    assert "bug in golfctl" not in done.stderr
    assert "Traceback" not in done.stderr
    return line


# -- add, list


def test_add_writes_what_was_said(root: Path) -> None:
    """Every option reaches hosts.yaml; what the file held stays byte for byte; list shows it."""
    before = "# mine\nold: {kind: local, slots: 3}   # by hand"
    (root / "hosts.yaml").write_text(before)
    (root / "key").write_text("a key")
    said = golfctl(
        root,
        *("host", "add", "pod-a", "root@192.0.2.7", "-p", "2222", "--gpus", "8xH100", "--price", "$21.52/h"),
        *("-i", str(root / "key"), "-J", "gate.example,me@inner", "--root", "/workspace/golf", "--persistent"),
        *("--abandon-after", "30m", "--on-idle", "poweroff", "--on-release", "rent stop $GOLFCTL_HOST"),
    ).stdout
    assert said == "pod-a: written to hosts.yaml (git-ignored). Next: golfctl host check pod-a\n"
    text = (root / "hosts.yaml").read_text()
    assert text.startswith(before + "\n")
    assert yaml.safe_load(text)["pod-a"] == {
        "kind": "ssh",
        "address": "192.0.2.7",
        "user": "root",
        "port": 2222,
        "gpu": "H100",
        "slots": 8,
        "usd_per_hour": 21.52,
        "identity": str(root / "key"),
        "jump": "gate.example,me@inner",
        "root": "/workspace/golf",
        "persistent": True,
        "abandon_after_s": 1800.0,
        "on_idle": "poweroff",
        "on_release": "rent stop $GOLFCTL_HOST",
    }
    golfctl(root, "host", "add", "cpu1", "box.example", "--slots", "4")
    lines = golfctl(root, "host", "list").stdout.splitlines()
    assert [line.split() for line in lines] == [
        ["local", "local", "1", "slot", "$0.00/h"],
        ["old", "local", "3", "slots", "$0.00/h"],
        ["pod-a", "ssh", "8x", "H100", "$21.52/h"],
        ["cpu1", "ssh", "4", "slots", "$0.00/h"],
    ]
    assert max(map(len, lines)) <= 80
    rows = {row["host"]: row for row in json.loads(golfctl(root, "host", "list", "--json").stdout)}
    assert rows["pod-a"] == {
        "host": "pod-a",
        "kind": "ssh",
        "slots": 8,
        "gpu": "H100",
        "usd_per_hour": 21.52,
        "under_way": 0,
    }


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["p", "box", "--gpus", "H100"], "--gpus H100: must be a number and a model, for example 8xH100"),
        (["p", "box", "--gpus", "0xH100"], "--gpus 0xH100: must be a number and a model"),
        (["p", "box", "--gpus", "8xH100", "--slots", "4"], "--slots 4: 8xH100 has 8, one for each GPU"),
        (["p", "box", "--price", "cheap"], "--price cheap: must be dollars an hour, for example 21.52/h"),
        (["p", "box", "--price", "-1"], "--price -1: must be dollars an hour"),
        (["p", "box", "--price", "nan"], "--price nan: must be dollars an hour"),
        (["p", "box", "--abandon-after", "soon"], "--abandon-after soon: must be a time, for example 30m, 2h or 90s"),
        (["p", "box", "--abandon-after", "0s"], "--abandon-after 0s: must be a time"),
        (["p", "box", "--port", "99999"], "port"),
        (["p", "box", "--port", "ssh"], "port"),
        (["p", "box", "--slots", "0"], "slots"),
        (["p", "box", "--identity", "/no/such/key"], "identity /no/such/key is not there"),
        (["p", "a b"], "address 'a b' must not be empty"),
        (["old", "box"], "host old: is there already; edit hosts.yaml, or take another name"),
        (["local", "box"], "host local: is there already"),
        (["a/b", "box"], "must be letters, digits"),
        (["p"], "Missing argument 'address'"),
    ],
)
def test_add_refuses_mistakes(root: Path, words: list[str], said: str) -> None:
    """One line, exit code 2, and hosts.yaml is as it was."""
    before = "old: {kind: local}\n"
    (root / "hosts.yaml").write_text(before)
    done = golfctl(root, "host", "add", *words, expect=2)
    assert said in one_line(done), done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert (root / "hosts.yaml").read_text() == before


def test_addresses_stay_out_of_git(tmp_path: Path) -> None:
    """A campaign made by `golfctl init` ignores hosts.yaml and what belongs to this machine alone: git itself says so."""
    golfctl(tmp_path, "init", "c")
    subprocess.run(["git", "init", "-q", str(tmp_path / "c")], check=True)
    golfctl(tmp_path / "c", "host", "add", "pod1", "192.0.2.7")
    ignored = subprocess.run(
        ["git", "-C", str(tmp_path / "c"), "check-ignore", "hosts.yaml", ".golfctl/tails/x.log"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert ignored.stdout.split() == ["hosts.yaml", ".golfctl/tails/x.log"]


def test_unknown_hosts_and_mixtures_are_refused(root: Path) -> None:
    """Which there are is said; hosts of different GPUs can't share a plan."""
    entry(root, "a", gpu="H100", address="192.0.2.1")
    entry(root, "b", gpu="A100", address="192.0.2.2")
    for command in ("check", "trust", "prepare", "bench", "sweep", "release"):
        done = golfctl(root, "host", command, "nope", expect=2)
        assert done.stderr == "host nope: unknown; golf.yaml and hosts.yaml have a, b, local\n"
    done = golfctl(root, "gate", "run", "--host", "nope", "--yes", expect=2)
    assert "host nope: unknown; golf.yaml and hosts.yaml have a, b, local" in done.stderr
    done = golfctl(root, "gate", "run", "--host", "a", "--host", "b", "--yes", expect=2)
    assert "a has H100, b has A100; results of different machines can't be compared" in done.stderr
    done = golfctl(root, "host", "trust", "local", expect=2)
    assert done.stderr == "host local: is local; only ssh hosts have a key\n"


# -- trust


def test_a_key_is_trusted_by_its_fingerprint_only(ssh_home: Home, root: Path, tmp_path: Path) -> None:
    """Unknown: refused, with fingerprint and command. Trusted: works. Changed: refused until --replace."""
    with Sshd() as server:
        ssh_home.add("pod1", server, known=False)
        entry(root)
        print_of = subprocess.run(
            ["ssh-keygen", "-lf", str(server.keys["ed25519"])], check=True, capture_output=True, text=True
        ).stdout.split()[1]
        said = one_line(golfctl(root, "host", "check", "pod1", "--no-speed", expect=3))
        assert f"key ED25519 {print_of} is unknown" in said
        assert "golfctl host trust pod1" in said
        done = golfctl(root, "host", "trust", "pod1", expect=1)
        assert f"pod1: ED25519 {print_of}" in done.stdout
        assert "say --yes to go on" in done.stderr
        assert "the key was not trusted" in done.stderr
        assert not ssh_home.known_hosts.exists()
        assert f"{ssh_home.known_hosts}:1" in golfctl(root, "host", "trust", "pod1", "--yes").stdout
        golfctl(root, "host", "trust", "pod1", "--yes")
        assert len(ssh_home.known_hosts.read_text().splitlines()) == 1
        golfctl(root, "host", "check", "pod1", "--no-speed")

        other = new_key(tmp_path / "other").with_suffix(".pub").read_text().split()[1]
        kept = "box.example ssh-ed25519 " + other
        name = ssh_home.known_hosts.read_text().split()[0]
        ssh_home.known_hosts.write_text(f"{kept}\n{name} ssh-ed25519 {other}\n")
        said = one_line(golfctl(root, "host", "check", "pod1", "--no-speed", expect=3))
        assert "its key CHANGED: it was ED25519 SHA256:" in said
        assert f"({ssh_home.known_hosts}:2) and is now ED25519 {print_of}" in said
        assert "golfctl host trust pod1 --replace" in said
        assert "CHANGED" in one_line(golfctl(root, "host", "trust", "pod1", "--yes", expect=3))
        golfctl(root, "host", "trust", "pod1", "--yes", "--replace")
        golfctl(root, "host", "check", "pod1", "--no-speed")
        assert ssh_home.known_hosts.read_text().splitlines()[0] == kept


# -- check, bench, prepare


def test_check_tells_what_keeps_runs_from_working(ssh_home: Home, sshd: Sshd, root: Path, tmp_path: Path) -> None:
    """Data against the manifest, the free disk, a host that is not there: named, with the right exit code."""
    entry(root)
    assert "no GPU" in golfctl(root, "host", "check", "pod1", "--no-speed").stdout
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.bin").write_bytes(b"x" * 10)
    files = {"a.bin": {"bytes": 20, "sha256": "0" * 64}, "b.bin": {"bytes": 20, "sha256": "0" * 64}}
    (root / "manifest.json").write_text(json.dumps({"name": "tiny", "files": files}))
    entry(root, data=str(tmp_path / "data"), manifest="manifest.json")
    done = golfctl(root, "host", "check", "pod1", "--no-speed", expect=1)
    assert re.search(r"FAIL  data: .*a\.bin", done.stdout)
    assert re.search(r"FAIL  data: .*b\.bin", done.stdout)
    assert one_line(done) == "pod1: not fit for a run"
    done = golfctl(root, "host", "check", "pod1", "--no-speed", "--json", expect=1)
    answer = json.loads(done.stdout)
    assert {"facts", "speed", "findings", "slots"} == set(answer)
    assert [item["level"] for item in answer["findings"]].count("fail") == 2
    done = golfctl(root, "gate", "run", "sharp", "--through", "1", "--host", "pod1", "--yes", expect=3)
    assert "host pod1: not fit for a run: data: " in one_line(done)
    assert "runs list" not in done.stdout
    assert json.loads(golfctl(root, "runs", "list", "--json").stdout) == []
    entry(root, data="", manifest="", options={"min_free_bytes": 10**18})
    done = golfctl(root, "host", "check", "pod1", "--no-speed", expect=1)
    assert "bytes free, at least 1,000,000,000,000,000,000 are needed" in done.stdout
    sshd.stop()
    said = one_line(golfctl(root, "host", "check", "pod1", "--no-speed", expect=3))
    assert re.search(r"^pod1: 127\.0\.0\.1:\d+: Connection refused$", said)


def test_bench_remembers_and_a_slow_host_is_named(ssh_home: Home, sshd: Sshd, root: Path) -> None:
    """A host ten times slower than its own past is told of; on a machine where others work, that this may be why."""
    entry(root)
    shown = golfctl(root, "host", "bench", "pod1").stdout
    assert re.search(r"memory_gb_s +\d+", shown)
    history = root / ".golfctl" / "hosts" / "pod1.jsonl"
    before = json.loads(history.read_text())
    for figure in before["figures"].values():
        figure["value"] *= 10
    history.write_text((json.dumps(before) + "\n") * 5)
    done = golfctl(root, "host", "check", "pod1", expect=None)
    assert "this host's own median of 5 probes is" in done.stdout
    if "SLOW: " in done.stdout:
        assert done.returncode == 1
        assert "fewer steps" in done.stdout
        assert one_line(done).startswith("pod1: works, and is slow; another machine of its kind")
    else:
        assert "is something else running? Probe again" in done.stdout
    assert len(history.read_text().splitlines()) == 6
    figures = json.loads(golfctl(root, "host", "bench", "pod1", "--json").stdout)["figures"]
    assert figures["memory_gb_s"]["value"] > 0


def test_prepare_once_and_runs_use_it(ssh_home: Home, sshd: Sshd, root: Path, tmp_path: Path) -> None:
    """A package from a folder, no network: made once, found the second time; what is nowhere is named."""
    wheel(tmp_path / "wheels", "tinypkg", "1.0")
    wish = {"requirements": ["tinypkg==1.0"], "imports": ["tinypkg"], "find_links": str(tmp_path / "wheels")}
    entry(root, options={"prepare": {**wish, "no_index": True}})
    first = golfctl(root, "host", "prepare", "pod1")
    assert re.search(r"^pod1: prepared in \d+\.\d s \(tinypkg 1\.0\)", first.stdout)
    assert "making" in first.stderr
    assert re.search(r"^pod1: was ready in \d+\.\d s \(tinypkg 1\.0\)", golfctl(root, "host", "prepare", "pod1").stdout)
    entry(root, options={"prepare": {**wish, "requirements": ["nowhere==1"], "no_index": True}})
    said = one_line(golfctl(root, "host", "prepare", "pod1", expect=3))
    assert re.search(r"^pod1: setup: packages could not be installed: .*nowhere==1", said)


# -- sweep, release


def test_release_only_when_all_is_at_home(ssh_home: Home, sshd: Sshd, root: Path, tmp_path: Path) -> None:
    """Refused while a run goes on and while its files lie there; the hook runs only then, knows its host, and may fail."""
    entry(root)
    done = golfctl(root, "host", "release", "pod1", expect=2)
    assert one_line(done).startswith("host pod1: on_release is not set in hosts.yaml")
    called = tmp_path / "called"
    entry(root, on_release=f"echo $GOLFCTL_HOST >> '{called}'")
    (root / "plans" / "slow.yaml").write_text(
        (root / "plans" / "sharp.yaml")
        .read_text()
        .replace("id: sharp", "id: slow")
        .replace("0.1}", "0.1, STEP_SECONDS: 600}")
    )
    command = [*GOLFCTL, "gate", "run", "slow", "--through", "1", "--host", "pod1", "--yes"]
    controller = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert controller.stdout
    for line in controller.stdout:
        if "started on pod1" in line:
            break
    controller.kill()
    controller.wait()
    controller.stdout.close()
    done = golfctl(root, "host", "release", "pod1", expect=3)
    assert re.search(r"host pod1: not released: .*slow.* is running", one_line(done))
    assert "1 run under way" in golfctl(root, "host", "list").stdout
    assert "slot 0 is held by slow.g1" in golfctl(root, "host", "check", "pod1", "--no-speed").stdout
    golfctl(root, "runs", "stop", "--all")
    wait_until(lambda: not processes_of(tmp_path), 60)
    done = golfctl(root, "host", "release", "pod1", expect=3)
    assert "golfctl gate run brings it home" in one_line(done)
    assert not called.exists()
    golfctl(root, "gate", "run", "slow", "--through", "1", "--host", "pod1", "--yes", expect=1)
    assert golfctl(root, "host", "release", "pod1").stdout == "host pod1: released\n"
    assert called.read_text() == "pod1\n"
    entry(root, on_release="echo no such pod >&2; exit 4")
    done = golfctl(root, "host", "release", "pod1", expect=3)
    assert one_line(done) == "host pod1: on_release failed with exit code 4: no such pod"


def test_gate_run_release_and_fail_fast(ssh_home: Home, sshd: Sshd, root: Path, tmp_path: Path) -> None:
    """--release hands back after the last verdict, also where a gate said no; --fail-fast starts nothing more after one."""
    called = tmp_path / "called"
    entry(root, on_release=f"ls '{tmp_path}/golf/experiments/runs' > '{called}'")
    words = ("--host", "pod1", "--yes", "--release", "--fail-fast")
    done = golfctl(root, "gate", "run", "blunt", "sharp", "--through", "2", *words, expect=1)
    assert "host pod1: released" in done.stderr
    assert any(line.startswith("blunt.g2") for line in called.read_text().splitlines())
    assert "2 plans, " in one_line(done)
    again = golfctl(root, "gate", "run", "blunt", "--through", "2", *words, expect=1)
    assert "started on" not in again.stdout


def test_sweep_finds_stops_and_leaves_other_campaigns_files(
    ssh_home: Home, sshd: Sshd, root: Path, tmp_path: Path
) -> None:
    """A run whose controller and ledger are gone: told of, stopped on demand; nothing of it is taken as ours."""
    entry(root)
    other = make(tmp_path / "other", step_seconds=600)
    (other / "hosts.yaml").write_text((root / "hosts.yaml").read_text())
    command = [*GOLFCTL, "gate", "run", "sharp", "--through", "1", "--host", "pod1", "--yes"]
    controller = subprocess.Popen(command, cwd=other, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert controller.stdout
    for line in controller.stdout:
        if "started on pod1" in line:
            break
    controller.kill()
    controller.wait()
    controller.stdout.close()
    assert golfctl(other, "host", "sweep", "pod1").stdout == "pod1: 0 orphans\n"
    found = golfctl(root, "host", "sweep", "pod1").stdout
    assert re.search(r"^  sharp\.g1\.\S+: runs for test-campaign\npod1: 1 orphan\n", found)
    assert "left alone; --stop --others ends it, too" in golfctl(root, "host", "sweep", "pod1", "--stop").stdout
    assert processes_of(tmp_path)
    assert "    stopped" in golfctl(root, "host", "sweep", "pod1", "--stop", "--others").stdout
    wait_until(lambda: not processes_of(tmp_path), 60)
    left = golfctl(root, "host", "sweep", "pod1", "--fetch").stdout
    assert "exited, and its files were not fetched" in left
    assert not (root / "experiments" / "runs").exists() or not list((root / "experiments" / "runs").iterdir())


def test_sweep_brings_home_what_was_given_up(ssh_home: Home, sshd: Sshd, root: Path, tmp_path: Path) -> None:
    """A run lost to a dead line that ran on: found, and its files are fetched, verified."""
    entry(root, lost_after_s=1.0)
    command = [*GOLFCTL, "gate", "run", "sharp", "--through", "1", "--host", "pod1", "--yes"]
    text = (root / "plans" / "sharp.yaml").read_text().replace("0.1}", "0.1, STEP_SECONDS: 2}")
    (root / "plans" / "sharp.yaml").write_text(text)
    controller = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert controller.stdout
    for line in controller.stdout:
        if "started on pod1" in line:
            break
    sshd.stop()
    sshd.drop()
    lines = []
    for line in controller.stdout:
        lines.append(line)
        if " lost " in line:
            break
    controller.kill()
    controller.wait()
    controller.stdout.close()
    assert "lost" in lines[-1], lines
    sshd.start()
    wait_until(lambda: not processes_of(tmp_path), 60)
    found = golfctl(root, "host", "sweep", "pod1", "--fetch").stdout
    assert "exited, and its files were not fetched" in found
    assert "fetched to experiments/runs/sharp.g1" in found
    (run,) = (root / "experiments" / "runs").glob("sharp.g1*")
    assert (run / "model.json").is_file()
    assert golfctl(root, "host", "sweep", "pod1").stdout == "pod1: 0 orphans\n"
