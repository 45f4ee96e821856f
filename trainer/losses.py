"""What a step minimises: the loss of the next id, and what is added to it on the way."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from trainer.config import Config
from trainer.dist import Group
from trainer.model.heads import auxiliary
from trainer.optim.adam import Adam


class Losses:
    """The loss of the next id, the auxiliary losses if there are any, and what trains their own weights."""

    def __init__(self, config: Config, bos: int, group: Group) -> None:
        found = auxiliary(config, bos)
        self.extra = found.to(group.device) if found is not None else None
        self.parameters = list(found.parameters()) if found is not None else []
        self.adam = Adam(self.parameters, lr=config.scalar_lr, betas=(config.beta1, config.beta2), eps=config.adam_eps)
        self.group = group

    def __call__(
        self, model: Callable[..., Tensor], ids: Tensor, targets: Tensor, done: float, step: int
    ) -> tuple[Tensor, Tensor]:
        """Mean nats of the targets, which is what is reported, and what is minimised. ids, targets: (B, T) int64."""
        if self.extra is None:
            base = model(ids, targets=targets)
            return base, base
        logits, hidden = model(ids, with_hidden=True)
        base = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        return base, base + self.extra(logits, hidden, (ids, targets), done, step)

    def reduce(self) -> None:
        """Make the gradients of the auxiliary weights their mean over the ranks."""
        self.group.mean_gradients(self.parameters)

    def step(self, scale: float) -> None:
        """One update of the auxiliary weights at `scale` times the rate of scalars."""
        self.adam.step(scale=scale)

    def clear(self) -> None:
        """Drop the gradients of the auxiliary weights."""
        for parameter in self.parameters:
            parameter.grad = None
