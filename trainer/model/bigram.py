"""BigramHash: the pair of the last two ids names a row of a table, added to the embedding (contest records)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainer.config import Config
from trainer.model.parts import Adapter, empty, product


def hash_pairs(ids: Tensor, starts: Tensor, rows: int) -> Tensor:
    """(36313 x_t XOR 27191 x_{t-1}) mod (rows - 1), and rows - 1 itself at the start of a document.

    ids: (B, T) int64, starts: (B, T) bool. In int64, where no id of 32 bits can overflow: every device agrees.
    """
    before = ids.roll(1, dims=1)
    mixed = (36313 * ids) ^ (27191 * before)
    return torch.where(starts, rows - 1, mixed % (rows - 1))


class BigramHash(nn.Module):
    """scale * P * Table[hash]: the table starts at zero and P orthogonal, so the model starts as if without.

    Both factors at zero would give neither a gradient, ever.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.rows = config.bigram_rows
        self.tables = empty(self.rows, config.bigram_dim)
        self.project = empty(config.model_dim, config.bigram_dim)
        self.bigram_scale = empty(1)

    def forward(self, ids: Tensor, starts: Tensor, adapter: Adapter | None = None) -> Tensor:
        """ids (B, T) int64, starts (B, T) bool -> what is added to the embedding, (B, T, d)."""
        index = hash_pairs(ids, starts, self.rows)
        rows = self.tables.index_select(0, index.flatten()).view(*ids.shape, -1)
        return self.bigram_scale * product(adapter, "bigram.project", rows, self.project)
