"""What the tokens of a sentencepiece model do not tell of the text they were made from: asked of the model, and counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from trainer.data.shards import Stream
from trainer.data.tokens import Pieces

PROBES = {
    "spaces at the start and the end of a document": " a ",
    "how many spaces stood in a row": "a  b",
    "tabs": "a\tb",
    "line breaks": "a\nb",
    "compatibility characters (such as ligatures, full-width letters, superscripts)": "ﬁ Ａ ²",
    "whether an accented letter was one character or two": "e\u0301",
    "invisible characters (such as soft hyphens, zero-width spaces)": "a\u00ad\u200bb",
    "control characters": "a\x01\x7fb",
    "U+2581, which is written as a space": "a\u2581b",
}
"""Kind of text to an example. Where a model gives back another text, that kind is lost in its tokens."""


def of_pieces(pieces: Pieces, parts: Mapping[str, Stream]) -> Iterator[str]:
    """Lines: whether text survives this model; each kind that does not, by example; tokens of each part that are no text."""
    lost = dict(changed(pieces))
    yield f"lossless:{'no' if lost else 'yes'}"
    for kind, (given, returned) in lost.items():
        yield f"lost before there were tokens:{kind}, as {given!a} -> {returned!a}"
    for part, stream in parts.items():
        unknown, other = count_silent(pieces, stream)
        if unknown:
            yield f"lost in {part}:{unknown} tokens UNK, each of them text that can't be known"
        if other:
            yield f"dropped from {part}:{other} control tokens other than BOS, which stand for no text"


def changed(pieces: Pieces) -> Iterator[tuple[str, tuple[str, str]]]:
    """Kind of text, and an example with what the model makes of it, for every kind that does not survive."""
    for kind, given in PROBES.items():
        numbers = np.array(pieces.raw(given))
        returned = b"".join(pieces.text(numbers)).decode("utf-8", "replace")
        if returned != given:
            yield kind, (given, returned)


def count_silent(pieces: Pieces, stream: Stream) -> tuple[int, int]:
    """Tokens UNK, and other tokens but BOS that spell nothing and are not the model's case operators."""
    silent = np.array([not spelled for spelled in pieces.spelling])
    silent[[pieces.bos, *pieces.operators]] = False
    unknown = other = 0
    for block in stream.blocks():
        found = block[silent[block]]
        unknown += int((found == pieces.unknown).sum())
        other += int((found != pieces.unknown).sum())
    return unknown, other
