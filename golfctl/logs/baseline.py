"""The contest baseline's family, also written by the bundled trainer.

step:10/200 train_loss:3.1234 train_time:512ms step_avg:51.20ms
final_sliding_window_exact val_loss:1.57262626 val_bpb:2.26882100 stride:64 eval_time:2100ms
Code size: 61234 bytes
Total submission size int6+zstd22: 1373579 bytes
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from golfctl.logs.record import Final, Progress, RunLog

# No number is longer than one that means something, and none can be read in two ways: a log may hold a line of digits only.
_NUMBER = r"[-+]?(?:\d{1,18}(?:\.\d{0,40})?(?:e[-+]?\d{1,4})?|nan|inf)"
_STEP = re.compile(r"^step:(\d{1,18})(?:/(\d{1,18}))?\s")
_FIELD = re.compile(rf"\b(train_loss|val_loss|val_bpb|train_time|step_avg):\s*({_NUMBER})(ms|s)?", re.IGNORECASE)
_FINAL = re.compile(rf"^(\w+)\s.*?\bval_loss:\s*({_NUMBER})\s+val_bpb:\s*({_NUMBER})", re.IGNORECASE)
_SIZE = re.compile(r"^(Code size|Total submission size\s+[^\s:]+):\s*(\d{1,18}) bytes")
_FACT = re.compile(r"^(seed|model_params|params):\s*(\d{1,18})\b")


def progress(line: str) -> Progress | None:
    """The progress in a line, None if it is none."""
    head = _STEP.match(line)
    if not head:
        return None
    values = {name: float(number) * (1000 if unit == "s" else 1) for name, number, unit in _FIELD.findall(line)}
    return Progress(
        step=int(head.group(1)),
        steps=int(head.group(2)) if head.group(2) else None,
        train_loss=values.get("train_loss"),
        val_loss=values.get("val_loss"),
        val_bpb=values.get("val_bpb"),
        train_time_ms=values.get("train_time"),
        step_avg_ms=values.get("step_avg"),
    )


def read(lines: Iterable[str]) -> RunLog:
    """A log of this family. Lines of no known form are passed over."""
    log = RunLog()
    for number, line in enumerate(lines, start=1):
        if found := progress(line):
            log.progress.append(found)
        elif match := _FINAL.match(line):
            log.finals.append(Final(match.group(1), float(match.group(2)), float(match.group(3)), number))
        elif match := _SIZE.match(line):
            if match.group(1) == "Code size":
                log.code_bytes = int(match.group(2))
            else:
                log.total_bytes = int(match.group(2))
        elif match := _FACT.match(line):
            if match.group(1) == "seed":
                log.seed = int(match.group(2))
            else:
                log.model_params = int(match.group(2))
    return log
