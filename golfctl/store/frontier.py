"""The frontier over time, and whether a plan's target still lies beyond it. Pure: rows of the leaderboard in, findings out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from golfctl import stats
from golfctl.store.recordissues import WRONG, bound

INVALID = ("over-cap", "over-time", "eval-over-time")
"""Issues that keep a record off the frontier, where they are wrong and not a note."""
UNSEEN = ("size-unknown", "time-unknown")
"""Issues of limits that no log shows to be kept."""


@dataclass(frozen=True)
class Step:
    """A record that moved the frontier: mean in bpb, gain over the frontier before it in bpb and in nats per token.

    None: unknown, or there was no frontier before it. unverified: limits that it is not seen to keep, as sentences.
    """

    date: str
    folder: str
    mean: float
    n: int
    gain_bpb: float | None
    gain_nats: float | None
    headroom_bytes: int | None
    tags: tuple[str, ...]
    bytes_per_token: float | None
    unverified: tuple[str, ...] = ()


@dataclass(frozen=True)
class Frontier:
    """Steps in order of time, and what did not become one.

    excluded: folder and why, of records that would have moved it but break a limit; claims: folder and claimed bpb of those that
    would have moved it, had they a log.
    """

    steps: tuple[Step, ...]
    excluded: tuple[tuple[str, str], ...]
    claims: tuple[tuple[str, float], ...]

    @property
    def best(self) -> Step | None:
        """Where the frontier stands."""
        return self.steps[-1] if self.steps else None


def of_track(rows: Iterable[Mapping[str, Any]], track: str | None) -> list[Mapping[str, Any]]:
    """Rows of one track; None: of all tracks that are bound by time."""
    return [row for row in rows if (bound(row["track"]) if track is None else row["track"] == track)]


def frontier(rows: Iterable[Mapping[str, Any]], everything: bool = False) -> Frontier:
    """Each record whose log mean beat all earlier ones; of one day only the best can. everything: those over a limit, too."""
    steps: list[Step] = []
    excluded: list[tuple[str, str]] = []
    claims: list[tuple[str, float]] = []
    days: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        days.setdefault(row["date"] or "9999", []).append(row)
    for day in sorted(days):
        best = steps[-1].mean if steps else math.inf
        claims += [
            (row["folder"], row["claimed"]["val_bpb"])
            for row in days[day]
            if row["log_mean"] is None and (row["claimed"]["val_bpb"] or math.inf) < best
        ]
        better = [row for row in days[day] if row["log_mean"] is not None and row["log_mean"] < best]
        for row in sorted(better, key=lambda row: (row["log_mean"], row["folder"])):
            reasons = breaks(row)
            if reasons and not everything:
                excluded.append((row["folder"], reasons[0]))
                continue
            steps.append(_step(row, best))
            break
    return Frontier(tuple(steps), tuple(excluded), tuple(claims))


def breaks(row: Mapping[str, Any]) -> list[str]:
    """The limits a record breaks, as sentences."""
    return [issue["text"] for issue in row["issues"] if issue["code"] in INVALID and issue["level"] == WRONG]


def _step(row: Mapping[str, Any], best: float) -> Step:
    loss, mean = row["log_loss"], row["log_mean"]
    gain = best - mean if math.isfinite(best) else None
    # At its own tokenizer: a record with another vocabulary is compared in bpb, and a token is worth what it is worth there.
    nats = gain * loss / mean if gain is not None and loss else None
    per_token = loss / math.log(2) / mean if loss else None
    unseen = tuple(issue["text"] for issue in row["issues"] if issue["code"] in UNSEEN)
    return Step(
        row["date"],
        row["folder"],
        mean,
        row["n"],
        gain,
        nats,
        row["headroom_bytes"],
        tuple(row["tags"]),
        per_token,
        unseen,
    )


@dataclass(frozen=True)
class Target:
    """A plan's score target at a gate. value in bpb, None where it can't be known; why says why not."""

    plan: str
    gate: int
    text: str
    value: float | None
    why: str = ""


@dataclass(frozen=True)
class Finding:
    """A target against the frontier. bars: reading of the margin to the bpb it asks for.

    status: `stale` (a record under no reading of the margin), `short` (under some), `ahead` (under all) or `not checkable`.
    """

    target: Target
    status: str
    bars: Mapping[str, float]


def check(targets: Sequence[Target], best: Step, margin_nats: float) -> list[Finding]:
    """Every target against the standing frontier less the margin, in each of the field's readings."""
    readings = stats.margin_readings(margin_nats, best.bytes_per_token)
    bars = {name: best.mean - value for name, value in sorted(readings.items(), key=lambda item: item[1])}
    return [Finding(target, _status(target.value, list(bars.values())), bars) for target in targets]


def _status(value: float | None, bars: Sequence[float]) -> str:
    if value is None:
        return "not checkable"
    met = [value <= bar for bar in bars]
    return "ahead" if all(met) else "short" if any(met) else "stale"
