"""`golfctl gate` and `golfctl seeds`: spend only what was earned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from golfctl.cli import fail, output
from golfctl.cli.output import count
from golfctl.cli.queue import Wish, go
from golfctl.errors import InputError

if TYPE_CHECKING:
    from golfctl.domain.plan import ResolvedPlan
    from golfctl.store.campaign import Campaign

app = typer.Typer(help="Run plans through gates, see where they stand, waive a gate.", no_args_is_help=True)

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before runs are started.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would run, what it costs and how long it takes.")]
HostNames = Annotated[
    list[str] | None,
    typer.Option("--host", help="Alias from hosts.yaml or golf.yaml; may be repeated; default: the campaign's."),
]
FailFast = Annotated[bool, typer.Option("--fail-fast", help="Start nothing more once a gate has said no.")]
SlowOk = Annotated[bool, typer.Option("--slow-ok", help="Use a host although its speed probe says that it is slow.")]
Release = Annotated[
    bool, typer.Option("--release", help="When all is at home and verified, run each host's on_release command.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@app.command("run")
def gate_run(
    plans: Annotated[list[str] | None, typer.Argument(help="Plan ids; none: every plan that has a next gate.")] = None,
    through: Annotated[
        int | None, typer.Option(help="Stop after this gate; default: the last before the final one.")
    ] = None,
    host: HostNames = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    fail_fast: FailFast = False,
    slow_ok: SlowOk = False,
    release: Release = False,
    as_json: AsJson = False,
) -> None:
    """Run plans through their next gates. Continues what an earlier call started; nothing runs twice."""
    campaign = output.campaign()
    resolved = resolve(campaign, plans or [])
    wanted = in_order(resolved)
    fail.remind(campaign, wanted)
    last = through if through is not None else max(1, max(campaign.gates) - 1)
    go(campaign, resolved, wanted, last, Wish(host or [], yes, dry_run, as_json, fail_fast, slow_ok, release))


@app.command("status")
def gate_status(as_json: AsJson = False) -> None:
    """Where every plan stands: its last verdict and its next gate."""
    from golfctl.decide import next_gate
    from golfctl.store.status import open_state

    campaign = output.campaign()
    resolved = resolve(campaign, [], strict=False)
    state = open_state(campaign).seen_as(resolved)
    rows = []
    for plan in resolved.values():
        gate = next_gate(plan, state)
        said = [
            verdict for number in (item.number for item in plan.gates) if (verdict := state.verdict(plan.id, number))
        ]
        rows.append(
            {
                "plan": plan.id,
                "passed": [verdict.gate for verdict in said if verdict.answer == "PASS"],
                "waived": [item.number for item in plan.gates if state.waived(plan.id, item.number)],
                "next_gate": gate.number if gate else None,
                "last": f"gate {said[-1].gate} {said[-1].answer}: {said[-1].reason}" if said else "no verdict yet",
            }
        )
    if as_json:
        output.print_json(rows)
        return
    for row in rows:
        ahead = f"next gate {row['next_gate']}" if row["next_gate"] else "through all gates"
        waived = f"   waived: {row['waived']}" if row["waived"] else ""
        output.say(f"{row['plan']:<16} {ahead:<18} {row['last']}{waived}")


@app.command("waive")
def gate_waive(
    plan: Annotated[str, typer.Argument(help="Plan id.")],
    gate: Annotated[int, typer.Argument(help="Gate number.")],
    reason: Annotated[str, typer.Option(help="Why it may go on; recorded and shown for ever.")],
) -> None:
    """Let a plan go on although a gate said no. An overriding rule can't be waived."""
    from golfctl.domain.event import Type
    from golfctl.store.ledger import Ledger
    from golfctl.store.status import open_state

    campaign = output.campaign()
    reason = output.recorded("--reason", reason)
    state = open_state(campaign).seen_as(resolve(campaign, [plan]))
    revision, verdict = state.revision(plan), state.verdict(plan, gate)
    if revision is None or verdict is None:
        raise InputError(f"{plan}: gate {gate} has given no verdict; there is nothing to waive")
    if verdict.answer == "PASS":
        raise InputError(f"{plan}: gate {gate} said PASS; there is nothing to waive")
    if verdict.overriding:
        raise InputError(f"{plan}: gate {gate} failed an overriding rule, which can't be waived: {verdict.reason}")
    data = {"plan": plan, "revision": revision.number, "gate": gate, "reason": reason}
    Ledger(campaign.ledger_folder, campaign.state_folder).append(Type.WAIVER, data)
    output.say(f"{plan}: gate {gate} waived; it stays marked as such in every report")


