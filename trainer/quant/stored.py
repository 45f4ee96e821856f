"""A weight as the artifact keeps it: a scheme's name and the arrays ("streams") that turn back into the weight.

Every scheme says once, in `streams_of`, which arrays a weight of a given shape has: what reads a file checks against it, and what
packs one knows the alphabet of each array. `restore` is the one way back to numbers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainer.quant import lqer
from trainer.quant.grid import SCHEMES, limits, scale_shape, values_of

SYMBOLS, SCALE, VALUES = "symbols", "scale", "values"
CHANNELS = "channels"
LQER = ("lqer_a", "lqer_a_scale", "lqer_b", "lqer_b_scale")
"""Streams of the corrections, in the order of `lqer.product`'s arguments."""

_PARTS = re.compile(r"([a-z]+[0-9x]*)(\+awq)?(?:\+lqer([1-9][0-9]{0,3}))?")


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
    by: str = "nearest"
    """How its symbols were chosen: nearest or gptq. Not kept in the artifact."""


def parts_of(scheme: str) -> tuple[str, bool, int]:
    """A scheme's grid, whether input channels are scaled (`+awq`), and the rank of the correction (`+lqerN`), 0 for none.

    Settings decide the grid; what is behind it is decided by the weights, one by one, and stands in the artifact alone.
    Raises ValueError for a text that is no scheme.
    """
    found = _PARTS.fullmatch(scheme)
    if found is None:
        raise ValueError(f"scheme {scheme!r} is unknown")
    return found[1], found[2] is not None, int(found[3] or 0)


def streams_of(scheme: str, shape: tuple[int, ...]) -> dict[str, Stream]:
    """Streams of a weight of this shape, in the order they are written. Raises ValueError for a scheme that does not fit.

    Those of its grid (`_grid_streams`). +awq: `channels` (C,) float16, what the columns were multiplied with. +lqerN: `lqer_a`
    (R, N) int8 in [-2, 1], its scale (1,), `lqer_b` (N, C) int8 in [-7, 7], its scales (N, C / 64), see `trainer.quant.lqer`.
    """
    grid, scaled, rank = parts_of(scheme)
    found = _grid_streams(grid, shape)
    if ((scaled or rank) and SYMBOLS not in found) or rank > min(shape, default=0):
        raise ValueError(f"scheme {scheme!r} does not fit a weight of shape {list(shape)}")
    if scaled:
        found[CHANNELS] = Stream("<f2", shape[1:])
    if rank:
        rows, columns = shape
        found |= {
            "lqer_a": Stream("|i1", (rows, rank), lqer.A_LOW, lqer.A_HIGH),
            "lqer_a_scale": Stream("<f2", (1,)),
            "lqer_b": Stream("|i1", (rank, columns), -lqer.B_LEVELS, lqer.B_LEVELS),
            "lqer_b_scale": Stream("<f2", (rank, lqer.groups(columns))),
        }
    return found


def _grid_streams(scheme: str, shape: tuple[int, ...]) -> dict[str, Stream]:
    """Streams of a weight without corrections.

    fp16, fp32: `values`, as they are. Those of `trainer.quant.grid` (2-D only): `symbols` (R, C) int8 in [-L, L], and `scale`
    float16, (R,) or for ternary (R, C / 128).
    """
    if scheme in {"fp16", "fp32"}:
        return {VALUES: Stream("<f2" if scheme == "fp16" else "<f4", shape)}
    if scheme not in SCHEMES or len(shape) != 2:
        raise ValueError(f"scheme {scheme!r} is unknown, or does not fit a weight of {len(shape)} dimensions")
    return {SYMBOLS: Stream("|i1", shape, *limits(scheme)), SCALE: Stream("<f2", scale_shape(scheme, shape))}


def restore(stored: Stored) -> Tensor:
    """The weight, float32, that a model loaded from the artifact computes with."""
    weight = on_grid(stored)
    if CHANNELS in stored.streams:
        weight = weight / torch.from_numpy(stored.streams[CHANNELS].astype(np.float32))
    if LQER[0] in stored.streams:
        weight = weight + lqer.product(*(torch.from_numpy(np.array(stored.streams[name])) for name in LQER))
    return weight


def on_grid(stored: Stored) -> Tensor:
    """The weight, float32, before corrections: what the grid of its scheme can say."""
    if VALUES in stored.streams:
        return torch.from_numpy(stored.streams[VALUES].astype(np.float32)).view(stored.shape)
    symbols, scale = stored.streams[SYMBOLS], stored.streams[SCALE]
    return values_of(torch.from_numpy(symbols), torch.from_numpy(scale.astype(np.float16)))
