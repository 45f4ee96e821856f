"""A text to score, how it is cut into windows, and the one place where a model's distributions of its targets are made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Model = Callable[[Tensor], Tensor]
"""ids (B, T) int64 -> logits (B, T, V); row t predicts the id after ids[t]."""


@dataclass(frozen=True)
class Window:
    """Targets [start, start + length) seen by the model, of which the last `new` are scored."""

    start: int
    length: int
    new: int

    @property
    def stop(self) -> int:
        """The place behind its last target."""
        return self.start + self.length


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


def chunks(total: int, chunk: int) -> Iterator[tuple[int, int]]:
    """[first, stop) of each chunk of `chunk` targets; the last may be shorter. Raises ValueError if chunk < 1."""
    if chunk < 1:
        raise ValueError(f"chunk={chunk} must be at least 1")
    for first in range(0, total, chunk):
        yield first, min(first + chunk, total)


def targets(windows: list[Window]) -> np.ndarray:
    """Places of the new targets of windows, in their order, int64 (n,)."""
    return np.concatenate([np.arange(window.stop - window.new, window.stop) for window in windows])


class Text:
    """A stream to score: targets tokens[0..N), each predicted from what stands before it, the first from `bos`."""

    def __init__(
        self, tokens: np.ndarray, byte_lengths: np.ndarray, bos: int, device: torch.device | str = "cpu"
    ) -> None:
        """tokens, byte_lengths: uint16 (N,). Raises ValueError if they differ in length or are empty."""
        if len(tokens) != len(byte_lengths) or not len(tokens):
            raise ValueError(
                f"{len(tokens)} tokens with {len(byte_lengths)} byte lengths: must be equal and at least 1"
            )
        self.tokens, self.byte_lengths, self.device = np.asarray(tokens), np.asarray(byte_lengths), torch.device(device)
        self.bos = bos
        # stream[t] is the id right before target t.
        self.stream = np.concatenate([np.array([bos], dtype=self.tokens.dtype), self.tokens])

    def __len__(self) -> int:
        return len(self.tokens)

    def logprobs(self, model: Model, windows: list[Window], temperature: float = 1.0) -> Tensor:
        """Log-probabilities of the whole alphabet for every new target of `windows`, in order: (n, V), at least float32.

        Every score of every mode begins here. Windows shorter than the longest are filled up behind their end, where no
        target is.
        """
        longest = max(window.length for window in windows)
        start, length = (np.array([getattr(w, name) for w in windows])[:, None] for name in ("start", "length"))
        place = np.arange(longest)
        ids = self.stream[np.minimum(start + place, len(self) - 1)].astype(np.int64)
        ids[place >= length] = self.bos
        logits = model(torch.from_numpy(ids).to(self.device)).flatten(0, 1)  # (B * T, V)
        rows = [np.arange(w.length - w.new, w.length) + row * longest for row, w in enumerate(windows)]
        logits = logits.index_select(0, torch.from_numpy(np.concatenate(rows)).to(self.device))
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return F.log_softmax(logits if temperature == 1.0 else logits / temperature, dim=-1)

    def ids(self, at: np.ndarray) -> Tensor:
        """The targets at these places, int64 (n,), on the text's device."""
        return torch.from_numpy(self.tokens[at].astype(np.int64)).to(self.device)

    def nats(self, model: Model, windows: list[Window]) -> Tensor:
        """Cross-entropy of the new targets of `windows`, in order, (n,): what an update may minimise once it is scored."""
        return -self.logprobs(model, windows).gather(1, self.ids(targets(windows))[:, None])[:, 0]
