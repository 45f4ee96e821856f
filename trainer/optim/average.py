"""Averages of the weights over the course of a run: what the artifact may be written from instead of the last weights.

Kept beside the weights, in their own precision (float32), and never fed back into training. They follow from the steps alone, so
every rank has the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from trainer.config import Config


class Average:
    """No average: the last weights are shipped, at no cost. The others are told of every step and say what they make of it."""

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self.parameters = [parameter.detach() for parameter in parameters]

    def follow(self, step: int, left: float) -> None:
        """Take note of the weights after `step` finished steps, with the share `left` of the warmdown still ahead."""

    def keep(self) -> None:
        """Put the average into the model, for good."""

    def taken(self) -> int:
        """How many of the weights of the run are in a uniform mean; 1: the last ones alone. 0 where none is taken."""
        return 0

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within, the model holds the average; afterwards its own weights, to the last bit."""
        yield


class _Held(Average, ABC):
    """An average that is not the last weights."""

    @abstractmethod
    def weights(self) -> list[Tensor]:
        """The average if the run ended now, one tensor a parameter; not to be written to."""

    def keep(self) -> None:
        torch._foreach_copy_(self.parameters, self.weights())

    @contextmanager
    def applied(self) -> Iterator[None]:
        kept = [parameter.clone() for parameter in self.parameters]
        self.keep()
        try:
            yield
        finally:
            torch._foreach_copy_(self.parameters, kept)


class EMA(_Held):
    """a <- d a + (1 - d) w after every step, beginning with the initial weights: a memory of about 1 / (1 - d) steps.

    At step t no more than (1 + t) / (10 + t) of the old is kept, as TensorFlow's average does it: a run shorter than the memory
    would otherwise ship mostly what it was born with. From some 9 / (1 - d) steps on it is d alone.
    """

    def __init__(self, parameters: Iterable[Tensor], decay: float) -> None:
        super().__init__(parameters)
        self.decay = decay
        self._held = [parameter.clone() for parameter in self.parameters]

    def follow(self, step: int, left: float) -> None:
        kept = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._held, self.parameters, 1.0 - kept)

    def weights(self) -> list[Tensor]:
        return self._held


class SWA(_Held):
    """Uniform mean of the weights of every `every`-th step once `start` or less of the warmdown is left, and of the last."""

    def __init__(self, parameters: Iterable[Tensor], start: float, every: int) -> None:
        super().__init__(parameters)
        self.start, self.every = start, every
        self._count, self._fresh = 0, False
        self._mean = [torch.zeros_like(parameter) for parameter in self.parameters]

    def follow(self, step: int, left: float) -> None:
        self._fresh = left <= self.start and left < 1.0 and step % self.every == 0
        if self._fresh:
            self._count += 1
            torch._foreach_lerp_(self._mean, self.parameters, 1.0 / self._count)

    def taken(self) -> int:
        return self._count + (not self._fresh)

    def weights(self) -> list[Tensor]:
        if self._fresh:
            return self._mean
        return list(torch._foreach_lerp(self._mean, self.parameters, 1.0 / (self._count + 1)))


class LAWA(_Held):
    """Uniform mean of the latest `k` of: the weights of every `every`-th step, and the last. Keeps k copies of the weights."""

    def __init__(self, parameters: Iterable[Tensor], k: int, every: int) -> None:
        super().__init__(parameters)
        self.every, self._fresh = every, False
        self._ring: deque[list[Tensor]] = deque(maxlen=k)

    def follow(self, step: int, left: float) -> None:
        self._fresh = step % self.every == 0
        if self._fresh:
            self._ring.append([parameter.clone() for parameter in self.parameters])

    def taken(self) -> int:
        return len(self._latest())

    def _latest(self) -> deque[list[Tensor]]:
        latest = self._ring.copy()
        if not self._fresh:
            latest.append(self.parameters)
        return latest

    def weights(self) -> list[Tensor]:
        taken = self._latest()
        mean = [parameter.clone() for parameter in taken[0]]
        for count, checkpoint in enumerate(
            taken, start=1
        ):  # by steps of a mean: equal weights stay equal to the last bit
            torch._foreach_lerp_(mean, checkpoint, 1.0 / count)
        return mean


def average_of(parameters: Iterable[Tensor], config: Config) -> Average:
    """The average that AVERAGE names."""
    if config.average == "ema":
        return EMA(parameters, config.ema_decay)
    if config.average == "swa":
        return SWA(parameters, config.swa_start, config.swa_every)
    if config.average == "lawa":
        return LAWA(parameters, config.lawa_k, config.lawa_every)
    return Average(parameters)
