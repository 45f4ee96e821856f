"""What `gate run` and `seeds` share: choose hosts, say what is ahead, ask, run, tell how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from golfctl.cli import output
from golfctl.cli.output import count
from golfctl.errors import GateSaidNo, HostError, HostUnreachable, InputError, Interrupted

if TYPE_CHECKING:
    from golfctl.cli.live import Live
    from golfctl.decide import Stop
    from golfctl.domain.host import HostSpec
    from golfctl.domain.plan import ResolvedPlan
    from golfctl.runner import Runner
    from golfctl.store.campaign import Campaign

LOGIN_S = 0.3
"""Longest wait for the first host's login before the rest of the command is loaded."""


@dataclass(frozen=True)
class Wish:
    """The options of a command that runs plans."""

    hosts: list[str] = field(default_factory=list)
    yes: bool = False
    dry_run: bool = False
    as_json: bool = False
    fail_fast: bool = False
    slow_ok: bool = False
    release: bool = False


def go(campaign: Campaign, resolved: dict[str, ResolvedPlan], wanted: list[str], through: int, wish: Wish) -> None:
    """Estimate, ask, run, and turn the stops into an exit code. Raises GateSaidNo when a gate said no."""
    from golfctl.hosts import open_host

    if through not in campaign.gates:
        raise InputError(f"gate {through}: unknown; golf.yaml has {', '.join(map(str, campaign.gates))}")
    specs = chosen(campaign, wish.hosts)
    opened = {spec.alias: open_host(spec) for spec in specs}
    for host in opened.values():
        host.approach()
    # Imports would only slow a login down; while the host then starts its side, they cost no time.
    opened[specs[0].alias].approach(LOGIN_S)

    from golfctl.cli.live import Live
    from golfctl.runner import Runner

    plans = on_device(resolved, specs[0].gpu)
    live = Live(output.console(stderr=wish.as_json), campaign.hosts)
    runner = Runner(campaign, [spec.alias for spec in specs], live, fail_fast=wish.fail_fast, opened=opened)
    try:
        # The question comes before the live view takes the screen: it would swallow it.
        if not _agreed(runner, plans, wanted, through, specs, wish):
            return
        with live:
            stops = runner.run(plans, wanted, through)
    except KeyboardInterrupt:
        raise Interrupted(_going_on(runner, wanted, through, wish.hosts)) from None
    finally:
        runner.close()
    _release(runner, wish)
    _conclude(stops, live, wish.as_json)


def chosen(campaign: Campaign, aliases: Sequence[str]) -> list[HostSpec]:
    """The hosts asked for, else the campaign's. Raises InputError on unknown ones and on a mixture of GPUs."""
    found = []
    for alias in dict.fromkeys(aliases or [campaign.host]):
        if alias not in campaign.hosts:
            known = ", ".join(sorted(campaign.hosts))
            raise InputError(f"host {alias}: unknown; golf.yaml and hosts.yaml have {known}")
        found.append(campaign.hosts[alias])
    models = {spec.gpu for spec in found}
    if len(models) > 1:
        said = ", ".join(f"{spec.alias} has {spec.gpu or 'no GPU'}" for spec in found)
        raise InputError(f"--host: {said}; results of different machines can't be compared: name hosts of one kind")
    return found


def on_device(plans: dict[str, ResolvedPlan], gpu: str) -> dict[str, ResolvedPlan]:
    """The plans with gates that know the model of GPU they run on."""
    return {
        name: replace(plan, gates=tuple(replace(gate, device=gpu) for gate in plan.gates))
        for name, plan in plans.items()
    }


def _going_on(runner: Runner, wanted: list[str], through: int, hosts: list[str]) -> str:
    runs = runner.state().unfinished()
    names = ", ".join(f"{run.spec.owner} seed {run.spec.seed} on {run.spec.host}" for run in runs) or "nothing"
    words = " ".join([*wanted, f"--through {through}", *(f"--host {alias}" for alias in hosts)])
    return (
        f"{count(len(runs), 'run')} under way, and going on: {names}. Watch: golfctl runs attach. "
        f"Continue: golfctl gate run {words}"
    )


