"""A6, A7, A12: is the score counted over the right bytes, over all of them, and can it be? From the numbers a log prints."""

from __future__ import annotations

import math

from golfctl.audit.contest import Contest, Reference
from golfctl.audit.result import Check, Evidence, fail, ok, unknown, warn
from golfctl.audit.target import Target
from golfctl.store.evidence import Log

NEAR = 1e-3
"""Share by which a token count may miss that of a reference and still be that text, cut to other windows."""


FAR = 0.7
"""Share of the lowest score shown on a text below which another one is likelier a mistake than progress."""


def check(target: Target, contest: Contest) -> list[Check]:
    """Bytes a token, and tokens, of every score that counts, and whether it is far below all others."""
    logs = target.counted
    nothing = (unknown("no log holds a score"),)
    return [
        Check(
            "A6",
            "bytes per token are those of the text",
            "leading spaces counted twice: +16.7 % (#1734, #1804); U+FFFD as 3 bytes: +4.1 % (#1289)",
            tuple(_denominator(target, log, contest) for log in logs) or nothing,
        ),
        Check(
            "A7",
            "the whole validation text is scored",
            "36,562,944 tokens instead of 43,767,808 (#2109)",
            tuple(_coverage(target, log, contest) for log in logs) or nothing,
        ),
        Check(
            "A12",
            "no score is far below all that was shown on the text",
            "0.29 bpb claimed for byte patches; 2.39, 2.15 and 1.38 measured by others",
            tuple(_believable(log, contest) for log in logs) or nothing,
        ),
    ]


def _believable(log: Log, contest: Contest) -> Evidence:
    if log.score is None or contest.lowest_bpb is None:
        return unknown("no other score on this text is known", log.file)
    said = f"{log.score.val_bpb:.4f} bpb; the lowest shown is {contest.lowest_bpb:.4f} ({contest.lowest_of})"
    if log.score.val_bpb >= FAR * contest.lowest_bpb:
        return ok(said, _where(log))
    return warn(f"{said}: look for a target read too early, padding that is counted, a division too many", _where(log))


def bytes_per_token(log: Log) -> tuple[float, float] | None:
    """(bytes a token that the score was divided by, how far the printed digits allow it to be off), from loss and bpb.

    Rounding moves each printed number by half its last digit; the two relative errors add. None without both numbers.
    """
    score = log.score
    if score is None or not score.val_bpb > 0 or not score.val_loss > 0:
        return None
    found = score.val_loss / math.log(2) / score.val_bpb
    half = 0.5 * 10.0**-score.digits
    return found, found * (half / score.val_loss + half / score.val_bpb)


def _denominator(target: Target, log: Log, contest: Contest) -> Evidence:
    own = _own_bytes(target, log)
    if own is not None:
        return own
    where = _where(log)
    found = bytes_per_token(log)
    if found is None:
        return unknown("prints no loss beside its score", where)
    if not contest.references:
        return unknown("there is no reference for this text", where)
    tokens = target.parsed[log.file].val_tokens
    value, slack = found
    known = _by_tokens(contest, tokens) if tokens is not None else _by_bytes(contest, value, slack)
    if known is None:
        if tokens is None:
            return unknown(
                f"{value:.5f} bytes a token; it says no token count, and no known alphabet has that many", where
            )
        return _by_text(contest, tokens, value, slack, where)
    off = abs(value - known.bytes_per_token)
    said = f"{value:.5f} bytes a token, {known.name} has {known.bytes_per_token:.5f}"
    if off <= max(contest.tolerance * known.bytes_per_token, slack + 5e-6):
        return ok(said, where)
    share = value / known.bytes_per_token - 1
    return fail(f"{said}: {share:+.2%} bytes, so the printed score is {-share / (1 + share):+.2%} off", where)


def _own_bytes(target: Target, log: Log) -> Evidence | None:
    """Runs of ours state the bytes they scored and the hash of the text: exact, whatever the text is."""
    run = target.runs.get(log.file)
    if run is None or run.result is None or run.result.self_reported or run.result.data is None:
        return None
    found = bytes_per_token(log)
    stated = _stated(target, log)
    if found is None or stated is None:
        return unknown("says no counts of its validation text", log.file)
    tokens, size = stated
    value, slack = found
    text = f"{value:.6f} bytes a token; its data has {size:,} bytes in {tokens:,} tokens ({size / tokens:.6f})"
    return ok(text, _where(log)) if abs(value - size / tokens) <= slack + 1e-6 else fail(text, _where(log))


