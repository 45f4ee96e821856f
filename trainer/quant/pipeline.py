"""From trained weights to what the artifact keeps: the one place where a weight's scheme and clipping are applied."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from trainer.config import Config
from trainer.quant.calibrated import corrected, refined
from trainer.quant.clip import Clip
from trainer.quant.gptq import Inputs
from trainer.quant.grid import scales_of, symbols_of
from trainer.quant.stored import SCALE, SYMBOLS, VALUES, Stored


def quantised(
    weights: Iterable[tuple[str, Tensor]],
    schemes: Mapping[str, str],
    clips: Mapping[str, Clip],
    config: Config,
    *,
    clip_k: float | None = None,
    inputs: Mapping[str, Inputs] | None = None,
) -> dict[str, Stored]:
    """Weights by name as they will be stored, in the order given. schemes, clips: by name (see `stored.streams_of` and `clip`).

    clip_k stands in for MATRIX_CLIP_SIGMAS, and every other k moves in proportion; it means nothing to other ways of clipping.
    inputs: what calibration saw, by the names of the matrices it reached (see `calibrated`); without it GPTQ, AWQ and LQER rest.
    Raises ValueError naming the weight if one is not finite, or too large for its scheme.
    """
    weights, inputs = list(weights), inputs or {}
    found, share = {}, 1.0 if clip_k is None else clip_k / config.matrix_clip_sigmas
    for name, weight in weights:
        clip = replace(clips[name], sigmas=clips[name].sigmas * share)
        try:
            if name in inputs and schemes[name] not in {"fp16", "fp32"}:
                found[name] = refined(
                    weight, partial(_quantised, scheme=schemes[name], clip=clip), inputs[name], config
                )
            else:
                found[name] = _quantised(weight.detach(), schemes[name], clip)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return corrected(found, dict(weights), inputs, config) if config.lqer_rank else found


def _quantised(weight: Tensor, scheme: str, clip: Clip) -> Stored:
    shape = tuple(weight.shape)
    if scheme in {"fp16", "fp32"}:
        with np.errstate(over="ignore"):  # told below
            values = weight.float().cpu().numpy().astype("<f2" if scheme == "fp16" else "<f4")
        if not np.isfinite(values).all():
            raise ValueError("weights are not finite, or too large for float16")
        return Stored(scheme, shape, {VALUES: values})
    weight = weight.to("cpu", torch.float32)
    scale = scales_of(weight, scheme, clip)
    if not (torch.isfinite(scale).all() and torch.isfinite(weight).all()):
        raise ValueError("weights are not finite, or too large for a float16 scale")
    symbols = symbols_of(weight, scale, scheme).to(torch.int8)
    return Stored(scheme, shape, {SYMBOLS: symbols.numpy(), SCALE: scale.numpy().astype("<f2")})
