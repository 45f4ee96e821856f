"""Which parameter is trained by what: Muon, SOAP or Adam for matrices, Adam for the rest, checked to cover everything."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from trainer.config import Config
from trainer.dist import Group
from trainer.model.gpt import GPT
from trainer.model.roles import EMBED, HEAD, MATRIX, TABLE, VECTOR
from trainer.optim.adam import Adam, MatrixAdam
from trainer.optim.muon import Muon
from trainer.optim.parallel import ParallelMuon
from trainer.optim.polar import ITERATIONS
from trainer.optim.soap import SOAP

ALONE = Group(0, 1, 0, 1, torch.device("cpu"))


class Optimizers:
    """All optimisers of a model as one, on gradients that are first made the mean over a group of ranks.

    `matrices` holds the matrices; `adams` embeddings, tables, untied heads and vectors, in this order.
    """

    def __init__(self, model: GPT, config: Config, group: Group = ALONE) -> None:
        betas, eps = (config.beta1, config.beta2), config.adam_eps
        self.group, self.clip_norm = group, config.grad_clip_norm
        self.matrices = _matrix_optimizer(model.parameters_of(MATRIX), config, group)
        rates = {EMBED: config.embed_lr, TABLE: config.table_lr, HEAD: config.head_lr, VECTOR: config.scalar_lr}
        self.adams = [
            Adam(model.parameters_of(role), lr=lr, betas=betas, eps=eps, weight_decay=config.adam_weight_decay)
            for role, lr in rates.items()
        ]
        self.parameters = list(model.parameters())
        check_cover([self.matrices.parameters, *(adam.parameters for adam in self.adams)], self.parameters)
        self._sharing = self.matrices if isinstance(self.matrices, ParallelMuon) else None
        self._whole = [p for adam in self.adams for p in adam.parameters] if self._sharing else self.parameters

    def reduce(self) -> None:
        """Make the ranks' gradients their mean, then clip that mean. Call it on every rank, before each `step`.

        Clipping comes last: a limit on each rank's own gradients would scale the ranks differently.
        """
        if self._sharing is not None:
            self._sharing.begin_reduce()
        self.group.mean_gradients(self._whole)
        if self._sharing is not None:
            self._sharing.end_reduce()
        if self.clip_norm:
            clip_gradients(self._whole, self.clip_norm, self._sharing.shares if self._sharing else [], self.group)

    def step(self, *, scale: float, momentum: float, decay: float = 1.0) -> None:
        """One update of every parameter at `scale` times its rate. Needs all gradients.

        `momentum` is Muon's; `decay` multiplies the weight decay of matrices.
        """
        self.matrices.step(scale=scale, momentum=momentum, decay=decay)
        for adam in self.adams:
            adam.step(scale=scale)

    def compile(self) -> None:
        """Compile Muon's Newton-Schulz, off the clock."""
        assert isinstance(self.matrices, Muon)
        self.matrices.compile()

    def clear(self) -> None:
        """Drop all gradients."""
        for parameter in self.parameters:
            parameter.grad = None


def _matrix_optimizer(parameters: list[Tensor], config: Config, group: Group) -> Muon | SOAP | MatrixAdam:
    decay = config.muon_weight_decay
    if config.optimizer == "soap":
        return SOAP(
            parameters,
            lr=config.soap_lr,
            betas=(config.soap_beta1, config.soap_beta2),
            factor_beta=config.soap_factor_beta,
            every=config.soap_every,
            weight_decay=decay,
        )
    if config.optimizer == "adam":
        betas = (config.beta1, config.beta2)
        return MatrixAdam(parameters, lr=config.adam_matrix_lr, betas=betas, eps=config.adam_eps, weight_decay=decay)
    options = {
        "lr": config.matrix_lr,
        "weight_decay": decay,
        "iteration": ITERATIONS[config.muon_coefficients](config.muon_backend_steps),
        "row_norm": config.muon_row_norm,
    }
    if config.muon_parallel and group.world > 1 and parameters:
        return ParallelMuon(parameters, group=group, **options)
    return Muon(parameters, **options)


def check_cover(groups: Iterable[Iterable[Tensor]], parameters: Iterable[Tensor]) -> None:
    """Assert that the groups together hold every parameter exactly once."""
    held = [id(parameter) for group in groups for parameter in group]
    wanted = [id(parameter) for parameter in parameters]
    assert sorted(held) == sorted(wanted), f"groups hold {len(held)} parameters of {len(wanted)}, or one twice"


@torch.no_grad()
def clip_gradients(
    parameters: Iterable[Tensor], limit: float, shares: Iterable[Tensor] = (), group: Group = ALONE
) -> Tensor:
    """Scale all gradients so that their joint norm is at most `limit`; returns the norm before. Call after the reduction.

    `shares`: gradients of which every rank of the group holds another part. They count into the norm and are scaled, too.
    """
    gradients, shares = [parameter.grad for parameter in parameters], list(shares)
    norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
    if shares:
        parts = group.sum_(torch.stack([share.norm() for share in shares]).square().sum())
        norm = (norm.square() + parts).sqrt()
    factor = (limit / (norm + 1e-6)).clamp(max=1.0)
    for gradient in [*gradients, *shares]:
        gradient.mul_(factor)
    return norm
