"""Causal grouped-query attention of the contest baseline (KellerJordan's modded-nanoGPT lineage), and its switches."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.config import Config
from trainer.model import branches, causal
from trainer.model.exclusive import exclude_own_value
from trainer.model.gates import HeadGate
from trainer.model.kernels import normed_rotated
from trainer.model.parts import Pass, empty
from trainer.model.values import ValueMix, offset_keys
from trainer.options.model import value_layers


class Attention(nn.Module):
    """Normed queries and keys, a gain per query head, rotary positions. `name`: its own, dotted, for adapters."""

    def __init__(self, config: Config, name: str = "attention", index: int = 0) -> None:
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
        self.offset = config.partial_key_offset
        self.exclusive = index >= config.num_layers - config.xsa_last_n
        self.value_scale = empty(1) if index in value_layers(config) else None
        self.mix = ValueMix() if config.value_residual and index > 0 else None
        self.leads = config.value_residual and index == 0
        self.gate = HeadGate(config, f"{name}.gate") if config.attn_gate != "off" else None

    def forward(self, x: Tensor, shared: Pass) -> Tensor:
        """(B, T, d) -> (B, T, d). Query head h reads key and value head h // (heads / kv_heads)."""
        qk, value = self._joint(x, shared).split([self.heads + self.kv_heads, self.kv_heads], dim=2)
        query, key = normed_rotated(qk, self.gain, shared.cos, shared.sin)
        mixed = self._attended(query, key, value, shared)
        if self.gate is not None:
            mixed = mixed * self.gate(x, shared)
        return shared.product(f"{self.name}.output", mixed.reshape(x.shape), self.output)

    def mixed_in(self, x: Tensor, mix: Tensor, scale: Tensor, shared: Pass) -> Tensor:
        """s + scale * Attention(rms s) with s = mix[0] x + mix[1] x0, in pieces; knows no gate and no adapter. As in `Block`."""
        weights, tables = (self.query, self.key, self.value), (shared.cos, shared.sin)
        x, query, key, value = branches.read(x, shared.x0, mix, weights, self.gain, tables)
        mixed = self._attended(query, key, value, shared)
        return branches.added(x, scale, mixed.reshape(x.shape), self.output)

    def _attended(self, query: Tensor, key: Tensor, value: Tensor, shared: Pass) -> Tensor:
        """What the heads read, (B, T, H, D), by queries (B, T, H, D) from keys and values (B, T, G, D)."""
        if self.offset:
            key = offset_keys(key, shared.starts)
        value = self._completed(value, shared)
        if shared.attend is not None:
            mixed = shared.attend(query, key.to(query.dtype), value.to(query.dtype))
        elif shared.mask is None and causal.attends(query, key, value):
            mixed = causal.attend(query, key, value)
        else:
            mixed = F.scaled_dot_product_attention(
                query.transpose(1, 2),  # (B, H, T, D)
                key.to(query.dtype).transpose(1, 2),
                value.to(query.dtype).transpose(1, 2),
                attn_mask=shared.mask,
                is_causal=shared.mask is None,
                enable_gqa=self.kv_heads != self.heads,
            ).transpose(1, 2)  # (B, T, H, D)
        return exclude_own_value(mixed, value) if self.exclusive else mixed

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

    def _completed(self, value: Tensor, shared: Pass) -> Tensor:
        """Values (B, T, G, D) with what comes from a table and from the first layer, which leaves its own here."""
        if self.value_scale is not None:
            value = value + self.value_scale * shared.value_embedding
        if self.leads and shared.first_value is None:  # a looped first layer leads once
            shared.first_value = value
        return value if self.mix is None else self.mix(value, shared.first_value)
