"""Record folders: found in a tree, and each read into one row of the leaderboard."""

from __future__ import annotations

import os
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from golfctl import stats
from golfctl.logs.asjson import plain
from golfctl.store import claims, evidence, recordfiles, recordissues, techniques
from golfctl.store.claims import Claim
from golfctl.store.evidence import Log
from golfctl.store.files import os_error
from golfctl.store.recordissues import Limits

DEPTH = 8
_DATED = re.compile(r"\d{4}-\d{2}-\d{2}(?!\d)")


def folders(tree: Path) -> tuple[list[Path], list[str]]:
    """Record folders in a tree, itself included, sorted; and what can't be looked into, a sentence each.

    A record has a submission*.json; or its name begins with a date or it lies in a `track...` folder, and it has a README or a
    log; or it simply holds a log that can be read. What lies below belongs to it. Links and hidden folders are not followed.
    Raises OSError for the tree itself.
    """
    unreadable: list[str] = []
    os.scandir(tree).close()
    return sorted(_folders(tree.resolve(), 0, unreadable)), unreadable


def _folders(folder: Path, depth: int, unreadable: list[str]) -> list[Path]:
    typical = bool(_DATED.match(folder.name)) or folder.parent.name.lower().startswith("track")
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        if typical:
            return [folder]  # its row says so
        unreadable.append(os_error(error))
        return []
    names = [entry.name.lower() for entry in entries if entry.is_file(follow_symlinks=False)]
    if any(name.startswith("submission") and name.endswith(".json") for name in names):
        return [folder]
    if typical and (any(name.startswith("readme") for name in names) or recordfiles.logs(folder).files):
        return [folder]
    below = []
    if depth < DEPTH:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                below += _folders(Path(entry.path), depth + 1, unreadable)
    if below or not any(Path(name).suffix in recordfiles.SUFFIXES for name in names):
        return below
    logs, closed = evidence.read(folder)
    if any("/" not in log.file for log in logs):
        return [folder]
    unreadable += [f"{folder}: {text}" for text in closed]
    return []


def row(folder: Path, limits: Limits) -> dict[str, Any]:
    """One record folder as a row of the leaderboard: plain data without absolute paths or times of reading."""
    claim = claims.read(folder)
    logs, unreadable = evidence.read(folder)
    prequant = evidence.weigh(logs, claim)
    counted = [log for log in logs if log.counted]
    sizes = _sizes(counted) or _sizes(logs)
    track, named = folder.parent.name, claims.day(folder.name)
    issues = recordissues.find(logs, claim, prequant, limits, record=recordissues.bound(track))
    issues += recordissues.of_folder([*claim.unreadable, *unreadable], claim.date, named)
    return {
        "folder": folder.name,
        "track": track,
        "date": max(filter(None, (claim.date, named)), default=None),
        "title": claim.title or folder.name,
        "authors": claim.authors,
        "claimed": _claimed(claim),
        "logs": [_log(log) for log in logs],
        **_mean(counted),
        "artifact_max": max(sizes, default=None),
        "headroom_bytes": limits.cap_bytes - max(sizes) if sizes else None,
        "tags": techniques.tags("\n".join((folder.name.replace("_", " "), claim.title, claim.words))),
        "issues": [asdict(issue) for issue in issues],
    }


def _sizes(logs: list[Log]) -> list[int]:
    return [log.artifact_bytes for log in logs if log.artifact_bytes is not None]


def _mean(counted: list[Log]) -> dict[str, Any]:
    scores = [log.score for log in counted if log.score]
    losses = [score.val_loss for score in scores if score.val_loss == score.val_loss]
    sample = stats.summarise([score.val_bpb for score in scores]) if scores else None
    return {
        "log_mean": round(sample.mean, 8) if sample else None,
        "log_sd": round(sample.sd, 8) if sample and sample.sd is not None else None,
        "log_loss": round(sum(losses) / len(losses), 8) if losses and len(losses) == len(scores) else None,
        "n": len(scores),
        "n_seeds": recordissues.seed_count(counted),
    }


def _claimed(claim: Claim) -> dict[str, Any]:
    return {
        "val_bpb": claim.bpb.value if claim.bpb else None,
        "std": claim.std,
        "bytes_total": claim.bytes_total,
        "steps": claim.steps,
        "source": claim.source,
        "seeds": {str(seed): found.value for seed, found in (claim.seeds or claim.readme_seeds).items()},
    }


def _log(log: Log) -> dict[str, Any]:
    return {
        "file": log.file,
        "sha256": log.sha256,
        "content": log.content,
        "seed": log.seed,
        "seed_in_filename": log.seed_in_filename,
        "val_bpb": plain(log.score.val_bpb) if log.score else None,
        "val_loss": plain(log.score.val_loss) if log.score else None,
        "label": log.score.label if log.score else None,
        "reason": log.reason,
        "artifact_bytes": log.artifact_bytes,
        "code_bytes": log.code_bytes,
        "steps": log.steps,
        "train_time_ms": plain(log.train_time_ms),
        "eval_s": plain(log.eval_s),
        "outcome": log.outcome,
        "counted": log.counted,
        "why": log.why,
        "warnings": log.warnings,
    }
