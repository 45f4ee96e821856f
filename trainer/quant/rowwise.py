"""Symmetric quantisation per row: w is about q * s, q a whole number in [-L, L], one float16 scale s a row.

L is 127 for 8 bits, 31 for 6. Source: the contest's int8 and int6 exports; 6-bit values lie one a byte, and the entropy coder
behind takes the two empty bits out.
"""

from __future__ import annotations

import torch
from torch import Tensor

LEVELS = {8: 127, 6: 31}
SMALLEST_SCALE = 2.0**-14
"""Smallest normal float16. Below it scales lose precision, and quantising twice would no longer be quantising once."""
LARGEST_SCALE = 65504.0


def quantise(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """(R, C) float -> (R, C) int8 and (R,) float16. The error is at most half a scale per entry.

    What `dequantise` returns is a fixed point: quantised again it gives the same two tensors.
    Raises ValueError if a weight is not finite or too large for a float16 scale.
    """
    levels = LEVELS[bits]
    weight = weight.detach().to("cpu", torch.float32)
    peak = weight.abs().amax(dim=1) if weight.shape[1] else weight.new_zeros(weight.shape[0])
    if not torch.isfinite(peak).all() or bool((peak > levels * LARGEST_SCALE).any()):
        raise ValueError("weights are not finite, or too large for a float16 scale")
    scale = (peak / levels).clamp(min=SMALLEST_SCALE).half()
    q = torch.round(weight / scale.float().unsqueeze(1)).clamp_(-levels, levels)
    return q.to(torch.int8), scale


def dequantise(q: Tensor, scale: Tensor) -> Tensor:
    """(R, C) int8 and (R,) float16 -> (R, C) float32."""
    return q.float() * scale.float().unsqueeze(1)
