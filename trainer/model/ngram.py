"""Hashed n-gram embeddings: the last n ids name a row of a table, for every order n from 2 to the highest.

The idea is the field's BigramHash, widened to higher orders. Rows start at zero and the projection random, so the model starts
as the baseline and both factors get gradient from the first steps (a product of two zeros would stay dead).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainer.config import Config
from trainer.model.documents import places
from trainer.model.parts import empty

_MASK = (1 << 31) - 1  # keeps every product below 2^62: int64 never overflows, so all devices agree
_MULTIPLIER = 1_540_483_477
_MIX = 739_982_445


def hash_ngrams(ids: Tensor, max_order: int, buckets: int, starts: Tensor | None = None) -> Tensor:
    """Rows of the n-grams that end at each position.

    ids: (B, T) int64. Returns (B, T, max_order - 1) int64 in [0, buckets); entry n - 2 depends on ids[t-n+1 .. t] alone.
    Row 0 is kept for positions whose n-gram would begin before the window or, with starts (B, T) bool, before the document.
    """
    place = None if starts is None else places(starts)
    length = ids.shape[1]
    state = (ids + 1) & _MASK
    rows = []
    for order in range(2, max_order + 1):
        back = order - 1
        earlier = torch.zeros_like(ids)
        earlier[:, back:] = ids[:, : max(length - back, 0)] + 1
        state = ((state * _MULTIPLIER) & _MASK) ^ earlier
        mixed = (state ^ (state >> 15)) * _MIX & _MASK
        mixed = mixed ^ (mixed >> 13)
        row = mixed % (buckets - 1) + 1
        row[:, :back] = 0
        if place is not None:
            row = row.masked_fill(place < back, 0)
        rows.append(row)
    return torch.stack(rows, dim=-1)


class NgramEmbedding(nn.Module):
    """One table of `buckets` rows per order, stacked into one tensor so that a single look-up serves all orders."""

    def __init__(self, config: Config, vocab_size: int) -> None:
        super().__init__()
        self.max_order, self.buckets = config.ngram_max_order, config.ngram_buckets
        self.in_document = config.document_ngrams
        orders = self.max_order - 1
        width = orders * config.ngram_dim
        self.tables = empty(orders * self.buckets, config.ngram_dim)
        self.project = empty(config.model_dim, width)
        self.to_logits = empty(vocab_size, width) if config.ngram_logits else None

    def forward(self, ids: Tensor, starts: Tensor | None = None) -> Tensor:
        """ids (B, T), starts (B, T) bool -> the rows of all orders side by side, (B, T, orders * dim)."""
        rows = hash_ngrams(ids, self.max_order, self.buckets, starts if self.in_document else None)
        rows = rows + torch.arange(self.max_order - 1, device=ids.device) * self.buckets
        # index_select's gradient is an index_add: three times faster on CPU than embedding's, and in a fixed order.
        return self.tables.index_select(0, rows.flatten()).view(*ids.shape, -1)
