"""What the author of a record claims: submission.json of any shape, and the tables of its README."""

from __future__ import annotations

import datetime
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from golfctl.store import recordfiles, tables

_BPB = ("val_bpb", "mean_val_bpb", "val_bpb_mean", "mean_bpb", "bpb_mean", "bpb")
_STD = ("val_bpb_std", "std_val_bpb", "std_bpb", "bpb_std", "std")
_BYTES = ("bytes_total", "total_bytes", "artifact_bytes", "artifact_size_bytes", "artifact_bytes_max")
_STEPS = ("step_stop", "train_steps", "steps", "train_steps_mean")
_NESTED = ("results", "result", "metrics", "scores", "score", "final", "summary")
_WORDS = ("name", "title", "run_name", "blurb", "description", "technique_summary", "techniques", "architecture")
_MEAN = re.compile(r"\bmean\b[^|\n]{0,30}?(\d\.\d{3,8})", re.IGNORECASE)
_NAMED = re.compile(r"val_bpb\W{0,6}(\d\.\d{3,8})", re.IGNORECASE)
_SPREAD = re.compile(r"\bstd\b\W{0,3}(0\.\d+)", re.IGNORECASE)
_SUBMISSION, _README = re.compile(r"submission.*\.json"), re.compile(r"readme(?:\.[^.]*)?")
_DAY = re.compile(r"\d{4}-\d\d-\d\d(?!\d)")

LOGGED = 8
"""Digits after the point of the most exact scores that logs print; a claim may be written with all that a float has."""


@dataclass(frozen=True)
class Number:
    """A claimed number with the digits it was printed with after the point."""

    value: float
    digits: int

    def says(self, measured: float, digits: int = LOGGED) -> bool:
        """Whether `measured`, which has so many digits itself, reads like this claim when both are rounded or cut to the fewer.

        Fewer than three in a claim: JSON dropped zeros. A log is taken to have four at least: coarser ones would cover any claim.
        """
        return abs(measured - self.value) < 0.999 * 10.0 ** -min(max(self.digits, 3), max(digits, 4))


@dataclass
class Claim:
    """Everything claimed. bpb, std in bits per byte; bytes in bytes; seeds: seed to its own claim; words: text for tags.

    malformed: a submission that is no JSON object; unreadable: files that could not be opened, a sentence each.
    """

    bpb: Number | None = None
    std: float | None = None
    bytes_total: int | None = None
    steps: int | None = None
    source: str = ""
    seeds: dict[int, Number] = field(default_factory=dict)
    seed_bytes: dict[int, int] = field(default_factory=dict)
    readme_seeds: dict[int, Number] = field(default_factory=dict)
    listed: list[int] = field(default_factory=list)
    title: str = ""
    authors: list[str] = field(default_factory=list)
    date: str | None = None
    words: str = ""
    malformed: str = ""
    unreadable: list[str] = field(default_factory=list)


def read(folder: Path) -> Claim:
    """The claims of a record folder; empty where nothing is claimed. What can't be read is named in `unreadable`."""
    claim = Claim()
    content: Mapping[str, Any] = {}
    for name, text in _documents(claim, folder, _SUBMISSION):
        found = _parse(text)
        if found is None:
            claim.malformed = name
        elif not content:
            content = found
            _submission(claim, content, name)
    _from_readme(claim, next((text for _, text in _documents(claim, folder, _README)), ""))
    if not claim.words:
        claim.words = claim.title  # a README tells of others' records, too
    return claim


def day(text: str) -> str | None:
    """The date (YYYY-MM-DD) a text begins with; None where that is no day of the calendar."""
    found = _DAY.match(text)
    try:
        return datetime.date.fromisoformat(found[0]).isoformat() if found else None
    except ValueError:
        return None


