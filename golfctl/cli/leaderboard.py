"""`golfctl leaderboard`: the field's records, what is wrong with them, and the frontier they make."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from golfctl.cli import output
from golfctl.errors import GateSaidNo, InputError

if TYPE_CHECKING:
    from golfctl.store.frontier import Finding, Frontier

app = typer.Typer(
    help="Import the field's records, track the frontier, find plans it has overtaken.", no_args_is_help=True
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Track = Annotated[str | None, typer.Option(help="Only this track, e.g. track_10min_16mb.")]
NAME = 27
FLAGS = {
    "over-cap": "C",
    "over-time": "T",
    "eval-over-time": "E",
    "claim-without-log": "L",
    "claim-is-prequant": "P",
    "claim-differs": "X",
    "best-seed-as-mean": "B",
    "seed-differs-from-name": "S",
    "duplicate-log": "d",
    "bytes-claim-differs": "b",
    "outcome-not-ok": "o",
    "few-seeds": "f",
    "submission-unreadable": "u",
    "unreadable": "U",
    "seeds-alike": "A",
    "sizes-contradict": "z",
    "size-unknown": "?",
    "time-unknown": "t",
    "date-differs": "y",
}


@app.command("import")
def leaderboard_import(
    tree: Annotated[Path, typer.Argument(help="A record folder, a track, or a whole tree of them.")],
    as_json: AsJson = False,
) -> None:
    """Read a tree of record folders into experiments/leaderboard.jsonl: what they claim, and what their logs say."""
    from golfctl.store.leaderboard import load, take

    campaign = output.campaign()
    fresh, unreadable = take(campaign, tree, _progress if sys.stderr.isatty() else None)
    names = {(row["track"], row["folder"]) for row in fresh}
    rows = load(campaign)
    mine = [row for row in rows if (row["track"], row["folder"]) in names]
    counts = _counts(mine)
    best = _frontier(rows, None).best
    if as_json:
        found = {**counts, "frontier": best.mean if best else None, "rows": len(rows), "unreadable": unreadable}
        output.print_json(found)
        return
    for text in unreadable:
        output.note(f"left out, can't be read: {text}")
    output.say(_summary(counts, best.mean if best else None))


def _progress(done: int, total: int, name: str) -> None:
    sys.stderr.write(f"\r\033[K{done}/{total} {output.harmless(name)[:60]}" if done + 1 < total else "\r\033[K")
    sys.stderr.flush()


def _counts(rows: list[dict[str, Any]]) -> dict[str, int]:
    issues = [(row["folder"], issue["code"]) for row in rows for issue in row["issues"]]
    return {
        "folders": len(rows),
        "logs": sum(len(row["logs"]) for row in rows),
        "over_cap": len({name for name, code in issues if code == "over-cap"}),
        "duplicate_logs": sum(code == "duplicate-log" for _, code in issues),
        "claims_without_log": sum(code == "claim-without-log" for _, code in issues),
        "issues": len(issues),
    }


def _summary(counts: dict[str, int], best: float | None) -> str:
    found = [
        f"{output.count(counts['over_cap'], 'folder')} over the cap" if counts["over_cap"] else "",
        output.count(counts["duplicate_logs"], "duplicate log") if counts["duplicate_logs"] else "",
        f"{output.count(counts['claims_without_log'], 'claim')} without a log" if counts["claims_without_log"] else "",
    ]
    frontier = f" Frontier {best:.4f}." if best is not None else ""
    text = ", ".join(filter(None, found)) or output.count(counts["issues"], "issue")
    more = ": golfctl leaderboard show --issues" if counts["issues"] else ""
    return f"{output.count(counts['folders'], 'folder')}, {output.count(counts['logs'], 'log')}.{frontier} {text}{more}"


@app.command("show")
def leaderboard_show(
    folder: Annotated[str | None, typer.Argument(help="Name of a record folder, or a part that is its alone.")] = None,
    issues: Annotated[bool, typer.Option("--issues", help="What is wrong, in sentences.")] = False,
    track: Track = None,
    as_json: AsJson = False,
) -> None:
    """The records by date: claim, mean of the logs, seeds, headroom, flags. With FOLDER: everything about one."""
    from golfctl.store.leaderboard import load

    rows = [row for row in load(output.campaign()) if track is None or row["track"] == track]
    if not rows:
        raise InputError(f"--track {track}: no record of this track")
    if folder is not None:
        rows = [_named(rows, folder)]
    if as_json:
        found = [{"folder": row["folder"], "track": row["track"], **issue} for row in rows for issue in row["issues"]]
        output.print_json(found if issues else rows[0] if folder is not None else rows)
    elif issues:
        _show_issues(rows)
    elif folder is not None:
        _show_one(rows[0])
    else:
        _show_table(rows)


def _named(rows: list[dict[str, Any]], folder: str) -> dict[str, Any]:
    name = folder.rstrip("/").rpartition("/")[2]
    found = [row for row in rows if row["folder"] == name] or [row for row in rows if name in row["folder"]]
    if len(found) != 1:
        what = "no such record" if not found else f"{len(found)} records are called so"
        raise InputError(f"{folder}: {what}; `golfctl leaderboard show` lists them")
    return found[0]


def _show_table(rows: list[dict[str, Any]]) -> None:
    output.say(f"{'date':<10} {'record':<{NAME}} {'claimed':>7} {'logs':>7} {'n':>2} {'sd':>6} {'headroom':>9} flags")
    used: set[str] = set()
    for row in rows:
        codes = [code for code in FLAGS if any(_flagged(issue, code) for issue in row["issues"])]
        used |= set(codes)
        mean, sd, room = row["log_mean"], row["log_sd"], row["headroom_bytes"]
        output.say(
            f"{row['date'] or '?':<10} {_short(row['folder']):<{NAME}} {_number(row['claimed']['val_bpb']):>7} "
            f"{_number(mean):>7} {row['n']:>2} {'' if sd is None else f'{sd:.4f}':>6} "
            f"{'?' if room is None else f'{room:,}':>9} {''.join(FLAGS[code] for code in codes)}".rstrip()
        )
    if used:
        output.note(_wrapped(", ".join(f"{FLAGS[code]}={code}" for code in FLAGS if code in used), "  "))


def _wrapped(text: str, indent: str) -> str:
    import textwrap

    return textwrap.fill(text, 80, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


def _flagged(issue: dict[str, Any], code: str) -> bool:
    """Training a fraction of a step past the time is what every script does, and no flag."""
    return bool(issue["code"] == code and not (code == "over-time" and issue["level"] == "note"))


def _short(folder: str) -> str:
    name = folder[11:] if folder[:4].isdigit() and folder[4:5] == "-" and len(folder) > 11 else folder
    return name if len(name) <= NAME else f"{name[: NAME - 9]}~{name[-8:]}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _show_issues(rows: list[dict[str, Any]]) -> None:
    counts: Counter[str] = Counter()
    for row in rows:
        if row["issues"]:
            output.say(f"{row['folder']}")
        for issue in sorted(row["issues"], key=lambda issue: issue["level"] == "note"):
            counts[issue["code"]] += 1
            output.say(f"  {'note: ' if issue['level'] == 'note' else ''}{issue['code']}: {issue['text']}")
    output.note(", ".join(f"{number} {code}" for code, number in counts.most_common()) or "no issues")


def _show_one(row: dict[str, Any]) -> None:
    claimed = row["claimed"]
    output.say(f"{row['track']}/{row['folder']}   {row['date'] or 'no date'}")
    output.say(f"  {row['title']}   {', '.join(row['authors'])}".rstrip())
    if claimed["val_bpb"] is not None:
        extra = [f"sd {claimed['std']}" if claimed["std"] is not None else ""]
        extra += [f"{claimed['bytes_total']:,} bytes" if claimed["bytes_total"] else "", f"by {claimed['source']}"]
        output.say(f"  claimed   {claimed['val_bpb']}   {', '.join(filter(None, extra))}")
    if row["log_mean"] is not None:
        sd = f", sd {row['log_sd']:.6f}" if row["log_sd"] is not None else ""
        output.say(f"  logs      {row['log_mean']:.6f}{sd}, n {row['n']}, {output.count(row['n_seeds'], 'seed')}")
    if row["artifact_max"] is not None:
        output.say(f"  artifact  {row['artifact_max']:,} bytes at most, headroom {row['headroom_bytes']:,}")
    output.say(f"  tags      {', '.join(row['tags']) or 'none'}")
    for log in row["logs"]:
        seed = "no seed" if log["seed"] is None else f"seed {log['seed']}"
        score = f"{log['val_bpb']} {log['label']} ({log['reason']})" if log["val_bpb"] is not None else "no score"
        output.say(f"  {'*' if log['counted'] else ' '} {log['file']}  {seed}  {score}  {log['outcome']}")
        if log.get("warnings"):
            output.say(f"      {output.count(log['warnings'], 'warning')}: golfctl log parse tells them")
        if not log["counted"] and log["why"]:
            output.say(f"      not counted: {log['why']}")
    for issue in row["issues"]:
        output.say(f"  {issue['level']}: {issue['code']}: {issue['text']}")


@app.command("frontier")
def leaderboard_frontier(
    everything: Annotated[bool, typer.Option("--all", help="Also records that are over a limit.")] = False,
    track: Track = None,
    as_json: AsJson = False,
) -> None:
    """The frontier over time: each record whose logs' mean beat all earlier ones. A claim without a log never moves it."""
    from golfctl.store.leaderboard import load

    rows = load(output.campaign())
    if track is not None and all(row["track"] != track for row in rows):
        raise InputError(f"--track {track}: no record of this track")
    found = _frontier(rows, track, everything)
    if as_json:
        output.print_json(asdict(found))
        return
    for step in found.steps:
        gain = "" if step.gain_bpb is None else f"-{step.gain_bpb:.4f}"
        nats = "" if step.gain_nats is None else f"{step.gain_nats:.4f} nats"
        room = "?" if step.headroom_bytes is None else f"{step.headroom_bytes:,}"
        output.say(f"{step.date}  {step.mean:.4f} {gain:>7} {nats:>11} {room:>9}  {_short(step.folder)}")
        if step.unverified:
            output.say(_wrapped(f"unverified: {'; '.join(step.unverified)}", " " * 12))
        if step.tags:
            output.say(_wrapped(", ".join(step.tags), " " * 12))
    if not found.steps:
        output.note("no record with a score in its logs")
    for name, why in found.excluded:
        output.note(f"left out (--all counts it): {name}: {why}")
    for name, value in found.claims:
        output.note(f"a claim without a log moves nothing: {name} {value:.4f}")


