"""One transformer block of the contest baseline (see `Block.forward` for the formula)."""

from __future__ import annotations

from torch import Tensor, nn

from trainer.config import Config
from trainer.model.attention import Attention
from trainer.model.mlp import MLP
from trainer.model.parts import Pass, empty, rms


class Block(nn.Module):
    """Mix in the embedding, attend, think; each branch scaled per channel."""

    def __init__(self, config: Config, index: int = 0) -> None:
        super().__init__()
        self.attention = Attention(config, f"blocks.{index}.attention")
        self.mlp = MLP(config, f"blocks.{index}.mlp")
        self.resid_mix = empty(2, config.model_dim)
        self.attention_scale = empty(config.model_dim)
        self.mlp_scale = empty(config.model_dim)

    def forward(self, x: Tensor, shared: Pass) -> Tensor:
        """x <- m0*x + m1*x0;  x <- x + a*Attention(rms x);  x <- x + b*MLP(rms x); all (B, T, d)."""
        x = self.resid_mix[0] * x + self.resid_mix[1] * shared.x0
        x = x + self.attention_scale * self.attention(rms(x), shared)
        return x + self.mlp_scale * self.mlp(rms(x), shared)
