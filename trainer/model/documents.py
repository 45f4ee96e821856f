"""Where documents begin, and what that forbids: nothing that looks back may look past the start of its document.

A document starts at its separator: the id `bos` is the first id of the document it opens (its row predicts that document's first
real id), and, as a target, the last of the document before. The first id of every row starts a document, whatever it is: a
window begins in the middle of one, and nothing stands before it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.config import Config


def look_back_stops(config: Config) -> bool:
    """Whether anything in the model needs to know where documents start."""
    bounded = config.document_attention or config.document_ngrams
    return bounded or config.bigram_rows > 0 or config.smear_gate != "off" or config.partial_key_offset


def document_starts(ids: Tensor, bos: int) -> Tensor:
    """ids (B, T) int64 -> (B, T) bool, true at the first id of each document."""
    starts = ids == bos
    starts[:, 0] = True
    return starts


def places(starts: Tensor) -> Tensor:
    """(B, T) bool -> (B, T) int64: how many ids of its own document stand before each id."""
    at = torch.arange(starts.shape[1], device=starts.device).expand_as(starts)
    return at - torch.where(starts, at, 0).cummax(dim=1).values


def document_mask(starts: Tensor) -> Tensor:
    """(B, T) bool -> (B, 1, T, T) bool: true where the row's id may attend to the column's, same document and not later."""
    number = starts.cumsum(dim=1)
    same = number.unsqueeze(-1) == number.unsqueeze(-2)
    return same.tril().unsqueeze(1)


def segment_bounds(starts: Tensor) -> Tensor:
    """(B, T) bool -> int32 on the same device: where each document of the flattened batch begins, then B * T to the end.

    Padded by empty documents to one more than a multiple of 64, so that few lengths occur.
    """
    found = starts.flatten().nonzero().flatten()
    size = 1 + -(-len(found) // 64) * 64
    return F.pad(found, (0, size - len(found)), value=starts.numel()).to(torch.int32)


def previous(x: Tensor, starts: Tensor) -> Tensor:
    """x (B, T, d) moved one position later; zero where there is no earlier position in the document."""
    earlier = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], dim=1)
    return earlier.masked_fill(starts.unsqueeze(-1), 0.0)
