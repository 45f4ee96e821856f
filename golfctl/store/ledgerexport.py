"""The ledger's events and runs as rows, and rows as lines of CSV or JSON, for other programs. Pure but for `save`."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from golfctl.domain.event import Event
from golfctl.domain.run import RunRecord, RunResult, RunSpec
from golfctl.errors import InputError
from golfctl.store.files import os_error

Row = Mapping[str, Any]

_FORMULA = ("=", "+", "-", "@")
"""How a text begins that a spreadsheet takes for a formula."""
_EVENT, _SPEC, _RESULT = ([item.name for item in fields(kind)] for kind in (Event, RunSpec, RunResult))
_RECORD = [item.name for item in fields(RunRecord) if item.name not in {"spec", "result"}]


def event_rows(events: Iterable[Event]) -> Iterator[Row]:
    """One row for each event: what its ledger line says, under the same names."""
    return ({name: getattr(event, name) for name in _EVENT} for event in events)


def run_rows(runs: Iterable[RunRecord]) -> Iterator[Row]:
    """One row for each run: the fields of RunSpec, RunRecord and RunResult; those of the result are None where there is none."""
    for run in runs:
        row = {name: getattr(run.spec, name) for name in _SPEC}
        row |= {name: getattr(run, name) for name in _RECORD}
        yield row | {name: getattr(run.result, name, None) for name in _RESULT}


def json_lines(rows: Iterable[Row]) -> Iterator[str]:
    """Each row as a JSON object in ASCII."""
    return (json.dumps(row) for row in rows)


def csv_lines(rows: Iterable[Row]) -> Iterator[str]:
    """Each row as a line of CSV after a line of names; nothing at all without rows.

    None is an empty cell, lists and mappings are JSON in theirs, control characters are escaped, and a text that looks like a
    formula has a ' before it: hosts and logs have their say in it.
    """
    for number, row in enumerate(rows):
        if number == 0:
            yield _csv_line(row)
        yield _csv_line([_cell(value) for value in row.values()])


def _csv_line(cells: Iterable[Any]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="").writerow(cells)
    return buffer.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(value)
    if not isinstance(value, str):
        return value
    text = value if value.isprintable() else "".join(map(_visible, value))
    return f"'{text}" if text.startswith(_FORMULA) else text


def _visible(letter: str) -> str:
    return letter if letter.isprintable() else json.dumps(letter)[1:-1]


def save(content: Iterable[str], path: Path) -> int:
    """Write lines to a file, which appears when it is complete; return how many.

    Raises InputError if it can't be written, or if another file than an export stands there: a slip must not cost a ledger.
    """
    if not _may_replace(path):
        raise InputError(f"{path}: exists, and is no export of golfctl; name another file, or remove it first")
    temporary = path.with_name(f".{path.name}.tmp")
    count = 0
    try:
        with temporary.open("w", encoding="utf-8") as file:
            for count, line in enumerate(content, start=1):  # noqa: B007  # the last one's number is the count
                file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(f"{path}: can't be written ({os_error(error)})") from error
    return count


def _may_replace(path: Path) -> bool:
    """Whether nothing stands there, or a file whose first line is one of an export."""
    if not os.path.lexists(path):
        return True
    try:
        with path.open("rb") as file:
            first = file.readline(1 << 20) if path.is_file() and not path.is_symlink() else b"?"
    except OSError as error:
        raise InputError(f"{path}: can't be read ({os_error(error)})") from error
    names = [",".join(head) for head in (_EVENT, [*_SPEC, *_RECORD, *_RESULT])]
    starts = [f'{{"{head[0]}": '.encode() for head in (_EVENT, _SPEC)]
    return not first.strip() or first.decode("utf-8", "replace").strip() in names or any(map(first.startswith, starts))
