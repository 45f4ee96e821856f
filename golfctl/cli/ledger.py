"""`golfctl ledger`: the append-only truth."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from golfctl.cli import output
from golfctl.errors import GateSaidNo

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from golfctl.store.ledger import Ledger

app = typer.Typer(help="Check, read and export the ledger.", no_args_is_help=True)


class What(StrEnum):
    """What rows are about."""

    RUNS = "runs"
    EVENTS = "events"


class Form(StrEnum):
    """How rows are written."""

    CSV = "csv"
    JSONL = "jsonl"


@app.command("verify")
def ledger_verify(as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False) -> None:
    """Check every chain line by line, and against the witnesses in launches, reports and run folders."""
    from golfctl.store.status import verify

    count, defects, remarks = verify(output.campaign())
    if as_json:
        output.print_json({"events": count, "defects": defects, "remarks": remarks})
    else:
        for remark in remarks:
            output.note(remark)
        for defect in defects:
            output.note(defect)
    if defects:
        raise GateSaidNo(f"ledger: {len(defects)} defect(s) in {count} events")
    if not as_json:
        output.say(f"ledger: {count} events, chain intact")


@app.command("show")
def ledger_show(
    last: Annotated[int, typer.Option("--last", "-n", help="How many events; 0: all.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, as stored.")] = False,
) -> None:
    """Print events, oldest first."""
    events = _ledger().events()
    for event in events[-last:] if last else events:
        if as_json:
            output.say(event.line().decode())
            continue
        data = event.data
        subject = data.get("run") or data.get("spec", {}).get("name") or data.get("plan") or data.get("subject") or ""
        said = data.get("outcome") or data.get("answer") or data.get("reason") or ""
        output.say(f"{event.time}  {event.id:<12} {event.type:<16} {subject}  {said}")


@app.command("export")
def ledger_export(
    what: Annotated[What, typer.Argument(help="One line for each run, or for each event.")] = What.RUNS,
    form: Annotated[Form, typer.Option("--format", help="csv, or jsonl: one JSON object a line.")] = Form.CSV,
    to: Annotated[Path | None, typer.Option("--to", help="File to write; none, or -: standard output.")] = None,
) -> None:
    """Runs or events as CSV or JSON lines, oldest first, from a checked ledger."""
    from golfctl.store import ledgerexport

    lines = (ledgerexport.csv_lines if form is Form.CSV else ledgerexport.json_lines)(_rows(what))
    if to is None or str(to) == "-":
        for line in lines:
            output.say(line)
        return
    count = ledgerexport.save(lines, to)
    output.say(f"{to}: {output.count(count, 'line')}")


@app.command("rebuild-index")
def ledger_rebuild_index(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Check every chain and make the index anew, with which a long ledger is read faster."""
    from golfctl.store import ledgerindex

    campaign = output.campaign()
    count = ledgerindex.rebuild(_ledger())
    place = campaign.relative(campaign.state_folder / ledgerindex.FILE)
    if as_json:
        output.print_json({"events": count, "index": place})
    else:
        output.say(f"{place}: {output.count(count, 'event')}")


def _ledger() -> Ledger:
    from golfctl.store.ledger import Ledger

    campaign = output.campaign()
    return Ledger(campaign.ledger_folder, campaign.state_folder)


def _rows(what: What) -> Iterator[Mapping[str, object]]:
    from golfctl.store import ledgerexport, ledgerindex

    if what is What.EVENTS:
        return ledgerexport.event_rows(_ledger().events())
    return ledgerexport.run_rows(ledgerindex.read(_ledger()).state.runs.values())
