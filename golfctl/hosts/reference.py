"""Usual speed figures per GPU model, by the name nvidia-smi prints; reference.json tells where they come from."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files


@dataclass(frozen=True)
class Reference:
    """One GPU model. usual: name of a figure (see hostside/speed.py) -> (low, high) in its unit; note: source."""

    model: str
    usual: Mapping[str, tuple[float, float]]
    note: str


@lru_cache(maxsize=1)
def _table() -> tuple[tuple[re.Pattern[str], Reference], ...]:
    content = json.loads(files("golfctl.hosts").joinpath("reference.json").read_text(encoding="utf-8"))
    rows = []
    for model, entry in content["models"].items():
        ranges = {name: value for name, value in entry.items() if name not in ("match", "note") and value}
        usual = {name: (float(low), float(high)) for name, (low, high) in ranges.items()}
        rows.append((re.compile(entry["match"], re.IGNORECASE), Reference(model, usual, entry["note"])))
    return tuple(rows)


def reference(name: str) -> Reference | None:
    """The model of a GPU called so by nvidia-smi ("NVIDIA H100 80GB HBM3"), None if it is not in the table."""
    return next((found for pattern, found in _table() if pattern.search(name)), None)


def is_model(wanted: str, name: str) -> bool:
    """Whether a GPU of this nvidia-smi name is what a person means by `wanted` ("H100", "H100 SXM", "rtx4090", "A100-80GB").

    Every word of `wanted` must be one of the name's or of the model's; "A10" is not an A100, "L40" not an L40S.
    """
    found = reference(name)
    have = _words(name) | (_words(found.model) if found else set())
    need = _words(wanted)
    if need and need <= have:
        return True
    letters = "".join(re.findall(r"[a-z0-9]+", wanted.lower()))
    written = " ".join(re.findall(r"[a-z0-9]+", name.lower()))
    # "rtx4090" for "RTX 4090": blanks may fall anywhere, but the end must be the end of a word.
    return bool(letters) and bool(re.search(r"\b" + r" ?".join(letters) + r"\b", written))


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z0-9]+", text.lower())) - {"nvidia", "geforce", "tesla"}


def short_name(name: str) -> str:
    """The name without the maker's."""
    return re.sub(r"\b(NVIDIA|GeForce|Tesla)\s+", "", name).strip()
