"""`golfctl plan`: write, check, list, show plans, and fall back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from golfctl.cli import fail, output, planmove
from golfctl.errors import InputErrors

if TYPE_CHECKING:
    from golfctl.domain.gate import Gate
    from golfctl.domain.plan import Plan, ResolvedPlan
    from golfctl.store.campaign import Campaign
    from golfctl.store.check import Findings

app = typer.Typer(help="Write, check and inspect plan files.", no_args_is_help=True)
app.command("rebase")(planmove.plan_rebase)
app.command("retire")(planmove.plan_retire)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
PlanId = Annotated[str, typer.Argument(help="Plan id.")]


@app.command("new")
def plan_new(
    plan_id: PlanId,
    title: Annotated[str, typer.Option(help="The idea in one line.")] = "What changes, and what it buys",
    base: Annotated[str | None, typer.Option(help="Base it builds on; default: that of golf.yaml.")] = None,
    depends_on: Annotated[list[str] | None, typer.Option(help="A plan it builds on; may be repeated.")] = None,
) -> None:
    """Write a commented plan file that passes the check."""
    from golfctl.store.revise import new_plan

    campaign = output.campaign()
    path = new_plan(campaign, plan_id, title, base, depends_on or [])
    output.say(f"{campaign.relative(path)} written. Next: fill it in, then golfctl plan check {plan_id}")
    found = fail.resembling(campaign, campaign.read_plans()[0], [plan_id])
    for item in found:
        output.say(f"It {item.told}")
    if any(item.open for item in found):
        output.say("As it stands, `not_a_repeat:` in its file must say what is different before its first run.")


@app.command("check")
def plan_check(
    plans: Annotated[list[str] | None, typer.Argument(help="Plan ids; default: all.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Check plans, their stacks, patches and settings.

    Every problem of every file is told at once; stacks, patches and settings are looked at where the files are sound. Exit 2 if
    anything is wrong.
    """
    from dataclasses import asdict

    from golfctl.store.check import check
    from golfctl.store.deadends import unanswered

    campaign = output.campaign()
    findings = check(campaign, plans or [])
    repeats = fail.resembling(campaign, findings.plans, findings.resolved)
    problems = [*findings.problems, *unanswered(repeats, findings.plans)]
    notes = [*findings.notes, *_foretold(campaign, findings), *(f"{item.plan}: {item.told}" for item in repeats)]
    if as_json:
        output.print_json(
            {
                "ok": not problems,
                "plans": sorted(findings.resolved),
                "problems": [asdict(problem) for problem in problems],
                "notes": notes,
                "resembles": [asdict(item) for item in repeats],
            }
        )
    for text in notes:
        output.note(f"note: {text}")
    if problems:
        raise InputErrors(problems)
    if not as_json:
        count = len(findings.resolved)
        output.say(f"{count} plan{'' if count == 1 else 's'} checked: no problems")


def _foretold(campaign: Campaign, findings: Findings) -> list[str]:
    """What plans will weigh and how many steps they will get, as far as finished runs tell."""
    from golfctl.errors import LedgerError
    from golfctl.store.pace import pace_notes
    from golfctl.store.projection import byte_notes
    from golfctl.store.status import open_state

    if findings.problems:
        return []
    try:
        state = open_state(campaign)
    except LedgerError:
        return ["sizes and steps are not projected: the ledger is damaged (golfctl ledger verify)"]
    told = (campaign, findings.plans, findings.resolved, state)
    return [*byte_notes(*told), *pace_notes(*told)]


@app.command("list")
def plan_list(
    as_json: JsonOption = False,
    everything: Annotated[bool, typer.Option("--all", help="Also the retired ones, with the reason.")] = False,
) -> None:
    """Every plan: id, base, dependencies, where it stands, title. Broken files are named on standard error."""
    from dataclasses import asdict

    from golfctl.cli.report import build
    from golfctl.store.retire import retired

    campaign = output.campaign()
    plans, _, problems = campaign.read_plans()
    status = {row.id: row.status for row in build(campaign, None, as_written=True).plans}
    gone = retired(campaign) if everything else []
    if as_json:
        rows = [_row(plan) | {"status": status.get(plan.id, "")} for plan in plans.values()]
        output.print_json(rows + [asdict(item) | {"status": "retired"} for item in gone])
    elif plans:
        _table(list(plans.values()), status)
    else:
        output.note("no plans; write one with `golfctl plan new ID`")
    for item in [] if as_json else gone:
        output.say(f"{item.id}  retired {item.when[:10] or 'some day'}: {item.why}")
    if problems:
        raise InputErrors(problems)


def _row(plan: Plan) -> dict[str, Any]:
    return {
        "id": plan.id,
        "title": plan.title,
        "base": plan.base,
        "depends_on": list(plan.depends_on),
        "tags": list(plan.tags),
        "file": plan.source,
    }


