"""What is wrong with a record: its claims against its logs, its logs against the limits. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from golfctl import stats
from golfctl.store.claims import Claim, Number
from golfctl.store.evidence import Log

WRONG, NOTE = "wrong", "note"
MANY_DIGITS = 7
"""Scores of seeds spread by 0.0002 to 0.0012 (sd): so many equal digits are no chance."""


@dataclass(frozen=True)
class Limits:
    """What a campaign's rules ask of a record. None: not limited.

    seconds: of training; grace: how far past them is still a note, if more than one step; eval_seconds: of evaluation.
    """

    cap_bytes: int
    seconds: float | None
    grace: float
    eval_seconds: float | None
    seeds: int


@dataclass(frozen=True)
class Issue:
    """One finding. level: `wrong` (a rule or a claim is broken) or `note` (worth knowing)."""

    code: str
    level: str
    text: str


def find(logs: Sequence[Log], claim: Claim, prequant: str, limits: Limits, record: bool) -> list[Issue]:
    """Every issue of one record, in a fixed order. record: whether its track is bound by time and seeds (see `bound`)."""
    counted = [log for log in logs if log.counted]
    found = [*_size(logs, counted, claim, limits), *_copies(logs), *_alike(logs)]
    found += _claims(logs, counted, claim, prequant)
    found += [*_seed_claims(logs, claim), *_names(logs), *_bytes(logs, counted, claim), *_endings(logs)]
    if record:
        found += [*_times(counted, limits), *_untimed(counted, limits), *_few(counted, limits)]
    return found


def of_folder(unreadable: Sequence[str], claimed: str | None, named: str | None) -> list[Issue]:
    """What is wrong with the folder itself. unreadable: sentences; claimed, named: the dates of its submission and its name."""
    found = [Issue("unreadable", WRONG, text) for text in unreadable]
    if claimed and named and claimed < named:
        found.append(Issue("date-differs", NOTE, f"claims the date {claimed}; its folder says {named}, which counts"))
    return found


def bound(track: str) -> bool:
    """Whether a track holds records, which are bound by time: `non_record` and `unlimited` ones are not."""
    name = track.lower().replace("-", "_")
    return "non_record" not in name and "unlimited" not in name


def _size(logs: Sequence[Log], counted: Sequence[Log], claim: Claim, limits: Limits) -> Iterator[Issue]:
    for log in logs:
        if log.artifact_bytes is not None and log.artifact_bytes > limits.cap_bytes:
            over = log.artifact_bytes - limits.cap_bytes
            text = f"{log.file}: {log.artifact_bytes:,} bytes of code and model, {over:,} over the cap"
            yield Issue("over-cap", WRONG, text)
    if claim.bytes_total and claim.bytes_total > limits.cap_bytes and all(log.artifact_bytes is None for log in logs):
        text = f"claims {claim.bytes_total:,} bytes itself, {claim.bytes_total - limits.cap_bytes:,} over the cap"
        yield Issue("over-cap", WRONG, text)
    for log in logs:
        parts = (log.code_bytes or 0) + (log.model_bytes or 0)
        if log.total_bytes is not None and None not in (log.code_bytes, log.model_bytes) and log.total_bytes != parts:
            text = f"{log.file}: prints a total of {log.total_bytes:,} bytes; code and model are {parts:,}: the larger counts"
            yield Issue("sizes-contradict", NOTE, text)
    yield from _unseen(
        "size-unknown", "the bytes of code and model", [log for log in counted if log.artifact_bytes is None]
    )


def _unseen(code: str, what: str, logs: Sequence[Log]) -> Iterator[Issue]:
    if logs:
        more = f" and {len(logs) - 1} more" if len(logs) > 1 else ""
        yield Issue(code, NOTE, f"{what}: not said by {logs[0].file}{more}")


def _copies(logs: Sequence[Log]) -> Iterator[Issue]:
    for index, log in enumerate(logs):
        for other in logs[:index]:
            if how := same(log.sha256, log.content, other.sha256, other.content):
                yield Issue("duplicate-log", NOTE, f"{log.file} is {how} {other.file}")
                break


def _alike(logs: Sequence[Log]) -> Iterator[Issue]:
    """Different seeds, one score to the last of many digits: the code does not read the seed, or the log was copied."""
    first: dict[float, Log] = {}
    for log in logs:
        if log.score and log.score.digits >= MANY_DIGITS:
            other = first.setdefault(log.score.val_bpb, log)
            if other.seeds and log.seeds and not other.seeds & log.seeds:
                said = f"{log.score.val_bpb:.{log.score.digits}f}"
                yield Issue("seeds-alike", WRONG, f"{log.file} scores {said} as {other.file} does, under another seed")


def same(sha256: str, content: str, other_sha256: str, other_content: str) -> str:
    """How two logs are the same, "" if they are not."""
    if sha256 == other_sha256:
        return "byte for byte the log"
    return "the same run as" if content and content == other_content else ""


def _claims(logs: Sequence[Log], counted: Sequence[Log], claim: Claim, prequant: str) -> Iterator[Issue]:
    if claim.malformed:
        yield Issue("submission-unreadable", NOTE, f"{claim.malformed} is no JSON object")
    if claim.bpb is None:
        return
    said = f"{claim.bpb.value:.{claim.bpb.digits}f}"
    if not logs:
        yield Issue("claim-without-log", WRONG, f"claims {said} and has no log")
    elif prequant:
        yield Issue("claim-is-prequant", WRONG, f"claims {said}, which is no score of the packed model ({prequant})")
    elif not counted:
        yield Issue("claim-without-log", WRONG, f"claims {said}; no log holds a score of the packed model")
    else:
        yield from _against_mean(counted, claim.bpb, said)


def _against_mean(counted: Sequence[Log], claim: Number, said: str) -> Iterator[Issue]:
    scores = {log.file: log.score.val_bpb for log in counted if log.score}
    mean = stats.summarise(list(scores.values())).mean
    if claim.says(mean, min(log.score.digits for log in counted if log.score)):
        return
    where = f"the mean of its {len(scores)} logs is {mean:.6f}"
    hits = [name for name, value in scores.items() if claim.says(value)]
    if hits and claim.says(min(scores.values())):
        yield Issue("best-seed-as-mean", WRONG, f"claims {said}, the best of {len(scores)} ({hits[0]}); {where}")
    elif hits:
        yield Issue("claim-differs", WRONG, f"claims {said}, which is {hits[0]} alone; {where}")
    elif len(scores) == 1:
        name, value = next(iter(scores.items()))
        yield Issue("claim-differs", WRONG, f"claims {said}; its log {name} says {value:.{max(claim.digits, 4)}f}")
    else:
        yield Issue("claim-differs", WRONG, f"claims {said}, which no log says; {where}")


def _seed_claims(logs: Sequence[Log], claim: Claim) -> Iterator[Issue]:
    """A score claimed for a seed: is there a log of it, and does it say so?"""
    if not logs:
        return
    for seed, score in claim.seeds.items():
        yield from _seed_claim(logs, seed, score, "submission")
    for seed, score in claim.readme_seeds.items():
        if seed not in claim.seeds or not score.says(claim.seeds[seed].value):
            yield from _seed_claim(logs, seed, score, "README")
    silent = [seed for seed in claim.listed if seed not in claim.seeds and seed not in claim.readme_seeds]
    for seed in silent:
        if not any(seed in log.seeds for log in logs):
            yield Issue("claim-without-log", WRONG, f"names seed {seed}, of which there is no log")


def _seed_claim(logs: Sequence[Log], seed: int, claim: Number, source: str) -> Iterator[Issue]:
    said = f"{claim.value:.{claim.digits}f}"
    mine = [log for log in logs if seed in log.seeds]
    if not any(log.counted or log.why.startswith("a copy") for log in mine):
        other = next((log for log in logs if log.counted and log.score and claim.says(log.score.val_bpb)), None)
        if other:
            text = f"claims {said} for seed {seed} ({source}); {other.file}, which says so, prints seed {other.seed}"
            yield Issue("claim-differs", WRONG, text)
            return
    if not mine:
        yield Issue("claim-without-log", WRONG, f"claims {said} for seed {seed} ({source}), of which there is no log")
        return
    said_in = [item for log in mine for item in log.evals]
    if said_in and not any(claim.says(item.val_bpb, item.digits) for item in said_in):
        log = next((log for log in mine if log.counted), mine[0])
        have = f"{log.score.val_bpb:.{max(claim.digits, 4)}f}" if log.score else "no score"
        text = f"claims {said} for seed {seed} ({source}); its log {log.file} says {have}"
        yield Issue("claim-differs", WRONG, text)


def _names(logs: Sequence[Log]) -> Iterator[Issue]:
    for log in logs:
        if log.seed is not None and log.seed_in_filename is not None and log.seed != log.seed_in_filename:
            text = f"{log.file}: the log itself prints seed {log.seed}, not {log.seed_in_filename}"
            yield Issue("seed-differs-from-name", WRONG, text)


def _bytes(logs: Sequence[Log], counted: Sequence[Log], claim: Claim) -> Iterator[Issue]:
    """A claimed size is one of the logs', their mean, or rounded from one of these."""
    sizes = [log.artifact_bytes for log in logs if log.artifact_bytes is not None]
    mine = [log.artifact_bytes for log in counted if log.artifact_bytes is not None]
    if sizes and claim.bytes_total:
        known = [*sizes, *([sum(mine) / len(mine)] if mine else [])]
        if not any(_rounded(claim.bytes_total, value) for value in known):
            nearest = min(known, key=lambda value: abs(value - (claim.bytes_total or 0)))
            hint = _only_model(logs, claim.bytes_total)
            text = f"claims {claim.bytes_total:,} bytes; the logs say {nearest:,.0f}{hint}"
            yield Issue("bytes-claim-differs", NOTE, text)
    for seed, size in claim.seed_bytes.items():
        of_seed = [log for log in logs if seed in log.seeds and log.artifact_bytes is not None]
        if of_seed and not any(_rounded(size, log.artifact_bytes or 0) for log in of_seed):
            hint = _only_model(of_seed, size)
            text = f"claims {size:,} bytes for seed {seed}; {of_seed[0].file} says {of_seed[0].artifact_bytes:,}{hint}"
            yield Issue("bytes-claim-differs", NOTE, text)


