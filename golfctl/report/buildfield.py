"""The field's records and the campaign's own results beside them: entries, points, and the layers of the technique stack."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from golfctl import judge, stats
from golfctl.domain.run import RunRecord, RunResult
from golfctl.report.model import Entry, Layer, Own, PlanReport
from golfctl.report.summary import Summary
from golfctl.store import frontier, leaderboard
from golfctl.store.recordissues import bound

if TYPE_CHECKING:
    from golfctl.store.campaign import Campaign

_BITS = re.compile(r"int[2-8]|fp8|fp16|ternary|binary")
_CODECS = re.compile(r"zstd|lzma|zlib|brotli|lrzip")
_SHOWN_TAGS = 4


def entries(campaign: Campaign) -> tuple[Entry, ...]:
    """The leaderboard by date, () where nothing was imported. Raises InputError for a damaged file."""
    rows = _rows(campaign)
    moved = {step.folder for step in frontier.frontier(frontier.of_track(rows, None)).steps}
    return tuple(
        Entry(
            folder=row["folder"],
            track=row["track"],
            date=row["date"] or "",
            title=row["title"],
            authors=tuple(row["authors"]),
            mean=row["log_mean"],
            sd=row["log_sd"],
            n=row["n"],
            claimed=row["claimed"]["val_bpb"],
            size=row["artifact_max"] or row["claimed"]["bytes_total"],
            scheme=_scheme_of(row),
            tags=tuple(row["tags"]),
            issues=tuple(issue["text"] for issue in row["issues"]),
            wrong=tuple(frontier.breaks(row)),
            frontier=row["folder"] in moved and bound(row["track"]),
        )
        for row in rows
    )


def _rows(campaign: Campaign) -> list[leaderboard.Row]:
    return leaderboard.load(campaign) if leaderboard.file_of(campaign).exists() else []


def bars(campaign: Campaign) -> Mapping[str, float]:
    """Reading of the margin to the score a new record needs; {} without a frontier."""
    best = frontier.frontier(frontier.of_track(_rows(campaign), None)).best
    if best is None:
        return {}
    readings = stats.margin_readings(campaign.rules.record_margin_nats, best.bytes_per_token)
    return {name: best.mean - value for name, value in sorted(readings.items(), key=lambda item: item[1])}


def _scheme_of(row: leaderboard.Row) -> str:
    """`int6 + zstd`: from its tags, else from the labels of its logs."""
    tags = [tag.partition(":")[2] for tag in row["tags"] if tag.startswith(("quantisation:", "compression:"))]
    labels = " ".join(str(log["label"] or "") for log in row["logs"])
    bits = [tag for tag in tags if _BITS.fullmatch(tag)] or sorted(set(_BITS.findall(labels)))
    codecs = [tag for tag in tags if _CODECS.fullmatch(tag)] or sorted(set(_CODECS.findall(labels)))
    return " + ".join(["/".join(bits)] * bool(bits) + codecs[:1])


def _scheme(result: RunResult) -> str:
    """`int8`: bits of the matrices, as the bundled trainer names them; "" for a foreign script."""
    bits = result.settings.get("MATRIX_BITS")
    return f"int{bits}" if isinstance(bits, int) and not isinstance(bits, bool) else ""


def own(base: str, plans: Sequence[PlanReport], runs: Mapping[str, Sequence[RunRecord]]) -> Iterator[Own]:
    """Base and plans, each at its highest gate with scores that the base has, too: a smoke run's score compares with nothing."""
    if found := _point(base, f"base:{base}", runs.get(base, ())):
        yield found
    known = {run.spec.shape for run in runs.get(base, ()) if run.scored}
    for plan in plans:
        current = [run for run in runs.get(plan.id, ()) if run.spec.bundle == plan.bundle]
        current = [run for run in current if run.spec.shape in known] if known else current
        if found := _point(plan.id, f"plan:{plan.id}", current):
            yield found


def _point(name: str, key: str, runs: Sequence[RunRecord]) -> Own | None:
    scored = [run for run in runs if run.scored and not run.to_repeat]
    if not scored:
        return None
    gate = max(run.spec.gate for run in scored)
    there = [run for run in scored if run.spec.gate == gate]
    scores = judge.scores(there)
    if not scores:
        return None
    sample = stats.summarise(scores)
    low = high = None
    if sample.sd:
        test = stats.one_sample(scores, sample.mean)
        low, high = test.low, test.high
    results = [run.result for run in there if run.result]
    size = max((item.artifact_bytes for item in results if item.artifact_bytes is not None), default=None)
    when = max(run.launched_at for run in there)
    return Own(name, key, gate, when, sample.mean, low, high, sample.n, size, _scheme(results[0]))


def layers(base: str, field: Sequence[Entry], plans: Sequence[PlanReport], summary: Summary) -> tuple[Layer, ...]:
    """The frontier's records, each on the one before; then the campaign's base, and on it every plan that is not retired."""
    found = list(_records(field))
    side = next((side for side in reversed(summary.bases) if side.scores), None)
    start = stats.summarise(side.scores).mean if side else None
    if base:
        found.append(Layer(base, "base", "", start, None, None, None, f"base:{base}", "the frozen base"))
    stood: dict[str, float | None] = {base: start}
    for plan in _lowest_first(plan for plan in plans if plan.standing != "retired" and plan.base == base):
        below = plan.depends_on[-1] if plan.depends_on else base
        under = stood.get(below)
        score = under + plan.delta if under is not None and plan.delta is not None else None
        span = [under + value for value in plan.expected] if under is not None and plan.expected else [None, None]
        guess = (span[0] + span[1]) / 2 if span[0] is not None and span[1] is not None else under
        stood[plan.id] = score if score is not None else guess
        found.append(
            Layer(plan.id, "plan", below, score, plan.delta, span[0], span[1], f"plan:{plan.id}", plan.row.title)
        )
    return tuple(found)


def _lowest_first(plans: Iterable[PlanReport]) -> Iterator[PlanReport]:
    """Each after what it builds on."""
    waiting = {plan.id: plan for plan in plans}
    while waiting:
        ready = [plan for plan in waiting.values() if not set(plan.depends_on) & waiting.keys()]
        for plan in ready or list(waiting.values()):  # a circle in plan files has no lowest
            yield waiting.pop(plan.id)


def _records(field: Sequence[Entry]) -> Iterator[Layer]:
    before: Entry | None = None
    for entry in (entry for entry in field if entry.frontier and entry.mean is not None):
        new = [tag.rpartition(":")[2] for tag in entry.tags if before is None or tag not in before.tags]
        more = f" and {len(new) - _SHOWN_TAGS} more" if len(new) > _SHOWN_TAGS else ""
        delta = entry.mean - before.mean if before and before.mean is not None and entry.mean is not None else None
        below = before.folder if before else ""
        text = ", ".join(new[:_SHOWN_TAGS]) + more
        yield Layer(entry.folder, "record", below, entry.mean, delta, None, None, entry.key, text)
        before = entry
