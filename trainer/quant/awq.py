"""AWQ: columns that see large inputs are made larger before they are rounded, so that they lose less (Lin et al. 2023).

W x = (W diag(s)) (x / s): the product of rounded W diag(s) and x / s. The division is folded into the weight when it is
restored, so s costs one float16 a column and the model computes as before.
"""

from __future__ import annotations

import torch
from torch import Tensor

SHARES = (0.25, 0.5, 0.75, 1.0)
"""Shares of AWQ_ALPHA that are tried on each matrix beside 0."""
FLOOR = 1e-4
"""Smallest input that counts, relative to the largest: columns that saw nothing need no scale beyond it."""


def channel_scales(magnitude: Tensor, alpha: float) -> Tensor:
    """mean|x_c|^alpha, (C,) as float16 numbers in float32, scaled so that the largest and the smallest multiply to about 1.

    All 1 for alpha 0, and where no input was seen.
    """
    largest = magnitude.max().double() if len(magnitude) else torch.tensor(0.0)
    if not largest > 0:
        return torch.ones(len(magnitude))
    power = (magnitude.double() / largest).clamp(min=FLOOR) ** alpha
    return (power / (power.max() * power.min()).sqrt()).half().float()
