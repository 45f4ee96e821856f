"""Bringing runs home: verified files, a translated result, an event; only then is anything freed on the host."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from golfctl.domain import rundir
from golfctl.domain.event import Type
from golfctl.domain.host import HostSpec
from golfctl.domain.run import Outcome, RunRecord, RunResult, RunSpec
from golfctl.domain.state import State
from golfctl.errors import HostError
from golfctl.estimate import took_s
from golfctl.hosts.base import Host
from golfctl.hosts.facts import list_at, number_at, text_at
from golfctl.hosts.transfer import pull_dead
from golfctl.hostside.files import one_line, read_json, scrub
from golfctl.runner.tails import Tails
from golfctl.stats import summarise
from golfctl.store import bases, bundle, runs
from golfctl.store.campaign import Campaign
from golfctl.store.ledger import Ledger

LONGEST_S = 1e8
"""Three years; what claims to have run longer makes its price a nonsense."""
SPEC_BYTES = 1 << 22
SHORTEST_SECRET = 4
"""Shorter values are no secrets, and would blank out half a text."""
MOST_LINES = 30
"""Lines kept of those that made a rule fire."""


def collect(campaign: Campaign, ledger: Ledger, host: Host, record: RunRecord, state: State, tails: Tails) -> None:
    """Pull, verify, translate, record, and only then free the space on the host. Raises HostError; then nothing happened."""
    name = record.spec.name
    ending = host.poll(name).exit or {}
    outcome, wall_s = _outcome(f"{host.spec.alias}:{name}", ending)
    _refuse_another(host, record.spec)
    folder = campaign.runs_folder / name
    host.pull(name, folder)
    if (read_json(str(folder / rundir.PULLED)) or {}).get("dead"):
        raise HostError(f"{folder}: is the copy of a dead run, and its host has the whole; move it away")
    result = read_result(campaign, record.spec, state)
    data: dict[str, Any] = {"reason": text_at(ending, "reason"), "wall_s": wall_s, "result": asdict(result)}
    data["fault"] = text_at(ending, "fault")
    if outcome is Outcome.ABORTED:
        lines = [scrub(str(line)) for line in list_at(ending, "lines")[:MOST_LINES]]
        # What a person stopped was saved by no rule.
        by_rule = not host.read(name, rundir.STOP, 0, 1)
        data |= {"lines": lines, "saved_usd": _saved(host.spec, record, wall_s, state) if by_rule else 0.0}
    record_end(campaign, ledger, host.spec, record, outcome, data)
    tails.forget(name)
    host.release(name)


def _refuse_another(host: Host, spec: RunSpec) -> None:
    """A name is no identity: what was asked for must stand in the run's own record. Raises HostError."""
    try:
        asked = json.loads(host.read(spec.name, rundir.SPEC, 0, SPEC_BYTES))
    except ValueError:
        asked = {}
    same = {"bundle": spec.bundle, "seed": spec.seed, "campaign": spec.campaign, "ledger": dict(spec.witness)}
    for key, value in same.items():
        if asked.get(key) != value:
            raise HostError(
                f"{host.spec.alias}:{spec.name}: is another's run ({key} differs); golfctl host sweep {host.spec.alias}"
            )


def _outcome(place: str, ending: Mapping[str, Any]) -> tuple[Outcome, float | None]:
    """How a run ended and after how many seconds. Raises HostError where exit.json does not say so: hosts may say anything."""
    word, wall_s = text_at(ending, "outcome"), number_at(ending, "wall_s")
    # Lost is what we say of a run, never what its host says.
    if word not in (known := [str(outcome) for outcome in Outcome if outcome is not Outcome.LOST]):
        raise HostError(f"{place}/{rundir.EXIT}: outcome {word!r} is unknown; allowed are {', '.join(known)}")
    if wall_s is None or not 0 <= wall_s <= LONGEST_S:
        said = one_line(repr(ending.get("wall_s")))
        raise HostError(f"{place}/{rundir.EXIT}: wall_s {said} is no number of seconds; the run's price hangs on it")
    return Outcome(word), wall_s


def lose(
    campaign: Campaign,
    ledger: Ledger,
    host: Host | None,
    record: RunRecord,
    why: str,
    state: State,
    tails: Tails,
) -> None:
    """Record a run nothing knows of any more, with whatever is left of it: on the host, or of what we heard. Raises HostError.

    What it cost is an estimate, all the time since it was launched: nobody knows when it ended.
    """
    spec = campaign.hosts[record.spec.host]
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
    result = read_result(campaign, record.spec, state) if (folder / rundir.PULLED).is_file() else None
    data: dict[str, Any] = {"reason": f"{why}; {seen}", "wall_s": None}
    # A score that anybody can have seen is kept: such a run is never drawn again.
    data["result"] = asdict(result) if result and result.score is not None else None
    data["usd"] = _price(spec, record, _since(record.launched_at)) if record.started else 0.0
    record_end(campaign, ledger, spec, record, Outcome.LOST, data)
    tails.forget(name)
    if host is not None and dead:
        host.release(name)


def record_end(
    campaign: Campaign, ledger: Ledger, host: HostSpec, record: RunRecord, outcome: Outcome, data: dict[str, Any]
) -> None:
    """Append the end of a run with what it cost: its share of the machine's price."""
    content = {
        "run": record.spec.name,
        "outcome": str(outcome),
        "usd": _price(host, record, data["wall_s"] or 0.0),
        **_masked(data, host),
        "evidence": runs.evidence(campaign.runs_folder / record.spec.name),
    }
    ledger.append(Type.RUN_FINISHED, content)


def _saved(host: HostSpec, record: RunRecord, wall_s: float | None, state: State) -> float:
    """Dollars an abort left unspent: the mean of what completed runs of this shape took, less what this one took.

    Without one nothing is claimed.
    """
    took = took_s(state).get(record.spec.shape)
    full = summarise(took).mean if took else 0.0
    return _price(host, record, max(0.0, full - (wall_s or 0.0)))


def _since(text: str) -> float:
    """Seconds from a ledger time until now, both by this machine's clock; never negative."""
    return max(0.0, (datetime.now(UTC) - datetime.fromisoformat(text)).total_seconds())


def _price(host: HostSpec, record: RunRecord, seconds: float) -> float:
    """Dollars for its share of the machine."""
    return host.usd_per_hour * min(record.spec.processes, host.slots) / host.slots * seconds / 3600


def _masked(content: Any, host: HostSpec) -> Any:
    """The same without the values of the host's secret_env: the ledger is published."""
    secrets = [value for name in host.secret_env if len(value := os.environ.get(name, "")) >= SHORTEST_SECRET]
    if not secrets:
        return content
    if isinstance(content, str):
        for secret in secrets:
            content = content.replace(secret, "***")
    elif isinstance(content, Mapping):
        return {key: _masked(value, host) for key, value in content.items()}
    elif isinstance(content, list | tuple):
        return [_masked(value, host) for value in content]
    return content


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
