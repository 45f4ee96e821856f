"""Colours by name, for light and dark: one table for the page, the pictures in files, and PNG.

Okabe and Ito's hues, darkened or lightened until text in them has a contrast of 4.5 against the card; no meaning rests on colour
alone (every state has a form of its own).
"""

from __future__ import annotations

LIGHT = {
    "page": "#f6f6f3",
    "card": "#ffffff",
    "ink": "#1b1f24",
    "soft": "#545d68",
    "rule": "#c9ced4",
    "grid": "#e9ebee",
    "wash": "#f1f3f5",
    "ours": "#0067a5",
    "field": "#6b7480",
    "good": "#007a5e",
    "bad": "#b84300",
    "warn": "#8a6100",
    "oursWash": "#dcecf7",
    "goodWash": "#d9f0e8",
    "badWash": "#fbe5d8",
    "c1": "#0067a5",
    "c2": "#b84300",
    "c3": "#007a5e",
    "c4": "#9a4478",
    "c5": "#8a6100",
    "c6": "#3b7cb0",
}
DARK = {
    "page": "#0e1116",
    "card": "#161b22",
    "ink": "#e8ebef",
    "soft": "#a9b3be",
    "rule": "#47505b",
    "grid": "#262d36",
    "wash": "#1d242d",
    "ours": "#62bdf0",
    "field": "#9aa5b1",
    "good": "#43c99d",
    "bad": "#ff925c",
    "warn": "#e5b54a",
    "oursWash": "#173247",
    "goodWash": "#153a30",
    "badWash": "#43291c",
    "c1": "#62bdf0",
    "c2": "#ff925c",
    "c3": "#43c99d",
    "c4": "#e29ac4",
    "c5": "#e5b54a",
    "c6": "#9cc9ee",
}
SERIES = ("c1", "c2", "c3", "c4", "c5", "c6")
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, "Liberation Sans", sans-serif'


def rules(prefix: str = "") -> str:
    """CSS classes f-NAME (fill) and s-NAME (stroke) with the light colours, and the dark ones for viewers in the dark."""
    return _classes(LIGHT, prefix) + "@media (prefers-color-scheme: dark) {" + _classes(DARK, prefix) + "}"


def _classes(colours: dict[str, str], prefix: str) -> str:
    parts = (f"{prefix}.f-{name}{{fill:{code}}}{prefix}.s-{name}{{stroke:{code}}}" for name, code in colours.items())
    return "".join(parts)
