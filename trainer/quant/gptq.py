"""GPTQ: round a matrix column by column, and let the columns still to come make up for what each rounding did to the output.

Frantar et al. 2022, in the form of the contest's records: damping, columns in the order of falling input energy, blocks of 128
columns. The grid (levels, scales) is fixed before; only which symbol an entry takes is decided here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 128
"""Columns whose corrections stay within the block until it is done; the rest of the matrix is then corrected at once."""


@dataclass(frozen=True)
class Inputs:
    """What a matrix (R, C) was multiplied with in calibration.

    hessian: sum of x x^T over all inputs x, (C, C). magnitude: mean of |x|, (C,).
    """

    hessian: Tensor
    magnitude: Tensor


@dataclass(frozen=True)
class Points:
    """Where the entries of a matrix may lie: unit[r, c] * q, q a multiple of `step` in [low, high]. unit: (R, C), positive."""

    unit: Tensor
    low: int
    high: int
    step: int = 1

    def nearest(self, weight: Tensor, unit: Tensor) -> Tensor:
        """Symbols, as floats, of the points nearest to `weight` for these units."""
        step = self.step
        return torch.round(weight / (unit * step)).clamp_(-(-self.low // step), self.high // step) * step


def weighted_error(error: Tensor, hessian: Tensor) -> float:
    """||E H^1/2||_F^2 = sum over calibration inputs x of |E x|^2, in float64. error: (R, C)."""
    error = error.double()
    return float(((error @ hessian.double()) * error).sum())


def rounded(weight: Tensor, points: Points, hessian: Tensor, damp: float) -> Tensor:
    """Symbols (R, C) int8 at which `weight` comes to lie. hessian: (C, C), semidefinite. With H = I they are the nearest ones.

    Columns that saw no input are rounded to the nearest point. Raises ValueError if the Hessian is not finite.
    """
    order = torch.argsort(hessian.diagonal(), descending=True, stable=True)
    upper = inverse_factor(hessian[order][:, order], damp).float()
    # A column a row from here on: what the loop touches lies together in memory.
    left = weight.float()[:, order].T.contiguous()
    unit = points.unit[:, order].T.contiguous()
    symbols = torch.empty_like(left)
    for start in range(0, len(left), BLOCK):
        stop = min(start + BLOCK, len(left))
        errors = torch.empty_like(left[start:stop])
        for j in range(start, stop):
            symbols[j] = points.nearest(left[j], unit[j])
            errors[j - start] = (left[j] - symbols[j] * unit[j]) / upper[j, j]
            left[j + 1 : stop].addr_(upper[j, j + 1 : stop], errors[j - start], alpha=-1)
        left[stop:].addmm_(upper[start:stop, stop:].T, errors, alpha=-1)
    found = torch.empty(weight.shape, dtype=torch.int8)
    found[:, order] = symbols.T.to(torch.int8)
    return found


def damped_factor(hessian: Tensor, damp: float) -> Tensor:
    """Lower L, float64, with L L^T = H + damp * mean(diag H) I, H's columns without input counted as inputs of their own.

    The damping is made tenfold as often as it takes where rounding errors have left H indefinite. Raises ValueError if H is not
    finite.
    """
    if not bool(torch.isfinite(hessian).all()):
        raise ValueError("the calibration's Hessian is not finite")
    exact = hessian.double().clone()
    diagonal = exact.diagonal()
    mean = float(diagonal.mean()) if len(exact) else 0.0
    diagonal[diagonal <= 0] = mean or 1.0
    damp = damp * mean
    while True:
        factor, failed = torch.linalg.cholesky_ex(exact + damp * torch.eye(len(exact), dtype=exact.dtype))
        if not failed:
            return factor
        damp = max(10 * damp, 1e-9 * mean)


def inverse_factor(hessian: Tensor, damp: float) -> Tensor:
    """Upper U, float64, with U^T U = the inverse of the damped H. damp: share of the mean of H's diagonal."""
    # H read backwards is L L^T, so H = V V^T with V = L read backwards, which is upper; then U = 1 / V.
    upper = damped_factor(hessian.flip(0, 1), damp).flip(0, 1)
    return torch.linalg.solve_triangular(upper, torch.eye(len(upper), dtype=upper.dtype), upper=True)
