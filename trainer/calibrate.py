"""What goes into every matrix, measured on training text once the training is over, inside the training's clock.

The sums that GPTQ, AWQ and LQER need (`trainer.quant.gptq.Inputs`) come from the model's one forward path: an adapter that adds
nothing sees each matrix's input. Look-ups have no input to speak of: tables, and an embedding that is not the head as well.
"""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.artifact import scheme_of
from trainer.config import Config
from trainer.data.loader import Loader
from trainer.data.preread import PreRead
from trainer.dist import Group
from trainer.model.gpt import GPT
from trainer.model.roles import TABLE, role
from trainer.quant.gptq import Inputs

RESERVE = 1.5
"""Times the measured seconds that are kept back: machines falter, and a rank may be slower than the one that measures."""
LARGEST_SHARE = 0.5
"""Share of MAX_WALLCLOCK_SECONDS that a measured reserve takes at most."""


class Listener:
    """An adapter that adds nothing and sums x x^T and |x| over the inputs of the matrices named, in float32."""

    def __init__(self, wanted: set[str]) -> None:
        self.wanted = wanted
        self.rows: dict[str, int] = {}
        self.hessian: dict[str, Tensor] = {}
        self.total: dict[str, Tensor] = {}
        self._latest: tuple[Tensor, Tensor, Tensor] | None = None

    def __call__(self, name: str, x: Tensor) -> None:
        """x: (B, T, C), what the matrix `name` (R, C) is about to be multiplied with."""
        if name not in self.wanted:
            return
        if self._latest is None or self._latest[0] is not x:  # queries, keys and values have one input
            with torch.autocast(x.device.type, enabled=False):
                rows = x.detach().flatten(0, -2).float()
                self._latest = x, rows.T @ rows, rows.abs().sum(0)
        _, products, sizes = self._latest
        if name in self.hessian:
            self.hessian[name] += products
            self.total[name] += sizes
            self.rows[name] += x.shape[:-1].numel()
        else:
            self.hessian[name], self.total[name] = products.clone(), sizes.clone()
            self.rows[name] = x.shape[:-1].numel()

    def inputs(self, name: str, group: Group) -> Inputs:
        """What was seen of a matrix by all ranks together. Each must have seen as much."""
        hessian, total = group.sum_(self.hessian[name]), group.sum_(self.total[name])
        return Inputs(hessian, total / (self.rows[name] * group.world))


@dataclass(frozen=True)
class Calibration:
    """Inputs by the name of the matrix, the same on every rank, and what they took: batches of those planned, tokens, seconds."""

    inputs: dict[str, Inputs]
    batches: int
    planned: int
    tokens: int
    seconds: float

    def line(self) -> str:
        """For the log."""
        return (
            f"calibration: took {self.seconds:.3f} seconds batches:{self.batches}/{self.planned} tokens:{self.tokens} "
            f"matrices:{len(self.inputs)}"
        )

    def as_dict(self) -> dict[str, float]:
        """For result.json."""
        return {
            "seconds": round(self.seconds, 3),
            "batches": self.batches,
            "planned": self.planned,
            "tokens": self.tokens,
            "matrices": len(self.inputs),
        }


def wanted(model: GPT, config: Config) -> set[str]:
    """Names of the weights whose rounding the inputs can improve: those quantised that something is multiplied with."""
    looked_up = {"value_embed"} if model.head is None else {"value_embed", "embed"}
    return {
        name
        for name, _ in model.named_parameters()
        if scheme_of(name, config) not in {"fp16", "fp32"}
        and role(name) != TABLE
        and name.rpartition(".")[2] not in looked_up
    }


@torch.no_grad()
def calibrate(
    model: GPT,
    loader: Loader | PreRead,
    config: Config,
    group: Group,
    step: int,
    left: float = math.inf,
    pace: float = 0.0,
) -> Calibration:
    """The inputs over GPTQ_BATCHES global batches, from the one of `step` on, at the depth the artifact has. On every rank.

    left: seconds it may take, by rank 0's clock; pace: those a batch is known to take. No batch is begun that would end late by
    that, or by the slowest so far: the calibration then has fewer than planned, or none at all.
    """
    start = _now(group)
    listener = Listener(wanted(model, config))
    model.set_loops(config.num_loops)
    used, slowest = 0, pace
    while used < config.gptq_batches:
        began = _now(group)
        still, needed = group.broadcast_floats([left - (began - start), slowest])
        if still <= needed:
            break
        for micro in range(config.grad_accum_steps):
            ids, _ = loader.batch(step + used, group.rank, group.world, micro, config.grad_accum_steps)
            model(torch.from_numpy(ids).to(group.device), listener)
        used += 1
        slowest = max(slowest, _now(group) - began)
    inputs = {name: listener.inputs(name, group) for name in sorted(listener.hessian)}
    assert not used or inputs.keys() == listener.wanted, f"not reached: {sorted(listener.wanted - inputs.keys())}"
    tokens = used * config.train_batch_tokens
    return Calibration(inputs, used, config.gptq_batches, tokens, _now(group) - start)


def _now(group: Group) -> float:
    group.synchronise()
    return time.perf_counter()


def pace(model: GPT, loader: Loader | PreRead, config: Config, group: Group) -> float:
    """Seconds of a batch on rank 0, tried off the clock: the fastest of three, as the first use of anything takes longer."""
    one = dataclasses.replace(config, gptq_batches=1)
    (seconds,) = group.broadcast_floats([min(calibrate(model, loader, one, group, 0).seconds for _ in range(3))])
    return seconds


def reserve(config: Config, pace: float) -> float:
    """Seconds of MAX_WALLCLOCK_SECONDS to keep for the calibration: those asked for, or what batches of `pace` seconds suggest.

    Where a batch takes longer than it did, the calibration ends in time by itself.
    """
    if config.gptq_reserve_seconds or not config.max_wallclock_seconds:
        return config.gptq_reserve_seconds
    return min(RESERVE * config.gptq_batches * pace, LARGEST_SHARE * config.max_wallclock_seconds)
