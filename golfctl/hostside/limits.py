"""Limits on numbers in a log: a value, its mean over a window, a loss that blows up. Standard library, Python >= 3.9."""

from __future__ import annotations

import math
import re
from typing import Any, List, Optional, Tuple

Finding = Tuple[str, List[bytes]]
"""Why a rule fired, and the log lines it fired on."""
KEPT = 64
"""A window is kept as about this many points, however often the log prints a line."""

_NUMBER = rb"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_UNITS = {b"": 1.0, b"ms": 1.0, b"s": 1e3, b"us": 1e-3}
_TRAINED = rb"(?<![\w.])(?:train_time(?:_ms)?\s*[:=]\s*(%s)\s*(ms|us|s)?|t\s*[:=]\s*(%s)(ms|s))(?![\w.])" % (
    _NUMBER,
    _NUMBER,
)
_LOSS = rb"(?i)(?<![\w.])(?:train_)?loss\s*[:=]\s*(%s)(?![\w.])" % _NUMBER
_KEYS = ("metric", "max", "after_step", "window", "scale", "at_gpus")


class Limit:
    """A metric of step lines may not exceed `max` from `after_step` on; with `window`, its mean over that many steps.

    step_avg_ms over a window is d(train time) / d(step) between two lines at least `window` steps apart, warm-up and
    compilation left out. The time is the line's train_time (or `t:`), else step_avg * step, which takes step_avg for the
    mean since the start. Any other metric over a window is the mean of its printed values. Compared is value / scale.
    """

    def __init__(self, limit: Any) -> None:
        """Raises ValueError on an unknown key or a value of the wrong kind."""
        if not isinstance(limit, dict) or not {"metric", "max"} <= set(limit) <= set(_KEYS):
            raise ValueError(f"rules.limits: {limit!r} must have metric and max, may have {', '.join(_KEYS[2:])}")
        self.metric = str(limit["metric"])
        self.maximum = finite(limit["max"], "rules.limits.max")
        self.after = int(finite(limit.get("after_step", 0), "rules.limits.after_step"))
        self.window = _positive(limit, "window")
        self.scale = _positive(limit, "scale")
        self.at_gpus = _positive(limit, "at_gpus")
        timed = self.metric.endswith("_ms")
        key = re.escape(self.metric[:-3] if timed else self.metric).encode()
        value = rb"(?:_ms)?\s*[:=]\s*(%s)\s*(ms|us|s)?(?![\w.])" if timed else rb"\s*[:=]\s*(%s)()(?![\w.])"
        self._pattern = re.compile(rb"(?<!\w)" + key + value % _NUMBER)
        self.forget()

    def forget(self) -> None:
        """Another training run begins in the same log."""
        # Oldest first: (step, x, y, line); the mean between two points is dy / dx.
        self._points: list[tuple[int, float, float, bytes]] = []
        self._exact = False  # y is a printed time, not a product
        self._count, self._sum = 0, 0.0

    def judge(self, step: int, line: bytes, lagging: bool) -> Optional[Finding]:
        """What is wrong with a step line. `lagging`: a higher step was printed before, as several ranks do."""
        if step < self.after:
            return None
        match = self._pattern.search(line)
        value = float(match[1]) * _UNITS[match[2] or b""] if match else None
        if self.window:
            return None if lagging else self._judge_window(step, value, line)
        if value is None or value / (self.scale or 1.0) <= self.maximum:
            return None
        return self._tell(value, f"at step {step}"), [line]

    def _judge_window(self, step: int, value: Optional[float], line: bytes) -> Optional[Finding]:
        point = self._trained(step, value, line) if self.metric == "step_avg_ms" else self._summed(value)
        if point is None or (self._points and step <= self._points[-1][0]):
            return None
        x, y = point
        if self._exact and self._points and y < self._points[-1][2]:
            self._points = []  # the script set its clock back
        while len(self._points) > 1 and step - self._points[1][0] >= (self.window or 0):
            del self._points[0]
        first = self._points[0] if self._points else None
        if first is None or (step - self._points[-1][0]) * KEPT >= (self.window or 0):
            self._points.append((step, x, y, line[:500]))
        if first is None or step - first[0] < (self.window or 0):
            return None
        mean = (y - first[2]) / (x - first[1])
        if mean / (self.scale or 1.0) <= self.maximum:
            return None
        return self._tell(mean, f"over steps {first[0]}-{step}"), [first[3], line]

    def _trained(self, step: int, average: Optional[float], line: bytes) -> Optional[tuple[float, float]]:
        """(step, milliseconds trained until then); None where the line does not say."""
        match = re.search(_TRAINED, line)
        if match:
            if not self._exact:
                self._exact, self._points = True, []  # the two kinds of time don't mix
            return step, float(match[1] or match[3]) * _UNITS[match[2] or match[4] or b""]
        return None if average is None or self._exact else (step, average * step)

    def _summed(self, value: Optional[float]) -> Optional[tuple[float, float]]:
        if value is None:
            return None
        self._count, self._sum = self._count + 1, self._sum + value
        return self._count, self._sum

    def _tell(self, value: float, where: str) -> str:
        if not self.scale:
            return (
                f"{self.metric} {_above(value, self.maximum)} > {self.maximum:g} {where} (limit from step {self.after})"
            )
        at = f"at {self.at_gpus:g} GPUs" if self.at_gpus else "scaled"
        shown = _above(value / self.scale, self.maximum)
        return f"{self.metric} {_short(value)} on this host = {shown} {at} > {self.maximum:g} {where}"


