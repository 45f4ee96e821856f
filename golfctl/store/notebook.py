"""experiments/log.md and failures.md: what people read. Both grow at the end; what a person wrote is never touched.

Entries come from ledger events and carry the event's id in an HTML comment, so writing is idempotent: an entry that a crash kept
from being written is written the next time, one that is there is left alone. Editing an entry is fine; a deleted one comes back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from golfctl.domain.event import Event
from golfctl.domain.gate import Answer
from golfctl.domain.state import State
from golfctl.domain.verdict import Verdict
from golfctl.domain.verdict import from_data as verdict_from_data
from golfctl.errors import InputError
from golfctl.store.files import append_text, write_atomic

LOG_HEADING = (
    "# Experiments\n\nEvery verdict, in the order it was reached. Appended by golfctl; add your own notes anywhere.\n"
)
FAILURES_HEADING = (
    "# Failures\n\nRead before you start anything new. Every entry says what was tried, what happened, the numbers, and why it\n"
    "failed: the why holds the seed of what would work. golfctl appends the stubs; the why is yours.\n"
)
OPEN_WHY = "_not yet said_"
ANCHOR = re.compile(r"^## .*<!-- event (\S+) -->\s*$", re.MULTILINE)
"""An entry's event, at the end of its heading and nowhere else: what hosts and people say stands below it."""


@dataclass(frozen=True)
class Failure:
    """A recorded failure. `subject` is a plan id, or a name for one that was noted or is the field's. why "": not yet said.

    who: whose it was; source: where it is written ("" for both: this campaign's own). when: UTC time or date, "" unknown.
    """

    id: str
    subject: str
    title: str
    gate: int | None
    cause: str
    numbers: str
    why: str
    when: str
    who: str = ""
    source: str = ""


def sync(log: Path, failures: Path, state: State, titles: Mapping[str, str]) -> None:
    """Write every entry that is missing. Raises OSError."""
    verdict_events = sorted(state.verdict_events.values(), key=lambda event: (event.time, event.machine, event.seq))
    _append_missing(log, LOG_HEADING, verdict_events, lambda event: _log_entry(event, titles))
    failed = [event for event in verdict_events if verdict_from_data(event.data).answer is Answer.FAIL]
    _append_missing(failures, FAILURES_HEADING, [*failed, *state.notes], lambda event: _failure_entry(event, titles))


def failures_of(state: State, titles: Mapping[str, str]) -> list[Failure]:
    """Every recorded failure, oldest first, with the newest why."""
    whys = {event.data["failure"]: event.data["why"] for event in state.whys}
    found = []
    for event in [*state.verdict_events.values(), *state.notes]:
        if event in state.notes:
            found.append(_from_note(event, whys))
        elif (verdict := verdict_from_data(event.data)).answer is Answer.FAIL:
            title = titles.get(verdict.plan, "")
            why = whys.get(event.id, "")
            found.append(
                Failure(event.id, verdict.plan, title, verdict.gate, verdict.cause, verdict.reason, why, event.time)
            )
    return sorted(found, key=lambda failure: (failure.when, failure.id))


def _from_note(event: Event, whys: Mapping[str, str]) -> Failure:
    data = event.data
    why = whys.get(event.id, data.get("why", ""))
    known = {key: data[key] for key in ("who", "source") if data.get(key)}
    return Failure(
        event.id, data["subject"], data["title"], None, data["cause"], data["numbers"], why, event.time, **known
    )


def write_why(failures: Path, failure_id: str, why: str, when: str) -> None:
    """Put a person's why into the entry: in place of the untouched stub line, else as a further dated line of the entry.

    Raises InputError if the entry is not in the file, OSError if it can't be written.
    """
    text = failures.read_text(encoding="utf-8", errors="surrogateescape") if failures.exists() else ""
    lines = text.split("\n")
    start = next((i for i, line in enumerate(lines) if f"<!-- event {failure_id} -->" in line), None)
    if start is None:
        raise InputError(f"{failures.name}: has no entry {failure_id}; `golfctl report` writes missing entries")
    end = next((i for i in range(start + 1, len(lines)) if lines[i].startswith("## ")), len(lines))
    for number in range(start, end):
        if lines[number] == f"- why: {OPEN_WHY}":
            lines[number] = f"- why: {why}"
            break
    else:
        while end > start + 1 and not lines[end - 1].strip():
            end -= 1
        lines.insert(end, f"- why ({when[:10]}): {why}")
    write_atomic(failures, "\n".join(lines).encode(errors="surrogateescape"))


def _append_missing(path: Path, heading: str, events: list[Event], entry: Callable[[Event], str]) -> None:
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    known = set(ANCHOR.findall(text))
    fresh = [entry(event) for event in events if event.id not in known]
    if fresh:
        append_text(path, ("" if text.strip() else heading) + "".join("\n" + item for item in fresh))


def _log_entry(event: Event, titles: Mapping[str, str]) -> str:
    verdict = verdict_from_data(event.data)
    lines = [f"## {event.time} {verdict.plan} gate {verdict.gate}: {verdict.answer} <!-- event {event.id} -->", ""]
    lines += [_plain(titles.get(verdict.plan, "")), "", f"- {_plain(verdict.reason)}"]
    lines += [f"- revision {verdict.revision}; runs: {', '.join(verdict.runs) or 'none'}"]
    if verdict.reference_runs:
        lines.append(f"- compared with: {', '.join(verdict.reference_runs)}")
    return "\n".join(lines) + "\n"


def _failure_entry(event: Event, titles: Mapping[str, str]) -> str:
    if "subject" in event.data:
        failure = _from_note(event, {})
    else:
        verdict: Verdict = verdict_from_data(event.data)
        title = titles.get(verdict.plan, "")
        failure = Failure(event.id, verdict.plan, title, verdict.gate, verdict.cause, verdict.reason, "", event.time)
    gate = f" at gate {failure.gate}" if failure.gate else ""
    lines = [
        f"## {failure.when[:10]} {_plain(failure.subject)}{gate}: {_plain(failure.cause)} <!-- event {failure.id} -->",
        "",
    ]
    if failure.title:
        lines.append(f"- tried: {_plain(failure.title)}")
    source = f", {_plain(failure.source)}" if failure.source else ""
    lines.append(f"- who: {_plain(failure.who) or 'this campaign'}{source}")
    lines += [f"- numbers: {_plain(failure.numbers)}", f"- why: {_plain(failure.why) or OPEN_WHY}"]
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """One line that can't pass for one of ours: a crash says what it likes."""
    return " ".join(text.split()).replace("<!--", "<! --")
