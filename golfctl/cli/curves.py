"""`golfctl log curves` and `log tail`: what logs look like, and what the newest lines say."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from golfctl.cli import output
from golfctl.errors import InputError

if TYPE_CHECKING:
    from golfctl.logs import RunLog
    from golfctl.report.curves import Curve
    from golfctl.report.logtail import Row, Tail, Target

POLL_S = 0.2
ENOUGH = 20
"""Lines before the end that tell whether a run has ended."""


class Axis(StrEnum):
    """What a loss is drawn against."""

    STEP = "step"
    TIME = "time"


class Kind(StrEnum):
    """What is drawn."""

    TRAIN = "train"
    VAL = "val"
    BPB = "bpb"


Label = Annotated[str | None, typer.Option(help="The rules' score label; default: one is proposed.")]


def log_curves(
    files: Annotated[list[Path], typer.Argument(help="Log files.")],
    svg: Annotated[Path | None, typer.Option(help="Write an SVG picture here.")] = None,
    png: Annotated[Path | None, typer.Option(help="Write a PNG picture here.")] = None,
    against: Annotated[Axis | None, typer.Option(help="Only against this; default: both.")] = None,
    loss: Annotated[Kind, typer.Option(help="Training loss, validation loss, or bits per byte.")] = Kind.TRAIN,
    log_x: Annotated[bool, typer.Option("--log-x", help="A logarithmic axis for steps and time.")] = False,
    smooth: Annotated[int, typer.Option(min=1, help="Mean of so many points.")] = 1,
    label: Label = None,
    all_runs: Annotated[bool, typer.Option("--all-runs", help="Every run of a file, not only its last.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The points as JSON, one run a line.")] = False,
) -> None:
    """Losses against steps and time, runs over each other: in the terminal, or as SVG and PNG."""
    found, missing = _curves(files, label, loss, smooth, all_runs)
    if not found:
        raise InputError(f"{', '.join(missing)}: no progress lines with {_words(loss)}")
    for name in missing:
        output.note(f"{name}: has no progress lines with {_words(loss)}; left out")
    axes = [str(against)] if against else [str(axis) for axis in Axis]
    found = _placed(found, axes, log_x)
    if as_json:
        _print_points(found)
    for path, form in ((svg, "svg"), (png, "png")):
        if path is not None:
            _write(path, form, found, axes, loss, log_x)
    if not (svg or png or as_json):
        from golfctl.report import textplot

        for line in textplot.draw(found, axes, loss, log_x):
            output.say(line)


def _words(loss: Kind) -> str:
    from golfctl.report.curves import WORDS

    return WORDS[loss]


def _curves(
    files: Sequence[Path], label: str | None, loss: Kind, smooth: int, all_runs: bool
) -> tuple[list[Curve], list[str]]:
    """(curves in order of the files, names of files without any)."""
    from golfctl.logs import read_file
    from golfctl.report import curves

    found, missing = [], []
    for path, name in zip(files, curves.names(files), strict=True):
        with readable(path):
            log = read_file(path, label)
        runs: list[RunLog] = log.runs if all_runs else log.runs[-1:]
        numbered = [f"{name} run {number}" for number in range(1, len(runs) + 1)] if len(runs) > 1 else [name]
        drawn = [
            curve
            for run, title in zip(runs, numbered, strict=False)
            if (curve := curves.curve_of(run, title, loss, smooth))
        ]
        found += drawn
        if not drawn:
            missing.append(str(path))
    return found, missing


def _placed(found: list[Curve], axes: list[str], log_x: bool) -> list[Curve]:
    """Curves that have points on an axis. What has none is said; raises InputError if nothing is left."""
    for axis in axes:
        for curve in found:
            if not len(curve.on(axis, log_x)[0]):
                output.note(
                    f"{curve.name}: says no {'times' if axis == 'time' else 'steps above 0'}: not drawn against {axis}"
                )
    left = [curve for curve in found if any(len(curve.on(axis, log_x)[0]) for axis in axes)]
    if not left:
        raise InputError(f"nothing to draw against {' or '.join(axes)}: no run says it")
    return left


def _write(path: Path, form: str, found: list[Curve], axes: list[str], loss: Kind, log_x: bool) -> None:
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # its remarks on caches and fonts, at import too
    from golfctl.report.figure import picture
    from golfctl.store.files import write_atomic

    if path.is_dir() or not path.parent.is_dir():
        raise InputError(f"{path}: must be a file's name in a folder that exists")
    write_atomic(path, picture(found, axes, loss, form, log_x))
    output.note(f"{path}: {output.count(len(found), 'curve')}")


def _print_points(found: list[Curve]) -> None:
    from golfctl.logs.asjson import plain

    for curve in found:
        content = {
            "name": curve.name,
            "step": [plain(value) for value in curve.x["step"].tolist()],
            "ms": [plain(value) for value in curve.x["time"].tolist()],
            "loss": [plain(value) for value in curve.y.tolist()],
            "final": curve.final[0] if curve.final else None,
            "final_label": curve.final[1] if curve.final else None,
        }
        output.say(json.dumps(content, ensure_ascii=True))


def log_tail(
    file: Annotated[Path, typer.Argument(help="A log file.")],
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, help="So many of the newest lines.")] = 10,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on with what is written; Ctrl-C ends it.")] = False,
    until_end: Annotated[
        bool, typer.Option("--until-end", help="Follow until a final evaluation or a crash is seen.")
    ] = False,
    label: Label = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """The newest lines of a log of any family in one form: progress with loss, bpb, times and what is left; evaluations; ends."""
    from golfctl.report import logtail

    with readable(file):
        target, tail = logtail.target_of(file), logtail.Tail(file)
    with closing(tail), suppress(KeyboardInterrupt):
        with readable(file):
            rows, rest = tail.newest(max(lines, ENOUGH), target, label)
        for row in rows[len(rows) - min(lines, len(rows)) :]:
            _show(row, as_json)
        if follow or until_end:
            if not (until_end and _ended(rows)):
                _follow(tail, target, label, as_json, until_end)
            return
        if not rows:
            output.note(f"{file}: no progress in its last {logtail.LAST_LOOK >> 20} MiB")
        if rest.strip():
            output.note(f"{file}: its last line has no end yet: {rest.strip()[:200]}")


def _follow(tail: Tail, target: Target, label: str | None, as_json: bool, until_end: bool) -> None:
    from golfctl.report.logtail import rows_of

    while True:
        ended = False
        for row in rows_of(tail.more(), target, label):
            _show(row, as_json)
            ended = ended or _ended([row])
        if until_end and ended:
            return
        time.sleep(POLL_S)


def _ended(rows: Sequence[Row]) -> bool:
    """Whether a final evaluation or a crash follows on the last progress."""
    for row in reversed(rows):
        if row.final or row.kind == "end":
            return True
        if row.kind in {"train", "val"}:
            return False
    return False


def _show(row: Row, as_json: bool) -> None:
    from golfctl.logs.asjson import plain
    from golfctl.report.logtail import show

    if as_json:
        content = {key: plain(value) for key, value in asdict(row).items() if value is not None}
        output.say(json.dumps(content, ensure_ascii=True))
    else:
        output.say(show(row))


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Raises InputError where a file can't be read."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror}") from None
