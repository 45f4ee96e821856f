"""A log as plain data: the field names that `log parse` prints."""

from __future__ import annotations

import math
from typing import Any

from golfctl.logs.record import LogFile, RunLog

_FIELDS = (
    "family",
    "seed",
    "world_size",
    "grad_accum",
    "model_params",
    "iterations_planned",
    "max_wallclock_s",
    "steps_done",
    "step_avg_ms",
    "step_avg_source",
    "train_time_ms",
    "stopped_early",
    "code_bytes",
    "model_bytes",
    "artifact_bytes",
    "artifact_mb_rounded",
    "codec",
    "prequant_val_bpb",
    "prequant_val_loss",
    "peak_mem_mib",
    "reserved_mem_mib",
    "val_tokens",
    "total_eval_time_s",
)
_SHORT = ("seed", "steps_done", "artifact_bytes", "train_time_ms", "prequant_val_bpb")


def describe(log: LogFile, explain: bool = False) -> dict[str, Any]:
    """The run a file is about, and in `other_runs` what came before it. nan is the text "nan"; what a log does not say is None.

    explain: with `lines`, the line (from 1) behind each number, and `headline_reason`.
    """
    run = log.last
    content = {name: plain(getattr(run, name)) for name in _FIELDS}
    content["evals"] = [
        {
            "label": item.label,
            "val_loss": _loss(item.val_loss, item.label),
            "val_bpb": plain(item.val_bpb),
            "eval_time_ms": plain(item.eval_time_ms),
            "digits": item.digits,
        }
        for item in run.evals
    ]
    content |= _headline(run)
    content |= {
        "n_train_points": run.train.distinct,
        "n_val_points": run.val.distinct,
        "outcome": run.outcome,
        "other_runs": [_other(other) for other in log.runs[:-1]],
        "copies": run.copies,
        "warnings": [*log.warnings, *run.warnings],
    }
    if explain:
        content["lines"] = run.lines | {f"evals[{index}]": item.line for index, item in enumerate(run.evals)}
        content["lines"] |= {"headline_val_bpb": run.headline.line} if run.headline else {}
        content["headline_reason"] = run.headline_reason
    return content


def _headline(run: RunLog) -> dict[str, Any]:
    found = run.headline
    return {
        "headline_label": found.label if found else None,
        "headline_val_bpb": plain(found.val_bpb) if found else None,
        "headline_val_loss": _loss(found.val_loss, found.label) if found else None,
    }


def _other(run: RunLog) -> dict[str, Any]:
    content = {name: plain(getattr(run, name)) for name in _SHORT}
    content["headline_val_bpb"] = _headline(run)["headline_val_bpb"]
    return content | {
        "stopped_early": run.stopped_early,
        "n_train_points": run.train.distinct,
        "n_val_points": run.val.distinct,
        "outcome": run.outcome,
    }


def _loss(value: float, label: str) -> Any:
    """A closing summary gives a score without a loss."""
    return None if label == "val_bpb" and math.isnan(value) else plain(value)


def plain(value: Any) -> Any:
    """As JSON can hold it: whole numbers without a point, nan and inf as text."""
    if isinstance(value, float):
        if not math.isfinite(value):
            return str(value)
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    return value
