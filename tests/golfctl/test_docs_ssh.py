"""docs/ssh.md is tested: the tour runs line by line on two machines behind real sshds, its hosts.yaml is read."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from golfctl.store.campaign import load
from tests.golfctl import plankit
from tests.golfctl.sshlab import Home, Net, net, ssh_home
from tests.golfctl.test_docs import run_as_a_reader

__all__ = ["net", "ssh_home"]
ROOT = Path(__file__).resolve().parents[2]
TOUR = (ROOT / "docs" / "ssh.md").read_text()


def blocks(language: str) -> list[str]:
    """Code blocks of the document."""
    return re.findall(rf"```{language}\n(.*?)```", TOUR, re.DOTALL)


@pytest.mark.service
def test_the_tour_runs_on_two_namespaced_hosts(ssh_home: Home, net: Net, tmp_path: Path) -> None:
    """Every block, in one shell: hosts whose keys are unknown at first, runs on both, nothing left behind."""
    for alias in ("pod1", "pod8"):
        net.host(alias)
    ssh_home.known_hosts.unlink()
    done = run_as_a_reader(
        "\n".join(blocks("sh")),
        tmp_path,
        POD1="pod1",
        POD8="pod8",
        FAR=str(tmp_path / "far"),
        FAR_PYTHON=sys.executable,
    )
    assert "is unknown: compare it with your provider's page, then golfctl host trust pod1" in done.stderr
    assert "wider          PASS" in done.stdout
    assert "host pod8: released" in done.stdout


def test_the_example_of_hosts_yaml_is_read(tmp_path: Path) -> None:
    """Every key of the example exists and means what its comment says."""
    plankit.make(tmp_path, plankit.GOLF)
    (tmp_path / "hosts.yaml").write_text(blocks("yaml")[0])
    host = load(tmp_path).hosts["pod8"]
    assert (host.slots, host.gpu, host.port, host.secret_env) == (8, "H100", 40022, ("HF_TOKEN",))
    assert host.persistent
