"""Runs as tracking stores take them: params, metrics with steps, files. From the ledger and the run folders here."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from golfctl.domain import rundir
from golfctl.domain.run import RunRecord
from golfctl.domain.state import State
from golfctl.logs import Points, read_file
from golfctl.store.campaign import Campaign

VERSION = 1
"""Of what is exported of a run: a run that an earlier version exported is looked at again."""
CURVES = ("train_loss", "val_loss", "val_bpb")
"""Metrics with steps; all others are one figure for the run."""
TAILS = "tails"
"""Folder below the machine's own state where a runner keeps what it heard of logs (see runner/tails.py)."""


class Point(NamedTuple):
    """A metric at a step. ms: milliseconds of training until then, None where the log does not say."""

    name: str
    step: int
    ms: float | None
    value: float


@dataclass(frozen=True)
class Exported:
    """A run on its way out.

    digest: of everything that is exported of it. log: its log as far as it is here. folder: its files, where it is at home.
    """

    record: RunRecord
    digest: str
    log: Path
    folder: Path

    @property
    def params(self) -> Mapping[str, str]:
        """Settings as text: those the run resolved, else those it was given. They never change: a run that goes on has none."""
        if not self.record.finished:
            return {}
        resolved = self.record.result.settings if self.record.result else {}
        return {**self.record.spec.env, **{name: _text(value) for name, value in resolved.items()}}

    @property
    def figures(self) -> Mapping[str, float]:
        """What the run came to: score and costs, as far as they are numbers."""
        run, result = self.record, self.record.result
        found: dict[str, float | None] = {"wall_s": run.wall_s}
        if run.finished:
            found |= {"usd": run.usd, "saved_usd": run.saved_usd}
        if result:
            names = ("score", "step_avg_ms", "steps", "train_time_ms", "eval_time_ms", "peak_mem_mib")
            found |= {name: getattr(result, name) for name in (*names, "code_bytes", "model_bytes", "artifact_bytes")}
            found["score_loss"] = result.val_loss
        return {name: float(value) for name, value in found.items() if value is not None and math.isfinite(value)}

    def points(self) -> list[Point]:
        """The curves in its log, in order of steps; what is no number is left out, of two values at one step the last counts."""
        try:
            log = read_file(self.log).last
        except OSError:
            return []
        found = {
            (point.name, point.step): point
            for point in (
                *_points("train_loss", log.train, log.train.loss),
                *_points("val_loss", log.val, log.val.loss),
                *_points("val_bpb", log.val, log.val.bpb),
            )
        }
        return sorted(found.values(), key=lambda point: (CURVES.index(point.name), point.step))

    def files(self) -> list[Path]:
        """The files of the run that are here."""
        return sorted(path for path in self.folder.rglob("*") if path.is_file() and not path.is_symlink())


def listing(folder: Path, files: Sequence[Path]) -> str:
    """A hash of the names and sizes of a run's files: it changes when more of them are fetched."""
    named = sorted((path.relative_to(folder).as_posix(), path.stat().st_size) for path in files)
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()


def exported(campaign: Campaign, state: State) -> Iterator[Exported]:
    """Every run ever started, oldest first: also those without a score."""
    for record in state.runs.values():
        folder = campaign.runs_folder / record.spec.name
        heard = campaign.state_folder / TAILS / f"{record.spec.name}.log"
        log = folder / rundir.LOG if record.finished else heard
        yield Exported(record, _digest(record, log), log, folder)


def _digest(record: RunRecord, log: Path) -> str:
    """A log is told by its size: one that grows, and one that is brought here only after its run was exported."""
    size = log.stat().st_size if log.exists() else 0
    text = json.dumps([VERSION, size, asdict(record)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _points(name: str, points: Points, values: object) -> Iterator[Point]:
    for step, ms, value in zip(points.step, points.ms, values, strict=True):  # type: ignore[call-overload]
        if math.isfinite(value):
            yield Point(name, step, ms if math.isfinite(ms) else None, value)


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
