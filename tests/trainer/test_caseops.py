"""Case set apart: nothing lost, every byte counted once."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.tiny import text
from trainer.data import caseops, shards, tokens
from trainer.data.caseops import ALLCAPS, CAPNEXT, OPERATORS, PRIVATE, TITLE, CaseBytes, CasePieces
from trainer.data.dataset import open_dataset
from trainer.data.errors import DataError

SAMPLE = [text(4000, seed) + b"\n    The NASA launched an iPhone\n\tcaf\xc3\xa9 \xef\xbf\xbd\n" for seed in range(5)]
PIECES = caseops.train_pieces(SAMPLE, 330)
ALPHABETS = [CaseBytes(), PIECES]
NAMES = ["bytes", "pieces"]
TRICKY = ["A", "a", "Ab", "AB", "aB", "ABc", "É", "éA", "Éa", "ß", "İ", "ǅ", "ﬀ", "K", " ", "\n", "\r", "▁", "😀"]
TRICKY += [
    "👩\u200d👩\u200d👧",
    *OPERATORS,
    *PRIVATE,
    "\ue003",
    "\x01",
    "\x7f",
    "\u2028",
    "<s>",
    "I",
    "Z",
    "[",
    "@",
    "`",
    "{",
]


def random_text(draw: random.Random) -> str:
    """Up to 12 parts: letters, tricky strings, any character but a surrogate or the separator."""
    parts = []
    for _ in range(draw.randrange(13)):
        kind = draw.random()
        if kind < 0.45:
            parts.append("".join(draw.choices("abcdeABCDE", k=draw.randrange(1, 5))))
        elif kind < 0.8:
            parts.append(draw.choice(TRICKY))
        else:
            number = draw.randrange(1, 0x110000 - 0x800)
            parts.append(chr(number if number < 0xD800 else number + 0x800))
    return "".join(parts)


def check_round_trip(alphabet: tokens.Tokenizer, documents: list[bytes]) -> None:
    """The documents come back; each token's bytes sum to the text."""
    stream = alphabet.encode(documents)
    assert stream.dtype == np.uint16
    assert alphabet.decode(stream) == documents
    lengths = alphabet.byte_lengths(stream)
    silent = 0 if alphabet.separators_are_text else len(documents) - 1
    assert len(lengths) == len(stream)
    assert int(lengths.sum(dtype=np.int64)) == len(tokens.raw_text(documents)) - silent


@pytest.mark.parametrize(
    ("raw", "written"),
    [
        ("The NASA Launch", f"{TITLE}the{ALLCAPS} nasa{TITLE} launch"),
        ("iPhone OpenAI", f"i{CAPNEXT}phone {CAPNEXT}open{CAPNEXT}a{CAPNEXT}i"),
        ("I AM", f"{TITLE}i{ALLCAPS} am"),
        ("x2Y  Z", f"x2{TITLE}y {TITLE} z"),
        ("abc", "abc"),
        ("", ""),
    ],
)
def test_caseops_write_what_the_definition_says(raw, written):
    """TITLE, ALLCAPS, CAPNEXT; a digit ends a run."""
    assert caseops.write(raw) == written
    assert caseops.read(written) == raw
    assert not any(letter.isupper() for letter in caseops.write(raw) if letter not in OPERATORS)


@pytest.mark.parametrize("alphabet", ALPHABETS, ids=NAMES)
def test_caseops_round_trip_of_20000_random_texts(alphabet):
    """Unicode, control characters, emoji, what looks like operators; in documents of random number."""
    draw = random.Random(7)
    for _ in range(200):
        check_round_trip(alphabet, [random_text(draw).encode() for _ in range(100)])


@pytest.mark.soak
@pytest.mark.parametrize("alphabet", ALPHABETS, ids=NAMES)
def test_caseops_round_trip_of_a_million_random_texts(alphabet):
    """The same, for longer."""
    draw = random.Random(8)
    for _ in range(1000):
        check_round_trip(alphabet, [random_text(draw).encode() for _ in range(1000)])


@settings(deadline=None, max_examples=200)
@given(st.lists(st.binary(max_size=30).map(lambda raw: raw.replace(b"\0", b"A")), min_size=1, max_size=4))
def test_caseops_over_bytes_need_no_utf8(documents):
    """Any bytes at all."""
    check_round_trip(CaseBytes(), documents)


@pytest.mark.parametrize("alphabet", ALPHABETS, ids=NAMES)
@pytest.mark.parametrize(
    "documents",
    [[""], ["", ""], ["😀"], ["  Leading", " two  Spaces "], ["Hi 😀 THERE", "", "iPad"], [PRIVATE + "A"], ["A" * 999]],
)
def test_caseops_count_every_byte_once(alphabet, documents):
    """Emoji, leading spaces, empty documents, the operators' own code points."""
    check_round_trip(alphabet, [document.encode() for document in documents])


