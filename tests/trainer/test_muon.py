"""Newton-Schulz against the singular value decomposition, and Muon against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trainer.optim import polar
from trainer.optim.muon import Muon, shape_scale, unit_rows
from trainer.optim.polar import Iteration, halley, orthogonalise, polar_express, quintic


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


EACH = pytest.mark.parametrize(
    "iteration", [quintic(5), polar_express(5), halley()], ids=["quintic", "polar_express", "halley"]
)


def scalar_map(iteration: Iteration, values: Tensor) -> Tensor:
    """What the iteration makes of singular values, without matrices."""
    values = values / iteration.safety
    if iteration.rational is not None:
        a, b, c = iteration.rational
        values = values * (a + b * values**2) / (1 + c * values**2)
    for a, b, c in iteration.triples:
        values = a * values + b * values**3 + c * values**5
    return values


@pytest.mark.parametrize(
    ("iteration", "smallest", "low", "high"),
    [
        (quintic(5), 3e-3, 0.682, 1.202),
        (quintic(5), 1e-2, 0.682, 1.134),
        (polar_express(5), 3e-3, 0.859, 1.141),
        (halley(), 1e-3, 0.843, 1.157),
    ],
)
def test_coefficients_map_singular_values_into_their_known_range(
    iteration: Iteration, smallest: float, low: float, high: float
) -> None:
    """The ranges of the iterations, to three digits, on a fine grid of singular values."""
    found = scalar_map(iteration, torch.logspace(torch.tensor(smallest).log10().item(), 0, 20001, dtype=torch.float64))
    assert found.min().item() == pytest.approx(low, abs=1e-3)
    assert found.max().item() == pytest.approx(high, abs=1e-3)


def test_halley_steps_are_the_best_of_their_kind() -> None:
    """The rational step takes [LEAST, 1] into [its value at LEAST, 1], as QDWH asks. The polynomial's error is as
    large, in turns of sign, at four places: no other of its degree is better.
    """
    (a, b, c), (triple,) = halley().rational, halley().triples
    grid = torch.logspace(-3, 0, 200001, dtype=torch.float64)
    ends = extremes(grid * (a + b * grid**2) / (1 + c * grid**2))
    torch.testing.assert_close(ends, torch.tensor([0.2480, 1.0, 0.2480, 1.0], dtype=torch.float64), rtol=0, atol=1e-4)
    error = extremes(
        scalar_map(Iteration((triple,)), torch.linspace(ends[0].item(), 1, 200001, dtype=torch.float64)) - 1
    )
    assert error.sign().tolist() == [-1, 1, -1, 1]
    torch.testing.assert_close(error.abs(), error.abs().mean().expand(4), rtol=1e-3, atol=0)


def test_halley_of_what_has_no_factor_is_no_number() -> None:
    """A Gram matrix that is not even semidefinite spoils its own matrix, visibly, and none beside it."""
    grams = torch.stack([torch.eye(4), -torch.eye(4)])
    found, factor = polar._rationally(grams, *halley().rational)
    assert found[0].isfinite().all() and factor[0].isfinite().all()
    assert found[1].isnan().any() and factor[1].isnan().any()


def extremes(values: Tensor) -> Tensor:
    """Both ends, and where the values turn between them."""
    up = values.diff() > 0
    return torch.cat([values[:1], values[1:-1][up[1:] != up[:-1]], values[-1:]])


def test_halley_in_single_precision_and_on_what_is_no_number() -> None:
    """Singular values over five orders of magnitude: float32 gives the float64 result; nan stays nan."""
    wide = with_spectrum(torch.logspace(-5, 0, 64, dtype=torch.float64), 128)
    exact, found = orthogonalise(wide, halley()), orthogonalise(wide.float(), halley()).double()
    assert torch.linalg.matrix_norm(found - exact, 2) < 5e-3
    wide[3, 4] = torch.nan
    assert orthogonalise(wide, halley()).isnan().all()


def test_coefficients_of_more_steps_than_listed_repeat_the_last() -> None:
    """Polar Express with seven steps ends with its last polynomial; with two it is the first two."""
    five, seven = polar_express(5).triples, polar_express(7).triples
    assert seven == five + five[-1:] * 2
    assert polar_express(2).triples == five[:2]
    found = scalar_map(polar_express(7), torch.logspace(-2.5, 0, 1001, dtype=torch.float64))
    assert (found - 1).abs().max() < (scalar_map(polar_express(5), torch.logspace(-2.5, 0, 1001)) - 1).abs().max()


@EACH
def test_orthogonalise_follows_the_scalar_map(iteration: Iteration) -> None:
    """The singular values of the result are the polynomial of those of the input; directions stay."""
    matrix = gaussian(12, 20)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    expected = left @ torch.diag(scalar_map(iteration, values / values.norm())) @ right
    torch.testing.assert_close(orthogonalise(matrix, iteration), expected, rtol=0, atol=1e-5)


@EACH
def test_orthogonalise_flattens_a_random_matrix(iteration: Iteration) -> None:
    """A wide Gaussian matrix ends within the range of the quintic; of a square one all but the smallest values do."""
    spread = torch.linalg.svdvals(orthogonalise(gaussian(64, 256), iteration))
    assert 0.68 < spread.min() < spread.max() < 1.21
    square = torch.linalg.svdvals(orthogonalise(gaussian(64, 64), iteration))
    assert square.quantile(0.05) > 0.5
    assert square.max() < 1.21


@EACH
def test_orthogonalise_ignores_scale(iteration: Iteration) -> None:
    """NS(cG) = NS(G) for c > 0."""
    matrix = gaussian(8, 12)
    torch.testing.assert_close(
        orthogonalise(matrix * 1e3, iteration), orthogonalise(matrix, iteration), rtol=0, atol=1e-6
    )


@EACH
def test_orthogonalise_commutes_with_transposition(iteration: Iteration) -> None:
    """NS(G^T) = NS(G)^T, bit for bit: tall matrices are laid on their side."""
    matrix = gaussian(8, 12)
    assert torch.equal(orthogonalise(matrix.T, iteration), orthogonalise(matrix, iteration).T)


@EACH
def test_orthogonalise_commutes_with_rotations(iteration: Iteration) -> None:
    """NS(U G V^T) = U NS(G) V^T for orthogonal U and V."""
    matrix = gaussian(6, 9)
    left, right = torch.linalg.qr(gaussian(6, 6, seed=2))[0], torch.linalg.qr(gaussian(9, 9, seed=3))[0]
    torch.testing.assert_close(
        orthogonalise(left @ matrix @ right.T, iteration), left @ orthogonalise(matrix, iteration) @ right.T
    )


@EACH
def test_orthogonalise_batch_equals_loop(iteration: Iteration) -> None:
    """A stack of matrices gives what each gives alone."""
    stack = gaussian(3, 5, 7)
    torch.testing.assert_close(
        orthogonalise(stack, iteration), torch.stack([orthogonalise(matrix, iteration) for matrix in stack])
    )


@EACH
def test_orthogonalise_keeps_zero(iteration: Iteration) -> None:
    """A zero matrix stays zero instead of turning into nan."""
    assert torch.equal(orthogonalise(torch.zeros(4, 6), iteration), torch.zeros(4, 6))


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


def test_unit_rows_have_length_one_and_zero_rows_stay() -> None:
    """Rows of any length but zero end at length 1; the directions are kept."""
    rows = gaussian(4, 6) * torch.tensor([[1e-3], [1.0], [1e3], [0.0]], dtype=torch.float64)
    found = unit_rows(rows)
    torch.testing.assert_close(found.norm(dim=1), torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=torch.float64))
    torch.testing.assert_close(found[:3] * rows[:3].norm(dim=1, keepdim=True), rows[:3])
    assert torch.equal(unit_rows(rows.T, dim=0), found.T)


@pytest.mark.parametrize("shape", [(5, 9), (9, 5)])
def test_muon_row_norm_ignores_the_scale_of_every_row(shape: tuple[int, int]) -> None:
    """MuonEq-R: scaling rows of the gradient, which are outputs also of a tall matrix, changes nothing; columns do."""
    gradient = gaussian(*shape)
    rows = torch.logspace(-2, 2, shape[0], dtype=torch.float64).unsqueeze(1)
    columns = torch.logspace(-1, 1, shape[1], dtype=torch.float64)
    moved = []
    for seen in (gradient, gradient * rows, gradient * columns):
        weight = torch.zeros(*shape, dtype=torch.float64)
        weight.grad = seen
        Muon([weight], lr=0.1, row_norm=True).step(momentum=0.9)
        moved.append(weight)
    torch.testing.assert_close(moved[0], moved[1])
    assert not torch.allclose(moved[0], moved[2], atol=1e-3)


def test_muon_taper_multiplies_the_decay_and_nothing_else() -> None:
    """With a zero gradient a step shrinks by 1 - lr * wd * taper; without decay the taper changes no bit."""
    weight = gaussian(4, 6)
    weight.grad = torch.zeros_like(weight)
    expected = weight * (1.0 - 0.5 * 0.1 * 0.25)
    Muon([weight], lr=0.5, weight_decay=0.1).step(decay=0.25)
    assert torch.equal(weight, expected)
    plain, tapered = torch.zeros(4, 6), torch.zeros(4, 6)
    for matrix, decay in ((plain, 1.0), (tapered, 0.5)):
        matrix.grad = gaussian(4, 6).float()
        Muon([matrix], lr=0.5).step(decay=decay)
    assert torch.equal(plain, tapered)


@pytest.mark.parametrize("columns", [24, 32, 50])
@EACH
def test_orthogonalise_by_gram_matrix_is_the_same_iteration(iteration: Iteration, columns: int) -> None:
    """Matrices at least three times as wide as high take the shorter way; in float64 it gives the iteration's own result."""
    matrix = gaussian(2, 8, columns)
    x = matrix / (matrix.norm(dim=(-2, -1), keepdim=True) * iteration.safety + 1e-7)
    if iteration.rational is not None:
        (a, b, c), gram, one = iteration.rational, x @ x.mT, torch.eye(8, dtype=x.dtype)
        x = (a * one + b * gram) @ torch.linalg.solve(one + c * gram, x)
    for a, b, c in iteration.triples:
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    torch.testing.assert_close(orthogonalise(matrix, iteration), x, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(orthogonalise(matrix.mT, iteration), x.mT, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("block", [2, 3, 5])
@pytest.mark.parametrize("columns", [11, 40])
@EACH
def test_orthogonalise_in_blocks_is_the_same_iteration(
    iteration: Iteration, columns: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Symmetric products cut into block rows, the last one shorter, and mirrored: the same in float64, for either way."""
    matrix = gaussian(2, 11, columns)
    whole = orthogonalise(matrix, iteration)
    monkeypatch.setattr(polar, "BLOCK", block)
    torch.testing.assert_close(orthogonalise(matrix, iteration), whole, rtol=1e-10, atol=1e-11)


def test_orthogonalise_by_gram_matrix_keeps_small_singular_values_bounded() -> None:
    """In float32 squares of singular values below 3e-4 of the largest are lost: such directions stay small, none grows."""
    wide = with_spectrum(torch.logspace(-7, 0, 32, dtype=torch.float64), 128)
    exact, found = orthogonalise(wide), orthogonalise(wide.float()).double()
    assert torch.linalg.matrix_norm(found - exact, 2) < 0.01
    assert torch.linalg.svdvals(found).max() < 1.21
