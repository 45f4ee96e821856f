"""From trained weights to what the artifact keeps: which scheme each weight gets, and the one place where it is applied."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from torch import Tensor

from trainer.config import Config
from trainer.quant.rowwise import quantise
from trainer.quant.stored import SCALE, SYMBOLS, VALUES, Stored


def quantised(weights: Iterable[tuple[str, Tensor]], schemes: Mapping[str, str], config: Config) -> dict[str, Stored]:
    """Weights by name as they will be stored, in the order given. schemes: name to scheme (see `stored.streams_of`).

    Raises ValueError naming the weight if one is not finite, or too large for its scheme.
    """
    found = {}
    for name, weight in weights:
        try:
            found[name] = _quantised(weight.detach(), schemes[name], config)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return found


def _quantised(weight: Tensor, scheme: str, config: Config) -> Stored:
    shape = tuple(weight.shape)
    if scheme in {"fp16", "fp32"}:
        values = weight.float().cpu().numpy().astype("<f2" if scheme == "fp16" else "<f4")
        if not np.isfinite(values).all():
            raise ValueError("weights are not finite, or too large for float16")
        return Stored(scheme, shape, {VALUES: values})
    symbols, scale = quantise(weight, int(scheme.removeprefix("int")))
    return Stored(scheme, shape, {SYMBOLS: symbols.numpy(), SCALE: scale.numpy().astype("<f2")})
