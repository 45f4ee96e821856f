"""What an audit looks at: a record folder, a run of a campaign, or all runs of a plan's last gate, as one kind of thing."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from golfctl.domain import rundir
from golfctl.errors import InputError
from golfctl.logs import RunLog, read_file
from golfctl.store import claims, evidence, recordfiles, recordissues
from golfctl.store.claims import Claim, Number
from golfctl.store.evidence import Log
from golfctl.store.records import folders
from trainer.contract import CODE_SUFFIXES

if TYPE_CHECKING:
    from golfctl.domain.run import RunRecord
    from golfctl.domain.state import State
    from golfctl.store.campaign import Campaign

RECORD, RUN, PLAN = "record", "run", "plan"
LARGEST_CODE = 4_000_000
"""Bytes of a code file that are read; the longest of the field has 160,000."""
WEIGHTS = (".golf", ".ptz", ".pt", ".bin", ".safetensors", ".npz", ".br", ".xz", ".zst", ".lzma")
BYTECODE = ".pyc"
CLAIMED_DIGITS = 8


@dataclass(frozen=True)
class Target:
    """logs: which of them count is decided already; parsed: what each log says, by file; code: shipped files by path.

    weights: packed models on the disk, path to bytes. runs: for runs of ours, what the ledger holds, by log file. record: whether
    the limits of time and seeds bind it. unreadable: what could not be looked at, a sentence each.
    """

    name: str
    kind: str
    folder: Path
    logs: Sequence[Log]
    claim: Claim
    prequant: str = ""
    parsed: Mapping[str, RunLog] = field(default_factory=dict)
    code: Mapping[str, bytes] = field(default_factory=dict)
    weights: Mapping[str, int] = field(default_factory=dict)
    runs: Mapping[str, RunRecord] = field(default_factory=dict)
    record: bool = True
    unreadable: Sequence[str] = ()

    @property
    def counted(self) -> list[Log]:
        """The logs its score rests on."""
        return [log for log in self.logs if log.counted]


def records(tree: Path) -> tuple[list[Target], list[str]]:
    """Every record folder of a tree, itself included, and what can't be looked into. Raises InputError if there is none."""
    try:
        found, unreadable = folders(tree)
    except OSError as error:
        raise InputError(f"{tree}: can't be read: {error.strerror}") from None
    if not found:
        raise InputError(f"{tree}: holds no record: a folder with a submission.json, or a README and a log")
    return [of_record(folder) for folder in found], unreadable


def of_record(folder: Path) -> Target:
    """A record folder as it lies there: nothing in it is run or unpickled."""
    claim = claims.read(folder)
    logs, unreadable = evidence.read(folder)
    prequant = evidence.weigh(logs, claim)
    suffixes = {*CODE_SUFFIXES, BYTECODE}
    shipped = [path for path in sorted(folder.rglob("*")) if path.suffix in suffixes and _inside(path, folder)]
    code: dict[str, bytes] = {}
    for path in shipped:
        try:
            with path.open("rb") as file:
                code[path.relative_to(folder).as_posix()] = file.read(LARGEST_CODE)
        except OSError as error:
            unreadable.append(f"{path.name}: {error.strerror}")
    return Target(
        name=folder.name,
        kind=RECORD,
        folder=folder,
        logs=logs,
        claim=claim,
        prequant=prequant,
        parsed={log.file: read_file(folder / log.file).last for log in logs},
        code=code,
        weights=_weights(folder),
        record=recordissues.bound(folder.parent.name) and not _outside(folder),
        unreadable=[*claim.unreadable, *unreadable],
    )


def of_campaign(campaign: Campaign, state: State, name: str) -> Target:
    """A run, or the newest revision of a plan with the runs of the last gate that judged it.

    Raises InputError: no such run or plan, no verdict yet, or its files are not here.
    """
    if name in state.runs:
        return _of_runs(campaign, name, RUN, [state.runs[name]], Claim(), judged=False)
    revision = state.revision(name)
    if revision is None:
        raise InputError(
            f"{name}: neither a folder, nor a run or a plan that has run here; `golfctl runs list` names them"
        )
    last = max((key[2] for key in state.verdicts if key[:2] == (name, revision.number)), default=None)
    if last is None:
        raise InputError(f"{name}: no gate has judged it yet; audit its runs one by one (`golfctl runs list`)")
    verdict = state.verdicts[(name, revision.number, last)]
    mean = (verdict.numbers.get("test") or {}).get("mean")
    claim = Claim(bpb=Number(mean, CLAIMED_DIGITS) if mean is not None else None, source="the verdict")
    judged = last == revision.frozen["gates"][-1]["number"]
    return _of_runs(campaign, name, PLAN, [state.runs[run] for run in verdict.runs], claim, judged)


def _of_runs(campaign: Campaign, name: str, kind: str, runs: Sequence[RunRecord], claim: Claim, judged: bool) -> Target:
    from golfctl.store import bundle

    logs: list[Log] = []
    parsed: dict[str, RunLog] = {}
    weights: dict[str, int] = {}
    held: dict[str, RunRecord] = {}
    unreadable = []
    for run in runs:
        folder = campaign.runs_folder / run.spec.name
        path, file = folder / rundir.LOG, f"{run.spec.name}/{rundir.LOG}"
        try:
            log = evidence.read_log(path, file)
        except OSError as error:
            unreadable.append(f"{file}: {error.strerror}")
            continue
        if log is not None:
            parsed[file] = read_file(path).last
            log.counted = run.scored and not run.excused
            log.score = parsed[file].final(campaign.rules.score_label) or log.score
            logs.append(log)
            held[file] = run
        weights |= {f"{run.spec.name}/{key}": size for key, size in _model(folder, run).items()}
    files = bundle.tree_of(campaign, runs[0].spec.bundle).files if runs else {}
    return Target(
        name=name,
        kind=kind,
        folder=campaign.runs_folder,
        logs=logs,
        claim=claim,
        parsed=parsed,
        code={path: entry.content for path, entry in files.items() if bundle.counts(path)},
        weights=weights,
        runs=held,
        record=judged,
        unreadable=unreadable,
    )


def _outside(folder: Path) -> bool:
    """Whether a record names a track of its own that the limits do not bind."""
    try:
        said = json.loads((folder / "submission.json").read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return False
    track = said.get("track") if isinstance(said, dict) else None
    return isinstance(track, str) and bool(re.search(r"non[-_ ]?record|unlimited|unbound", track, re.IGNORECASE))


def _inside(path: Path, folder: Path) -> bool:
    parts = path.relative_to(folder).parts
    return recordfiles.plain(path) and not any(part.startswith(".") or part == "__pycache__" for part in parts)


def _model(folder: Path, run: RunRecord) -> dict[str, int]:
    """The files that its base names as the artifact; without such names whatever looks like a model."""
    globs = (run.spec.rules.get("artifact") or {}).get("globs")
    if not globs:
        return _weights(folder)
    files = {path for pattern in globs for path in folder.glob(pattern) if recordfiles.plain(path)}
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in sorted(files)}


def _weights(folder: Path) -> dict[str, int]:
    """Files that hold a packed model, by their suffix: they are measured, never opened."""
    if not folder.is_dir():
        return {}
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.suffix in WEIGHTS and recordfiles.plain(path)
    }
