"""How a run ended, from its log alone: a traceback that the run survived is none."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from golfctl.logs.record import RunLog

OUTCOMES = ("ok", "crashed", "nan", "oom", "killed", "truncated", "diverged")
_OOM = re.compile(r"out of memory|OutOfMemoryError|CUBLAS_STATUS_ALLOC_FAILED", re.IGNORECASE)
_KILLED = re.compile(
    r"^\s*Killed\b|SIGKILL|exitcode\s*:\s*-9\b|exit(?:ed with)? code:? -?(?:9|137)\b|slurmstepd: error: .*(?:CANCELLED|oom|TIME)"
)
_CRASH = re.compile(
    r"Traceback \(most recent call last\)|^\S*(?:Error|Exception|Interrupt)\b(?::|$)|SIGSEGV|SIGABRT|Segmentation fault"
    r"|exitcode\s*:\s*(?!0\b)-?\d|ChildFailedError|exit(?:ed with)? code:? -?(?!0\b)\d"
)
RISE = 0.3
"""Nats by which the last validation loss must lie above the best one to be called divergence."""


class Signs:
    """Lines that tell an end, newest of each kind."""

    def __init__(self) -> None:
        self.lines: dict[str, int] = {}

    def add(self, kind: str, line: int) -> None:
        """A line of this kind."""
        self.lines[kind] = line


def sign(text: str) -> str | None:
    """What kind of end a line tells, None if none."""
    if _OOM.search(text):
        return "oom"
    if _KILLED.search(text):
        return "killed"
    return "crashed" if _CRASH.search(text) else None


def outcome(log: RunLog, signs: Signs, cut: bool) -> tuple[str | None, str]:
    """(one of OUTCOMES or, where nothing was trained or scored, None; a warning or "")."""
    last = max(
        (log.lines.get(name, 0) for name in ("steps_done", "artifact_bytes", "stopped_early", "total_eval_time_s")),
        default=0,
    )
    last = max([last, *(item.line for item in log.evals)])
    later = {kind for kind, line in signs.lines.items() if line > last}
    for kind in ("oom", "killed", "crashed"):
        if kind in later:
            return kind, f"line {signs.lines[kind]}: the log ends with signs of: {kind}"
    if log.empty and log.model_params is None:
        return None, "no training and no evaluation in the log"
    if _is_nan(log):
        return "nan", "the last loss is nan"
    if _diverged(log):
        return "diverged", "the validation loss ended far above its best"
    if log.headline is not None:
        return "ok", "ended in the middle of a line" if cut else _unexplained(log)
    planned = log.iterations_planned
    done = log.stopped_early or (planned is not None and log.steps_done is not None and log.steps_done >= planned)
    if done and not cut:
        return "ok", "no evaluation of a packed model in the log"
    return "truncated", "the log ends before the run does"


def _unexplained(log: RunLog) -> str:
    planned, done = log.iterations_planned, log.steps_done
    if not log.stopped_early and planned and done and done < planned:
        return f"ended at step {done} of {planned} without saying why"
    return ""


def _is_nan(log: RunLog) -> bool:
    newest = max(
        (points for points in (log.train, log.val) if points), key=lambda points: points.line[-1], default=None
    )
    scored = log.headline.val_bpb if log.headline else 0.0
    return not math.isfinite(scored) or (
        newest is not None and math.isnan(newest.loss[-1]) and math.isnan(newest.bpb[-1])
    )


def _diverged(log: RunLog) -> bool:
    """Its loss came back to where it began, or far above its best."""
    for points in (log.val, log.train):
        if len(points) >= 3 and not math.isnan(points.loss[0]) and not math.isnan(points.loss[-1]):
            first, best, last = points.loss[0], min(points.loss), points.loss[-1]
            return last - best > RISE and last >= first - 0.1 * (first - best)
    return False
