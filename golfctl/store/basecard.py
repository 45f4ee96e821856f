"""What can be said about a base: its card, the variables it reads, and its own runs, which every plan is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from golfctl import stats
from golfctl.domain.plan import Plan
from golfctl.domain.run import Outcome, RunRecord
from golfctl.domain.state import State
from golfctl.judge import latest
from golfctl.store.bases import LAUNCHER_VARS, Base

if TYPE_CHECKING:
    from golfctl.store.campaign import Campaign


@dataclass(frozen=True)
class Mean:
    """A metric over the runs that state it; sd None for one run."""

    n: int
    mean: float
    sd: float | None


@dataclass(frozen=True)
class RunsAt:
    """Finished runs of a base that are comparable: one gate's number (the first that asked), processes, model of GPU, settings.

    started counts seeds, newest attempts only; score in bpb, times in ms, sizes in bytes; None: no run states it.
    """

    gate: int
    processes: int
    env: Mapping[str, str]
    started: int
    score: Mean | None
    step_avg_ms: Mean | None
    artifact_bytes: Mean | None


@dataclass(frozen=True)
class EnvRow:
    """One variable a base reads. default: source text; base: the value the base sets; plans: plan id to the value it sets."""

    name: str
    default: str | None
    file: str
    line: int
    required: bool
    base: str | None
    plans: Mapping[str, str]
    role: str | None


def finished_runs(state: State, base: str) -> list[RunsAt]:
    """Runs of the base itself, by what makes them comparable, in order of gates. Repeated and withdrawn attempts do not count."""
    groups: dict[tuple[int, str], list[RunRecord]] = {}
    for run in state.runs.values():
        if run.spec.owner == base and run.finished and not run.to_repeat:
            groups.setdefault((run.spec.processes, run.spec.shape), []).append(run)
    found = []
    for runs in groups.values():
        newest = latest(runs)
        first = newest[0].spec
        seed_and_paths = {name for name, value in first.env.items() if value in {"{out}", "{data}", str(first.seed)}}
        env = {name: value for name, value in first.env.items() if name not in seed_and_paths}
        means = [_mean(newest, metric) for metric in ("score", "step_avg_ms", "artifact_bytes")]
        found.append(RunsAt(min(run.spec.gate for run in newest), first.processes, env, len(newest), *means))
    return sorted(found, key=lambda item: (item.gate, item.processes))


def _mean(runs: list[RunRecord], metric: str) -> Mean | None:
    completed = [run.result for run in runs if run.outcome is Outcome.COMPLETED and run.result]
    values = [value for result in completed if (value := result.metric(metric)) is not None]
    if not values:
        return None
    sample = stats.summarise(values)
    return Mean(sample.n, sample.mean, sample.sd)


def plans_on(campaign: Campaign, base: str) -> list[Plan]:
    """Plans that build on a base, as far as their files can be read."""
    return [plan for plan in campaign.read_plans()[0].values() if plan.base == base]


def variables(campaign: Campaign, base: Base, pattern: str = "*") -> list[EnvRow]:
    """Variables of the base whose name matches the glob (case does not matter), in order of files and lines."""
    setters: dict[str, dict[str, str]] = {}
    for plan in plans_on(campaign, base.name):
        for diff in plan.diffs:
            for name, value in getattr(diff, "values", {}).items():
                setters.setdefault(name, {})[plan.id] = value
    roles = {name: role for role, name in base.vars.items()}
    rows = [
        EnvRow(
            name=name,
            default=item.default,
            file=item.file,
            line=item.line,
            required=item.required,
            base=base.settings.get(name),
            plans=setters.get(name, {}),
            role=roles.get(name),
        )
        for name, item in base.variables(base.tree).items()
        if fnmatchcase(name.casefold(), pattern.casefold())
    ]
    return sorted(rows, key=lambda row: (row.file, row.line, row.name))


def remarks(base: Base) -> list[str]:
    """What the list of variables can't say: names that are computed, packed sources, variables of the launcher."""
    found = []
    for path, reads in base.reads(base.tree).items():
        if reads.packed:
            found.append(reads.packed)
        if reads.closed:
            found.append(f"list the variables it reads as `env: [NAME, ...]` in bases/{base.name}.yaml")
        if reads.computed and base.kind == "script":
            lines = ", ".join(f"{path}:{line}" for line in reads.computed)
            found.append(f"names computed at run time, which can't be listed: {lines}")
        launcher = sorted(item.name for item in reads.variables if item.name in LAUNCHER_VARS)
        if launcher and base.kind == "script":
            found.append(f"set by the launcher, not by plans: {', '.join(launcher)}")
    return found


def effective(base: Base, name: str) -> str | None:
    """The value a variable has on the base if no plan sets it, as far as its source text shows: literals only."""
    if name in base.settings:
        return base.settings[name]
    item = base.variables(base.tree).get(name)
    return as_value(item.default) if item else None


def as_value(default: str | None) -> str | None:
    """The text a process would see for a default given as source text; None if it is no literal."""
    import ast

    try:
        value = ast.literal_eval(default or "")
    except (ValueError, SyntaxError):
        return None
    if isinstance(value, bool):
        return "1" if value else "0"
    return str(value) if isinstance(value, str | int | float) else None


def same_value(one: str | None, other: str | None) -> bool:
    """Whether two texts are one value: equal, or equal as numbers (`1e-3` and `0.001`). None equals nothing."""
    if one is None or other is None:
        return False
    if one == other:
        return True
    try:
        return float(one) == float(other)
    except ValueError:
        return False
