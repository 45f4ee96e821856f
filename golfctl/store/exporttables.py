"""Runs as three tables in a folder: runs, params, metrics; as CSV or Parquet. Written whole each time, so twice is once."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from itertools import chain, islice
from pathlib import Path
from typing import Any

from golfctl.domain.run import RunRecord, RunResult, RunSpec
from golfctl.errors import HostError, InputError
from golfctl.store import ledgerexport
from golfctl.store.exportruns import Exported
from golfctl.store.files import os_error, write_atomic

MARK = "golfctl-export.json"
"""Says that a folder holds an export, and of which campaign: its name, and the machines that its runs were started from."""
BATCH = 10_000
"""Rows that are held in memory at once."""
Row = Mapping[str, Any]
Write = Callable[[Path, Mapping[str, str], Iterator[Row]], None]

PARAMS = {"run": "str", "name": "str", "value": "str"}
METRICS = {"run": "str", "name": "str", "step": "int", "ms": "float", "value": "float"}


def write(runs: list[Exported], folder: Path, campaign: str, suffix: str, artifacts: bool) -> dict[str, int]:
    """Write the tables; return rows by table. suffix: csv or parquet. artifacts: the runs' files, too, in artifacts/RUN/.

    Raises InputError for a folder that holds something else, and where pyarrow is missing; HostError for a disk that fails.
    """
    put = _csv if suffix == "csv" else _parquet()
    tables = {
        "runs": (_run_columns(), ledgerexport.run_rows(run.record for run in runs)),
        "params": (PARAMS, chain.from_iterable(map(_params, runs))),
        "metrics": (METRICS, chain.from_iterable(map(_metrics, runs))),
    }
    try:
        _claim(folder, campaign, {run.record.machine for run in runs})
        counts = {name: _table(folder / f"{name}.{suffix}", *table, put) for name, table in tables.items()}
        return counts | ({"files": sum(_copy(run, folder / "artifacts") for run in runs)} if artifacts else {})
    except OSError as error:
        raise HostError(f"the export can't be written: {os_error(error)}") from error


def _claim(folder: Path, campaign: str, machines: set[str]) -> None:
    """Make the folder, or see that it holds an export of this campaign. Raises InputError.

    Campaigns of one preset share a name, but never a machine: that is the name of a ledger's file.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"-o {folder}: is a file; name a folder")
    mark = folder / MARK
    if mark.exists():
        whose, known = _marked(mark)
        if whose != campaign:
            raise InputError(f"-o {folder}: holds the export of campaign {whose}; name another folder")
        if known and machines and not known & machines:
            raise InputError(f"-o {folder}: holds the export of another campaign named {whose}; name another folder")
        machines = machines | known
    elif folder.exists() and any(folder.iterdir()):
        raise InputError(f"-o {folder}: holds other files; name a new or empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(mark, json.dumps({"campaign": campaign, "machines": sorted(machines)}).encode() + b"\n")


def _marked(mark: Path) -> tuple[str, set[str]]:
    """(campaign, machines) as the mark of an earlier export says. Raises InputError for a damaged one."""
    try:
        content = json.loads(mark.read_bytes())
        return str(content["campaign"]), set(map(str, content.get("machines", ())))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InputError(f"{mark}: is damaged, so nobody knows whose export lies there; name another folder") from None


def _run_columns() -> dict[str, str]:
    """Column to the first word of its type, in the order of `ledgerexport.run_rows`."""
    kinds: tuple[type[Any], ...] = (RunSpec, RunRecord, RunResult)
    every = [item for kind in kinds for item in fields(kind) if item.name not in {"spec", "result"}]
    return {item.name: str(item.type).split()[0].split("[")[0] for item in every}


def _params(run: Exported) -> Iterator[Row]:
    return ({"run": run.record.spec.name, "name": name, "value": value} for name, value in run.params.items())


def _metrics(run: Exported) -> Iterator[Row]:
    """Figures of the run have no step."""
    name = run.record.spec.name
    for metric, value in run.figures.items():
        yield {"run": name, "name": metric, "step": None, "ms": None, "value": value}
    for point in run.points():
        yield {"run": name, **point._asdict()}


def _table(path: Path, columns: Mapping[str, str], rows: Iterable[Row], put: Write) -> int:
    """Write one table, which appears when it is complete; return its rows."""
    count = 0

    def counted() -> Iterator[Row]:
        nonlocal count
        for row in rows:
            count += 1
            yield row

    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as aside:
        put(Path(aside) / path.name, columns, counted())
        (Path(aside) / path.name).replace(path)
    return count


def _csv(path: Path, columns: Mapping[str, str], rows: Iterator[Row]) -> None:
    with path.open("w", encoding="utf-8") as file:
        lines = ledgerexport.csv_lines(chain([dict.fromkeys(columns)], rows))
        for number, line in enumerate(lines):
            if (
                number != 1
            ):  # the row without values only brought the line of names, which a table without rows has, too
                file.write(line + "\n")


def _parquet() -> Write:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise InputError("--to parquet: needs pyarrow; pip install 'golfctl[parquet]'") from None
    types = {"str": pyarrow.string(), "int": pyarrow.int64(), "float": pyarrow.float64(), "bool": pyarrow.bool_()}

    def put(path: Path, columns: Mapping[str, str], rows: Iterator[Row]) -> None:
        schema = pyarrow.schema([(name, types.get(kind, pyarrow.string())) for name, kind in columns.items()])
        with parquet.ParquetWriter(path, schema) as file:
            while batch := list(islice(rows, BATCH)):
                plain = [{name: _plain(value) for name, value in row.items()} for row in batch]
                file.write_table(pyarrow.Table.from_pylist(plain, schema=schema))

    return put


def _plain(value: Any) -> Any:
    """Lists and mappings as JSON; a whole number that no column of 64 bits holds is missing."""
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return None
    return json.dumps(value, default=str) if isinstance(value, Mapping | list | tuple) else value


def _copy(run: Exported, into: Path) -> int:
    """Copy a run's files that are not there yet; return how many it has."""
    files = run.files()
    for path in files:
        target = into / run.record.spec.name / path.relative_to(run.folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists() or target.stat().st_size != path.stat().st_size:
            shutil.copyfile(path, target)
    return len(files)
