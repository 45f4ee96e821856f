"""Muon (Jordan et al. 2024): momentum, then every matrix update replaced by the nearest semi-orthogonal matrix.

`orthogonalise` is a pure function; the optimiser around it is thin and knows nothing of ranks or schedules.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients tuned for slope at zero: singular values in [0.003, 1] land in [0.68, 1.21], not exactly at 1."""


def orthogonalise(update: Tensor, steps: int = 5, eps: float = 1e-7) -> Tensor:
    """Newton-Schulz iteration X <- aX + (bA + cA^2)X with A = X X^T, from X = U / (|U|_F + eps).

    update: (..., m, n), each trailing matrix by itself. Returns the same shape and dtype with singular values near 1; a zero
    matrix stays zero. CUDA computes in bfloat16, all else in the given dtype.
    """
    a, b, c = QUINTIC
    tall = update.shape[-2] > update.shape[-1]
    x = update.mT if tall else update
    if x.is_cuda:
        x = x.bfloat16()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + eps)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return (x.mT if tall else x).to(update.dtype)


def shape_scale(rows: int, columns: int) -> float:
    """sqrt(max(1, rows / columns)): keeps the change per output alike for tall and wide matrices."""
    return max(1.0, rows / columns) ** 0.5


class Muon:
    """M <- mu M + G;  U = G + mu M (Nesterov);  W <- W (1 - lr wd) - lr * shape_scale * orthogonalise(U)."""

    def __init__(
        self, parameters: Iterable[Tensor], *, lr: float, weight_decay: float = 0.0, backend_steps: int = 5
    ) -> None:
        self.parameters = list(parameters)
        self.lr, self.weight_decay, self.backend_steps = lr, weight_decay, backend_steps
        self._momentum = [torch.zeros_like(parameter) for parameter in self.parameters]
        assert all(parameter.ndim == 2 for parameter in self.parameters), "Muon takes matrices only"
        # Matrices of one shape, up to transposition, are orthogonalised in one batch: a tenth of the kernel launches.
        shapes: dict[tuple[int, ...], list[int]] = {}
        for index, parameter in enumerate(self.parameters):
            shapes.setdefault(tuple(sorted(parameter.shape)), []).append(index)
        self._batches = list(shapes.values())

    @torch.no_grad()
    def step(self, *, scale: float = 1.0, momentum: float = 0.95) -> None:
        """One update from the parameters' `.grad`, at `scale` times the rate. Every parameter must have a gradient."""
        rate = self.lr * scale
        for batch in self._batches:
            wide = [self._update(index, momentum) for index in batch]
            for index, change in zip(batch, orthogonalise(torch.stack(wide), self.backend_steps), strict=True):
                parameter = self.parameters[index]
                rows, columns = parameter.shape
                if self.weight_decay:
                    parameter.mul_(1.0 - rate * self.weight_decay)
                parameter.add_(change.mT if rows > columns else change, alpha=-rate * shape_scale(rows, columns))

    def _update(self, index: int, momentum: float) -> Tensor:
        """The Nesterov update of one matrix, lying on its side if it is tall."""
        gradient, kept = self.parameters[index].grad, self._momentum[index]
        kept.mul_(momentum).add_(gradient)
        update = gradient.add(kept, alpha=momentum)
        return update.mT if update.shape[0] > update.shape[1] else update
