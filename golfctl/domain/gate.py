"""Gates: numbered hurdles with checks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

METRICS = ("score", "step_avg_ms", "artifact_bytes", "train_time_ms", "eval_time_ms", "peak_mem_mib")
"""Names a requirement may use; all but `score` are upper-bounded costs of a run."""

OPERATORS = ("<=", "<", ">=", ">")


class Kind(StrEnum):
    """How the score of a gate is judged."""

    THRESHOLD = "threshold"
    VERSUS = "versus"


class Answer(StrEnum):
    """A gate's word. Only PASS advances."""

    PASS = "PASS"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"


@dataclass(frozen=True)
class Requirement:
    """`metric operator bound`; with `relative_to` the bound is that side's mean plus `value` (bpb for a score)."""

    metric: str
    operator: str
    value: float
    relative_to: str | None = None  # None, "base" or "parent"

    def __str__(self) -> str:
        if self.relative_to is None:
            return f"{self.metric} {self.operator} {self.value:.10g}"
        sign = "-" if self.value < 0 else "+"
        return f"{self.metric} {self.operator} {self.relative_to} {sign} {abs(self.value):.10g}"

    def met(self, measured: float, bound: float) -> bool:
        """Whether a measured value satisfies this requirement against the resolved bound."""
        compare = {
            "<=": measured <= bound,
            "<": measured < bound,
            ">=": measured >= bound,
            ">": measured > bound,
        }
        return compare[self.operator]


@dataclass(frozen=True)
class Gate:
    """One hurdle, fully resolved (campaign defaults with a plan's differences applied).

    processes: GPUs (or CPU processes) one run takes. seeds: how many of the plan's seeds run here.
    env: settings that belong to the gate, such as the length of a smoke run.
    require: checks on every run (costs) and, for threshold gates, on the score.
    overriding: a violated cost requirement aborts the run at once and can't be waived.
    parent_seeds: how many parent runs a comparison needs. alpha is one-sided and shared over `looks`.
    min_gain: smallest improvement over the parent (bpb) that a versus gate calls visible.
    wallclock_s, stall_s: limits enforced on the host. estimate_s: seconds a run is expected to take.
    device: model of GPU of the hosts it runs on; no part of what a plan declares.
    """

    number: int
    name: str
    kind: Kind
    processes: int = 1
    seeds: int = 1
    env: Mapping[str, str] = field(default_factory=dict)
    require: tuple[Requirement, ...] = ()
    at_gpus: int | None = None
    overriding: bool = False
    parent_seeds: int = 3
    alpha: float = 0.10
    looks: int = 1
    min_gain: float = 0.0
    paired: bool = False
    wallclock_s: float = 3600.0
    stall_s: float = 600.0
    estimate_s: float = 60.0
    device: str = ""

    @property
    def shape(self) -> str:
        """Hash of what makes two runs comparable besides their code: processes, the gate's settings, the model of GPU."""
        parts = [self.processes, sorted(self.env.items()), *([self.device] if self.device else [])]
        text = json.dumps(parts, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]
