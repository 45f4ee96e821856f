"""Adam (Kingma & Ba 2015), thin: one group, no closures, no hooks.

`torch.optim` is not used because its first step loads the whole compiler stack, 1.3 s on a small machine; the arithmetic is
tested against `torch.optim.Adam`.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


class Adam:
    """m <- b1 m + (1-b1) g;  v <- b2 v + (1-b2) g^2;  w <- w (1 - lr wd) - lr * m^ / (sqrt(v^) + eps), bias-corrected."""

    def __init__(
        self,
        parameters: Iterable[Tensor],
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        self.parameters = list(parameters)
        self.lr, self.betas, self.eps, self.weight_decay = lr, betas, eps, weight_decay
        self._first = [torch.zeros_like(parameter) for parameter in self.parameters]
        self._second = [torch.zeros_like(parameter) for parameter in self.parameters]
        self._steps = 0
        # One pass over memory instead of six, where torch has the kernel: matters for tables of millions of entries.
        self._fused = getattr(torch, "_fused_adam_", None) if self._can_fuse() else None

    def _can_fuse(self) -> bool:
        return all(p.device.type in {"cpu", "cuda"} and p.is_floating_point() for p in self.parameters)

    @torch.no_grad()
    def step(self, *, scale: float = 1.0) -> None:
        """One update from the parameters' `.grad`, at `scale` times the rate. Every parameter must have a gradient."""
        if not self.parameters:
            return
        self._steps += 1
        gradients = [parameter.grad for parameter in self.parameters]
        if self.weight_decay:
            torch._foreach_mul_(self.parameters, 1.0 - self.lr * scale * self.weight_decay)
        if self._fused is not None:
            self._fused_step(gradients, self.lr * scale)
        else:
            self._plain_step(gradients, self.lr * scale)

    def _fused_step(self, gradients: list[Tensor], rate: float) -> None:
        steps = [torch.tensor(float(self._steps), device=p.device) for p in self.parameters]
        self._fused(
            self.parameters,
            gradients,
            self._first,
            self._second,
            [],
            steps,
            lr=rate,
            beta1=self.betas[0],
            beta2=self.betas[1],
            weight_decay=0.0,
            eps=self.eps,
            amsgrad=False,
            maximize=False,
        )

    def _plain_step(self, gradients: list[Tensor], rate: float) -> None:
        beta1, beta2 = self.betas
        correction1 = 1.0 - beta1**self._steps
        correction2 = 1.0 - beta2**self._steps
        for parameter, gradient, first, second in zip(
            self.parameters, gradients, self._first, self._second, strict=True
        ):
            first.lerp_(gradient, 1.0 - beta1)
            second.mul_(beta2).addcmul_(gradient, gradient, value=1.0 - beta2)
            spread = (second / correction2).sqrt_().add_(self.eps)
            parameter.addcdiv_(first, spread, value=-rate / correction1)


class MatrixAdam(Adam):
    """Adam in Muon's place."""

    def step(self, *, scale: float = 1.0, momentum: float = 0.0, decay: float = 1.0) -> None:
        """As `Adam.step`; `decay` multiplies the weight decay. `momentum` is Muon's, and not used."""
        held = self.weight_decay
        self.weight_decay = held * decay
        super().step(scale=scale)
        self.weight_decay = held
