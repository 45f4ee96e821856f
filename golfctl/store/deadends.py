"""Recorded failures, the campaign's own and the field's, and which of them a plan resembles."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from golfctl.domain.plan import Plan, SetDiff
from golfctl.domain.state import State
from golfctl.errors import InputErrors, Problem
from golfctl.store.notebook import Failure, failures_of
from golfctl.store.planfile import RETIRED, read_plan
from golfctl.store.resemble import Idea, Known, Match, Memory
from golfctl.store.words import Words

if TYPE_CHECKING:
    from golfctl.store.campaign import Campaign

FIELD = "the field"
MOST = 3
"""Resemblances told of one plan."""
HITS = 10
"""Failures that a search shows."""
_FOLDER = "field"
"""Folder of the package's presets that holds what is known of the field."""


@dataclass(frozen=True)
class Resemblance:
    """A plan and a recorded failure it resembles. answer: what the plan or a waiver says to it, "" if nothing.

    strong: it is the same idea as far as words and settings can tell. started: the plan has run already.
    """

    plan: str
    failure: Failure
    strong: bool
    shared: tuple[str, ...]
    answer: str
    started: bool

    @property
    def open(self) -> bool:
        """Whether an answer is due before the plan's first run."""
        return self.strong and not self.answer and not self.started

    @property
    def told(self) -> str:
        """For people, in one line: what it resembles, why that failed, what both share, whose it was, what was answered."""
        why = f" ({self.failure.why.rstrip('.')})" if self.failure.why else ""
        shared = f" Both: {', '.join(self.shared)}." if self.shared else ""
        answer = f" Answered: {self.answer}" if self.answer else ""
        return (
            f'resembles a recorded failure: "{name(self.failure)}"{why}. {self.failure.numbers.rstrip(".")}.{shared}'
            f" Recorded by {recorder(self.failure)}.{answer}"
        )


def name(failure: Failure) -> str:
    """What was tried, in one line."""
    return failure.title or failure.subject


def recorder(failure: Failure) -> str:
    """Whose record it is: `the field, contest #363`, or `this campaign`."""
    return ", ".join(part for part in (failure.who or "this campaign", failure.source) if part)


@cache
def _field_file(name: str) -> Any:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load((files("golfctl") / "presets" / _FOLDER / name).read_bytes(), loader)  # a safe loader


def synonyms() -> Mapping[str, Sequence[str]]:
    """Concepts of the field, each with the words people use for it."""
    found: Mapping[str, Sequence[str]] = _field_file("synonyms.yaml")
    return found


def dead_ends() -> Sequence[Mapping[str, Any]]:
    """The field's dead ends as they are written down; the file's head explains the keys."""
    found: Sequence[Mapping[str, Any]] = _field_file("dead_ends.yaml")
    return found


def field_failures(campaign: Campaign) -> list[Failure]:
    """The field's dead ends, for a campaign made from a preset; one that names none may be about anything."""
    return [
        Failure(
            id=f"field:{entry['id']}",
            subject=entry["id"],
            title=entry["title"],
            gate=None,
            cause=entry["cause"],
            numbers=entry["numbers"],
            why=entry["why"],
            when=str(entry.get("date", "")),
            who=FIELD,
            source=entry["source"],
        )
        for entry in (dead_ends() if campaign.preset else ())
    ]


def every_failure(campaign: Campaign, state: State, plans: Mapping[str, Plan] | None = None) -> list[Failure]:
    """The campaign's own, oldest first, then the field's. plans: those in use and retired, where they were read already."""
    plans = _with_retired(campaign, campaign.read_plans()[0]) if plans is None else plans
    return failures_of(state, {plan.id: plan.title for plan in plans.values()}) + field_failures(campaign)


def search(campaign: Campaign, state: State, text: str) -> list[Failure]:
    """The HITS recorded failures that speak most of this, the closest first; every synonym of the field counts."""
    plans = _with_retired(campaign, campaign.read_plans()[0])
    found = every_failure(campaign, state, plans)
    words = Words(synonyms())
    by_id = {failure.id: failure for failure in found}
    return [by_id[item] for item in Memory(ideas(found, plans, words, more=True), words).nearest(Idea(text))[:HITS]]


