"""experiments/leaderboard.jsonl: the field's records, one row a folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from golfctl.errors import InputError
from golfctl.store import recordissues, records
from golfctl.store.campaign import Campaign
from golfctl.store.files import os_error, write_atomic
from golfctl.store.recordissues import Limits

NAME = "leaderboard.jsonl"
Row = dict[str, Any]


def file_of(campaign: Campaign) -> Path:
    """Where the leaderboard of a campaign lies."""
    return campaign.experiments_folder / NAME


def limits_of(campaign: Campaign) -> Limits:
    """What golf.yaml asks of a record: the cap of its rules; seconds and seeds of its last gate.

    Its `train_time_ms` bound is the grace past MAX_WALLCLOCK_SECONDS: a script stops after the step in which the clock ran out.
    """
    gate = campaign.gates[max(campaign.gates)]
    bounds = {item.metric: item.value for item in gate.require if item.relative_to is None}
    allowed = bounds["train_time_ms"] / 1000 if "train_time_ms" in bounds else None
    try:
        seconds: float | None = float(gate.env["MAX_WALLCLOCK_SECONDS"])
    except (KeyError, ValueError):
        seconds = allowed
    grace = allowed - seconds if allowed is not None and seconds is not None and allowed > seconds else 0.0
    evaluation = bounds["eval_time_ms"] / 1000 if "eval_time_ms" in bounds else None
    return Limits(campaign.rules.artifact_cap_bytes, seconds, grace, evaluation, gate.seeds)


def load(campaign: Campaign) -> list[Row]:
    """Every row, oldest record first, each with the logs it shares with earlier records among its issues.

    Raises InputError for a file that was damaged or when nothing was imported yet.
    """
    rows = _stored(campaign)
    if not rows:
        raise InputError(f"{campaign.relative(file_of(campaign))}: no records yet; golfctl leaderboard import DIR")
    _shared_logs(rows)
    return rows


def take(
    campaign: Campaign, tree: Path, progress: Callable[[int, int, str], None] | None = None
) -> tuple[list[Row], list[str]]:
    """Read every record folder of a tree into the leaderboard; rows of the same track and name are replaced.

    progress is told (number done, of how many, folder). Returns the rows of this tree, and what in it can't be looked into (of a
    record, its row says so). Raises InputError for a tree without records or with two of one name, OSError for a disk that
    fails.
    """
    if not tree.is_dir():
        raise InputError(f"{tree}: is no folder")
    try:
        found, unreadable = records.folders(tree)
    except OSError as error:
        raise InputError(f"can't be read: {os_error(error)}") from None
    if not found:
        closed = f"; can't be read: {unreadable[0]}" if unreadable else ""
        raise InputError(f"{tree}: holds no record folder (one with a submission.json or a log){closed}")
    _no_twins(found)
    limits = limits_of(campaign)
    fresh = []
    for number, folder in enumerate(found):
        if progress:
            progress(number, len(found), folder.name)
        fresh.append(records.row(folder, limits))
    _write(campaign, {_key(row): row for row in [*_stored(campaign), *fresh]}.values())
    return fresh, unreadable


def _no_twins(found: list[Path]) -> None:
    seen: dict[tuple[str, str], Path] = {}
    for folder in found:
        key = (folder.parent.name, folder.name)
        if key in seen:
            raise InputError(f"{folder}: another {'/'.join(key)} is {seen[key]}; import one tree at a time")
        seen[key] = folder


def _key(row: Row) -> tuple[str, str]:
    return row["track"], row["folder"]


def _order(row: Row) -> tuple[str, str, str]:
    return row["date"] or "9999", row["folder"], row["track"]


def _write(campaign: Campaign, rows: Iterable[Row]) -> None:
    lines = [json.dumps(row, allow_nan=False) + "\n" for row in sorted(rows, key=_order)]
    campaign.experiments_folder.mkdir(exist_ok=True)
    write_atomic(file_of(campaign), "".join(lines).encode())


def _stored(campaign: Campaign) -> list[Row]:
    path = file_of(campaign)
    if not path.exists():
        return []
    try:
        content = path.read_bytes().splitlines()
    except OSError as error:
        raise InputError(f"can't be read: {os_error(error)}") from None
    rows = []
    for number, line in enumerate(content, start=1):
        try:
            row = json.loads(line)
            _key(row), _order(row), row["logs"], row["issues"]
        except (ValueError, TypeError, KeyError):
            where = f"{campaign.relative(path)}:{number}"
            raise InputError(f"{where}: is no row of the leaderboard; delete the file and import again") from None
        rows.append(row)
    return rows


def _shared_logs(rows: list[Row]) -> None:
    """A log that an earlier record of the leaderboard already shows is named as a copy."""
    seen: dict[str, tuple[Row, str]] = {}
    for row in rows:
        for log in row["logs"]:
            keys = [key for key in (log["sha256"], log["content"]) if key]
            first = next((seen[key] for key in keys if key in seen), None)
            if first and first[0] is not row:
                other = next(item for item in first[0]["logs"] if item["file"] == first[1])
                how = recordissues.same(log["sha256"], log["content"], other["sha256"], other["content"])
                text = f"{log['file']} is {how} {first[1]} of {first[0]['folder']}"
                row["issues"].append({"code": "duplicate-log", "level": recordissues.NOTE, "text": text})
            for key in keys:
                seen.setdefault(key, (row, log["file"]))
