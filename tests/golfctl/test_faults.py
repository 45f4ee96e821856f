"""Each fault once, with real processes, sshds, network namespaces and disks; the table of ten each: test_faults_soak.py."""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from golfctl.errors import HostError
from golfctl.hosts.transfer import pull_dead, pull_verified, whole
from tests.golfctl import faulttrials as trials
from tests.golfctl.faultlab import Account, Lab, undisturbed

pytestmark = pytest.mark.service

QUICK: dict[str, Callable[[random.Random], Account]] = {
    "controller killed": lambda draw: trials.controller_killed(draw, kills=2),
    "controller gone": lambda draw: trials.controller_gone(draw, draw.choice(["over_time", "aborted"]), abandon_s=2.0),
    "line down": lambda draw: trials.line_down(draw, seconds_down=3.0, serving_s=None),
    "line gone": lambda draw: trials.line_gone(draw, lost_after_s=2.0, stop=draw.random() < 0.5, serving_s=None),
    "daemon trouble": lambda draw: trials.daemon_trouble(draw, times=2),
    "supervisor killed": trials.supervisor_killed,
    "child killed": trials.child_killed,
    "serve killed": lambda draw: trials.serve_killed(draw, times=2),
    "disk full there": lambda draw: trials.disk_full_there(draw, draw.choice(["log", "artifact"])),
    "disk full here": trials.disk_full_here,
    "clock wrong": trials.clock_wrong,
    "transfer cut": lambda draw: trials.transfer_cut(draw, cuts=3),
    "file short": trials.file_short,
}


@pytest.fixture(scope="module")
def trials_under_way(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[Account]]]:
    """Every fault that was asked for; most of a trial is waiting, so some go on side by side."""
    undisturbed()
    asked = [item.callspec.params.get("fault") for item in request.session.items if hasattr(item, "callspec")]
    seed = random.SystemRandom().randrange(1 << 31)
    print(f"seed {seed}")
    with ThreadPoolExecutor(3) as pool:
        yield {name: pool.submit(QUICK[name], random.Random(f"{seed}/{name}")) for name in QUICK if name in asked}


@pytest.mark.parametrize("fault", QUICK)
def test_fault_costs_nothing_but_time(fault: str, trials_under_way: dict[str, Future[Account]]) -> None:
    """No event lost, nothing started twice, nothing left, every log the host's, verdicts and scores as undisturbed."""
    account = trials_under_way[fault].result()
    assert account.clean, account
    assert account.logs == account.runs >= 1


def test_account_finds_what_it_is_for() -> None:
    """A ledger cut short, a second start, a changed log, a process left: each shows in the account of a clean campaign."""
    with Lab("pod1") as lab:
        lab.end(lab.start())
        assert lab.account().clean
        name = next(iter(lab.outcomes()))
        log = lab.root / "experiments" / "runs" / name / "train.log"
        log.write_bytes(log.read_bytes()[:-1])
        with (lab.side / "starts").open("a") as book:
            book.write(f"{name}\n")
        (lab.root / ".golfctl" / "tails" / "x.log").touch()
        lab.seen.append("an event nobody has any more")
        marker = {"GOLFCTL_RUN": str(lab.far / "pod1" / "runs" / name)}
        with subprocess.Popen(["sleep", "600"], env=os.environ | marker) as stray:
            found = lab.account(dying_s=0.0)
            stray.kill()
        assert (found.logs_differ, found.double_starts, found.lost_events, found.orphans) == (1, 1, 1, 1)
        assert any("tails" in text for text in found.findings)
        assert any("ledger verify" in text for text in found.findings)


def test_what_was_only_heard_gives_way_to_what_the_host_has(tmp_path: Path) -> None:
    """A run given up as lost is here as far as it was heard; that is not taken for its results, and is replaced by them."""
    into = tmp_path / "runs" / "r1"
    pull_dead("pod1:r1", ["train.log"], lambda _: iter([b"step:1\n"]), into, heard=True)
    assert json.loads((into / "pulled.json").read_text())["heard"] is True
    assert not whole(into)
    far = {"train.log": b"step:1\nstep:2\n", "run.json": b"{}"}
    digest = "a2b3c32ef5b8f8ec1ba91bb3e2ba6b5c5a7c5a6a57ac4a7a2b7a8ee5dd7c2b0e"
    broken = {**far, "exit.json": json.dumps({"files": {"train.log": {"bytes": 14, "sha256": digest}}}).encode()}
    with pytest.raises(HostError, match="exit.json says"):
        pull_verified("pod1:r1", lambda name: iter([broken[name]]), into)
    assert (into / "train.log").read_bytes() == b"step:1\n"
    pull_dead("pod1:r1", list(far), lambda name: iter([far[name]]), into)
    assert whole(into)
    assert (into / "train.log").read_bytes() == far["train.log"]
    pull_dead("pod1:r1", ["train.log"], lambda _: iter([b"step:1\n"]), into, heard=True)
    assert (into / "train.log").read_bytes() == far["train.log"]
    assert [path.name for path in into.parent.iterdir()] == ["r1"]
