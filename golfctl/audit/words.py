"""An audit in words: lines for a terminal of 80 columns, and Markdown. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from golfctl.audit.result import NOTHING, Answer, Audit, Check, Evidence

WIDTH = 80
SHOWN = 4
"""Lines of evidence a check shows in a terminal; --json and --md hold all."""
WORDS = {Answer.PASS: "PASS", Answer.WARN: "WARN", Answer.FAIL: "FAIL", Answer.NOT_CHECKABLE: "n/c"}


def lines(audit: Audit, brief: bool = False) -> Iterator[str]:
    """One audit. brief: without what passed, for a tree of many."""
    yield f"{audit.target} ({audit.kind}, rules of {audit.contest}): {tally(audit)}"
    for check in audit.checks:
        if brief and check.answer in {Answer.PASS, Answer.NOT_CHECKABLE}:
            continue
        yield f"  {WORDS[check.answer]:4} {check.id:3} {check.title}"
        yield from _evidence(check)


def _evidence(check: Check) -> Iterator[str]:
    worst = [item for item in check.evidence if item.answer is check.answer]
    others = [item for item in check.evidence if item.answer is not check.answer and item.answer is not Answer.PASS]
    shown = worst if check.answer is not Answer.PASS else [item for item in worst[:1] if item.text != NOTHING]
    for item in (shown + others)[:SHOWN]:
        yield from textwrap.wrap(_said(item), WIDTH, initial_indent=" " * 11, subsequent_indent=" " * 13)
    left = len(shown + others) - SHOWN
    if left > 0:
        yield f"{' ' * 11}and {left} more (--json)"
    if check.answer is Answer.FAIL:
        yield from textwrap.wrap(
            f"seen before: {check.case}", WIDTH, initial_indent=" " * 11, subsequent_indent=" " * 13
        )


def _said(item: Evidence) -> str:
    where = item.where if item.where and not item.text.startswith(item.where.partition(":")[0]) else ""
    return f"{where}: {item.text}" if where else item.text


def tally(audit: Audit) -> str:
    """`9 pass, 1 WARN, 1 FAIL, 2 not checkable`."""
    parts = [
        (audit.count(Answer.PASS), "pass"),
        (audit.count(Answer.WARN), "WARN"),
        (audit.count(Answer.FAIL), "FAIL"),
        (audit.count(Answer.NOT_CHECKABLE), "not checkable"),
    ]
    return ", ".join(f"{count} {word}" for count, word in parts if count)


def markdown(audits: Sequence[Audit]) -> str:
    """A page: a table of all targets, then every check of each with its evidence."""
    ids = [check.id for check in audits[0].checks] if audits else []
    out = ["# Audit", ""]
    if len(audits) > 1:
        out += [f"| target | {' | '.join(ids)} |", f"|---|{'---|' * len(ids)}"]
        for audit in audits:
            out.append(f"| {cell(audit.target)} | {' | '.join(WORDS[check.answer] for check in audit.checks)} |")
        out += ["", "n/c: nothing here tells.", ""]
    for audit in audits:
        out += [f"## {cell(audit.target)}", "", f"{audit.kind}, rules of {cell(audit.contest)}: {tally(audit)}", ""]
        out += ["| check | answer | evidence |", "|---|---|---|"]
        for check in audit.checks:
            said = "<br>".join(f"{item.answer}: {cell(_said(item))}" for item in check.evidence)
            out.append(f"| {check.id} {check.title} | {check.answer} | {said} |")
        out.append("")
    return "\n".join(out)


def cell(text: str) -> str:
    """Text as it may stand in a table: no column, tag, entity, link, emphasis or control character of its own."""
    text = " ".join(text.split()).replace("&", "&amp;")
    text = "".join(letter if letter.isprintable() else "\ufffd" for letter in text)
    for mark in "\\`*_[]<>|~":
        text = text.replace(mark, "&lt;" if mark == "<" else "&gt;" if mark == ">" else f"\\{mark}")
    return text
