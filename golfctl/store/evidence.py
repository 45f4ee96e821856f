"""What the logs of one record folder show, and which of them its score rests on."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from golfctl.logs import Eval, LogFile, RunLog, read_file
from golfctl.logs.headline import choose
from golfctl.store import evals, recordfiles
from golfctl.store.claims import Claim, Number

NEAR = 0.005
"""bpb within which logs of different settings still count as one experiment; seeds differ by 0.0017 (sd) at most."""
FEW_LINES = 3
_SEED = (
    re.compile(r"seed[-_ ]?(\d{1,9})(?!\d)", re.IGNORECASE),
    re.compile(r"_s(\d{1,9})(?![\da-z])", re.IGNORECASE),
    re.compile(r"(?:^|_)log_(\d{1,9})$", re.IGNORECASE),
    re.compile(r"^(?:train|run)_?(\d{1,9})$", re.IGNORECASE),
)


@dataclass
class Log:
    """One log file. score in bpb, loss in nats per token, times in ms, eval_s in seconds, sizes in bytes.

    counted: whether the record's mean rests on it; if not, why says so. content: hash of the run's points and evaluations, ""
    where there are too few to tell runs apart. settings: what tells experiments apart. artifact_bytes: code and model, or what
    the log itself calls its total (total_bytes) if that is more. warnings: how many the reader of the log has.
    """

    file: str
    sha256: str
    outcome: str
    seed: int | None = None
    seed_in_filename: int | None = None
    score: Eval | None = None
    reason: str = ""
    artifact_bytes: int | None = None
    total_bytes: int | None = None
    code_bytes: int | None = None
    model_bytes: int | None = None
    steps: int | None = None
    train_time_ms: float | None = None
    step_avg_ms: float | None = None
    eval_s: float | None = None
    world_size: int | None = None
    content: str = ""
    prequant: float | None = None
    evals: list[Eval] = field(default_factory=list)
    settings: tuple[object, ...] = ()
    counted: bool = False
    why: str = ""
    warnings: int = 0

    @property
    def seeds(self) -> set[int]:
        """The seed it prints and the one its name says."""
        return {seed for seed in (self.seed, self.seed_in_filename) if seed is not None}

    def like(self, other: Log) -> bool:
        """Whether both ran under the same settings, as far as logs show them: steps within a tenth."""
        if self.settings != other.settings:
            return False
        return not self.steps or not other.steps or abs(self.steps - other.steps) <= 0.1 * max(self.steps, other.steps)


def read(folder: Path) -> tuple[list[Log], list[str]]:
    """Every log of a record folder, in order of names, and what can't be read, a sentence each.

    A text file in which nothing of a run stands is no log.
    """
    found = recordfiles.logs(folder)
    logs = []
    for name in found.files:
        try:
            log = read_log(folder / name, name)
        except OSError as error:
            found.unreadable.append(f"{name}: {error.strerror}")
        else:
            logs += [log] if log is not None else []
    return logs, found.unreadable


def read_log(path: Path, name: str) -> Log | None:
    """One log, under the name it is called by; None for a text file in which nothing of a run stands. Raises OSError."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    parsed: LogFile = read_file(path)
    run = parsed.last
    named = seed_in(name)
    if not parsed.runs or (run.empty and run.headline is None and run.artifact_bytes is None):
        return Log(name, digest, "empty", seed_in_filename=named) if path.suffix.lower() == ".log" else None
    sizes = [size for size in (run.artifact_bytes, run.total_bytes) if size is not None]
    headline = run.headline if run.headline and math.isfinite(run.headline.val_bpb) else None
    return Log(
        file=name,
        sha256=digest,
        outcome=run.outcome or "unknown",
        seed=run.seed,
        seed_in_filename=named,
        score=headline,
        reason=run.headline_reason,
        artifact_bytes=max(sizes, default=None),
        total_bytes=run.total_bytes,
        code_bytes=run.code_bytes,
        model_bytes=run.model_bytes,
        steps=run.steps_done,
        train_time_ms=run.train_time_ms,
        step_avg_ms=run.step_avg_ms,
        eval_s=evals.seconds(run, headline),
        world_size=run.world_size,
        content=content_of(run),
        prequant=run.prequant_val_bpb,
        evals=list(run.evals),
        warnings=len(run.warnings),
        settings=(run.iterations_planned, run.max_wallclock_s, run.world_size, run.model_params),
    )


def seed_in(name: str) -> int | None:
    """The seed a file name states."""
    stem = Path(name).stem
    return next((int(found[1]) for pattern in _SEED if (found := pattern.search(stem))), None)


