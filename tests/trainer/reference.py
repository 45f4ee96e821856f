"""The contest's baseline forward, said a second time in plain functions over a dictionary of weights.

Written from the formulas, without a line of trainer/model, so that a change there can't change it: the default model must
give these logits to the last bit. Slow and without any switch on purpose.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Sizes:
    """What the weights alone do not tell."""

    layers: int
    heads: int
    kv_heads: int
    softcap: float = 30.0
    rope_base: float = 10000.0


def logits(weights: Weights, sizes: Sizes, ids: Tensor) -> Tensor:
    """ids (B, T) -> 30 tanh(z / 30) with z = rms(x) E^T, (B, T, V)."""
    x = normed(weights["embed"][ids])
    start, waiting = x, []
    for layer in range(sizes.layers):
        own = {name.removeprefix(f"blocks.{layer}."): w for name, w in weights.items() if f"blocks.{layer}." in name}
        if layer >= sizes.layers // 2 and waiting:
            x = x + weights["skip_scale"][layer - sizes.layers // 2] * waiting.pop()
        x = block(own, sizes, x, start)
        if layer < sizes.layers // 2:
            waiting.append(x)
    z = F.linear(normed(x), weights["embed"])
    return sizes.softcap * torch.tanh(z / sizes.softcap)


def block(own: Weights, sizes: Sizes, x: Tensor, start: Tensor) -> Tensor:
    """Mix with the start of the stream, then attention, then MLP, each added with a weight per channel."""
    x = own["resid_mix"][0] * x + own["resid_mix"][1] * start
    x = x + own["attention_scale"] * attention(own, sizes, normed(x))
    hidden = torch.relu(normed(x) @ own["mlp.up"].T) ** 2
    return x + own["mlp_scale"] * (hidden @ own["mlp.down"].T)


def attention(own: Weights, sizes: Sizes, x: Tensor) -> Tensor:
    """Grouped-query causal attention with normed, turned and (queries only) scaled heads."""
    rows, length, width = x.shape
    depth = width // sizes.heads
    stacked = torch.cat([own[f"attention.{part}"] for part in ("query", "key", "value")])
    parts = (x @ stacked.T).view(rows, length, -1, depth)
    query, key, value = parts.split([sizes.heads, sizes.kv_heads, sizes.kv_heads], dim=2)
    query = turned(normed(query), sizes.rope_base) * own["attention.gain"][:, None]
    key = turned(normed(key), sizes.rope_base)
    by_head = [part.transpose(1, 2) for part in (query, key, value)]
    mixed = F.scaled_dot_product_attention(*by_head, is_causal=True, enable_gqa=sizes.heads != sizes.kv_heads)
    return mixed.transpose(1, 2).reshape(rows, length, width) @ own["attention.output"].T


def turned(x: Tensor, base: float) -> Tensor:
    """Dimensions i and i + D/2 of each head (B, T, H, D) turned by position * base^(-2i/D)."""
    half = x.shape[-1] // 2
    speed = base ** -(torch.arange(0, 2 * half, 2).double() / (2 * half))
    angle = (torch.arange(x.shape[1]).double()[:, None] * speed)[:, None]
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    low, high = x[..., :half], x[..., half:]
    return torch.cat([low * cos - high * sin, low * sin + high * cos], dim=-1)


def normed(x: Tensor) -> Tensor:
    """x over its root mean square, no gain."""
    return F.rms_norm(x, x.shape[-1:])
