"""Plans: a hypothesis, its diffs, and the gates it has to pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from golfctl.domain.gate import Gate


@dataclass(frozen=True)
class SetDiff:
    """Settings a plan changes: env-var name to value, as the text a process sees."""

    values: Mapping[str, str]


@dataclass(frozen=True)
class PatchDiff:
    """A unified diff, applied with `git apply` semantics. `path` is relative to the plans folder."""

    path: str


Diff = SetDiff | PatchDiff


@dataclass(frozen=True)
class Plan:
    """One plan file as read: what a person wrote, with gates still as differences from the campaign.

    expect: expected change, e.g. {"score": (-0.003, -0.002), "bytes": (-1500000, -1500000)}.
    gates: gate number to the differences from `golf.yaml`, already validated.
    not_a_repeat: what makes it different from the recorded failures it resembles.
    source: where the file is, for messages.
    """

    id: str
    title: str
    hypothesis: str
    base: str
    expect: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    risk: str = ""
    tags: tuple[str, ...] = ()
    depends_on: tuple[str, ...] = ()
    conflicts_with: tuple[str, ...] = ()
    diffs: tuple[Diff, ...] = ()
    fallback: tuple[Diff, ...] = ()
    seeds: tuple[int, ...] = ()
    gates: Mapping[int, Mapping[str, object]] = field(default_factory=dict)
    not_a_repeat: str = ""
    source: str = ""


@dataclass(frozen=True)
class ResolvedPlan:
    """A plan ready to run: code frozen, gates complete.

    bundle, parent_bundle, base_bundle: sha256 hex of the frozen folders. parent: the dependency's id, else the base.
    stack: ids of the plans whose diffs the bundle holds, in order of application, this plan last.
    digest: sha256 of everything a verdict depends on (bundle, seeds, gates); a change makes a new revision.
    """

    id: str
    title: str
    base: str
    bundle: str
    parent: str
    parent_bundle: str
    base_bundle: str
    stack: tuple[str, ...]
    seeds: tuple[int, ...]
    gates: tuple[Gate, ...]
    digest: str

    def gate(self, number: int) -> Gate:
        """The gate with this number. Raises KeyError if the campaign has none."""
        for gate in self.gates:
            if gate.number == number:
                return gate
        raise KeyError(number)

    def seeds_for(self, gate: Gate) -> tuple[int, ...]:
        """The first `gate.seeds` declared seeds."""
        return self.seeds[: gate.seeds]
