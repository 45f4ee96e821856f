"""`golfctl base show`, `env`, `diff`: what is known of a base, what it reads, what differs between two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from golfctl.cli import output

if TYPE_CHECKING:
    from golfctl.store.basecard import EnvRow, Mean, RunsAt
    from golfctl.store.basediff import Change, FileChange

BaseName = Annotated[str, typer.Argument(help="Name of a base.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def base_show(name: BaseName, as_json: AsJson = False) -> None:
    """One base: how it is launched and judged, which plans build on it, what its own runs measured."""
    from golfctl.store import basecard, bases
    from golfctl.store.status import open_state

    campaign = output.campaign()
    base = bases.load(campaign, name)
    runs = basecard.finished_runs(open_state(campaign), name)
    code_bytes = sum(len(base.tree.files[path].content) for path in base.tree.matching(base.code))
    card: dict[str, Any] = {
        "name": base.name,
        "kind": base.kind,
        "sha256": base.sha256,
        "current": base.name == campaign.base_name,
        "launch": list(base.launch),
        "launch_many": list(base.launch_many),
        "vars": dict(base.vars),
        "vars_not_read": base.unread_roles() if base.kind == "script" else {},
        "artifact": list(base.artifact),
        "code": base.tree.matching(base.code),
        "code_bytes": code_bytes,
        "score_label": base.score_label,
        "settings": dict(base.settings),
        "variables": len(base.variables(base.tree)),
        "plans": [plan.id for plan in basecard.plans_on(campaign, name)],
        "notes": basecard.remarks(base),
    }
    if as_json:
        output.print_json(card | {"runs": [_as_data(item) for item in runs]})
        return
    _card(card)
    for item in runs:
        output.say(f"  runs     gate {item.gate}: {_measured(item)}")
    if not runs:
        output.say("  runs     none yet")
    for text in card["notes"]:
        output.note(f"note: {text}")


def _card(card: dict[str, Any]) -> None:
    current = ", the base of golf.yaml" if card["current"] else ""
    output.say(f"{card['name']}: {card['kind']}, {card['sha256'][:12]}{current}")
    output.say(f"  launch   {' '.join(card['launch'])}")
    output.say(f"  or       {' '.join(card['launch_many'])}")
    unread = card["vars_not_read"]
    roles = [f"{role} {name}{' (not read)' if role in unread else ''}" for role, name in card["vars"].items()]
    output.say(f"  vars     {', '.join(roles)}")
    output.say(f"  artifact {', '.join(card['artifact'])}")
    files = ", ".join(card["code"]) if len(card["code"]) <= 4 else f"{len(card['code'])} files"
    output.say(f"  code     {files}: {card['code_bytes']:,} bytes counted")
    output.say(f"  score    {card['score_label']}")
    output.say(f"  reads    {output.count(card['variables'], 'variable')} (golfctl base env {card['name']})")
    if card["settings"]:
        output.say(f"  set      {', '.join(f'{key}={value}' for key, value in card['settings'].items())}")
    output.say(f"  plans    {', '.join(card['plans']) or 'none'}")


def _as_data(item: RunsAt) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(item)


def _measured(item: RunsAt) -> str:
    parts = [f"{item.processes} process{'' if item.processes == 1 else 'es'}", _score(item.score, item.started)]
    if item.step_avg_ms:
        parts.append(f"step {item.step_avg_ms.mean:.1f} ms")
    if item.artifact_bytes:
        parts.append(f"artifact {item.artifact_bytes.mean:,.0f} bytes")
    return "; ".join(parts)


def _score(score: Mean | None, started: int) -> str:
    if score is None:
        return f"no score (n 0 of {started})"
    sd = f"sd {score.sd:.4f}, " if score.sd is not None else ""
    return f"score {score.mean:.4f} ({sd}n {score.n} of {started})"


def base_env(
    name: BaseName,
    pattern: Annotated[str, typer.Argument(help="Only names like this, e.g. '*_LR'; case does not matter.")] = "*",
    as_json: AsJson = False,
) -> None:
    """Every variable a base reads: where, its default, and which plans set it. Read from its source, which is not run."""
    from dataclasses import asdict

    from golfctl.store import basecard, bases

    campaign = output.campaign()
    base = bases.load(campaign, name)
    rows = basecard.variables(campaign, base, pattern)
    notes = basecard.remarks(base)
    if as_json:
        output.print_json({"base": name, "variables": [asdict(row) for row in rows], "notes": notes})
        return
    _env_table(rows)
    if not rows:
        output.note(f"{name}: reads no variable like {pattern!r}")
    for text in notes:
        output.note(f"note: {text}")


def _env_table(rows: Sequence[EnvRow]) -> None:
    place = max((len(f"{row.file}:{row.line}") for row in rows), default=0)
    wide = max((len(row.name) for row in rows), default=0)
    for row in rows:
        default = "required" if row.required else "no default" if row.default is None else row.default
        said = [f"base sets {row.base}"] if row.base is not None else []
        said += [f"{plan} sets {value}" for plan, value in row.plans.items()]
        said += [f"the {row.role}"] if row.role else []
        end = f"   ({'; '.join(said)})" if said else ""
        output.say(f"{f'{row.file}:{row.line}':<{place}}  {row.name:<{wide}}  {default}{end}")


def base_diff(
    before: Annotated[str, typer.Argument(help="Name of the one base.")],
    after: Annotated[str, typer.Argument(help="Name of the other.")],
    code: Annotated[bool, typer.Option("--code", help="Also print the unified diff of the code.")] = False,
    as_json: AsJson = False,
) -> None:
    """What differs between two bases: launch and score, settings, variables with their defaults, code."""
    from dataclasses import asdict

    from golfctl.store import basediff, bases

    campaign = output.campaign()
    found = basediff.compare(bases.load(campaign, before), bases.load(campaign, after))
    if as_json:
        output.print_json({"before": before, "after": after} | asdict(found))
        return
    for change in found.fields:
        output.say(f"{change.name}: {change.before or 'none'} -> {change.after or 'none'}")
    for change in found.settings:
        output.say(f"set {change.name}: {_side(change.before)} -> {_side(change.after)}")
    for change in found.variables:
        output.say(_variable(change))
    for item in found.files:
        output.say(_file(item))
        if code:
            output.say(item.text.rstrip("\n"))
    if found.empty:
        output.say(f"{before} and {after} differ in nothing but their names")


def _side(value: str | None) -> str:
    return "not set" if value is None else value or "''"


def _variable(change: Change) -> str:
    if change.before is None:
        return f"+ {change.name} = {change.after} ({change.after_place})"
    if change.after is None:
        return f"- {change.name} = {change.before} ({change.before_place})"
    return f"~ {change.name}: {change.before} ({change.before_place}) -> {change.after} ({change.after_place})"


def _file(item: FileChange) -> str:
    names = dict.fromkeys(name for name in (item.before, item.after) if name)
    gone = " (only in the first)" if item.after is None else " (only in the second)" if item.before is None else ""
    return f"code {' -> '.join(names)}: +{item.added} -{item.removed}{gone}"
