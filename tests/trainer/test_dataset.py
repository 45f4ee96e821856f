"""Opening data: prepared once, verified always."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tests.trainer.tiny import call, environment, text, text_folder
from trainer.data import prepare, shards, tokens
from trainer.data.convert import convert
from trainer.data.dataset import open_dataset
from trainer.data.errors import DataError
from trainer.data.files import sha256_of_file


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """No test touches the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def shard_folder(folder, alphabet, documents: int = 40):
    """Contest layout: two training shards, one validation shard, BOS before each document."""
    folder.mkdir()
    texts = [text(300, seed) for seed in range(documents + 3)]
    train, val = (
        np.concatenate([np.concatenate([[alphabet.bos], alphabet.encode([one])]) for one in part])
        for part in (texts[3:], texts[:3])
    )
    half = len(train) // 2
    for name, part in (("train_000000", train[:half]), ("train_000001", train[half:]), ("val_000000", val)):
        shards.write(folder / f"fineweb_{name}.bin", part)
    return folder, train, val, texts


def test_text_folder_becomes_three_streams(tmp_path):
    """val is val.txt to the byte; train and tune together are train.txt, apart from the separator at the cut."""
    folder = text_folder(tmp_path / "data")
    data = open_dataset(str(folder), "bytes")
    whole = (folder / "train.txt").read_bytes()
    assert bytes(data.val.astype(np.uint8)) == (folder / "val.txt").read_bytes()
    assert bytes(data.train.astype(np.uint8)) + b"\0" + bytes(data.tune.astype(np.uint8)) == whole
    assert 0.03 < len(data.tune) / len(whole) < 0.1
    assert data.vocab_size == 256
    assert (data.val_bytes == 1).all()
    assert (data.text("train"), data.text("val")) == (
        bytes(data.train.astype(np.uint8)),
        bytes(data.val.astype(np.uint8)),
    )


@pytest.mark.parametrize("end", [b"", b"\0", b"\0\0"])
def test_text_ends_alike_in_a_folder_and_in_its_shards(tmp_path, end):
    """Separators at the end are text: nothing is stripped from one form that the other keeps."""
    folder = text_folder(tmp_path / "data")
    whole = b"\0abc\0\0def" + end
    (folder / "val.txt").write_bytes(whole)
    convert(folder, tmp_path / "shards", "bytes", "bytes", None, print)
    held, made = open_dataset(str(folder), "bytes"), open_dataset(str(tmp_path / "shards"), "bytes")
    assert held.val_text_sha256 == made.val_text_sha256 == hashlib.sha256(whole).hexdigest()
    assert (held.val_sha256, len(held.val)) == (made.val_sha256, len(made.val))
    assert open_dataset(str(folder), "caseops").val_text_sha256 == held.val_text_sha256


def test_both_tokenizers_state_the_same_text_hash(tmp_path):
    """Scores of two alphabets are comparable because the text is one; boundaries are the only difference in bytes."""
    folder = tmp_path / "data"
    folder.mkdir()
    lines = [text(500, seed).replace(b" ", b" x%d\n" % (seed % 900), 30) for seed in range(900)]
    (folder / "train.txt").write_bytes(b"\0".join(lines))
    (folder / "val.txt").write_bytes(b"\0".join(lines[:7]))
    raw, pieces = open_dataset(str(folder), "bytes"), open_dataset(str(folder), "sp1024")
    assert raw.val_text_sha256 == pieces.val_text_sha256
    assert raw.val_sha256 != pieces.val_sha256
    assert int(raw.val_bytes.sum()) == int(pieces.val_bytes.sum()) + 6
    assert pieces.vocab_size == 1024
    assert pieces.bos == 1
    assert len(pieces.val) < len(raw.val)


def test_second_opening_prepares_nothing(tmp_path):
    """The folder is found again, untouched; another tokenizer or a changed file gets a folder of its own."""
    folder = text_folder(tmp_path / "data")
    first = open_dataset(str(folder), "bytes")
    stamp = (first.folder / "train.bin").stat().st_mtime_ns
    assert open_dataset(str(folder), "bytes").folder == first.folder
    assert (first.folder / "train.bin").stat().st_mtime_ns == stamp
    (folder / "val.txt").write_bytes(b"something else, of another length")
    assert open_dataset(str(folder), "bytes").val_text_sha256 != first.val_text_sha256