def resemblances(
    campaign: Campaign, plans: Mapping[str, Plan], chosen: Iterable[str], state: State
) -> list[Resemblance]:
    """What the chosen plans resemble, plan by plan, the closest first, MOST each. A plan's own failures are not among it.

    plans: every plan in use that can be read.
    """
    everyone = _with_retired(campaign, plans)
    # A plan that failed twice is one idea, and its last failure says most.
    recorded = every_failure(campaign, state, everyone)
    failures = list({failure.subject: failure for failure in recorded}.values())
    subjects = {failure.id: failure.subject for failure in recorded}
    waived = {(plan, subjects.get(item)): reason for (plan, item), reason in state.repeats_waived.items()}
    by_id = {failure.id: failure for failure in failures}
    words = Words(synonyms())
    memory = Memory(ideas(failures, everyone, words), words)
    found = []
    for plan in (plans[name] for name in chosen):
        others = [match for match in memory.rank(_idea(plan)) if by_id[match.id].subject != plan.id]
        below = _below(plan, everyone)
        found += [_resemblance(plan, by_id[match.id], match, below, state, waived) for match in others[:MOST]]
    return found


def unanswered(found: Iterable[Resemblance], plans: Mapping[str, Plan]) -> list[Problem]:
    """The plans that must say what is different this time, each with the failure it resembles most."""
    due: dict[str, Resemblance] = {}
    for item in found:
        if item.open:
            due.setdefault(item.plan, item)
    return [
        Problem(
            plans[plan].source,
            0,
            0,
            f"not_a_repeat: missing: the plan repeats the recorded failure {item.failure.subject!r}, "
            f'"{name(item.failure)}"; say what is different this time, or golfctl fail waive {plan} --reason WHY',
        )
        for plan, item in due.items()
    ]


def _resemblance(
    plan: Plan,
    failure: Failure,
    match: Match,
    below: Container[str],
    state: State,
    waived: Mapping[tuple[str, str | None], str],
) -> Resemblance:
    """waived: plan and what was tried -> reason; it answers no other failure that the plan comes to resemble."""
    return Resemblance(
        plan=plan.id,
        failure=failure,
        strong=match.strong and failure.subject not in below,  # else it goes on from that failure knowingly
        shared=match.shared,
        answer=plan.not_a_repeat or waived.get((plan.id, failure.subject), ""),
        started=state.revision(plan.id) is not None,
    )


def _below(plan: Plan, everyone: Mapping[str, Plan]) -> set[str]:
    """Ids of all plans it builds on."""
    found: set[str] = set()
    ahead = list(plan.depends_on)
    while ahead:
        name = ahead.pop()
        if name not in found:
            found.add(name)
            ahead += everyone[name].depends_on if name in everyone else ()
    return found


def ideas(failures: Sequence[Failure], plans: Mapping[str, Plan], words: Words, more: bool = False) -> list[Known]:
    """Failures as ideas. more: with cause, numbers and source, for a search."""
    described = {f"field:{entry['id']}": entry for entry in dead_ends()}
    kinds = {concept for entry in described.values() for concept in entry["about"]}
    found = []
    for failure in failures:
        text = [failure.why, *((failure.subject, failure.cause, failure.numbers, failure.source) if more else ())]
        if entry := described.get(failure.id):
            found.append(_described(entry, Idea(failure.title, "\n".join(text))))
            continue
        idea = _idea(plans[failure.subject]) if failure.subject in plans else Idea("")
        idea = Idea(failure.title, "\n".join((idea.text, *text)), idea.tags, idea.settings)
        about = tuple(concept for concept in words.find(idea.head) if concept in kinds)
        found.append(Known(failure.id, idea, about, guessed=True))
    return found


def _described(entry: Mapping[str, Any], idea: Idea) -> Known:
    return Known(
        id=f"field:{entry['id']}",
        idea=idea,
        about=tuple(entry["about"]),
        under=tuple(entry.get("under", ())),
        limits=entry.get("limits", {}),
        contested=entry.get("contested", False),
    )


def _idea(plan: Plan) -> Idea:
    """What a plan says of itself; the text of patches is not read."""
    settings = {name: value for diff in plan.diffs if isinstance(diff, SetDiff) for name, value in diff.values.items()}
    return Idea(plan.title, plan.hypothesis, plan.tags, settings)


def _with_retired(campaign: Campaign, plans: Mapping[str, Plan]) -> dict[str, Plan]:
    """With the retired plans that can be read: what they tried is still known."""
    context = campaign.context()
    found = {}
    for path in sorted((campaign.plans_folder / RETIRED).glob("*.yaml")):
        try:
            plan, _ = read_plan(path.read_bytes(), campaign.relative(path), context)
        except (InputErrors, OSError):
            continue
        found[plan.id] = plan
    return found | dict(plans)
