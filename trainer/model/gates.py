"""A gate per head on what attention found, read from the attention's own input (contest records #1667, #1736, #1787).

output: 2 sigmoid(w x[:12]), one at init. dense: sigmoid(W x) over all channels. sparse: sigmoid(s W x[:12]). The last two halve
attention at init.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainer.config import Config
from trainer.model.parts import Pass, empty


class HeadGate(nn.Module):
    """ATTN_GATE other than off. `name`: its own, dotted, for adapters."""

    def __init__(self, config: Config, name: str) -> None:
        super().__init__()
        self.name = name
        self.window = config.model_dim if config.attn_gate == "dense" else config.gate_window
        self.peak = 2.0 if config.attn_gate == "output" else 1.0
        self.steepness = config.sparse_gate_scale if config.attn_gate == "sparse" else 1.0
        self.head_gate = empty(config.num_heads, self.window)

    def forward(self, x: Tensor, shared: Pass) -> Tensor:
        """The attention's input (B, T, d) -> a factor per head, (B, T, H, 1), in (0, peak)."""
        z = shared.product(f"{self.name}.head_gate", x[..., : self.window], self.head_gate)
        return (self.peak * torch.sigmoid(self.steepness * z)).unsqueeze(-1)
