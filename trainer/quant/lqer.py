"""LQER: what quantising lost, E = W - W^, kept as a product A B of low rank (Zhang et al. 2024; contest record #1851).

A comes from the SVD of E and keeps two bits a value, with one scale for all of it. B is then fitted to the A that is stored, so
that A's coarse rounding costs little, and keeps four bits, with a scale for each 64 values of a row.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.quant.rowwise import LARGEST_SCALE, SMALLEST_SCALE

GROUP = 64
"""Values of a row of B that share a scale."""
A_LOW, A_HIGH = -2, 1
"""Symbols of A; symbol q stands for q + 1/2 scales: four levels, as many above zero as below."""
B_LEVELS = 7


def factors(error: Tensor, rank: int, root: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The A (R, rank) and B (rank, C), float64, nearest to `error` (R, C) in the norm of (E - A B) H^1/2.

    root: H^1/2, (C, C), symmetric; without it the plain norm counts. A's columns are orthonormal, so its entries are alike in
    size. With rank min(R, C) the product is `error`.
    """
    error = error.double()
    left = torch.linalg.svd(error if root is None else error @ root.double(), full_matrices=False)[0][:, :rank]
    return left, left.T @ error


def coded(error: Tensor, rank: int, root: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`factors` as stored: symbols of A int8 (R, rank), its scale float16 (1,), symbols of B int8 (rank, C), scales of B float16
    (rank, C / 64 rounded up)."""
    exact, _ = factors(error, rank, root)
    a_scale = _scale(exact.abs().max().view(1) / 1.5)
    a = torch.floor(exact / a_scale.double()).clamp_(A_LOW, A_HIGH).to(torch.int8)
    fitted = torch.linalg.lstsq(_a(a, a_scale), error.double(), driver="gelsd").solution  # any rank of A
    b_scale = _scale(_grouped(fitted).abs().amax(-1) / B_LEVELS)
    b = torch.round(fitted / _spread(b_scale, fitted.shape[1]).double()).clamp_(-B_LEVELS, B_LEVELS)
    return a, a_scale, b.to(torch.int8), b_scale


def product(a: Tensor, a_scale: Tensor, b: Tensor, b_scale: Tensor) -> Tensor:
    """What `coded` stored, as the float32 (R, C) that is added to the quantised weight."""
    return (_a(a, a_scale) @ (b.double() * _spread(b_scale, b.shape[1]).double())).float()


def groups(columns: int) -> int:
    """Scales of a row of B."""
    return -(-columns // GROUP)


def _a(a: Tensor, scale: Tensor) -> Tensor:
    return (a.double() + 0.5) * scale.double()


def _scale(value: Tensor) -> Tensor:
    return value.clamp(SMALLEST_SCALE, LARGEST_SCALE).half()


def _grouped(b: Tensor) -> Tensor:
    """(rank, C) -> (rank, groups, 64), zeros behind the end."""
    rank, columns = b.shape
    return torch.nn.functional.pad(b, (0, groups(columns) * GROUP - columns)).view(rank, -1, GROUP)


def _spread(scale: Tensor, columns: int) -> Tensor:
    """(rank, groups) -> (rank, C)."""
    return scale.repeat_interleave(GROUP, dim=1)[:, :columns]
