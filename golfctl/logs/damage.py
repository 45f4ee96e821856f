"""Lines that were lines of a log before something was written into them or cut off."""

from __future__ import annotations

import re
from collections import deque

MOST_FORMS, MOST_WAITING, LONGEST_KEPT = 24, 64, 400
LONGEST_INSERT = 6
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?|(?<=[:= ])(?:nan|inf)(?=ms|s\b|\b)")
_HINT = re.compile(r"step|loss|train|val_|time|avg")


def form_of(text: str) -> str:
    """The line with 0 for every number."""
    return _NUMBER.sub("0", text)


def near(form: str, known: str) -> bool:
    """Whether `form` is `known` with a few letters written into one place, or the greater part of it."""
    grown = len(form) - len(known)
    if grown > LONGEST_INSERT:
        return False
    if grown <= 0:
        # A part of it, with or without some of what was written in at the break.
        parts = {(form[: len(form) - extra], form[extra:]) for extra in range(4)} if len(form) * 2 >= len(known) else ()
        return any(known.startswith(head) or known.endswith(tail) for head, tail in parts)
    ahead = 0
    while ahead < len(known) and form[ahead] == known[ahead]:
        ahead += 1
    return form.endswith(known[ahead:])


class Forms:
    """The forms that progress lines have had in a file so far, and lines without one, in case theirs is still to come."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, str]] = {}
        self._often: set[str] = set()
        self._waiting: deque[tuple[int, str, str]] = deque(maxlen=MOST_WAITING)

    def odd(self, line: int, text: str, read: bool) -> list[tuple[int, str]]:
        """(line, text) of lines that look like damaged ones of a known form, now that this line is seen.

        read: it was understood all the same, and its form is learnt if it is sound.
        """
        if read and (not text.isprintable() or "\ufffd" in text):
            return [(line, text)]
        if not read and not _HINT.search(text):
            return []
        form = form_of(text)
        if form in self._known:
            self._often.add(form)
            return []
        if any(near(form, known) for known in self._known):
            return [(line, text)]
        if not read:
            self._waiting.append((line, text[:LONGEST_KEPT], form[:LONGEST_KEPT]))
        elif len(self._known) < MOST_FORMS:
            once = [(known, where) for known, where in self._known.items() if known not in self._often]
            self._known[form] = (line, text)
            waited = [(number, other) for number, other, others in self._waiting if near(others, form)]
            return waited + [where for known, where in once if near(known, form)]
        return []


def grown(text: str, known: str) -> bool:
    """Whether a word is a known one with up to three letters written into one place."""
    return 0 < len(text) - len(known) <= 3 and near(text, known)