class BlowUp:
    """Fires when train_loss is above factor x the early loss and above twice the lowest, at two lines of different steps.

    The early loss is the lowest of all lines up to the first one at or after `after_step`. Real runs jump to 3.5 x their
    first loss at step 2 and may need ten steps back (untied heads, high rates), so nothing before `after_step` is judged;
    and a loss that returns from 2.3 to the 9 of a random model never exceeds 1.5 x the first line, but does exceed 1.5 x
    the loss at step 100. Twice the lowest keeps a start that is itself low (a fine-tuned model) from raising alarms. Losses
    that are not positive are passed over: no multiple of them means anything.
    """

    def __init__(self, rule: Any) -> None:
        """Raises ValueError on an unknown key or a value of the wrong kind."""
        if not isinstance(rule, dict) or not set(rule) <= {"factor", "after_step"}:
            raise ValueError(f"rules.blow_up: {rule!r} may have factor and after_step, nothing else")
        self.factor = finite(rule.get("factor", 1.5), "rules.blow_up.factor")
        self.after = int(finite(rule.get("after_step", 100), "rules.blow_up.after_step"))
        if self.factor <= 1:
            raise ValueError(f"rules.blow_up.factor: {self.factor:g} must be above 1")
        self.forget()

    def forget(self) -> None:
        """Another training run begins in the same log."""
        self._early = self._lowest = math.inf
        self._open = False
        self._before: Optional[tuple[int, float, bytes]] = None

    def judge(self, step: int, line: bytes) -> Optional[Finding]:
        """What is wrong with a step line, lines of lower steps left out."""
        match = re.search(_LOSS, line)
        loss = float(match[1]) if match else 0.0
        if loss <= 0:
            return None
        if not self._open:
            self._early, self._open = min(self._early, loss), step >= self.after
        self._lowest = min(self._lowest, loss)
        if not self._open or loss <= self.factor * self._early or loss <= 2 * self._lowest:
            self._before = None
            return None
        if self._before is None or self._before[0] == step:
            self._before = self._before or (step, loss, line)
            return None
        reason = (
            f"blow-up: train_loss {self._before[1]:g} at step {self._before[0]}, {loss:g} at step {step}; allowed are "
            f"{self.factor:g} x {self._early:g} (early loss) or 2 x {self._lowest:g} (lowest)"
        )
        return reason, [self._before[2], line]


def finite(value: Any, what: str) -> float:
    """`value` as a finite number. Raises ValueError naming `what`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{what}: {value!r} is not a number")
    return float(value)


def _positive(limit: dict[str, Any], key: str) -> Optional[float]:
    """A number above 0, None where it is not given."""
    if limit.get(key) is None:
        return None
    value = finite(limit[key], f"rules.limits.{key}")
    if value <= 0:
        raise ValueError(f"rules.limits.{key}: {value:g} must be above 0")
    return value


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _above(value: float, maximum: float) -> str:
    """A value above `maximum`, with as many digits as show that it is."""
    return _short(value) if float(_short(value)) > maximum else f"{value:.12g}"
