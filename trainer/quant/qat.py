"""Training on the grid: the forward pass sees every weight as the artifact will round it, the optimisers keep the exact ones.

Straight-through (Bengio et al. 2013): the gradient of the rounded weight is that of the exact one, and zero where the exact one
lies beyond the end of its row's grid. Ternary weights keep it everywhere, as in BitNet b1.58: a quarter of theirs lie out there.

The model knows nothing of this. `Rounded` runs it with other values in the place of its parameters (torch.func.functional_call),
computed by the functions of the export. To torch.compile it is another function with a graph of its own, not a flag in the
model's: a flag can be folded into a graph as the constant it was on the first pass (contest records #315 and #549: late QAT
that never ran).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from trainer.quant.clip import Clip
from trainer.quant.grid import SCHEMES, TERNARY, scales_of, symbols_of, values_of
from trainer.quant.rowwise import GRIDS


class Rounded(nn.Module):
    """A model as its artifact would compute. Called like the model; gradients go to the model's own parameters.

    schemes, clips: by parameter name, as for `pipeline.quantised`. Loops and the like are set on the model itself.
    """

    def __init__(self, model: nn.Module, schemes: Mapping[str, str], clips: Mapping[str, Clip]) -> None:
        super().__init__()
        self.model = model
        self.ways = [(name, schemes[name], clips[name]) for name, _ in model.named_parameters()]

    def forward(self, *given: Any, **named: Any) -> Any:
        """The model's own result, with rounded weights."""
        exact = dict(self.model.named_parameters())
        weights = {name: rounded(exact[name], scheme, clip) for name, scheme, clip in self.ways}
        return torch.func.functional_call(self.model, weights, given, named)


def rounded(weight: Tensor, scheme: str, clip: Clip) -> Tensor:
    """What `stored.restore` gives for this weight once it is quantised, to the last bit, with a straight-through gradient."""
    compute = _as_operator if torch.compiler.is_compiling() else exported
    value, end = compute(weight.detach().float(), scheme, clip.kind, clip.quantile, clip.sigmas)
    passing = weight.float().clamp(-end, end)
    # The difference is exactly zero and carries the gradient: nothing is added to the value, so nothing can round it.
    return (value + (passing - passing.detach())).to(weight.dtype)


def exported(weight: Tensor, scheme: str, kind: str, quantile: float, sigmas: float) -> tuple[Tensor, Tensor]:
    """A float32 weight rounded as its scheme does, and the magnitude beyond which that clips: (R, 1), or () if it never does."""
    if scheme not in SCHEMES:
        return (weight.half().float() if scheme == "fp16" else weight.clone()), weight.new_tensor(math.inf)
    scale = scales_of(weight, scheme, Clip(kind, quantile, sigmas))
    value = values_of(symbols_of(weight, scale, scheme), scale)
    if scheme == TERNARY:
        return value, weight.new_tensor(math.inf)
    grid = GRIDS[scheme]
    return value, scale.float().unsqueeze(1) * (grid.levels + grid.step / 2)  # half a step beyond is still only rounded


# Opaque to the compiler: it would sum rows in another order, and what lies half way between two symbols would fall elsewhere
# than at the export. The schema is written out because a one-file export has no annotations to read it from.
_as_operator = torch.library.custom_op(
    "golf::exported",
    exported,
    mutates_args=(),
    schema="(Tensor weight, str scheme, str kind, float quantile, float sigmas) -> (Tensor, Tensor)",
)


def _shapes(weight: Tensor, scheme: str, kind: str, quantile: float, sigmas: float) -> tuple[Tensor, Tensor]:
    rows = scheme in GRIDS
    return torch.empty_like(weight), weight.new_empty((weight.shape[0], 1) if rows else ())


_as_operator.register_fake(_shapes)  # a call: an export leaves out functions that only a decorator knows