def _rounded(claim: int, value: float) -> bool:
    text = str(claim)
    zeros = len(text) - len(text.rstrip("0"))
    return abs(claim - value) < 10.0 ** max(zeros, 0)


def _only_model(logs: Sequence[Log], size: int) -> str:
    only = any(log.model_bytes is not None and abs(log.model_bytes - size) <= 1 for log in logs)
    return ": the claim is the model without its code" if only else ""


def _endings(logs: Sequence[Log]) -> Iterator[Issue]:
    for log in logs:
        if log.outcome == "empty":
            yield Issue("outcome-not-ok", NOTE, f"{log.file}: no run can be read in it")
        elif log.outcome != "ok":
            yield Issue("outcome-not-ok", WRONG if log.counted else NOTE, f"{log.file}: the run ended {log.outcome}")


def _times(counted: Sequence[Log], limits: Limits) -> Iterator[Issue]:
    within = []
    for log in counted:
        if limits.seconds is not None and log.train_time_ms is not None:
            over = log.train_time_ms - limits.seconds * 1000
            if over > max(log.step_avg_ms or 0.0, limits.grace * 1000):
                text = f"{log.file}: trained {log.train_time_ms / 1000:,.2f} s, {over / 1000:,.2f} s over {limits.seconds:g} s"
                yield Issue("over-time", WRONG, text)
            elif over > 0:
                within.append(over)
        if limits.eval_seconds is not None and log.eval_s is not None and log.eval_s > limits.eval_seconds:
            text = f"{log.file}: evaluated for {log.eval_s:,.1f} s; {limits.eval_seconds:g} s are allowed"
            yield Issue("eval-over-time", WRONG, text)
    if within:
        logs = "1 log stops" if len(within) == 1 else f"{len(within)} logs stop"
        yield Issue("over-time", NOTE, f"{logs} past {limits.seconds:g} s, by {max(within) / 1000:.2f} s at most")


def _untimed(counted: Sequence[Log], limits: Limits) -> Iterator[Issue]:
    if limits.seconds is not None:
        yield from _unseen("time-unknown", "how long it trained", [log for log in counted if log.train_time_ms is None])
    if limits.eval_seconds is not None:
        yield from _unseen("time-unknown", "how long it was evaluated", [log for log in counted if log.eval_s is None])


def _few(counted: Sequence[Log], limits: Limits) -> Iterator[Issue]:
    seeds = seed_count(counted)
    if counted and seeds < limits.seeds:
        have = "1 seed" if seeds == 1 else f"{seeds} seeds"
        runs = "1 log" if len(counted) == 1 else f"{len(counted)} logs"
        yield Issue("few-seeds", NOTE, f"{runs}, {have}; the last gate asks for {limits.seeds}")


def seed_count(counted: Sequence[Log]) -> int:
    """Different seeds; a log that prints none counts as one of its own."""
    return len({log.seed for log in counted if log.seed is not None}) + sum(log.seed is None for log in counted)
