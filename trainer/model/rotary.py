"""Rotary position embedding over the first part of each head (Su et al. 2021; partial form as in the contest's records)."""

from __future__ import annotations

import torch
from torch import Tensor


def rotated_dims(head_dim: int, fraction: float) -> int:
    """How many of `head_dim` dimensions rotate: the even number at or below `fraction` of them."""
    return 2 * int(fraction * head_dim / 2 + 1e-9)


def rotary_tables(
    length: int, dims: int, base: float, *, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Cosines and sines, each (T, 1, dims/2). Angles are formed in float64, so long contexts lose nothing."""
    frequency = base ** -(torch.arange(0, dims, 2, dtype=torch.float64) / max(dims, 1))
    angle = torch.outer(torch.arange(length, dtype=torch.float64), frequency).unsqueeze(1)
    return angle.cos().to(device, dtype), angle.sin().to(device, dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`x` (B, T, heads, D) with the pairs (i, i + dims/2) of its first dims turned by their position's angle."""
    half = cos.shape[-1]
    if half == 0:
        return x
    pairs, rest = x[..., : 2 * half].unflatten(-1, (2, half)), x[..., 2 * half :]
    # One formula for both halves: its gradient is the same formula, which Inductor makes loops of vectors of.
    turned = pairs * torch.stack([cos, cos], dim=-2) + pairs.flip(-2) * torch.stack([-sin, sin], dim=-2)
    return torch.cat([turned.flatten(-2), rest], dim=-1) if rest.shape[-1] else turned.flatten(-2)
