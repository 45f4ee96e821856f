"""What a log says, whatever its family. None: it does not say."""

from __future__ import annotations

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
class Final:
    """A named evaluation line: its label, loss (nats per token), bits per byte and the line's number (from 1)."""

    label: str
    val_loss: float
    val_bpb: float
    line: int


@dataclass
class RunLog:
    """A whole log as read. `finals` in order of appearance; sizes in bytes."""

    progress: list[Progress] = field(default_factory=list)
    finals: list[Final] = field(default_factory=list)
    code_bytes: int | None = None
    total_bytes: int | None = None
    model_params: int | None = None
    seed: int | None = None

    def final(self, label: str) -> Final | None:
        """The last line with exactly this label."""
        found = [final for final in self.finals if final.label == label]
        return found[-1] if found else None

    @property
    def last(self) -> Progress | None:
        """The last progress line that carries a step average."""
        timed = [item for item in self.progress if item.step_avg_ms is not None]
        return timed[-1] if timed else None
