"""What evaluations of one log say together: which lines mean the same one, how long evaluation took."""

from __future__ import annotations

from golfctl.logs import Eval, RunLog


def twin(item: Eval, other: Eval) -> bool:
    """Whether both may be one evaluation, printed with more or fewer digits: often only one of the two lines carries the time."""
    return abs(item.val_bpb - other.val_bpb) <= 0.50001 * 10.0 ** -min(item.digits, other.digits)


def seconds(run: RunLog, scored: Eval | None) -> float | None:
    """How long evaluation took in seconds: as the log totals it, or as the line of the score or a twin says; the longer."""
    times = [run.total_eval_time_s] if run.total_eval_time_s else []
    if scored:
        times += [item.eval_time_ms / 1000 for item in run.evals if twin(item, scored) and item.eval_time_ms]
    return max(times, default=None)
