"""SOAP (Vyas et al. 2024): Adam in the eigenbasis of Shampoo's preconditioner.

Written here because the libraries that hold it (heavyball, pytorch-optimizer) build on `torch.optim` or the compiler, which cost
a run seconds at its start, and every line shipped counts.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from trainer.optim.muon import banks, on_its_side


class SOAP:
    """L <- b L + (1-b) G G^T, R likewise;  Adam on Ql^T G Qr, turned back;  W <- W (1 - lr wd) - lr * that.

    Ql and Qr are the eigenvectors of L and R at the first step; every `every` steps one power iteration and a QR bring them up to
    date. First moments live in the weights' basis, second moments in the eigenbasis.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        *,
        lr: float,
        betas: tuple[float, float] = (0.95, 0.95),
        eps: float = 1e-8,
        factor_beta: float = 0.95,
        every: int = 10,
        weight_decay: float = 0.0,
    ) -> None:
        self.parameters = list(parameters)
        self.lr, self.betas, self.eps, self.weight_decay = lr, betas, eps, weight_decay
        self._banks = [_Bank([self.parameters[i] for i in bank], factor_beta, every) for bank in banks(self.parameters)]

    @torch.no_grad()
    def step(self, *, scale: float = 1.0, momentum: float = 0.0, decay: float = 1.0) -> None:
        """One update from the parameters' `.grad`, at `scale` times the rate. Every parameter must have a gradient.

        `decay` multiplies the weight decay. `momentum` is Muon's, taken so that one can stand for the other, and not used.
        """
        rate = self.lr * scale
        for bank in self._banks:
            changes = bank.changes(self.betas, self.eps)
            for parameter, change in zip(bank.parameters, changes, strict=True):
                if self.weight_decay:
                    parameter.mul_(1.0 - rate * self.weight_decay * decay)
                parameter.add_(change.mT if parameter.shape[0] > parameter.shape[1] else change, alpha=-rate)


class _Bank:
    """State of n matrices of one shape (r, c), r <= c, worked on as one batch."""

    def __init__(self, parameters: list[Tensor], factor_beta: float, every: int) -> None:
        self.parameters, self.factor_beta, self.every = parameters, factor_beta, every
        self.steps = 0
        self.first = torch.stack([torch.zeros_like(on_its_side(parameter)) for parameter in parameters])  # (n, r, c)
        self.second = torch.zeros_like(self.first)
        rows, columns = self.first.shape[1:]
        self.left = self.first.new_zeros(len(parameters), rows, rows)
        self.right = self.first.new_zeros(len(parameters), columns, columns)
        self.left_basis, self.right_basis = torch.zeros_like(self.left), torch.zeros_like(self.right)

    def changes(self, betas: tuple[float, float], eps: float) -> Tensor:
        """What a rate of 1 would subtract from the matrices on their sides, (n, r, c)."""
        gradient = torch.stack([on_its_side(parameter.grad) for parameter in self.parameters])
        self.steps += 1
        if self.steps == 1:
            self._learn(gradient)
            self.left_basis, self.right_basis = (torch.linalg.eigh(factor)[1] for factor in (self.left, self.right))
        turned = self._turn(gradient)
        self.first.lerp_(gradient, 1.0 - betas[0])
        self.second.mul_(betas[1]).addcmul_(turned, turned, value=1.0 - betas[1])
        correction1, correction2 = (1.0 - beta**self.steps for beta in betas)
        spread = (self.second / correction2).sqrt_().add_(eps)
        change = self.left_basis @ (self._turn(self.first) / (correction1 * spread)) @ self.right_basis.mT
        if self.steps > 1:
            self._learn(gradient)
            if self.steps % self.every == 0:
                self._refresh()
        return change

    def _turn(self, matrix: Tensor) -> Tensor:
        return self.left_basis.mT @ matrix @ self.right_basis

    def _learn(self, gradient: Tensor) -> None:
        self.left.lerp_(gradient @ gradient.mT, 1.0 - self.factor_beta)
        self.right.lerp_(gradient.mT @ gradient, 1.0 - self.factor_beta)

    def _refresh(self) -> None:
        """One power iteration of each basis, largest eigenvalue first; second moments go with their directions."""
        self.left_basis, order = _follow(self.left, self.left_basis)
        self.second = self.second.gather(1, order.unsqueeze(2).expand_as(self.second))
        self.right_basis, order = _follow(self.right, self.right_basis)
        self.second = self.second.gather(2, order.unsqueeze(1).expand_as(self.second))


def _follow(factor: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """The basis (n, k, k) after one step of orthogonal iteration on `factor`, and the order in which its columns were taken.

    Sorted by their Rayleigh quotients: QR takes columns in turn and makes later ones orthogonal to earlier ones, so the large
    ones must come first.
    """
    product = factor @ basis
    order = (basis * product).sum(dim=1).argsort(dim=1, descending=True, stable=True)  # (n, k)
    return torch.linalg.qr(product.gather(2, order.unsqueeze(1).expand_as(product)))[0], order
