"""Symmetric quantisation per row: w is about q * s, q a whole number in [-L, L], one float16 scale s a row.

L is 127 for 8 bits, 31 for 6, 15 for 5, 7 for 4. int8x4 are 8 bits rounded to multiples of 4 (contest record
2026-03-19_10L_MixedPrecision): values lie as those of int8 do, and the entropy coder behind takes the empty bits out, as it does
for every width below 8. Source: the contest's int8 and int6 exports. Where a row's grid ends is chosen in trainer.quant.clip.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Grid:
    """Symbols a scheme has: multiples of `step` from -levels to levels."""

    levels: int
    step: int = 1


GRIDS = {"int8": Grid(127), "int6": Grid(31), "int5": Grid(15), "int4": Grid(7), "int8x4": Grid(124, 4)}
"""By scheme. The last multiple of 4 within int8 is 124."""

SMALLEST_SCALE = 2.0**-14
"""Smallest normal float16. Below it scales lose precision, and quantising twice would no longer be quantising once."""
LARGEST_SCALE = 65504.0


def scales(peak: Tensor, grid: Grid) -> Tensor:
    """float16 scales (R,) with which the outermost symbol stands for `peak` (R,) or next to it. Not finite if it is too large."""
    return (peak / grid.levels).clamp(min=SMALLEST_SCALE).half()


def symbols(weight: Tensor, scale: Tensor, grid: Grid) -> Tensor:
    """The grid's nearest symbols of (R, C) float32 at float16 scales (R,): whole numbers as float32, clipped to the levels."""
    step = scale.float().unsqueeze(1) * grid.step
    return torch.round(weight / step).clamp(-(grid.levels // grid.step), grid.levels // grid.step) * grid.step


def dequantise(q: Tensor, scale: Tensor) -> Tensor:
    """(R, C) symbols of any type and (R,) float16 -> (R, C) float32."""
    return q.float() * scale.float().unsqueeze(1)
