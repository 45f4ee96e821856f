"""Losses beside that of the next id. They steer the training and are dropped with it: nothing of them is in the artifact.

MTP (multi-token prediction, modded-nanoGPT's form): the same logits also predict the ids further ahead, with weights that fall
to zero while the training goes on, the farthest first. JEPA (LeCun 2022; SIGReg: Balestriero & LeCun 2025): a projection of the
stream predicts its own next states, and is kept from collapsing by being pushed towards a normal distribution.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.config import Config
from trainer.model.documents import document_starts, places
from trainer.model.init import stream
from trainer.model.parts import empty
from trainer.options.losses import weights

SLICES = 64
"""Random directions along which SIGReg compares distributions, new ones every step."""


def mtp_scales(given: tuple[float, ...], done: float, until: float) -> tuple[float, ...]:
    """The weights when a share `done` of the training is over; all but the first are zero from `until` on.

    With K ids beyond the next the share `until` falls into K equal parts: in the first the farthest weight falls to zero, in
    the second the one before it, and so on.
    """
    beyond = len(given) - 1
    if not beyond:
        return given
    phase = beyond * done / until if until > 0 else math.inf
    left = [min(1.0, max(0.0, (beyond - k + 1) - phase)) for k in range(1, beyond + 1)]
    return (given[0], *(weight * share for weight, share in zip(given[1:], left, strict=True)))


def mtp_loss(logits: Tensor, targets: Tensor, scales: tuple[float, ...], bos: int) -> Tensor:
    """Sum over k >= 1 of scales[k] * nats of the id k beyond the next, never beyond the end of a document.

    logits: (B, T, V), targets: (B, T) int64, the next ids. Each sum is divided by B * T, whatever falls away, so that parts
    of a batch add up to the whole.
    """
    total = logits.new_zeros(())
    inside = torch.ones_like(targets, dtype=torch.bool)  # no document ended before the target in question
    for k, scale in enumerate(scales[1:], start=1):
        inside = inside[:, :-1] & (targets[:, k - 1 : -1] != bos)
        if scale:
            nats = F.cross_entropy(logits[:, :-k].flatten(0, 1), targets[:, k:].flatten(), reduction="none")
            total = total + scale * (nats * inside.flatten()).sum() / targets.numel()
    return total


def sigreg(states: Tensor, directions: Tensor) -> Tensor:
    """How far states (N, D) are from N(0, I): mean over directions (D, S) of the Epps-Pulley statistic, 0 for a perfect fit.

    Integral of |empirical characteristic function - exp(-t^2 / 2)|^2 exp(-t^2 / 2) over t in [-5, 5], by trapezoids.
    """
    points = torch.linspace(-5.0, 5.0, 17, dtype=states.dtype, device=states.device)
    normal = torch.exp(-points.square() / 2)
    angle = (states @ directions).unsqueeze(-1) * points  # (N, S, 17)
    error = (angle.cos().mean(0) - normal).square() + angle.sin().mean(0).square()
    return torch.trapezoid(error * normal, points, dim=-1).mean()


class Jepa(nn.Module):
    """States z = P h; predictor g(z) = z + W2 gelu(W1 z), W2 zero at birth, applied again and again for later states."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.seed, self.steps, self.regular = config.seed, config.jepa_steps, config.jepa_sigreg
        self.project = empty(config.jepa_dim, config.model_dim)
        self.up = empty(4 * config.jepa_dim, config.jepa_dim)
        self.down = empty(config.jepa_dim, 4 * config.jepa_dim)
        draw = stream(config.seed, "jepa")
        with torch.no_grad():
            nn.init.orthogonal_(self.project, generator=draw)
            self.up.uniform_(-1 / math.sqrt(config.jepa_dim), 1 / math.sqrt(config.jepa_dim), generator=draw)
            self.down.zero_()

    def forward(self, hidden: Tensor, ids: Tensor, bos: int, step: int) -> Tensor:
        """Mean squared error of the predicted states, within documents, plus SIGReg. hidden: (B, T, d), ids: (B, T)."""
        states = F.linear(hidden.to(self.project.dtype), self.project)  # (B, T, D)
        place = places(document_starts(ids, bos))
        guess, total = states, states.new_zeros(())
        for ahead in range(1, self.steps + 1):
            guess = guess + F.linear(F.gelu(F.linear(guess, self.up)), self.down)
            error = (guess[:, :-ahead] - states[:, ahead:]).square().mean(-1)
            inside = place[:, ahead:] >= ahead
            total = total + (error * inside).sum() / inside.sum().clamp(min=1) / self.steps
        directions = torch.randn(states.shape[-1], SLICES, generator=stream(self.seed, f"sigreg/{step}"))
        directions = F.normalize(directions, dim=0).to(states.device, states.dtype)
        return total + self.regular * sigreg(states.flatten(0, 1), directions)


class Auxiliary(nn.Module):
    """What is added to the loss of the next id, or nothing to begin with: see `auxiliary`."""

    def __init__(self, config: Config, bos: int) -> None:
        super().__init__()
        self.bos, self.until, self.jepa_weight = bos, config.mtp_until, config.jepa_weight
        self.weights = weights(config.mtp_weights)
        self.jepa = Jepa(config) if config.jepa_weight else None

    def forward(self, logits: Tensor, hidden: Tensor, batch: tuple[Tensor, Tensor], done: float, step: int) -> Tensor:
        """The addition, a scalar. logits: (B, T, V); hidden: (B, T, d), what the head read; batch: ids and next ids (B, T);
        done: share of the training that is over."""
        ids, targets = batch
        total = mtp_loss(logits, targets, mtp_scales(self.weights, done, self.until), self.bos)
        if self.jepa is not None:
            total = total + self.jepa_weight * self.jepa(hidden, ids, self.bos, step)
        return total


def auxiliary(config: Config, bos: int) -> Auxiliary | None:
    """The auxiliary losses that the settings ask for, on the CPU; None for none."""
    wanted = len(weights(config.mtp_weights)) > 1 or config.jepa_weight > 0
    return Auxiliary(config, bos) if wanted else None
