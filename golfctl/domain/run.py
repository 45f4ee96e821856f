"""Runs: one process tree on a host, and what came of it. Outcome is data; a missing score is None, never 0.0 or inf."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    """How a run ended."""

    COMPLETED = "completed"
    ABORTED = "aborted"  # a rule fired, or a person stopped it
    CRASHED = "crashed"
    LOST = "lost"  # the host, or everything on it that knew of the run, is gone
    OVER_TIME = "over_time"


@dataclass(frozen=True)
class RunSpec:
    """What identifies a run and what it needs. `owner` is the plan, or the base whose own runs are the reference.

    name: folder name of the run, the same on the host and here. env: every setting beyond the bundle's own.
    rules: limits the host enforces, see hostside/supervise.py. shape: Gate.shape of the gate it ran for.
    unset: variables the code would read that nobody set; the caller's shell must not set them either.
    witness: machine to `count@hash` of its ledger at the launch. campaign: whose run it is, where several share a host.
    """

    name: str
    owner: str
    bundle: str
    gate: int
    seed: int
    attempt: int
    host: str
    shape: str
    processes: int
    argv: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    rules: Mapping[str, Any] = field(default_factory=dict)
    unset: tuple[str, ...] = ()
    witness: Mapping[str, str] = field(default_factory=dict)
    campaign: str = ""


@dataclass(frozen=True)
class RunResult:
    """What a finished run says, translated once (store/runs.py) from the files it left.

    score: bits per byte under the rules' label. self_reported: nothing of ours re-scored the artifact.
    code_bytes + model_bytes = artifact_bytes, counted from disk. data: sha256 of the validation bytes.
    settings: all settings resolved, code_sha256: hash of the code the process saw.
    """

    score: float | None = None
    val_loss: float | None = None
    step_avg_ms: float | None = None
    steps: int | None = None
    train_time_ms: float | None = None
    eval_time_ms: float | None = None
    peak_mem_mib: float | None = None
    code_bytes: int | None = None
    model_bytes: int | None = None
    artifact_bytes: int | None = None
    metric_version: int | None = None
    data: str | None = None
    self_reported: bool = True
    code_sha256: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    references: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def metric(self, name: str) -> float | None:
        """The value of one of gate.METRICS. Raises AttributeError for any other name."""
        value: float | None = getattr(self, name)
        return value


@dataclass(frozen=True)
class RunRecord:
    """A run as the ledger knows it. `outcome` None: launched, not known to have ended.

    evidence: sha256 of its exit.json, which lists the sha256 of every other file. excused: why a person had it run again.
    fault: "host" if the ending points to the machine and not to the code. saved_usd: what an abort left unspent.
    withdrawn: it was intended and never started anywhere.
    """

    spec: RunSpec
    machine: str
    started: bool = False
    outcome: Outcome | None = None
    reason: str = ""
    result: RunResult | None = None
    wall_s: float | None = None
    usd: float = 0.0
    launched_at: str = ""
    evidence: str = ""
    excused: str = ""
    fault: str = ""
    saved_usd: float = 0.0
    withdrawn: bool = False

    @property
    def ending(self) -> str:
        """How it ended, as a word for people."""
        if self.withdrawn:
            return "withdrawn"
        return str(self.outcome) if self.outcome else "unfinished"

    @property
    def host_failed(self) -> bool:
        """Whether the machine, not the code, ended it, before any score was seen."""
        ended_by_it = self.outcome is Outcome.LOST or self.fault == "host"
        return ended_by_it and not self.withdrawn and not self.scored

    @property
    def scored(self) -> bool:
        """Whether anybody can have seen a score of it: then it is never drawn again."""
        return self.result is not None and self.result.score is not None

    @property
    def to_repeat(self) -> bool:
        """Whether it counts for nothing and another attempt takes its place; it stays visible all the same."""
        return self.host_failed or self.withdrawn or bool(self.excused)

    @property
    def finished(self) -> bool:
        """Whether its end is recorded."""
        return self.outcome is not None
