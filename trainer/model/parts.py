"""What every part of the model is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.model.kernels import rms

__all__ = ["Adapter", "Pass", "empty", "product", "rms"]

Adapter = Callable[[str, Tensor], Tensor | None]
"""(dotted name of a matrix, its input (B, T, in)) -> what to add to the product (B, T, out), or None for nothing."""


def product(adapter: Adapter | None, name: str, x: Tensor, weight: Tensor) -> Tensor:
    """x (B, T, in) times weight (out, in) transposed, and what an adapter adds: every matrix is used through here."""
    plain = F.linear(x, weight)
    more = adapter(name, x) if adapter is not None else None
    return plain if more is None else plain + more


def empty(*shape: int) -> nn.Parameter:
    """A parameter without values yet; `initialise` fills it."""
    return nn.Parameter(torch.empty(*shape))


@dataclass
class Pass:
    """What all blocks share in one forward pass over ids (B, T).

    x0: the stream before the first block, (B, T, d). cos, sin: rotary tables, (T, 1, dims/2). adapter: see `Adapter`.
    starts: first id of each document, (B, T) bool, where something looks back (see `documents.look_back_stops`); mask: who may
    attend to whom, (B, 1, T, T) bool, where documents bound attention; attend: see
    `backends.Attend`, in place of the mask and of torch's own attention. value_embedding: (B, T, G, D), see `ValueEmbedding`.
    Blocks leave for each other: first_value, the values of the first, (B, T, G, D); lane, the second of two lanes, (B, T, d).
    """

    x0: Tensor
    cos: Tensor
    sin: Tensor
    adapter: Adapter | None = None
    starts: Tensor | None = None
    mask: Tensor | None = None
    attend: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None
    value_embedding: Tensor | None = None
    first_value: Tensor | None = None
    lane: Tensor | None = None

    def product(self, name: str, x: Tensor, weight: Tensor) -> Tensor:
        """`product` with this pass's adapter."""
        return product(self.adapter, name, x, weight)
