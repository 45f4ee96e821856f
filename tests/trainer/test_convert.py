"""Tokens to text to other tokens: the same text, or a line that says what is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.trainer.test_tokens import contest_model
from tests.trainer.tiny import text
from trainer.data import __main__ as command
from trainer.data import convert as module
from trainer.data import shards, tokens
from trainer.data.alphabets import trained
from trainer.data.byte260 import Byte260
from trainer.data.convert import convert, split_documents
from trainer.data.dataset import open_dataset
from trainer.data.errors import DataError
from trainer.options.data import TOKENIZERS

DOCUMENTS = [
    *(text(700, seed).replace(b" ", b" The X%d\nNASA " % (seed * 7919), 30) for seed in range(400)),
    b"",
    b"  leading \xf0\x9f\x98\x80 spaces  ",
    b"",
    "caf\u00e9 \u2581 \ue000 \ufb01".encode(),
]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """No test touches the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def text_folder(folder: Path, documents: list[bytes] = DOCUMENTS) -> Path:
    folder.mkdir()
    (folder / "train.txt").write_bytes(b"\0".join(documents))
    (folder / "val.txt").write_bytes(b"\0".join(documents[::-1][:9]))
    return folder


def contents(folder: Path, pattern: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob(pattern))}


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_convert_gives_the_text_back(tmp_path, kind, monkeypatch):
    """Text -> shards -> text, and through other tokens to the same shards; several shards; what it makes can be trained on."""
    monkeypatch.setattr(module, "SHARD_TOKENS", 60_000)
    source = text_folder(tmp_path / "text")
    said: list[str] = []
    convert(source, tmp_path / "shards", "bytes", kind, None, said.append)
    convert(tmp_path / "shards", tmp_path / "back", kind, "text", None, said.append)
    assert contents(tmp_path / "back", "*.txt") == contents(source, "*.txt")
    assert len(contents(tmp_path / "shards", "fineweb_train_*.bin")) > 1
    assert said[0] == "lossless:yes"
    assert f"documents:{len(DOCUMENTS)} bytes:{len((source / 'train.txt').read_bytes())}" in said[1]
    data = open_dataset(str(tmp_path / "shards"), kind)
    assert data.val_text_sha256 == open_dataset(str(source), kind).val_text_sha256
    other = "caseops" if kind == "bytes" else "bytes"
    convert(tmp_path / "shards", tmp_path / "other", kind, other, None, said.append)
    model = tmp_path / "shards" / "tokenizer.model"
    convert(tmp_path / "other", tmp_path / "again", other, kind, model if model.exists() else None, said.append)
    assert contents(tmp_path / "again", "*.bin") == contents(tmp_path / "shards", "*.bin")


def test_convert_over_bytes_keeps_what_is_no_utf8(tmp_path):
    """Any bytes at all, between bytes and caseops."""
    source = text_folder(tmp_path / "text", [bytes(range(1, 256)), b"\xff\xfeA", b"\xf0\x9f"])
    convert(source, tmp_path / "a", "bytes", "caseops", None, print)
    convert(tmp_path / "a", tmp_path / "b", "caseops", "bytes", None, print)
    convert(tmp_path / "b", tmp_path / "c", "bytes", "text", None, print)
    assert contents(tmp_path / "c", "*.txt") == contents(source, "*.txt")
    with pytest.raises(DataError, match="not UTF-8"):
        convert(tmp_path / "b", tmp_path / "d", "bytes", "sp1024", None, print)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == ["a", "b", "c", "text"]


def test_convert_reads_the_contests_byte_shards(tmp_path):
    """Byte b is token b + 4, BOS 1 before each document, control tokens are no text."""
    folder = tmp_path / "shards"
    folder.mkdir()
    stream = [1, *(byte + 4 for byte in b"one"), 2, 1, *(byte + 4 for byte in b"two \xf0"), 1]
    for part in ("train", "val"):
        shards.write(folder / f"fineweb_{part}_000000.bin", np.array(stream))
    convert(folder, tmp_path / "text", "byte260", "text", None, print)
    assert (tmp_path / "text" / "val.txt").read_bytes() == b"one\0two \xf0\0"
    assert int(Byte260().byte_lengths(np.array(stream)).sum()) == 8
    shards.write(folder / "fineweb_val_000000.bin", np.array([1, 4, 5]))
    with pytest.raises(DataError, match="1 of the bytes 0 in val are text of a document"):
        convert(folder, tmp_path / "more", "byte260", "text", None, print)


