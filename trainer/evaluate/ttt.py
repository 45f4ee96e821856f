"""Score-first test-time training: score a chunk, then learn from exactly the tokens just scored, then go on.

Method: contest records #549 and #1413 (SGD with momentum, clipped, its rate falling over the chunks in a cosine), and Adam; one
row per `seq_len` targets of the chunk.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from trainer.evaluate.sliding import Sliding
from trainer.evaluate.text import Text, Window, batches, layout
from trainer.evaluate.walk import Step
from trainer.optim.adam import Adam
from trainer.optim.groups import check_cover, clip_gradients

BETAS = (0.9, 0.95)
"""Adam's; the moments live on from chunk to chunk."""


class Sgd:
    """b <- momentum b + g;  w <- w - lr b. The buffers live on from update to update."""

    def __init__(self, parameters: list[Tensor], *, lr: float, momentum: float) -> None:
        self.parameters, self.lr, self.momentum = parameters, lr, momentum
        self._buffers = [torch.zeros_like(parameter) for parameter in parameters]

    @torch.no_grad()
    def step(self, *, scale: float = 1.0) -> None:
        """One update from the parameters' `.grad`, at `scale` times the rate."""
        for parameter, buffer in zip(self.parameters, self._buffers, strict=True):
            buffer.mul_(self.momentum).add_(parameter.grad)
            parameter.sub_(buffer, alpha=self.lr * scale)


class Ttt(Sliding):
    """Windows as `Sliding` lays them, within chunks; after each chunk `epochs` updates, each on all of its targets.

    Rate `table_lr` for `model.table_parameters()`, `matrix_lr` for everything else. clip: largest norm of a gradient, 0 for any.
    cosine: rates fall to zero from the first chunk to the last. A copy of the model learns; the model is left as it was.
    Chunk bounds and rates depend on the length of the text alone. With both rates 0 the score is `Sliding`'s, bit for bit.
    """

    alone = True

    def __init__(
        self,
        model: nn.Module,
        *,
        chunk: int,
        epochs: int,
        matrix_lr: float,
        table_lr: float,
        optimizer: str = "adam",
        momentum: float = 0.9,
        clip: float = 0.0,
        cosine: bool = False,
        **sliding: object,
    ) -> None:
        self.student = copy.deepcopy(model).requires_grad_(True)
        super().__init__(self.student, chunk=chunk, **sliding)
        self.epochs, self.clip, self.cosine = epochs, clip, cosine
        tables = list(model_tables(self.student))
        known = {id(table) for table in tables}
        others = [parameter for parameter in self.student.parameters() if id(parameter) not in known]
        check_cover([others, tables], self.student.parameters())
        pairs = ((others, matrix_lr), (tables, table_lr))
        if optimizer == "adam":
            self.optimizers = [Adam(group, lr=lr, betas=BETAS) for group, lr in pairs]
        else:
            self.optimizers = [Sgd(group, lr=lr, momentum=momentum) for group, lr in pairs]

    def learn(self, text: Text, step: Step) -> Iterator[np.ndarray]:
        """At the end of each chunk but the last, behind which nothing is left to learn for."""
        if step.ends is None:
            return
        first, stop = step.ends
        scale = self.scale(first // self.chunk, -(-len(text) // self.chunk))
        for _ in range(self.epochs):
            windows = layout(first, stop, self.seq_len, self.seq_len, self.patch)
            gradients(self.student, text, batches(windows, self.batch), stop - first, self.clip)
            for optimizer in self.optimizers:
                optimizer.step(scale=scale)
            yield np.arange(first, stop)

    def scale(self, chunk: int, total: int) -> float:
        """Share of the rates after chunk number `chunk` of `total`."""
        return (1 + math.cos(math.pi * chunk / max(1, total - 1))) / 2 if self.cosine else 1.0

    def state(self) -> list[Tensor]:
        """All weights."""
        return list(self.student.parameters())


def model_tables(model: nn.Module) -> Iterator[nn.Parameter]:
    """A model's n-gram tables, if it knows of any."""
    if hasattr(model, "table_parameters"):
        yield from model.table_parameters()


def gradients(model: nn.Module, text: Text, rows: Iterator[list[Window]], count: int, clip: float) -> None:
    """Leave in every parameter the gradient of the mean nats of `rows`' `count` new targets, of norm `clip` at most (0: any)."""
    for parameter in model.parameters():
        parameter.grad = None
    for windows in rows:
        (text.nats(model, windows).sum() / count).backward()
    if clip:
        clip_gradients(model.parameters(), clip)
