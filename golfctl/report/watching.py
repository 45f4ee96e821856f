"""The dashboard of `golfctl watch`: what it shows, as data, and how that is drawn on a terminal of any width. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from rich.console import Group
from rich.table import Table
from rich.text import Text

from golfctl.hostside.files import one_line

BLOCKS, LETTERS = "▁▂▃▄▅▆▇█", "_.-=+*#"
STYLES = {"PASS": "green", "FAIL": "red", "INCONCLUSIVE": "yellow", "completed": "green", "silent": "yellow"}
MOST = 40
"""Rows of a table; the rest are counted."""
NARROWEST, WIDEST = 4, 24
"""Letters of a curve."""


@dataclass(frozen=True)
class RunSeen:
    """A run under way. state: `running`, `silent` (its host does not answer), `ended` (not at home yet), `unknown`.

    elapsed_s: since its launch. left_s: by its step average. usd: so far. curve: train losses.
    """

    name: str
    plan: str
    gate: int
    seed: int
    host: str
    state: str
    elapsed_s: float
    usd: float
    step: int | None = None
    steps: int | None = None
    step_avg_ms: float | None = None
    train_loss: float | None = None
    val_bpb: float | None = None
    left_s: float | None = None
    curve: tuple[float, ...] = ()
    why: str = ""


@dataclass(frozen=True)
class Waiting:
    """A plan that has a next step. what: `next` (it would start now), `waits`, `to judge`; why in words."""

    plan: str
    what: str
    why: str


@dataclass(frozen=True)
class HostSeen:
    """A host. busy: its slots our runs hold. said: why it is silent, "" else."""

    alias: str
    slots: int
    busy: int
    usd_per_hour: float
    said: str = ""


@dataclass(frozen=True)
class Ended:
    """A run that ended lately."""

    name: str
    ending: str
    score: float | None
    usd: float
    reason: str


@dataclass(frozen=True)
class Judged:
    """A verdict of late."""

    plan: str
    gate: int
    answer: str
    reason: str


@dataclass(frozen=True)
class Snapshot:
    """A campaign now. usd_per_hour: of the runs under way. left_usd: of the cap, None without one. others: plans at rest."""

    campaign: str
    base: str
    when: str
    runs: tuple[RunSeen, ...]
    waiting: tuple[Waiting, ...]
    hosts: tuple[HostSeen, ...]
    ended: tuple[Ended, ...]
    judged: tuple[Judged, ...]
    spent_usd: float
    under_way_usd: float
    usd_per_hour: float
    left_usd: float | None
    others: int


def spark(values: Sequence[float], width: int, plain: bool) -> str:
    """The values as one line of `width` letters, the newest last; each letter is the mean of its share. "" for fewer than two."""
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) < 2 or width < 2:
        return ""
    count = min(width, len(finite))
    edges = [len(finite) * at // count for at in range(count + 1)]
    means = [math.fsum(finite[a:b]) / (b - a) for a, b in pairwise(edges)]
    letters, low, high = LETTERS if plain else BLOCKS, min(means), max(means)
    scale = (len(letters) - 1) / (high - low) if high > low else 0.0
    return "".join(letters[round((value - low) * scale)] for value in means)


def draw(shot: Snapshot, width: int, height: int | None = None, plain: bool = False) -> Group:
    """The whole dashboard. height: lines there are, None: as many as it takes. plain: no letters beyond ASCII."""
    room = 10_000 if height is None else max(6, height)
    parts: list[Table | Text] = [*_head(shot, height is not None)]
    room -= len(parts)
    sections = [
        (f"{len(shot.runs)} under way" if shot.runs else "", _runs(shot.runs, width, plain)),
        ("queue", [_cells(item.plan, item.what, item.why) for item in shot.waiting]),
        ("verdicts", [_cells(item.plan, f"gate {item.gate} {item.answer}", item.reason) for item in shot.judged]),
        ("ended", [_cells(item.name, _ending(item), item.reason) for item in shot.ended]),
        ("hosts", [_cells(item.alias, *_host(item)) for item in shot.hosts]),
    ]
    for title, rows in sections:
        if not rows or room < 3:
            continue
        # A long queue leaves room for what follows; runs take what they need.
        most = min(MOST, room - 2, max(3, room // 2) if title == "queue" else MOST)
        parts += [Text(title, style="bold"), _table(rows[:most], width)] if title else [_table(rows[:most], width)]
        room -= min(len(rows), most) + 1
        if len(rows) > most:
            parts.append(Text(f"  and {len(rows) - most} more", style="dim"))
            room -= 1
    if shot.others and room > 0:
        parts.append(Text(f"{shot.others} further plans have no next step", style="dim"))
    return Group(*parts)


def _head(shot: Snapshot, live: bool) -> Iterable[Text]:
    base = f"   base {one_line(shot.base)}" if shot.base else ""
    keys = "   q leaves; runs go on" if live else ""
    yield Text(f"{one_line(shot.campaign)}{base}   {shot.when}{keys}", style="bold", no_wrap=True, overflow="ellipsis")
    parts = [f"${shot.spent_usd:.2f} spent"]
    if shot.runs:
        parts += [f"${shot.usd_per_hour:.2f}/h now", f"about ${shot.under_way_usd:.2f} under way"]
    if shot.left_usd is not None:
        parts.append(f"${shot.left_usd:.2f} left of the cap")
    yield Text("   ".join(parts), no_wrap=True, overflow="ellipsis")
    if not shot.runs:
        yield Text("nothing is under way", style="dim")


def _runs(runs: Sequence[RunSeen], width: int, plain: bool) -> list[list[Text]]:
    """Cells of as many columns as the width has room for: what one watches stays longest."""
    columns = ["gate", "plan", "step", "loss"]
    for name, at in (("val_bpb", 46), ("left", 54), ("seed", 60), ("host", 68), ("cost", 76), ("step_avg", 86)):
        columns += [name] if width >= at else []
    order = ["gate", "plan", "seed", "host", "step", "step_avg", "loss", "val_bpb", "left", "cost"]
    shown = [name for name in order if name in columns]
    if not runs:
        return []
    rows = [[Text(name, style="dim") for name in shown]]
    for run in runs:
        words = _words(run)
        style = "yellow" if run.state != "running" else ""
        row = [Text(words[name], style=style, no_wrap=True, overflow="ellipsis") for name in shown]
        for name in {"plan", "host"}.intersection(shown):  # names give way: figures are what one watches
            row[shown.index(name)].truncate(max(7, width // 8), overflow="ellipsis")
        rows.append(row)
    left = width - sum(max(cell.cell_len for cell in column) + 1 for column in zip(*rows, strict=True)) - 1
    if left >= NARROWEST:
        rows[0].append(Text("loss so far"[:left], style="dim"))
        for row, run in zip(rows[1:], runs, strict=True):
            row.append(Text(spark(run.curve, min(left, WIDEST), plain), no_wrap=True))
    return rows


def _words(run: RunSeen) -> dict[str, str]:
    step = f"{run.step}/{run.steps or '?'}" if run.step is not None else f"{run.elapsed_s:.0f} s"
    return {
        "gate": str(run.gate),
        "plan": one_line(run.plan),
        "seed": str(run.seed),
        "host": one_line(run.host) if run.state != "silent" else "silent",
        "step": step if run.state in {"running", "silent"} else run.state,
        "step_avg": _figure(run.step_avg_ms, 1, " ms"),
        "loss": _figure(run.train_loss, 3),
        "val_bpb": _figure(run.val_bpb, 4),
        "left": _clock(run.left_s) if run.left_s is not None else "",
        "cost": f"${run.usd:.2f}",
    }


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes < 600 else f"{minutes // 60} h"


def _figure(value: float | None, places: int, unit: str = "") -> str:
    if value is None:
        return ""
    return (f"{value:.{places}f}" if not math.isfinite(value) or abs(value) < 1e6 else f"{value:.0e}") + unit


def _ending(item: Ended) -> str:
    return item.ending if item.score is None else f"{item.score:.4f}"


def _host(item: HostSeen) -> tuple[str, str]:
    price = f", ${item.usd_per_hour:.2f}/h" if item.usd_per_hour else ""
    return ("silent" if item.said else f"{item.busy} of {item.slots} busy"), item.said or price.removeprefix(", ")


def _cells(name: str, word: str, why: str) -> list[Text]:
    style = next((style for key, style in STYLES.items() if word.endswith(key)), "")
    return [
        Text(one_line(name), no_wrap=True, overflow="ellipsis"),
        Text(one_line(word), style=style, no_wrap=True, overflow="ellipsis"),
        Text(one_line(why), style="dim", no_wrap=True, overflow="ellipsis"),
    ]


def _table(rows: Sequence[Sequence[Text]], width: int) -> Table:
    table = Table(
        box=None, padding=(0, 1, 0, 0), pad_edge=False, show_header=False, width=width if len(rows[0]) == 3 else None
    )
    for at in range(len(rows[0])):
        wide = len(rows[0]) == 3
        table.add_column(
            no_wrap=True,
            overflow="ellipsis",
            max_width=max(8, width // 3) if wide and at < 2 else None,
            ratio=1 if wide and at == 2 else None,
        )
    for row in rows:
        table.add_row(*row)
    return table
