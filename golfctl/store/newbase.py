"""What a foreign script and its logs say of themselves before it is frozen: the score's label, step time, artifact."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from golfctl.errors import InputError
from golfctl.logs import RunLog, read_file
from golfctl.store.labels import choose, score_labels
from golfctl.store.marks import one_line
from golfctl.store.syntax import read_script


@dataclass(frozen=True)
class Label:
    """A score label, and why this one: a sentence without a full stop."""

    name: str
    why: str


@dataclass(frozen=True)
class Said:
    """What the last run of each log says: median of the mean step times in ms, largest artifact in bytes, the seeds."""

    logs: int
    step_avg_ms: float | None
    artifact_bytes: int | None
    score: tuple[float, ...]


def read_logs(paths: Sequence[Path]) -> list[RunLog]:
    """The last run of each log file. Raises InputError for one that can't be read or holds no run."""
    found = []
    for path in paths:
        try:
            run = read_file(path).last
        except OSError as error:
            raise InputError(f"--log {path}: can't be read: {error.strerror}") from None
        if run.empty:
            raise InputError(f"--log {path}: no line of it is a step or a score of any log family that is known")
        found.append(run)
    return found


def summarise(runs: Sequence[RunLog], label: str) -> Said:
    """What the logs say under this label."""
    times = [run.step_avg_ms for run in runs if run.step_avg_ms is not None]
    sizes = [run.artifact_bytes for run in runs if run.artifact_bytes is not None]
    scores = [item.val_bpb for run in runs if (item := run.final(label)) and math.isfinite(item.val_bpb)]
    return Said(len(runs), median(times) if times else None, max(sizes, default=None), tuple(scores))


def label_of(path: Path, runs: Sequence[RunLog], logs: Sequence[Path]) -> Label:
    """The label of the score: the headline of the logs, else the only final line the source prints.

    Raises InputError, naming the candidates, where that leaves a choice: which line is the score is not guessed.
    """
    printed = _printed(path)
    if runs:
        return _from_logs(runs, logs)
    if chosen := choose(printed):
        return Label(chosen, f"the only final line that {path.name} prints")
    said = f"{path.name} prints {', '.join(printed)}" if printed else f"no final line can be seen in {path.name}"
    raise InputError(
        f"--score-label: {said}; say which line of the log carries the score, or give a log of it with --log FILE"
    )


def doubt(path: Path, label: str) -> str | None:
    """What speaks against a label: the source prints others. None if nothing does."""
    printed = [name for name in _printed(path) if "*" not in name]
    if not printed or label in printed or label.removesuffix("_exact") in printed or f"{label}_exact" in printed:
        return None
    return f"no line of {path.name} is seen to print {label}; it prints {', '.join(printed)}"


def _printed(path: Path) -> list[str]:
    return score_labels(read_script(path), path.name)


def _from_logs(runs: Sequence[RunLog], logs: Sequence[Path]) -> Label:
    headlines = [(path, run) for path, run in zip(logs, runs, strict=True) if run.headline is not None]
    if not headlines:
        raise InputError("--score-label: no --log ends with a score; say which line carries it")
    names = {run.headline.label: path for path, run in headlines if run.headline}
    if len(names) > 1:
        said = ", ".join(f"{one_line(name)} ({path.name})" for name, path in names.items())
        raise InputError(f"--score-label: the logs end with different lines: {said}; say which carries the score")
    first = headlines[0][1]
    return Label(next(iter(names)), f"the last word of the logs ({first.headline_reason})")
