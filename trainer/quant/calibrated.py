"""What calibration does for a matrix: the rounding of least error on the inputs seen, and a correction for the worst.

Every method is a candidate beside round-to-nearest, which stays where nothing beats it: on the calibration inputs no matrix ever
gets worse.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

from trainer.config import Config
from trainer.quant import awq, gptq, lqer
from trainer.quant.gptq import Inputs, Points
from trainer.quant.grid import limits, values_of
from trainer.quant.rowwise import GRIDS
from trainer.quant.stored import CHANNELS, LQER, SCALE, SYMBOLS, Stored, restore

Plain = Callable[[Tensor], Stored]
"""Round-to-nearest in a matrix's scheme: what would be stored without calibration."""


def refined(weight: Tensor, plain: Plain, inputs: Inputs, config: Config) -> Stored:
    """The candidate with the least ||(W - W^) H^1/2||_F. weight: (R, C). Raises ValueError if the calibration is not finite."""
    weight, inputs = weight.detach().cpu().float(), Inputs(inputs.hessian.cpu(), inputs.magnitude.cpu())
    if not (torch.isfinite(inputs.hessian).all() and torch.isfinite(inputs.magnitude).all()):
        raise ValueError("the calibration's inputs are not finite")  # compared with NaN, no candidate would ever win
    best = plain(weight)
    least = _lost(weight, best, inputs)
    for candidate in _candidates(weight, best, plain, inputs, config):
        lost = _lost(weight, candidate, inputs)
        if lost < least:
            best, least = candidate, lost
    return best


def _candidates(weight: Tensor, nearest: Stored, plain: Plain, inputs: Inputs, config: Config) -> Iterable[Stored]:
    if config.gptq:
        yield _by_gptq(weight, nearest, inputs.hessian, config.gptq_damp)
    for alpha in [config.awq_alpha * share for share in awq.SHARES if config.awq_alpha]:
        scales = awq.channel_scales(inputs.magnitude, alpha)
        stored = plain(weight * scales)
        if config.gptq:
            stored = _by_gptq(weight * scales, stored, inputs.hessian / scales / scales[:, None], config.gptq_damp)
        yield dataclasses.replace(
            stored,
            scheme=f"{stored.scheme}+awq",
            streams={**stored.streams, CHANNELS: scales.numpy().astype("<f2")},
        )


def _by_gptq(weight: Tensor, nearest: Stored, hessian: Tensor, damp: float) -> Stored:
    symbols = gptq.rounded(weight, points_of(nearest), hessian, damp)
    return dataclasses.replace(nearest, streams={**nearest.streams, SYMBOLS: symbols.numpy()}, by="gptq")


def points_of(stored: Stored) -> Points:
    """The points that the scales of a weight without corrections allow."""
    unit = values_of(torch.ones(stored.shape), torch.from_numpy(stored.streams[SCALE].astype(np.float16)))
    step = GRIDS[stored.scheme].step if stored.scheme in GRIDS else 1
    return Points(unit, *limits(stored.scheme), step)


def _lost(weight: Tensor, stored: Stored, inputs: Inputs) -> float:
    return gptq.weighted_error(weight - restore(stored), inputs.hessian)


def corrected(
    found: Mapping[str, Stored], weights: Mapping[str, Tensor], inputs: Mapping[str, Inputs], config: Config
) -> dict[str, Stored]:
    """The weights as found, with a correction (see `lqer`) for the LQER_TENSORS matrices of the largest ||W - W^||_F."""
    lost = {
        name: weights[name].detach().cpu().float() - restore(found[name])
        for name in found
        if name in inputs and SYMBOLS in found[name].streams
    }
    worst = sorted(lost, key=lambda name: float(lost[name].norm()), reverse=True)[: config.lqer_tensors]
    return {
        name: _with_lqer(item, lost[name], inputs[name], config) if name in worst else item
        for name, item in found.items()
    }


def told(found: Mapping[str, Stored], inputs: Mapping[str, Inputs]) -> str:
    """How many matrices each method won, for the log: what is rounded to nearest was not bettered by anything asked for."""
    kept = [found[name] for name in inputs]
    gptq_ = sum(item.by == "gptq" for item in kept)
    scaled = sum(CHANNELS in item.streams for item in kept)
    plain = sum(item.by == "nearest" and CHANNELS not in item.streams for item in kept)
    fixed = sum(LQER[0] in item.streams for item in kept)
    return f"rounding:{len(kept)} matrices gptq:{gptq_} awq:{scaled} nearest:{plain} lqer:{fixed}"


def _with_lqer(stored: Stored, error: Tensor, inputs: Inputs, config: Config) -> Stored:
    """The weight with its correction, or without where that does not help on the inputs seen."""
    hessian, rank = inputs.hessian.cpu(), min(config.lqer_rank, *stored.shape)
    parts = lqer.coded(error, rank, gptq.damped_factor(hessian, config.gptq_damp))
    if gptq.weighted_error(error - lqer.product(*parts), hessian) >= gptq.weighted_error(error, hessian):
        return stored
    arrays = dict(zip(LQER, (part.numpy() for part in parts), strict=True))
    return dataclasses.replace(stored, scheme=f"{stored.scheme}+lqer{rank}", streams={**stored.streams, **arrays})
