"""Rules on a run, and judging its log against them as it grows. Standard library, Python >= 3.9."""

from __future__ import annotations

import math
import re
from typing import Any, Callable, Optional

from golfctl.hostside.files import one_line, scrub
from golfctl.hostside.limits import BlowUp, Limit, finite
from golfctl.hostside.symptoms import COMMUNICATION, MEMORY, symptom

__all__ = ["LINE_CAP", "Rules", "finite"]

LINE_CAP = 4096
"""No log line with metrics is longer (bytes); the rest of a longer line is dropped unread."""
SHOWN_LINES = 3
"""At most this many log lines are quoted as the ones that made a rule fire."""

# `step:500/2000 train_loss:3.1` and, in the later scripts of the contest, `500/2000 train_loss: 3.1`.
_STEP = re.compile(
    rb"(?<![\w.])step\s*[:=]?\s*(\d{1,12})(?!\w)|(?<!\S)(\d{1,12})/\d{1,12}\s+(?=(?:train|val)_loss\b)", re.IGNORECASE
)
_BAD_LOSS = re.compile(
    rb"(?<![\w.])((?:train_|val_)?loss)\s*[:=]\s*([-+]?(?:nan|inf(?:inity)?))(?![\w.])", re.IGNORECASE
)
_CODE = re.compile(rb"[#\"'`(]")  # scripts of the field print their own source into the log
_ALLOWED = (
    "wallclock_s",
    "stall_s",
    "frozen_s",
    "grace_s",
    "nan",
    "blow_up",
    "memory_errors",
    "nccl_errors",
    "artifact",
    "limits",
)


class Rules:
    """What a run may do. Feed it the log's bytes as they arrive; `feed` returns a reason as soon as a rule fires."""

    def __init__(self, rules: dict[str, Any], mask: Callable[[str], str] = str) -> None:
        """`mask` hides secrets in text taken from the log. Raises ValueError on an unknown rule or a value of the wrong kind."""
        for key in rules:
            if key not in _ALLOWED:
                raise ValueError(f"rules.{key}: unknown rule; allowed are {', '.join(_ALLOWED)}")
        self.wallclock_s = _seconds(rules, "wallclock_s", math.inf)
        self.stall_s = _seconds(rules, "stall_s", math.inf)
        self.frozen_s = _seconds(rules, "frozen_s", math.inf)
        self.grace_s = _seconds(rules, "grace_s", 2.0)
        self.nan = bool(rules.get("nan", False))
        self.blow_up = None if rules.get("blow_up") is None else BlowUp(rules["blow_up"])
        self.limits = [Limit(limit) for limit in rules.get("limits") or []]
        self.artifact_globs, self.artifact_max = _artifact(rules.get("artifact"))
        self.last_step: Optional[int] = None
        self.lines: list[str] = []
        """The log lines the rule that fired was about, scrubbed."""
        self._symptoms = [
            (words, table)
            for key, words, table in (
                ("memory_errors", "out of memory", MEMORY),
                ("nccl_errors", "communication error", COMMUNICATION),
            )
            if rules.get(key)
        ]
        self.on_numbers = False
        """Whether the rule that fired judged numbers, which say nothing about the machine."""
        self._mask = mask
        self._highest = -1
        self._partial = b""

    def feed(self, data: bytes) -> Optional[str]:
        """Judge every line these bytes complete; a line ends with \\n or \\r. Memory stays below LINE_CAP + len(data)."""
        lines = (self._partial + data).replace(b"\r", b"\n").split(b"\n")
        self._partial = lines.pop()[:LINE_CAP]
        for line in lines:
            reason = self._judge(line)
            if reason:
                return reason
        return None

    def finish(self) -> Optional[str]:
        """Judge the last line if it has no end."""
        return self.feed(b"\n")

    def _judge(self, line: bytes) -> Optional[str]:
        if len(line) >= LINE_CAP:
            line = line[:LINE_CAP].rpartition(b" ")[0]  # the last word may be cut
        match = _plain(_STEP.search(line))
        if match:
            self.last_step = int(match[1] or match[2])
        bad = _BAD_LOSS.search(line) if self.nan else None
        if bad and (match or _plain(bad)):
            at = "" if self.last_step is None else f" at step {self.last_step}"
            return self._fired(f"{bad[1].decode()} is {bad[2].decode()}{at}", [line], on_numbers=True)
        for words, table in self._symptoms:
            if symptom(line, table):
                return self._fired(f"{words}: {self._text(line)}", [line])
        return self._judge_step(int(match[1] or match[2]), line) if match else None

    def _judge_step(self, step: int, line: bytes) -> Optional[str]:
        if 2 * step < self._highest:  # far back: another training run in the same log; a little: another rank
            self._highest = -1
            for limit in self.limits:
                limit.forget()
            if self.blow_up:
                self.blow_up.forget()
        lagging = step < self._highest
        self._highest = max(step, self._highest)
        found = self.blow_up.judge(step, line) if self.blow_up and not lagging else None
        for limit in self.limits:
            found = found or limit.judge(step, line, lagging)
        return self._fired(*found, on_numbers=True) if found else None

    def _fired(self, reason: str, lines: list[bytes], on_numbers: bool = False) -> str:
        self.on_numbers = on_numbers
        self.lines = [scrub(self._text(line)) for line in lines[-SHOWN_LINES:]]
        return one_line(reason)

    def _text(self, line: bytes) -> str:
        return self._mask(line.decode("utf-8", "replace"))


def _plain(match: Optional[re.Match[bytes]]) -> Optional[re.Match[bytes]]:
    """The match unless what stands before it looks like program text."""
    return match if match and not _CODE.search(match.string, 0, match.start()) else None


def _seconds(rules: dict[str, Any], key: str, default: float) -> float:
    value = default if rules.get(key) is None else finite(rules[key], f"rules.{key}")
    if value < 0:
        raise ValueError(f"rules.{key}: {value:g} must not be negative")
    return value


def _artifact(rule: Any) -> tuple[list[str], float]:
    """Name patterns and the most bytes the files they match may have together. Raises ValueError."""
    if rule is None:
        return [], math.inf
    if not isinstance(rule, dict) or set(rule) != {"globs", "max_bytes"} or not isinstance(rule["globs"], list):
        raise ValueError(f"rules.artifact: {rule!r} must have globs (a list of patterns) and max_bytes")
    for pattern in rule["globs"]:
        if not isinstance(pattern, str) or not pattern or pattern.startswith("/") or ".." in pattern.split("/"):
            raise ValueError(f"rules.artifact.globs: {pattern!r} must be a pattern of names below the run's folder")
    return list(rule["globs"]), finite(rule["max_bytes"], "rules.artifact.max_bytes")
