"""Limits on a run, and judging its log against them as it grows. Standard library, Python >= 3.9."""

from __future__ import annotations

import math
import re
from typing import Any

LINE_CAP = 4096
"""No log line with metrics is longer (bytes); the rest of a longer line is dropped unread."""

_NUMBER = rb"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_STEP = re.compile(rb"(?<![\w.])step\s*[:=]?\s*(\d{1,12})(?!\w)", re.IGNORECASE)
_BAD_LOSS = re.compile(
    rb"(?<![\w.])((?:train_|val_)?loss)\s*[:=]\s*([-+]?(?:nan|inf(?:inity)?))(?![\w.])", re.IGNORECASE
)
_CODE = re.compile(rb"[#\"'`(]")  # scripts of the field print their own source into the log
_UNITS = {b"": 1.0, b"ms": 1.0, b"s": 1e3, b"us": 1e-3}


class Rules:
    """Limits on what a log says. Feed it bytes as they arrive; `feed` returns a reason as soon as a rule fires."""

    def __init__(self, rules: dict[str, Any]) -> None:
        """Raises ValueError on an unknown rule or a value of the wrong kind."""
        allowed = ("wallclock_s", "stall_s", "grace_s", "nan", "limits")
        for key in rules:
            if key not in allowed:
                raise ValueError(f"rules.{key}: unknown rule; allowed are {', '.join(allowed)}")
        self.wallclock_s = _seconds(rules, "wallclock_s", math.inf)
        self.stall_s = _seconds(rules, "stall_s", math.inf)
        self.grace_s = _seconds(rules, "grace_s", 5.0)
        self.nan = bool(rules.get("nan", False))
        self.limits = [_limit(limit) for limit in rules.get("limits") or []]
        self.last_step: int | None = None
        self._partial = b""

    def feed(self, data: bytes) -> str | None:
        """Judge every line these bytes complete; a line ends with \\n or \\r. Memory stays below LINE_CAP + len(data)."""
        lines = (self._partial + data).replace(b"\r", b"\n").split(b"\n")
        self._partial = lines.pop()[:LINE_CAP]
        for line in lines:
            reason = self._judge(line)
            if reason:
                return reason
        return None

    def finish(self) -> str | None:
        """Judge the last line if it has no end."""
        return self.feed(b"\n")

    def _judge(self, line: bytes) -> str | None:
        if len(line) >= LINE_CAP:
            line = line[:LINE_CAP].rpartition(b" ")[0]  # the last word may be cut
        step = _plain(_STEP.search(line))
        if step:
            self.last_step = int(step[1])
        bad = _BAD_LOSS.search(line) if self.nan else None
        if bad and (step or _plain(bad)):
            at = "" if self.last_step is None else f" at step {self.last_step}"
            return f"{bad[1].decode()} is {bad[2].decode()}{at}"
        if step:
            for metric, pattern, maximum, after in self.limits:
                match = pattern.search(line) if int(step[1]) >= after else None
                value = float(match[1]) * _UNITS[match[2] or b""] if match else 0.0
                if match and value > maximum:
                    return f"{metric} {value:g} > {maximum:g} at step {int(step[1])} (limit from step {after})"
        return None


def _plain(match: re.Match[bytes] | None) -> re.Match[bytes] | None:
    """The match unless what stands before it looks like program text."""
    return match if match and not _CODE.search(match.string, 0, match.start()) else None


def finite(value: Any, what: str) -> float:
    """`value` as a finite number. Raises ValueError naming `what`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{what}: {value!r} is not a number")
    return float(value)


def _seconds(rules: dict[str, Any], key: str, default: float) -> float:
    value = default if rules.get(key) is None else finite(rules[key], f"rules.{key}")
    if value < 0:
        raise ValueError(f"rules.{key}: {value:g} must not be negative")
    return value


def _limit(limit: Any) -> tuple[str, re.Pattern[bytes], float, int]:
    if not isinstance(limit, dict) or not {"metric", "max"} <= set(limit) <= {"metric", "max", "after_step"}:
        raise ValueError(f"rules.limits: {limit!r} must have metric and max, may have after_step")
    metric = str(limit["metric"])
    key = re.escape(metric[:-3] if metric.endswith("_ms") else metric).encode()
    unit = rb"(?:_ms)?\s*[:=]\s*(%s)\s*(ms|us|s)?(?![\w.])" if metric.endswith("_ms") else rb"\s*[:=]\s*(%s)()(?![\w.])"
    after = int(finite(limit.get("after_step", 0), "rules.limits.after_step"))
    return metric, re.compile(rb"(?<!\w)" + key + unit % _NUMBER), finite(limit["max"], "rules.limits.max"), after
