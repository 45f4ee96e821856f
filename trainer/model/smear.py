"""SmearGate: a little of the embedding before is mixed into each (contest records; gated form from modded-nanoGPT).

Neither form reads across the start of a document: there the embedding before counts as zero.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainer.config import Config
from trainer.model.documents import previous
from trainer.model.parts import empty

GATE_INPUTS = 12
"""Channels of the embedding that the gated form reads."""


class ChannelSmear(nn.Module):
    """x_t <- g x_t + (1 - g) x_{t-1} with g = sigmoid(s) a channel; s starts at 3."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.smear_mix = empty(config.model_dim)

    def forward(self, x: Tensor, starts: Tensor) -> Tensor:
        """x (B, T, d), starts (B, T) bool -> (B, T, d)."""
        keep = torch.sigmoid(self.smear_mix)
        return keep * x + (1.0 - keep) * previous(x, starts)


class GatedSmear(nn.Module):
    """x_t <- x_t + lambda sigmoid(w x_t[:12]) x_{t-1}; w and lambda start at 0, so the model starts as if without."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.smear_gate = empty(GATE_INPUTS)
        self.smear_scale = empty(1)

    def forward(self, x: Tensor, starts: Tensor) -> Tensor:
        """x (B, T, d), starts (B, T) bool -> (B, T, d)."""
        open_ = torch.sigmoid((x[..., :GATE_INPUTS] * self.smear_gate).sum(-1, keepdim=True))
        return x + self.smear_scale * open_ * previous(x, starts)


FORMS = {"channel": ChannelSmear, "token": GatedSmear}
"""SMEAR_GATE's choices beside "off"."""