@pytest.mark.parametrize("name", ["train.bin", "val.bin", "val_bytes.bin"])
@pytest.mark.parametrize("damage", ["empty", "cut", "flip", "gone"])
def test_damaged_prepared_file_is_refused(tmp_path, name, damage):
    """0 bytes, cut off, one bit changed, deleted: one line that names the file and the remedy."""
    data = open_dataset(str(text_folder(tmp_path / "data")), "bytes")
    path = data.folder / name
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes({"empty": b"", "cut": content[:-2], "flip": content[:-1] + bytes([content[-1] ^ 1])}[damage])
    with pytest.raises(DataError, match="delete") as caught:
        open_dataset(str(tmp_path / "data"), "bytes")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"files": {}}'])
def test_damaged_manifest_is_refused(tmp_path, content):
    """A manifest that says nothing verifies nothing."""
    data = open_dataset(str(text_folder(tmp_path / "data")), "bytes")
    (data.folder / "manifest.json").write_text(content)
    with pytest.raises(DataError, match=r"manifest\.json"):
        open_dataset(str(tmp_path / "data"), "bytes")


def test_damaged_reference_text_is_refused(tmp_path):
    """Texts are verified when they are read."""
    data = open_dataset(str(text_folder(tmp_path / "data")), "bytes")
    (data.folder / "val.txt").write_bytes(b"")
    with pytest.raises(DataError, match=r"val\.txt: 0 bytes"):
        data.text("val")


@pytest.mark.parametrize(
    ("files", "tokenizer", "message"),
    [
        ({}, "bytes", "needs train.txt and val.txt"),
        ({"train.txt": b"x" * 99}, "bytes", "needs train.txt and val.txt"),
        ({"train.txt": b"x" * 99, "val.txt": b""}, "bytes", r"val.txt: 0 bytes"),
        ({"train.txt": b"x", "val.txt": b"y"}, "bytes", "too short to hold out"),
        ({"train.txt": b"x" * 99, "val.txt": b"y"}, "words", "TOKENIZER=words: allowed are bytes, caseops, sp1024"),
        ({"train.txt": b"\xff" * 99, "val.txt": b"y"}, "sp1024", "UTF-8"),
        ({"fineweb_train_0.bin": b"", "fineweb_val_0.bin": b"x"}, "bytes", "fineweb_train_0.bin: 0 bytes"),
        ({"fineweb_train_0.bin": b"x", "fineweb_val_0.bin": b"x"}, "bytes", "1 bytes, but a shard begins"),
        ({"fineweb_train_0.bin": b"x", "fineweb_val_0.bin": b"x"}, "sp1024", r"0 \*.model files"),
    ],
)
def test_unusable_folder_is_refused(tmp_path, files, tokenizer, message):
    """One line, and nothing half-built stays behind."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(str(folder), tokenizer)
    assert "\n" not in str(caught.value)
    left = [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert left == []


def test_missing_folder_is_refused(tmp_path):
    """The setting is named."""
    with pytest.raises(DataError, match="DATA_PATH=.*: not a folder"):
        open_dataset(str(tmp_path / "none"), "bytes")


def test_cache_that_can_not_be_made_is_said(tmp_path, monkeypatch):
    """A file stands where the cache folder should be."""
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(DataError, match="set XDG_CACHE_HOME to a writable folder"):
        open_dataset(str(text_folder(tmp_path / "data")), "bytes")


@pytest.mark.parametrize("kind", ["bytes", "sp1024"])
def test_contest_shards_are_read_in_place(tmp_path, kind):
    """Several shards are one stream; the last twentieth is tune; the first BOS of val is context, not target."""
    alphabet = tokens.Bytes()
    if kind == "sp1024":
        words = [text(600, seed).replace(b" ", b" %d" % (seed * 7919), 20) for seed in range(400)]
        alphabet = tokens.train_pieces(words)
    folder, train, val, texts = shard_folder(tmp_path / "data", alphabet)
    if kind == "sp1024":
        (folder / "fineweb_1024_bpe.model").write_bytes(alphabet.model)
    data = open_dataset(str(folder), kind)
    held = len(train) // 20
    assert (data.train[:] == train[:-held]).all()
    assert len(data.train) == len(train) - held
    assert (data.tune == train[-held:]).all()
    assert (data.val == val[1:]).all()
    assert data.tokenizer_sha256 == alphabet.sha256
    assert data.text("val") == b"\0".join(texts[:3])
    assert int(data.val_bytes.sum()) == len(b"".join(texts[:3])) + (2 if kind == "bytes" else 0)
    assert sorted(path.name for path in data.folder.glob("*.bin")) == ["tune_bytes.bin", "val_bytes.bin"]


def test_shard_with_foreign_tokens_is_refused(tmp_path):
    """A token beyond the alphabet would index past the embedding."""
    folder, *_ = shard_folder(tmp_path / "data", tokens.Bytes())
    shards.write(folder / "fineweb_val_000000.bin", np.array([5, 300]))
    with pytest.raises(DataError, match="holds token 300, but the tokenizer has 256"):
        open_dataset(str(folder), "bytes")


def test_shard_cut_off_after_preparation_is_refused(tmp_path):
    """Shards stay in place, so their length is checked on every opening."""
    folder, *_ = shard_folder(tmp_path / "data", tokens.Bytes())
    open_dataset(str(folder), "bytes")
    path = folder / "fineweb_train_000001.bin"
    status = path.stat()
    path.write_bytes(path.read_bytes()[:-2])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(DataError, match="cut off or overwritten"):
        open_dataset(str(folder), "bytes")


def test_validation_shard_changed_in_place_is_refused(tmp_path):
    """One bit, same size, same date: the scores would be of a text whose hash nobody stated."""
    folder, *_ = shard_folder(tmp_path / "data", tokens.Bytes())
    open_dataset(str(folder), "bytes")
    path = folder / "fineweb_val_000000.bin"
    status, content = path.stat(), path.read_bytes()
    path.write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(DataError, match="validation shards are not what they were") as caught:
        open_dataset(str(folder), "bytes")
    assert "\n" not in str(caught.value)


def test_manifest_beside_the_data_is_enforced(tmp_path):
    """A download's own list: sizes and contents must match it, and every file must be on it."""
    folder = text_folder(tmp_path / "data")
    files = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": sha256_of_file(folder / name)}
        for name in ("train.txt", "val.txt")
    }
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps({"files": files}))
    open_dataset(str(folder), "bytes")
    for broken, message in (
        ({**files, "val.txt": {"bytes": 1, "sha256": "x"}}, "val.txt: 3000 bytes, manifest.json says 1"),
        ({"train.txt": files["train.txt"]}, "val.txt: not listed"),
        ([], "must hold"),
    ):
        manifest.write_text(json.dumps({"files": broken}))
        with pytest.raises(DataError, match=message):
            open_dataset(str(folder), "bytes")
    content = (folder / "val.txt").read_bytes()
    manifest.write_text(json.dumps({"files": files}))
    (folder / "val.txt").write_bytes(b"!" + content[1:])
    with pytest.raises(DataError, match="its sha256 is not the one in"):
        open_dataset(str(folder), "bytes")


