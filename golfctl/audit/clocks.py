"""A3, A4, A5: the clocks of training, calibration and evaluation."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

from golfctl.audit.contest import Contest
from golfctl.audit.durations import Spoken, spoken
from golfctl.audit.result import Check, Evidence, fail, ok, unknown, warn
from golfctl.audit.target import Target
from golfctl.store.evidence import Log

_CALIBRATION = re.compile(
    r"\b(?:gptq\w*|calibration|hessians?)\b.{0,80}?\b(?:collected|calibrated|calibration|took|in)\b", re.IGNORECASE
)
_READS_TRAINING = re.compile(
    r"(?<![a-z])(calib\w*|hessians?|fisher|imatrix|awq|activation (?:stat|scale)\w*|importance matri\w*|second moments)"
    r"|(?<![a-z])train(?:ing)?[ _](?:batch|shard|token|sequence|seqs|text|data|doc|sample|example)",
    re.IGNORECASE,
)
"""What a line says, once training is over, of work that reads training text."""
_AHEAD = re.compile(
    r"precomput|prefill|pre-?build|(build|built|fill|warm)\w* .{0,30}(cache|table|n-?gram)", re.IGNORECASE
)
"""Work for an evaluation that is done before its clock runs."""
_WHOLE = re.compile(r"\b(train|total wall|compil|warm-?up)", re.IGNORECASE)
_NOT_CALIBRATION = re.compile(r"reserv|quantiz|quantis|compress|saved|generat|eval|ttt", re.IGNORECASE)
Heard = Mapping[str, list[Spoken]]
"""Log to its lines with a duration: each is read once."""
SLOPPY_S = 0.2
"""Seconds past the limit that are a warning where a log does not say how long a step takes."""


def check(target: Target, contest: Contest) -> list[Check]:
    """Seconds of training, of training with calibration, of evaluation, against the limits; of the runs that count."""
    limits = contest.limits
    bound = target.record and (limits.train_seconds, limits.eval_seconds) != (None, None)
    heard = {log.file: list(spoken(target.folder / log.file)) for log in target.counted} if bound else {}
    return [
        Check(
            "A3",
            "training within its time",
            "45 merged logs stop up to 0.14 s late; one trained 2,400 s",
            _all(target, limits.train_seconds, _training),
        ),
        Check(
            "A4",
            "training and calibration within its time",
            "604.3 s with Hessians (#1855, seed 0)",
            _all(target, limits.train_seconds, partial(_calibrating, heard)),
        ),
        Check(
            "A5",
            "evaluation within its time",
            "688 s (#1972)",
            _all(target, limits.eval_seconds, partial(_evaluating, heard)),
        ),
    ]


def _all(target: Target, limit: float | None, one: Callable[[Target, Log, float], Evidence]) -> tuple[Evidence, ...]:
    if limit is None:
        return (ok("the rules set no limit"),)
    if not target.record:
        return (ok(f"not bound by the limit of {limit:g} s: not a record run"),)
    if not target.counted:
        return (unknown("no log holds a score"),)
    return tuple(one(target, log, limit) for log in target.counted)


def _step_s(log: Log) -> float:
    return (log.step_avg_ms or 0.0) / 1000 or SLOPPY_S


def _training(target: Target, log: Log, limit: float) -> Evidence:
    if log.train_time_ms is None:
        return unknown("does not say how long it trained", log.file)
    spent, where = log.train_time_ms / 1000, _where(target, log, "train_time_ms")
    over = spent - limit
    if over <= 0:
        return ok(f"trained {spent:,.2f} s of {limit:g} s", where)
    text = f"trained {spent:,.2f} s, {over:,.2f} s past {limit:g} s"
    step = _step_s(log)
    return warn(f"{text}: within one step of {step * 1000:,.0f} ms", where) if over <= step else fail(text, where)


def _calibrating(heard: Heard, target: Target, log: Log, limit: float) -> Evidence:
    found = calibration(heard[log.file])
    if found is None or log.train_time_ms is None:
        if log.train_time_ms is None:
            return unknown("does not say how long it trained", log.file)
        return ok("its log says nothing of a calibration", log.file)
    line, seconds, text = found
    whole = log.train_time_ms / 1000 + seconds
    where = f"{log.file}:{line}"
    said = f"trained {log.train_time_ms / 1000:,.2f} s and calibrated {seconds:g} s ({text}): {whole:,.2f} s"
    if whole <= limit:
        return ok(f"{said} of {limit:g} s", where)
    if "self-gen" in text.lower() or "autoregressive" in text.lower():
        return warn(
            f"{said}, {whole - limit:,.2f} s past {limit:g} s; its text is the model's own, no training data", where
        )
    if whole - limit <= _step_s(log):
        return warn(f"{said}, {whole - limit:,.2f} s past {limit:g} s: within one step", where)
    return fail(f"{said}, {whole - limit:,.2f} s past {limit:g} s: calibration reads training data and counts", where)


def calibration(heard: Iterable[Spoken]) -> tuple[int, float, str] | None:
    """(line, seconds, its text) of the longest calibration a log tells of; None if it tells of none."""
    return max(_calibrations(heard), key=lambda item: item[1], default=None)


def _calibrations(heard: Iterable[Spoken]) -> Iterator[tuple[int, float, str]]:
    own = False
    for item in heard:
        text = item.text
        own = own or "autoregressive" in text.lower() or "self-gen" in text.lower()
        told = _CALIBRATION.search(text) or (item.trained and not item.packed and _READS_TRAINING.search(text))
        if told and item.seconds and not _NOT_CALIBRATION.search(text):
            yield (
                item.line,
                item.seconds,
                f"{text[:80]}{' (self-generated text)' if own and 'self-gen' not in text else ''}",
            )


def _evaluating(heard: Heard, target: Target, log: Log, limit: float) -> Evidence:
    told = _told(heard[log.file])
    line = log.score.line if log.score else 0
    where = f"{log.file}:{line}" if line else log.file
    if log.eval_s is None and told is None:
        return unknown("does not say how long it was evaluated", log.file)
    spent = log.eval_s or 0.0
    if told is not None and told[1] > max(spent, limit):
        spent, where = told[1], f"{log.file}:{told[0]}"
    if spent > limit:
        return fail(f"evaluated for {spent:,.1f} s, {spent - limit:,.1f} s past {limit:g} s", where)
    ahead = _ahead(heard[log.file])
    if ahead is not None and spent + ahead[1] > limit:
        text = f"evaluated for {spent:,.1f} s after {ahead[1]:,.1f} s of work for it ({ahead[2]}): {spent + ahead[1]:,.1f} s"
        return warn(f"{text}, past {limit:g} s", f"{log.file}:{ahead[0]}")
    if log.eval_s is None:
        return unknown("does not say how long it was evaluated", log.file)
    return ok(f"evaluated for {spent:,.1f} s of {limit:g} s", where)


def _told(heard: Iterable[Spoken]) -> tuple[int, float] | None:
    """(line, seconds) of the longest evaluation that a line of its own tells of, in minutes or hours, too."""
    lines = [
        (item.line, item.seconds)
        for item in heard
        if item.packed and re.search(r"(?<![a-z])eval", item.text, re.IGNORECASE) and not _WHOLE.search(item.text)
    ]
    return max(lines, key=lambda item: item[1], default=None)


def _ahead(heard: Iterable[Spoken]) -> tuple[int, float, str] | None:
    """(line, seconds, its text) of work for the evaluation that no evaluation's clock holds."""
    lines = [
        (item.line, item.seconds, item.text[:80])
        for item in heard
        if item.packed and _AHEAD.search(item.text) and not re.search(r"val_bpb|compil", item.text)
    ]
    return max(lines, key=lambda item: item[1], default=None)


def _where(target: Target, log: Log, what: str) -> str:
    line = target.parsed[log.file].lines.get(what)
    return f"{log.file}:{line}" if line else log.file