@app.command("check")
def leaderboard_check(track: Track = None, as_json: AsJson = False) -> None:
    """Which plans still aim beyond the frontier? Exit 1 if one aims at what is no record any more."""
    from golfctl.store.frontier import check
    from golfctl.store.leaderboard import load
    from golfctl.store.targets import targets

    campaign = output.campaign()
    best = _frontier(load(campaign), track).best
    if best is None:
        raise InputError("the leaderboard has no record with a score in its logs; nothing to check against")
    margin = campaign.rules.record_margin_nats
    findings = check(targets(campaign), best, margin)
    stale = [item.target.plan for item in findings if item.status == "stale"]
    if as_json:
        output.print_json({"frontier": asdict(best), "plans": [asdict(item) for item in findings]})
    else:
        output.say(f"frontier {best.mean:.4f}   {best.date}  {best.folder}")
        bars = findings[0].bars if findings else {}
        for name, bar in bars.items():
            output.say(f"  a record needs {bar:.4f}   ({margin:g} read as {name})")
        for item in findings:
            output.say(_told(item, best.mean))
        if not findings:
            output.note("no plan has a score target")
    if stale:
        raise GateSaidNo(f"{output.count(len(stale), 'plan')} overtaken by the frontier: {', '.join(stale)}")


def _told(item: Finding, best: float) -> str:
    target = item.target
    head = f"{target.plan}  gate {target.gate}  {target.text}"
    if target.value is None:
        return f"{head}: NOT CHECKABLE, {target.why}"
    number = "" if f"{target.value:.10g}" in target.text else f" = {target.value:.4f}"
    if item.status == "stale":
        remedy = f'golfctl plan retire {target.plan} --reason "the frontier is at {best:.4f}"'
        return f"{head}{number}: overtaken, no record under any reading; {remedy}"
    if item.status == "short":
        met = [name for name, bar in item.bars.items() if target.value <= bar]
        return f"{head}{number}: a record only if the margin is read as {' or '.join(met)}"
    return f"{head}{number}: still ahead of the frontier under every reading"


def _frontier(rows: list[dict[str, Any]], track: str | None, everything: bool = False) -> Frontier:
    from golfctl.store.frontier import frontier, of_track

    return frontier(of_track(rows, track), everything)
