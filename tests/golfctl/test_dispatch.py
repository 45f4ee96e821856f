"""What makes dispatch quick: bytecode that travels no further than its interpreter, a connection made ahead, few questions."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
import zipfile
from functools import partial
from pathlib import Path

import pytest

from golfctl.domain.host import HostSpec
from golfctl.domain.run import Outcome, RunRecord
from golfctl.errors import HostUnreachable
from golfctl.hosts.base import Host
from golfctl.hosts.local import LocalHost
from golfctl.hosts.ssh import SshHost
from golfctl.hostside.compiled import install
from golfctl.hostside.package import single_file
from golfctl.runner.fleet import Fleet
from tests.golfctl.sshlab import Home, Sshd, ssh_home, sshd, wait_until
from tests.golfctl.test_local_host import SHA, archive, run_spec

__all__ = ["ssh_home", "sshd"]
pytestmark = pytest.mark.service


def installed(folder: Path, name: str = "supervise.pyz") -> Path:
    """The travelling file as a host has it."""
    new, path = folder / f"{name}.new", folder / name
    new.write_bytes(single_file())
    install(str(new), str(path))
    assert not new.exists()
    return path


def usage(path: Path) -> tuple[int, bytes]:
    """What it says when asked for nothing."""
    done = subprocess.run([sys.executable, "-I", "-S", str(path)], capture_output=True, check=False)
    return done.returncode, done.stderr


def test_bytecode_is_beside_every_source_and_is_used(tmp_path: Path) -> None:
    """Each module twice; the sources are untouched; a module whose source is wrong still loads, so nothing is compiled."""
    path = installed(tmp_path)
    (tmp_path / "plain.pyz").write_bytes(single_file())
    with zipfile.ZipFile(path) as file, zipfile.ZipFile(tmp_path / "plain.pyz") as plain:
        sources = plain.namelist()
        assert sorted(file.namelist()) == sorted([*sources, *(f"{name}c" for name in sources)])
        assert all(file.read(name) == plain.read(name) for name in sources)
        with zipfile.ZipFile(tmp_path / "odd.pyz", "w") as odd:
            for name in file.namelist():
                odd.writestr(name, "this is no Python" if name.endswith("supervise.py") else file.read(name))
    assert usage(path) == usage(tmp_path / "plain.pyz") == usage(tmp_path / "odd.pyz")
    assert usage(path)[0] == 2


def test_another_interpreters_bytecode_is_passed_over(tmp_path: Path) -> None:
    """With a magic number that is not ours everything still works."""
    with zipfile.ZipFile(installed(tmp_path)) as file, zipfile.ZipFile(tmp_path / "old.pyz", "w") as old:
        for name in file.namelist():
            content = file.read(name)
            old.writestr(name, b"\0\0\r\n" + content[4:] if name.endswith("c") else content)
    assert usage(tmp_path / "old.pyz") == usage(tmp_path / "supervise.pyz")


def test_file_that_is_there_is_never_replaced(tmp_path: Path) -> None:
    """Processes read it by offsets while they live: of many installers one wins, and later ones change nothing."""
    threads = [threading.Thread(target=_install, args=(tmp_path, number)) for number in range(8)]
    for thread in threads:
        thread.start()
    inodes = set()
    while any(thread.is_alive() for thread in threads):
        if (tmp_path / "s.pyz").exists():
            inodes.add((tmp_path / "s.pyz").stat().st_ino)
    for thread in threads:
        thread.join()
    inodes.add((tmp_path / "s.pyz").stat().st_ino)
    assert len(inodes) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["s.pyz"]


def _install(folder: Path, number: int) -> None:
    new = folder / f"{number}.new"
    new.write_bytes(single_file())
    install(str(new), str(folder / "s.pyz"))


def _exited(host: Host, name: str) -> bool:
    return host.poll(name).state == "exited"


@pytest.mark.parametrize("kind", ["local", "ssh"])
def test_hosts_install_bytecode(ssh_home: Home, sshd: Sshd, tmp_path: Path, kind: str) -> None:
    """Whoever brings the file; a run started from it works."""
    spec = (
        HostSpec("here", root=str(tmp_path / "far"))
        if kind == "local"
        else ssh_home.spec("pod1", root=f"{tmp_path}/far")
    )
    host = LocalHost(spec) if kind == "local" else SshHost(spec)
    try:
        host.put(SHA, archive(tmp_path / "b.tar.gz", {"pkg/main.py": "print('hello')"}))
        assert host.start(run_spec(argv=("{python}", "pkg/main.py"))) == "claimed"
        wait_until(lambda: host.poll("r1").state == "exited")
        (file,) = (tmp_path / "far").glob("supervise-*")
        assert "golfctl/hostside/watch.pyc" in zipfile.ZipFile(file).namelist()
    finally:
        host.close()


def test_connection_made_ahead_is_used_and_may_be_lost_meanwhile(ssh_home: Home, sshd: Sshd, tmp_path: Path) -> None:
    """One login serves the first question; if the line is cut before it, it is made again without a word."""
    host = SshHost(ssh_home.spec("pod1", root=str(tmp_path / "far")))
    try:
        host.approach()
        host.approach()
        wait_until(lambda: list((tmp_path / "far").glob("supervise-*.pyz")))
        assert host.check() == []
        assert sshd.log_text().count("Accepted publickey") == 1
        host.close()
        host.approach()
        attempt = host._link._attempt
        assert attempt
        wait_until(attempt.over.is_set)
        assert sshd.drop()
        assert host.check() == []
    finally:
        host.close()


def test_trouble_on_an_approach_is_told_when_something_is_asked(ssh_home: Home, sshd: Sshd, tmp_path: Path) -> None:
    """approach() itself never raises."""
    sshd.stop()
    host = SshHost(ssh_home.spec("pod1", root=str(tmp_path)))
    host.approach()
    with pytest.raises(HostUnreachable, match="pod1"):
        host.check()
    host.close()


def test_released_runs_are_not_released_again(tmp_path: Path) -> None:
    """runs(held=True) leaves tombstones out; a command frees what an earlier one could not, once, and asks nothing else."""
    spec = HostSpec("here", root=str(tmp_path / "far"), slots=4)
    fleet = Fleet({"here": spec}, ["here"], "m1", tmp_path / "tails")
    host = fleet.host("here")
    host.put(SHA, archive(tmp_path / "b.tar.gz", {"pkg/main.py": "print('hello')"}))
    specs = [run_spec(name, argv=("{python}", "pkg/main.py")) for name in ("r1", "r2", "r3")]
    for run in specs:
        host.start(run)
        wait_until(partial(_exited, host, run.name))
    evidence = {run.name: hashlib.sha256(host.read(run.name, "exit.json", 0)).hexdigest() for run in specs}
    host.release("r1")
    assert (host.runs(), host.runs(held=True)) == (["r1", "r2", "r3"], ["r2", "r3"])
    records = [
        RunRecord(run, machine="m1", launched_at="", outcome=Outcome.COMPLETED, evidence=evidence[run.name])
        for run in specs[:2]
    ]
    fleet.release_recorded(records)
    assert host.runs(held=True) == ["r3"], "r3 is not recorded: its files are still wanted"
    fleet.close()
