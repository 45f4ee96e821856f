"""Shows a runner at work: a line for each start, end and verdict; on a terminal also one living line for each run."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from shlex import quote

from rich.console import Console, Group
from rich.live import Live as Screen
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from golfctl.domain.gate import Gate
from golfctl.domain.host import HostSpec
from golfctl.domain.plan import ResolvedPlan
from golfctl.domain.run import Outcome, RunRecord, RunSpec
from golfctl.domain.verdict import Verdict
from golfctl.hostside.files import one_line
from golfctl.logs import Progress
from golfctl.report.terminal import COLOUR

COLUMNS = ("gate", "plan", "seed", "host", "step", "step_avg", "loss", "val_bpb", "left", "cost")
MAX_ROWS = 40
"""More runs than this at once are counted, not shown."""


class Live:
    """An Observer that draws. Use as a context manager. Whatever comes from a host is scrubbed before it is shown."""

    def __init__(self, console: Console, hosts: Mapping[str, HostSpec]) -> None:
        self.console, self._hosts = console, hosts
        self.judged_now: set[tuple[str, int | None]] = set()
        self._rows: dict[str, _Row] = {}
        self._silent: dict[str, str] = {}
        self._screen: Screen | None = None

    def __enter__(self) -> Live:
        if self.console.is_terminal:
            self._screen = Screen(
                get_renderable=self._table, console=self.console, refresh_per_second=4, transient=True
            )
            self._screen.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._screen:
            self._screen.stop()

    # -- what the runner tells

    def launched(self, spec: RunSpec, gate: Gate, adopted: bool) -> None:
        """A run is under way; adopted: somebody started it before."""
        host = self._hosts.get(spec.host)
        share = min(spec.processes, host.slots) / host.slots * host.usd_per_hour if host else 0.0
        self._rows[spec.name] = _Row(spec, share, adopted)
        if not self._screen:
            where = f"{spec.host}, {spec.processes} processes" if spec.processes > 1 else spec.host
            word = "still running" if adopted else "started"
            self.console.print(f"[dim]gate {spec.gate}  {spec.owner}  seed {spec.seed}  {word} on {where}[/dim]")

    def progressed(self, spec: RunSpec, progress: Progress) -> None:
        """The newest progress of a run."""
        if spec.name in self._rows:
            self._rows[spec.name].heard(progress)

    def finished(self, record: RunRecord) -> None:
        """A run's end is recorded."""
        spec, result = record.spec, record.result
        self._rows.pop(spec.name, None)
        parts = [
            f"gate {spec.gate}",
            spec.owner,
            f"seed {spec.seed}",
            record.ending,
        ]
        if record.wall_s is not None:
            parts.append(f"{record.wall_s:.0f} s")
        if result and result.score is not None:
            parts.append(f"score {result.score:.4f}")
        if result and result.step_avg_ms is not None:
            parts.append(f"step_avg {result.step_avg_ms:.0f} ms")
        if record.usd:
            parts.append(f"${record.usd:.2f}")
        if record.reason and record.outcome is not Outcome.COMPLETED:
            parts.append(record.reason)
        if record.saved_usd >= 0.005:
            parts.append(f"saved ${record.saved_usd:.2f}")
        self.console.print("[dim]" + escape("  ".join(map(one_line, parts))) + "[/dim]")

    def judged(self, plan: ResolvedPlan, gate: Gate, verdict: Verdict) -> None:
        """A gate has spoken."""
        self.judged_now.add((plan.id, gate.number))
        colour = COLOUR[verdict.answer]
        head = f"gate {gate.number} {gate.name:<6} {plan.id:<14}"
        self.console.print(f"{escape(head)} [{colour}]{verdict.answer}[/{colour}]   {escape(verdict.reason)}")
        if verdict.cause and verdict.answer == "FAIL":
            self.console.print(f"    -> failures.md (say why: golfctl fail why {escape(quote(plan.id))})")

    def silent(self, host: str, why: str) -> None:
        """A host does not answer."""
        self._silent[host] = why
        self.console.print(f"[yellow]{escape(one_line(why))}[/yellow]; its runs go on; asking again")

    def back(self, host: str) -> None:
        """A host answers again."""
        if self._silent.pop(host, None) is not None:
            self.console.print(f"[dim]{escape(host)}: answers again[/dim]")

    def held(self, plan: str, why: str) -> None:
        """A plan waits for a free slot."""
        self.console.print(f"[dim]{escape(one_line(f'{plan}: {why}'))}[/dim]")

    # -- drawing

    def _table(self) -> Group:
        table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
        for title in COLUMNS:
            # Where the terminal is narrow names give way: figures are what one watches.
            given = title in {"plan", "host"}
            table.add_column(title, no_wrap=not given, overflow="ellipsis", min_width=4 if given else None)
        rows = sorted(self._rows.values(), key=lambda row: (row.spec.gate, row.spec.owner, row.spec.seed))
        if not rows:
            return Group()
        for row in rows[:MAX_ROWS]:
            table.add_row(*row.cells(row.spec.host in self._silent))
        more = Text(f"and {len(rows) - MAX_ROWS} more", style="dim") if len(rows) > MAX_ROWS else Text("")
        return Group(table, more)


class _Row:
    """One run on the screen."""

    def __init__(self, spec: RunSpec, usd_per_hour: float, adopted: bool) -> None:
        self.spec, self._usd_per_hour, self._adopted = spec, usd_per_hour, adopted
        self._since = time.monotonic()
        self._progress: Progress | None = None

    def heard(self, progress: Progress) -> None:
        """Newer progress."""
        self._progress = progress

    def cells(self, silent: bool) -> list[Text]:
        """One cell for each of COLUMNS."""
        spec, seen = self.spec, self._progress
        elapsed = time.monotonic() - self._since
        words = [str(spec.gate), spec.owner, str(spec.seed), "silent" if silent else spec.host]
        if seen is None:
            words += ["running" if self._adopted else "started", f"{elapsed:.0f} s", "", "", ""]
        else:
            words += [
                f"{_figure(seen.step, 0)}/{_figure(seen.steps, 0) or '?'}",
                f"{_figure(seen.step_avg_ms, 0)} ms" if seen.step_avg_ms is not None else "",
                _figure(seen.train_loss, 3),
                _figure(seen.val_bpb, 4),
                _left(seen),
            ]
            if seen.train_time_ms is not None and math.isfinite(seen.train_time_ms):
                elapsed = max(elapsed, seen.train_time_ms / 1000)  # it ran before this command began to watch
        words.append(f"${_figure(elapsed * self._usd_per_hour / 3600, 2)}" if self._usd_per_hour else "")
        style = "yellow" if silent else ""
        return [Text(one_line(word), style=style, no_wrap=True) for word in words]


def _left(seen: Progress) -> str:
    if not seen.steps or seen.step_avg_ms is None:
        return ""
    seconds = (seen.steps - seen.step) * seen.step_avg_ms / 1000
    if not 0 <= seconds < 1e7:  # nan is not below anything
        return ""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes < 600 else f"{minutes // 60} h"


def _figure(value: float | None, places: int) -> str:
    """A number in few letters, whatever it is; "" for none."""
    if value is None:
        return ""
    return f"{value:.{places}f}" if not math.isfinite(value) or abs(value) < 1e6 else f"{value:.0e}"
