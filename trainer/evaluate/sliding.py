"""Sliding-window evaluation: every token scored exactly once, each with as much context as its window holds.

The first window scores all its targets, every later one its last `stride`; stride == seq_len is flat evaluation. A last, partial
step keeps a full window (it reaches further back) and scores only what is new. Definition: contest record "SlidingWindowEval";
early versions of it scored some 2,000 tokens at the end twice, hence the assert.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.dist import Group
from trainer.evaluate.bpb import Score

Model = Callable[[Tensor], Tensor]
"""ids (B, T) int64 -> logits (B, T, V); row t predicts the id after ids[t]."""


@dataclass(frozen=True)
class Window:
    """Targets [start, start + length) seen by the model, of which the last `new` are scored."""

    start: int
    length: int
    new: int


def layout(first: int, stop: int, seq_len: int, stride: int, patch: int = 1) -> Iterator[Window]:
    """Windows that score the targets [first, stop) once each, in order. Depends on nothing but these numbers.

    Every window starts at a multiple of `patch`, so that a target lies at the same place of the same patch in all of them; the
    last window then may be a little shorter. Raises ValueError unless 1 <= stride <= seq_len, both and `first` multiples of
    `patch`.
    """
    if not 1 <= stride <= seq_len:
        raise ValueError(f"stride={stride} must lie between 1 and the window length {seq_len}")
    if first % patch or stride % patch or seq_len % patch:
        raise ValueError(
            f"first={first}, stride={stride}, length={seq_len}: must be multiples of the patch size {patch}"
        )
    at = first
    while at < stop:
        end = min(at + (seq_len if at == 0 else stride), stop)
        start = max(0, end - seq_len)
        start += -start % patch
        yield Window(start, end - start, end - at)
        at = end


def batches(windows: Iterator[Window], batch: int) -> Iterator[list[Window]]:
    """Consecutive windows of one length, at most `batch` together."""
    if batch < 1:
        raise ValueError(f"batch={batch} must be at least 1")
    held: list[Window] = []
    for window in windows:
        if held and (len(held) == batch or held[0].length != window.length):
            yield held
            held = []
        held.append(window)
    if held:
        yield held


class Text:
    """A stream to score: targets tokens[0..N), each predicted from what stands before it, the first from `bos`."""

    def __init__(self, tokens: np.ndarray, byte_lengths: np.ndarray, bos: int, device: torch.device | str) -> None:
        """tokens, byte_lengths: uint16 (N,). Raises ValueError if they differ in length or are empty."""
        if len(tokens) != len(byte_lengths) or not len(tokens):
            raise ValueError(
                f"{len(tokens)} tokens with {len(byte_lengths)} byte lengths: must be equal and at least 1"
            )
        self.tokens, self.byte_lengths, self.device = np.asarray(tokens), np.asarray(byte_lengths), torch.device(device)
        self._stream = np.concatenate([np.array([bos], dtype=self.tokens.dtype), self.tokens])

    def __len__(self) -> int:
        return len(self.tokens)

    def nats(self, model: Model, windows: list[Window]) -> tuple[Tensor, Tensor]:
        """Cross-entropy of windows of one length: nats (B, K) and the mask (B, K) of what is new, K the largest `new`."""
        length, widest = windows[0].length, max(window.new for window in windows)
        starts = np.array([window.start for window in windows])
        ids = torch.from_numpy(self._stream[starts[:, None] + np.arange(length + 1)].astype(np.int64)).to(self.device)
        logits = model(ids[:, :-1])[:, length - widest :]  # (B, K, V)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        found = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:][:, length - widest :].flatten(), reduction="none")
        new = torch.tensor([window.new for window in windows])
        mask = (torch.arange(widest) >= widest - new[:, None]).to(self.device)
        return found.view(len(windows), widest), mask

    @torch.inference_mode()
    def score(self, model: Model, windows: list[Window], nlls: np.ndarray | None = None) -> tuple[float, int, int]:
        """Summed nats (in float64), targets and bytes of the new targets of `windows`; their nats also go into `nlls`."""
        found, mask = self.nats(model, windows)
        exact = found.cpu().double()
        mask = mask.cpu()
        count = size = 0
        for row, window in zip(exact, windows, strict=True):
            stop = window.start + window.length
            count += window.new
            size += int(self.byte_lengths[stop - window.new : stop].sum(dtype=np.int64))
            if nlls is not None:
                nlls[stop - window.new : stop] = row[-window.new :].numpy()
        return float(exact[mask].sum()), count, size


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
    `ttt.score`, so that both can be compared bit for bit. `nlls`: float64 (N,), filled with the nats of each target that
    this rank scored. `patch`: see `layout`. Raises ScoreError if the loss is not finite, ValueError for impossible sizes.
    """
    began = time.perf_counter()
    text = Text(tokens, byte_lengths, bos, device)
    rank, world = (group.rank, group.world) if group is not None else (0, 1)
    nats, count, size, number = 0.0, 0, 0, 0
    for first, stop in chunks(len(text), chunk or len(text)):
        for windows in batches(layout(first, stop, seq_len, stride, patch), batch):
            if number % world == rank:
                found = text.score(model, windows, nlls)
                nats, count, size = nats + found[0], count + found[1], size + found[2]
            number += 1
    if group is not None and world > 1:
        where = (
            group.device if group.device.type == "cuda" else "cpu"
        )  # mps has no float64; it is never more than one rank
        sums = group.sum_(torch.tensor([nats, count, size], dtype=torch.float64, device=where)).tolist()
        nats, count, size = sums[0], int(sums[1]), int(sums[2])
    assert count == len(text), f"{count} targets scored, the text has {len(text)}"
    return Score(nats, count, size, time.perf_counter() - began)


def chunks(total: int, chunk: int) -> Iterator[tuple[int, int]]:
    """[first, stop) of each chunk of `chunk` targets; the last may be shorter. Raises ValueError if chunk < 1."""
    if chunk < 1:
        raise ValueError(f"chunk={chunk} must be at least 1")
    for first in range(0, total, chunk):
        yield first, min(first + chunk, total)