def test_killed_builder_leaves_nothing_that_is_believed(tmp_path):
    """A half-filled temporary folder is swept by the next builder."""
    folder = text_folder(tmp_path / "data")
    source = prepare.find_source(str(folder), "bytes")
    stale = prepare.cache_root() / f".{source.key}.killed"
    stale.mkdir(parents=True)
    (stale / "manifest.json").write_text("{}")
    data = open_dataset(str(folder), "bytes")
    assert not stale.exists()
    assert len(data.val) == 3000


@pytest.mark.service
def test_processes_that_start_together_build_once(tmp_path):
    """Four at once: all open the same complete folder."""
    folder = text_folder(tmp_path / "data")
    env = environment(tmp_path / "cache")
    line = [sys.executable, "-m", "trainer.data", "--data-path", str(folder)]
    started = [subprocess.Popen(line, env=env, cwd=tmp_path, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    printed = [process.communicate(timeout=60)[0] for process in started]
    assert [process.returncode for process in started] == [0] * 4
    assert len(set(printed)) == 1
    assert "val tokens:3000" in printed[0]
    assert len(list((tmp_path / "cache" / "golfctl" / "data").glob("data-bytes-*/manifest.json"))) == 1


@pytest.mark.service
def test_data_command_states_sizes_and_hashes_of_the_embedded_corpus(tmp_path):
    """Twice the same on one Python, and the second time from the cache; a bad folder is one line and exit 2."""
    env = environment(tmp_path / "cache")
    first, second = (call("-m", "trainer.data", env=env, cwd=tmp_path) for _ in range(2))
    assert first.returncode == second.returncode == 0, first.stderr
    assert first.stdout == second.stdout
    facts = dict(line.split(":", 1) for line in first.stdout.splitlines() if line.startswith(("train_sha", "val_")))
    assert all(len(value) == 64 for value in facts.values())
    assert len(facts) == 3
    wrong = call("-m", "trainer.data", "--data-path", "nowhere", env=env, cwd=tmp_path)
    assert (wrong.returncode, wrong.stderr) == (2, "error: DATA_PATH=nowhere: not a folder\n")