def number(value: Any) -> Number | None:
    """A number, or text that begins with one; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, Decimal | int | float | str):
        return None
    found = re.match(r"[~≈\s]*([-+]?\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d+)?)", str(value))
    if not found:
        return None
    try:
        exact = Decimal(found[1].replace(",", ""))
    except InvalidOperation:
        return None
    exponent = exact.as_tuple().exponent
    if not isinstance(exponent, int) or abs(exact.adjusted()) > 30 or exponent < -30:
        return None
    return Number(float(exact), max(0, -exponent))


def _parse(text: str) -> Mapping[str, Any] | None:
    try:
        content = json.loads(text, parse_float=Decimal)
    except (ValueError, RecursionError):
        return None
    if isinstance(content, list) and content and isinstance(content[0], dict):
        content = content[0]
    return content if isinstance(content, dict) else None


def _submission(claim: Claim, content: Mapping[str, Any], name: str) -> None:
    places = [content, *(content[key] for key in _NESTED if isinstance(content.get(key), dict))]
    claim.bpb = next((found for place in places for key in _BPB if (found := _score(place.get(key)))), None)
    claim.source = name if claim.bpb else ""
    claim.words = "\n".join(_texts(content.get(key) for key in _WORDS))
    if claim.bpb:
        std = _first(places, _STD)
        claim.std = std.value if std else None
    else:
        _from_words(claim, claim.words, name)
    steps = _first(places, _STEPS)
    claim.bytes_total = next((size for place in places for key in _BYTES if (size := _size(place.get(key)))), None)
    claim.steps = round(steps.value) if steps else None
    claim.title = next((str(content[key]) for key in ("name", "title", "run_name") if content.get(key)), "")
    claim.authors = [text for text in _texts([content.get("authors") or content.get("author")]) if text]
    claim.date = day(str(content.get("date") or ""))
    for place in places:
        _seeds(claim, place)


def _score(value: Any) -> Number | None:
    found = number(value["mean"] if isinstance(value, dict) and "mean" in value else value)
    return found if found and 0 < found.value < 100 else None


def _first(places: list[Mapping[str, Any]], keys: tuple[str, ...]) -> Number | None:
    return next((found for place in places for key in keys if (found := number(place.get(key)))), None)


def _size(value: Any) -> int | None:
    """Bytes: a whole number, or text with a unit (decimal, as everywhere in the field)."""
    found = number(value)
    if found is None or found.value < 0:
        return None
    unit = re.search(r"([kmg])(i?)b", str(value).lower())
    if not unit:
        return round(found.value)
    base = 1024.0 if unit[2] else 1000.0
    return round(found.value * math.pow(base, 1 + "kmg".index(unit[1])))


def _texts(values: Any) -> Iterator[str]:
    for value in values:
        if isinstance(value, str):
            yield value.strip()
        elif isinstance(value, list):
            yield from _texts(value)
        elif isinstance(value, dict):
            yield from _texts([value.get("name")])


def _seeds(claim: Claim, place: Mapping[str, Any]) -> None:
    """`seed_results` or `seeds` as {seed: {val_bpb: ...}} or {seed: number}; `seeds` as a list, beside `seed_scores` or not."""
    for key in ("seed_results", "seeds", "per_seed"):
        found = place.get(key)
        if isinstance(found, dict):
            for name, value in found.items():
                if not re.fullmatch(r"(?:seed_?)?\d{1,9}", str(name)):
                    continue
                seed = int(re.sub(r"\D", "", str(name)))
                score = _score(_pick(value, _BPB)) if isinstance(value, dict) else _score(value)
                size = _size(_pick(value, _BYTES)) if isinstance(value, dict) else None
                if score:
                    claim.seeds.setdefault(seed, score)
                if size:
                    claim.seed_bytes.setdefault(seed, size)
        elif isinstance(found, list):
            seeds = [item for item in found if isinstance(item, int) and not isinstance(item, bool)]
            claim.listed = claim.listed or seeds
            scores = place.get("seed_scores")
            if isinstance(scores, list) and len(scores) == len(seeds):
                pairs = zip(seeds, map(_score, scores), strict=True)
                claim.seeds |= {seed: score for seed, score in pairs if score and seed not in claim.seeds}


def _pick(place: Mapping[str, Any], keys: tuple[str, ...]) -> Any:
    return next((place[key] for key in keys if place.get(key) is not None), None)


def _documents(claim: Claim, folder: Path, names: re.Pattern[str]) -> Iterator[tuple[str, str]]:
    """Name and text of each; those that can't be read are named in the claim."""
    found = recordfiles.documents(folder, names)
    claim.unreadable += found.unreadable
    for name in found.files:
        try:
            yield name, recordfiles.text_of(folder / name)
        except OSError as error:
            claim.unreadable.append(f"{name}: {error.strerror}")


def _from_readme(claim: Claim, text: str) -> None:
    heading = next((line.lstrip("# ").strip() for line in text.splitlines() if line.startswith("#")), "")
    claim.title = claim.title or heading
    table = tables.seed_table(text)
    if table:
        claim.readme_seeds = {seed: found for seed, cell in table.seeds.items() if (found := _score(cell))}
    if claim.bpb or not text:
        return
    mean = _score(table.mean) if table else None
    if mean and table:
        std = number(table.std)
        claim.bpb, claim.source, claim.std = mean, "README", std.value if std else None
    else:
        _from_words(claim, f"{heading}\n{text[:4000]}", "README")


def _from_words(claim: Claim, text: str, source: str) -> None:
    """A score in running text: a mean before a bare `val_bpb`."""
    found = _MEAN.search(text) or _NAMED.search(text)
    if found and (score := _score(found[1])):
        spread = _SPREAD.search(text, found.end(), found.end() + 30)
        claim.bpb, claim.source = score, f"{source} (text)"
        claim.std = float(spread[1]) if spread else None
