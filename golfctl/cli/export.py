"""`golfctl export`: runs for the tracking stores and tools people already use."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from golfctl.cli import output

if TYPE_CHECKING:
    from golfctl.store.campaign import Campaign
    from golfctl.store.exportruns import Exported


class Store(StrEnum):
    """Where runs go."""

    MLFLOW = "mlflow"
    CSV = "csv"
    PARQUET = "parquet"


def export(
    to: Annotated[Store, typer.Option("--to", help="mlflow: a tracking store; csv, parquet: tables in a folder.")],
    dest: Annotated[
        str,
        typer.Option(
            "--output", "-o", help="Folder; for mlflow also FILE.db, or an address such as http://127.0.0.1:5000."
        ),
    ],
    artifacts: Annotated[bool, typer.Option("--artifacts", help="The files of the runs, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Bring runs, params, metrics with their steps, and files into a tracking store. Done twice, each run is there once."""
    from golfctl.store.exportruns import exported
    from golfctl.store.status import open_state

    campaign = output.campaign()
    runs = list(exported(campaign, open_state(campaign)))
    if to is Store.MLFLOW:
        place, counts = _to_mlflow(campaign, runs, dest, artifacts)
    else:
        from golfctl.store import exporttables

        place, counts = dest, exporttables.write(runs, Path(dest), campaign.name, str(to), artifacts)
    if as_json:
        output.print_json({"to": str(to), "dest": place, **counts})
    else:
        output.say(f"{place}: {', '.join(f'{count:,} {name}' for name, count in counts.items())}")


def _to_mlflow(campaign: Campaign, runs: list[Exported], dest: str, artifacts: bool) -> tuple[str, dict[str, int]]:
    from rich.progress import track

    from golfctl.store.exportmlflow import Tracking, shown

    tracking = Tracking(dest, campaign.name)
    counts = {"new": 0, "updated": 0, "same": 0}
    console = output.console(stderr=True)
    for run in track(runs, "runs", console=console, transient=True, disable=not console.is_terminal):
        counts[tracking.put(run, artifacts)] += 1
    return shown(tracking.uri), counts
