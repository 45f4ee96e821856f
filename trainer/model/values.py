"""What attention values are made of beside the product with the stream: a table by token, and the first layer's values."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainer.config import Config
from trainer.model.parts import Pass, empty


class ValueEmbedding(nn.Module):
    """A second embedding that goes straight into the values of some layers (modded-nanoGPT; contest record #374).

    The table is born random and the projection zero, so the model starts without it and the projection learns at once.
    """

    def __init__(self, config: Config, vocab_size: int) -> None:
        super().__init__()
        self.kv_heads = config.num_kv_heads
        kv_width = config.model_dim // config.num_heads * config.num_kv_heads
        self.value_embed = empty(vocab_size, config.ve_dim)
        self.project = empty(kv_width, config.ve_dim)

    def forward(self, ids: Tensor, shared: Pass) -> Tensor:
        """ids (B, T) -> (B, T, G, D), the same for all layers; each scales it by a number of its own."""
        rows = self.value_embed.index_select(0, ids.flatten()).view(*ids.shape, -1)
        return shared.product("value_embedding.project", rows, self.project).view(*ids.shape, self.kv_heads, -1)


class ValueMix(nn.Module):
    """v <- a v_first + b v, two learned numbers a layer (Zhou et al. 2024, value residual). The first layer has none."""

    def __init__(self) -> None:
        super().__init__()
        self.value_mix = empty(2)

    def forward(self, value: Tensor, first: Tensor) -> Tensor:
        """Two tensors (B, T, G, D) -> the same."""
        return self.value_mix[0] * first + self.value_mix[1] * value


def offset_keys(key: Tensor, starts: Tensor) -> Tensor:
    """key (B, T, G, D) whose second half of dimensions comes from the position before (modded-nanoGPT's partial key offset).

    A query that finds its own token's like then reads what followed it: induction in one layer. Starts of documents, (B, T) bool,
    keep their own key. The second half must not rotate.
    """
    near, late = key.chunk(2, dim=-1)
    earlier = torch.cat([late[:, :1], late[:, :-1]], dim=1)
    return torch.cat([near, torch.where(starts[..., None, None], late, earlier)], dim=-1)
