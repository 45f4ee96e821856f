"""Is a score what it says? Probes that run the thing and compare distributions: flip, sum, order, boundary.

They take any `logprobs(tokens) -> log-probabilities (N, V)`: `tokens` (N,), row t the prediction of tokens[t] from what stands
before it. `of_mode` makes one of a mode of ours, which also shows its order log and can be asked step by step. Two
answers that should be equal may differ by rounding: probe in float64, or allow it by `tolerance` (nats).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from trainer.evaluate.documents import bounds
from trainer.evaluate.text import Text
from trainer.evaluate.walk import Event, Mode, walk

Logprobs = Callable[[np.ndarray], Any]
"""tokens (N,) -> log-probabilities (N, V), as anything numpy reads."""
MakeMode = Callable[[], Mode]
"""A fresh mode: what one text taught it must not meet the next."""

TOLERANCE = 1e-6
SUM_TOLERANCE = 1e-4
BLOCKS = 20
"""Stretches of a text whose mean losses are compared."""


@dataclass(frozen=True)
class Finding:
    """What a probe found: its name, whether it passed, one sentence, and the numbers behind it."""

    probe: str
    passed: bool
    said: str
    numbers: dict[str, float]


def of_mode(make: MakeMode, bos: int, device: torch.device | str = "cpu", order: list[Event] | None = None) -> Logprobs:
    """A mode as `logprobs`; `order` collects the order log of every call."""

    def logprobs(tokens: np.ndarray) -> np.ndarray:
        found: np.ndarray | None = None
        for step, given in walk(make(), Text(tokens, np.ones_like(tokens), bos, device), order):
            if found is None:
                found = np.full((len(tokens), given.shape[1]), np.nan)
            found[step.targets()] = given.detach().cpu().double().numpy()
        assert found is not None
        return found

    return logprobs


def changed(tokens: np.ndarray, at: int, vocab: int, seed: int = 0) -> np.ndarray:
    """The same up to `at`, and from there on another id everywhere."""
    other = np.random.default_rng([seed, at]).integers(1, vocab, size=len(tokens) - at)
    return np.concatenate([tokens[:at], ((tokens[at:].astype(np.int64) + other) % vocab).astype(tokens.dtype)])


def flip(
    logprobs: Logprobs,
    tokens: np.ndarray,
    places: Iterable[int] | None = None,
    tolerance: float = TOLERANCE,
    seed: int = 0,
) -> Finding:
    """Change tokens[t] and all after it: the distributions up to and including t stay. Once for every t of `places`.

    Without `places` every place is tried, N + 1 calls: a prediction that sees its own target is found at its own place only.
    """
    before = np.asarray(logprobs(tokens), dtype=np.float64)
    tried = list(range(len(tokens)) if places is None else places)
    worst, where, seen = 0.0, -1, 0
    for at in tried:
        after = np.asarray(logprobs(changed(tokens, at, before.shape[1], seed)), dtype=np.float64)
        moved = _moved(before[: at + 1], after[: at + 1])
        if moved.max() > tolerance:
            seen += 1
        if moved.max() > worst:
            worst, where = float(moved.max()), int(moved.argmax())
    return _flip_finding("flip", len(tried), len(tokens), seen, worst, where, tolerance)


def flip_steps(make: MakeMode, tokens: np.ndarray, bos: int, tolerance: float = TOLERANCE, **where_: Any) -> Finding:
    """`flip` at every place, at the cost of a step each: a mode is asked again for the step in which the place lies.

    What the mode has learned by then comes from scored targets alone if `flip` passes at a few places of the whole.
    """
    text, worst, where, seen = Text(tokens, np.ones_like(tokens), bos, **where_), 0.0, -1, 0
    mode = make()
    for step, given in walk(mode, text):
        targets = step.targets()
        for at in np.sort(targets):
            other = Text(changed(tokens, int(at), given.shape[1]), text.byte_lengths, bos, **where_)
            rows = np.flatnonzero(targets <= at)
            now = mode.predict(other, step)[rows].detach().cpu().double().numpy()
            moved = _moved(given[rows].detach().cpu().double().numpy(), now)
            if moved.max() > tolerance:
                seen += 1
            if moved.max() > worst:
                worst, where = float(moved.max()), int(targets[rows][moved.argmax()])
    return _flip_finding("flip-steps", len(tokens), len(tokens), seen, worst, where, tolerance)


def loss(before: np.ndarray, tokens: np.ndarray) -> Finding:
    """What the distributions themselves charge for the text, in nats a token; before: (N, V), row t that of tokens[t].

    The standard error is that of means over BLOCKS stretches: neighbours are alike, so single tokens would promise too much.
    """
    nats = -before[np.arange(len(tokens)), tokens]
    possible = nats[np.isfinite(nats)]  # the others cost infinitely much; one may be a rule on how texts open
    impossible = len(nats) - len(possible)
    parts = [float(part.mean()) for part in np.array_split(possible, BLOCKS) if len(part)]
    mean = float(possible.mean()) if len(possible) else math.nan
    error = float(np.std(parts, ddof=1)) / math.sqrt(len(parts)) if len(parts) > 1 else math.nan
    said = f"its distributions charge {mean:.4f} nats a token (standard error {error:.4f})"
    if impossible:
        said += f", {impossible} targets without any probability aside"
    return Finding("loss", True, said, {"targets": len(tokens), "nats": mean, "error": error, "impossible": impossible})


def _flip_finding(probe: str, tried: int, total: int, seen: int, worst: float, where: int, tolerance: float) -> Finding:
    said = f"{tried} places of {total} changed, nothing up to them moved"
    if seen:
        said = f"{seen} of {tried} changes were seen before they happened, most at target {where}"
    numbers = {"tried": tried, "targets": total, "seen": seen, "largest": worst, "at": where, "tolerance": tolerance}
    return Finding(probe, not seen, said, numbers)


def _moved(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Largest difference of each row; infinite where one is no number. Two impossible ids (-inf) are equal."""
    with np.errstate(invalid="ignore"):
        apart = np.where(one == other, 0.0, np.abs(one - other))
    return np.nan_to_num(apart, nan=np.inf).max(axis=1)


