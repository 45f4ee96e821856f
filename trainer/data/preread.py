"""Batches read ahead by a thread: the next ones are ready when they are asked for."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from trainer.data.loader import KINDS, Loader
from trainer.data.shards import Stream

if TYPE_CHECKING:
    from trainer.config import Config

Key = tuple[int, int, int, int, int]
"""step, rank, world, micro, micros: the arguments of `Loader.batch`."""

Batch = tuple[np.ndarray, np.ndarray]

AHEAD = 2
"""Batches kept ready: one being used by the device, one to follow."""

PATIENCE = 1.0
"""Seconds after which a waiting caller looks whether the thread still lives."""


class PreRead:
    """PREREAD=1: a loader with a thread that reads on from the last batch asked for. The batches are the loader's, bit for bit.

    Asking for anything but the next batch is allowed and starts the reading afresh from there. What goes wrong in the thread is
    raised by the next `batch`; so is its silent death. The thread never keeps a process alive.
    """

    def __init__(self, loader: Loader) -> None:
        self._loader = loader
        self._turn = threading.Condition()
        self._ready: deque[tuple[Key, Batch]] = deque()
        self._next: Key | None = None
        self._error: BaseException | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._read, name="preread", daemon=True)
        self._thread.start()

    @property
    def rows(self) -> int:
        """As the loader's."""
        return self._loader.rows

    @property
    def windows_per_epoch(self) -> int:
        """As the loader's."""
        return self._loader.windows_per_epoch

    def batch(self, step: int, rank: int, world: int, micro: int, micros: int) -> Batch:
        """As `Loader.batch`. Raises what the reading thread met, RuntimeError if it died without a word."""
        wanted = (step, rank, world, micro, micros)
        with self._turn:
            if not self._ready or self._ready[0][0] != wanted:
                self._ready.clear()
                self._next = wanted  # often it already is, and being read
                self._turn.notify_all()
            while not self._ready:
                if self._error is not None:
                    raise self._error
                if not self._thread.is_alive():
                    raise RuntimeError("the thread that reads batches ahead is gone")
                self._turn.wait(PATIENCE)
            key, batch = self._ready.popleft()
            assert key == wanted, (key, wanted)
            self._turn.notify_all()
            return batch

    def close(self) -> None:
        """Let the thread end, and wait for it."""
        with self._turn:
            self._closed = True
            self._turn.notify_all()
        self._thread.join()

    def _read(self) -> None:
        try:
            while (key := self._take()) is not None:
                batch = self._loader.batch(*key)
                with self._turn:
                    if key == self._next:  # else somebody asked for another meanwhile
                        self._ready.append((key, batch))
                        self._next = following(key)
                        self._turn.notify_all()
        except BaseException as error:  # whatever it is, the run must hear of it
            with self._turn:
                self._error = error
                self._turn.notify_all()

    def _take(self) -> Key | None:
        """The batch to read now; waits for room. None: no more."""
        with self._turn:
            while not self._closed and (self._next is None or len(self._ready) >= AHEAD):
                self._turn.wait()
            return None if self._closed else self._next


def following(key: Key) -> Key:
    """The batch that a rank needs after this one."""
    step, rank, world, micro, micros = key
    return (step, rank, world, micro + 1, micros) if micro + 1 < micros else (step + 1, rank, world, 0, micros)


def open_loader(config: Config, tokens: np.ndarray | Stream, seq_len: int, bos: int) -> Loader | PreRead:
    """The loader that the settings ask for, over windows of `seq_len` tokens. Raises DataError if none fits."""
    loader = KINDS[config.loader](tokens, seq_len, config.train_batch_tokens, config.seed, bos)
    return PreRead(loader) if config.preread else loader
