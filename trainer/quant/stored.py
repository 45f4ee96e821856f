"""A weight as the artifact keeps it: a scheme's name and the arrays ("streams") that turn back into the weight.

Every scheme says once, in `streams_of`, which arrays a weight of a given shape has: what reads a file checks against it, and what
packs one knows the alphabet of each array. `restore` is the one way back to numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainer.quant.rowwise import LEVELS, dequantise

SYMBOLS, SCALE, VALUES = "symbols", "scale", "values"


@dataclass(frozen=True)
class Stream:
    """One array of a stored weight: its dtype (as numpy writes it, little endian) and shape; whole numbers lie in [low, high]."""

    dtype: str
    shape: tuple[int, ...]
    low: int = 0
    high: int = 0


@dataclass(frozen=True)
class Stored:
    """A weight of `shape`, (R, C) where it is quantised, as arrays by stream name."""

    scheme: str
    shape: tuple[int, ...]
    streams: Mapping[str, np.ndarray]


def streams_of(scheme: str, shape: tuple[int, ...]) -> dict[str, Stream]:
    """Streams of a weight of this shape, in the order they are written. Raises ValueError for a scheme that does not fit.

    fp16, fp32: `values`, as they are. int8, int6 (2-D only): `symbols` (R, C) int8 in [-L, L], `scale` (R,) float16.
    """
    if scheme in {"fp16", "fp32"}:
        return {VALUES: Stream("<f2" if scheme == "fp16" else "<f4", shape)}
    levels = {f"int{bits}": levels for bits, levels in LEVELS.items()}.get(scheme)
    if levels is None or len(shape) != 2:
        raise ValueError(f"scheme {scheme!r} is unknown, or does not fit a weight of {len(shape)} dimensions")
    return {SYMBOLS: Stream("|i1", shape, -levels, levels), SCALE: Stream("<f2", shape[:1])}


def restore(stored: Stored) -> Tensor:
    """The weight, float32, that a model loaded from the artifact computes with."""
    if VALUES in stored.streams:
        return torch.from_numpy(stored.streams[VALUES].astype(np.float32)).view(stored.shape)
    symbols, scale = stored.streams[SYMBOLS], stored.streams[SCALE]
    return dequantise(torch.from_numpy(symbols), torch.from_numpy(scale.astype(np.float16)))
