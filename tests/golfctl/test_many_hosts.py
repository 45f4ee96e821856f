"""Several hosts, several campaigns, hosts that come and go: who runs where, and whose results they are."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from golfctl.hostside import leases
from golfctl.store.campaign import load
from golfctl.store.ledger import Ledger
from tests.golfctl.campaigns import GOLFCTL, golfctl, make
from tests.golfctl.sshlab import Home, Sshd, ssh_home, sshd, wait_until

__all__ = ["ssh_home", "sshd"]
pytestmark = pytest.mark.service
RUN = ("gate", "run", "sharp", "--through", "1", "--yes")


def runs_of(root: Path) -> list[dict[str, object]]:
    """Every run of a campaign, as `runs list --json` tells."""
    found: list[dict[str, object]] = json.loads(golfctl(root, "runs", "list", "--json").stdout)
    return found


def test_run_goes_elsewhere_when_others_hold_the_slots(tmp_path: Path) -> None:
    """Another campaign's lease fills the first host: the intent is withdrawn, the run takes place on the second."""
    root = make(tmp_path / "golf")
    (root / "hosts.yaml").write_text(f"ha: {{kind: local, root: {root}-a}}\nhb: {{kind: local, root: {root}-b}}\n")
    owner = {"run": "x", "campaign": "other", "folder": f"{root}-a/runs/x"}
    lease = leases.acquire(f"{root}-a/leases", ["0"], 1, owner)
    assert lease is not None
    try:
        done = golfctl(root, *RUN, "--host", "ha", "--host", "hb")
    finally:
        lease.free()
    assert "withdrawn" in done.stdout
    first, second = runs_of(root)
    assert (first["withdrawn"], first["usd"]) == (True, 0.0)
    assert second["outcome"] == "completed"


def test_two_campaigns_of_one_name_share_a_folder_and_nothing_else(tmp_path: Path) -> None:
    """The same plan, base, seed and ROOT: each has a run and a result of its own, and sweep leaves the other's alone."""
    far = tmp_path / "far"
    roots = [make(tmp_path / name, step_seconds=0.3) for name in ("a", "b")]
    for root in roots:
        (root / "hosts.yaml").write_text(f"box: {{kind: local, slots: 4, root: {far}}}\n")
        golfctl(root, *RUN, "--host", "box")
    names = [run["spec"]["name"] for root in roots for run in runs_of(root)]  # type: ignore[index]
    assert len(set(names)) == len(names) == 2
    for root in roots:
        golfctl(root, *RUN, "--host", "box")
        golfctl(root, "ledger", "verify")
        swept = golfctl(root, "host", "sweep", "box", "--stop")
        assert "0 orphans" in swept.stdout


def test_host_that_is_gone_for_good_ends_the_command_in_one_line(ssh_home: Home, sshd: Sshd, tmp_path: Path) -> None:
    """The run is lost after the stated time, at a price; with no other host gate run says so and ends; later it goes on."""
    root = make(tmp_path / "golf", step_seconds=2.0)
    entry = f"{{kind: ssh, address: pod1, root: {root}-far, usd_per_hour: 3600.0, lost_after_s: 4}}"
    (root / "hosts.yaml").write_text(f"pod1: {entry}\n")
    command = [*GOLFCTL, *RUN, "--host", "pod1"]
    process = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    ledger = Ledger(load(root).ledger_folder, load(root).state_folder)
    wait_until(lambda: any(event.type == "run_started" for event in ledger.events()), 120)
    sshd.stop()
    sshd.drop()
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 3, out + errors
    assert "nothing can be started any more: pod1" in errors
    (lost,) = runs_of(root)
    assert lost["outcome"] == "lost"
    assert lost["reason"].startswith("pod1 has not answered for")  # type: ignore[attr-defined]
    assert "127.0.0.1" not in str(lost)
    assert lost["usd"] > 1  # type: ignore[operator]
    sshd.start()
    (root / "hosts.yaml").write_text(f"pod1: {entry.replace('4}', '600}')}\n")
    golfctl(root, "host", "sweep", "pod1", "--stop")
    golfctl(root, *RUN, "--host", "pod1")
    assert [run["outcome"] for run in runs_of(root)] == ["lost", "completed"]


def test_edited_hosts_yaml_is_checked_anew(ssh_home: Home, sshd: Sshd, tmp_path: Path) -> None:
    """A fresh preflight of a CPU box does not vouch for the H100 that hosts.yaml claims a minute later."""
    root = make(tmp_path / "golf")
    entry = f"kind: ssh, address: pod1, root: {root}-far"
    (root / "hosts.yaml").write_text(f"pod1: {{{entry}}}\n")
    golfctl(root, *RUN, "--host", "pod1")
    (root / "hosts.yaml").write_text(f"pod1: {{{entry}, gpu: H100}}\n")
    done = golfctl(root, "gate", "run", "blunt", "--through", "1", "--host", "pod1", "--yes", expect=3)
    assert "no GPU: 1x H100 needed" in done.stderr


def test_host_that_is_down_at_the_start_is_left_out(ssh_home: Home, sshd: Sshd, tmp_path: Path) -> None:
    """Named first and unreachable: it is told, the other one does the work; alone it ends the command, with nothing recorded."""
    root = make(tmp_path / "golf")
    ssh_home.entry("down", "127.0.0.1", 9, "root")
    (root / "hosts.yaml").write_text(
        f"down: {{kind: ssh, address: down, root: {root}-down}}\npod1: {{kind: ssh, address: pod1, root: {root}-far}}\n"
    )
    assert "down" in golfctl(root, *RUN, "--host", "down", expect=3).stderr
    assert runs_of(root) == []
    done = golfctl(root, *RUN, "--host", "down", "--host", "pod1")
    assert "this command starts nothing there" in done.stderr
    assert "PASS" in done.stdout


def test_runs_of_a_host_that_went_down_between_two_commands_are_waited_for(
    ssh_home: Home, sshd: Sshd, tmp_path: Path
) -> None:
    """The controller was killed, then the host went: the next command asks for the stated time, records the loss, and says so."""
    root = make(tmp_path / "golf", step_seconds=2.0)
    (root / "hosts.yaml").write_text(f"pod1: {{kind: ssh, address: pod1, root: {root}-far, lost_after_s: 4}}\n")
    process = subprocess.Popen([*GOLFCTL, *RUN, "--host", "pod1"], cwd=root, stdout=subprocess.DEVNULL)
    ledger = Ledger(load(root).ledger_folder, load(root).state_folder)
    wait_until(lambda: any(event.type == "run_started" for event in ledger.events()), 120)
    process.kill()
    process.wait()
    sshd.stop()
    sshd.drop()
    done = golfctl(root, *RUN, "--host", "pod1", expect=3)
    assert "nothing can be started any more: pod1" in done.stderr
    assert [run["outcome"] for run in runs_of(root)] == ["lost"]
