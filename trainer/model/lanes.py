"""Parallel residuals over two lanes (contest record #1204): from some block on attention and MLP read streams of their own.

lane0 is the stream that blocks hand on, so skips and loop marks go into it alone; lane1 travels in the Pass.
"""

from __future__ import annotations

from torch import Tensor

from trainer.config import Config
from trainer.model.block import Block, ParallelBlock
from trainer.model.parts import Pass, empty


class LaneBlock(Block):
    """Attention reads lane 0, with its share of the embedding; the MLP reads lane 1; both write to both."""

    def __init__(self, config: Config, index: int = 0) -> None:
        super().__init__(config, index)
        self.lane_keep = empty(2)
        self.lane_attention = empty(2)
        self.lane_mlp = empty(2)

    def forward(self, x: Tensor, shared: Pass) -> Tensor:
        """lane_k <- r_k lane_k + p_k a*Attention(rms(m0 lane_0 + m1 x0)) + q_k b*MLP(rms lane_1); returns lane 0, (B, T, d)."""
        other = x if shared.lane is None else shared.lane
        attended = self.attention_scale * self.attention(self.normed(self.mixed(x, shared)), shared)
        thought = self.mlp_scale * self.mlp(self.normed(other), shared)
        x, shared.lane = (
            self.lane_keep[k] * lane + self.lane_attention[k] * attended + self.lane_mlp[k] * thought
            for k, lane in enumerate((x, other))
        )
        return x


def block(config: Config, index: int) -> Block:
    """The block at a place of the stored stack, in the form that PARALLEL_RESIDUAL gives it."""
    if config.parallel_residual == "off" or index < config.parallel_start:
        return Block(config, index)
    return (ParallelBlock if config.parallel_residual == "gptj" else LaneBlock)(config, index)


def joined(x: Tensor, shared: Pass, mlp_lane: bool) -> Tensor:
    """The stream behind the last block: the mean of the lanes or the MLP's, or `x` where there is one lane."""
    if shared.lane is None:
        return x
    return shared.lane if mlp_lane else (x + shared.lane) / 2
