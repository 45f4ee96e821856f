"""The orthogonal factor of a matrix U = Q H (its polar decomposition), by iterations made of matrix products.

Each iteration is a pure function of the matrix; what uses it is in `muon`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

EPS = 1e-7
WIDE = 3
"""From so many times as many columns as rows on, Newton-Schulz on the Gram matrix is the cheaper one."""
MOST_BY_GRAM = 5
BLOCK = 128
"""Rows of a block of a symmetric product; smaller blocks multiply slower than they save."""


Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Iteration:
    """Steps towards the orthogonal factor from X = U / (safety |U|_F), with A = X X^T.

    rational (a, b, c), if there is one, comes first: X <- (aI + bA)(I + cA)^-1 X. Then one (a, b, c) per polynomial step,
    X <- (aI + bA + cA^2) X.
    """

    triples: tuple[Triple, ...]
    safety: float = 1.0
    rational: Triple | None = None


def quintic(steps: int) -> Iteration:
    """Coefficients tuned for slope at zero: singular values in [0.003, 1] land in [0.68, 1.21], not exactly at 1."""
    return Iteration(((3.4445, -4.7750, 2.0315),) * steps)


def polar_express(steps: int) -> Iteration:
    """Amsel et al. 2025: each step's polynomial is the best one for what the steps before it left; the last one repeats.

    Computed for inputs 2 % inside the unit ball, hence the safety factor: rounding may not carry a singular value above 1.
    """
    triples = _POLAR_EXPRESS[:steps] + _POLAR_EXPRESS[-1:] * (steps - len(_POLAR_EXPRESS))
    return Iteration(triples, safety=1.02)


_POLAR_EXPRESS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)

LEAST = 1e-3
"""Smallest singular value, as a share of the Frobenius norm, that `halley` brings near 1."""


def halley(steps: int = 2) -> Iteration:
    """A step of Halley's iteration weighted for [LEAST, 1], the best rational one of its degree (Nakatsukasa, Bai & Gygi 2010,
    QDWH, eq. 3.4), then the odd polynomial of degree 5 that is nearest 1 on [0.248, 1], where the first step leads.

    Singular values of LEAST and more land in [0.84, 1.16]. `steps`: there are two, whatever is asked.
    """
    square = LEAST * LEAST
    d = (4 * (1 - square) / square**2) ** (1 / 3)
    a = math.sqrt(1 + d) + math.sqrt(2 - d + 2 * (2 - square) / (square * math.sqrt(1 + d)))
    b = (a - 1) ** 2 / 4
    return Iteration(((3.8245, -7.1811, 4.5133),), rational=(a, b, a + b - 1))


ITERATIONS = {"quintic": quintic, "polar_express": polar_express, "halley": halley}
"""MUON_COEFFICIENTS to the iteration of a number of steps."""


QUINTIC = quintic(5)


def orthogonalise(update: Tensor, iteration: Iteration = QUINTIC, eps: float = EPS) -> Tensor:
    """The iteration from X = U / (safety |U|_F + eps): Newton-Schulz, X <- aX + (bA + cA^2)X with A = X X^T, or Halley's.

    update: (..., m, n), each trailing matrix by itself. Returns the same shape and dtype with singular values near 1; a zero
    matrix stays zero. CUDA computes polynomials in bfloat16, all else is done in the given dtype.
    """
    tall, rational = update.shape[-2] > update.shape[-1], iteration.rational is not None
    x = update.mT if tall else update
    if x.is_cuda and not rational:
        x = x.bfloat16()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) * iteration.safety + eps)
    wide = x.shape[-1] >= WIDE * x.shape[-2] and not x.is_cuda and len(iteration.triples) <= MOST_BY_GRAM
    iterate, bank = _by_gram if wide or rational else _directly, x.reshape(-1, *x.shape[-2:])
    # Large matrices one after the other: three of them fill a core's cache.
    parts = [iterate(part, iteration) for part in (bank.split(1) if _in_blocks(bank) else [bank])]
    found = (torch.cat(parts) if len(parts) > 1 else parts[0]).view_as(x)
    return (found.mT if tall else found).to(update.dtype)


def _directly(x: Tensor, iteration: Iteration) -> Tensor:
    """Polynomial steps as they are written. x: (k, m, n)."""
    for a, b, c in iteration.triples:
        gram = symmetric(x, x.mT)
        x = torch.baddbmm(x, symmetric(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def _by_gram(x: Tensor, iteration: Iteration) -> Tensor:
    """All steps on A = X X^T alone: with P = aI + bA + cA^2, A <- P A P, and all P are multiplied onto X at the end.

    For n = 4m some 50 m^3 instead of 90, and all but the last product are symmetric: powers of A commute. Squares of small
    singular values are lost in A, so it takes a full-precision dtype and few iterations: a rounding error of A grows by a^2
    in each.
    """
    gram, whole = symmetric(x, x.mT), None
    if iteration.rational is not None:
        gram, whole = _rationally(gram, *iteration.rational)
    last = len(iteration.triples) - 1
    for step, (a, b, c) in enumerate(iteration.triples):
        factor = symmetric(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=-2, dim2=-1).add_(a)
        whole = factor if whole is None else symmetric(factor, whole)
        if step < last:
            gram = symmetric(symmetric(factor, gram), factor)
    return x if whole is None else whole @ x


def _rationally(gram: Tensor, a: float, b: float, c: float) -> tuple[Tensor, Tensor]:
    """P A P and P = (aI + bA)(I + cA)^-1, for A (k, m, m).

    With M = (I + cA)^-1 and R = I - M, P = b/c I + (a - b/c) M and A M = R / c: one inverse and one product.
    """
    level, height = b / c, a - b / c
    inverse = (gram * c).contiguous()
    inverse.diagonal(dim1=-2, dim2=-1).add_(1)
    root, failed = torch.linalg.cholesky_ex(inverse)
    # What is not positive definite, by rounding or by nan, has no factor: no number says so without waiting for the device.
    inverse = torch.cholesky_inverse(root).masked_fill_(failed[..., None, None] != 0, math.nan)
    rest = inverse.neg()
    rest.diagonal(dim1=-2, dim2=-1).add_(1)
    found = symmetric(inverse, rest, rest, beta=2 * level * height / c, alpha=height * height / c)
    factor = inverse.mul_(height)
    factor.diagonal(dim1=-2, dim2=-1).add_(level)
    return found.add_(gram, alpha=level * level), factor


def symmetric(left: Tensor, right: Tensor, plus: Tensor | None = None, beta: float = 1.0, alpha: float = 1.0) -> Tensor:
    """left @ right, or beta plus + alpha left @ right, where that is known to be symmetric. (k, m, n), (k, n, m) -> (k, m, m).

    Large ones in block rows up to the diagonal, the rest mirrored: two thirds of the work for three blocks.
    """
    if not _in_blocks(left):
        return left @ right if plus is None else torch.baddbmm(plus, left, right, beta=beta, alpha=alpha)
    size = left.shape[-2]
    found = left.new_empty(len(left), size, size)
    for start in range(0, size, BLOCK):
        stop = min(start + BLOCK, size)
        part = found[:, start:stop, :stop]
        if plus is None:
            torch.bmm(left[:, start:stop], right[..., :stop], out=part)
        else:
            block = plus[:, start:stop, :stop]
            torch.baddbmm(block, left[:, start:stop], right[..., :stop], beta=beta, alpha=alpha, out=part)
        found[:, :start, start:stop] = part[..., :start].mT
    return found


def _in_blocks(x: Tensor) -> bool:
    """Whether products of matrices (k, m, n) are large enough to be cut up, on a device where that pays."""
    return x.device.type == "cpu" and x.shape[-2] > 2 * BLOCK and not torch.compiler.is_compiling()
