"""Newton-Schulz against the singular value decomposition, and Muon against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trainer.optim.muon import Muon, orthogonalise, shape_scale


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def with_spectrum(values: Tensor, columns: int) -> Tensor:
    """A matrix with the given singular values in random directions."""
    rows = len(values)
    left, right = torch.linalg.qr(gaussian(rows, rows))[0], torch.linalg.qr(gaussian(columns, rows, seed=1))[0]
    return left @ torch.diag(values) @ right.T


def test_orthogonalise_maps_singular_values_near_one() -> None:
    """Singular values from 0.003 to 1 land in [0.68, 1.21], the range of the quintic; directions stay."""
    values = torch.logspace(-2.5, 0, 40, dtype=torch.float64)
    values = values / values.norm()  # the iteration divides by this norm; keep the smallest above 0.003 of it
    values = values[values >= 0.003]
    matrix = with_spectrum(values, 60)
    found = orthogonalise(matrix)
    spread = torch.linalg.svdvals(found)
    assert spread.min() > 0.68
    assert spread.max() < 1.21
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    aligned = left.T @ found @ right.T
    torch.testing.assert_close(aligned, torch.diag(aligned.diagonal()), rtol=0, atol=1e-9)
    assert (aligned.diagonal() > 0).all()


def test_orthogonalise_flattens_a_random_matrix() -> None:
    """A wide Gaussian matrix ends with all singular values in the range of the quintic."""
    spread = torch.linalg.svdvals(orthogonalise(gaussian(64, 256)))
    assert 0.68 < spread.min() < spread.max() < 1.21


def test_orthogonalise_ignores_scale() -> None:
    """NS(cG) = NS(G) for c > 0."""
    matrix = gaussian(8, 12)
    torch.testing.assert_close(orthogonalise(matrix * 1e3), orthogonalise(matrix), rtol=0, atol=1e-6)


def test_orthogonalise_commutes_with_transposition() -> None:
    """NS(G^T) = NS(G)^T, bit for bit: tall matrices are laid on their side."""
    matrix = gaussian(8, 12)
    assert torch.equal(orthogonalise(matrix.T), orthogonalise(matrix).T)


def test_orthogonalise_commutes_with_rotations() -> None:
    """NS(U G V^T) = U NS(G) V^T for orthogonal U and V."""
    matrix = gaussian(6, 9)
    left, right = torch.linalg.qr(gaussian(6, 6, seed=2))[0], torch.linalg.qr(gaussian(9, 9, seed=3))[0]
    torch.testing.assert_close(orthogonalise(left @ matrix @ right.T), left @ orthogonalise(matrix) @ right.T)


def test_orthogonalise_batch_equals_loop() -> None:
    """A stack of matrices gives what each gives alone."""
    stack = gaussian(3, 5, 7)
    torch.testing.assert_close(orthogonalise(stack), torch.stack([orthogonalise(matrix) for matrix in stack]))


def test_orthogonalise_keeps_zero() -> None:
    """A zero matrix stays zero instead of turning into nan."""
    assert torch.equal(orthogonalise(torch.zeros(4, 6)), torch.zeros(4, 6))


def trained(optimizer: Muon, parameters: list[Tensor], momentum: float, steps: int = 4) -> None:
    for step in range(steps):
        for index, parameter in enumerate(parameters):
            parameter.grad = gaussian(*parameter.shape, seed=10 * step + index)
        optimizer.step(momentum=momentum)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon to compare with")
def test_muon_equals_torchs_muon() -> None:
    """Four steps on wide, tall and square matrices give torch's weights, up to its bfloat16 iteration."""
    shapes = [(6, 12), (12, 6), (8, 8), (12, 6)]
    ours, theirs = ([gaussian(*shape, seed=99) for shape in shapes] for _ in range(2))
    start = [weight.clone() for weight in ours]
    trained(Muon(ours, lr=0.1, weight_decay=0.05), ours, 0.9)
    # torch keeps m <- mu m + (1-mu) g and lerps for Nesterov: the same direction, and NS ignores scale.
    oracle = torch.optim.Muon([torch.nn.Parameter(w) for w in theirs], lr=0.1, weight_decay=0.05, momentum=0.9)
    for step in range(4):
        for index, parameter in enumerate(oracle.param_groups[0]["params"]):
            parameter.grad = gaussian(*parameter.shape, seed=10 * step + index)
        oracle.step()
    for mine, other, begin in zip(ours, oracle.param_groups[0]["params"], start, strict=True):
        assert (mine - other.detach()).norm() < 0.02 * (mine - begin).norm()


def test_muon_without_rate_changes_nothing_but_decay_shrinks_exactly() -> None:
    """With a zero gradient each step multiplies by 1 - lr * wd, and with a zero rate the weights stay as they are."""
    weight = gaussian(4, 6)
    before = weight.clone()
    optimizer = Muon([weight], lr=0.5, weight_decay=0.1)
    weight.grad = torch.zeros_like(weight)
    expected = before.clone()
    for scale in (1.0, 0.5, 0.25):
        optimizer.step(scale=scale, momentum=0.9)
        expected *= 1.0 - 0.5 * scale * 0.1
    assert torch.equal(weight, expected)
    weight.grad = gaussian(4, 6, seed=5)
    optimizer.step(scale=0.0, momentum=0.9)
    assert torch.equal(weight, expected)


def test_muon_step_size_follows_the_shape() -> None:
    """A tall matrix moves sqrt(rows / columns) further than its transpose."""
    assert shape_scale(8, 8) == shape_scale(4, 16) == 1.0
    tall, wide = torch.zeros(16, 4, dtype=torch.float64), torch.zeros(4, 16, dtype=torch.float64)
    tall.grad = gaussian(16, 4)
    wide.grad = tall.grad.T.clone()
    Muon([tall, wide], lr=0.1).step(momentum=0.0)
    torch.testing.assert_close(tall, 2.0 * wide.T)


def test_muon_refuses_vectors() -> None:
    """Vectors have no singular values; giving one is our mistake."""
    with pytest.raises(AssertionError):
        Muon([torch.zeros(3)], lr=0.1)
