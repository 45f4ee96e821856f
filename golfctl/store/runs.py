"""Run folders here: the only place that translates what a run left on disk into a RunResult.

The bundled trainer leaves result.json; a foreign script leaves its log and its artifact. Both are recounted from the disk, and
where two files say the same thing they must agree: a contradiction is an `invalid:` warning, and the judge fails the run for it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from golfctl.domain import rundir
from golfctl.domain.run import RunResult
from golfctl.hostside.files import one_line
from golfctl.logs import Eval, RunLog, read_file
from golfctl.store import evals

PRINTED_DIGITS = 5e-9
"""Final lines carry eight decimals."""
RESULT_BYTES = 1 << 20
"""Longest result.json that is read: what it holds goes into the ledger."""
SHOWN = 5
"""So many of a list are named in a warning."""


def evidence(folder: Path) -> str:
    """sha256 of exit.json, which lists the sha256 of every other file; "" where a run left none."""
    path = folder / rundir.EXIT
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def altered(folder: Path, recorded: str, expendable: Sequence[str]) -> list[str]:
    """What differs in a pulled run folder from what was recorded, one line each.

    expendable: names that may be missing (large files are not kept everywhere), never different.
    """
    path = folder / rundir.EXIT
    if not path.is_file():
        return [f"{rundir.EXIT} is missing"]
    if evidence(folder) != recorded:
        return [f"{rundir.EXIT} is not the one that was recorded"]
    found = []
    for name, fact in json.loads(path.read_bytes())["files"].items():
        file = folder / name
        if not file.is_file():
            found += [] if name in expendable else [f"{name} is missing"]
        elif hashlib.sha256(file.read_bytes()).hexdigest() != fact["sha256"]:
            found.append(f"{name} was changed")
    return found


@dataclass(frozen=True)
class Counted:
    """What golfctl itself knows of a run: the bytes of its bundle's code, where its artifact is, which label is the score.

    code_sha256: hash of the code as the bundled trainer reports it; None for a foreign script, whose result.json, if it leaves
    one, is its own affair and not read.
    """

    code_bytes: int
    artifact: Sequence[str]
    score_label: str
    code_sha256: str | None = None


def read_result(folder: Path, counted: Counted) -> RunResult:
    """What the run says. Raises nothing for a bad run: what is missing stays None."""
    path = folder / rundir.LOG
    runs = read_file(path).runs if path.exists() else []
    log = runs[-1] if runs else RunLog()
    model_bytes = _count(folder, counted.artifact)
    path = folder / rundir.RESULT
    if counted.code_sha256 is None or not path.exists():
        return _from_log(log, runs, counted, model_bytes)
    try:
        if (size := path.stat().st_size) > RESULT_BYTES:
            raise ValueError(f"{size:,} bytes; at most {RESULT_BYTES:,} are read")
        # NaN and inf are no JSON and nothing a record can hold: they are missing values like any other.
        content = json.loads(path.read_bytes(), parse_float=_float, parse_constant=lambda _: None)
        return _from_result(content, log, counted, model_bytes)
    except (ValueError, AttributeError, TypeError, OverflowError, RecursionError) as error:
        return RunResult(warnings=(f"invalid: {rundir.RESULT} can't be read: {one_line(str(error))}",))


def _count(folder: Path, globs: Sequence[str]) -> int | None:
    """Bytes of the artifact files as they lie on the disk, None if there are none."""
    files = {path for pattern in globs for path in folder.glob(pattern) if path.is_file()}
    return sum(path.stat().st_size for path in files) if files else None


def _from_log(log: RunLog, runs: Sequence[RunLog], counted: Counted, model_bytes: int | None) -> RunResult:
    final = log.final(counted.score_label)
    eval_s = evals.seconds(log, final)
    return RunResult(
        score=_score(final.val_bpb) if final else None,
        val_loss=_finite(final.val_loss) if final else None,
        step_avg_ms=_finite(log.step_avg_ms),
        steps=log.steps_done,
        train_time_ms=_finite(log.train_time_ms),
        eval_time_ms=_finite(eval_s * 1000) if eval_s is not None else None,
        peak_mem_mib=_finite(log.peak_mem_mib),
        code_bytes=counted.code_bytes,
        model_bytes=model_bytes,
        artifact_bytes=counted.code_bytes + model_bytes if model_bytes is not None else None,
        self_reported=True,
        warnings=(*_ambiguous(runs, counted.score_label), *_other_sizes(log, counted.code_bytes, model_bytes)),
    )


def _ambiguous(runs: Sequence[RunLog], label: str) -> Iterator[str]:
    """What makes it a guess which score or which training is the run's."""
    trained = [f"{run.steps_done:,}" for run in runs if run.steps_done]
    if len(trained) > 1:
        text = f"{rundir.LOG} holds {len(trained)} trainings (of {', '.join(trained[:SHOWN])} steps); a run is one"
        yield f"invalid: {text}"
    scores: list[Eval] = []
    for item in (item for run in runs for item in run.evals if item.label == label):
        if len(scores) < SHOWN and not any(evals.twin(item, other) for other in scores):
            scores.append(item)
    if len(scores) > 1:
        said = ", ".join(f"{item.val_bpb:.{item.digits}f}" for item in scores)
        yield f"invalid: {rundir.LOG} prints {one_line(label)} with different scores: {said}"


