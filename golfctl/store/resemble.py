"""How much a new idea resembles known ones: words, synonyms of the field, settings. Pure: no files, no ledger.

Two ways lead to a match. A known idea may say what it is *about*, in concepts of the synonym table: a plan that names them all,
in whatever words, resembles it. And every pair has a TF-IDF cosine over stems, concepts and settings, for ideas nobody has
described that way. A match is strong where the plan's own title, tags or settings name the known idea, and the circumstances
under which it failed are the plan's, too; or where it repeats the known settings to the letter.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from golfctl.store.words import Words, telling

ALIKE = 0.50
"""Cosine from which two ideas are told to resemble each other although no concept says so."""
SAME = 0.70
"""Cosine from which they count as the same idea."""
_OFF = frozenset({"0", "", "false", "off", "none", "0.0"})
_LIMIT = re.compile(r"(<=|>=|<|>)\s*([-+0-9.eE]+)")


@dataclass(frozen=True)
class Idea:
    """What a plan says of itself. settings: name to value, as its process sees them."""

    title: str
    text: str = ""
    tags: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def head(self) -> str:
        """Title, tags and settings: what the idea is, not what it also speaks of."""
        return "\n".join((self.title, *self.tags, _named(self.settings)))


@dataclass(frozen=True)
class Known:
    """An idea to be recognised. about: concepts that make it up. under: the circumstances in which it failed, as concepts.

    limits: setting to a condition such as `> 10240`; a plan that sets one so repeats the idea, one that sets it to something
    else is outside of what failed. contested: it works elsewhere; no match with it is strong. guessed: `about` was read off
    its own words; naming it is no reason for a strong match.
    """

    id: str
    idea: Idea
    about: tuple[str, ...] = ()
    under: tuple[str, ...] = ()
    limits: Mapping[str, str] = field(default_factory=dict)
    contested: bool = False
    guessed: bool = False


@dataclass(frozen=True)
class Match:
    """score: larger is more alike; it orders matches and means nothing else. shared: what both speak of, for people."""

    id: str
    score: float
    strong: bool
    shared: tuple[str, ...]


class Memory:
    """Known ideas, ready to be compared with."""

    def __init__(self, known: Iterable[Known], words: Words) -> None:
        self._known, self._words = list(known), words
        vectors = [self._vector(item.idea) for item in self._known]
        seen = Counter(feature for vector in vectors for feature in vector)
        total = len(self._known) + 1
        self._rarity = {feature: math.log(total / (0.5 + count)) for feature, count in seen.items()}
        self._unknown = math.log(total / 1.5)  # a word no known idea uses is as rare as one that a single idea uses
        self._vectors = [_unit(self._weighted(vector)) for vector in vectors]

    def rank(self, idea: Idea) -> list[Match]:
        """What the idea resembles, the most alike first."""
        named = self._words.find(idea.head)
        anywhere = self._words.find(idea.text) | named
        pairs = zip(self._known, self._likeness(idea), strict=True)
        matches = (_match(idea, item, likeness, named, anywhere) for item, likeness in pairs)
        return sorted((match for match in matches if match), key=lambda match: (-match.score, match.id))

    def nearest(self, idea: Idea) -> list[str]:
        """Ids of all that have anything in common with the idea, the most alike first: for a search, not for a reminder."""
        found = sorted((-likeness, item.id) for item, likeness in zip(self._known, self._likeness(idea), strict=True))
        return [name for likeness, name in found if likeness < 0]

    def _likeness(self, idea: Idea) -> list[float]:
        """The cosine with each known idea, 0 to 1."""
        mine = _unit(self._weighted(self._vector(idea)))
        return [sum(value * vector[name] for name, value in mine.items() if name in vector) for vector in self._vectors]

    def _vector(self, idea: Idea) -> dict[str, float]:
        """Weights of the idea's stems, concepts (`#name`) and settings (`NAME`, `NAME=value`)."""
        weights: dict[str, float] = {}
        parts = ((idea.title, 1.0), (" ".join(idea.tags), 1.0), (_named(idea.settings), 0.7), (idea.text, 0.5))
        for text, weight in parts:
            for word in telling(text):
                weights[word] = max(weights.get(word, 0.0), weight)
            for concept in self._words.find(text):
                weights[f"#{concept}"] = max(weights.get(f"#{concept}", 0.0), 2.0 * weight)
        for name, value in idea.settings.items():
            weights |= {name: 1.0, f"{name}={value}": 1.0}
        return weights

    def _weighted(self, vector: Mapping[str, float]) -> dict[str, float]:
        return {feature: weight * self._rarity.get(feature, self._unknown) for feature, weight in vector.items()}


