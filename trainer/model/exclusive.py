"""Exclusive self-attention, XSA (contest record #265 and later): a head reports only what its own token does not say already."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def exclude_own_value(y: Tensor, value: Tensor) -> Tensor:
    """y (B, T, H, D) less its component along the own token's value, value (B, T, G, D); G divides H.

    y_h <- y_h - (y_h . v^) v^ with v^ = v / |v| of the group of h, h // (H / G). No parameters.
    """
    batch, length, groups, depth = value.shape
    grouped = y.reshape(batch, length, groups, -1, depth)
    along = F.normalize(value.to(y.dtype), dim=-1).unsqueeze(-2)
    return (grouped - (grouped * along).sum(-1, keepdim=True) * along).reshape(y.shape)
