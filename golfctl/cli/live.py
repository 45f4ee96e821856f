"""Shows a runner at work: one line a run and a verdict; on a terminal a progress bar for each run under way."""

from __future__ import annotations

from shlex import quote
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from golfctl.domain.gate import Gate
from golfctl.domain.plan import ResolvedPlan
from golfctl.domain.run import Outcome, RunRecord, RunSpec
from golfctl.domain.verdict import Verdict
from golfctl.logs.record import Progress as LogProgress
from golfctl.report.terminal import COLOUR


class Live:
    """An Observer that draws. Use as a context manager."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.judged_now: set[tuple[str, int | None]] = set()
        self._tasks: dict[str, TaskID] = {}
        self._bars: Progress | None = None

    def __enter__(self) -> Live:
        if self.console.is_terminal:
            columns: list[Any] = [
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                TextColumn("{task.fields[text]}"),
            ]
            self._bars = Progress(*columns, TimeRemainingColumn(), console=self.console, transient=True)
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars:
            self._bars.stop()

    def launched(self, spec: RunSpec, gate: Gate, adopted: bool) -> None:
        """A run is under way; adopted: somebody started it before."""
        where = f"{spec.host}, {spec.processes} processes" if spec.processes > 1 else spec.host
        word = "still running" if adopted else "started"
        if self._bars:
            label = f"gate {spec.gate} {spec.owner} seed {spec.seed}"
            self._tasks[spec.name] = self._bars.add_task(label, total=None, text=word)
        else:
            self.console.print(f"[dim]gate {spec.gate}  {spec.owner}  seed {spec.seed}  {word} on {where}[/dim]")

    def progressed(self, spec: RunSpec, progress: LogProgress) -> None:
        """The newest progress line of a run."""
        if self._bars and spec.name in self._tasks:
            loss = progress.train_loss if progress.train_loss is not None else progress.val_loss
            text = f"step {progress.step}/{progress.steps or '?'}"
            text += f"  loss {loss:.3f}" if loss is not None else ""
            text += f"  {progress.step_avg_ms:.0f} ms" if progress.step_avg_ms is not None else ""
            self._bars.update(self._tasks[spec.name], total=progress.steps, completed=progress.step, text=text)

    def finished(self, record: RunRecord) -> None:
        """A run's end is recorded."""
        spec, result = record.spec, record.result
        if self._bars and spec.name in self._tasks:
            self._bars.remove_task(self._tasks.pop(spec.name))
        parts = [f"gate {spec.gate}", spec.owner, f"seed {spec.seed}", str(record.outcome)]
        if record.wall_s is not None:
            parts.append(f"{record.wall_s:.0f} s")
        if result and result.score is not None:
            parts.append(f"score {result.score:.4f}")
        if result and result.step_avg_ms is not None:
            parts.append(f"step_avg {result.step_avg_ms:.0f} ms")
        if record.reason and record.outcome is not Outcome.COMPLETED:
            parts.append(record.reason)
        self.console.print("[dim]" + escape("  ".join(parts)) + "[/dim]")

    def judged(self, plan: ResolvedPlan, gate: Gate, verdict: Verdict) -> None:
        """A gate has spoken."""
        self.judged_now.add((plan.id, gate.number))
        colour = COLOUR[verdict.answer]
        head = f"gate {gate.number} {gate.name:<6} {plan.id:<14}"
        self.console.print(f"{escape(head)} [{colour}]{verdict.answer}[/{colour}]   {escape(verdict.reason)}")
        if verdict.cause and verdict.answer == "FAIL":
            self.console.print(f"    -> failures.md (say why: golfctl fail why {escape(quote(plan.id))})")
