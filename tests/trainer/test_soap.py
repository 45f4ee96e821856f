"""SOAP against Adam in a rotated basis."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trainer.optim.adam import Adam
from trainer.optim.soap import SOAP

NEVER = 10**6


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def rotation(size: int, seed: int) -> Tensor:
    return torch.linalg.qr(gaussian(size, size, seed=seed))[0]


def gradients(shape: tuple[int, int], steps: int, seed: int = 0) -> list[Tensor]:
    """Gradients with a spectrum far from flat, so that eigenvectors are well defined."""
    rows = torch.logspace(0, -1, shape[0], dtype=torch.float64).unsqueeze(1)
    columns = torch.logspace(0, -1, shape[1], dtype=torch.float64)
    return [rows * gaussian(*shape, seed=100 * seed + step) * columns for step in range(steps)]


def run(optimizer: SOAP | Adam, weight: Tensor, seen: list[Tensor]) -> list[Tensor]:
    """The weights after every step."""
    path = []
    for gradient in seen:
        weight.grad = gradient.clone()
        optimizer.step()
        path.append(weight.clone())
    return path


@pytest.mark.parametrize("shape", [(4, 6), (6, 4), (5, 5)])
def test_soap_equals_adam_in_its_basis(shape: tuple[int, int]) -> None:
    """With the first step's basis kept, the turned weights go exactly where Adam takes them on turned gradients."""
    seen = gradients(shape, 6)
    weight = gaussian(*shape, seed=50)
    start = weight.clone()
    soap = SOAP([weight], lr=0.1, betas=(0.9, 0.95), every=NEVER)
    path = run(soap, weight, seen)
    left, right = soap._banks[0].left_basis[0], soap._banks[0].right_basis[0]
    if shape[0] > shape[1]:  # a tall matrix lies on its side
        left, right = right, left
    for basis, factor in ((left, seen[0] @ seen[0].T), (right, seen[0].T @ seen[0])):
        turned = basis.T @ factor @ basis
        torch.testing.assert_close(turned, torch.diag(turned.diagonal()))
    turned = left.T @ start @ right
    adam = Adam([turned], lr=0.1, betas=(0.9, 0.95))
    for mine, theirs in zip(path, run(adam, turned, [left.T @ gradient @ right for gradient in seen]), strict=True):
        torch.testing.assert_close(mine, left @ theirs @ right.T)


def test_soap_equals_adam_when_the_basis_is_the_identity() -> None:
    """Gradients whose preconditioners stay diagonal leave nothing to turn: with every update of the basis, it is Adam."""
    pattern = torch.zeros(4, 6, dtype=torch.float64)
    pattern[[0, 1, 2, 3], [2, 0, 5, 3]] = torch.tensor([4.0, -3.0, 2.0, 1.0], dtype=torch.float64)
    seen = [pattern * (1 + 0.1 * step) for step in range(7)]
    weight = gaussian(4, 6, seed=50)
    other = weight.clone()
    path = run(SOAP([weight], lr=0.1, betas=(0.9, 0.95), every=2), weight, seen)
    for mine, theirs in zip(path, run(Adam([other], lr=0.1, betas=(0.9, 0.95)), other, seen), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("every", [1, 3, NEVER])
def test_soap_follows_a_rotation_of_the_weights(every: int) -> None:
    """Turning all gradients turns the path of the weights, also through updates of the basis: no direction is special."""
    seen = gradients((5, 5), 8)  # square: the null space of a wide first gradient has no basis of its own
    left, right = rotation(5, 7), rotation(5, 8)
    plain, turned = (torch.zeros(5, 5, dtype=torch.float64) for _ in range(2))
    path = run(SOAP([plain], lr=0.1, every=every), plain, seen)
    other = run(SOAP([turned], lr=0.1, every=every), turned, [left @ gradient @ right.T for gradient in seen])
    for mine, theirs in zip(path, other, strict=True):
        torch.testing.assert_close(theirs, left @ mine @ right.T, rtol=1e-6, atol=1e-7)


def test_soap_moves_its_basis_only_when_due() -> None:
    """The basis changes at every third step and at no other, stays orthogonal, and turns towards the eigenvectors."""
    weight = torch.zeros(4, 6, dtype=torch.float64)
    soap = SOAP([weight], lr=0.1, every=3)
    bank = soap._banks[0]
    moved, before = [], None
    for step, gradient in enumerate(gradients((4, 6), 10), start=1):
        run(soap, weight, [gradient])
        if before is not None and not torch.equal(before, bank.left_basis):
            moved.append(step)
        before = bank.left_basis.clone()
        identity = bank.right_basis.mT @ bank.right_basis
        torch.testing.assert_close(identity[0], torch.eye(6, dtype=torch.float64))
    assert moved == [3, 6, 9]
    fixed = gradients((4, 6), 1)[0]
    for _ in range(300):
        run(soap, weight, [fixed])
    turned = bank.left_basis[0].T @ fixed @ fixed.T @ bank.left_basis[0]
    torch.testing.assert_close(turned, torch.diag(turned.diagonal()), rtol=0, atol=1e-6)


def test_soap_matrices_do_not_touch_each_other() -> None:
    """A tall matrix, its transpose and a foreign one in one optimiser go where each goes alone."""
    seen = gradients((6, 4), 5)
    alone = torch.zeros(6, 4, dtype=torch.float64)
    path = run(SOAP([alone], lr=0.1, every=2), alone, seen)
    tall, wide, other = (torch.zeros(*shape, dtype=torch.float64) for shape in ((6, 4), (4, 6), (4, 6)))
    soap = SOAP([tall, other, wide], lr=0.1, every=2)
    for step, gradient in enumerate(seen):
        tall.grad, wide.grad, other.grad = gradient, gradient.T, gaussian(4, 6, seed=900 + step)
        soap.step()
        torch.testing.assert_close(tall, path[step])
        torch.testing.assert_close(wide.T, path[step])


def test_soap_survives_zero_gradients_and_decays() -> None:
    """A gradient of zero moves nothing but the decay, which shrinks exactly."""
    weight = gaussian(4, 6)
    expected = weight.clone()
    weight.grad = torch.zeros_like(weight)
    soap = SOAP([weight], lr=0.5, weight_decay=0.1, every=1)
    for scale, decay in ((1.0, 1.0), (0.5, 0.5)):
        soap.step(scale=scale, decay=decay)
        expected *= 1.0 - 0.5 * scale * 0.1 * decay
    assert torch.equal(weight, expected)
