"""Muon (Jordan et al. 2024): momentum, then every matrix update replaced by the nearest semi-orthogonal matrix.

`orthogonalise` is a pure function; the optimiser around it is thin and knows nothing of ranks or schedules.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_EPS = 1e-7
WIDE = 3
"""From so many times as many columns as rows on, Newton-Schulz on the Gram matrix is the cheaper one."""
MOST_BY_GRAM = 5
BLOCK = 128
"""Rows of a block of a symmetric product; smaller blocks multiply slower than they save."""


@dataclass(frozen=True)
class NewtonSchulz:
    """A polynomial iteration towards the orthogonal factor: one (a, b, c) per step, from X = U / (safety |U|_F)."""

    triples: tuple[tuple[float, float, float], ...]
    safety: float = 1.0


def quintic(steps: int) -> NewtonSchulz:
    """Coefficients tuned for slope at zero: singular values in [0.003, 1] land in [0.68, 1.21], not exactly at 1."""
    return NewtonSchulz(((3.4445, -4.7750, 2.0315),) * steps)


def polar_express(steps: int) -> NewtonSchulz:
    """Amsel et al. 2025: each step's polynomial is the best one for what the steps before it left; the last one repeats.

    Computed for inputs 2 % inside the unit ball, hence the safety factor: rounding may not carry a singular value above 1.
    """
    triples = _POLAR_EXPRESS[:steps] + _POLAR_EXPRESS[-1:] * (steps - len(_POLAR_EXPRESS))
    return NewtonSchulz(triples, safety=1.02)


_POLAR_EXPRESS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)

ITERATIONS = {"quintic": quintic, "polar_express": polar_express}
"""MUON_COEFFICIENTS to the iteration of a number of steps."""


_QUINTIC = quintic(5)


def orthogonalise(update: Tensor, iteration: NewtonSchulz = _QUINTIC, eps: float = _EPS) -> Tensor:
    """Newton-Schulz iteration X <- aX + (bA + cA^2)X with A = X X^T, from X = U / (safety |U|_F + eps).

    update: (..., m, n), each trailing matrix by itself. Returns the same shape and dtype with singular values near 1; a zero
    matrix stays zero. CUDA computes in bfloat16, all else in the given dtype.
    """
    tall = update.shape[-2] > update.shape[-1]
    x = update.mT if tall else update
    if x.is_cuda:
        x = x.bfloat16()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) * iteration.safety + eps)
    wide = x.shape[-1] >= WIDE * x.shape[-2] and not x.is_cuda and len(iteration.triples) <= MOST_BY_GRAM
    iterate, bank = _by_gram if wide else _directly, x.reshape(-1, *x.shape[-2:])
    # Large matrices one after the other: three of them fill a core's cache.
    parts = [iterate(part, iteration.triples) for part in (bank.split(1) if _in_blocks(bank) else [bank])]
    found = (torch.cat(parts) if len(parts) > 1 else parts[0]).view_as(x)
    return (found.mT if tall else found).to(update.dtype)


def _directly(x: Tensor, triples: tuple[tuple[float, float, float], ...]) -> Tensor:
    """The iteration as it is written. x: (k, m, n)."""
    for a, b, c in triples:
        gram = symmetric(x, x.mT)
        x = torch.baddbmm(x, symmetric(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def _by_gram(x: Tensor, triples: tuple[tuple[float, float, float], ...]) -> Tensor:
    """The same on A = X X^T alone: with P = aI + bA + cA^2, A <- P A P, and all P are multiplied onto X at the end.

    For n = 4m some 50 m^3 instead of 90, and all but the last product are symmetric: powers of A commute. Squares of small
    singular values are lost in A, so it takes a full-precision dtype and few iterations: a rounding error of A grows by a^2
    in each.
    """
    gram, whole = symmetric(x, x.mT), None
    last = len(triples) - 1
    for step, (a, b, c) in enumerate(triples):
        factor = symmetric(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=-2, dim2=-1).add_(a)
        whole = factor if whole is None else symmetric(factor, whole)
        if step < last:
            gram = symmetric(symmetric(factor, gram), factor)
    return x if whole is None else whole @ x


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


def unit_rows(update: Tensor, dim: int = -1) -> Tensor:
    """Every row divided by its length, a zero row left as it is (MuonEq-R). `dim`: along which a row runs."""
    return update / update.norm(dim=dim, keepdim=True).clamp(min=_EPS)


def shape_scale(rows: int, columns: int) -> float:
    """sqrt(max(1, rows / columns)): keeps the change per output alike for tall and wide matrices."""
    return max(1.0, rows / columns) ** 0.5


def banks(parameters: Sequence[Tensor]) -> list[list[int]]:
    """Indices of the matrices of one shape, up to transposition: what is worked on as one batch.

    A tenth of the kernel launches.
    """
    shapes: dict[tuple[int, ...], list[int]] = {}
    for index, parameter in enumerate(parameters):
        assert parameter.ndim == 2, f"a matrix is needed, not {tuple(parameter.shape)}"
        shapes.setdefault(tuple(sorted(parameter.shape)), []).append(index)
    return list(shapes.values())


def on_its_side(matrix: Tensor) -> Tensor:
    """The matrix, transposed if it is tall, so that a bank can be stacked; doing it twice gives the matrix back."""
    return matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix


class Muon:
    """M <- mu M + G;  U = G + mu M (Nesterov);  W <- W (1 - lr wd) - lr * shape_scale * orthogonalise(U)."""

    def __init__(
        self,
        parameters: Iterable[Tensor],
        *,
        lr: float,
        weight_decay: float = 0.0,
        iteration: NewtonSchulz = _QUINTIC,
        row_norm: bool = False,
    ) -> None:
        self.parameters = list(parameters)
        self.lr, self.weight_decay, self.row_norm = lr, weight_decay, row_norm
        self.iteration = iteration
        self.orthogonalise = orthogonalise
        self._banks = banks(self.parameters)
        self._momentum = self._zeros()

    @torch.no_grad()
    def compile(self) -> None:
        """Compile Newton-Schulz and run it once on every bank's shape; no weight changes."""
        self.orthogonalise = torch.compile(orthogonalise, dynamic=False, fullgraph=True)
        for bank in self._banks:
            shape = self._bank_shape(bank)
            for _ in range(2):
                self.orthogonalise(self.parameters[bank[0]].new_zeros(shape), self.iteration)

    def _bank_shape(self, bank: list[int]) -> tuple[int, ...]:
        """What goes through Newton-Schulz at once: (matrices, rows, columns)."""
        return (len(bank), *on_its_side(self.parameters[bank[0]]).shape)

    def _zeros(self) -> list[Tensor]:
        return [torch.zeros_like(parameter) for parameter in self.parameters]

    @torch.no_grad()
    def step(self, *, scale: float = 1.0, momentum: float = 0.95, decay: float = 1.0) -> None:
        """One update from the parameters' `.grad`, at `scale` times the rate. Every parameter must have a gradient.

        `decay` multiplies the weight decay (a schedule of its own: MUON_WD_TAPER).
        """
        gradients = [parameter.grad for parameter in self.parameters]
        if not gradients:
            return
        torch._foreach_mul_(self._momentum, momentum)
        torch._foreach_add_(self._momentum, gradients)
        updates = torch._foreach_add(gradients, self._momentum, alpha=momentum)
        for bank in self._banks:
            wide = torch.stack([self._laid(updates[index]) for index in bank])
            self._apply(bank, self.orthogonalise(wide, self.iteration), scale, decay)

    def _apply(self, bank: list[int], changes: Iterable[Tensor], scale: float, decay: float) -> None:
        """Decay and move the matrices of a bank; `changes` lie on their sides, in the bank's order."""
        rate = self.lr * scale
        for index, change in zip(bank, changes, strict=True):
            parameter = self.parameters[index]
            rows, columns = parameter.shape
            if self.weight_decay:
                parameter.mul_(1.0 - rate * self.weight_decay * decay)
            parameter.add_(change.mT if rows > columns else change, alpha=-rate * shape_scale(rows, columns))

    def _laid(self, update: Tensor) -> Tensor:
        """The update of one matrix, lying on its side if it is tall."""
        return on_its_side(unit_rows(update) if self.row_norm else update)
