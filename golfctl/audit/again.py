"""Which command scores a target again in a clean room, on which data, and which logged number it must meet."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from golfctl.audit import cleanroom, shipped
from golfctl.audit.cleanroom import Limits, Visit, Wanted
from golfctl.audit.result import Check
from golfctl.audit.target import Target
from golfctl.domain import rundir
from golfctl.errors import InputError
from golfctl.hostside.files import one_line
from golfctl.store import packed

if TYPE_CHECKING:
    from golfctl.domain.run import RunRecord
    from golfctl.store.campaign import Campaign
    from golfctl.store.evidence import Log

SCORE = "--score"
"""What a script that scores an artifact alone is asked with: `python train_gpt.py --score ARTIFACT DATA_PATH=data`."""
ARTIFACTS = (".golf",)
ALONE = b"def open_validation("
"""Stands in a trainer that scores without training data."""
SETTINGS = ("CPU_THREADS", "DEVICE", "EVAL_BATCH_SEQS")
"""Which the artifact leaves open and which move digits."""


def record(target: Target, folder: Path, data: Path, how: Mapping[str, Any], seeds: int | None = None) -> Check:
    """A record folder whose script takes --score, by itself: `seeds` of its logs (None: all).

    data: folder with the validation part. how: keywords of `cleanroom.visit`. Raises InputError, HostError as it does.
    """
    script = shipped.entry(target.code)
    if script is None or not scores_alone(target.code[script]):
        return cleanroom.check({target.name: f"its script takes no {SCORE} ARTIFACT"})
    found: dict[str, tuple[Visit, Wanted] | str] = {}
    for log in target.counted:
        artifact = _artifact_of(folder, log)
        if artifact is None:
            found[log.file] = "its artifact is not in the folder"
        elif seeds is None or sum(isinstance(item, tuple) for item in found.values()) < seeds:
            found[log.file] = _record_run(folder, script, artifact, data, log, how)
    return cleanroom.check(found)


def _record_run(
    folder: Path, script: str, artifact: str, data: Path, log: Log, how: Mapping[str, Any]
) -> tuple[Visit, Wanted]:
    assert log.score is not None, log.file
    files = {path.name: path for path in sorted(folder.iterdir()) if not path.name.startswith(".")} | {"data": data}
    wanted = Wanted(log.score.label, log.score.val_bpb, log.world_size or 1, val_sha256=val_sha256(folder / log.file))
    return cleanroom.visit(files, [script, SCORE, artifact, "DATA_PATH=data"], **how), wanted


def scores_alone(script: bytes) -> bool:
    """Whether a script, or the one packed in it, knows `--score`."""
    tree = shipped.tree_of(script)
    inner = packed.find(tree) if tree is not None else None
    return SCORE.encode() in (inner.inner if inner is not None and inner.inner else script)


def _artifact_of(folder: Path, log: Log) -> str | None:
    """The artifact whose name says the log's seed, or the only one there is."""
    names = [path.name for path in sorted(folder.iterdir()) if path.suffix in ARTIFACTS and path.is_file()]
    mine = [name for name in names if log.seed is not None and re.search(rf"(?<!\d){log.seed}(?!\d)", name)]
    return mine[0] if mine else names[0] if len(names) == 1 and not re.search(r"seed", names[0]) else None


def runs(target: Target, campaign: Campaign, data: Path, how: Mapping[str, Any]) -> Check:
    """Runs of a campaign, each by the code of its own bundle. Raises as `record` does."""
    found: dict[str, tuple[Visit, Wanted] | str] = {}
    for log in target.counted:
        run = target.runs[log.file]
        artifact = target.folder / run.spec.name / rundir.ARTIFACT
        if not target.code.get("trainer/data/dataset.py"):
            found[log.file] = "not a run of the bundled trainer"
        elif ALONE not in target.code["trainer/data/dataset.py"]:
            found[log.file] = "its trainer, an older one, can't score without training data"
        elif not artifact.is_file() or log.score is None:
            found[log.file] = "its artifact is not here"
        else:
            found[log.file] = _campaign_run(target, campaign, run, artifact, data, how)
    return cleanroom.check(found)


