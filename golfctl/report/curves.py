"""Loss curves as data: what is drawn of a run, thinned to what a picture shows, between limits not set by early outliers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray

from golfctl.hostside.files import scrub
from golfctl.logs import RunLog

Array = NDArray[np.float64]
KINDS = ("train", "val", "bpb")
AXES = ("step", "time")
WORDS = {"train": "training loss (nats per token)", "val": "validation loss (nats per token)", "bpb": "bits per byte"}
TOP = 0.98
"""The part of a curve's length below the upper limit."""
ROOM = 0.2
"""What is left above it, as a part of the height."""


@dataclass(frozen=True, eq=False)
class Curve:
    """One run. x by axis: steps, and milliseconds of training (nan: not said); y: the loss, nan or inf: a gap.

    final: the value and label of the run's score, in the unit of y (a run scores in validation loss where y is training loss).
    end by axis: where the run ended.
    """

    name: str
    x: dict[str, Array]
    y: Array
    final: tuple[float, str] | None
    end: dict[str, float]

    def on(self, axis: str, log_x: bool = False) -> tuple[Array, Array]:
        """(x, y) of the points that have a place on the axis, in order of the log."""
        x = self.x[axis]
        placed = np.isfinite(x) & (x > 0) if log_x else np.isfinite(x)
        return x[placed], self.y[placed]

    @property
    def gaps(self) -> int:
        """Points whose loss is nan or inf."""
        return int(len(self.y) - np.isfinite(self.y).sum())


@dataclass(frozen=True)
class Limits:
    """Of the loss axis. above: points that lie over `high` and are not shown in their place."""

    low: float
    high: float
    above: int = 0

    def say(self) -> str:
        """`cut at 3.21: 14 points lie above`, "" where nothing is cut."""
        if not self.above:
            return ""
        return f"cut at {self.high:.4g}: {self.above:,} {'point lies' if self.above == 1 else 'points lie'} above"


def curve_of(run: RunLog, name: str, kind: str, smooth: int = 1) -> Curve | None:
    """The curve of a run; None if its log has no such number. smooth: each point is the mean of so many up to it."""
    points = run.train if kind == "train" else run.val
    loss, bpb = np.array(points.loss, dtype=float), np.array(points.bpb, dtype=float)
    y, other = (bpb, loss) if kind == "bpb" else (loss, bpb)
    here = ~(np.isnan(y) & ~np.isnan(other))  # a line that gives only the other number has no gap: it has no such point
    y = y[here]
    if not np.isfinite(y).any():
        return None
    steps = np.array(points.step, dtype=float)[here]
    x = {"step": steps, "time": _timed(run, steps, np.array(points.ms, dtype=float)[here])}
    return Curve(name, x, smoothed(y, smooth), _final(run, kind), _end(run, x))


def _timed(run: RunLog, steps: Array, ms: Array) -> Array:
    """ms, where a line says no time from the training lines before and after it (validation lines of a family have none)."""
    step, known = np.array(run.train.step, dtype=float), np.array(run.train.ms, dtype=float)
    said = np.isfinite(known)
    if run.steps_done and run.train_time_ms:
        step, known, said = np.append(step, run.steps_done), np.append(known, run.train_time_ms), np.append(said, True)
    if not said.any():
        return ms
    order = np.argsort(step[said], kind="stable")
    return np.where(np.isnan(ms), np.interp(steps, step[said][order], known[said][order], np.nan, np.nan), ms)


def _final(run: RunLog, kind: str) -> tuple[float, str] | None:
    if run.headline is None:
        return None
    value = run.headline.val_bpb if kind == "bpb" else run.headline.val_loss
    return (value, scrub(run.headline.label, 60)) if np.isfinite(value) else None


def _end(run: RunLog, x: dict[str, Array]) -> dict[str, float]:
    step = max([run.steps_done or 0.0, *x["step"].tolist()[-1:]])
    ms = np.max(x["time"], initial=run.train_time_ms or 0.0, where=np.isfinite(x["time"]))
    return {"step": float(step), "time": float(ms) or np.nan}