@pytest.mark.parametrize("alphabet", ALPHABETS, ids=NAMES)
def test_caseops_charge_no_byte_to_an_operator(alphabet):
    """Of the tokens of "NASA nasa" the operator alone is free, and the rest costs as for the small letters."""
    loud, small = alphabet.encode([b"NASA nasa"]), alphabet.encode([b"nasa nasa"])
    lengths = alphabet.byte_lengths(loud)
    assert len(loud) == len(small) + 1
    assert lengths[0] == 0
    assert (lengths[1:] == alphabet.byte_lengths(small)).all()


@pytest.mark.parametrize("alphabet", ALPHABETS, ids=NAMES)
def test_caseops_text_in_blocks_is_the_text(alphabet):
    """A block border between operator and letter, or within a run of capitals, changes nothing."""
    documents = [b"The NASA", b"", b"iPhone \xf0\x9f\x98\x80 ABCDEF", b"Z"]
    stream = alphabet.encode(documents)
    for block in (1, 2, 3, 5, 1000):
        assert b"".join(alphabet.text(stream, block)) == b"\0".join(documents)


def test_caseops_stream_cut_off_after_an_operator_is_read():
    """Part of a stream is text as well: an operator without its letter is nothing."""
    stream = CaseBytes().encode([b"see NASA"])
    assert b"".join(CaseBytes().text(stream[:5])) == b"see "
    assert b"".join(CaseBytes().text(stream[5:])) == b"nasa"


def test_caseops_pieces_are_deterministic_and_refuse_plain_models():
    """The same text, the same model; one without the operators is not for them."""
    assert caseops.train_pieces(SAMPLE, 330).sha256 == PIECES.sha256
    assert PIECES.vocab_size == 330
    with pytest.raises(DataError, match=r"plain\.model: no lossless model with the case operators"):
        CasePieces(tokens.train_pieces(SAMPLE, 330).model, "plain.model")


def test_caseops_spend_fewer_pieces_on_words_in_two_cases():
    """What they are for: "The" and "the", "MAT" and "mat" share their pieces."""
    words = text(20000, 1).split(b" ")
    draw = random.Random(1)
    mixed = [b" ".join(draw.choice((w, w.title(), w.upper())) for w in words[i : i + 100]) for i in range(0, 4000, 100)]
    cased = caseops.train_pieces(mixed, 330)
    lower = {spelled for spelled in cased.spelling if len(spelled) > 1}
    assert b"cat" in lower
    assert not any(spelled.lower() != spelled for spelled in lower)


@pytest.mark.parametrize("tokenizer", ["caseops", "sp1024caseops"])
def test_dataset_in_caseops_states_the_same_text(tmp_path, monkeypatch, tokenizer):
    """Streams, sidecar and hash from files of text; the hash is that of raw bytes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "data"
    folder.mkdir()
    documents = [text(500, seed).replace(b" ", b" X%d\nThe " % (seed % 900), 30) for seed in range(900)]
    (folder / "train.txt").write_bytes(b"\0".join(documents))
    (folder / "val.txt").write_bytes(b"\0".join(documents[:7]))
    raw, cased = open_dataset(str(folder), "bytes"), open_dataset(str(folder), tokenizer)
    assert raw.val_text_sha256 == cased.val_text_sha256
    silent = 0 if tokenizer == "caseops" else 6
    assert int(cased.val_bytes.sum()) == int(raw.val_bytes.sum()) - silent
    assert (cased.vocab_size, cased.bos) == ((259, 0) if tokenizer == "caseops" else (1024, 1))
    assert (cased.val_bytes[np.asarray(cased.val) >= 256] == 0).all() or tokenizer != "caseops"
    assert cased.text("val") == raw.text("val")


def test_caseops_shards_are_read_in_place(tmp_path, monkeypatch):
    """Contest layout with 259 tokens: the text and its bytes are those of the documents."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "data"
    folder.mkdir()
    documents = [b"The NASA " + text(300, seed) for seed in range(20)]
    stream = CaseBytes().encode([b"", *documents])
    shards.write(folder / "fineweb_train_000000.bin", stream)
    shards.write(folder / "fineweb_val_000000.bin", stream)
    data = open_dataset(str(folder), "caseops")
    assert data.text("val") == b"\0".join(documents)
    assert int(data.val_bytes.sum()) == len(b"\0".join(documents))
