"""Words in pictures: how wide they are about, cut to a width, and made harmless."""

from __future__ import annotations

import unicodedata
from html import escape

_NARROW = frozenset("iljtfrI.,:;'|!()[]{}/\\` -")
_WIDE = frozenset("mwMW@%")
LONGEST = 400
"""Letters of a text that a picture or its tool tip holds; the full record has the rest."""
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def width(text: str, size: float, bold: bool = False) -> float:
    """About how wide the text is; rather too wide than too narrow."""
    return sum(map(_letter, text)) * size * (1.06 if bold else 1.0)


def _letter(letter: str) -> float:
    if letter in _NARROW:
        return 0.39
    if letter in _WIDE:
        return 0.96
    if letter > "\u02ff":
        if unicodedata.combining(letter):
            return 0.0
        return 1.1 if unicodedata.east_asian_width(letter) in "WF" or letter > "\uffff" else 0.75
    return 0.7 if letter.isupper() else 0.64


def cut(text: str, room: float, size: float, bold: bool = False) -> str:
    """The text, or as much of it as has room, with an ellipsis."""
    text = plain(text)
    if width(text, size, bold) <= room:
        return text
    left = room - width("…", size, bold)
    end = 0
    for letter in text:
        left -= _letter(letter) * size * (1.06 if bold else 1.0)
        if left < 0:
            break
        end += 1
    return text[:end].rstrip(" ,;:-") + "…" if end else ""


def wrap(text: str, room: float, size: float, lines: int) -> list[str]:
    """The text in at most so many lines, the last one cut."""
    words, found = plain(text).split(), [""]
    while words:
        longer = f"{found[-1]} {words[0]}".strip()
        if width(longer, size) <= room or not found[-1]:
            found[-1] = longer
            words.pop(0)
        elif len(found) == lines:
            found[-1] = cut(" ".join([found[-1], *words]), room, size)
            return found
        else:
            found.append("")
    return [cut(line, room, size) for line in found]


def plain(text: str) -> str:
    """One line without control characters and marks that turn the direction of what follows; at most LONGEST letters."""
    text = text[: 4 * LONGEST]
    kept = "".join(letter if letter.isprintable() else " " for letter in text if letter not in _BIDI)
    line = " ".join(kept.split())
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


def shown(text: str) -> str:
    """The text as XML may hold it, lines kept, each made harmless."""
    return "\n".join(escape(plain(line)) for line in text[: 8 * LONGEST].split("\n"))
