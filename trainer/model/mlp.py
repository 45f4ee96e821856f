"""The part of a block that sees one position at a time."""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from trainer.config import Config
from trainer.model.kernels import squared
from trainer.model.parts import Pass, empty


class MLP(nn.Module):
    """A squared rectifier between two projections (So et al. 2021, Primer), or SwiGLU. `name`: its own, dotted, for adapters."""

    def __init__(self, config: Config, name: str = "mlp") -> None:
        super().__init__()
        self.name = name
        gated = config.mlp_kind == "swiglu"
        # Three matrices of two thirds the width weigh as much as two.
        hidden = int(config.mlp_mult * config.model_dim * (2 / 3 if gated else 1))
        self.up = empty(hidden, config.model_dim)
        self.gate = empty(hidden, config.model_dim) if gated else None
        self.down = empty(config.model_dim, hidden)
        leaky = config.mlp_kind == "leaky_relu2"
        self.slope = config.negative_slope if leaky else 0.0
        self.activation = partial(leaky_square, slope=config.negative_slope) if leaky else relu_square

    def forward(self, x: Tensor, shared: Pass) -> Tensor:
        """(B, T, d) -> (B, T, d)."""
        hidden = shared.product(f"{self.name}.up", x, self.up)
        if self.gate is not None:
            hidden = F.silu(shared.product(f"{self.name}.gate", x, self.gate)) * hidden
        else:
            hidden = self.activation(hidden)
        return shared.product(f"{self.name}.down", hidden, self.down)


def relu_square(z: Tensor) -> Tensor:
    """max(z, 0)^2."""
    return squared(z)


def leaky_square(z: Tensor, slope: float) -> Tensor:
    """max(z, slope z)^2 with 0 <= slope <= 1 (contest record #549): not monotone, slope^2 z^2 below zero."""
    return squared(z, slope)
