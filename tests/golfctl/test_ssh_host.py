"""A host behind a real sshd: bundles down, runs, files up, with the connection cut at any time."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from golfctl.errors import HostError, HostUnreachable
from golfctl.hosts.ssh import SshHost
from tests.golfctl.sshlab import Home, Sshd, ssh_home, sshd, throwaway_user, wait_until
from tests.golfctl.test_local_host import SHA, archive, run_spec

__all__ = ["ssh_home", "sshd"]
pytestmark = pytest.mark.service

SCRIPT = """
import json, os, pathlib, sys, time
out = pathlib.Path(sys.argv[1])
(out / "env.json").write_text(json.dumps(dict(os.environ)))
(out / "artifact.golf").write_bytes(os.urandom(3_000_000))
for step in range(int(sys.argv[2])):
    print(f"step:{step}/{sys.argv[2]} train_loss:2.0 step_avg:1.00ms", flush=True)
    time.sleep(float(sys.argv[3]))
"""


def argv(steps: int = 3, pause: float = 0.0) -> tuple[str, ...]:
    """The script's command."""
    return ("{python}", "pkg/main.py", "{out}", str(steps), str(pause))


@pytest.fixture
def host(ssh_home: Home, sshd: Sshd, tmp_path: Path) -> Iterator[SshHost]:
    """A prepared host with the bundle on it; what runs at the end is stopped."""
    remote = SshHost(ssh_home.spec("pod1", root=str(tmp_path / "far" / "golf root"), slots=4))
    remote.prepare()
    remote.put(SHA, archive(tmp_path / "b.tar.gz", {"pkg/main.py": SCRIPT}))
    yield remote
    with contextlib.suppress(HostError):
        for name in remote.runs():
            remote.stop(name, "test is over")
            wait_until(lambda name=name: remote.poll(name).state != "running")
    remote.close()


def test_run_goes_down_and_comes_up_over_ssh(host: SshHost, tmp_path: Path) -> None:
    """put, start, look, read, pull, release: the whole way, and each step again without harm."""
    assert host.check() == []
    assert host.has_bundle(SHA)
    assert host.poll("r1").state == "absent"
    assert host.start(run_spec(argv=argv())) == "claimed"
    assert host.start(run_spec(argv=argv())) == "ours"
    assert host.start(run_spec(argv=argv(9))) == "exists"
    wait_until(lambda: host.poll("r1").state == "exited")
    looks = host.look({"r1": 5, "r2": 0})
    assert (looks["r1"].poll.state, looks["r2"].poll.state) == ("exited", "absent")
    end = looks["r1"].poll.exit
    assert end is not None
    assert (end["outcome"], end["files"]["artifact.golf"]["bytes"]) == ("completed", 3_000_000)
    log = host.read("r1", "train.log", 0)
    assert log[5:] == looks["r1"].log
    assert host.read("r1", "train.log", 7, 3) == log[7:10]
    assert host.read("r1", "not-yet.txt", 0) == b""
    into = tmp_path / "runs" / "r1"
    host.pull("r1", into)
    host.pull("r1", into)
    far = Path(host.spec.root) / "runs" / "r1"
    assert (into / "artifact.golf").read_bytes() == (far / "artifact.golf").read_bytes()
    assert (into / "train.log").read_bytes() == (far / "train.log").read_bytes()
    assert not json.loads((into / "pulled.json").read_text())["dead"]
    host.release("r1")
    assert sorted(path.name for path in far.iterdir()) == ["exit.json", "run.json"]
    assert (host.runs(), host.busy()) == (["r1"], 0)


def test_connection_cut_between_two_questions_is_made_again(host: SshHost, sshd: Sshd) -> None:
    """Every session is dropped, then the daemon restarted: the run goes on, the next questions are answered."""
    host.start(run_spec(argv=argv(400, 0.05)))
    for cut in (sshd.drop, sshd.restart, sshd.drop):
        cut()
        assert host.poll("r1").state == "running"
    before = len(host.read("r1", "train.log", 0))
    wait_until(lambda: len(host.read("r1", "train.log", 0)) > before)


def test_host_that_stays_away_is_unreachable_and_never_blocks(host: SshHost, sshd: Sshd) -> None:
    """With the daemon gone every question is answered quickly: HostUnreachable; when it is back, so are the answers."""
    host.start(run_spec(argv=argv(2000, 0.05)))
    sshd.stop()
    sshd.drop()
    with pytest.raises(HostUnreachable):
        host.poll("r1")
    for _ in range(20):
        with pytest.raises(HostUnreachable, match="pod1"):
            host.poll("r1")
    assert host.silent_s > 0
    sshd.start()

    def answers() -> bool:
        with contextlib.suppress(HostUnreachable):
            return host.poll("r1").state == "running"
        return False

    wait_until(answers, 60)


