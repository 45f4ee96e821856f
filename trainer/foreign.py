"""The probes for a model that is not ours: a Python file of a few lines with `logprobs(tokens)` is all they need.

    def logprobs(tokens):  # (T,) int64 -> (T, V) log-probabilities, row t of tokens[t] from what stands before it

It may say more: `tokens()`, (N,) ids of a text to probe, best the validation text (without it, ids are drawn at random, and no
loss is told); `BOS`, the id that opens every document, where documents are said to be predicted independently; `TOLERANCE`, nats
by which equal answers may differ. The file is run: whoever audits a stranger's model does it in a process of its own, as
`golfctl audit --adapter` does.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainer.evaluate import probes
from trainer.evaluate.probes import Finding, Logprobs

TOLERANCE = 1e-4
"""Nats: kernels in float32 answer a shorter text a little differently."""
CUTS = 3
"""Beginnings of the text that are predicted alone, beside the whole."""
DOCUMENTS = 20
"""Documents that are predicted alone."""


@dataclass(frozen=True)
class Adapter:
    """logprobs: its answers, checked for their shape. tokens: (N,) the text to probe. bos: None where none is claimed to open.

    own: whether the text is the adapter's, not drawn at random.
    """

    logprobs: Logprobs
    tokens: np.ndarray
    bos: int | None
    tolerance: float
    own: bool = True


def load(path: Path, count: int) -> Adapter:
    """Run an adapter file, and take the first `count` tokens of its text. Raises ValueError, and what the file raises."""
    spec = importlib.util.spec_from_file_location("adapter", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    answer = getattr(module, "logprobs", None)
    if not callable(answer):
        raise ValueError(f"{path}: has no function logprobs(tokens)")
    logprobs = _checked(answer, path)
    text = getattr(module, "tokens", None)
    if text is None:
        vocab = logprobs(np.zeros(2, dtype=np.int64)).shape[1]
        ids = np.random.default_rng(0).integers(vocab, size=count)
    else:
        ids = np.asarray(text() if callable(text) else text)
    if ids.ndim != 1 or len(ids) < 2:
        raise ValueError(f"{path}: tokens() gives shape {ids.shape}; ids in one dimension were expected, two at least")
    return Adapter(
        logprobs,
        ids[:count].astype(np.int64),
        getattr(module, "BOS", None),
        getattr(module, "TOLERANCE", TOLERANCE),
        text is not None,
    )


def _checked(answer: Callable[[np.ndarray], object], path: Path) -> Logprobs:
    def logprobs(tokens: np.ndarray) -> np.ndarray:
        found = np.asarray(answer(tokens.copy()), dtype=np.float64)
        if found.ndim != 2 or len(found) != len(tokens):
            raise ValueError(
                f"{path}: logprobs of {len(tokens)} tokens has shape {found.shape}, not ({len(tokens)}, V)"
            )
        return found

    return logprobs


def probe(adapter: Adapter, seconds: float) -> list[Finding]:
    """Flip, sum, order, loss on a text of its own, and boundary where independence is claimed.

    seconds: for the flips, of which it does as many as fit.
    """
    tokens = adapter.tokens
    began = time.perf_counter()
    before = adapter.logprobs(tokens)
    if not (tokens.min() >= 0 and tokens.max() < before.shape[1]):
        raise ValueError(
            f"tokens() holds ids from {tokens.min()} to {tokens.max()}; it predicts 0 to {before.shape[1] - 1}"
        )
    each = time.perf_counter() - began
    found = [
        probes.sums(lambda _: before, tokens),
        order(adapter.logprobs, tokens, before, adapter.tolerance),
        probes.flip(adapter.logprobs, tokens, places(len(tokens), seconds / max(each, 1e-9)), adapter.tolerance),
    ]
    if adapter.own:
        found.append(probes.loss(before, tokens))
    if adapter.bos is not None:
        found.append(boundary(adapter.logprobs, tokens, before, adapter.bos, adapter.tolerance))
    return found


def places(total: int, affordable: float) -> list[int]:
    """Places to change: all of them if there is time, else so many, drawn at random, so that no pattern of leaks evades them."""
    if affordable >= total:
        return list(range(total))
    drawn = np.random.default_rng(0).choice(total, size=max(1, int(affordable)), replace=False)
    return sorted(drawn.tolist())


def order(logprobs: Logprobs, tokens: np.ndarray, before: np.ndarray, tolerance: float) -> Finding:
    """Asked again the answers are the same, and a beginning alone is predicted as within the whole.

    Last-epoch scoring fails one of the two: it learns from the whole text before it answers, or keeps what it learned for the
    next time. before: (N, V), what it said first.
    """
    cuts = sorted({max(1, len(tokens) * part // (CUTS + 1)) for part in range(1, CUTS + 1)})
    again = probes._moved(before, logprobs(tokens))
    moved = [probes._moved(before[:cut], logprobs(tokens[:cut])) for cut in cuts]
    faults = {
        "answers differ when asked again": int((again > tolerance).sum()),
        "answers differ without what comes later": int(sum((item > tolerance).sum() for item in moved)),
    }
    bad = {name: number for name, number in faults.items() if number}
    said = f"asked again, and for {len(cuts)} beginnings alone, the answers are the same"
    if bad:
        said = ", ".join(f"{name}: {number}" for name, number in bad.items())
    worst = max(float(item.max()) for item in [again, *moved])
    return Finding("order", not bad, said, {"targets": len(tokens), "largest": worst, "tolerance": tolerance, **faults})


def boundary(logprobs: Logprobs, tokens: np.ndarray, before: np.ndarray, bos: int, tolerance: float) -> Finding:
    """Documents alone are predicted as they are behind others, but for the id that opens them: it ends the one before."""
    opens = np.flatnonzero(tokens == bos)[: DOCUMENTS + 1]
    moved = {
        int(first): float(probes._moved(before[first:stop], logprobs(tokens[first:stop]))[1:].max())
        for first, stop in zip(opens, [*opens[1:], len(tokens)], strict=False)
        if first > 0 and stop > first + 1
    }
    where = max(moved, key=lambda first: moved[first], default=-1)
    bad = sum(item > tolerance for item in moved.values())
    said = f"{len(moved)} documents alone are predicted as behind others" if moved else "the text is one document"
    if bad:
        said = f"{bad} of {len(moved)} documents are predicted differently behind others, most the one at {where}"
    numbers = {"documents": len(moved), "wrong": bad, "largest": moved.get(where, 0.0), "at": where}
    return Finding("boundary", not bad and bool(moved), said, numbers | {"tolerance": tolerance})
