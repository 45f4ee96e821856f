"""Ternary weights (BitNet b1.58, Ma et al. 2024): w is about q * s, q in {-1, 0, 1}, a float16 scale s for 128 entries of a row.

An entry keeps a symbol other than 0 if it is at least half the group's mean magnitude, a = mean|w|. The scale is a / mean|q|, not
a: the group then keeps its mean magnitude (contest record 2026-03-24_74M_Ternary), and quantising twice is quantising once.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.quant.rowwise import SMALLEST_SCALE

GROUP = 128
"""Entries of a row that share a scale; the last group of a row may be shorter."""


def groups(columns: int) -> int:
    """Scales of a row."""
    return -(-columns // GROUP)


def spread(scale: Tensor, columns: int) -> Tensor:
    """float16 scales (R, groups) as float32 (R, columns), one for each entry."""
    return scale.float().repeat_interleave(GROUP, dim=1)[:, :columns]


def group_scales(weight: Tensor) -> Tensor:
    """float16 scales (R, groups) of (R, C) float32; not finite where one would be too large for float16."""
    total = _grouped(weight.abs()).sum(dim=2)
    used = _grouped((_kept(weight) != 0).float()).sum(dim=2)
    return (total / used.clamp(min=1)).clamp(min=SMALLEST_SCALE).half()


def symbols(weight: Tensor, scale: Tensor) -> Tensor:
    """-1, 0 or 1 for each entry of (R, C) float32, as float32, where `scale` (R, groups) is that of `group_scales`."""
    least = spread(scale, weight.shape[1])
    # A group too small for any scale is rounded to the smallest one, like anything else.
    return torch.where(least > SMALLEST_SCALE, _kept(weight), torch.round(weight / least).clamp(-1, 1))


def dequantise(q: Tensor, scale: Tensor) -> Tensor:
    """(R, C) symbols and (R, groups) float16 -> (R, C) float32."""
    return q.float() * spread(scale, q.shape[1])


def _kept(weight: Tensor) -> Tensor:
    """round(w / mean|w|), clipped to a symbol; 0 in groups of zeros."""
    columns = weight.shape[1]
    sizes = torch.full((groups(columns),), GROUP, dtype=weight.dtype, device=weight.device)
    if columns:
        sizes[-1] = columns - GROUP * (groups(columns) - 1)
    mean = (_grouped(weight.abs()).sum(dim=2) / sizes).repeat_interleave(GROUP, dim=1)[:, :columns]
    return torch.where(mean > 0, torch.round(weight / mean).clamp(-1, 1), torch.zeros_like(weight))


def _grouped(weight: Tensor) -> Tensor:
    """(R, C) -> (R, groups, 128), filled up with zeros."""
    columns = weight.shape[1]
    return F.pad(weight, (0, groups(columns) * GROUP - columns)).view(weight.shape[0], groups(columns), GROUP)
