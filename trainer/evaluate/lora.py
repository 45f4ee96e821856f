"""Per-document test-time training: low-rank adapters that learn from a document's scored chunks, and forget it at its end.

Contest record #1530: to each product W x is added (alpha / rank) B A x, with A uniform in +-1/sqrt(in) and B zero at the start of
each document; after each chunk one AdamW step on that chunk's mean nats. Documents side by side have an adapter each, so none
learns from another. Phased (#1610, #1626): after every so many documents the base weights themselves learn from those
documents, all scored by then, by SGD.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from trainer.evaluate.documents import Chunked
from trainer.evaluate.text import Text, batches, layout
from trainer.evaluate.ttt import BETAS, Sgd, gradients
from trainer.evaluate.walk import Step
from trainer.model.roles import MATRIX, role
from trainer.optim.adam import Adam


class Adapters:
    """`rows` adapters for each matrix of the blocks and for the head, as the model's `adapter`. Row i serves row i of a batch."""

    def __init__(self, model: nn.Module, rows: int, rank: int, alpha: float, seed: int = 0) -> None:
        self.scale = alpha / rank
        draw = torch.Generator().manual_seed(seed)
        self.first: dict[str, Tensor] = {}
        self.down: dict[str, Tensor] = {}
        self.up: dict[str, Tensor] = {}
        untied = any(name == "head" for name, _ in model.named_parameters())
        for name, weight in model.named_parameters():
            inner = name.startswith("blocks.") and role(name) == MATRIX
            if inner or name == ("head" if untied else "embed"):
                outputs, inputs = weight.shape
                bound = 1 / math.sqrt(inputs)
                # Drawn on the CPU, and the same for every document: its score may not depend on its place.
                start = torch.empty(rank, inputs, dtype=weight.dtype).uniform_(-bound, bound, generator=draw)
                self.first[name] = start.to(weight.device)
                self.down[name] = self.first[name].repeat(rows, 1, 1).requires_grad_(True)
                self.up[name] = weight.new_zeros(rows, outputs, rank).requires_grad_(True)

    def __call__(self, name: str, x: Tensor) -> Tensor | None:
        """x: (B, T, in) -> (B, T, out)."""
        if name not in self.down:
            return None
        down, up = self.down[name][: len(x)], self.up[name][: len(x)]
        return x @ down.mT @ up.mT * self.scale

    def parameters(self) -> list[Tensor]:
        """All of them, A and B."""
        return [*self.down.values(), *self.up.values()]

    @torch.no_grad()
    def reorder(self, rows: np.ndarray) -> None:
        """Row i of A becomes what row rows[i] was; rows beyond stay."""
        for down in self.down.values():
            down[: len(rows)] = down[torch.from_numpy(rows).to(down.device)]

    @torch.no_grad()
    def reset(self, warm: bool) -> None:
        """Forget: B becomes zero, and A what it was at first unless `warm`. Gradients are dropped."""
        for name, up in self.up.items():
            up.zero_()
            if not warm:
                self.down[name].copy_(self.first[name].expand_as(self.down[name]))


class DocumentLora(Chunked):
    """Adapters per document; `pauses` times, after `pause` documents each, `phase_lr` > 0 moves the base weights by SGD.

    warm: A goes on from the document `docs` documents before; then documents are taken in order, for the score must not depend on
    later ones. With all rates 0 the score is `Chunked`'s, bit for bit. The model is left as it was.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        rank: int,
        alpha: float,
        lr: float,
        decay: float = 0.0,
        warm: bool = False,
        phase_lr: float = 0.0,
        momentum: float = 0.9,
        clip: float = 0.0,
        **chunked: object,
    ) -> None:
        # As in `Ttt`, weights that could learn: torch rounds differently for others, and rate 0 is to be the static score.
        super().__init__(copy.deepcopy(model).requires_grad_(True), ordered=warm, **chunked)
        self.alone, self.isolated = warm or self.pauses > 0, not warm and self.pauses == 0
        self.adapters = Adapters(self.model, self.docs, rank, alpha)
        self.lr, self.decay, self.warm, self.clip = lr, decay, warm, clip
        self.sgd = Sgd(list(self.model.parameters()), lr=phase_lr, momentum=momentum) if self.pauses else None
        # Rows of the batch under way in the order of their documents, which is the order A is kept in.
        self._turns: np.ndarray | None = None
        self._forget()

    def predict(self, text: Text, step: Step) -> Tensor:
        """The adapted model's distributions."""
        with torch.inference_mode():
            return text.logprobs(self._adapted, step.windows, self.temperature)

    def learn(self, text: Text, step: Step) -> Iterator[np.ndarray]:
        """Documents that go on learn from the chunk just scored; a batch that ends is forgotten, a phase that ends is learned."""
        if step.more:
            self._seat(step)
            windows = step.windows[: step.more]
            count = torch.tensor([window.new for window in windows for _ in range(window.new)], device=text.device)
            loss = (text.nats(self._adapted, windows) / count).sum()  # a sum: no row's step depends on another row
            found = torch.autograd.grad(loss, self.adapters.parameters())  # and nothing for the weights beneath
            for parameter, gradient in zip(self.adapters.parameters(), found, strict=True):
                parameter.grad = gradient
            self.adam.step()
            yield step.targets()[: len(count)]
            return
        self._forget()
        yield np.arange(0)
        if step.ends is not None and self.sgd is not None:
            yield from self._phase(text, *step.ends)

    def _phase(self, text: Text, first: int, stop: int) -> Iterator[np.ndarray]:
        """One pass of SGD over the targets [first, stop), `docs` windows a step."""
        rows = layout(0, stop - first, self.seq_len, self.seq_len, self.patch)  # a phase begins where a document does
        for windows in batches((replace(row, start=first + row.start) for row in rows), self.docs):
            begin, end = windows[0].stop - windows[0].new, windows[-1].stop
            gradients(self.model, text, iter([windows]), end - begin, self.clip)
            self.sgd.step()
            yield np.arange(begin, end)

    def _seat(self, step: Step) -> None:
        """At the start of a batch: A goes to the document whose turn it is, first to first, whatever their lengths.

        Documents stand in a batch by length. An A that went from row to row would tell how long they become.
        """
        if self.warm and self._turns is None:
            self._turns = np.argsort([window.start for window in step.windows])
            self.adapters.reorder(np.argsort(self._turns))

    def _forget(self) -> None:
        if self._turns is not None:
            self.adapters.reorder(self._turns)
            self._turns = None
        self.adapters.reset(self.warm)
        self.adam = Adam(self.adapters.parameters(), lr=self.lr, betas=BETAS, weight_decay=self.decay)

    def _adapted(self, ids: Tensor) -> Tensor:
        return self.model(ids, self.adapters)

    def state(self) -> list[Tensor]:
        """The adapters, and the base weights where they learn."""
        return self.adapters.parameters() + (list(self.model.parameters()) if self.sgd is not None else [])
