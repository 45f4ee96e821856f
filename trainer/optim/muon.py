"""Muon (Jordan et al. 2024): momentum, then every matrix update replaced by the nearest semi-orthogonal matrix.

The optimiser is thin and knows nothing of ranks or schedules; `polar.orthogonalise` does the work.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from trainer.optim.polar import EPS, QUINTIC, Iteration, orthogonalise


def unit_rows(update: Tensor, dim: int = -1) -> Tensor:
    """Every row divided by its length, a zero row left as it is (MuonEq-R). `dim`: along which a row runs."""
    return update / update.norm(dim=dim, keepdim=True).clamp(min=EPS)


def shape_scale(rows: int, columns: int) -> float:
    """sqrt(max(1, rows / columns)): keeps the change per output alike for tall and wide matrices."""
    return max(1.0, rows / columns) ** 0.5


def banks(parameters: Sequence[Tensor]) -> list[list[int]]:
    """Indices of the matrices of one shape, up to transposition: what is worked on as one batch.

    A tenth of the kernel launches.
    """
    shapes: dict[tuple[int, ...], list[int]] = {}
    for index, parameter in enumerate(parameters):
        assert parameter.ndim == 2, f"a matrix is needed, not {tuple(parameter.shape)}"
        shapes.setdefault(tuple(sorted(parameter.shape)), []).append(index)
    return list(shapes.values())


def on_its_side(matrix: Tensor) -> Tensor:
    """The matrix, transposed if it is tall, so that a bank can be stacked; doing it twice gives the matrix back."""
    return matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix


class Muon:
    """M <- mu M + G;  U = G + mu M (Nesterov);  W <- W (1 - lr wd) - lr * shape_scale * orthogonalise(U)."""

    def __init__(
        self,
        parameters: Iterable[Tensor],
        *,
        lr: float,
        weight_decay: float = 0.0,
        iteration: Iteration = QUINTIC,
        row_norm: bool = False,
    ) -> None:
        self.parameters = list(parameters)
        self.lr, self.weight_decay, self.row_norm = lr, weight_decay, row_norm
        self.iteration = iteration
        self.orthogonalise = orthogonalise
        self._banks = banks(self.parameters)
        self._momentum = self._zeros()

    @torch.no_grad()
    def compile(self) -> None:
        """Compile Newton-Schulz and run it once on every bank's shape; no weight changes."""
        self.orthogonalise = torch.compile(orthogonalise, dynamic=False, fullgraph=True)
        for bank in self._banks:
            shape = self._bank_shape(bank)
            for _ in range(2):
                self.orthogonalise(self.parameters[bank[0]].new_zeros(shape), self.iteration)

    def _bank_shape(self, bank: list[int]) -> tuple[int, ...]:
        """What goes through Newton-Schulz at once: (matrices, rows, columns)."""
        return (len(bank), *on_its_side(self.parameters[bank[0]]).shape)

    def _zeros(self) -> list[Tensor]:
        return [torch.zeros_like(parameter) for parameter in self.parameters]

    @torch.no_grad()
    def step(self, *, scale: float = 1.0, momentum: float = 0.95, decay: float = 1.0) -> None:
        """One update from the parameters' `.grad`, at `scale` times the rate. Every parameter must have a gradient.

        `decay` multiplies the weight decay (a schedule of its own: MUON_WD_TAPER).
        """
        gradients = [parameter.grad for parameter in self.parameters]
        if not gradients:
            return
        torch._foreach_mul_(self._momentum, momentum)
        torch._foreach_add_(self._momentum, gradients)
        updates = torch._foreach_add(gradients, self._momentum, alpha=momentum)
        for bank in self._banks:
            wide = torch.stack([self._laid(updates[index]) for index in bank])
            self._apply(bank, self.orthogonalise(wide, self.iteration), scale, decay)

    def _apply(self, bank: list[int], changes: Iterable[Tensor], scale: float, decay: float) -> None:
        """Decay and move the matrices of a bank; `changes` lie on their sides, in the bank's order."""
        rate = self.lr * scale
        for index, change in zip(bank, changes, strict=True):
            parameter = self.parameters[index]
            rows, columns = parameter.shape
            if self.weight_decay:
                parameter.mul_(1.0 - rate * self.weight_decay * decay)
            parameter.add_(change.mT if rows > columns else change, alpha=-rate * shape_scale(rows, columns))

    def _laid(self, update: Tensor) -> Tensor:
        """The update of one matrix, lying on its side if it is tall."""
        return on_its_side(unit_rows(update) if self.row_norm else update)
