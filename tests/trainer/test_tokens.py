"""Two alphabets, both lossless."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.tiny import text
from trainer.data import tokens
from trainer.data.errors import DataError

SAMPLE = [text(4000, seed) + b"\n    indented  twice\n\tand  so on \xe2\x96\x81 caf\xc3\xa9\n" for seed in range(5)]
PIECES = tokens.train_pieces(SAMPLE, 320)
ALPHABETS = [tokens.Bytes(), PIECES]

DOCUMENT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40) | st.text(
    st.sampled_from(" \n\t▁aethcd.<>s0x41😀é\r\u2028ß中"), max_size=40
)
DOCUMENTS = st.lists(DOCUMENT.map(str.encode), min_size=1, max_size=6)


@pytest.mark.parametrize("alphabet", ALPHABETS, ids=["bytes", "pieces"])
@settings(deadline=None, max_examples=200)
@given(documents=DOCUMENTS)
def test_decode_of_encode_is_the_text(alphabet, documents):
    """Any unicode: emoji, leading and doubled spaces, empty documents, newlines, a literal U+2581."""
    stream = alphabet.encode(documents)
    assert stream.dtype == np.uint16
    assert alphabet.decode(stream) == documents


@settings(deadline=None, max_examples=200)
@given(DOCUMENTS)
def test_byte_lengths_sum_to_the_text(documents):
    """Raw bytes count the separators, pieces do not: documents - 1 apart, exactly."""
    raw = tokens.raw_text(documents)
    for alphabet, silent in ((tokens.Bytes(), 0), (PIECES, len(documents) - 1)):
        stream = alphabet.encode(documents)
        lengths = alphabet.byte_lengths(stream)
        assert len(lengths) == len(stream)
        assert int(lengths.sum()) == len(raw) - silent
    assert (lengths[stream == PIECES.bos] == 0).all()


@pytest.mark.parametrize("tricky", ["▁", " ▁ ", "<s>", "</s>", "<unk>", "<0x41>", "  a", "a  ", "\r\n", "😀" * 9])
def test_text_that_looks_like_pieces_survives(tricky):
    """Names of control and byte pieces are plain text."""
    stream = PIECES.encode([tricky.encode(), b"end"])
    assert PIECES.decode(stream) == [tricky.encode(), b"end"]
    assert (stream == PIECES.bos).sum() == 1


@pytest.mark.parametrize("alphabet", ALPHABETS, ids=["bytes", "pieces"])
def test_document_with_a_separator_is_refused(alphabet):
    """It would come back as two documents."""
    with pytest.raises(DataError, match="separator byte 0"):
        alphabet.encode([b"fine", b"not\0fine"])


def test_pieces_refuse_what_is_not_utf8():
    """One line that says where."""
    with pytest.raises(DataError, match="not UTF-8 at byte 3"):
        PIECES.encode([b"abc\xff"])


def test_pieces_text_in_blocks_is_the_text():
    """Block borders change nothing, wherever they fall."""
    documents = [b"one cat", b"", b" two dogs \xf0\x9f\x98\x80"]
    stream = PIECES.encode(documents)
    for block in (1, 2, 3, 1000):
        assert b"".join(PIECES.text(stream, block)) == b"\0".join(documents)


def test_pieces_training_is_deterministic_and_shortens():
    """The same text gives the same model, another text another; pieces beat bytes on it."""
    assert tokens.train_pieces(SAMPLE, 320).sha256 == PIECES.sha256
    assert tokens.train_pieces(SAMPLE[:4], 320).sha256 != PIECES.sha256
    assert PIECES.vocab_size == 320
    assert len(PIECES.encode(SAMPLE)) < 0.6 * len(tokens.raw_text(SAMPLE))


def test_pieces_need_enough_text():
    """Too little text for the vocabulary is the user's problem, said in one line."""
    with pytest.raises(DataError, match="tokenizer of 1024 pieces") as caught:
        tokens.train_pieces([b"far too little"], 1024)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("model", [b"", b"\xff" * 50, b"no model"])
def test_damaged_model_is_refused(model):
    """The file is named."""
    with pytest.raises(DataError, match=r"here\.model: not a sentencepiece model"):
        tokens.Pieces(model, "here.model")


def contest_model() -> tokens.Pieces:
    """As the contest's: normalising, and with a space put before each document."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([text(4000, seed).decode() for seed in range(5)]),
        model_writer=model,
        model_type="bpe",
        vocab_size=300,
        byte_fallback=True,
        minloglevel=2,
    )
    return tokens.Pieces(model.getvalue())


def test_contest_model_counts_the_space_it_adds_as_nothing():
    """The canonical table: length without the mark, plus 1 for a space unless a boundary stands before it."""
    pieces = contest_model()
    assert not pieces.lossless
    documents = [b"the cat sat", b"on a mat \xf0\x9f\x98\x80 and", b"ran"]
    stream: list[int] = []
    for document in documents:
        stream += [pieces.bos, *pieces._pieces.encode(document.decode())]
    lengths = pieces.byte_lengths(np.array(stream))
    assert int(lengths.sum()) == sum(map(len, documents))
    assert pieces.decode(np.array(stream[1:])) == documents
    by_hand, boundary = 0, True
    for number in stream:
        piece = pieces._pieces.id_to_piece(number)
        if pieces._pieces.is_byte(number):
            by_hand += 1
        elif not pieces._pieces.is_control(number):
            by_hand += len(piece.removeprefix("▁").encode()) + (piece.startswith("▁") and not boundary)
        boundary = pieces._pieces.is_control(number)
    assert by_hand == int(lengths.sum())


def test_contest_model_refuses_to_encode():
    """It normalises, so a round trip can't be promised."""
    with pytest.raises(DataError, match="can't encode text losslessly"):
        contest_model().encode([b"text"])