def test_values_reach_the_run_as_they_are(host: SshHost, tmp_path: Path) -> None:
    """Quotes, newlines, substitutions: nothing is ever read by a shell; NUL is refused before anything is sent."""
    mark = tmp_path / "executed"
    values = {
        "QUOTES": "a'b\"c\\d",
        "LINES": "one\ntwo\r\nthree",
        "SUBSTITUTION": f"$(touch {mark}) `touch {mark}` ${{HOME}} ; touch {mark} & | > {mark}",
        "UNICODE": "größe ★",
        "GLOB": "* ? [a] ~ !1 #x %d",
        "EMPTY": "",
    }
    assert host.start(run_spec(argv=argv(), env=values)) == "claimed"
    wait_until(lambda: host.poll("r1").state == "exited")
    seen = json.loads(host.read("r1", "env.json", 0))
    assert {name: seen[name] for name in values} == values
    assert not mark.exists()
    for name, value in {"A": "x\0y", "A;touch x": "1", "A=B": "1", "": "1", "1A": "1"}.items():
        with pytest.raises(HostError, match="name or value not allowed"):
            host.start(run_spec("r2", env={name: value}))
    assert host.runs() == ["r1"]


def test_secrets_reach_the_run_and_no_file_of_ours(
    ssh_home: Home, sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """secret_env: the child sees the value; run.json, exit.json and heartbeat.json do not hold it."""
    monkeypatch.setenv("HF_TOKEN", "hf_very_secret")
    host = SshHost(ssh_home.spec("pod1", root=str(tmp_path / "far"), secret_env=("HF_TOKEN",)))
    try:
        host.put(SHA, archive(tmp_path / "b.tar.gz", {"pkg/main.py": SCRIPT}))
        host.start(run_spec(argv=argv()))
        wait_until(lambda: host.poll("r1").state == "exited")
        assert json.loads(host.read("r1", "env.json", 0))["HF_TOKEN"] == "hf_very_secret"
        for file in ("run.json", "exit.json", "heartbeat.json"):
            assert b"hf_very_secret" not in host.read("r1", file, 0)
    finally:
        host.close()


@pytest.mark.parametrize("shell", ["/bin/dash", "/bin/csh", "/bin/bash", "/bin/tcsh"])
def test_any_login_shell_and_a_noisy_one(ssh_home: Home, tmp_path: Path, shell: str) -> None:
    """dash, csh, tcsh, and a bash whose .bashrc prints and leaves variables: the run works, its values are whole."""
    if not Path("/usr/bin/python3").exists():
        pytest.skip("needs a python3 that every user can start")
    noise = "echo Welcome to the pod; printf 'no newline'; export NOISE=1\n"
    files = {".bashrc": noise, ".cshrc": "echo hello from csh\n"}
    with throwaway_user(shell, files) as user, Sshd(user=user) as server:
        ssh_home.add("pod1", server)
        host = SshHost(ssh_home.spec("pod1", slots=2, root="~/golf"))
        try:
            host.put(SHA, archive(tmp_path / "b.tar.gz", {"pkg/main.py": SCRIPT}))
            assert host.start(run_spec(argv=argv(), env={"A": "$HOME '\"`id`"})) == "claimed"
            wait_until(lambda: host.poll("r1").state == "exited")
            assert json.loads(host.read("r1", "env.json", 0))["A"] == "$HOME '\"`id`"
        finally:
            host.close()


def test_host_without_python_is_told_in_one_line(ssh_home: Home, sshd: Sshd, tmp_path: Path) -> None:
    """The interpreter's name, and what the far shell said."""
    host = SshHost(ssh_home.spec("pod1", root=str(tmp_path), python="python3.99"))
    with pytest.raises(HostError, match=r"pod1: python3\.99 can't be started there: .*not found") as caught:
        host.check()
    assert "\n" not in str(caught.value)
    host.close()


def test_root_that_can_not_be_made_is_told_in_one_line(ssh_home: Home, sshd: Sshd, tmp_path: Path) -> None:
    """A file lies where the folder should be."""
    (tmp_path / "file").write_text("x")
    host = SshHost(ssh_home.spec("pod1", root=str(tmp_path / "file" / "root")))
    with pytest.raises(HostError, match="pod1: .*Not a directory"):
        host.check()
    host.close()


def test_no_process_of_ours_stays_when_the_controller_goes(host: SshHost, sshd: Sshd) -> None:
    """After close() the serving process ends; the run goes on."""
    host.start(run_spec(argv=argv(200, 0.05)))
    host.close()
    wait_until(lambda: not serving(Path(host.spec.root)))
    assert host.poll("r1").state == "running"


def serving(root: Path) -> list[str]:
    """Command lines of serve processes of this root."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if b"serve" in words and os.fsencode(root) in words:
                    found.append(entry.name)
    return found
