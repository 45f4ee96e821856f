"""Matrices, inputs and roundings that the tests of calibrated quantisation share."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from trainer.quant.calibrated import Plain
from trainer.quant.clip import Clip
from trainer.quant.gptq import Inputs
from trainer.quant.pipeline import _quantised

SCHEMES = ["int8", "int6", "int5", "int4", "int8x4", "ternary"]


def nearest(scheme: str) -> Plain:
    """Round-to-nearest, rows up to their largest weight."""
    return partial(_quantised, scheme=scheme, clip=Clip())


def matrix(rows: int, columns: int, seed: int = 0) -> Tensor:
    """A random matrix, (rows, columns) float32."""
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 0.1


def inputs(columns: int, seen: int, seed: int = 0) -> Inputs:
    """What calibration finds on `seen` inputs that correlate and differ in size."""
    draw = torch.Generator().manual_seed(1000 + seed)
    mix = torch.randn(max(columns // 3, 1), columns, generator=draw)
    x = torch.randn(seen, len(mix), generator=draw) @ mix + 0.3 * torch.randn(seen, columns, generator=draw)
    x = x * torch.rand(columns, generator=draw).exp()
    return Inputs(x.T @ x, x.abs().mean(0))


def hessian(columns: int, seen: int, seed: int = 0) -> Tensor:
    """Its Hessian alone."""
    return inputs(columns, seen, seed).hessian
