"""S1 to S10: warnings about code, each with its line. Read from the syntax tree; nothing is run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from golfctl.audit import bytetable, follow, lookback, mixtures, network, peeks, shipped
from golfctl.audit.result import NOTHING, Check, Evidence, ok, unknown, warn
from golfctl.audit.source import Script, scripts
from golfctl.audit.target import Target

MOST = 5
"""Findings shown for one check in one script."""


@dataclass(frozen=True)
class Rule:
    """One thing to look for. find: script to (line, what it found) by names; None where following values says all."""

    id: str
    title: str
    case: str
    find: Callable[[Script, peeks.Flow], Iterator[tuple[int, str]]] | None = None


RULES = (
    Rule(
        "S1",
        "no learning from validation tokens before they are scored",
        "several epochs on the split, then its score",
    ),
    Rule(
        "S2",
        "no warm-up on validation tokens",
        "compile warm-up on validation tokens (#1530)",
        lambda script, flow: peeks.warmed_on_validation(flow),
    ),
    Rule(
        "S3",
        "nothing fitted on the mask it is scored on",
        "a delta fitted on its own mask (#1321)",
        lambda script, flow: peeks.fitted_on_its_own_mask(script.tree),
    ),
    Rule(
        "S4",
        "no hash key holds the target",
        "n-gram caches whose distributions sum to 277 and 1000 (#779, #886)",
        lambda script, flow: mixtures.hashed_target(script.tree),
    ),
    Rule(
        "S5",
        "no gate reads the token it helps to predict",
        "a within-word gate (#1967)",
        lambda script, flow: mixtures.gate_on_target(script.tree),
    ),
    Rule(
        "S6",
        "no smallest of several losses",
        "min over candidate losses of the true token (#659)",
        lambda script, flow: mixtures.best_of_losses(script.tree),
    ),
    Rule(
        "S7",
        "no p^(1/n) over the bytes of a token",
        "byte mixtures (#1872)",
        lambda script, flow: mixtures.spread_over_bytes(script.tree),
    ),
    Rule(
        "S8",
        "looks back within the document only",
        "SmearGate without the document's bound (#1797)",
        lambda script, flow: lookback.unbounded_look_back(script.tree),
    ),
    Rule("S9", "no network", "downloads during evaluation", lambda script, flow: network.network(script.tree)),
    Rule(
        "S10",
        "bytes a token as in the canonical table",
        "+16.7 % and +4.1 % bytes (#1734, #1289)",
        lambda script, flow: bytetable.byte_tables(script.tree),
    ),
)


FOLLOWED = {"S1", "S2", "S3", "S4", "S5", "S6", "S7"}
"""Rules that follow values: where that ends early, silence is no PASS."""


def check(target: Target) -> list[Check]:
    """All rules over every script that runs."""
    started = shipped.started(target.folder, target.code) if not target.runs else ()
    found, broken = scripts(target.code, whole=bool(target.runs), also=started)
    ended, lines = look(found)
    checks = []
    for rule in RULES:
        evidence = [item for index, script in enumerate(found) for item in _of(lines[rule.id, index], script)]
        evidence += [unknown("does not parse", path) for path in broken]
        if not ended and not evidence and rule.id in FOLLOWED:
            evidence.append(unknown("too large, or too nested, to be followed to its end"))
        if not found and not broken:
            evidence = [unknown("no script of it lies here")]
        checks.append(Check(rule.id, rule.title, rule.case, tuple(evidence) or (ok(NOTHING),)))
    return checks


def look(found: Sequence[Script]) -> tuple[bool, dict[tuple[str, int], list[tuple[int, str]]]]:
    """Whether all was followed, and (line, what was found) by rule and number of the script.

    Found by names, and by following values where names say nothing.
    """
    flows = [peeks.Flow(script.tree) for script in found]
    lines: dict[tuple[str, int], list[tuple[int, str]]] = {}
    for rule in RULES:
        for index, script in enumerate(found):
            lines[rule.id, index] = sorted(set(rule.find(script, flows[index]))) if rule.find else []
    followed: dict[tuple[str, int], list[tuple[int, str]]] = {}
    ended, said = follow.findings(found)
    for name, (index, line), text in said:
        followed.setdefault((name, index), []).append((line, text))
    return ended, {key: some or sorted(followed.get(key, [])) for key, some in lines.items()}


def _of(lines: Sequence[tuple[int, str]], script: Script) -> Iterator[Evidence]:
    for line, text in lines[:MOST]:
        yield warn(text, script.at(line))
    if len(lines) > MOST:
        yield warn(f"and {len(lines) - MOST} lines more", script.at(lines[MOST][0]))
