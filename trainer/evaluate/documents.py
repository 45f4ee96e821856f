"""Document-isolated evaluation: a document is scored as if it stood alone, strided within itself.

A document begins behind the separator before it, which is its first context, and ends with the separator that ends it, as a
target. Where it begins is known from the targets before it, so isolation uses nothing of what is still to be predicted.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from trainer.evaluate.text import Model, Text, Window, chunks, layout
from trainer.evaluate.walk import Mode, Step


def bounds(tokens: np.ndarray, bos: int) -> list[tuple[int, int]]:
    """[first, stop) of the targets of each document, in order; they cover the text."""
    cuts = [0, *(np.flatnonzero(tokens[:-1] == bos) + 1).tolist(), len(tokens)]
    return list(pairwise(cuts))


def inside(document: tuple[int, int], whole: Iterator[Window]) -> Iterator[Window]:
    """Windows of a document laid as if it had no end, in places of the text, and cut off at its end.

    Laid by its end, as the last window of a text is, targets near the end would see further back than others: a prediction
    would know that the document ends soon.
    """
    first, stop = document
    for window in whole:
        over = max(0, first + window.stop - stop)
        if over < window.new:
            yield Window(first + window.start, window.length - over, window.new - over)


class Documents(Mode):
    """`batch` windows of at most `seq_len` at once, whose contexts end where their document begins."""

    isolated = True

    def __init__(
        self, model: Model, *, seq_len: int, stride: int, batch: int, patch: int = 1, temperature: float = 1.0
    ) -> None:
        self.model, self.temperature = model, temperature
        self.seq_len, self.stride, self.batch, self.patch = seq_len, stride, batch, patch

    def steps(self, text: Text) -> Iterator[Step]:
        """Batches of windows from left to right."""
        part, held = 0, []
        for first, stop in bounds(text.tokens, text.bos):
            steps = -(-max(0, stop - first - self.seq_len) // self.stride)
            endless = layout(0, self.seq_len + steps * self.stride, self.seq_len, self.stride, self.patch)
            for window in inside((first, stop), endless):
                held.append(window)
                if len(held) == self.batch:
                    yield Step(held, part)
                    part, held = part + 1, []
        if held:
            yield Step(held, part)

    def predict(self, text: Text, step: Step) -> Tensor:
        """The model's own distributions."""
        with torch.inference_mode():
            return text.logprobs(self.model, step.windows, self.temperature)


class Chunked(Documents):
    """The same in chunks of `chunk` targets, those of `docs` documents side by side: what adapts to documents learns in between.

    ordered: documents are taken strictly from left to right; else long ones with long ones, which wastes less. pause: no
    batch of documents reaches over a multiple of so many documents, up to `pauses` times (see `lora`).
    """

    def __init__(
        self,
        model: Model,
        *,
        chunk: int,
        docs: int,
        ordered: bool = False,
        pause: int = 0,
        pauses: int = 0,
        **how: object,
    ) -> None:
        super().__init__(model, stride=chunk, batch=docs, **how)
        self.chunk, self.docs, self.ordered, self.pause, self.pauses = chunk, docs, ordered, pause, pauses

    def steps(self, text: Text) -> Iterator[Step]:
        """Chunk number 0 of a batch's documents, chunk number 1 of those that have one, and so on; then the next batch."""
        part, rest = 0, bounds(text.tokens, text.bos)
        for number in range(self.pauses + 1):
            size = self.pause if number < self.pauses else len(rest)
            group, rest = rest[:size], rest[size:]
            batches = list(self._batches(group))
            for batch in batches:
                # Learning from a phase is due once its last document is scored, if any are left to learn for.
                due = (group[0][0], group[-1][1]) if batch is batches[-1] and rest else None
                yield from self._side_by_side(batch, part, due)
                part += 1

    def _batches(self, group: list[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
        """Documents that go side by side, the longest first in each batch."""

        def longest(bound: tuple[int, int]) -> int:
            return bound[0] - bound[1]

        taken = group if self.ordered else sorted(group, key=longest)
        for at, end in chunks(len(taken), self.docs) if taken else ():
            yield sorted(taken[at:end], key=longest)

    def _side_by_side(self, batch: list[tuple[int, int]], part: int, due: tuple[int, int] | None) -> Iterator[Step]:
        counts = [-(-(stop - first) // self.chunk) for first, stop in batch]
        for number in range(counts[0]):
            windows = [
                self._window(*bound, number) for bound, count in zip(batch, counts, strict=True) if count > number
            ]
            more = sum(count > number + 1 for count in counts)
            yield Step(windows, part, more=more, ends=None if more else due)

    def _window(self, first: int, stop: int, number: int) -> Window:
        """Chunk `number` of the document [first, stop), with all the context that the window holds."""
        at = number * self.chunk
        (window,) = inside((first, stop), layout(at, at + self.chunk, self.seq_len, self.chunk, self.patch))
        return window