def seeds(
    plan: Annotated[
        str | None, typer.Argument(help="Plan id; none: the one plan that is ready for its final gate.")
    ] = None,
    n: Annotated[int | None, typer.Option("--n", help="Number of seeds; must be what was declared.")] = None,
    host: HostNames = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    slow_ok: SlowOk = False,
    release: Release = False,
    as_json: AsJson = False,
) -> None:
    """Run the final gate of a plan: its declared seeds, one verdict."""
    from golfctl.decide import next_gate, ready_for_final
    from golfctl.store.status import open_state

    campaign = output.campaign()
    resolved = resolve(campaign, [plan] if plan else [])
    if plan is None:
        ready = ready_for_final(list(resolved.values()), open_state(campaign).seen_as(resolved))
        if len(ready) != 1:
            said = f"{len(ready)} plans are ready ({', '.join(ready)})" if ready else "no plan is ready"
            raise InputError(f"{said} for the final gate; name one, or see `golfctl gate status`")
        plan = ready[0]
    fail.remind(campaign, [plan])
    final = resolved[plan].gates[-1]
    if n is not None and n != final.seeds:
        raise InputError(
            f"{plan}: gate {final.number} declares {final.seeds} seeds, --n says {n}: choosing the number afterwards would cost "
            f"alpha; write `seeds: {n}` under gate {final.number} of the plan, which makes a new revision"
        )
    ahead = next_gate(resolved[plan], open_state(campaign).seen_as(resolved))
    if ahead is not None and ahead.number < final.number:
        raise InputError(f"{plan}: gate {ahead.number} comes first; `golfctl gate run {plan}`")
    wish = Wish(host or [], yes, dry_run, as_json, slow_ok=slow_ok, release=release)
    go(campaign, resolved, [plan], final.number, wish)


# --- shared ----------------------------------------------------------------------------------------------------------
def resolve(campaign: Campaign, wanted: list[str], strict: bool = True) -> dict[str, ResolvedPlan]:
    """The wanted plans (all when none is named) with their bundles worked out; those that change nothing are left out.

    strict: a broken plan file is an error; else it is named and left out, for commands that only look.
    Raises InputErrors with every problem, InputError for a wanted plan that changes nothing.
    """
    from golfctl.errors import InputErrors
    from golfctl.store.check import check

    findings = check(campaign, wanted)
    if findings.problems and strict:
        raise InputErrors(list(findings.problems))
    if findings.problems:
        files = sorted({problem.file for problem in findings.problems})
        output.note(f"left out: {', '.join(files)} ({count(len(findings.problems), 'problem')}: golfctl plan check)")
    if not findings.resolved:
        raise InputError(f"{campaign.name}: has no plans; write one with `golfctl plan new ID`")
    empty = [plan for plan in findings.resolved.values() if plan.bundle == plan.parent_bundle]
    if wanted and empty:
        raise InputError(f"{empty[0].id}: changes nothing against {empty[0].parent}; fill in its diffs first")
    return {plan.id: plan for plan in findings.resolved.values() if plan not in empty}


def in_order(resolved: dict[str, ResolvedPlan]) -> list[str]:
    """Plan ids, dependencies before dependents."""
    from graphlib import TopologicalSorter

    graph = {
        plan.id: [name for name in plan.stack if name in resolved and name != plan.id] for plan in resolved.values()
    }
    return list(TopologicalSorter(graph).static_order())