def _stated(target: Target, log: Log) -> tuple[int, int] | None:
    """(tokens, bytes) of the validation text as the run's result.json states them."""
    import json

    from golfctl.domain import rundir

    try:
        content = json.loads((target.folder / log.file).with_name(rundir.RESULT).read_bytes())
        tokens, size = content["data"]["val_tokens"], content["data"]["val_bytes"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return (tokens, size) if isinstance(tokens, int) and isinstance(size, int) and tokens > 0 else None


def _by_tokens(contest: Contest, tokens: int) -> Reference | None:
    """The reference with this count, or, where windows of another length cut the end, the nearest within NEAR."""
    nearest = min(contest.references, key=lambda item: abs(item.val_tokens - tokens), default=None)
    return nearest if nearest and abs(nearest.val_tokens - tokens) <= NEAR * nearest.val_tokens else None


def _by_bytes(contest: Contest, value: float, slack: float) -> Reference | None:
    """The reference with these bytes a token, where a log says no count."""
    nearest = min(contest.references, key=lambda item: abs(item.bytes_per_token - value), default=None)
    limit = max(contest.tolerance * value, slack)
    return nearest if nearest and abs(nearest.bytes_per_token - value) <= limit else None


def _by_text(contest: Contest, tokens: int, value: float, slack: float, where: str) -> Evidence:
    """An alphabet nobody listed: its bytes must be those of the text."""
    if contest.text_bytes is None:
        return unknown(f"{tokens:,} tokens are no known form of the text", where)
    size = tokens * value
    share = size / contest.text_bytes - 1
    said = f"{tokens:,} tokens of {value:.5f} bytes are {size:,.0f} bytes, the text has {contest.text_bytes:,}"
    if abs(share) <= max(contest.tail, tokens * slack / contest.text_bytes):
        return ok(said, where)
    known = _by_bytes(contest, value, slack)
    if known is not None:
        return ok(f"{value:.5f} bytes a token, as {known.name} has; the count of tokens is another (A7)", where)
    return unknown(f"{said}: another text, or other bytes; nothing here tells which", where)


def _coverage(target: Target, log: Log, contest: Contest) -> Evidence:
    where = _where(log)
    run = target.runs.get(log.file)
    if run is not None and run.result is not None and not run.result.self_reported:
        return ok(f"every token of the text was scored once (metric version {run.result.metric_version})", where)
    tokens = target.parsed[log.file].val_tokens
    if tokens is None:
        return unknown("does not say how many tokens it scored", where)
    if not contest.references:
        return unknown("there is no reference for this text", where)
    line = target.parsed[log.file].lines.get("val_tokens")
    where = f"{log.file}:{line}" if line else log.file
    exact = next((item for item in contest.references if item.val_tokens == tokens), None)
    if exact is not None:
        return ok(f"{tokens:,} tokens, the whole text in {exact.name}", where)
    near = _by_tokens(contest, tokens)
    if near is not None:
        share = tokens / near.val_tokens - 1
        text = f"{tokens:,} tokens, {near.name} has {near.val_tokens:,} ({share:+.3%})"
        return ok(f"{text}: the windows end elsewhere", where) if abs(share) <= contest.tail else warn(text, where)
    found = bytes_per_token(log)
    known = _by_bytes(contest, *found) if found else None
    if known is not None:
        return fail(
            f"{tokens:,} tokens; the text has {known.val_tokens:,} in {known.name}, whose bytes a token these are",
            where,
        )
    if found and contest.text_bytes and abs(tokens * found[0] / contest.text_bytes - 1) <= contest.tail:
        return ok(f"{tokens:,} tokens are {tokens * found[0]:,.0f} bytes, the whole text", where)
    return unknown(f"{tokens:,} tokens: no known form of the text has so many", where)


def _where(log: Log) -> str:
    return f"{log.file}:{log.score.line}" if log.score and log.score.line else log.file