def _agreed(
    runner: Runner,
    plans: dict[str, ResolvedPlan],
    wanted: list[str],
    through: int,
    specs: Sequence[HostSpec],
    wish: Wish,
) -> bool:
    """Say what is ahead and ask. False: nothing is to be started."""
    from golfctl.budget import refusal, under_way
    from golfctl.estimate import estimate

    state, campaign = runner.state().seen_as(plans), runner.campaign
    ahead = estimate([plans[plan] for plan in wanted], through, state, specs)
    refused = refusal(campaign.budget, state, ahead, under_way(state, campaign.hosts))
    if wish.dry_run:
        actions = runner.next_actions(plans, wanted, through)
        if wish.as_json:
            output.print_json(
                {
                    "runs": ahead.runs,
                    "seconds": ahead.seconds,
                    "usd": ahead.usd,
                    "refused": refused,
                    "next": [action.why for action in actions],
                }
            )
        else:
            for line in ahead.lines:
                output.say(line)
            output.say(f"at most {ahead.text}; nothing was started")
            if refused:
                output.say(f"budget: {refused}; it would not be started")
        return False
    tell = output.note if wish.as_json else output.say
    head = f"Campaign {campaign.name}: base {campaign.base_name}, {count(len(wanted), 'plan')} through gate {through}, "
    where = ", ".join(f"host {spec.alias} ({count(spec.slots, 'slot')}, ${spec.usd_per_hour:.2f}/h)" for spec in specs)
    tell(f"{head}{where}: at most {ahead.text}")
    if refused:
        raise GateSaidNo(f"budget: {refused}; nothing was started")
    if ahead.runs:
        _examined(runner, specs, [plans[plan] for plan in wanted], wish)
    if ahead.runs and not output.confirm(f"Spend about ${ahead.usd:.2f}?", wish.yes):
        raise GateSaidNo("nothing was started")
    return True


def _examined(runner: Runner, specs: Sequence[HostSpec], plans: Sequence[ResolvedPlan], wish: Wish) -> None:
    """Preflight of remote hosts. Raises HostError where runs can't work; GateSaidNo where they are slow and nobody was asked."""
    from golfctl.runner.ready import before_runs, idle_news

    processes = max(gate.processes for plan in plans for gate in plan.gates)
    names = {plan.base for plan in plans}
    aliases = {spec.alias for spec in specs}
    waited_for = any(run.spec.host in aliases for run in runner.state().unfinished())
    for spec in specs:
        if spec.kind == "local" and not spec.gpu:
            continue
        try:
            if news := idle_news(runner.campaign, runner.fleet.host(spec.alias)):
                output.note(f"  {news}")
            found = before_runs(runner.campaign, runner.fleet.host(spec.alias), processes, names, output.note)
        except HostUnreachable as error:
            # Not examined: nothing new goes there, should it come back meanwhile. What ran there is still waited for.
            if not runner.fleet.shut(spec.alias, str(error)) and not waited_for:
                raise
            output.note(f"  {error}; this command starts nothing there")
            continue
        if found is None:
            continue
        for line in found.lines:
            output.note(f"  {spec.alias}: {line}")
        problems = [item.text for item in found.findings if item.level == "fail"]
        if problems:
            raise HostError(f"host {spec.alias}: not fit for a run: {'; '.join(problems)}")
        if found.worst() == "slow" and wish.yes and not wish.slow_ok:
            raise GateSaidNo(f"host {spec.alias} is slow; nothing was started: take another one, or say --slow-ok")


def _release(runner: Runner, wish: Wish) -> None:
    """Everything has ended and is at home: hand the machines back if that was asked for."""
    from golfctl.runner.release import release

    if not wish.release:
        return
    for alias in runner.fleet.chosen:
        output.note(release(runner.campaign, alias, runner.state()))


def _conclude(stops: list[Stop], live: Live, as_json: bool) -> None:
    if as_json:
        output.print_json(
            [{"plan": stop.plan, "gate": stop.gate, "done": stop.done, "why": stop.why} for stop in stops]
        )
    else:
        for stop in stops:
            if (stop.plan, stop.gate) not in live.judged_now:  # its verdict has just been shown
                output.say(f"{stop.plan}: {stop.why}")
    said_no = [stop.plan for stop in stops if not stop.done]
    if said_no:
        raise GateSaidNo(
            f"{count(len(stops), 'plan')}, {len(said_no)} of them did not get through: {', '.join(said_no)}"
        )
