"""Mixtures of full distributions: the net's with what the text so far has shown, and any of them with each other.

What the text so far has shown at place t is read through links: each place points to the latest earlier one with the same ids
before it. A link never leads forward, so nothing of what is still to be predicted can be reached. The caches of the contest's
closed pull requests looked up the target's own bucket and were no distributions; here every row sums to one, over the whole
alphabet, before its target is looked at.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from trainer.evaluate.text import Text
from trainer.evaluate.walk import Mode, Step


def links(stream: np.ndarray, highest: int) -> list[np.ndarray]:
    """For each order 1..highest: the latest earlier place with the same last `order` ids, -1 if there is none; int64 (N,)."""
    ids = stream.astype(np.int64)
    name, found = ids, []
    for order in range(1, highest + 1):
        if order > 1:  # a context of k ids is one of k - 1 and an id; equal numbers mean equal contexts, exactly
            pair = np.full(len(ids), -1)  # what begins before the text equals nothing
            pair[1:] = name[:-1] * (ids.max() + 1) + ids[1:]
            name = np.unique(pair, return_inverse=True)[1]
        by_name = np.argsort(name, kind="stable")
        same = name[by_name[1:]] == name[by_name[:-1]]
        latest = np.full(len(ids), -1)
        latest[by_name[1:][same]] = by_name[:-1][same]
        found.append(latest)
    return found


class Counts:
    """What followed the last `most` occurrences of a context, as a correction of another distribution.

    p_k(v) = (c_k(v) + s D_k p_{k-1}(v)) / (n_k + s D_k) for the orders k = low..high, p_{low-1} the distribution given: of the
    n_k <= most latest followers of the last k ids c_k(v) are v and D_k are different, s is the `strength` of the lower order
    (Witten and Bell 1991 with s = 1). An unseen context leaves p_{k-1} as it is.
    """

    def __init__(self, low: int, high: int, most: int, strength: float) -> None:
        self.low, self.high, self.most, self.strength = low, high, most, strength

    def mixed(self, text: Text, at: np.ndarray, p: Tensor) -> Tensor:
        """p: (n, V) float64, the distributions of the targets at `at` -> the same, corrected."""
        for order in range(self.low, self.high + 1):
            count = self._count(text, at, order, p)
            kinds = (count > 0).sum(dim=1, keepdim=True) * self.strength
            total = count.sum(dim=1, keepdim=True)
            p = torch.where(total > 0, (count + kinds * p) / (total + kinds).clamp(min=1e-9), p)
        return p

    def _count(self, text: Text, at: np.ndarray, order: int, like: Tensor) -> Tensor:
        found = torch.zeros_like(like)
        linked = linked_of(text, self.high)[order - 1]
        place = linked[at]  # of the id right before the target
        for _ in range(self.most):
            rows = np.flatnonzero(place >= 0)
            if not len(rows):
                break
            follower = text.stream[place[rows] + 1].astype(np.int64)  # at the latest the id right before the target
            where = torch.from_numpy(rows).to(like.device), torch.from_numpy(follower).to(like.device)
            found[where] += 1.0  # a row occurs once
            place = np.where(place >= 0, linked[place], -1)
        return found


def linked_of(text: Text, highest: int) -> list[np.ndarray]:
    """`links` of a text, computed once for it."""
    held: dict[int, list[np.ndarray]] = text.__dict__.setdefault("_links", {})
    if highest not in held:
        held[highest] = links(text.stream[:-1], highest)
    return held[highest]


class Tilt:
    """p'(v) = p(v) e^(beta [v = h]) / Z with Z = 1 + p(h) (e^beta - 1): more for the hint h (contest record #1514).

    The hint is what followed the latest occurrence of the last `order` ids; without one p stays as it is.
    """

    def __init__(self, order: int, beta: float) -> None:
        self.order, self.beta = order, beta

    def mixed(self, text: Text, at: np.ndarray, p: Tensor) -> Tensor:
        """p: (n, V) float64 -> the same, tilted."""
        place = linked_of(text, self.order)[self.order - 1][at]
        rows = np.flatnonzero(place >= 0)
        hint = torch.from_numpy(text.stream[place[rows] + 1].astype(np.int64)).to(p.device)
        where = torch.from_numpy(rows).to(p.device)
        p = p.clone()
        total = 1 + p[where, hint] * math.expm1(self.beta)
        p[where, hint] *= math.exp(self.beta)
        p[where] /= total[:, None]
        return p


class Mixed(Mode):
    """Another mode's distributions, corrected by each of `by` in turn (`Counts`, `Tilt`)."""

    def __init__(self, inner: Mode, by: Iterable[Counts | Tilt]) -> None:
        self.inner, self.by = inner, tuple(by)
        self.alone = inner.alone

    def steps(self, text: Text) -> Iterator[Step]:
        """The inner mode's."""
        return self.inner.steps(text)

    def learn(self, text: Text, step: Step) -> Iterable[np.ndarray]:
        """The inner mode learns; what corrects it reads the text."""
        return self.inner.learn(text, step)

    def state(self) -> list[Tensor]:
        """The inner mode's."""
        return self.inner.state()

    def predict(self, text: Text, step: Step) -> Tensor:
        """float64: a mixture is only as normalised as its arithmetic."""
        return self.correct(text, step.targets(), self.inner.predict(text, step))

    def correct(self, text: Text, at: np.ndarray, logprobs: Tensor) -> Tensor:
        """Log-probabilities (n, V) -> float64 (n, V), corrected."""
        p = logprobs.double().exp()
        for part in self.by:
            p = part.mixed(text, at, p)
        return p.log()


