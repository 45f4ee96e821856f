"""`golfctl stats`: what a few scores show against a number, or against the scores of other logs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from golfctl.cli import output
from golfctl.cli.log import read
from golfctl.errors import InputError

if TYPE_CHECKING:
    from golfctl.assessment import Assessment

MANY = ("--logs", "--versus")
TWO_SIDES = ("Welch t", "prediction t")
LARGEST = 1e6
"""No score is beyond it; squares of larger numbers overflow."""
BYTES = (0.1, 1000.0)
"""Bytes per token of any tokenizer lie between."""


class ManyFiles(TyperCommand):
    """A command whose --logs and --versus take several words each, as a shell's `*.log` gives them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The words after the first get their option's name before them."""
        return super().parse_args(ctx, list(_spread(args)))


def _spread(args: Sequence[str]) -> Iterator[str]:
    option, expected = "", False
    for word in args:
        if word.startswith("-"):
            option, expected = (word, True) if word in MANY else ("", False)
        elif option and not expected:
            yield option
        else:
            expected = False
        yield word


@dataclass(frozen=True)
class Side:
    """Scores with their seeds (None where nothing says) and the bytes per token that the logs show (None: they don't).

    notes: which logs were left out, and why.
    """

    scores: list[float]
    seeds: list[int | None]
    bytes_per_token: float | None
    notes: tuple[str, ...] = ()


def stats(
    values: Annotated[str | None, typer.Option(help="Scores, e.g. 1.2146,1.2120,1.2174.")] = None,
    logs: Annotated[
        list[Path] | None, typer.Option(help="Logs whose headline scores to take; several may follow.")
    ] = None,
    baseline: Annotated[float | None, typer.Option(help="A number to beat.")] = None,
    versus: Annotated[list[Path] | None, typer.Option(help="Logs to beat; several may follow.")] = None,
    paired: Annotated[
        bool, typer.Option("--paired", help="Compare seed by seed, if that was declared before.")
    ] = False,
    margin_nats: Annotated[float, typer.Option(min=0, help="The margin a record needs, in nats.")] = 0.005,
    tokenizer: Annotated[
        str | None,
        typer.Option(help="sp1024, sp4096, sp8192, caseops, bytes, or bytes per token; logs show it themselves."),
    ] = None,
    alpha: Annotated[float, typer.Option(min=0.0001, max=0.49, help="One-sided error rate.")] = 0.01,
    label: Annotated[
        str | None, typer.Option(help="The rules' score label in the logs; default: one is proposed.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Mean, sd, interval, t and p of a few scores, and the verdict under each reading of the margin: per token, per byte, bpb."""
    from golfctl.assessment import assess

    own = _side(values, logs, label, "--values or --logs")
    if (baseline is None) == (not versus):
        raise InputError("say either --baseline NUMBER or --versus LOG...")
    other = _from_logs(versus, label) if versus else None
    if baseline is not None and not _is_score(baseline):
        raise InputError(f"--baseline: {baseline} is no score")
    if not margin_nats <= LARGEST:
        raise InputError(f"--margin-nats: {margin_nats} is no margin; 0 to {LARGEST:g} nats are allowed")
    if paired and other is not None:
        own, other = _pairs(own, other)
    per_token = _bytes_per_token(tokenizer) if tokenizer else own.bytes_per_token
    against = other.scores if other is not None else baseline
    assert against is not None
    try:
        found = assess(own.scores, against, margin_nats, per_token, alpha, paired)
    except ValueError as error:
        raise InputError(str(error)) from None
    if as_json:
        notes = [*own.notes, *(other.notes if other is not None else ())]
        given = {"values": own.scores, "against": against, "bytes_per_token": per_token, "notes": notes}
        output.print_json(asdict(found) | given)
    else:
        _show(found, per_token, margin_nats)


def _side(values: str | None, logs: Sequence[Path] | None, label: str | None, what: str) -> Side:
    if (values is None) == (not logs):
        raise InputError(f"say either {what}")
    if logs:
        return _from_logs(logs, label)
    scores = []
    for word in (values or "").replace(",", " ").split():
        try:
            scores.append(float(word))
        except ValueError:
            raise InputError(f"--values: {word!r} is no number; write 1.2146,1.2120,...") from None
    if not scores or not all(map(_is_score, scores)):
        raise InputError(f"--values: finite numbers up to {LARGEST:g} are needed, e.g. 1.2146,1.2120")
    return Side(scores, [None] * len(scores), None)


def _is_score(value: float) -> bool:
    return abs(value) <= LARGEST  # nan is not


def _from_logs(paths: Sequence[Path], label: str | None) -> Side:
    """Headline scores of logs. A run that was given before counts once, and that is said: the same bytes, or the same losses.

    Raises InputError where two different runs print one seed: the test would take the machine's noise for that of the seeds.
    """
    import hashlib

    from golfctl.store.evidence import content_of

    scores: list[float] = []
    seeds: list[int | None] = []
    rates: list[float] = []
    known: dict[str, Path] = {}
    by_seed: dict[int, Path] = {}
    notes: list[str] = []
    for path in paths:
        log = read(path, label)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        content = content_of(log.last)
        if same := known.get(digest) or known.get(content):
            how = "byte for byte" if digest in known else "with the very losses and scores of"
            notes.append(f"{path}: {how} {same}; counted once")
            output.note(notes[-1])
            continue
        known |= {key: path for key in (digest, content) if key}
        headline = log.last.headline
        if headline is None or not _is_score(headline.val_bpb):
            raise InputError(
                f"{path}: no score: {log.last.headline_reason or 'no run in it'}; --label names the line to take"
            )
        output.note(f"{path}: {headline.val_bpb} ({headline.label}; {log.last.headline_reason})")
        seed = log.last.seed
        if seed is not None and (first := by_seed.setdefault(seed, path)) != path:
            raise InputError(f"{path}: seed {seed}, as {first}: a rerun is no other seed; give one log for each seed")
        scores.append(headline.val_bpb)
        seeds.append(seed)
        if headline.val_loss and headline.val_bpb > 0 and math.isfinite(headline.val_loss):
            rates.append(headline.val_loss / math.log(2) / headline.val_bpb)
    agree = bool(rates) and max(rates) - min(rates) < 1e-3 * max(rates)
    return Side(scores, seeds, sum(rates) / len(rates) if agree else None, tuple(notes))


def _pairs(own: Side, other: Side) -> tuple[Side, Side]:
    """Both sides in one order of seeds. Raises InputError unless they hold the same seeds, each once."""
    if None in own.seeds or None in other.seeds or sorted(map(str, own.seeds)) != sorted(map(str, other.seeds)):
        raise InputError(f"--paired: the seeds differ, {_named(own)} here and {_named(other)} there")
    by_seed = dict(zip(other.seeds, other.scores, strict=True))
    return own, replace(other, scores=[by_seed[seed] for seed in own.seeds], seeds=own.seeds)


def _named(side: Side) -> str:
    return ", ".join("none" if seed is None else str(seed) for seed in side.seeds)


def _bytes_per_token(tokenizer: str) -> float:
    from golfctl.assessment import BYTES_PER_TOKEN

    if tokenizer in BYTES_PER_TOKEN:
        return BYTES_PER_TOKEN[tokenizer]
    try:
        value = float(tokenizer)
    except ValueError:
        value = 0.0
    if not BYTES[0] <= value <= BYTES[1]:
        raise InputError(
            f"--tokenizer {tokenizer}: say {', '.join(BYTES_PER_TOKEN)}, or bytes per token from {BYTES[0]:g} to {BYTES[1]:g}"
        )
    return value


def _show(found: Assessment, per_token: float | None, margin_nats: float) -> None:
    own, test = found.own, found.gain
    sd = "" if own.sd is None else f"   sd {own.sd:.6f}"
    output.say(f"n {own.n}   mean {own.mean:.6f}{sd}")
    against = f"{found.baseline:.6f}" if found.other is None else _other(found)
    output.say(f"against {against}: {own.mean - found.baseline:+.6f} bpb")
    of = "" if found.other is None else " of the difference"
    output.say(f"{test.test}   {100 * test.confidence:g} % CI{of} [{test.low:.4f}, {test.high:.4f}]   df {test.df:.2f}")
    output.say(
        f"{'margin of ' + format(margin_nats, 'g') + ' nats as':<26} {'bpb':>8} {'t':>8} {'p':>8} {'power':>6} {'seeds':>6}"
    )
    for item in found.readings:
        seeds = "-" if item.seeds is None else str(item.seeds)
        output.say(
            f"{item.name:<26} {item.margin:>8.5f} {item.t:>8.2f} {item.p:>8.2g} {item.power:>6.2f} {seeds:>6}  {item.answer}"
        )
    if per_token is None:
        output.note("nats per token: say --tokenizer; no log shows the bytes per token")
    output.say(f"PASS is p < {found.alpha:g}, one-sided")
    output.say("power: that as many seeds show the measured gain, were it the true one")
    output.say("seeds: for a power of 0.8" + (", on each side" if found.gain.test in TWO_SIDES else ""))
    output.say(f"smallest gain beyond a margin with a power of 0.8 here: {found.detectable:.5f} bpb")


def _other(found: Assessment) -> str:
    assert found.other is not None
    sd = "" if found.other.sd is None else f", sd {found.other.sd:.6f}"
    return f"{found.other.mean:.6f} (n {found.other.n}{sd})"
