"""Full records of runs and leaderboard entries as JSON for the page's script; what many share is written once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from golfctl.domain.run import RunRecord, RunResult
from golfctl.report.html.words import LONGEST
from golfctl.report.model import Entry, Report

COLUMNS = (
    "name",
    "plan",
    "gate",
    "seed",
    "attempt",
    "outcome",
    "score",
    "step_ms",
    "bytes",
    "usd",
    "seconds",
    "host",
    "started",
    "reason",
)
"""Of the table, in order; what a full record has beyond follows as references into `shared`."""
SHARED = ("bundle", "command", "asked", "rules", "settings", "environment", "numbers", "warnings", "marks")
_OWN = ("SEED", "OUT_DIR")
"""Settings that differ from run to run, or tell nothing: they would keep equal settings from being written once."""


class _Pool:
    """Values by number."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._known: dict[str, int] = {}

    def ref(self, value: Any) -> int:
        key = json.dumps(value, sort_keys=True, default=str)
        if key not in self._known:
            self._known[key] = len(self.values)
            self.values.append(value)
        return self._known[key]


def of_page(report: Report) -> str:
    """The text of the page's data script: JSON in which no tag can end."""
    pool = _Pool()
    runs = [_run(run, pool) for run in report.runs.values()]
    content = {
        "score": report.score,
        "columns": COLUMNS,
        "more": SHARED,
        "runs": runs,
        "shared": pool.values,
        "entries": [_entry(entry) for entry in report.entries],
    }
    return _safe(json.dumps(content, ensure_ascii=False, separators=(",", ":"), default=str, allow_nan=False))


def _safe(text: str) -> str:
    """JSON in HTML: no `<` in it, and no half of a surrogate pair."""
    return text.replace("<", "\\u003c").encode("utf-8", "replace").decode()


def _run(run: RunRecord, pool: _Pool) -> list[Any]:
    spec, result = run.spec, run.result or RunResult()
    asked = {name: value for name, value in spec.env.items() if name not in _OWN}
    settings = {name: value for name, value in result.settings.items() if name not in _OWN and name not in asked}
    own = [
        spec.name,
        spec.owner,
        spec.gate,
        spec.seed,
        spec.attempt,
        run.ending,
        _rounded(result.score, 6),
        _rounded(result.step_avg_ms, 2),
        result.artifact_bytes,
        round(run.usd, 4),
        _rounded(run.wall_s, 1),
        spec.host,
        run.launched_at,
        run.reason[:LONGEST],
    ]
    shared: Sequence[Any] = (
        spec.bundle,
        " ".join(spec.argv),
        asked,
        dict(spec.rules),
        settings,
        dict(result.environment),
        _numbers(result),
        list(result.warnings),
        _marks(run),
    )
    return own + [pool.ref(value) for value in shared]


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _numbers(result: RunResult) -> Mapping[str, Any]:
    known = {
        "validation loss": _rounded(result.val_loss, 6),
        "steps": result.steps,
        "training seconds": _rounded(result.train_time_ms and result.train_time_ms / 1000, 1),
        "evaluation seconds": _rounded(result.eval_time_ms and result.eval_time_ms / 1000, 1),
        "memory, MiB": result.peak_mem_mib,
        "code bytes": result.code_bytes,
        "model bytes": result.model_bytes,
        "data": result.data,
        "code sha256": result.code_sha256,
        "metric version": result.metric_version,
    }
    return {name: value for name, value in known.items() if value is not None}


def _marks(run: RunRecord) -> list[str]:
    """What a person should know about how it counts."""
    found = [f"run again because: {run.excused}"] if run.excused else []
    found += ["withdrawn: it was never started"] if run.withdrawn else []
    found += [f"the machine failed it ({run.fault})"] if run.host_failed else []
    found += ["its score is what the script says of itself"] if run.result and run.result.self_reported else []
    found += [f"${run.saved_usd:.2f} saved by its abort"] if run.saved_usd else []
    return found


def _entry(entry: Entry) -> dict[str, Any]:
    return {
        "key": entry.key,
        "title": entry.title,
        "folder": entry.folder,
        "track": entry.track,
        "date": entry.date,
        "authors": ", ".join(entry.authors),
        "mean of its logs": entry.mean,
        "sd": entry.sd,
        "n": entry.n,
        "claimed": entry.claimed,
        "bytes": entry.size,
        "quantisation": entry.scheme,
        "techniques": ", ".join(entry.tags),
        "frontier": "moved it" if entry.frontier else "",
        "breaks": list(entry.wrong),
        "issues": list(entry.issues),
    }
