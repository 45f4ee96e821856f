"""One evaluation, whatever its mode: predict, then look, then learn.

A mode says what it predicts next, gives a distribution over the whole alphabet for each of those targets, and only when
these are scored may it learn from them. The walk below is the only way to a score, so the four conditions of the contest's
issue #1017 are kept, or seen to be broken (`probes`), in one place: every prediction depends on the artifact and the
targets before it; it is a full distribution; scored first, then learned from; one pass, nothing rescored.
"""

from __future__ import annotations

import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from trainer.dist import Group
from trainer.evaluate.bpb import Score, ScoreError
from trainer.evaluate.text import Text, Window, targets


@dataclass(frozen=True)
class Step:
    """Targets predicted together: the new ones of `windows`, in their order.

    part: steps of one part go to one rank. ends: the targets [first, stop) of a stretch that ends here, and from which its mode
    may learn next; None while it goes on, or where nothing is left to learn for. more: how many of the windows' documents go on.
    """

    windows: list[Window]
    part: int
    ends: tuple[int, int] | None = None
    more: int = 0

    def targets(self) -> np.ndarray:
        """Places of what is predicted, in order, int64 (n,)."""
        return targets(self.windows)


class Mode(ABC):
    """A way to score a text. Without state of its own, `steps` and `predict` are all that it does."""

    alone = False
    """Whether steps depend on the ones before, so that one rank must walk them all."""
    isolated = False
    """Whether a document's score is claimed to be independent of all others."""

    @abstractmethod
    def steps(self, text: Text) -> Iterator[Step]:
        """What is predicted, in order; every target of the text once."""

    @abstractmethod
    def predict(self, text: Text, step: Step) -> Tensor:
        """Log-probabilities (n, V) of a step's targets. Changes nothing, and may be asked again."""

    def learn(self, text: Text, step: Step) -> Iterable[np.ndarray]:
        """Take the updates that are due after a step was scored; the targets that each of them used, as it is taken."""
        return ()

    def state(self) -> list[Tensor]:
        """Everything that learning changes and predictions depend on."""
        return []


@dataclass(frozen=True)
class Event:
    """One entry of the order log: a "score" or an "update" of the targets `at`, and the mode's state around it, hashed."""

    kind: str
    at: np.ndarray
    before: str
    after: str


class OutOfTime(ScoreError):
    """The evaluation took longer than it may."""


@dataclass
class Clock:
    """The evaluation clock: seconds since it was made, and how many there may be (0: any)."""

    limit: float = 0.0
    began: float = field(default_factory=time.perf_counter)

    def seconds(self) -> float:
        """Since the beginning."""
        return time.perf_counter() - self.began

    def over(self) -> bool:
        """Whether the limit is passed."""
        return self.limit > 0 and self.seconds() > self.limit


def walk(
    mode: Mode, text: Text, order: list[Event] | None = None, mine: Callable[[Step], bool] = lambda step: True
) -> Iterator[tuple[Step, Tensor]]:
    """Steps with their distributions (n, V). The mode learns when the next is asked for: by then this one is scored."""
    for step in mode.steps(text):
        if not mine(step):
            continue
        before = _hash(mode, order)
        found = mode.predict(text, step)
        after = _hash(mode, order)
        if order is not None:
            order.append(Event("score", step.targets(), before, after))
        yield step, found
        for used in mode.learn(text, step):
            before, after = after, _hash(mode, order)
            if order is not None:
                order.append(Event("update", used, before, after))


def _hash(mode: Mode, order: list[Event] | None) -> str:
    if order is None:
        return ""
    digest = hashlib.sha256()
    for tensor in mode.state():
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def run(
    mode: Mode,
    text: Text,
    *,
    group: Group | None = None,
    clock: Clock | None = None,
    label: str = "score",
    order: list[Event] | None = None,
    nlls: np.ndarray | None = None,
) -> Score:
    """Score a text. Every rank of `group` returns the same Score, from float64 sums.

    nlls: float64 (N,), filled with the nats of each target that this rank scored; order: collects this rank's order log.
    Raises ScoreError if the loss is not finite, and OutOfTime, on every rank, if the clock of one of them ran out.
    """
    began, clock = time.perf_counter(), clock or Clock()
    rank, world = (group.rank, group.world) if group is not None else (0, 1)
    sums = [0.0, 0.0, 0.0, 0.0]  # nats, targets, bytes, late

    def mine(step: Step) -> bool:
        return rank == 0 if mode.alone else step.part % world == rank

    for step, logprobs in walk(mode, text, order, mine):
        for place, found in enumerate(_judge(text, step, logprobs, nlls)):
            sums[place] += found
        if clock.over():
            break
    sums[3] = float(clock.over())
    if group is not None and world > 1:
        group.wait_for_work()  # where one walks alone, that may take longer than a message
        where = (
            group.device if group.device.type == "cuda" else "cpu"
        )  # mps has no float64, and never more than one rank
        sums = group.sum_(torch.tensor(sums, dtype=torch.float64, device=where)).tolist()
    if sums[3]:
        raise OutOfTime(
            f"{label}: the evaluation passed EVAL_MAX_SECONDS={clock.limit:g} after {clock.seconds():.1f} s: no score of it; "
            "choose a cheaper mode, or allow more seconds (0: no limit)"
        )
    nats, count, size = sums[0], int(sums[1]), int(sums[2])
    assert count == len(text), f"{count} targets scored, the text has {len(text)}"
    return Score(nats, count, size, time.perf_counter() - began)


def _judge(text: Text, step: Step, logprobs: Tensor, nlls: np.ndarray | None) -> tuple[float, int, int]:
    """Summed nats (in float64), targets and bytes of a step: here, and only here, a prediction meets its target."""
    at = step.targets()
    found = -logprobs.detach().gather(1, text.ids(at)[:, None])[:, 0].cpu().double()
    if nlls is not None:
        nlls[at] = found.numpy()
    return float(found.sum()), len(at), int(text.byte_lengths[at].sum(dtype=np.int64))
