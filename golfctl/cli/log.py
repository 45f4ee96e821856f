"""`golfctl log`: read training logs of any family."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from golfctl.cli import curves, output
from golfctl.errors import InputError

if TYPE_CHECKING:
    from golfctl.logs import LogFile

app = typer.Typer(help="Read training logs of any family.", no_args_is_help=True)
app.command("curves")(curves.log_curves)
app.command("tail")(curves.log_tail)

Files = Annotated[list[Path], typer.Argument(help="Log files.")]
Label = Annotated[str | None, typer.Option(help="The rules' score label; default: one is proposed.")]


@app.command("parse")
def log_parse(
    files: Files,
    label: Label = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, in order of the files.")] = False,
    explain: Annotated[bool, typer.Option(help="Say which line each number was read from, and why the score.")] = False,
) -> None:
    """What training logs say: settings, steps, sizes, scores, their end. What a log does not say is left out, never guessed."""
    from golfctl.logs.asjson import describe

    for path in files:
        log = read(path, label)
        content = {"path": str(path), **describe(log, explain)}
        if as_json:
            output.say(json.dumps(content, ensure_ascii=True))
        else:
            _show(content, log)


def read(path: Path, label: str | None) -> LogFile:
    """The runs of a file. Raises InputError if it can't be read."""
    from golfctl.logs import read_file

    try:
        return read_file(path, label)
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror}") from None


def _show(content: dict[str, Any], log: LogFile) -> None:
    """A page for people; with lines where they were asked for."""
    lines = content.pop("lines", {})
    warnings, evals = content.pop("warnings"), content.pop("evals")
    output.say(f"{content.pop('path')}: {content.pop('outcome')}, {output.count(log.lines, 'line')}, {log.encoding}")
    for name, value in content.items():
        if value is None or value == [] or name in {"other_runs", "headline_label"}:
            continue
        where = f"   line {lines[name]}" if name in lines else ""
        text = f"{value:,}" if name.endswith(("_bytes", "_params")) else value
        output.say(f"  {name:<20} {text}{where}")
    for index, item in enumerate(evals):
        where = f"   line {lines[key]}" if (key := f"evals[{index}]") in lines else ""
        mark = "*" if item["label"] == content["headline_label"] else " "
        output.say(f"  {mark} {item['label']:<40} val_bpb {item['val_bpb']}   val_loss {item['val_loss']}{where}")
    for other in content["other_runs"]:
        output.say(f"  before it: {', '.join(f'{key} {value}' for key, value in other.items() if value is not None)}")
    for text in warnings:
        output.note(f"{content.get('path', '')}  note: {text}".strip())
