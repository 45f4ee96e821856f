"""One transformer block of the contest baseline (KellerJordan's modded-nanoGPT lineage; see `Block.forward` for the formula)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.config import Config
from trainer.model.rotary import rotate


def rms(x: Tensor) -> Tensor:
    """x / sqrt(mean(x^2) + eps) over the last dimension, without a learned gain; eps is the dtype's own."""
    return F.rms_norm(x, (x.shape[-1],))


def empty(*shape: int) -> nn.Parameter:
    """A parameter without values yet; `GPT` fills it."""
    return nn.Parameter(torch.empty(*shape))


class Attention(nn.Module):
    """Causal grouped-query attention with normed queries and keys, a gain per query head, and rotary positions."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.heads, self.kv_heads = config.num_heads, config.num_kv_heads
        self.head_dim = config.model_dim // config.num_heads
        width, kv_width = config.model_dim, self.kv_heads * self.head_dim
        self.query = empty(width, width)
        self.key = empty(kv_width, width)
        self.value = empty(kv_width, width)
        self.output = empty(width, width)
        self.gain = empty(self.heads)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """(B, T, d) -> (B, T, d). Query head h reads key and value head h // (heads / kv_heads)."""
        batch, length, width = x.shape
        # One product for the three; they stay three parameters because Muon orthogonalises each by itself.
        joint = F.linear(x, torch.cat([self.query, self.key, self.value]))
        joint = joint.view(batch, length, self.heads + 2 * self.kv_heads, self.head_dim)
        qk, value = joint.split([self.heads + self.kv_heads, self.kv_heads], dim=2)
        query, key = rotate(rms(qk), cos, sin).split([self.heads, self.kv_heads], dim=2)
        query = query * self.gain.to(query.dtype).unsqueeze(-1)
        mixed = F.scaled_dot_product_attention(
            query.transpose(1, 2),  # (B, H, T, D)
            key.to(query.dtype).transpose(1, 2),
            value.to(query.dtype).transpose(1, 2),
            is_causal=True,
            enable_gqa=self.kv_heads != self.heads,
        )
        return F.linear(mixed.transpose(1, 2).reshape(batch, length, width), self.output)


class MLP(nn.Module):
    """relu(x)^2 between two projections (So et al. 2021, Primer)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        hidden = int(config.mlp_mult * config.model_dim)
        self.up = empty(hidden, config.model_dim)
        self.down = empty(config.model_dim, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, d) -> (B, T, d)."""
        return F.linear(F.relu(F.linear(x, self.up)).square(), self.down)


class Block(nn.Module):
    """Mix in the embedding, attend, think; each branch scaled per channel."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.mlp = MLP(config)
        self.resid_mix = empty(2, config.model_dim)
        self.attention_scale = empty(config.model_dim)
        self.mlp_scale = empty(config.model_dim)

    def forward(self, x: Tensor, x0: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x <- m0*x + m1*x0;  x <- x + a*Attention(rms x);  x <- x + b*MLP(rms x); all (B, T, d)."""
        x = self.resid_mix[0] * x + self.resid_mix[1] * x0
        x = x + self.attention_scale * self.attention(rms(x), cos, sin)
        return x + self.mlp_scale * self.mlp(rms(x))
