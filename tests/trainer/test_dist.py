"""Ranks, devices and what processes say to each other."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.trainer.tiny import environment, free_port, settings, two_processes
from trainer import dist
from trainer.config import SettingsError

PEER = """
import json, torch
from trainer import dist
from trainer.config import from_values

group = dist.start(from_values({"DEVICE": "cpu", "CPU_THREADS": 1}))
rank = group.rank
small, large = torch.zeros(3), torch.zeros(1 << 20)
small.grad, large.grad = torch.full((3,), 1.0 + rank), torch.full((1 << 20,), 10.0 * rank)
group.mean_gradients([small, large])
floats = group.broadcast_floats([0.1 + rank, 1e-300])
total = group.sum_(torch.tensor([1.0, rank]))
group.barrier()
own = group.reduce_scatter(torch.arange(4.0).view(4, 1) + 10 * rank)()
rows = group.all_gather(own)()
found = [small.grad, large.grad.unique(), total, rows.flatten()]
print(json.dumps([rank, group.world, floats, own.flatten().tolist(), *[part.tolist() for part in found]]))
group.stop()
group.stop()
"""


@pytest.mark.service
def test_dist_two_processes_agree(tmp_path: Path) -> None:
    """Gradients become their mean, floats become rank 0's bit for bit, sums are the same on both, rows go where they belong."""
    heard = [json.loads(out.splitlines()[-1]) for out in two_processes(PEER, home=tmp_path)]
    assert [place[:2] for place in heard] == [[0, 2], [1, 2]]
    assert [found.pop(3) for found in heard] == [[10.0, 12.0], [14.0, 16.0]]
    assert heard[0][2:] == heard[1][2:] == [[0.1, 1e-300], [1.5] * 3, [5.0], [2.0, 1.0], [10.0, 12.0, 14.0, 16.0]]


SLOW = """
import datetime, time, torch.distributed
from trainer import dist
from trainer.config import from_values

group = dist.start(from_values({"DEVICE": "cpu", "CPU_THREADS": 1}))
group.barrier()  # the ranks may take any time to start; from here on a message may take a second
torch.distributed.distributed_c10d._set_pg_timeout(datetime.timedelta(seconds=1))
time.sleep(3 if group.rank == 0 else 0)
group.wait_for_work()
print(group.broadcast_floats([0.5 + group.rank]))
group.stop()
"""


@pytest.mark.service
def test_dist_waits_for_work_longer_than_for_messages(tmp_path: Path) -> None:
    """Rank 0 works alone for more than the limit of a message, as in test-time training: the other is still there."""
    assert [out.splitlines()[-1] for out in two_processes(SLOW, home=tmp_path)] == ["[0.5]", "[0.5]"]


RENDEZVOUS = """
import json, os, torch
from trainer import dist
from trainer.config import from_values

group = dist.start(from_values({"DEVICE": "cpu", "CPU_THREADS": 1}))
total = group.sum_(torch.tensor([1.0 + group.rank]))
open(f"{os.environ['FOUND']}/{group.rank}.json", "w").write(
    json.dumps([group.rank, group.world, group.local_rank, group.local_world, total.item()])
)
group.stop()
"""


@pytest.mark.service
def test_dist_joins_two_machines_by_torchruns_rendezvous(tmp_path: Path) -> None:
    """Two torchrun agents of one process each, as on two machines: ranks count through, local ranks begin at 0 on each."""
    script = tmp_path / "peer.py"
    script.write_text(RENDEZVOUS)
    port, env = free_port(), environment(tmp_path, FOUND=str(tmp_path))
    line = ["-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--master-addr=127.0.0.1"]
    agents = [
        subprocess.Popen(
            [sys.executable, *line, f"--master-port={port}", f"--node-rank={node}", str(script)],
            env=env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for node in range(2)
    ]
    for agent in agents:
        _, said = agent.communicate(timeout=120)
        assert agent.returncode == 0, said
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert found == [[0, 2, 0, 1, 3.0], [1, 2, 0, 1, 3.0]]


def test_dist_alone_changes_nothing() -> None:
    """A single process has no group: sums, means and broadcasts give back what they got."""
    group = dist.Group(0, 1, 0, 1, torch.device("cpu"))
    weight = torch.zeros(2)
    weight.grad = torch.tensor([1.0, 2.0])
    group.mean_gradients([weight])
    assert weight.grad.tolist() == [1.0, 2.0]
    assert group.broadcast_floats([0.1]) == [0.1]
    assert group.sum_(torch.ones(1)).item() == 1.0
    assert group.reduce_scatter(torch.ones(1))().item() == group.all_gather(torch.ones(1))().item() == 1.0
    group.barrier()
    group.wait_for_work()
    group.stop()


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ({"RANK": "2", "WORLD_SIZE": "2"}, "ranks count from 0"),
        ({"RANK": "one"}, "RANK=one: not a whole number"),
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "4"}, "ranks count from 0"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "MASTER_ADDR and MASTER_PORT: start me with torchrun"),
    ],
)
def test_dist_refuses_ranks_that_make_no_sense(
    monkeypatch: pytest.MonkeyPatch, place: dict[str, str], message: str
) -> None:
    """An environment that can't be right is an error before anything waits for anybody."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=message):
        dist.start(settings(DEVICE="cpu", CPU_THREADS=torch.get_num_threads()))


def test_dist_chooses_a_device_that_exists() -> None:
    """CPU is always there; asking for a GPU that is not says so."""
    assert dist.choose_device("cpu", 0).type == "cpu"
    absent = torch.cuda.device_count() if torch.cuda.is_available() else 0
    with pytest.raises(SettingsError, match=f"needs GPU {absent}"):
        dist.choose_device("cuda", absent)
