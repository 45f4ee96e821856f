"""Is a host fit for what is ahead? Asked before money is spent; what it answered is kept for a while."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from golfctl.domain.host import HostSpec
from golfctl.hosts import preflight
from golfctl.hosts.base import Host
from golfctl.hosts.folder import CACHE
from golfctl.hosts.preflight import Finding, Need
from golfctl.hostside.files import one_line, read_json, write_json
from golfctl.store import bases
from golfctl.store.campaign import Campaign

FRESH_S = 900.0
"""A preflight this old is good enough for another run."""
SPEED_FRESH_S = 24 * 3600.0

_TORCH = re.compile(rb"^\s*(?:import|from)\s+torch\b", re.MULTILINE)

Say = Callable[[str], None]


@dataclass(frozen=True)
class Examination:
    """What a host said of itself, and what that means. speed: None where it was not measured."""

    facts: Mapping[str, Any]
    speed: Mapping[str, Any] | None
    findings: tuple[Finding, ...]

    @property
    def lines(self) -> list[str]:
        """For people: the machine, its speed, and everything that is not as it should be."""
        told = [f"{item.level.upper():<5} {item.text}" for item in self.findings if item.level != "ok"]
        return [*preflight.summary_lines(self.facts, self.speed), *told]

    def worst(self) -> str:
        """The gravest level: "fail", "slow", "warn" or "ok"."""
        levels = {item.level for item in self.findings}
        return next((level for level in ("fail", "slow", "warn") if level in levels), "ok")


def need_of(campaign: Campaign, spec: HostSpec, processes: int, names: Iterable[str]) -> Need:
    """What runs of so many processes ask of this host; `names`: the bases they build on, which may do without torch."""
    torch = "" if any(_imports_torch(campaign, name) for name in names if name) else None
    return Need(min(processes, spec.slots), spec.gpu, torch, compiler=bool(spec.gpu), data=bool(spec.data))


def _imports_torch(campaign: Campaign, name: str) -> bool:
    return any(_TORCH.search(file.content) for file in bases.load(campaign, name).tree.files.values())


def examine(campaign: Campaign, host: Host, need: Need, say: Say, *, speed: bool, hashes: bool = False) -> Examination:
    """Ask the host for its facts, and for its speed if wanted; remember the speed. Raises HostError, InputError, OSError."""
    spec = host.spec
    request: dict[str, Any] = {"torch": need.torch is not None, "cache": spec.cache, "hash": hashes}
    if spec.data:
        request |= {"data": spec.data}
        if spec.manifest:
            request["manifest"] = preflight.read_manifest(campaign.root / spec.manifest)
    sent = time.time()
    facts = preflight.with_skew(host.tool("probe", request, say), sent, time.time())
    folder = _folder(campaign)
    former = preflight.past(folder, spec.alias)
    measured = host.tool("speed", {}, say) if speed else None
    if measured is not None:
        preflight.remember(folder, spec.alias, facts, measured)
    return Examination(facts, measured, tuple(preflight.findings(spec, need, facts, measured, former)))


def before_runs(campaign: Campaign, host: Host, processes: int, names: Iterable[str], say: Say) -> Examination | None:
    """The examination a command makes before it starts runs; None while the last one is fresh. Raises as examine."""
    spec, path, now = host.spec, _folder(campaign) / f"{host.spec.alias}.checked.json", time.time()
    known = _known(path)
    need = need_of(campaign, spec, processes, names)
    asked = _digest(campaign, spec, need)
    if known.get("asked") == asked and 0 <= now - float(known.get("at", 0)) < FRESH_S:
        return None
    # Beside runs the figures would read low and say nothing.
    measure = bool(spec.gpu) and host.busy() == 0 and not 0 <= now - float(known.get("speed_at", 0)) < SPEED_FRESH_S
    found = examine(campaign, host, need, say, speed=measure)
    if found.worst() in {"ok", "warn"}:
        speed_at = now if measure else known.get("speed_at", 0)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"at": now, "speed_at": speed_at, "asked": asked}
        write_json(str(path), content)
    return found


def _digest(campaign: Campaign, spec: HostSpec, need: Need) -> str:
    """Hash of all that a preflight depends on besides the machine: an edited hosts.yaml or manifest is checked anew."""
    manifest = json.dumps(preflight.read_manifest(campaign.root / spec.manifest)) if spec.manifest else ""
    text = json.dumps([asdict(spec), asdict(need), manifest], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def idle_news(campaign: Campaign, host: Host) -> str:
    """What the host did by itself since we last looked, as one line; "" if nothing. Said once. Raises HostError."""
    if host.spec.abandon_after_s is None:
        return ""
    content = host.idle()
    mark = f"{content.get('at')} {content.get('state')}"
    path = _folder(campaign) / f"{host.spec.alias}.idle.json"
    if not content or _known(path).get("told") == mark:
        return ""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(str(path), {"told": mark})
    words = {
        "done": f"its on_idle ran at {content.get('at')}, after {content.get('silent_s')} s without us",
        "failed": f"its on_idle failed at {content.get('at')} with exit code {content.get('code')}",
        "refused": f"it was idle at {content.get('at')} and did not run on_idle: {content.get('why')}",
    }
    text = words.get(str(content.get("state")), f"its on_idle began at {content.get('at')}; how it ended is not known")
    return one_line(f"{host.spec.alias}: {text}")


def prepare_request(spec: HostSpec, campaign: Campaign, packages: Sequence[str]) -> dict[str, Any]:
    """What `host prepare` asks for: options.prepare of hosts.yaml over what the campaign's own trainer needs."""
    wish: dict[str, Any] = {"requirements": list(packages), "cache": spec.cache or ("" if not spec.gpu else CACHE)}
    if spec.data:
        wish["data"] = spec.data
        if spec.manifest:
            manifest = preflight.read_manifest(campaign.root / spec.manifest)
            files = manifest["files"].items()
            wish["files"] = [{"path": name, **fact} for name, fact in files if "url" in fact or "source" in fact]
    return {**wish, **dict(spec.options.get("prepare", {}))}


def _folder(campaign: Campaign) -> Path:
    return campaign.state_folder / "hosts"


def _known(path: Path) -> dict[str, Any]:
    try:
        return read_json(str(path)) or {}
    except (OSError, ValueError, json.JSONDecodeError):
        return {}
