"""A9, A10: evidence for every claimed seed, and the statistics computed again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from golfctl import stats
from golfctl.audit.contest import Contest
from golfctl.audit.metric import bytes_per_token
from golfctl.audit.result import Answer, Check, Evidence, count, fail, ok, unknown, warn
from golfctl.audit.target import PLAN, RECORD, Target
from golfctl.store import recordissues
from golfctl.store.recordissues import NOTE, Issue

OF_EVIDENCE = {
    "claim-without-log",
    "claim-differs",
    "duplicate-log",
    "seeds-alike",
    "seed-differs-from-name",
    "few-seeds",
    "outcome-not-ok",
    "unreadable",
    "submission-unreadable",
    "bytes-claim-differs",
}
OF_STATISTICS = {"best-seed-as-mean", "claim-is-prequant"}
HEAD = 1_000_000
"""Bytes of a log in which its settings are looked for: some begin with the whole script."""
_SETTING = re.compile(
    r"(?:^|\s)(train_batch_tokens|train_seq_len|vocab_size|num_layers|model_dim|mlp_mult|num_heads)[:=] ?(\d[\d.]*)(?=\s|$)"
)
SD_DIGITS = 0.5
"""A claimed sd may round by so much of its last digit; sample and population sd are both in use and told apart."""


def check(target: Target, contest: Contest, standing: float | None) -> list[Check]:
    """standing: the score (bpb) a record must beat, where one is known."""
    issues = _issues(target, contest)
    return [
        Check(
            "A9",
            "every claimed seed has its own log",
            "five duplicate pairs and three wrong seeds on main; #86, #2118, #2124",
            tuple(_evidence(target, issues)) or (unknown("nothing is claimed, and no log holds a score"),),
        ),
        Check(
            "A10",
            "the claimed score is the mean of all seeds",
            "eight folders claim their best seed; the best 5 of 7",
            tuple(_statistics(target, contest, issues, standing)) or (unknown("no log holds a score"),),
        ),
    ]


def _issues(target: Target, contest: Contest) -> list[Issue]:
    limits = recordissues.Limits(
        contest.limits.artifact_cap_bytes,
        contest.limits.train_seconds,
        0.0,
        contest.limits.eval_seconds,
        contest.limits.seeds,
    )
    found = recordissues.find(target.logs, target.claim, target.prequant, limits, target.record)
    return found + [Issue("unreadable", recordissues.WRONG, text) for text in target.unreadable]


def _evidence(target: Target, issues: list[Issue]) -> Iterator[Evidence]:
    # A plan's verdict is the mean of all its scores, and seeds nobody scored are in the ledger: claims can't differ there.
    skip = {"few-seeds", "claim-differs"} if target.kind != RECORD else set()
    mine = [issue for issue in issues if issue.code in OF_EVIDENCE - skip]
    for issue in mine:
        yield Evidence(Answer.WARN if issue.level == NOTE else Answer.FAIL, issue.text, _place(issue.text))
    yield from _alike(target)
    counted = target.counted
    if counted and not mine:
        seeds = ", ".join(str(log.seed) if log.seed is not None else "none printed" for log in counted)
        yield ok(f"{count(len(counted), 'log')} with a score, seeds {seeds}; nothing claimed beyond them")


def _place(text: str) -> str:
    found = re.match(r"(\S+\.(?:log|txt))\b", text)
    return found[1] if found else ""


def _alike(target: Target) -> Iterator[Evidence]:
    """One code and one set of settings behind all the runs of a plan."""
    bundles = {run.spec.bundle for run in target.runs.values()}
    hashes = {run.result.code_sha256 for run in target.runs.values() if run.result and run.result.code_sha256}
    settings = {_settings(run.result.settings) for run in target.runs.values() if run.result and run.result.settings}
    if target.kind != PLAN:
        counted = target.counted
        sizes = {log.code_bytes for log in counted if log.code_bytes is not None}
        if len(sizes) > 1:
            said = ", ".join(f"{size:,}" for size in sorted(sizes))
            yield warn(f"the logs count {said} bytes of code: not one script ran in all of them")
        shapes = {log.settings for log in counted}
        printed = [_printed(target.folder / log.file) for log in counted]
        named = {
            name: {one[name] for one in printed if name in one} for name in {key for one in printed for key in one}
        }
        apart = [f"{name} {' and '.join(sorted(values))}" for name, values in sorted(named.items()) if len(values) > 1]
        if apart and len(shapes) == 1:
            yield warn(f"the logs that count ran under different settings: {'; '.join(apart)}")
        if len(shapes) > 1:
            yield warn(
                f"the logs that count ran under {len(shapes)} different settings (steps, seconds, GPUs, parameters)"
            )
        return
    if len(bundles) > 1 or len(hashes) > 1:
        yield fail(f"{max(len(bundles), len(hashes))} different codes behind one score")
    elif len(settings) > 1:
        yield fail(f"{len(settings)} different settings, the seed aside, behind one score")
    elif target.runs:
        yield ok(f"one bundle {next(iter(bundles))[:12]}, one set of settings in all {len(target.runs)} runs")


def _printed(path: Path) -> dict[str, str]:
    """What a log prints of the settings that make two runs one experiment, before its first step."""
    with path.open("rb") as file:
        head = file.read(HEAD).decode("utf-8", "replace")
    return dict(_SETTING.findall(head))


def _settings(settings: object) -> str:
    assert isinstance(settings, dict)
    return repr(sorted((name, str(value)) for name, value in settings.items() if name not in {"SEED", "OUT_DIR"}))


def _statistics(target: Target, contest: Contest, issues: list[Issue], standing: float | None) -> Iterator[Evidence]:
    for issue in issues:
        if issue.code in OF_STATISTICS:
            yield fail(issue.text)
    scores = [log.score.val_bpb for log in target.counted if log.score]
    if not scores:
        return
    yield from _dropped(target)
    sample = stats.summarise(scores)
    spread = f", sd {sample.sd:.6f}" if sample.sd is not None else ""
    yield ok(f"computed from {count(sample.n, 'log')}: mean {sample.mean:.6f}{spread}")
    bpb, told = target.claim.bpb, any(issue.code in OF_STATISTICS for issue in issues)
    digits = min(log.score.digits for log in target.counted if log.score)
    if bpb is not None and not told and sample.n > 1 and bpb.value < sample.mean and not bpb.says(sample.mean, digits):
        yield fail(f"claims {bpb.value:.{bpb.digits}f}; the mean of its {sample.n} logs is {sample.mean:.6f}")
    if target.claim.std is not None and sample.sd is not None:
        yield _sd(target.claim.std, scores, sample)
    if standing is not None and target.record:
        yield from _record(target, contest, scores, standing)


def _dropped(target: Target) -> Iterator[Evidence]:
    """Seeds that were run, look like the others and are left out of a mean that is better without them."""
    counted = {log.file: log.score.val_bpb for log in target.counted if log.score}
    if not counted:
        return
    anchor = target.counted[0]
    left = [
        log
        for log in target.logs
        if not log.counted and log.score and not log.why.startswith("a copy") and log.like(anchor)
    ]
    worse = [log for log in left if log.score and log.score.val_bpb > max(counted.values())]
    if worse:
        names = ", ".join(log.file for log in worse)
        yield warn(f"of the same settings, with worse scores and left out: {names}")


def _sd(claimed: float, scores: list[float], sample: stats.Sample) -> Evidence:
    assert sample.sd is not None
    text = f"{claimed:.10f}".rstrip("0")
    half = SD_DIGITS * 10.0 ** -len(text.partition(".")[2])
    population = sample.sd * ((sample.n - 1) / sample.n) ** 0.5
    if abs(claimed - sample.sd) <= half:
        return ok(f"claims sd {claimed:g}: the sample sd")
    if abs(claimed - population) <= half:
        return warn(f"claims sd {claimed:g}: the population sd; of a sample it is {sample.sd:.6f}")
    return warn(f"claims sd {claimed:g}; its logs have {sample.sd:.6f} (sample), {population:.6f} (population)")


def _record(target: Target, contest: Contest, scores: list[float], standing: float) -> Iterator[Evidence]:
    limits = contest.limits
    if len(scores) < 2:
        yield warn(f"one seed can't show a gain over {standing:.4f}; {limits.seeds} are asked for")
        return
    perhaps = [found for log in target.counted if (found := bytes_per_token(log))]
    ratio = perhaps[0][0] if perhaps else None
    readings = []
    reached = False
    for name, margin in stats.margin_readings(limits.record_margin_nats, ratio).items():
        test = stats.one_sample(scores, standing - margin)
        reached = reached or test.p < limits.alpha
        readings.append(f"{name.replace('_', ' ')} {standing - margin:.4f}: p {test.p:.2g}")
    plain = stats.one_sample(scores, standing)
    text = (
        f"against the standing {standing:.4f}: p {plain.p:.2g}; with the margin of {limits.record_margin_nats:g} nats read "
        + ", ".join(readings)
    )
    if reached:
        yield ok(text)
    else:
        yield warn(f"{text}: below {limits.alpha:g} under no reading")
