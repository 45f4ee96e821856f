"""Small builders of domain objects, so that a test states only what it is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from golfctl.domain.gate import Gate, Kind, Requirement
from golfctl.domain.plan import ResolvedPlan
from golfctl.domain.run import Outcome, RunRecord, RunResult, RunSpec

SEEDS = (1337, 42, 2025)


def gate(number: int = 1, kind: Kind = Kind.THRESHOLD, **changes: object) -> Gate:
    """A gate; its environment differs by number, so that gates have different shapes."""
    values: dict[str, object] = {
        "number": number,
        "name": f"g{number}",
        "kind": kind,
        "env": {"ITERATIONS": str(number)},
    }
    return Gate(**(values | changes))  # type: ignore[arg-type]


def gates() -> tuple[Gate, ...]:
    """Smoke, versus, scale, final; the last two share a shape."""
    target = Requirement("score", "<=", -0.05, "base")
    shared = {"processes": 2, "env": {"ITERATIONS": "9"}}
    return (
        gate(1),
        gate(2, Kind.VERSUS),
        gate(3, require=(target,), **shared),
        gate(4, require=(target,), seeds=3, alpha=0.01, **shared),
    )


def plan(
    plan_id: str = "A", parent: str = "base", stack: Sequence[str] | None = None, **changes: object
) -> ResolvedPlan:
    """A plan on `base`, with a bundle hash made of its id."""
    values: dict[str, object] = {
        "id": plan_id,
        "title": f"plan {plan_id}",
        "base": "base",
        "bundle": bundle(plan_id),
        "parent": parent,
        "parent_bundle": bundle(parent),
        "base_bundle": bundle("base"),
        "stack": tuple(stack or (plan_id,)),
        "seeds": SEEDS,
        "gates": gates(),
        "digest": f"digest-{plan_id}",
    }
    return ResolvedPlan(**(values | changes))  # type: ignore[arg-type]


def bundle(owner: str) -> str:
    """A stand-in for a bundle's sha256."""
    return (owner.encode().hex() * 64)[:64]


def result(score: float | None = 2.0, **changes: object) -> RunResult:
    """A complete, comparable result."""
    values: dict[str, object] = {
        "score": score,
        "val_loss": score,
        "step_avg_ms": 50.0,
        "code_bytes": 1000,
        "model_bytes": 2000,
        "artifact_bytes": 3000,
        "metric_version": 1,
        "data": "d" * 64,
    }
    return RunResult(**(values | changes))  # type: ignore[arg-type]


def spec(owner: str, at: Gate, seed: int = 1337, attempt: int = 1) -> RunSpec:
    """What a run of this owner under this gate would be."""
    name = f"{owner}.g{at.number}.s{seed}.a{attempt}"
    return RunSpec(name, owner, bundle(owner), at.number, seed, attempt, "local", at.shape, at.processes)


def run(
    owner: str,
    at: Gate,
    seed: int = 1337,
    score: float | None = 2.0,
    outcome: Outcome = Outcome.COMPLETED,
    reason: str = "",
    attempt: int = 1,
    changes: Mapping[str, object] | None = None,
) -> RunRecord:
    """A finished run."""
    made = result(score, **(changes or {})) if outcome is Outcome.COMPLETED else None
    return RunRecord(spec(owner, at, seed, attempt), "m000001", True, outcome, reason, made, wall_s=10.0)


def runs(owner: str, at: Gate, scores: Sequence[float]) -> list[RunRecord]:
    """One finished run for each of the first seeds."""
    return [run(owner, at, seed, score) for seed, score in zip(SEEDS, scores, strict=False)]
