"""Money: what may be spent, what is under way, what was spent and what it bought."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from golfctl import budget
from golfctl.budget import Budget
from golfctl.domain.event import Event, Type
from golfctl.domain.host import HostSpec
from golfctl.domain.run import Outcome, RunRecord
from golfctl.domain.state import Revision, State
from golfctl.estimate import Estimate, estimate, seconds_per_run
from golfctl.store.campaign import load
from tests.golfctl import plankit
from tests.golfctl.factories import bundle, gates, plan, run

SMOKE, FULL, SCALE, FINAL = gates()
POD = HostSpec("local", slots=2, usd_per_hour=7200.0)
"""A dollar a second for each of its two slots."""


def state(runs: Iterable[RunRecord]) -> State:
    """These runs, and plan A as frozen against the base."""
    frozen = {"parent": "base", "parent_bundle": bundle("base"), "gates": [{"number": 1, "estimate_s": 60.0}]}
    found = State(runs={item.spec.name: item for item in runs})
    found.revisions["A"] = [Revision("A", 1, "digest-A", bundle("A"), frozen)]
    return found


def paid(record: RunRecord, usd: float, **changes: object) -> RunRecord:
    return replace(record, usd=usd, **changes)  # type: ignore[arg-type]  # fields of a run


def ahead(usd: float, own: dict[tuple[str, int], float]) -> Estimate:
    return Estimate(1, 10.0, usd, (), own)


@pytest.mark.parametrize(
    ("caps", "said"),
    [
        (Budget(usd=9.0), "the campaign: $5.00 spent and about $4.50 ahead exceed the cap of $9.00 (budget.usd"),
        (Budget(plan_usd=5.0), "A: $2.00 spent and about $3.50 ahead exceed the cap of $5.00 (budget.plan_usd"),
        (Budget(gate_usd={1: 4.0}), "A at gate 1: $2.00 spent and about $2.50 ahead exceed the cap of $4.00"),
        (Budget(usd=9.5, plan_usd=5.5, gate_usd={1: 4.5, 2: 1.0}), None),
        (Budget(), None),
    ],
)
def test_cap_refuses_what_would_pass_it(caps: Budget, said: str | None) -> None:
    """The base's runs count for the campaign alone; what fits to the cent is allowed."""
    known = state([paid(run("A", SMOKE), 2.0), paid(run("base", SMOKE), 3.0)])
    found = budget.refusal(caps, known, ahead(4.5, {("A", 1): 2.5, ("A", 2): 1.0}), {})
    assert found is None if said is None else found is not None and found.startswith(said)


def test_cap_counts_what_is_under_way() -> None:
    """Money that is being spent is spent: two calls side by side can't pass a cap together."""
    flying = replace(run("A", SMOKE, seed=42), outcome=None, result=None, wall_s=None)
    known = state([paid(run("A", SMOKE), 10.0), flying])
    coming = budget.under_way(known, {"local": POD})
    assert coming == {flying.spec.name: pytest.approx(10.0)}, "as long as the finished run took, at a dollar a second"
    said = budget.refusal(Budget(usd=24.0), known, ahead(5.0, {("A", 2): 5.0}), coming)
    assert said is not None
    assert "$10.00 spent, $10.00 under way and about $5.00 ahead exceed the cap of $24.00" in said


def test_under_way_without_finished_runs_takes_the_gates_estimate() -> None:
    """And a host that is no longer in the files has no price."""
    flying = replace(run("A", SMOKE), outcome=None, result=None, wall_s=None)
    assert list(budget.under_way(state([flying]), {"local": POD}).values()) == [pytest.approx(60.0)]
    assert list(budget.under_way(state([flying]), {}).values()) == [0.0]


def test_nothing_new_is_never_refused() -> None:
    """A campaign over its cap still brings home what it paid for."""
    known = state([paid(run("A", SMOKE), 99.0)])
    assert (
        budget.refusal(Budget(usd=1.0, plan_usd=1.0, gate_usd={1: 1.0}), known, Estimate(0, 0.0, 0.0, ()), {}) is None
    )


def test_estimate_tells_own_runs_from_reference_runs() -> None:
    """Gate 2 asks for one run of the plan and three of the base."""
    known = state([run("A", SMOKE)])
    found = estimate([plan("A")], 2, replace(known, verdicts={}), [POD])
    assert found.own == {("A", 1): 0.0, ("A", 2): pytest.approx(60.0)}
    assert found.usd == pytest.approx(4 * 60.0)


def test_estimate_learns_from_completed_runs_alone() -> None:
    """A run that was aborted after a second says nothing of how long the next one takes."""
    aborted = replace(run("A", SMOKE, outcome=Outcome.ABORTED), wall_s=1.0)
    assert seconds_per_run(SMOKE, state([aborted])) == (SMOKE.estimate_s, False)
    assert seconds_per_run(SMOKE, state([aborted, run("A", SMOKE, seed=42)])) == (10.0, True)


