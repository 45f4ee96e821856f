"""U-Net skips: the first half of the stack pushes its results, the second half pops them, last in, first out."""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.model.kernels import scaled_sum


def join(x: Tensor, skip: Tensor, scale: Tensor, gate: Tensor | None) -> Tensor:
    """x + w skip; with a gate lerp(w skip, x, sigmoid(g)), so 0 mixes both alike and a large g keeps x (contest PR #1089).

    x, skip: (B, T, d). scale w, gate g: (d,).
    """
    if gate is None:
        return scaled_sum(x, scale, skip)
    return torch.lerp(scale * skip, x, torch.sigmoid(gate).to(x.dtype))
