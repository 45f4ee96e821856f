"""`golfctl ledger`: the append-only truth."""

from __future__ import annotations

from typing import Annotated

import typer

from golfctl.cli import output
from golfctl.errors import GateSaidNo

app = typer.Typer(help="Check and read the ledger.", no_args_is_help=True)


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
    from golfctl.store.ledger import Ledger

    campaign = output.campaign()
    events = Ledger(campaign.ledger_folder, campaign.state_folder).events()
    for event in events[-last:] if last else events:
        if as_json:
            output.say(event.line().decode())
            continue
        data = event.data
        subject = data.get("run") or data.get("spec", {}).get("name") or data.get("plan") or data.get("subject") or ""
        said = data.get("outcome") or data.get("answer") or data.get("reason") or ""
        output.say(f"{event.time}  {event.id:<12} {event.type:<16} {subject}  {said}")