def _table(plans: list[Plan], status: dict[str, str]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("id", "base", "depends on", "stands at", "title"):
        table.add_column(heading, overflow="fold")
    for plan in plans:
        table.add_row(plan.id, plan.base, ", ".join(plan.depends_on) or "-", status.get(plan.id, ""), plan.title)
    output.console().print(table)


@app.command("show")
def plan_show(plan_id: PlanId, as_json: JsonOption = False) -> None:
    """One plan, resolved: its stack, what it changes, its gates, its bundle. Writes nothing."""
    from golfctl.store.check import check

    campaign = output.campaign()
    findings = check(campaign, [plan_id])
    if findings.problems:
        raise InputErrors(list(findings.problems))
    plan, resolved = findings.plans[plan_id], findings.resolved[plan_id]
    changes = _changes(campaign, findings.plans, resolved)
    if as_json:
        output.print_json(_as_data(plan, resolved, changes))
        return
    output.say(f"{plan.id}: {plan.title}")
    output.say(f"  base    {plan.base}   stack {' -> '.join(resolved.stack)}   compared with {resolved.parent}")
    output.say(f"  bundle  {resolved.bundle[:16]}   parent {resolved.parent_bundle[:16]}")
    output.say(f"  seeds   {' '.join(map(str, resolved.seeds))}")
    for name, (before, after, owner) in changes.items():
        output.say(f"  set     {name}: {before} -> {after}   ({owner})")
    for owner in resolved.stack:
        for diff in findings.plans[owner].diffs:
            if path := getattr(diff, "path", None):
                output.say(f"  patch   {path}   ({owner})")
    for gate in resolved.gates:
        output.say(f"  gate {gate.number}  {_gate_line(gate)}")


def _changes(campaign: Campaign, plans: Any, resolved: ResolvedPlan) -> dict[str, tuple[str, str, str]]:
    """Setting to (value before, value after, plan that changes it), over the whole stack."""
    from golfctl.store import bases

    base = bases.load(campaign, resolved.base)
    defaults = {name: item.default for name, item in base.variables(base.tree).items()}
    found = {}
    for owner in resolved.stack:
        for diff in plans[owner].diffs:
            for name, value in getattr(diff, "values", {}).items():
                before = base.settings.get(name) or defaults.get(name) or "new"
                found[name] = (before, value, owner)
    return found


def _as_data(plan: Plan, resolved: ResolvedPlan, changes: dict[str, tuple[str, str, str]]) -> dict[str, Any]:
    from dataclasses import asdict

    gates = [{**asdict(gate), "require": [str(item) for item in gate.require]} for gate in resolved.gates]
    return {
        **_row(plan),
        "hypothesis": plan.hypothesis,
        "expect": plan.expect,
        "stack": resolved.stack,
        "parent": resolved.parent,
        "bundle": resolved.bundle,
        "parent_bundle": resolved.parent_bundle,
        "base_bundle": resolved.base_bundle,
        "digest": resolved.digest,
        "seeds": resolved.seeds,
        "settings": {name: {"before": old, "after": new, "plan": owner} for name, (old, new, owner) in changes.items()},
        "gates": gates,
    }


def _gate_line(gate: Gate) -> str:
    parts = [
        f"{gate.name:<8} {gate.kind:<9} {gate.processes} process{'es' if gate.processes > 1 else ''}, {gate.seeds} seed"
    ]
    parts[0] += "s" if gate.seeds > 1 else ""
    parts += [str(item) for item in gate.require]
    parts += [f"{name}={value}" for name, value in gate.env.items()]
    if gate.seeds > 1 or gate.kind == "versus":
        parts.append(f"alpha {gate.alpha:g}, {gate.looks} look{'s' if gate.looks > 1 else ''}")
    if gate.overriding:
        parts.append("overriding")
    return "; ".join(parts)


@app.command("schema")
def plan_schema() -> None:
    """Print the JSON Schema of plan files, for editors."""
    from golfctl.store.init import schema_text

    output.say(schema_text().rstrip("\n"))


@app.command("fallback")
def plan_fallback(plan_id: PlanId) -> None:
    """Make a plan's fallback its diffs: a new revision. The former text is kept under plans/old/."""
    from golfctl.store.revise import use_fallback

    campaign = output.campaign()
    path, kept = use_fallback(campaign, plan_id)
    output.say(f"{campaign.relative(path)} now holds its fallback; before: {campaign.relative(kept)}")


@app.command("next")
def plan_next(
    plans: Annotated[list[str] | None, typer.Argument(help="Plan ids; default: all.")] = None,
    host: Annotated[list[str] | None, typer.Option("--host", help="Alias; may be repeated.")] = None,
) -> None:
    """Print what `gate run` would do next and why; does nothing."""
    from golfctl.cli.gate import in_order, resolve
    from golfctl.cli.live import Live
    from golfctl.cli.queue import chosen, on_device
    from golfctl.runner import Runner

    campaign = output.campaign()
    specs = chosen(campaign, host or [])
    resolved = on_device(resolve(campaign, plans or [], strict=False), specs[0].gpu)
    fail.remind(campaign, resolved, strict=False)
    runner = Runner(campaign, [spec.alias for spec in specs], Live(output.console(), campaign.hosts))
    last = max(campaign.gates)
    try:
        for action in runner.next_actions(resolved, in_order(resolved), last):
            output.say(f"{type(action).__name__.lower():<7} {action.why}")
    finally:
        runner.close()