def _campaign_run(
    target: Target, campaign: Campaign, run: RunRecord, artifact: Path, data: Path, how: Mapping[str, Any]
) -> tuple[Visit, Wanted]:
    result = run.result
    assert result is not None and result.score is not None, run.spec.name
    settings = [f"{name}={result.settings[name]}" for name in SETTINGS if name in result.settings]
    with code_of(campaign, run.spec.bundle) as folder:
        files = {"trainer": folder / "trainer", "artifact.golf": artifact, "data": data}
        words = ["-m", "trainer.score", "artifact.golf", "DATA_PATH=data", *settings]
        seen = cleanroom.visit(files, words, alone=False, **how)
    path = artifact.with_name(rundir.LOG)
    wanted = Wanted(campaign.rules.score_label, result.score, run.spec.processes, result.environment, val_sha256(path))
    return seen, wanted


@contextmanager
def code_of(campaign: Campaign, bundle_sha: str) -> Iterator[Path]:
    """The files of a bundle in a temporary folder. Raises InputError where it is unknown or damaged."""
    from golfctl.store import bundle

    with tempfile.TemporaryDirectory(prefix="golfctl-bundle-") as made:
        for path, entry in bundle.tree_of(campaign, bundle_sha).files.items():
            place = Path(made) / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(entry.content)
        yield Path(made)


@contextmanager
def validation(data: str, tokenizer: str) -> Iterator[Path]:
    """A folder with the validation part of a data folder ("": the embedded corpus) and nothing else. Raises InputError."""
    with tempfile.TemporaryDirectory(prefix="golfctl-val-") as made:
        target = Path(made) / "data"
        words = ["validation", str(target), "--data-path", data, "--tokenizer", tokenizer]
        done = subprocess.run(
            [sys.executable, "-m", "trainer.data", *words],
            capture_output=True,
            text=True,
            check=False,
            cwd=made,
        )
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["?"])[-1].removeprefix("error: ")
            raise InputError(f"validation data: {one_line(said)}")
        yield target


def away(campaign: Campaign | None, data: str) -> list[Path]:
    """Folders that a room must not show: training data, prepared data, and what other runs left."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    found = [Path(cache) / "golfctl", *([Path(data)] if data else [])]
    return found if campaign is None else [*found, campaign.experiments_folder, campaign.state_folder]


def val_sha256(log: Path) -> str:
    """The hash of the validation text that a log states, "" where it states none."""
    with log.open(encoding="utf-8", errors="replace") as file:
        return next((found[1] for line in file if (found := _VAL.search(line[:1000]))), "")


_VAL = re.compile(r"\bval_text_sha256:([0-9a-f]{64})\b")


def tokenizer_of(target: Target) -> str:
    """TOKENIZER of the runs of a target, as their results or its submission.json say; bytes where nothing does."""
    for run in target.runs.values():
        if run.result is not None and "TOKENIZER" in run.result.settings:
            return str(run.result.settings["TOKENIZER"])
    try:
        return str(json.loads((target.folder / "submission.json").read_bytes()).get("tokenizer", "bytes"))
    except (OSError, ValueError, AttributeError):
        return "bytes"


def checks(
    targets: Sequence[Target], campaign: Campaign | None, data: Path | None, limits: Limits, python: str
) -> Check:
    """R5 of one target. Raises InputError for a tree of many, and as `record` does."""
    if len(targets) != 1:
        raise InputError(f"--rerun: one target at a time; there are {len(targets)} here")
    target, source = targets[0], str(data.resolve()) if data is not None else ""
    how = {"hidden": away(campaign if target.runs else None, source), "limits": limits, "python": python}
    with validation(source, tokenizer_of(target)) as folder:
        if target.runs:
            assert campaign is not None, target.name
            return runs(target, campaign, folder, how)
        return record(target, target.folder, folder, how)
