"""What a log says, whatever its family. None: it does not say."""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """One training or validation line. Times in milliseconds, loss in nats per token."""

    step: int
    steps: int | None = None
    train_loss: float | None = None
    val_loss: float | None = None
    val_bpb: float | None = None
    train_time_ms: float | None = None
    step_avg_ms: float | None = None


@dataclass(frozen=True)
class Eval:
    """A named evaluation line: loss (nats per token), bits per byte, milliseconds, digits after the point, line (from 1)."""

    label: str
    val_loss: float
    val_bpb: float
    eval_time_ms: float | None
    digits: int
    line: int


class Points:
    """Lines of one kind (training or validation) as columns; a missing value is nan.

    step and line are whole numbers; loss in nats per token, bpb in bits per byte, ms since training began.
    """

    def __init__(self) -> None:
        self.step, self.line = array("q"), array("q")
        self.loss, self.bpb, self.ms = array("d"), array("d"), array("d")
        self._rising = True

    def __len__(self) -> int:
        return len(self.step)

    def add(self, step: int, line: int, loss: float, bpb: float, ms: float) -> None:
        """One more line."""
        if self.step and step <= self.step[-1]:
            self._rising = False
        self.step.append(step)
        self.line.append(line)
        self.loss.append(loss)
        self.bpb.append(bpb)
        self.ms.append(ms)

    def extend(self, steps: list[int], lines: list[int], loss: list[float], bpb: list[float], ms: list[float]) -> None:
        """Many lines whose steps rise strictly."""
        if self.step and steps[0] <= self.step[-1]:
            self._rising = False
        self.step.extend(steps)
        self.line.extend(lines)
        self.loss.extend(loss)
        self.bpb.extend(bpb)
        self.ms.extend(ms)

    @property
    def distinct(self) -> int:
        """Different steps."""
        return len(self.step) if self._rising else len(set(self.step))

    def same_as(self, other: Points) -> bool:
        """Whether both say the same; where they stand does not matter."""
        mine = [self.step.tobytes(), self.loss.tobytes(), self.bpb.tobytes()]  # by bytes: nan is nan here
        return mine == [other.step.tobytes(), other.loss.tobytes(), other.bpb.tobytes()]


@dataclass
class RunLog:
    """One run. `lines` gives for each field the line (from 1) it was read from; derived fields name the line they rest on.

    Sizes in bytes, times in milliseconds unless the name says otherwise. evals in order of appearance. artifact_bytes is code and
    model; total_bytes is what the log itself calls its packed total, which may contradict that.
    """

    family: str | None = None
    seed: int | None = None
    world_size: int | None = None
    grad_accum: int | None = None
    model_params: int | None = None
    iterations_planned: int | None = None
    max_wallclock_s: float | None = None
    steps_done: int | None = None
    step_avg_printed: float | None = None
    step_avg_derived: float | None = None
    train_time_ms: float | None = None
    stopped_early: bool = False
    code_bytes: int | None = None
    model_bytes: int | None = None
    artifact_bytes: int | None = None
    total_bytes: int | None = None
    raw_model_bytes: int | None = None
    codec: str | None = None
    artifact_mb_rounded: float | None = None
    prequant_val_bpb: float | None = None
    prequant_val_loss: float | None = None
    peak_mem_mib: float | None = None
    reserved_mem_mib: float | None = None
    val_tokens: int | None = None
    total_eval_time_s: float | None = None
    headline: Eval | None = None
    headline_reason: str = ""
    outcome: str | None = None
    copies: int = 1
    evals: list[Eval] = field(default_factory=list)
    train: Points = field(default_factory=Points)
    val: Points = field(default_factory=Points)
    lines: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def step_avg_ms(self) -> float | None:
        """As printed, else training time over the steps it took."""
        return self.step_avg_printed if self.step_avg_printed is not None else self.step_avg_derived

    @property
    def step_avg_source(self) -> str | None:
        """`printed`, `derived`, or None without a value."""
        if self.step_avg_printed is not None:
            return "printed"
        return "derived" if self.step_avg_ms is not None else None

    def final(self, label: str) -> Eval | None:
        """The last evaluation with exactly this label."""
        return next((item for item in reversed(self.evals) if item.label == label), None)

    @property
    def empty(self) -> bool:
        """Nothing but, perhaps, a header was read."""
        return not self.train and not self.val and not self.evals and self.steps_done is None


@dataclass
class LogFile:
    """Everything in one file: its runs in order (a run printed twice stands once, with copies = 2)."""

    runs: list[RunLog]
    lines: int
    encoding: str
    warnings: list[str] = field(default_factory=list)

    @property
    def last(self) -> RunLog:
        """The run the file is about."""
        return self.runs[-1] if self.runs else RunLog()


def known(value: float | None) -> bool:
    """Whether it is a number at all."""
    return value is not None and not math.isnan(value)
