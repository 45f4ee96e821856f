"""A campaign: the folder a person works in, its rules, gates, hosts and plans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import RootModel

from golfctl.budget import Budget
from golfctl.domain.gate import Gate, Kind
from golfctl.domain.host import HostSpec
from golfctl.domain.plan import Plan
from golfctl.domain.rules import Rules
from golfctl.errors import InputError, InputErrors, NoCampaign, Problem
from golfctl.store import gates, marks, plangraph
from golfctl.store.files import os_error
from golfctl.store.marks import Document, did_you_mean
from golfctl.store.planfile import Context, read_plan
from golfctl.store.schema import CampaignFile, HostFile, Id
from golfctl.store.validate import validate

GOLF = "golf.yaml"
HOSTS = "hosts.yaml"
STATE = ".golfctl"
REMOTE_ROOT = "~/golfctl"
"""Folder on a remote host where nothing else is said."""


@dataclass(frozen=True)
class Campaign:
    """What golf.yaml and hosts.yaml say. `host` is the default alias."""

    root: Path
    name: str
    preset: str
    base_name: str
    host: str
    seeds: tuple[int, ...]
    rules: Rules
    gates: Mapping[int, Gate]
    hosts: Mapping[str, HostSpec]
    budget: Budget = field(default_factory=Budget)

    @property
    def plans_folder(self) -> Path:
        """Plan files, and `patches/` below."""
        return self.root / "plans"

    @property
    def bases_folder(self) -> Path:
        """Base files and their snapshots."""
        return self.root / "bases"

    @property
    def experiments_folder(self) -> Path:
        """Everything that came of running."""
        return self.root / "experiments"

    @property
    def ledger_folder(self) -> Path:
        """One chained file per machine."""
        return self.experiments_folder / "ledger"

    @property
    def bundles_folder(self) -> Path:
        """Frozen code, one archive per content hash."""
        return self.experiments_folder / "bundles"

    @property
    def runs_folder(self) -> Path:
        """Pulled run folders."""
        return self.experiments_folder / "runs"

    @property
    def log_file(self) -> Path:
        """The experiment log for people."""
        return self.experiments_folder / "log.md"

    @property
    def report_file(self) -> Path:
        """The Markdown report."""
        return self.experiments_folder / "report.md"

    @property
    def failures_file(self) -> Path:
        """The failure log for people."""
        return self.root / "failures.md"

    @property
    def state_folder(self) -> Path:
        """What belongs to this machine alone; git-ignored."""
        return self.root / STATE

    @property
    def bases(self) -> list[str]:
        """Names of all bases."""
        return sorted(path.stem for path in self.bases_folder.glob("*.yaml"))

    def relative(self, path: Path) -> str:
        """A path as messages write it: from the campaign's root."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)

    def load_plans(self) -> tuple[dict[str, Plan], list[Problem]]:
        """Every usable plan by id, and every problem of every file. A plan that needs a broken plan is not usable."""
        plans, _, problems = self.read_plans()
        return plangraph.usable(plans, problems), problems

    def read_plans(self) -> tuple[dict[str, Plan], dict[str, Document], list[Problem]]:
        """Every plan that can be read on its own, with its document, and all problems, also those of the graph."""
        files = sorted(path for path in self.plans_folder.glob("*.y*ml") if path.suffix in {".yaml", ".yml"})
        context = self.context()
        plans: dict[str, Plan] = {}
        documents: dict[str, Document] = {}
        problems: list[Problem] = []
        broken: set[str] = set()
        for path in files:
            try:
                plan, document = read_plan(self._plan_bytes(path), self.relative(path), context)
                plans[plan.id], documents[plan.id] = plan, document
            except InputErrors as error:
                problems += error.problems
                broken.add(path.stem)
        problems += plangraph.problems(plans, documents, broken)
        return plans, documents, sorted(problems)

    def context(self) -> Context:
        """What plan files are checked against."""
        ids = [path.stem for path in self.plans_folder.glob("*.yaml")]
        return Context(self.plans_folder, self.bases, ids, self.base_name, self.seeds, self.gates)

    def _plan_bytes(self, path: Path) -> bytes:
        place = self.relative(path)
        if path.suffix != ".yaml":
            raise InputErrors([Problem(place, 0, 0, f"plan files end in .yaml; rename it to {path.stem}.yaml")])
        try:
            return path.read_bytes()
        except OSError as error:
            raise InputErrors([Problem(place, 0, 0, f"can't be read: {error.strerror}")]) from None


