"""Which parameter is trained by what: Muon for matrices, Adam for the rest, spelled out and checked to cover everything."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from trainer.config import Config
from trainer.model.gpt import GPT
from trainer.model.roles import EMBED, MATRIX, TABLE, VECTOR
from trainer.optim.adam import Adam
from trainer.optim.muon import Muon


class Optimizers:
    """All optimisers of a model as one. `muon` holds the matrices; `adams` embeddings, tables, vectors, in this order."""

    def __init__(self, model: GPT, config: Config) -> None:
        betas, eps = (config.beta1, config.beta2), config.adam_eps
        self.muon = Muon(
            model.parameters_of(MATRIX),
            lr=config.matrix_lr,
            weight_decay=config.muon_weight_decay,
            backend_steps=config.muon_backend_steps,
        )
        rates = {EMBED: config.embed_lr, TABLE: config.table_lr, VECTOR: config.scalar_lr}
        self.adams = [Adam(model.parameters_of(role), lr=lr, betas=betas, eps=eps) for role, lr in rates.items()]
        self.parameters = list(model.parameters())
        check_cover([self.muon.parameters, *(adam.parameters for adam in self.adams)], self.parameters)

    def step(self, *, scale: float, momentum: float) -> None:
        """One update of every parameter at `scale` times its rate; `momentum` is Muon's. Needs all gradients."""
        self.muon.step(scale=scale, momentum=momentum)
        for adam in self.adams:
            adam.step(scale=scale)

    def clear(self) -> None:
        """Drop all gradients."""
        for parameter in self.parameters:
            parameter.grad = None


def check_cover(groups: Iterable[Iterable[Tensor]], parameters: Iterable[Tensor]) -> None:
    """Assert that the groups together hold every parameter exactly once."""
    held = [id(parameter) for group in groups for parameter in group]
    wanted = [id(parameter) for parameter in parameters]
    assert sorted(held) == sorted(wanted), f"groups hold {len(held)} parameters of {len(wanted)}, or one twice"


@torch.no_grad()
def clip_gradients(parameters: Iterable[Tensor], limit: float) -> Tensor:
    """Scale all gradients so that their joint norm is at most `limit`; returns the norm before. Call after the all-reduce."""
    gradients = [parameter.grad for parameter in parameters]
    norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
    factor = (limit / (norm + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factor)
    return norm
