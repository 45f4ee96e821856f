"""Where windows begin when they are aligned to documents."""

from __future__ import annotations

from array import array
from bisect import bisect_right

import numpy as np

from trainer.data.errors import DataError
from trainer.data.shards import Stream


def document_starts(tokens: np.ndarray | Stream, bos: int) -> np.ndarray:
    """Place of the first target of each document, int64: 0, unless a `bos` stands there, and the place after every `bos`.

    Reads the stream once, block by block. An empty document has no text: its place is that of the next `bos`.
    """
    blocks = tokens.blocks() if isinstance(tokens, Stream) else Stream([tokens]).blocks()
    found, before = [], 0
    for block in blocks:
        found.append(np.flatnonzero(block == bos) + before + 1)
        before += len(block)
    starts = np.concatenate([np.zeros(1, np.int64), *found])
    if len(starts) > 1 and starts[1] == 1:  # the stream opens with its bos: context, not a target
        starts = starts[1:]
    return starts


def document_cuts(tokens: np.ndarray | Stream, seq_len: int, bos: int) -> np.ndarray:
    """Places of the first targets of all windows, rising, int64 (n,). Raises DataError if not one window fits.

    A document is cut from its start into windows of `seq_len`. The one that holds its end goes on with the documents that
    follow, and the document it cuts off gets a window from its own start. So every token before the last, incomplete window is
    a target, and what a window holds of the document it cuts off is a target twice.
    """
    starts = array("q", document_starts(tokens, bos).tobytes())
    found, last = array("q"), len(tokens) - seq_len
    at = starts[0]
    while at <= last:
        found.append(at)
        cut_off = bisect_right(starts, at + seq_len) - 1  # the last document to begin no later than the window ends
        at = at + seq_len if starts[cut_off] <= at else starts[cut_off]
    if not found:
        raise DataError(f"training data: no document begins {seq_len} tokens (TRAIN_SEQ_LEN) before its end")
    return np.frombuffer(found, dtype=np.int64)