def _match(
    idea: Idea, item: Known, likeness: float, named: Mapping[str, str], anywhere: Mapping[str, str]
) -> Match | None:
    limited = _limited(idea.settings, item.limits)
    whole = limited is True or (bool(item.about) and all(concept in anywhere for concept in item.about))
    before = item.idea.settings
    # Every known setting is set to the known value again, and nothing else is set.
    repeated = bool(before) and dict(idea.settings) == dict(before)
    another_value = any(idea.settings[name] != value for name, value in before.items() if name in idea.settings)
    if not (whole or repeated or likeness >= ALIKE):
        return None
    circumstances = [concept for concept in item.under if concept in anywhere]
    in_head = limited is True or (whole and all(concept in named for concept in item.about))
    described = bool(item.about) and not item.guessed
    stated = described and in_head and len(circumstances) == len(item.under)
    same = repeated or stated or (likeness >= SAME and not described and not another_value)
    strong = same and limited is not False and not item.contested
    share = len(circumstances) / len(item.under) if item.under else 0.5
    # A known idea with more to it is the better answer where all of it is there.
    score = likeness + (0.6 + 0.2 * in_head + 0.2 * share + 0.1 * len(item.about) if whole else 0.0) + repeated
    return Match(item.id, round(score, 3), strong, _shared(idea, item, anywhere))


def _shared(idea: Idea, item: Known, anywhere: Mapping[str, str]) -> tuple[str, ...]:
    """What both speak of: concepts and settings, else words."""
    both = [_spoken(concept, anywhere[concept]) for concept in (*item.about, *item.under) if concept in anywhere]
    names = [name for name in (*item.limits, *item.idea.settings) if name in idea.settings]
    both += [f"{name}={idea.settings[name]}" for name in dict.fromkeys(names)]
    if both:
        return tuple(both)
    theirs = telling(f"{item.idea.title} {item.idea.text}")
    return tuple(word for root, word in telling(f"{idea.title} {idea.text}").items() if root in theirs)[:4]


def _spoken(concept: str, phrase: str) -> str:
    name = concept.replace("-", " ")
    return name if telling(name).keys() == telling(phrase).keys() else f"{name} ({phrase})"


def _limited(mine: Mapping[str, str], limits: Mapping[str, str]) -> bool | None:
    """True: the plan sets one of these to what failed. False: it sets one, to something else. None: it touches none."""
    touched = [_holds(mine[name], condition) for name, condition in limits.items() if name in mine]
    return any(touched) if touched else None


def _holds(value: str, condition: str) -> bool:
    match = _LIMIT.fullmatch(condition)
    assert match, f"{condition!r} is no limit; write '> 10240'"
    try:
        number = float(value)
    except ValueError:
        return False
    bound = float(match[2])
    return {"<": number < bound, "<=": number <= bound, ">": number > bound, ">=": number >= bound}[match[1]]


def _named(settings: Mapping[str, str]) -> str:
    """Names of settings as words; a switch that is off names nothing."""
    return "\n".join(name.replace("_", " ") for name, value in settings.items() if value.lower() not in _OFF)


def _unit(vector: Mapping[str, float]) -> dict[str, float]:
    length = math.sqrt(sum(value * value for value in vector.values())) or 1.0
    return {name: value / length for name, value in vector.items()}
