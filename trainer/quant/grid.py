"""One weight on the grid of its scheme: the same functions for the export, for training on the grid and for GPTQ.

All of them work on any device, in float32, and under torch.compile. A scheme is `int8`, `int6`, `int5`, `int4`, `int8x4`
(trainer.quant.rowwise) or `ternary` (trainer.quant.ternary).
"""

from __future__ import annotations

from torch import Tensor

from trainer.quant import rowwise, ternary
from trainer.quant.clip import Clip, row_scales
from trainer.quant.rowwise import GRIDS

TERNARY = "ternary"
SCHEMES = (*GRIDS, TERNARY)


def scales_of(weight: Tensor, scheme: str, clip: Clip) -> Tensor:
    """float16 scales of (R, C) float32: (R,), or (R, groups) for ternary, which knows no clipping."""
    return ternary.group_scales(weight) if scheme == TERNARY else row_scales(weight, GRIDS[scheme], clip)


def symbols_of(weight: Tensor, scale: Tensor, scheme: str) -> Tensor:
    """Nearest symbols of (R, C) float32 at scales that `scales_of` gave: whole numbers, float32."""
    return ternary.symbols(weight, scale) if scheme == TERNARY else rowwise.symbols(weight, scale, GRIDS[scheme])


def values_of(symbols: Tensor, scale: Tensor) -> Tensor:
    """What symbols (R, C) of any type stand for, (R, C) float32: the only way back."""
    return ternary.dequantise(symbols, scale) if scale.ndim == 2 else rowwise.dequantise(symbols, scale)


def limits(scheme: str) -> tuple[int, int]:
    """Smallest and largest symbol."""
    levels = 1 if scheme == TERNARY else GRIDS[scheme].levels
    return -levels, levels


def scale_shape(scheme: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of the scales of a weight of this shape, (R, C)."""
    return (shape[0], ternary.groups(shape[1])) if scheme == TERNARY else shape[:1]