def _other_sizes(log: RunLog, code_bytes: int, model_bytes: int | None) -> Iterator[str]:
    """What the log says of the artifact's size and the disk does not show.

    More than was counted: weights that count lie elsewhere. Less: what was counted is the safe side, and it is only said.
    """
    if model_bytes is None:
        return
    if log.model_bytes is not None and log.model_bytes != model_bytes:
        text = f"the log says {log.model_bytes:,} bytes of model, counted on disk: {model_bytes:,}"
        yield f"invalid: {text}" if log.model_bytes > model_bytes else f"{text}, which counts"
    if log.total_bytes is not None and log.total_bytes > code_bytes + model_bytes:
        counted = f"{code_bytes + model_bytes:,} bytes of code and model"
        yield f"invalid: the log says {log.total_bytes:,} bytes in total, counted on disk: {counted}"


def _from_result(content: Mapping[str, Any], log: RunLog, counted: Counted, model_bytes: int | None) -> RunResult:
    scored = content.get("scores", {}).get(counted.score_label, {})
    data = content.get("data", {})
    score = _score(scored.get("val_bpb"))
    said = [one_line(str(text)) for text in content.get("warnings") or ()]
    warnings = [*said, *_contradictions(content, log, counted, score, model_bytes)]
    references = {one_line(name): value for name, value in (content.get("references") or {}).items() if _finite(value)}
    return RunResult(
        score=score,
        val_loss=_finite(scored.get("val_loss")),
        step_avg_ms=_finite(content.get("step_avg_ms")),
        steps=_whole(content.get("steps")),
        train_time_ms=_finite(content.get("train_time_ms")),
        eval_time_ms=_finite(scored.get("eval_time_ms")),
        peak_mem_mib=_finite(content.get("peak_mem_mib")),
        code_bytes=counted.code_bytes,
        model_bytes=model_bytes,
        artifact_bytes=counted.code_bytes + model_bytes if model_bytes is not None else None,
        metric_version=_whole(content.get("metric_version")),
        data=_text(data.get("val_text_sha256") or data.get("val_sha256")),
        self_reported=False,
        code_sha256=_text(content.get("code_sha256")),
        settings=_clean(content.get("settings") or {}),
        environment=_clean(content.get("environment") or {}),
        references=references,
        warnings=tuple(warnings),
    )


def _contradictions(
    content: Mapping[str, Any], log: RunLog, counted: Counted, score: float | None, model_bytes: int | None
) -> list[str]:
    found = []
    final = log.final(counted.score_label)
    if score is not None and (final is None or abs(final.val_bpb - score) > PRINTED_DIGITS):
        printed = "nothing" if final is None else final.val_bpb
        found.append(f"invalid: {rundir.RESULT} says {counted.score_label} {score}, the log says {printed}")
    for name, own in (("code_bytes", counted.code_bytes), ("model_bytes", model_bytes)):
        if content.get(name) != own:
            found.append(f"invalid: the run says {name} {one_line(str(content.get(name)))}, counted on disk: {own}")
    if content.get("code_sha256") != counted.code_sha256:
        found.append("invalid: the run saw other code than its bundle holds")
    return found


def _score(value: Any) -> float | None:
    """A number of bits per byte; zero or less is no compression anybody reached, but a broken count."""
    number = _finite(value)
    return number if number is not None and number > 0 else None


def _float(text: str) -> float | None:
    return _finite(float(text))


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _clean(content: Any) -> dict[str, Any]:
    """The mapping without halves of surrogate pairs, which the ledger takes for bytes that are no text and refuses."""
    text = json.dumps(dict(content), ensure_ascii=False).encode("utf-8", "replace").decode()
    found: dict[str, Any] = json.loads(text)
    return found


def _text(value: Any) -> str | None:
    return one_line(value) if isinstance(value, str) else None


def _finite(value: Any) -> float | None:
    """A number, or None for whatever is none: a missing score is never 0.0, nan or inf."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None