def find(start: Path) -> Campaign:
    """The campaign around `start`. Raises InputError when there is none, InputErrors when its files are wrong."""
    here = start.resolve()
    for folder in (here, *here.parents):
        if (folder / GOLF).is_file():
            return load(folder)
    raise NoCampaign(f"{here}: no {GOLF} here or above; make a campaign with `golfctl init DIR`, or cd into one")


def load(root: Path) -> Campaign:
    """The campaign in `root`. Raises InputErrors with all problems of golf.yaml and hosts.yaml."""
    content = _read(root / GOLF, GOLF)
    document = marks.read(content, GOLF)
    model, problems = validate(document, CampaignFile, [("gates", "*", "env")])
    overrides = _hosts_file(root, problems)
    if model is None:
        raise InputErrors(problems)
    rules = Rules(**model.rules.model_dump())
    campaign = Campaign(
        root=root,
        name=model.name,
        preset=model.preset,
        base_name=model.base or "",
        host=model.host,
        seeds=tuple(model.seeds),
        rules=rules,
        gates=_gates(model, rules),
        hosts=_hosts(root, model.hosts | overrides),
        budget=Budget(**model.budget.model_dump()),
    )
    problems += _contradictions(document, campaign)
    if problems:
        raise InputErrors(problems)
    return campaign


def _read(path: Path, name: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{name}: can't be read: {os_error(error)}") from None


def _gates(model: CampaignFile, rules: Rules) -> dict[int, Gate]:
    found = {}
    for number, item in sorted(model.gates.items()):
        changes = gates.differences(item.model_dump(exclude_none=True, exclude={"name", "kind"}))
        gate = gates.apply(Gate(number, item.name, Kind(item.kind)), changes)
        # The last gate is the one a record hangs on: the rules' alpha holds unless the gate states its own.
        last = number == max(model.gates) and item.alpha is None
        found[number] = replace(gate, alpha=rules.alpha) if last else gate
    return found


def _hosts_file(root: Path, problems: list[Problem]) -> dict[str, HostFile]:
    """hosts.yaml: alias to machine; its entries replace those of golf.yaml."""
    if not (root / HOSTS).exists():
        return {}
    try:
        document = marks.read(_read(root / HOSTS, HOSTS), HOSTS)
    except InputErrors as error:
        problems += error.problems
        return {}
    model, found = validate(document, RootModel[dict[Id, HostFile]])
    problems += found
    return model.root if model else {}


def _hosts(root: Path, files: Mapping[str, HostFile]) -> dict[str, HostSpec]:
    hosts = {}
    for alias, item in ({"local": HostFile(kind="local")} | dict(files)).items():
        folder = item.root
        if item.kind == "local":
            folder = str((root / Path(item.root or f"{STATE}/host").expanduser()).absolute())
        values = item.model_dump() | {"root": folder or REMOTE_ROOT, "secret_env": tuple(item.secret_env)}
        hosts[alias] = HostSpec(alias=alias, **values)
    return hosts


def _contradictions(document: Document, campaign: Campaign) -> list[Problem]:
    found = []
    if campaign.base_name and campaign.base_name not in campaign.bases:
        message = f"unknown base {campaign.base_name!r}{did_you_mean(campaign.base_name, campaign.bases)}"
        found.append(document.problem(["base"], message if campaign.bases else f"{message}; bases/ is empty"))
    if campaign.host not in campaign.hosts:
        message = f"unknown host {campaign.host!r}{did_you_mean(campaign.host, campaign.hosts)}"
        found.append(document.problem(["host"], message))
    numbers = sorted(campaign.gates)
    if numbers != list(range(1, len(numbers) + 1)):
        said = ", ".join(map(str, numbers))
        found.append(document.problem(["gates"], f"are numbered {said}; they must be 1 to {len(numbers)}"))
    for number in campaign.budget.gate_usd:
        if number not in numbers:
            message = f"gate {number} is unknown; gates are {', '.join(map(str, numbers))}"
            found.append(document.problem(["budget", "gate_usd", number], message))
    for number, gate in campaign.gates.items():
        if gate.seeds > len(campaign.seeds):
            message = f"gate {number} needs {gate.seeds} seeds, {len(campaign.seeds)} are declared"
            found.append(document.problem(["gates", number, "seeds"], message))
    return found
