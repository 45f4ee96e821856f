"""Plans through gates on machines behind real sshds: the command line as a person uses it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.golfctl.campaigns import golfctl, make
from tests.golfctl.sshlab import Home, Sshd, ssh_home, sshd

__all__ = ["ssh_home", "sshd"]
pytestmark = pytest.mark.service


def campaign(root: Path, home: Home, **hosts: int) -> Path:
    """A campaign of three plans with hosts of so many slots, all behind the one sshd entry of the same name."""
    make(root)
    lines = [
        f"{alias}: {{kind: ssh, address: {alias}, slots: {slots}, usd_per_hour: {2.5 * slots}, root: {root}-far-{alias}}}\n"
        for alias, slots in hosts.items()
    ]
    (root / "hosts.yaml").write_text("".join(lines))
    return root


def test_three_plans_on_two_hosts_by_one_command(ssh_home: Home, sshd: Sshd, tmp_path: Path) -> None:
    """Both hosts get runs; verdicts, evidence and costs are recorded; nothing is left on the hosts but tombstones."""
    ssh_home.add("pod2", sshd)
    root = campaign(tmp_path / "golf", ssh_home, pod1=1, pod2=8)
    done = golfctl(root, "gate", "run", "--through", "4", "--host", "pod1", "--host", "pod2", "--yes", expect=1)
    assert "sharp          PASS" in done.stdout
    state = json.loads(golfctl(root, "runs", "list", "--json").stdout)
    assert {run["spec"]["host"] for run in state} == {"pod1", "pod2"}
    assert {run["outcome"] for run in state} == {"completed"}
    assert all(run["usd"] > 0 for run in state)
    golfctl(root, "ledger", "verify")
    for alias in ("pod1", "pod2"):
        far = Path(f"{root}-far-{alias}") / "runs"
        assert {path.name for run in far.iterdir() for path in run.iterdir()} == {"run.json", "exit.json"}
    for run in state:
        folder = root / "experiments" / "runs" / run["spec"]["name"]
        assert (folder / "pulled.json").is_file()
    assert not list((root / ".golfctl" / "tails").iterdir())
    again = golfctl(root, "gate", "run", "--through", "4", "--host", "pod1", "--host", "pod2", "--yes", expect=1)
    assert "started on" not in again.stdout
