"""Texts as stems, and as concepts named in whatever words. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

SUFFIXES = """
    izations ization izing izer ized ize ational ations ation ating ated ate ments ment ences ence ances ance ions ion ings ing
    edly ed ers er ents ent ants ant ives ive ally al ly es e
"""
GRAMMAR = """
    a about after also an and any are as at be because been before but by can could did do does each every for from had has have
    how if in into is it its may might of on or our own should so some such than that the their them then there these they this
    those through to too until very was we were what when where which while who why will with would
"""
COMMON = """
    all another become better bit bits bpb cost costs fewer first gain gains get gets give gives good help helps here higher hold
    holds instead last less let lets loss lower make makes model models more most much need needs new no not off one only other
    out over per run runs score small still take takes train trained training step steps try two under up use used uses using val
    well without worse
"""
_SUFFIXES = tuple(SUFFIXES.split())
_GRAMMAR = frozenset(GRAMMAR.split())
_COMMON = _GRAMMAR | frozenset(COMMON.split())
_NEGATED = re.compile(
    r"\b(?:no|without|unlike|rather than|instead of|in place of|replac(?:es?|ing)"
    r"|remov(?:es?|ing)|disabl(?:es?|ing)|ablat(?:es?|ing)|undo(?:es|ing)?|gets? rid of|getting rid of"
    r"|(?:turn|switch)(?:es|s|ing)?\s+(?:[\w-]+\s+){0,3}off)\b[^,.;:()\n]*",
    re.I,
)
_CLAUSE = re.compile(r"[.,;:!?()+&\n]+")
_CUT = re.compile(r"\b(?:with|by|through|via)\b", re.I)
_BETWEEN = {1: 0, 2: 2}
"""Other words that may stand between those of a phrase of one and of two words; of a longer one: 1."""


class Words:
    """Concepts and their phrases. `synonyms`: concept to its phrases."""

    def __init__(self, synonyms: Mapping[str, Sequence[str]]) -> None:
        self._phrases: dict[str, list[tuple[frozenset[str], int, str, str]]] = {}
        for concept, phrases in synonyms.items():
            for phrase in phrases:
                found = tokens(phrase)
                for form in (_content(found), [stem("".join(found))]):
                    for word in set(form):
                        entry = (frozenset(form), len(form) + _BETWEEN.get(len(form), 1), concept, phrase)
                        self._phrases.setdefault(word, []).append(entry)

    def find(self, text: str) -> dict[str, str]:
        """Concept to the phrase that named it. What a text says it does without is left out.

        A phrase is there when all its words stand together in one clause, in any order, with few others in between.
        """
        found: dict[str, str] = {}
        for clause in _CLAUSE.split(_affirmed(text)):
            stems = _content(tokens(clause))
            for index, word in enumerate(stems):
                for form, reach, concept, phrase in self._phrases.get(word, ()):
                    if concept not in found and form.issubset(stems[index : index + reach]):
                        found[concept] = phrase
        return found


def telling(text: str) -> dict[str, str]:
    """Stem to word, for the words that tell what a text is about."""
    return {stem(token): token for token in tokens(text) if token not in _COMMON}


def tokens(text: str) -> list[str]:
    """Words and numbers in lower case, in American spelling where that is a matter of -ise and -isation."""
    return re.findall(
        r"[a-z]+|[0-9]+", text.lower().replace("²", "2").replace("ise", "ize").replace("isation", "ization")
    )


@lru_cache(maxsize=65536)
def stem(word: str) -> str:
    """A word without its ending, so that looping, looped and loops are one. Rough, and the same for all texts."""
    if len(word) <= 3 or word.isdigit():
        return word
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            word = word[: -len(suffix)]
            break
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] else word


def _content(found: Iterable[str]) -> list[str]:
    """Stems, without the words that only hold a sentence together."""
    return [stem(token) for token in found if token not in _GRAMMAR]


def _affirmed(text: str) -> str:
    """The text without what it sets itself apart from: `instead of X`, `without X`, `remove X`; `replaces X by Y` keeps Y.

    `drop X` and `strip X` are left alone: what they take out (weights, steps, bytes) is often the idea itself.
    """
    return _NEGATED.sub(lambda match: " " + " ".join(_CUT.split(match[0])[1:]), text)