def sums(logprobs: Logprobs, tokens: np.ndarray, tolerance: float = SUM_TOLERANCE) -> Finding:
    """Every distribution sums to 1."""
    found = np.exp(np.asarray(logprobs(tokens), dtype=np.float64)).sum(axis=1)
    off = np.nan_to_num(np.abs(found - 1), nan=np.inf)
    at, bad = int(off.argmax()), int((off > tolerance).sum())
    said = f"{len(found)} distributions sum to 1"
    if bad:
        said = f"{bad} of {len(found)} distributions do not sum to 1: {found[at]:.6g} at target {at}"
    numbers = {"targets": len(found), "wrong": bad, "largest": float(off[at]), "at": at, "tolerance": tolerance}
    return Finding("sum", not bad, said, numbers)


def order(events: list[Event], total: int, parts: list[tuple[int, int]] | None = None) -> Finding:
    """Each of `total` targets is scored once, before any update that used it, and nothing changes while scoring.

    parts: stretches [first, stop) that may be scored in any order, each from left to right; None: the whole.
    """
    scored = np.full(total, -1)
    faults = {"twice": 0, "used before scored": 0, "changed while scoring": 0, "changed in between": 0, "backwards": 0}
    count = updates = 0
    for number, event in enumerate(events):
        if number and event.before != events[number - 1].after:
            faults["changed in between"] += 1
        if event.kind == "update":
            updates += 1
            faults["used before scored"] += int((scored[event.at] < 0).sum())
            continue
        faults["changed while scoring"] += event.before != event.after
        faults["twice"] += int((scored[event.at] >= 0).sum())
        scored[event.at] = count + np.arange(len(event.at))
        count += len(event.at)
    for first, stop in parts or [(0, total)]:
        faults["backwards"] += int((np.diff(scored[first:stop]) <= 0).sum())
    faults["never"] = int((scored < 0).sum())
    bad = {name: number for name, number in faults.items() if number}
    said = f"{count} targets scored once each, {updates} updates after them, no change while scoring"
    if bad:
        said = ", ".join(f"{name}: {number}" for name, number in bad.items())
    return Finding("order", not bad, said, {"targets": count, "updates": updates, **faults})


def boundary(logprobs: Logprobs, tokens: np.ndarray, bos: int, tolerance: float = TOLERANCE, most: int = 20) -> Finding:
    """Documents scored alone are predicted as they are behind others; the first `most` after the first."""
    whole = np.asarray(logprobs(tokens), dtype=np.float64)
    documents = bounds(tokens, bos)[1 : most + 1]
    worst, where, bad = 0.0, -1, 0
    for first, stop in documents:
        moved = float(_moved(whole[first:stop], np.asarray(logprobs(tokens[first:stop]), dtype=np.float64)).max())
        bad += moved > tolerance
        if moved > worst:
            worst, where = moved, first
    said = (
        f"{len(documents)} documents alone are predicted as behind others" if documents else "the text is one document"
    )
    if bad:
        said = f"{bad} of {len(documents)} documents are predicted differently behind others, most the one at {where}"
    numbers = {"documents": len(documents), "wrong": bad, "largest": worst, "at": where, "tolerance": tolerance}
    return Finding("boundary", not bad and bool(documents), said, numbers)


def of_our_mode(
    make: MakeMode, tokens: np.ndarray, bos: int, device: torch.device | str = "cpu", flips: int = 8
) -> list[Finding]:
    """All probes of one mode: flips at every place within steps, and of the whole evaluation at `flips` places."""
    events: list[Event] = []
    first = of_mode(make, bos, device, events)(tokens)
    logprobs = of_mode(make, bos, device)
    places = np.unique(np.linspace(0, len(tokens) - 1, flips).astype(int)).tolist()
    isolated = make().isolated
    found = [
        flip(logprobs, tokens, places),
        flip_steps(make, tokens, bos, device=device),
        sums(lambda _: first, tokens),
        order(events, len(tokens), bounds(tokens, bos) if isolated or _by_document(make()) else None),
    ]
    shown = isolated and len(bounds(tokens, bos)) > 1  # one document alone has no boundary to show
    return found + ([boundary(logprobs, tokens, bos)] if shown else [])


def _by_document(mode: Mode) -> bool:
    """Whether documents go side by side, so that only within one all goes from left to right."""
    return hasattr(mode, "docs")
