"""The part of a block that sees one position at a time."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from trainer.config import Config
from trainer.model.parts import Pass, empty


class MLP(nn.Module):
    """relu(x)^2 between two projections (So et al. 2021, Primer). `name`: its own, dotted, for adapters."""

    def __init__(self, config: Config, name: str = "mlp") -> None:
        super().__init__()
        self.name = name
        hidden = int(config.mlp_mult * config.model_dim)
        self.up = empty(hidden, config.model_dim)
        self.down = empty(config.model_dim, hidden)

    def forward(self, x: Tensor, shared: Pass) -> Tensor:
        """(B, T, d) -> (B, T, d)."""
        hidden = F.relu(shared.product(f"{self.name}.up", x, self.up)).square()
        return shared.product(f"{self.name}.down", hidden, self.down)
