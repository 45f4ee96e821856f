"""Causal grouped-query attention of the contest baseline (KellerJordan's modded-nanoGPT lineage)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.config import Config
from trainer.model.parts import Pass, empty, rms
from trainer.model.rotary import rotate


class Attention(nn.Module):
    """Normed queries and keys, a gain per query head, rotary positions. `name`: its own, dotted, for adapters."""

    def __init__(self, config: Config, name: str = "attention") -> None:
        super().__init__()
        self.name = name
        self.heads, self.kv_heads = config.num_heads, config.num_kv_heads
        self.head_dim = config.model_dim // config.num_heads
        width, kv_width = config.model_dim, self.kv_heads * self.head_dim
        self.query = empty(width, width)
        self.key = empty(kv_width, width)
        self.value = empty(kv_width, width)
        self.output = empty(width, width)
        self.gain = empty(self.heads)

    def forward(self, x: Tensor, shared: Pass) -> Tensor:
        """(B, T, d) -> (B, T, d). Query head h reads key and value head h // (heads / kv_heads)."""
        batch, length, width = x.shape
        qk, value = self._joint(x, shared).split([self.heads + self.kv_heads, self.kv_heads], dim=2)
        query, key = rotate(rms(qk), shared.cos, shared.sin).split([self.heads, self.kv_heads], dim=2)
        query = query * self.gain.to(query.dtype).unsqueeze(-1)
        mixed = F.scaled_dot_product_attention(
            query.transpose(1, 2),  # (B, H, T, D)
            key.to(query.dtype).transpose(1, 2),
            value.to(query.dtype).transpose(1, 2),
            is_causal=True,
            enable_gqa=self.kv_heads != self.heads,
        )
        return shared.product(f"{self.name}.output", mixed.transpose(1, 2).reshape(batch, length, width), self.output)

    def _joint(self, x: Tensor, shared: Pass) -> Tensor:
        """Queries, keys and values, (B, T, heads + 2 kv_heads, D)."""
        # One product for the three; they stay three parameters because Muon orthogonalises each by itself.
        joint = F.linear(x, torch.cat([self.query, self.key, self.value]))
        if shared.adapter is not None:
            parts = zip(
                ("query", "key", "value"),
                joint.split([len(w) for w in (self.query, self.key, self.value)], -1),
                strict=True,
            )
            more = [(part, shared.adapter(f"{self.name}.{name}", x)) for name, part in parts]
            joint = torch.cat([part if extra is None else part + extra for part, extra in more], dim=-1)
        return joint.view(*x.shape[:2], self.heads + 2 * self.kv_heads, self.head_dim)