def contest_folder(folder: Path) -> tokens.Pieces:
    """Shards of a normalising model, as the contest's."""
    folder.mkdir()
    pieces = contest_model()
    stream = [token for one in DOCUMENTS for token in (pieces.bos, *pieces.raw(one.decode()))]
    stream.insert(5, pieces.unknown)
    for part in ("train", "val"):
        shards.write(folder / f"fineweb_{part}_000000.bin", np.array(stream))
    (folder / "contest.model").write_bytes(pieces.model)
    return pieces


def test_convert_says_what_a_normalising_model_has_lost(tmp_path):
    """By example, and by count; what is left converts to other tokens and stays the same."""
    pieces = contest_folder(tmp_path / "contest")
    said: list[str] = []
    convert(tmp_path / "contest", tmp_path / "text", "pieces", "text", None, said.append)
    assert said[0] == "lossless:no"
    assert "lost before there were tokens:how many spaces stood in a row, as 'a  b' -> 'a b'" in said
    assert "lost before there were tokens:line breaks, as 'a\\nb' -> 'a b'" in said
    assert any("ligatures" in line and "'fi A 2'" in line for line in said)
    assert "lost in train:1 tokens UNK, each of them text that can't be known" in said
    written = (tmp_path / "text" / "val.txt").read_bytes().split(b"\0")
    assert len(written) == len(DOCUMENTS)
    assert written[1] == b" ".join(DOCUMENTS[1].split())
    convert(tmp_path / "contest", tmp_path / "bytes", "pieces", "bytes", None, said.append)
    convert(tmp_path / "bytes", tmp_path / "same", "bytes", "text", None, said.append)
    assert contents(tmp_path / "same", "*.txt") == contents(tmp_path / "text", "*.txt")
    model = tmp_path / "contest" / "contest.model"
    with pytest.raises(DataError, match="300 pieces, TOKENIZER=sp1024 means 1024"):
        convert(tmp_path / "text", tmp_path / "no", "bytes", "sp1024", model, said.append)
    assert not pieces.lossless


def test_convert_of_own_pieces_loses_nothing(tmp_path):
    """No kind of text is lost, control tokens would be said."""
    for kind in ("sp1024", "sp1024caseops"):
        alphabet = trained(kind, DOCUMENTS)
        folder = tmp_path / kind
        folder.mkdir()
        stream = np.concatenate([[alphabet.bos], alphabet.encode(DOCUMENTS[-4:]), [2, 2]])
        for part in ("train", "val"):
            shards.write(folder / f"fineweb_{part}_000000.bin", stream)
        (folder / "a.model").write_bytes(alphabet.model)
        said: list[str] = []
        convert(folder, tmp_path / f"{kind}-text", kind, "text", None, said.append)
        assert said[:2] == [
            "lossless:yes",
            "dropped from train:2 control tokens other than BOS, which stand for no text",
        ]
        assert (tmp_path / f"{kind}-text" / "val.txt").read_bytes() == b"\0".join(DOCUMENTS[-4:])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{text}", "{text}", "--to", "bytes"], "exists; name a folder that does not"),
        (["{text}", "{new}", "--to", "words"], "TOKENIZER=words: allowed are"),
        (["{text}", "{new}", "--from", "words", "--to", "text"], "--from words: allowed are"),
        (["{none}", "{new}", "--to", "text"], "needs train.txt and val.txt"),
        (["{text}", "{new}", "--to", "bytes", "--model", "x.model"], "bytes has no pieces"),
        (["{text}", "{new}", "--to", "sp1024", "--model", "x.model"], "x.model: No such file"),
    ],
)
def test_convert_refuses_in_one_line(tmp_path, capsys, arguments, message):
    """Exit 2, and no folder."""
    text_folder(tmp_path / "text")
    words = [word.format(text=tmp_path / "text", new=tmp_path / "new", none=tmp_path / "none") for word in arguments]
    assert command.main(["convert", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["text"]


def test_convert_never_keeps_text_that_changed(tmp_path, monkeypatch):
    """An alphabet that loses something (a bug) is caught by reading back."""
    source = text_folder(tmp_path / "text")
    monkeypatch.setattr(tokens.Bytes, "encode", lambda self, documents: tokens.raw_text(documents) and np.full(9, 65))
    with pytest.raises(DataError, match="does not survive in bytes"):
        convert(source, tmp_path / "new", "bytes", "bytes", None, print)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_split_documents_wherever_blocks_end(size):
    """Empty documents, at the ends too."""
    whole = b"\0one\0\0two\0"
    blocks = [whole[at : at + size] for at in range(0, len(whole), size)]
    assert list(split_documents(blocks)) == whole.split(b"\0")
