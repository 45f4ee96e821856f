"""From an action to what a host is told to run."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

from golfctl.decide import Launch
from golfctl.domain.gate import Gate
from golfctl.domain.host import HostSpec
from golfctl.domain.plan import ResolvedPlan
from golfctl.domain.run import Outcome, RunSpec
from golfctl.domain.state import State
from golfctl.store import bases, bundle
from golfctl.store.bases import Base
from golfctl.store.campaign import Campaign

RULE_AFTER_STEP = 20
"""A step-time rule looks away while caches are cold,"""
RULE_WINDOW = 20
"""and then judges the mean over so many steps: one slow step kills no run."""
BLOW_UP = {"factor": 1.5, "after_step": 20}
SYSTEM_VARIABLES = frozenset({"PATH", "HOME", "USER", "TMPDIR", "LANG", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES"})
"""Left to the host even if the code reads them; every other variable the code reads is set by us or absent."""


def specify(
    campaign: Campaign,
    host: HostSpec,
    action: Launch,
    plan: ResolvedPlan,
    state: State,
    witness: Mapping[str, str],
    machine: str,
) -> RunSpec:
    """The run an action asks for, under a name no run had: `machine`, our name in this campaign's ledger, is part of it."""
    base, gate = bases.load(campaign, plan.base), action.gate
    stem, end = (
        f"{action.owner}.g{gate.number}.s{action.seed}",
        f"{action.bundle[:8]}-{gate.shape[:4]}-{machine.removeprefix('m')}",
    )
    attempt = action.attempt
    while f"{stem}.a{attempt}.{end}" in state.runs:
        attempt += 1
    template = base.launch if gate.processes == 1 else base.launch_many
    settings = bundle.settings_of(campaign, action.bundle)
    env = {**settings, **gate.env, base.vars["seed"]: str(action.seed), base.vars["out"]: "{out}"}
    reads = base.variables(bundle.tree_of(campaign, action.bundle))
    if host.data and base.vars["data"] in reads:
        env.setdefault(base.vars["data"], "{data}")
    cap = campaign.rules.artifact_cap_bytes - bundle.code_bytes_of(campaign, action.bundle, base)
    ratio = step_ratio(plan, gate, state, base)
    return RunSpec(
        name=f"{stem}.a{attempt}.{end}",
        owner=action.owner,
        bundle=action.bundle,
        gate=gate.number,
        seed=action.seed,
        attempt=attempt,
        host=action.host,
        shape=gate.shape,
        processes=gate.processes,
        # {python} is filled on the host: the ledger is published and names no folder of anybody's machine
        argv=tuple(word.replace("{processes}", str(gate.processes)) for word in template),
        env=env,
        rules=rules(gate, ratio, {"globs": list(base.artifact), "max_bytes": cap}),
        unset=tuple(sorted(set(reads) - set(env) - SYSTEM_VARIABLES - set(host.secret_env))),
        witness=dict(witness),
        campaign=campaign.name,
    )


def step_ratio(plan: ResolvedPlan, gate: Gate, state: State, base: Base) -> float | None:
    """How much longer a step of the base takes on this gate's GPUs than on those its step-time rule speaks of.

    1.0 where they are the same; None where the base was not measured on both (medians over its completed runs at gates of this
    plan that differ in the number of processes and the length of the run only).
    """
    if gate.at_gpus in {None, gate.processes}:
        return 1.0
    length = {base.vars["iterations"], base.vars["seconds"]}

    def settings(other: Gate) -> tuple[str, dict[str, str]]:
        return other.device, {name: value for name, value in other.env.items() if name not in length}

    alike = {other.shape for other in plan.gates if settings(other) == settings(gate)}
    times: dict[int, list[float]] = {}
    for run in state.runs.values():
        measured = run.result.step_avg_ms if run.result else None
        counts = run.outcome is Outcome.COMPLETED and not run.to_repeat and run.spec.shape in alike
        if run.spec.bundle == plan.base_bundle and counts and measured:
            times.setdefault(run.spec.processes, []).append(measured)
    here, there = times.get(gate.processes), times.get(gate.at_gpus or 0)
    return median(here) / median(there) if here and there else None


def rules(gate: Gate, ratio: float | None, artifact: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What the host enforces while the run goes on; a step-time rule only where it can be scaled to this many processes."""
    found: dict[str, Any] = {
        "wallclock_s": gate.wallclock_s,
        "stall_s": gate.stall_s,
        "frozen_s": min(gate.stall_s, 60.0),
        "nan": True,
        "blow_up": BLOW_UP,
        "memory_errors": True,
        "nccl_errors": True,
        "limits": [],
    }
    if artifact and artifact["max_bytes"] > 0:
        found["artifact"] = dict(artifact)
    for item in gate.require:
        if item.metric == "step_avg_ms" and gate.overriding and ratio is not None and item.operator in {"<=", "<"}:
            limit = {"metric": "step_avg_ms", "max": item.value, "after_step": RULE_AFTER_STEP, "window": RULE_WINDOW}
            if ratio != 1.0:
                limit |= {"scale": ratio, "at_gpus": gate.at_gpus}
            found["limits"].append(limit)
    return found
