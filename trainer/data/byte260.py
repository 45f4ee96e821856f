"""The contest's byte alphabet, for reading its shards: byte b is token b + 4; before stand PAD, BOS, EOS and UNK, no text."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from trainer.contract import SEPARATOR

_FIRST_BYTE = 4


class Byte260:
    """Shards of `fineweb10B_byte260`. To train on them, convert them to `bytes`."""

    name = "byte260"
    vocab_size = 256 + _FIRST_BYTE
    bos = 1
    separators_are_text = False

    def text(self, stream: np.ndarray, block: int = 1 << 20) -> Iterator[bytes]:
        """The raw text of a stream in pieces: each BOS as the separator byte, other control tokens as nothing."""
        for at in range(0, len(stream), block):
            part = np.asarray(stream[at : at + block])
            part = part[(part >= _FIRST_BYTE) | (part == self.bos)]
            yield np.where(part == self.bos, SEPARATOR, part - _FIRST_BYTE).astype(np.uint8).tobytes()

    def byte_lengths(self, stream: np.ndarray) -> np.ndarray:
        """1 for each byte, 0 for the others, uint16 (N,)."""
        return (np.asarray(stream) >= _FIRST_BYTE).astype(np.uint16)
