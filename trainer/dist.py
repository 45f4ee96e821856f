"""Processes working on one run: who is who, and the few things they say to each other.

gloo on CPU, nccl on CUDA, nothing at all when there is one process. Ranks come from the environment that torchrun sets.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as torch_dist
from torch import Tensor

from trainer.config import Config, SettingsError

TIMEOUT = timedelta(minutes=10)
PATIENCE = timedelta(days=7)
"""Longest work that one rank does alone while the others wait. A rank that dies is noticed at once, whatever this is."""

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # from malloc.h

Pending = Callable[[], Tensor]
"""A message under way: call it to wait for what it brings."""


@dataclass(frozen=True)
class Group:
    """This process among its peers. `rank` 0 speaks for all. Local numbers count processes on this machine only."""

    rank: int
    world: int
    local_rank: int
    local_world: int
    device: torch.device
    patient: torch_dist.ProcessGroup | None = None

    def sum_(self, tensor: Tensor) -> Tensor:
        """Sum over all ranks, in place, the same on every rank; returns the tensor."""
        if self.world > 1:
            torch_dist.all_reduce(tensor)
        return tensor

    def bring(self, part: np.ndarray) -> Tensor:
        """An array on the device. To CUDA it goes through pinned memory and nobody waits for it."""
        tensor = torch.from_numpy(part)
        if self.device.type == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)

    @torch.no_grad()
    def mean_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace every gradient by its mean over the ranks. One message for all small ones, one for each large one."""
        if self.world == 1:
            return
        gradients = [parameter.grad for parameter in parameters]
        small = [gradient for gradient in gradients if gradient.numel() < 1 << 20]
        for gradient in gradients:
            if gradient.numel() >= 1 << 20:
                torch_dist.all_reduce(gradient)
                gradient.div_(self.world)
        if small:
            joint = torch.cat([gradient.flatten() for gradient in small])
            torch_dist.all_reduce(joint)
            joint.div_(self.world)
            for gradient, mean in zip(small, joint.split([g.numel() for g in small]), strict=True):
                gradient.copy_(mean.view_as(gradient))

    def reduce_scatter(self, rows: Tensor) -> Pending:
        """This rank's part of the sum over all ranks. rows: (world * n, ...); the answer is (n, ...), rank 0's part first."""
        if self.world == 1:
            return lambda: rows
        own = torch.empty_like(rows[: len(rows) // self.world])
        # torch 2.13 renamed both and warns at the old names.
        send = getattr(torch_dist, "reduce_scatter_single", None) or torch_dist.reduce_scatter_tensor
        return _awaited(send(own, rows, async_op=True), own)

    def all_gather(self, rows: Tensor) -> Pending:
        """All ranks' rows (n, ...), in order of rank: (world * n, ...)."""
        if self.world == 1:
            return lambda: rows
        whole = rows.new_empty(self.world * len(rows), *rows.shape[1:])
        send = getattr(torch_dist, "all_gather_single", None) or torch_dist.all_gather_into_tensor
        return _awaited(send(whole, rows.contiguous(), async_op=True), whole)

    def broadcast_floats(self, values: list[float]) -> list[float]:
        """Rank 0's values, bit for bit, on every rank. The lists must be equally long."""
        if self.world == 1:
            return values
        # mps has no float64, and the message is a few bytes: only nccl needs it on the device.
        where = self.device if self.device.type == "cuda" else "cpu"
        message = torch.tensor(values, dtype=torch.float64, device=where)
        torch_dist.broadcast(message, src=0)
        return message.tolist()

    def unanimous(self, yes: bool) -> bool:
        """Whether every rank says yes."""
        where = self.device if self.device.type == "cuda" else "cpu"
        return self.sum_(torch.tensor(float(yes), device=where)).item() == self.world

    def wait_for_work(self) -> None:
        """Wait until every rank is here, where one works alone for longer than a message may take (10 minutes)."""
        if self.patient is not None:
            torch_dist.all_reduce(torch.zeros(1), group=self.patient)

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.world > 1:
            self.sum_(torch.zeros(1, device=self.device if self.device.type == "cuda" else "cpu"))
            self.synchronise()

    def synchronise(self) -> None:
        """Wait for the device's queued work, so that a clock read after it means something."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()

    def stop(self) -> None:
        """Leave the group. Safe to call twice."""
        if self.world > 1 and torch_dist.is_initialized():
            torch_dist.destroy_process_group()


def _awaited(work: torch_dist.Work, result: Tensor) -> Pending:
    def wait() -> Tensor:
        work.wait()
        return result

    return wait


def start(config: Config) -> Group:
    """Read ranks from the environment, choose device and threads, and join the group if there is more than one process.

    Raises SettingsError when the environment's ranks make no sense or the wanted device is absent.
    """
    rank, world = _whole("RANK", 0), _whole("WORLD_SIZE", 1)
    local_rank, local_world = _whole("LOCAL_RANK", rank), _whole("LOCAL_WORLD_SIZE", world)
    if not (0 <= rank < world and 0 <= local_rank < local_world <= world):
        raise SettingsError(
            f"RANK={rank} WORLD_SIZE={world} LOCAL_RANK={local_rank} LOCAL_WORLD_SIZE={local_world}: ranks count from 0 "
            "and stay below their sizes"
        )
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if world > 1 and missing:
        raise SettingsError(f"WORLD_SIZE={world} without {' and '.join(missing)}: start me with torchrun")
    device = choose_device(config.device, local_rank)
    torch.set_num_threads(config.cpu_threads or max(1, _cores() // local_world))
    torch.set_flush_denormal(True)  # subnormals cost a CPU hundreds of cycles each and carry nothing
    keep_freed_memory()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if world > 1:
        backend = "nccl" if device.type == "cuda" else "gloo"
        torch_dist.init_process_group(
            backend, rank=rank, world_size=world, timeout=TIMEOUT, device_id=device if backend == "nccl" else None
        )
    # Always gloo: its waiting ranks sleep, and need no GPU for it.
    patient = torch_dist.new_group(backend="gloo", timeout=PATIENCE) if world > 1 else None
    return Group(rank, world, local_rank, local_world, device, patient)


def keep_freed_memory() -> None:
    """Let glibc reuse the memory of large tensors in place of handing it back, page by page, every step; elsewhere nothing.

    On two small cores a training step lost a tenth of its time to page faults.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return
    for option, value in ((_M_MMAP_THRESHOLD, 1 << 25), (_M_TRIM_THRESHOLD, (1 << 31) - 1), (_M_TOP_PAD, 1 << 26)):
        mallopt(option, value)


def choose_device(wanted: str, local_rank: int) -> torch.device:
    """The device a DEVICE setting means on this machine. Raises SettingsError if it is not there."""
    if wanted == "cuda" or (wanted == "auto" and torch.cuda.is_available()):
        if not torch.cuda.is_available() or local_rank >= torch.cuda.device_count():
            found = torch.cuda.device_count() if torch.cuda.is_available() else 0
            raise SettingsError(f"DEVICE={wanted}: local rank {local_rank} needs GPU {local_rank}, found {found}")
        return torch.device("cuda", local_rank)
    if wanted == "mps" or (wanted == "auto" and torch.backends.mps.is_available()):
        if not torch.backends.mps.is_available():
            raise SettingsError("DEVICE=mps: this machine has none")
        return torch.device("mps")
    return torch.device("cpu")


def _cores() -> int:
    """Cores this process may use; a container or a scheduler may allow fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _whole(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    try:
        return int(text) if text else default
    except ValueError:
        raise SettingsError(f"{name}={text}: not a whole number") from None
