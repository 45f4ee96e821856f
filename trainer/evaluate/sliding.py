"""Sliding-window evaluation: every token scored exactly once, each with as much context as its window holds.

The first window scores all its targets, every later one its last `stride`; stride == seq_len is flat evaluation. A last, partial
step keeps a full window (it reaches further back) and scores only what is new. Definition: contest record "SlidingWindowEval";
early versions of it scored some 2,000 tokens at the end twice, hence the count that `walk.run` asserts.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from trainer.dist import Group
from trainer.evaluate.bpb import Score
from trainer.evaluate.text import Model, Text, batches, chunks, layout
from trainer.evaluate.walk import Mode, Step, run


class Sliding(Mode):
    """`batch` windows of `seq_len` at once. chunk: windows end at multiples of so many targets; None: one chunk."""

    def __init__(
        self,
        model: Model,
        *,
        seq_len: int,
        stride: int,
        batch: int,
        patch: int = 1,
        chunk: int | None = None,
        temperature: float = 1.0,
    ) -> None:
        self.model, self.chunk, self.temperature = model, chunk, temperature
        self.seq_len, self.stride, self.batch, self.patch = seq_len, stride, batch, patch

    def steps(self, text: Text) -> Iterator[Step]:
        """Batches of windows from left to right. Depends on the length of the text alone."""
        part = 0
        for first, stop in chunks(len(text), len(text) if self.chunk is None else self.chunk):
            for windows in batches(layout(first, stop, self.seq_len, self.stride, self.patch), self.batch):
                last = windows[-1].stop == stop < len(text)
                yield Step(windows, part, ends=(first, stop) if last else None)
                part += 1

    def predict(self, text: Text, step: Step) -> Tensor:
        """The model's own distributions."""
        with torch.inference_mode():
            return text.logprobs(self.model, step.windows, self.temperature)


def score(
    model: Model,
    tokens: np.ndarray,
    byte_lengths: np.ndarray,
    *,
    seq_len: int,
    stride: int,
    batch: int,
    bos: int,
    device: torch.device | str,
    group: Group | None = None,
    chunk: int | None = None,
    nlls: np.ndarray | None = None,
    patch: int = 1,
) -> Score:
    """Score a flat stream, tokens uint16 (N,), with `batch` windows at once. Every rank of `group` returns the same Score.

    Batches are dealt to the ranks in turn; sums are float64. `chunk`: windows end at multiples of so many targets, as in
    `Ttt`, so that both can be compared bit for bit. `nlls`: float64 (N,), filled with the nats of each target that
    this rank scored. `patch`: see `layout`. Raises ScoreError if the loss is not finite, ValueError for impossible sizes.
    """
    mode = Sliding(model, seq_len=seq_len, stride=stride, batch=batch, patch=patch, chunk=chunk)
    return run(mode, Text(tokens, byte_lengths, bos, device), group=group, nlls=nlls)