def smoothed(y: Array, count: int) -> Array:
    """The mean of each point and the count - 1 before it, gaps left out; a gap stays one."""
    if count <= 1 or not len(y):
        return y
    finite = np.isfinite(y)
    sums = np.concatenate(([0.0], np.cumsum(np.where(finite, y, 0.0))))
    counts = np.concatenate(([0], np.cumsum(finite)))
    ends = np.arange(1, len(y) + 1)
    starts = np.maximum(ends - count, 0)
    known = np.maximum(counts[ends] - counts[starts], 1)
    return np.where(finite, (sums[ends] - sums[starts]) / known, np.nan)


def thinned(x: Array, y: Array, columns: int, log_x: bool = False) -> tuple[Array, Array]:
    """What so many pixel columns can show: of each the first, lowest, highest and last point and a gap, in their order."""
    if len(x) <= 4 * columns:
        return x, y
    place = np.log(x) if log_x else x
    width = (place.max() - place.min()) or 1.0
    column = np.minimum((place - place.min()) / width * columns, columns - 1).astype(np.int64)
    starts = np.concatenate(([0], np.flatnonzero(np.diff(column)) + 1))
    group = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(x))))
    finite = np.isfinite(y)
    kept = {*starts.tolist(), *(np.append(starts[1:], len(x)) - 1).tolist()}
    for gaps_last in (np.where(finite, y, np.inf), np.where(finite, -y, np.inf), finite.astype(float)):
        best = np.minimum.reduceat(gaps_last, starts)
        hits = np.flatnonzero(gaps_last == best[group])
        _, first = np.unique(group[hits], return_index=True)
        kept.update(hits[first].tolist())
    order = np.array(sorted(kept), dtype=np.int64)
    return x[order], y[order]


def limits_of(curves: Sequence[Curve], axes: Sequence[str], log_x: bool = False) -> Limits:
    """One pair of limits for all axes: each curve but the first part of it, where it falls from far above; finals lie within."""
    seen = np.concatenate([curve.y[np.isfinite(curve.y)] for curve in curves])
    finals = [curve.final[0] for curve in curves if curve.final]
    highs = [_high(*curve.on(axis, log_x), log_x) for curve in curves for axis in axes]
    low, high, top = min([seen.min(), *finals]), max([-np.inf, *highs, *finals]), max([seen.max(), *finals])
    high += ROOM * (high - low)
    if not np.isfinite(high) or top <= low + 1.3 * (high - low):
        high = top
    rim = 0.04 * (high - low) or 0.05 * abs(low) or 1.0
    return Limits(float(low - rim), float(high + rim), int((seen > high + rim).sum()))


def _high(x: Array, y: Array, log_x: bool) -> float:
    """The value that TOP of the curve's length lies below; -inf without points.

    By length and not by points, because logs have most of their first steps; each point stands for the way that led to it.
    """
    x, y = x[np.isfinite(y)], y[np.isfinite(y)]
    if not len(x):
        return -np.inf
    order = np.argsort(x, kind="stable")
    place, y = np.log(x[order]) if log_x else x[order], y[order]
    if place[0] == place[-1]:
        return float(y.max())
    way = np.diff(place, prepend=place[0])
    order = np.argsort(y, kind="stable")
    return float(y[order][np.searchsorted(np.cumsum(way[order]), TOP * way.sum())])


def names(paths: Sequence[PurePath]) -> list[str]:
    """The shortest name for each path that tells it from the others: one part of it, else its last parts, else all, numbered."""
    if len(paths) == 1:
        return [scrub(paths[0].name, 100)]
    depth = max(len(path.parts) for path in paths)
    for back in range(1, depth + 1):
        parts = [path.parts[-back] if len(path.parts) >= back else "" for path in paths]
        if len(set(parts)) == len(paths) and all(parts):
            return [scrub(part, 100) for part in _stems(parts)] if back == 1 else [scrub(part, 100) for part in parts]
    for back in range(2, depth + 1):
        tails = ["/".join(path.parts[-back:]) for path in paths]
        if len(set(tails)) == len(paths):
            return [scrub(tail, 200) for tail in tails]
    return [f"{scrub(path.name, 100)} ({number})" for number, path in enumerate(paths, start=1)]


def _stems(parts: list[str]) -> list[str]:
    stems = [PurePath(part).stem for part in parts]
    alike = len({PurePath(part).suffix for part in parts}) == 1
    return stems if alike and len(set(stems)) == len(parts) else parts
