"""Score-first test-time training: score a chunk, then learn from exactly the tokens just scored, then go on.

The four conditions of the contest's issue #1017 hold: every prediction depends on the artifact and the tokens before it alone;
it is a full distribution; a token is scored before any update that saw it; one pass from left to right, nothing rescored.
Method: contest records #549 and #1493 (SGD there, Adam here), one row per `seq_len` targets of the chunk.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from trainer.dist import Group
from trainer.evaluate.bpb import Score
from trainer.evaluate.sliding import Text, batches, chunks, layout
from trainer.optim.adam import Adam
from trainer.optim.groups import check_cover

BETAS = (0.9, 0.95)
"""Adam's; the moments live on from chunk to chunk."""


@dataclass(frozen=True)
class Event:
    """One entry of the order log: "score" or "update" of the targets [first, stop), after `updates` optimizer steps."""

    kind: str
    first: int
    stop: int
    updates: int


def score(
    model: nn.Module,
    tokens: np.ndarray,
    byte_lengths: np.ndarray,
    *,
    seq_len: int,
    stride: int,
    batch: int,
    bos: int,
    device: torch.device | str,
    chunk: int,
    epochs: int,
    matrix_lr: float,
    table_lr: float,
    group: Group | None = None,
    order: list[Event] | None = None,
    nlls: np.ndarray | None = None,
    patch: int = 1,
) -> Score:
    """Score a flat stream, tokens uint16 (N,), adapting a copy of `model`; the model itself is left as it was.

    Each chunk of `chunk` targets is scored under inference_mode with `sliding`'s windows, then `epochs` Adam steps are
    taken, each on all of its targets: rate `table_lr` for `model.table_parameters()`, `matrix_lr` for everything else. With
    both rates 0 the result equals `sliding.score(..., chunk=chunk)` bit for bit. Chunk bounds depend on N alone, never on
    the text.

    The chain of updates is sequential, so rank 0 works alone and the others wait for its sums; all return the same Score.
    `patch`: see `sliding.layout`. `order` collects the order log, `nlls` (float64, (N,)) the nats of each target, both on rank 0.
    Raises ScoreError if the loss is not finite, ValueError for impossible sizes.
    """
    began = time.perf_counter()
    text = Text(tokens, byte_lengths, bos, device)
    sums = [0.0, 0.0, 0.0]
    if group is None or group.rank == 0:
        student = copy.deepcopy(model).requires_grad_(True)
        optimizers = _adams(student, matrix_lr, table_lr)
        updates = 0
        for first, stop in chunks(len(text), chunk):
            _note(order, Event("score", first, stop, updates))
            for windows in batches(layout(first, stop, seq_len, stride, patch), batch):
                sums = [held + found for held, found in zip(sums, text.score(student, windows, nlls), strict=True)]
            if stop == len(text):
                break  # nothing is left to score, so nothing is left to learn for
            for _ in range(epochs):
                _note(order, Event("update", first, stop, updates))
                _update(student, optimizers, text, first, stop, seq_len, batch, patch)
                updates += 1
    if group is not None:
        group.wait_for_work()
        sums = group.broadcast_floats(sums)
    nats, count, size = sums[0], int(sums[1]), int(sums[2])
    assert count == len(text), f"{count} targets scored, the text has {len(text)}"
    return Score(nats, count, size, time.perf_counter() - began)


def _adams(model: nn.Module, matrix_lr: float, table_lr: float) -> list[Adam]:
    """One for the n-gram tables, one for everything else; together they hold every parameter once."""
    tables = list(model.table_parameters()) if hasattr(model, "table_parameters") else []
    known = {id(table) for table in tables}
    others = [parameter for parameter in model.parameters() if id(parameter) not in known]
    check_cover([others, tables], model.parameters())
    return [Adam(others, lr=matrix_lr, betas=BETAS), Adam(tables, lr=table_lr, betas=BETAS)]


def _update(
    model: nn.Module, optimizers: list[Adam], text: Text, first: int, stop: int, seq_len: int, batch: int, patch: int
) -> None:
    """One Adam step on the mean nats of the targets [first, stop); context reaches back only to scored tokens."""
    for parameter in model.parameters():
        parameter.grad = None
    for windows in batches(layout(first, stop, seq_len, seq_len, patch), batch):
        found, mask = text.nats(model, windows)
        (found[mask].sum() / (stop - first)).backward()
    for optimizer in optimizers:
        optimizer.step()


def _note(order: list[Event] | None, event: Event) -> None:
    if order is not None:
        order.append(event)
