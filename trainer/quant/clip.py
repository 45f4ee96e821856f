"""Where a row's grid ends: at its largest magnitude, or before it, which makes the steps in between finer.

max        the largest magnitude: nothing is clipped.
quantile   the magnitude with a share `quantile` of the row at or below it.
mse        the end among five quantiles that leaves the smallest squared error (GPTQ-lite, contest record #414).
sigma      k times the row's spread (SDClip, contest record #1394). A k of 10 or more clips nothing and is there for the entropy
           coder: symbols keep about log2(L / k) + 2 bits whatever the row, so k trades bytes for precision.

What `max`, `quantile` and `mse` have rounded is a fixed point: the outermost symbol is in use, so the row ends where it ended.
Not so `sigma`: rounding changes the spread.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.quant.rowwise import Grid, dequantise, scales, symbols

CANDIDATES = (1.0, 0.99999, 0.9999, 0.9995, 0.999)
"""Quantiles that `mse` tries. Of equal errors the first wins."""


@dataclass(frozen=True)
class Clip:
    """How the rows of one weight are clipped. kind: see above."""

    kind: str = "max"
    quantile: float = 1.0
    sigmas: float = 0.0


def row_scales(weight: Tensor, grid: Grid, clip: Clip) -> Tensor:
    """float16 scales (R,) of (R, C) float32; not finite where a scale would be too large for float16."""
    if not weight.shape[1]:
        return scales(weight.new_zeros(weight.shape[0]), grid)
    if clip.kind == "mse":
        return _least_error(weight, grid)
    return scales(_peak(weight, clip), grid)


def _peak(weight: Tensor, clip: Clip) -> Tensor:
    if clip.kind == "sigma":
        # About zero, where the mean of a trained row lies; about the mean a row of equal entries would have no spread at all.
        return weight.square().mean(dim=1).sqrt() * clip.sigmas
    if clip.kind == "quantile":
        # An entry of the row and no mean of two, so that quantising twice is quantising once.
        place = round(clip.quantile * (weight.shape[1] - 1))
        return weight.abs().sort(dim=1).values[:, place]
    return weight.abs().amax(dim=1)


def _least_error(weight: Tensor, grid: Grid) -> Tensor:
    ordered = weight.abs().sort(dim=1).values
    best = least = None
    for share in CANDIDATES:
        at = share * (weight.shape[1] - 1)
        low, high = ordered[:, int(at)], ordered[:, min(int(at) + 1, weight.shape[1] - 1)]
        scale = scales(low + (high - low) * (at - int(at)), grid)
        error = (dequantise(symbols(weight, scale, grid), scale) - weight).square().sum(dim=1)
        if best is None or least is None:
            best, least = scale, error
        else:
            better = error < least
            best, least = torch.where(better, scale, best), torch.where(better, error, least)
    assert best is not None
    return best
