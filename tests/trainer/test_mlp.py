"""The kinds of MLP: their functions and their sizes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.trainer.tiny import settings
from trainer.model.mlp import MLP, leaky_square, relu_square
from trainer.model.parts import Pass


def test_leaky_square_equals_its_definition() -> None:
    """phi(-2) = 1 and phi(2) = 4 at slope 0.5, the gradient below zero is z/2, and slope 0 is relu^2."""
    z = torch.tensor([-2.0, 2.0, -0.3], dtype=torch.float64, requires_grad=True)
    y = leaky_square(z, 0.5)
    assert y[:2].tolist() == [1.0, 4.0]
    y.sum().backward()
    torch.testing.assert_close(z.grad, torch.tensor([-1.0, 4.0, -0.15], dtype=torch.float64))
    line = torch.linspace(-3, 3, 61, dtype=torch.float64)
    assert torch.equal(leaky_square(line, 0.0), relu_square(line))
    assert torch.equal(leaky_square(line, 1.0), line.square())


@pytest.mark.parametrize(("kind", "matrices"), [("relu2", 2), ("leaky_relu2", 2), ("swiglu", 3)])
@pytest.mark.parametrize("mult", [2, 3, 4])
def test_mlp_weighs_what_its_width_says(kind: str, matrices: int, mult: int) -> None:
    """2 mult d^2 weights whatever the kind: SwiGLU's three matrices are two thirds as wide, up to one row each."""
    layer = MLP(settings(MODEL_DIM=48, NUM_HEADS=2, MLP_KIND=kind, MLP_MULT=mult))
    weights = list(layer.parameters())
    assert len(weights) == matrices
    assert abs(sum(w.numel() for w in weights) - 2 * mult * 48**2) <= 3 * 48


@pytest.mark.parametrize("kind", ["relu2", "leaky_relu2", "swiglu"])
def test_mlp_equals_its_formula(kind: str) -> None:
    """The layer is the textbook expression over its own weights."""
    layer = MLP(settings(MLP_KIND=kind, NEGATIVE_SLOPE=0.25)).double()
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.normal_(generator=draw)
    x = torch.randn(2, 3, 16, dtype=torch.float64, generator=draw)
    up = x @ layer.up.T
    hidden = {
        "relu2": lambda: up.clamp(min=0) ** 2,
        "leaky_relu2": lambda: torch.where(up > 0, up, 0.25 * up) ** 2,
        "swiglu": lambda: F.silu(x @ layer.gate.T) * up,
    }[kind]()
    torch.testing.assert_close(layer(x, Pass(x, x, x)), hidden @ layer.down.T)
