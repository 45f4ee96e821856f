"""Data folders against a manifest: every way a download goes wrong is found, and sound data passes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from golfctl.hostside import shards
from trainer.data import shards as written


def silent(_: str) -> None:
    """Nobody listens."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three train shards and one for validation as the trainer writes them, and a tokenizer."""
    folder = tmp_path / "sp1024"
    folder.mkdir()
    for number in range(3):
        written.write(folder / f"fineweb_train_{number:06d}.bin", np.arange(5000 + number) % 1024)
    written.write(folder / "fineweb_val_000000.bin", np.arange(3000) % 1024)
    (folder / "tokenizers").mkdir()
    (folder / "tokenizers" / "fineweb_1024_bpe.model").write_bytes(b"model" * 100)
    return folder


@pytest.fixture
def manifest(data: Path) -> dict[str, Any]:
    """The manifest of the sound folder, as JSON brings it over."""
    made = shards.make_manifest(data.as_posix(), silent)
    made["header"] = {"magic": 20240520, "version": 1, "files": "*.bin"}
    made["count"] = {"fineweb_train_*.bin": 3}
    content: dict[str, Any] = json.loads(json.dumps(made))
    return content


def problems(data: Path, manifest: dict[str, Any], hashes: bool = False) -> list[str]:
    """What check says."""
    found: list[str] = shards.check(str(data), manifest, silent, hashes)["problems"]
    return found


TRAIN0, VAL = "fineweb_train_000000.bin", "fineweb_val_000000.bin"


def test_shards_sound_folder_passes(data: Path, manifest: dict[str, Any]) -> None:
    """All files, with their hashes; the summary is the line people read."""
    answer = shards.check(str(data), manifest, silent, hashes=True)
    assert answer["problems"] == []
    assert answer["files"] == 5
    assert answer["bytes"] == sum(entry["bytes"] for entry in manifest["files"].values())
    assert answer["summary"] == "sp1024: 4 shards, val ok"


def test_shards_missing_empty_and_cut_off(data: Path, manifest: dict[str, Any]) -> None:
    """Each damaged file is named with what is wrong; a folder without enough sound shards as well."""
    (data / TRAIN0).unlink()
    (data / "fineweb_train_000001.bin").write_bytes(b"")
    content = (data / VAL).read_bytes()
    (data / VAL).write_bytes(content[:-100])
    found = problems(data, manifest)
    assert f"{TRAIN0}: missing" in found
    assert "fineweb_train_000001.bin: 0 bytes of 11026: the download failed; fetch it again" in found
    assert f"{VAL}: 6924 bytes of 7024: cut off; fetch it again" in found
    assert "fineweb_train_*.bin: 1 files, at least 3 are needed" in found
    assert len(found) == 4


def test_shards_cut_off_is_seen_without_sizes(data: Path, manifest: dict[str, Any]) -> None:
    """The header alone betrays a truncated file and one with something behind it."""
    bare = {**manifest, "files": {TRAIN0: {}, VAL: {}}}
    assert problems(data, bare) == []
    with (data / TRAIN0).open("ab") as file:
        file.write(b"xx")
    (data / VAL).write_bytes((data / VAL).read_bytes()[:1000])
    assert problems(data, {**bare, "count": {}}) == [
        f"{TRAIN0}: 11026 bytes, but its header announces 5000 tokens, 11024 bytes",
        f"{VAL}: 1000 bytes, but a shard begins with a header of 1024 bytes",
    ]


def test_shards_wrong_header(data: Path, manifest: dict[str, Any]) -> None:
    """Another format, and an error page of a server, are no shards, though size and count fit."""
    content = (data / TRAIN0).read_bytes()
    (data / TRAIN0).write_bytes(np.array([20240520, 2], dtype="<i4").tobytes() + content[8:])
    page = b"<html>Not found</html>"
    (data / VAL).write_bytes(page + bytes((data / VAL).stat().st_size - len(page)))
    found = problems(data, manifest)
    assert f"{TRAIN0}: header has magic 20240520 version 2, allowed 20240520 version 1" in found
    assert any(line.startswith(f"{VAL}: header has magic") for line in found)


def test_shards_changed_content_needs_the_hash(data: Path, manifest: dict[str, Any]) -> None:
    """A flipped bit keeps every size; only reading it all finds it."""
    content = bytearray((data / VAL).read_bytes())
    content[5000] ^= 1
    (data / VAL).write_bytes(content)
    assert problems(data, manifest) == []
    found = problems(data, manifest, hashes=True)
    assert len(found) == 1
    assert found[0].startswith(f"{VAL}: sha256 ")
    assert found[0].endswith("damaged; fetch it again")


def test_shards_plain_manifest_of_a_prepared_folder_serves(data: Path, manifest: dict[str, Any]) -> None:
    """`files` alone is enough, and then files are compared as they are."""
    answer = shards.check(str(data), {"files": manifest["files"]}, silent, hashes=True)
    assert answer["problems"] == []
    assert answer["summary"] == "sp1024: 4 files, val ok"
    (data / "tokenizers" / "fineweb_1024_bpe.model").write_bytes(b"other" * 101)
    assert problems(data, {"files": manifest["files"]}) == [
        "tokenizers/fineweb_1024_bpe.model: 505 bytes of 500: too long; not the file the manifest lists"
    ]


def test_shards_no_folder(data: Path, manifest: dict[str, Any]) -> None:
    """A folder that is not there is one problem, not five."""
    assert problems(data / "nowhere", manifest) == [f"{data / 'nowhere'}: no such folder"]


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"files": {}},
        {"files": {"../x": {"bytes": 1}}},
        {"files": {"/etc/passwd": {"bytes": 1}}},
        {"files": {"a/../../x": {"bytes": 1}}},
        {"files": {"a": {"bytes": -1}}},
        {"files": {"a": 5}},
        {"files": {"a": {}}, "header": {"magic": "x"}},
        {"files": {"a": {}}, "count": {"../*": 1}},
    ],
)
def test_shards_bad_manifest_is_refused(data: Path, bad: dict[str, Any]) -> None:
    """What is no manifest, or leads outside the folder, is an error and not a problem of the data."""
    with pytest.raises(ValueError, match="manifest"):
        shards.check(str(data), bad, silent)


def test_shards_make_manifest_refuses_damage(data: Path) -> None:
    """A manifest of a truncated shard would bless it."""
    content = (data / TRAIN0).read_bytes()
    (data / TRAIN0).write_bytes(content[:-2])
    with pytest.raises(ValueError, match="5000 tokens"):
        shards.make_manifest(str(data), silent)


def test_shards_hashing_tells_of_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading gigabytes is not silent."""
    monkeypatch.setattr(shards, "SAY_EVERY_S", 0.0)
    for name in "ab":
        (tmp_path / name).write_bytes(bytes(9 << 20))
    told: list[str] = []
    shards.make_manifest(str(tmp_path), told.append)
    assert len(told) == 6
    assert told[-1] == "hashed 0.0 of 0.0 GB"
