"""The score: bits per byte of text, and a slow plain-Python way to the same number that tests compare with.

bpb = nats / (ln 2 * bytes), where nats is the summed cross-entropy of every token of the validation stream, each scored
exactly once, and bytes the length of the text those tokens decode to (see `trainer.data.tokens` for boundary tokens: they
cost, and count 0).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass


class ScoreError(ValueError):
    """A score is not a finite number. There is no sentinel for "no score": it is absent, with this reason."""


@dataclass(frozen=True)
class Score:
    """What one evaluation found. nats: summed over `tokens` targets that decode to `bytes` bytes; seconds: wall time.

    Raises ScoreError on construction unless nats is finite and not negative and both counts are at least 1.
    """

    nats: float
    tokens: int
    bytes: int
    seconds: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.nats) or self.nats < 0 or self.tokens < 1 or self.bytes < 1:
            raise ScoreError(f"no valid score: {self.nats} nats over {self.tokens} tokens and {self.bytes} bytes")

    @property
    def loss(self) -> float:
        """Nats per token."""
        return self.nats / self.tokens

    @property
    def bpb(self) -> float:
        """Bits per byte."""
        return self.nats / (math.log(2) * self.bytes)


def reference(
    predict: Callable[[list[int]], Sequence[float]],
    tokens: Sequence[int],
    byte_lengths: Sequence[int],
    *,
    seq_len: int,
    stride: int,
    bos: int,
    patch: int = 1,
) -> Score:
    """Score token by token, with no batch, no array and no shared code: the sliding window as its definition says.

    `predict(context)` gives the probabilities of the next token after a non-empty context. Target t lies in the window that ends
    at min(seq_len, N) if t < seq_len, else at the next step of `stride` after it, at most N; the context is everything in
    the window before it, one token more than the window's targets reach back. The window begins at a multiple of `patch`.
    """
    stream = [bos, *tokens]
    total = len(tokens)
    nats = 0.0
    for target in range(total):
        steps = 0 if target < seq_len else (target - seq_len) // stride + 1
        end = min(seq_len + steps * stride, total)
        begin = -(max(0, end - seq_len) // -patch) * patch
        probability = predict(stream[begin : target + 1])[tokens[target]]
        nats -= math.log(probability)
    return Score(nats, total, sum(byte_lengths), 0.0)
