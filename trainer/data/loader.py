"""Batches of training windows: deterministic in (seed, step), the same global batch for every number of ranks."""

from __future__ import annotations

import math

import numpy as np

from trainer.data.cuts import document_cuts
from trainer.data.errors import DataError
from trainer.data.shards import Stream


class Loader:
    """LOADER=windows: windows of a flat stream in seeded order; when an epoch is used up, the next begins in a new order.

    An epoch shifts the grid of windows by a random offset below `seq_len`, cuts the stream into windows of `seq_len`
    targets and permutes them, so each token is a target at most once per epoch, and another epoch shows other cuts. The
    input of a window's first target is the token before it, or `bos` at the start of the stream.
    """

    def __init__(self, tokens: np.ndarray | Stream, seq_len: int, batch_tokens: int, seed: int, bos: int) -> None:
        """tokens: uint16 (N,). batch_tokens: targets per step over all ranks. Raises DataError if N is below seq_len."""
        if batch_tokens % seq_len:
            raise ValueError(f"batch_tokens={batch_tokens} is not a multiple of seq_len={seq_len}")
        if len(tokens) < seq_len:
            raise DataError(f"training data: {len(tokens)} tokens, but one window needs TRAIN_SEQ_LEN={seq_len}")
        self._tokens, self._seq_len, self._seed, self._bos = tokens, seq_len, seed, bos
        self.rows = batch_tokens // seq_len
        self._orders: dict[int, np.ndarray] = {}
        self.windows_per_epoch = self._cut()

    def batch(self, step: int, rank: int, world: int, micro: int, micros: int) -> tuple[np.ndarray, np.ndarray]:
        """Inputs x and targets y of one micro-batch, int64 (rows / (world * micros), seq_len) each.

        Stacking micro-batches within ranks and ranks in order gives the global batch of `step`, whatever `world` and `micros`.
        Raises ValueError if the rows of a step can't be shared evenly.
        """
        if self.rows % (world * micros):
            raise ValueError(
                f"{self.rows} rows per step can't be shared by {world} ranks with {micros} micro-batches each"
            )
        share = self.rows // (world * micros)
        first = step * self.rows + (rank * micros + micro) * share
        rows = [self._window(number) for number in range(first, first + share)]
        block = np.stack(rows)
        return block[:, :-1], block[:, 1:]

    def close(self) -> None:
        """Nothing is held."""

    def _window(self, number: int) -> np.ndarray:
        """int64 (seq_len + 1,): context token, then targets."""
        epoch, index = divmod(number, self.windows_per_epoch)
        start = self._start(epoch, index)
        row = np.empty(self._seq_len + 1, dtype=np.int64)
        if start:
            row[:] = self._tokens[start - 1 : start + self._seq_len]
        else:
            row[0] = self._bos
            row[1:] = self._tokens[: self._seq_len]
        return row

    def _cut(self) -> int:
        """How many windows an epoch has: the same for all, because the largest offset still leaves so many whole ones."""
        self._slack = min(self._seq_len - 1, len(self._tokens) - self._seq_len)
        return (len(self._tokens) - self._slack) // self._seq_len

    def _start(self, epoch: int, index: int) -> int:
        """Place of the first target of an epoch's window."""
        if epoch not in self._orders:
            random = np.random.default_rng([self._seed, epoch])
            offset = int(random.integers(self._slack + 1))
            while len(self._orders) > 1:  # a batch touches two epochs at most, unless epochs are tiny
                self._orders.pop(next(iter(self._orders)))
            self._orders[epoch] = offset + random.permutation(self.windows_per_epoch) * self._seq_len
        return int(self._orders[epoch][index])


class DocumentLoader(Loader):
    """LOADER=documents: every window begins where a document does, or a whole number of windows later in it.

    See `cuts.document_cuts`. The cuts are the same in every epoch. An epoch visits them with a stride that shares no divisor
    with their number, from a random first one: each once, and a batch's rows lie far apart (contest record "coprime-stride
    loader"; there each shard has a stride, here the whole stream has one).
    """

    def _cut(self) -> int:
        self._cuts = document_cuts(self._tokens, self._seq_len, self._bos)
        self._epoch = -1
        return len(self._cuts)

    def _start(self, epoch: int, index: int) -> int:
        count = self.windows_per_epoch
        if epoch != self._epoch:
            random = np.random.default_rng([self._seed, epoch])
            self._epoch, self._first, self._stride = epoch, int(random.integers(count)), coprime(random, count)
        return int(self._cuts[(self._first + index * self._stride) % count])


def coprime(random: np.random.Generator, count: int) -> int:
    """A number from 1 to count - 1 that has no divisor in common with `count`; 1 if there is no other."""
    while count > 2:
        stride = int(random.integers(1, count))
        if math.gcd(stride, count) == 1:
            return stride
    return 1


KINDS = {"windows": Loader, "documents": DocumentLoader}
"""By the name that LOADER gives."""