class Hedge(Mode):
    """p(v) = sum_k w_k p_k(v), and after each target w_k <- w_k p_k(target)^eta, normalised: equal weights to begin with.

    The experts read one mode's distributions (`None`: as they are). With eta = 1 this is the Bayes mixture, whose loss is at most
    that of the best expert plus ln K nats over the whole text.
    """

    alone = True

    def __init__(self, inner: Mode, experts: Iterable[Mixed | Uniform | None], eta: float = 1.0) -> None:
        self.inner, self.experts, self.eta = inner, tuple(experts), eta
        self.log_weights = torch.full((len(self.experts),), -math.log(len(self.experts)), dtype=torch.float64)
        self._last: tuple[Text, Step, Tensor] | None = None

    def steps(self, text: Text) -> Iterator[Step]:
        """The inner mode's."""
        return self.inner.steps(text)

    def predict(self, text: Text, step: Step) -> Tensor:
        """Within a step each target is weighted by what the experts made of the ones before it."""
        given, at = self.each(text, step), step.targets()
        gained = self._gained(text, at, given)
        self._last = text, step, gained.sum(0)  # spares `learn` the experts, and changes nothing
        weights = self.log_weights + torch.cat([gained.new_zeros(1, len(given)), gained.cumsum(0)[:-1]])  # (n, K)
        weights = weights.log_softmax(1).T.unsqueeze(-1).to(given.device)  # (K, n, 1)
        return torch.logsumexp(given + weights, dim=0)

    def each(self, text: Text, step: Step) -> Tensor:
        """The experts' log-probabilities, float64 (K, n, V)."""
        net, at = self.inner.predict(text, step).double(), step.targets()
        return torch.stack([net if expert is None else expert.correct(text, at, net) for expert in self.experts])

    def _gained(self, text: Text, at: np.ndarray, given: Tensor) -> Tensor:
        """eta log p_k of each target, (n, K) on the CPU."""
        target = text.ids(at).expand(len(given), -1).unsqueeze(-1)
        return self.eta * given.gather(2, target)[..., 0].T.cpu()

    def learn(self, text: Text, step: Step) -> Iterable[np.ndarray]:
        """Reweight by the whole step, then let the inner mode learn."""
        at, last = step.targets(), self._last
        if last is None or last[0] is not text or last[1] is not step:
            last = text, step, self._gained(text, at, self.each(text, step)).sum(0)
        self.log_weights = (self.log_weights + last[2]).log_softmax(0)
        yield at
        yield from self.inner.learn(text, step)

    def state(self) -> list[Tensor]:
        """The weights, and what the inner mode learns."""
        return [self.log_weights, *self.inner.state()]


class Uniform(Mixed):
    """An expert that knows the alphabet and `by`, and nothing of the net."""

    def correct(self, text: Text, at: np.ndarray, logprobs: Tensor) -> Tensor:
        """Begins with equal chances instead of `logprobs`."""
        return super().correct(text, at, torch.full_like(logprobs, -math.log(logprobs.shape[1])))
