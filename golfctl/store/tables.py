"""Markdown tables of results: one row a seed. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_RULE = re.compile(r"\s*\|?\s*:?-+:?\s*(?:\|\s*:?-*:?\s*)*\|?\s*")
_ASIDE = re.compile(r"pre[-_ ]|post[-_ ]?ema|\bema\b|round ?trip|\brt\b|rt_|standard|no ttt|quantized|gain|delta|Δ|#\d")
_BETTER = (
    re.compile(r"post[-_ ]?ttt|ttt bpb|ttt_bpb|final"),
    re.compile(r"slid"),
    re.compile(r"bpb"),
)


@dataclass
class SeedTable:
    """Cells of the score column: of every seed, and of the rows called mean and std ("" if there are none)."""

    column: str
    seeds: dict[int, str] = field(default_factory=dict)
    mean: str = ""
    std: str = ""


def tables(text: str) -> list[list[list[str]]]:
    """Every table as rows of cells without emphasis, the header first."""
    found: list[list[list[str]]] = []
    lines = text.splitlines()
    index = 1
    while index < len(lines):
        if "|" in lines[index - 1] and "-" in lines[index] and _RULE.fullmatch(lines[index]):
            rows = [_cells(lines[index - 1])]
            index += 1
            while index < len(lines) and "|" in lines[index]:
                rows.append(_cells(lines[index]))
                index += 1
            found.append(rows)
        index += 1
    return found


def seed_table(text: str) -> SeedTable | None:
    """The first table with a column `seed` and one of scores; the score after all steps is preferred to those on the way."""
    for header, *rows in tables(text):
        names = [cell.lower() for cell in header]
        if "seed" not in names or (column := _score_column(names)) is None:
            continue
        result = SeedTable(header[column])
        for row in rows:
            if len(row) <= max(column, names.index("seed")):
                continue
            _row(result, row[names.index("seed")], row[column])
        if result.seeds:
            return result
    return None


def _row(result: SeedTable, name: str, cell: str) -> None:
    if re.fullmatch(r"\d{1,9}", name):
        # A rounded or guessed value (~1.18) proves nothing either way.
        if not cell.startswith("~"):
            result.seeds.setdefault(int(name), cell)
    elif name.lower().startswith(("mean", "average")):
        result.mean = result.mean or cell
        spread = re.search(r"±\s*(\d*\.\d+)", cell)
        result.std = result.std or (spread[1] if spread else "")
    elif name.lower().startswith(("std", "sd")):
        result.std = cell


def _score_column(names: list[str]) -> int | None:
    for wanted in _BETTER:
        for index, name in enumerate(names):
            if wanted.search(name) and not _ASIDE.search(name) and not re.search(r"loss|time|nats", name):
                return index
    return None


def _cells(line: str) -> list[str]:
    return [re.sub(r"[*`]+", "", cell).strip() for cell in line.strip().strip("|").split("|")]
