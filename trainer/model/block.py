"""One transformer block of the contest baseline (see `Block.forward` for the formula), and its form with parallel branches."""

from __future__ import annotations

from torch import Tensor, nn

from trainer.config import Config
from trainer.model.attention import Attention
from trainer.model.branches import in_pieces, think
from trainer.model.kernels import blend, scaled_sum
from trainer.model.mlp import MLP
from trainer.model.parts import Pass, empty, rms


class Block(nn.Module):
    """Mix in the embedding, attend, think; each branch scaled per channel."""

    def __init__(self, config: Config, index: int = 0) -> None:
        super().__init__()
        self.attention = Attention(config, f"blocks.{index}.attention", index)
        self.mlp = MLP(config, f"blocks.{index}.mlp")
        self.resid_mix = empty(2, config.model_dim)
        self.attention_scale = empty(config.model_dim)
        self.mlp_scale = empty(config.model_dim)
        self.joins = not config.ln_scale and self.attention.gate is None and self.mlp.gate is None
        self.norm_scale = (index + 1) ** -0.5 if config.ln_scale else None

    def forward(self, x: Tensor, shared: Pass) -> Tensor:
        """x <- m0*x + m1*x0;  x <- x + a*Attention(rms x);  x <- x + b*MLP(rms x); all (B, T, d)."""
        if self.joins and shared.adapter is None and in_pieces(x, shared.cos, self.resid_mix):
            x = self.attention.mixed_in(x, self.resid_mix, self.attention_scale, shared)
            return think(x, self.mlp.up, self.mlp.down, self.mlp_scale, self.mlp.slope)
        x = self.mixed(x, shared)
        x = scaled_sum(x, self.attention_scale, self.attention(self.normed(x), shared))
        return scaled_sum(x, self.mlp_scale, self.mlp(self.normed(x), shared))

    def mixed(self, x: Tensor, shared: Pass) -> Tensor:
        """The stream with its share of the embedding."""
        return blend(self.resid_mix, x, shared.x0)

    def normed(self, x: Tensor) -> Tensor:
        """rms(x), over the root of the block's number from one with LN_SCALE (contest record #315)."""
        return rms(x) if self.norm_scale is None else rms(x) * self.norm_scale


class ParallelBlock(Block):
    """Both branches read the same stream (GPT-J, Wang & Komatsuzaki 2021; contest record #1412)."""

    def forward(self, x: Tensor, shared: Pass) -> Tensor:
        """x <- m0*x + m1*x0;  x <- x + a*Attention(rms x) + b*MLP(rms x); all (B, T, d)."""
        x = self.mixed(x, shared)
        h = self.normed(x)
        return x + self.attention_scale * self.attention(h, shared) + self.mlp_scale * self.mlp(h, shared)