def content_of(run: RunLog) -> str:
    """Hash of its losses and evaluations, the same in every copy of a log; "" where there are too few to tell runs apart."""
    if len(run.train) + len(run.val) + len(run.evals) < FEW_LINES:
        return ""
    digest = hashlib.sha256()
    for points in (run.train, run.val):
        for column in (points.step, points.loss, points.bpb):  # times are no mark of a run: anybody can change them
            digest.update(column.tobytes())
    digest.update(repr([(item.label, item.val_loss, item.val_bpb) for item in run.evals]).encode())
    return digest.hexdigest()[:16]


def weigh(logs: Sequence[Log], claim: Claim) -> str:
    """Decide which logs count, and which evaluation is their score. "" or why the claim is no score of a packed model.

    Copies count once. Where experiments of different settings lie side by side, those like the one nearest to the claim count; a
    seed never falls out for its score. Of several logs of one seed that one counts whose score the author claims for it.
    """
    _count(logs, claim)
    if claim.bpb is None:
        return ""
    counted = [log for log in logs if log.counted]
    scores = [log.score.val_bpb for log in counted if log.score]
    if scores and _said(claim.bpb, scores):
        return ""
    for label in _labels(counted):
        values = [item.val_bpb for log in counted if (item := _last(log, label)) is not None]
        if len(values) == len(counted) and _said(claim.bpb, values):
            for log in logs:
                if log.score and (item := _last(log, label)) is not None:
                    log.score, log.reason = item, "claimed"
            _count(logs, claim)
            return ""
    return _prequant(logs, claim.bpb)


def _labels(logs: Sequence[Log]) -> list[str]:
    """Names of the evaluations of a packed model, those with most digits first."""
    evals = sorted((item for log in logs for item in log.evals), key=lambda item: -item.digits)
    return list(dict.fromkeys(item.label for item in evals if not _aside(item)))


def _last(log: Log, label: str) -> Eval | None:
    return next((item for item in reversed(log.evals) if item.label == label), None)


def _aside(item: Eval) -> bool:
    """Whether an evaluation is no score of the packed model: diagnostic, before quantisation."""
    return choose([item], None)[0] is None


def _said(claim: Number, values: Sequence[float]) -> bool:
    return claim.says(sum(values) / len(values)) or any(map(claim.says, values))


def _prequant(logs: Sequence[Log], claim: Number) -> str:
    for log in logs:
        aside = next((item for item in log.evals if _aside(item) and claim.says(item.val_bpb)), None)
        if aside:
            return f"{log.file}: {aside.label} {aside.val_bpb}"
        if log.prequant is not None and claim.says(log.prequant):
            return f"{log.file}: the last validation during training, {log.prequant}"
    return ""


def _count(logs: Sequence[Log], claim: Claim) -> None:
    seen: dict[str, str] = {}
    pool = []
    for log in sorted(logs, key=lambda log: (log.seed_in_filename is None, log.file)):
        log.counted, log.why = False, ""
        same = seen.get(log.sha256) or (log.content and seen.get(log.content))
        if log.score is None:
            log.why = "has no score of a packed model"
        elif same:
            log.why = f"a copy of {same}"
        else:
            seen |= {key: log.file for key in (log.sha256, log.content) if key}
            pool.append(log)
    anchor = _anchor(pool, claim)
    for log in pool:
        log.counted = anchor is None or log.like(anchor) or abs(_bpb(log) - _bpb(anchor)) <= NEAR
        log.why = "" if log.counted else "another experiment: other settings and another score"
    _one_per_seed([log for log in pool if log.counted], claim)


def _anchor(pool: Sequence[Log], claim: Claim) -> Log | None:
    if claim.bpb is not None:
        target = claim.bpb.value
        return min(pool, key=lambda log: abs(_bpb(log) - target), default=None)
    return max(pool, key=lambda log: sum(log.like(other) for other in pool), default=None)


def _bpb(log: Log) -> float:
    assert log.score is not None, log.file
    return log.score.val_bpb


def _one_per_seed(logs: Sequence[Log], claim: Claim) -> None:
    by_seed: dict[int, list[Log]] = {}
    for log in logs:
        seed = log.seed if log.seed_in_filename is None else log.seed_in_filename
        if seed is not None:
            by_seed.setdefault(seed, []).append(log)
    for seed, several in by_seed.items():
        wanted = claim.seeds.get(seed) or claim.readme_seeds.get(seed)
        chosen = [log for log in several if wanted and wanted.says(_bpb(log))]
        if len(several) > 1 and len(chosen) == 1:
            for log in several:
                if log is not chosen[0]:
                    log.counted, log.why = False, f"the score claimed for seed {seed} is that of {chosen[0].file}"
