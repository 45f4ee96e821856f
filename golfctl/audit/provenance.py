"""A8: is validation text among the training data? By the hashes a run states, and by sampled documents of the shards."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from golfctl.audit import datafiles
from golfctl.audit.result import Check, Evidence, count, fail, ok, several, unknown, warn
from golfctl.audit.target import Target
from golfctl.domain import rundir
from golfctl.errors import InputError

if TYPE_CHECKING:
    import numpy as np

SAMPLE = 2000
"""Validation documents that are looked for, spread evenly over the text."""
PIECE = 48
"""Tokens at the start of a document by which it is known again; shorter documents are left out."""
HEADER_BYTES, MAGIC = 1024, 20240520
"""Of the contest's shards: 256 little-endian int32, then uint16 tokens."""
BY_CHANCE = 0.01
"""Share of documents that may be found without blame: texts repeat."""
_VAL = re.compile(r"(^|_)val[_.]", re.IGNORECASE)
_TRAIN = re.compile(r"(^|_)(train|tune)[_.]", re.IGNORECASE)
"""Names of validation and of training files, prepared or as shards; `tune` is held out from the training text."""
_SHARDS = re.compile(r"train_shards:\s*(\d+)")


def check(target: Target, data: Path | None) -> Check:
    """data: a folder with the shards a run trained and was scored on, where they are at hand."""
    found = [
        *_stated(target),
        *([] if target.runs else datafiles.stated(target)),
        *(_sampled(data) if data is not None else []),
    ]
    return Check(
        "A8",
        "no validation text in the training data",
        "80 % of the validation documents in training (#2127)",
        tuple(found)
        or (unknown("the data are not here: --data DIR looks for validation documents in training shards"),),
    )


def _stated(target: Target) -> Iterator[Evidence]:
    for file, run in target.runs.items():
        if run.result is None or run.result.self_reported:
            continue
        try:
            result = json.loads((target.folder / file).with_name(rundir.RESULT).read_bytes())
            train, val = result["data"]["train_sha256"], result["data"]["val_sha256"]
        except (OSError, ValueError, KeyError, TypeError):
            yield unknown("states no hashes of its data", file)
            continue
        if train == val:
            yield fail(f"trained and scored on the same stream, sha256 {str(val)[:12]}", file)
        else:
            yield ok(f"trained on sha256 {str(train)[:12]}, scored on {str(val)[:12]}: two streams", file)
        yield _opened(result.get("files_opened"), file)
    if not target.runs:
        shards = {_shards(target.folder / log.file) for log in target.counted} - {None}
        if len(shards) > 1:
            yield warn(
                f"the logs say {', '.join(map(str, sorted(filter(None, shards))))} training shards: not the same data"
            )


def _opened(phases: Any, file: str) -> Evidence:
    """Whether a run opened validation files while it trained, or training files while it was scored, by its own audit hook."""
    try:
        training, evaluation = set(map(str, phases["training"])), set(map(str, phases["evaluation"]))
    except (KeyError, TypeError):
        return unknown("does not say which files it opened (a trainer of old)", file)
    early, late = sorted(filter(_VAL.search, training)), sorted(filter(_TRAIN.search, evaluation))
    if early or late:
        said = [f"{several(early)} while it trained"] * bool(early) + [f"{several(late)} while it was scored"] * bool(
            late
        )
        return fail(f"opened {' and '.join(said)}", file)
    if not any(map(_TRAIN.search, training)) or not any(map(_VAL.search, evaluation)):
        return unknown("names no training or no validation file that it opened", file)
    text = f"opened {several(sorted(training))} to train and {several(sorted(evaluation))} to be scored"
    return ok(text, file)


def _shards(path: Path) -> int | None:
    with path.open(encoding="utf-8", errors="replace") as file:
        return next((int(found[1]) for line in file if (found := _SHARDS.search(line[:400]))), None)


def _sampled(folder: Path) -> Iterator[Evidence]:
    val = sorted(folder.rglob("*_val_*.bin"))
    train = sorted(folder.rglob("*_train_*.bin"))
    if not val or not train:
        raise InputError(f"--data {folder}: holds no *_val_*.bin and *_train_*.bin shards")
    opens = int(_tokens(val[0])[0])  # a training shard may begin in the middle of a document
    wanted = _pieces(val, opens)
    seen: set[bytes] = set()
    for path in train:
        seen |= wanted & _starts(_tokens(path), opens)
    share = len(seen) / len(wanted) if wanted else 0.0
    found = f"{len(seen):,} of {len(wanted):,} sampled validation documents ({share:.1%})"
    text = f"{found} begin as one in {count(len(train), 'training shard')}"
    yield fail(text, str(train[0].parent)) if share > BY_CHANCE else ok(text, str(train[0].parent))


def _pieces(paths: list[Path], opens: int) -> set[bytes]:
    """The beginnings of documents, spread evenly over the validation text."""
    found = sorted(set().union(*(_starts(_tokens(path), opens) for path in paths)))
    step = max(1, len(found) // SAMPLE)
    return set(found[::step])


def _tokens(path: Path) -> np.ndarray:
    import numpy as np

    try:
        header = np.fromfile(path, dtype="<i4", count=3)
        if len(header) < 3 or header[0] != MAGIC:
            raise InputError(f"{path}: no shard of the contest's form (its first number is no {MAGIC})")
        return np.memmap(path, dtype="<u2", mode="r", offset=HEADER_BYTES)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: can't be read ({error})") from None


def _starts(tokens: np.ndarray, opens: int) -> set[bytes]:
    """The first PIECE tokens of every document that has so many. opens: the id that every document begins with."""
    import numpy as np

    at = np.flatnonzero(tokens == opens)
    ends = np.append(at[1:], len(tokens))
    return {tokens[a : a + PIECE].tobytes() for a, b in zip(at.tolist(), ends.tolist(), strict=True) if b - a >= PIECE}
