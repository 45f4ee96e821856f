"""Alphabets over the same documents, all lossless: raw bytes, and 1024 sentencepiece pieces trained on the training text.

`trainer.data.caseops` makes two more of them, `trainer.data.alphabets` chooses.

*bytes*: 256 tokens. The stream is the raw text: documents joined by the separator byte 0x00. Every token is one byte of that
text, separators too, so bytes = sum(len(document)) + documents - 1.

*sp1024*: the stream is documents joined by the control token BOS. A piece counts the bytes it decodes to, BOS counts none: it is
no text, but its cost is in the nats. So bytes = sum(len(document)), which is documents - 1 less than for raw bytes: both pay
for saying where a document ends, and sp1024 divides by slightly less (0.3 % on the embedded corpus), never by more.

sentencepiece writes a space as U+2581 and can't tell that from a U+2581 in the text. Here a literal U+2581 is always
spelled by its three byte pieces, and decoding goes through our own table, so decode(encode(text)) == text for every valid
UTF-8 text.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from trainer.contract import SEPARATOR
from trainer.data.errors import DataError

VOCABULARY = 1024
SPACE = "\u2581"


class Tokenizer(Protocol):
    """What every alphabet offers. `bos` is the context of the first token and the mark between documents.

    `separators_are_text`: whether that mark counts as a byte of the text.
    """

    name: str
    vocab_size: int
    bos: int
    sha256: str
    separators_are_text: bool

    def encode(self, documents: Sequence[bytes]) -> np.ndarray:
        """The stream of all documents, uint16 (N,)."""

    def decode(self, tokens: np.ndarray) -> list[bytes]:
        """The documents of a stream."""

    def text(self, tokens: np.ndarray) -> Iterator[bytes]:
        """The raw text of a stream, in pieces."""

    def byte_lengths(self, tokens: np.ndarray) -> np.ndarray:
        """Bytes of text that each token stands for, uint16 (N,)."""


def raw_text(documents: Sequence[bytes]) -> bytes:
    """Documents joined by the separator: the text whose hash is compared across alphabets. Raises DataError if one holds it."""
    for document in documents:
        if SEPARATOR in document:
            raise DataError(f"a document holds the separator byte {SEPARATOR}: {document[:40]!r}")
    return bytes([SEPARATOR]).join(documents)


class Bytes:
    """The raw-bytes alphabet: token = byte."""

    name = "bytes"
    vocab_size = 256
    bos = SEPARATOR
    separators_are_text = True
    sha256 = hashlib.sha256(b"golfctl raw bytes 1").hexdigest()

    def encode(self, documents: Sequence[bytes]) -> np.ndarray:
        return np.frombuffer(raw_text(documents), dtype=np.uint8).astype(np.uint16)

    def decode(self, tokens: np.ndarray) -> list[bytes]:
        return b"".join(self.text(tokens)).split(bytes([SEPARATOR]))

    def text(self, tokens: np.ndarray, block: int = 1 << 20) -> Iterator[bytes]:
        for at in range(0, len(tokens), block):
            yield np.asarray(tokens[at : at + block]).astype(np.uint8).tobytes()

    def byte_lengths(self, tokens: np.ndarray) -> np.ndarray:
        return np.ones(len(tokens), dtype=np.uint16)


class Pieces:
    """A sentencepiece model with byte fallback. Raises DataError if the model can't be read or has no BOS.

    `lossless` is False for models that prepend a space to each document (the contest's): they can be read and their bytes
    counted, the first space of a document being no text, but `encode` refuses.
    """

    name = "sp1024"
    separators_are_text = False
    reserved = SPACE
    """Characters that mean something else to the model; a text that holds them spells them byte by byte."""

    def __init__(self, model: bytes, where: str = "tokenizer model") -> None:
        self._pieces = _load(model, where)
        self.model = model
        self.sha256 = hashlib.sha256(model).hexdigest()
        self.vocab_size = int(self._pieces.get_piece_size())
        self.bos = int(self._pieces.bos_id())
        self.unknown = int(self._pieces.unk_id())
        self.operators: list[int] = []
        """Pieces that act on the text after them and spell none."""
        if self.bos < 0:
            raise DataError(f"{where}: has no BOS piece to stand between documents")
        self.lossless = self._pieces.encode("a", out_type=str)[0] == "a"

    @staticmethod
    def written(text: str) -> str:
        """Text, without reserved characters, as the model reads it."""
        return text

    @cached_property
    def spelling(self) -> list[bytes]:
        """The bytes of each piece; empty for control pieces."""
        pieces = self._pieces
        found = []
        for number in range(self.vocab_size):
            text = pieces.id_to_piece(number)
            if pieces.is_byte(number):
                found.append(bytes([int(text[1:-1], 16)]))
            elif pieces.is_control(number) or pieces.is_unknown(number) or pieces.is_unused(number):
                found.append(b"")
            else:
                found.append(text.replace(SPACE, " ").encode("utf-8"))
        return found

    @cached_property
    def _byte_piece(self) -> list[int]:
        """Byte value to piece number."""
        numbers = [self._pieces.piece_to_id(f"<0x{value:02X}>") for value in range(256)]
        if any(not self._pieces.is_byte(number) for number in numbers):
            raise DataError("tokenizer model: byte fallback is off, so not every text can be written")
        return numbers

    def encode(self, documents: Sequence[bytes]) -> np.ndarray:
        """Raises DataError for a document that is not UTF-8 or holds the separator, and if a round trip fails."""
        if not self.lossless:
            raise DataError("tokenizer model: adds a space to each document, so it can't encode text losslessly")
        stream: list[int] = []
        for index, document in enumerate(documents):
            numbers = self._encode_one(document)
            if (spelled := self.spelled(numbers)) != document:
                raise DataError(f"tokenizer model: turns {document[:40]!r} into {spelled[:40]!r}")
            if index:
                stream.append(self.bos)
            stream.extend(numbers)
        return np.array(stream, dtype=np.uint16)

    def _encode_one(self, document: bytes) -> list[int]:
        text = _utf8(document)
        if "\0" in text:
            raise DataError(f"a document holds the separator byte {SEPARATOR}: {document[:40]!r}")
        numbers: list[int] = []
        for index, part in enumerate(_split(text, self.reserved)):
            if index % 2:
                numbers.extend(self._byte_piece[value] for value in part.encode())
            else:
                numbers.extend(self._pieces.encode(self.written(part)))
        return numbers

    def raw(self, text: str) -> list[int]:
        """The tokens of a text, whatever the model does to it: for asking what that is."""
        return self._encode_one(text.encode()) if self.lossless else list(self._pieces.encode(text))

    def spelled(self, numbers: list[int]) -> bytes:
        """The text of part of a document."""
        return b"".join(map(self.spelling.__getitem__, numbers))

    def decode(self, tokens: np.ndarray) -> list[bytes]:
        """The documents between BOS tokens."""
        return b"".join(self.text(tokens)).split(bytes([SEPARATOR]))

    def text(self, tokens: np.ndarray, block: int = 1 << 20) -> Iterator[bytes]:
        """The raw text of a stream in pieces: each BOS as the separator byte, other control pieces as nothing."""
        spelling = list(self.spelling)
        spelling[self.bos] = bytes([SEPARATOR])
        lengths = self._lengths
        before = self.bos
        for at in range(0, len(tokens), block):
            part = np.asarray(tokens[at : at + block])
            spelled = [spelling[number] for number in part.tolist()]
            if not self.lossless:
                after = lengths[np.concatenate([[before], part[:-1]])] == 0
                for index in np.flatnonzero(after).tolist():
                    spelled[index] = spelled[index].removeprefix(b" ")
            before = int(part[-1])
            yield b"".join(spelled)

    @cached_property
    def _lengths(self) -> np.ndarray:
        return np.array([len(text) for text in self.spelling], dtype=np.uint16)

    def byte_lengths(self, tokens: np.ndarray) -> np.ndarray:
        """Control pieces 0, byte pieces 1, others their UTF-8 length with U+2581 as one space.

        For a model that adds a space, that space right after a boundary (or at the start) is not text: one byte less.
        """
        tokens = np.asarray(tokens)
        lengths = self._lengths
        found = lengths[tokens]
        if not self.lossless and len(tokens):
            spaced = np.array([text.startswith(b" ") for text in self.spelling])
            after = np.concatenate([[True], lengths[tokens[:-1]] == 0])
            found = found - (spaced[tokens] & after).astype(np.uint16)
        return found


def train_pieces(documents: Iterable[bytes], vocabulary: int = VOCABULARY) -> Pieces:
    """A BPE model of `vocabulary` pieces, identity normalisation, one thread (so the result depends on the text alone).

    Raises DataError if the text is too small for that many pieces or not UTF-8.
    """
    return Pieces(train_model(documents, vocabulary, Pieces))


def train_model(documents: Iterable[bytes], vocabulary: int, kind: type[Pieces], operators: str = "") -> bytes:
    """The file of a model for `kind`, in which each character of `operators` is a piece. Raises DataError as `train_pieces`."""
    spm = _sentencepiece()
    lines = (
        line
        for document in documents
        for part in _split(_utf8(document), kind.reserved)[::2]
        # A line keeps its newline, so pieces may end lines but never reach across one.
        for line in kind.written(part).splitlines(keepends=True)
    )
    model = io.BytesIO()
    try:
        spm.SentencePieceTrainer.train(
            sentence_iterator=lines,
            model_writer=model,
            model_type="bpe",
            vocab_size=vocabulary,
            byte_fallback=True,
            character_coverage=0.9995,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            max_sentence_length=1 << 16,
            user_defined_symbols=list(operators),
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise DataError(f"tokenizer of {vocabulary} pieces: {' '.join(str(error).split())}") from None
    return model.getvalue()


def _split(text: str, reserved: str) -> list[str]:
    """Text between reserved characters at even places, those characters at odd ones."""
    return re.split(f"([{reserved}])", text)


def _utf8(document: bytes) -> str:
    try:
        return document.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"a document is not UTF-8 at byte {error.start}: {document[:40]!r}") from None


def _load(model: bytes, where: str) -> Any:
    spm = _sentencepiece()
    pieces = spm.SentencePieceProcessor()
    try:
        loaded = pieces.LoadFromSerializedProto(model)
    except RuntimeError:
        loaded = False
    if not loaded:
        raise DataError(f"{where}: not a sentencepiece model ({len(model)} bytes)")
    return pieces


def _sentencepiece() -> Any:
    """The library, imported on first use; raw bytes work without it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # SWIG types lack __module__ on newer Pythons
            import sentencepiece
    except ImportError:
        raise DataError("TOKENIZER=sp1024 needs the package sentencepiece; bytes and caseops do not") from None
    return sentencepiece
