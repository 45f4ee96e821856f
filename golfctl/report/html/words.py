"""Text from anywhere as HTML: shown as text, turned by no mark in it, folded where it is long; and tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

FOLD = 600
"""Letters after which a text is folded."""
LONGEST = 20_000
"""Letters of one text that the page holds."""
CELL = 160
"""Letters of a cell of a table; the full record has the rest."""


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def plain(value: object) -> str:
    """Escaped, without control characters; lines stay lines. Half a surrogate pair becomes a question mark."""
    said = str(value)
    if said.isascii() and said.isprintable():
        return escape(said)
    kept = said.encode("utf-8", "replace").decode()
    return escape("".join(one if one.isprintable() or one in "\n\t" or _mark(one) else "\ufffd" for one in kept))


def _mark(letter: str) -> bool:
    """Marks of direction, joiners, white space of other scripts: part of a text, no danger inside <bdi>."""
    return letter > "\x9f" and not "\ue000" <= letter <= "\uf8ff"


def text(value: object) -> Html:
    """Foreign text within a line: isolated, so that nothing after it is turned."""
    return Html(f"<bdi>{plain(str(value)[:LONGEST])}</bdi>")


def short(value: object, letters: int = CELL) -> Html:
    """At most so many letters of it."""
    said = str(value)
    return text(said if len(said) <= letters else said[: letters - 1] + "…")


def folded(value: str) -> Html:
    """A text of any length in a block of its own, the rest of a long one behind a fold."""
    if len(value) <= FOLD:
        return Html(f'<div class="prose"><bdi>{plain(value)}</bdi></div>')
    more = plain(value[FOLD:LONGEST])
    beyond = f" (the first {LONGEST:,})" if len(value) > LONGEST else ""
    return Html(
        f'<div class="prose"><bdi>{plain(value[:FOLD])}…</bdi><details class="fold"><summary>all {len(value):,} letters{beyond}'
        f"</summary><bdi>{more}</bdi></details></div>"
    )


def cell(value: object) -> str:
    """A cell's content: HTML stays, anything else is foreign text."""
    return value if isinstance(value, Html) else "" if value is None else short(value)


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[object]], numbers: Sequence[int] = ()) -> Html:
    """A table that scrolls by itself where it is too wide. numbers: columns that stand right."""
    right = [' class="n"' if index in numbers else "" for index in range(len(head))]
    heads = "".join(f'<th scope="col"{right[index]}>{escape(word)}</th>' for index, word in enumerate(head))
    body = "".join(
        "<tr>" + "".join(f"<td{right[index]}>{cell(value)}</td>" for index, value in enumerate(row)) + "</tr>"
        for row in rows
    )
    return Html(
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table><caption>{escape(caption)}'
        f"</caption><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def link(key: str, words: object) -> Html:
    """A button that opens a full record."""
    return Html(f'<button type="button" class="link" data-key="{plain(key)}">{short(words, 80)}</button>')