def test_cost_accounts_for_every_dollar() -> None:
    """Gates, owners and hosts each add up to the whole; lost runs and aborts are told apart."""
    known = state(
        [
            paid(run("A", SMOKE), 1.0),
            paid(run("A", FULL, outcome=Outcome.LOST), 0.5),
            paid(run("A", FULL, seed=42, outcome=Outcome.ABORTED), 0.25, saved_usd=2.0),
            paid(run("base", FULL), 4.0),
        ]
    )
    found = budget.cost(known, {"local": POD}, {"local": 10.0}, Budget(usd=10.0, plan_usd=3.0))
    assert (found.total.runs, found.total.usd, found.total.wasted_usd, found.total.saved_usd) == (4, 5.75, 0.5, 2.0)
    assert found.left_usd == 4.25
    assert [(row.name, row.usd) for row in found.gates] == [("gate 1", 1.0), ("gate 2", 4.75)]
    assert [(item.row.name, item.row.usd, item.left_usd) for item in found.plans] == [("A", 1.75, 1.25)]
    assert [(row.name, row.usd) for row in found.owners] == [("base", 4.0)]
    assert [item.idle_usd for item in found.hosts] == [pytest.approx(10 * 2.0 - 5.75)]


def test_cost_of_one_plan_leaves_the_others_out() -> None:
    """Its own runs, its own cap; a machine's idle time belongs to no plan."""
    known = state([paid(run("A", SMOKE), 1.0), paid(run("B", SMOKE), 7.0), paid(run("base", FULL), 4.0)])
    found = budget.cost(known, {"local": POD}, {"local": 10.0}, Budget(usd=10.0, plan_usd=3.0), "A")
    assert (found.total.usd, found.cap_usd, found.left_usd) == (1.0, 3.0, 2.0)
    assert (found.owners, found.hosts[0].idle_usd) == ((), None)


def test_cost_says_one_thing_of_a_plans_cap() -> None:
    """What is under way counts in the plan's line among all as in the plan's own: for its own runs, and for those alone."""
    flying = [
        replace(run(owner, SMOKE, seed=42), outcome=None, result=None, wall_s=None) for owner in ("A", "B", "base")
    ]
    known = state([paid(run("A", SMOKE), 1.0), *flying])
    caps = Budget(plan_usd=60.0)
    whole, alone = (budget.cost(known, {"local": POD}, {}, caps, only) for only in (None, "A"))
    assert whole.plans[0].left_usd == alone.left_usd == alone.plans[0].left_usd == pytest.approx(60.0 - 1.0 - 10.0)


def test_gain_is_priced_at_the_highest_gate_both_sides_ran() -> None:
    """0.02 bpb for 6 dollars are 30 cents per 0.001; the gate below said something else."""
    runs = [paid(run("A", FULL, score=2.5), 2.0), run("base", FULL, score=2.4)]
    runs += [paid(run("A", SCALE, score=1.98), 4.0), run("base", SCALE, score=2.0)]
    found = budget.cost(state(runs), {}, {}, Budget()).plans[0]
    assert found.gain is not None
    assert (found.gain.gate, found.gain.bpb) == (3, pytest.approx(0.02))
    assert found.usd_per_mbpb == pytest.approx(0.3)


def test_gain_needs_comparable_scores() -> None:
    """A loss has no price, and scores of two metric versions have no difference."""
    worse = budget.cost(state([run("A", FULL, score=2.1), run("base", FULL)]), {}, {}, Budget()).plans[0]
    assert (worse.gain is not None, worse.usd_per_mbpb) == (True, None)
    other = [run("A", FULL, score=1.0), run("base", FULL, changes={"metric_version": 2})]
    assert budget.cost(state(other), {}, {}, Budget()).plans[0].gain is None


def test_held_seconds_are_the_union_of_launch_to_home() -> None:
    """Two runs side by side hold the machine once; where another machine's clock recorded an end, nothing is known."""
    runs = [run("A", SMOKE, seed=seed) for seed in (1, 2, 3, 4)]

    def seen(record: RunRecord, start: int, end: int, by: str = "m000001") -> list[Event]:
        def at(second: int, kind: Type, data: dict[str, object], machine: str) -> Event:
            return Event(machine, 1, "", f"2026-01-01T00:00:{second:02d}Z", kind, data)

        first = at(start, Type.RUN_INTENT, {"spec": asdict(record.spec)}, "m000001")
        return [first, at(end, Type.RUN_FINISHED, {"run": record.spec.name}, by)]

    events = [*seen(runs[0], 0, 10), *seen(runs[1], 5, 12), *seen(runs[2], 20, 25)]
    assert budget.held_seconds(events, state(runs)) == {"local": pytest.approx(17.0)}
    assert budget.held_seconds([*events, *seen(runs[3], 30, 59, "m000002")], state(runs)) == {}


def test_campaign_reads_caps_and_knows_its_gates(tmp_path: Path) -> None:
    """A cap on a gate that does not exist would protect nothing."""
    caps = "budget: {usd: 50, plan_usd: 20.5, gate_usd: {3: 5}}\n"
    assert plankit.make(tmp_path, plankit.GOLF + caps).budget == Budget(50.0, 20.5, {3: 5.0})
    (tmp_path / "golf.yaml").write_text(plankit.GOLF + "budget: {gate_usd: {4: 5}}\n")
    assert plankit.refusals(load, tmp_path) == [
        "golf.yaml:8:24 budget.gate_usd.4: gate 4 is unknown; gates are 1, 2, 3"
    ]
