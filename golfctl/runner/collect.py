"""Bringing runs home: verified files, a translated result, an event; only then is anything freed on the host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from golfctl.domain import rundir
from golfctl.domain.event import Type
from golfctl.domain.host import HostSpec
from golfctl.domain.run import Outcome, RunRecord, RunResult, RunSpec
from golfctl.domain.state import State
from golfctl.errors import HostError
from golfctl.hosts.base import Host
from golfctl.hosts.facts import list_at, number_at, text_at
from golfctl.hosts.transfer import pull_dead
from golfctl.hostside.files import one_line, scrub
from golfctl.runner.tails import Tails
from golfctl.store import bases, bundle, runs
from golfctl.store.campaign import Campaign
from golfctl.store.ledger import Ledger

LONGEST_S = 1e8
"""Three years; what claims to have run longer makes its price a nonsense."""
MOST_LINES = 30
"""Lines kept of those that made a rule fire."""


def collect(campaign: Campaign, ledger: Ledger, host: Host, record: RunRecord, state: State, tails: Tails) -> None:
    """Pull, verify, translate, record, and only then free the space on the host. Raises HostError; then nothing happened."""
    name = record.spec.name
    ending = host.poll(name).exit or {}
    outcome, wall_s = _outcome(f"{host.spec.alias}:{name}", ending)
    host.pull(name, campaign.runs_folder / name)
    result = read_result(campaign, record.spec, state)
    data: dict[str, Any] = {"reason": text_at(ending, "reason"), "wall_s": wall_s, "result": asdict(result)}
    data["fault"] = text_at(ending, "fault")
    if outcome is Outcome.ABORTED:
        lines = [scrub(str(line)) for line in list_at(ending, "lines")[:MOST_LINES]]
        data |= {"lines": lines, "saved_usd": _saved(host.spec, record, wall_s, state)}
    record_end(campaign, ledger, host.spec, record, outcome, data)
    tails.forget(name)
    host.release(name)


def _outcome(place: str, ending: Mapping[str, Any]) -> tuple[Outcome, float | None]:
    """How a run ended and after how many seconds. Raises HostError where exit.json does not say so: hosts may say anything."""
    word, wall_s = text_at(ending, "outcome"), number_at(ending, "wall_s")
    if word not in (known := [str(outcome) for outcome in Outcome]):
        raise HostError(f"{place}/{rundir.EXIT}: outcome {word!r} is unknown; allowed are {', '.join(known)}")
    if wall_s is None or not 0 <= wall_s <= LONGEST_S:
        said = one_line(repr(ending.get("wall_s")))
        raise HostError(f"{place}/{rundir.EXIT}: wall_s {said} is no number of seconds; the run's price hangs on it")
    return Outcome(word), wall_s


def lose(
    campaign: Campaign, ledger: Ledger, host: Host | None, spec: HostSpec, record: RunRecord, why: str, tails: Tails
) -> None:
    """Record a run nothing knows of any more, with whatever is left of it: on the host, or of what we heard. Raises HostError."""
    name, folder = record.spec.name, campaign.runs_folder / record.spec.name
    dead = host is not None and host.poll(name).state == "dead"
    if host is not None and dead:
        host.pull_partial(name, folder)
    elif tails.size(name):
        heard = tails.path(name)
        pull_dead(f"{spec.alias}:{name}", [rundir.LOG], lambda _: iter([heard.read_bytes()]), folder, heard=True)
    newest = tails.newest(name)
    seen = (
        f"last seen at step {newest.step}, {tails.size(name):,} bytes of its log" if newest else "its log was not seen"
    )
    record_end(
        campaign, ledger, spec, record, Outcome.LOST, {"reason": f"{why}; {seen}", "wall_s": None, "result": None}
    )
    tails.forget(name)
    if host is not None and dead:
        host.release(name)


def record_end(
    campaign: Campaign, ledger: Ledger, host: HostSpec, record: RunRecord, outcome: Outcome, data: dict[str, Any]
) -> None:
    """Append the end of a run with what it cost: its share of the machine's price."""
    share = min(record.spec.processes, host.slots) / host.slots
    content = {
        "run": record.spec.name,
        "outcome": str(outcome),
        **data,
        "usd": host.usd_per_hour * share * (data["wall_s"] or 0.0) / 3600,
        "evidence": runs.evidence(campaign.runs_folder / record.spec.name),
    }
    ledger.append(Type.RUN_FINISHED, content)


def _saved(host: HostSpec, record: RunRecord, wall_s: float | None, state: State) -> float:
    """Dollars an abort left unspent: what runs of this shape take, else nothing is claimed."""
    took = [run.wall_s for run in state.runs.values() if run.spec.shape == record.spec.shape and run.result]
    full = max((value for value in took if value), default=0.0)
    share = min(record.spec.processes, host.slots) / host.slots
    return max(0.0, full - (wall_s or 0.0)) * host.usd_per_hour * share / 3600


def read_result(campaign: Campaign, spec: RunSpec, state: State) -> RunResult:
    """What a pulled run says, translated once."""
    base = bases.load(campaign, _base_of(campaign, spec, state))
    ours = base.kind == "trainer"
    counted = runs.Counted(
        bundle.code_bytes_of(campaign, spec.bundle, base),
        base.artifact,
        campaign.rules.score_label if ours else base.score_label,
        bundle.trainer_code_sha256(campaign, spec.bundle) if ours else None,
    )
    return runs.read_result(campaign.runs_folder / spec.name, counted)


def _base_of(campaign: Campaign, spec: RunSpec, state: State) -> str:
    for revisions in state.revisions.values():
        for revision in revisions:
            if spec.bundle in {revision.bundle, revision.frozen["parent_bundle"], revision.frozen["base_bundle"]}:
                return str(revision.frozen["base"])
    return campaign.base_name
