"""Published shards, from a server that truncates, stalls, lies and forgets."""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.trainer.shardserver import ShardServer, serving
from tests.trainer.tiny import text
from trainer.data import __main__ as command
from trainer.data import shards, tokens
from trainer.data.dataset import open_dataset
from trainer.data.download import How, download
from trainer.data.errors import DataError
from trainer.data.fetch import fetch

HOW = How(timeout=30, retries=2, pause=0.001)
IMPATIENT = How(timeout=1, retries=2, pause=0.001)
"""For servers that do stall; a busy machine may be silent for a moment, too."""
VAL = "datasets/fineweb10B_bytes/fineweb_val_000000.bin"
TRAIN = "datasets/fineweb10B_bytes/fineweb_train_000001.bin"


def published(server: ShardServer, folder: Path, hashes: bool = True, **more: Any) -> dict[str, Any]:
    """Three byte shards and a manifest in the contest's layout, with sizes and hashes or without."""
    texts = [text(9000, seed) for seed in range(3)]
    for name, content in zip(("val_000000", "train_000000", "train_000001"), texts, strict=True):
        path = folder / "made.bin"
        shards.write(path, tokens.Bytes().encode([b"", content]))
        server.files[f"datasets/fineweb10B_bytes/fineweb_{name}.bin"] = path.read_bytes()
    stats = {"files_train": 2, "files_val": 1, "tokens_train": 18002, "tokens_val": 9001}
    manifest = {
        "datasets": [{"name": "fineweb10B_bytes", "tokenizer_name": "b", "stats": stats}],
        "tokenizers": [],
    } | more
    if hashes:
        manifest["files"] = {
            path: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for path, content in server.files.items()
        }
    server.files["manifest.json"] = json.dumps(manifest).encode()
    return manifest


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ShardServer]:
    with serving() as found:
        published(found, tmp_path)
        yield found


def bring(server: ShardServer, folder: Path, train_shards: int | None = None) -> list[str]:
    """The lines of a fetch."""
    said: list[str] = []
    stalls = any(mood.startswith(("stall", "drip")) for moods in server.moods.values() for mood in moods)
    fetch(server.base, "bytes", train_shards, folder, IMPATIENT if stalls else HOW, said.append)
    return said


def check_complete(server: ShardServer, folder: Path) -> None:
    """All files to the byte, and nothing half-done beside them."""
    for path, content in server.files.items():
        if path.endswith(".bin"):
            assert (folder / Path(path).name).read_bytes() == content
    assert {path.name for path in folder.iterdir() if path.name.startswith(".")} == {".fetch.lock"}


def test_fetch_makes_a_folder_that_can_be_trained_on(server, tmp_path, monkeypatch):
    """All shards, a manifest that open_dataset enforces, the text of the documents."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    said = bring(server, tmp_path / "got")
    check_complete(server, tmp_path / "got")
    assert [line.split(" ")[0] for line in said[:3]] == [
        f"fetched:fineweb_{name}.bin" for name in ("val_000000", "train_000000", "train_000001")
    ]
    assert said[-1].startswith(f"complete:{tmp_path / 'got'} files:3 bytes:")
    assert open_dataset(str(tmp_path / "got"), "bytes").text("val") == text(9000, 0)
    (tmp_path / "got" / "fineweb_train_000000.bin").write_bytes(b"")
    with pytest.raises(DataError, match=r"fineweb_train_000000.bin: 0 bytes, manifest.json says"):
        open_dataset(str(tmp_path / "got"), "bytes")


def test_fetch_keeps_what_is_there_and_replaces_what_is_damaged(server, tmp_path):
    """The second time only the manifest and the damaged file are asked for."""
    folder = tmp_path / "got"
    bring(server, folder)
    path = folder / "fineweb_val_000000.bin"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    server.asked.clear()
    said = bring(server, folder)
    assert [line.split(":")[0] for line in said] == ["fetched", "kept", "kept", "complete"]
    assert [path for path, _ in server.asked] == ["manifest.json", VAL]
    check_complete(server, folder)


@pytest.mark.parametrize("hashes", [True, False])
@pytest.mark.parametrize(
    ("moods", "ranges"),
    [
        (["cut:5000"], [None, "bytes=5000-"]),
        (["cut:0"], [None, None]),
        (["cut:5000", "cut:3000"], [None, "bytes=5000-", "bytes=8000-"]),
        (["cut:4000", "cut:4000", "cut:4000", "cut:4000"], [None, *(f"bytes={4000 * n}-" for n in range(1, 5))]),
        (["stall:5000"], [None, "bytes=5000-"]),
        (["stall:0"], [None, None]),
        (["too-long:7"], [None, "bytes=19026-"]),
        (["too-short:7"], [None]),
        (["cut:5000", "no-range"], [None, "bytes=5000-"]),
        (["cut:5000", "wrong-part:3"], [None, "bytes=5000-", None]),
        (["no-length"], [None]),
        (["wrong-bytes"], [None, None]),
        (["503", "429", "cut:100", "500"], [None, None, None, "bytes=100-", "bytes=100-"]),
        (["drip"], [None]),
    ],
    ids=str,
)
def test_fetch_survives_bad_servers(server, tmp_path, hashes, moods, ranges):
    """It goes on where it stopped, begins again where it must, and the file is right in the end."""
    published(server, tmp_path, hashes)
    if moods == ["wrong-bytes"] and not hashes:
        pytest.skip("without a hash nobody can tell")
    server.moods[TRAIN] = list(moods)
    bring(server, tmp_path / "got")
    check_complete(server, tmp_path / "got")
    asked = [span for path, span in server.asked if path == TRAIN]
    if moods[0].startswith(("too-", "drip")):
        assert 2 <= len(asked) <= 4  # how much of a lie arrives first depends on the lie
    else:
        assert asked == ranges


@pytest.mark.parametrize("hashes", [True, False])
@pytest.mark.parametrize(
    ("mood", "message"),
    [
        ("404", "HTTP 404 Not Found (tried once)"),
        ("403", "HTTP 403 Forbidden (tried once)"),
        ("503", "HTTP 503 Service Unavailable (tried 3 times)"),
        ("cut:5000", "cut off at byte 15000 of 19026"),
        ("stall:0", "no data for 1 s at byte 0 (tried 3 times)"),
        ("too-short:7", "(tried 3 times)"),
        ("wrong-bytes", "sha256"),
    ],
)
def test_fetch_gives_up_in_one_line(server, tmp_path, hashes, mood, message):
    """It names the address, what is wrong, how often it was tried; the file does not appear."""
    published(server, tmp_path, hashes)
    if mood == "wrong-bytes" and not hashes:
        pytest.skip("without a hash nobody can tell")
    server.moods[VAL] = [mood] * 3 if not mood.startswith("cut") else ["cut:5000"] * 3 + ["cut:0"] * 3
    with pytest.raises(DataError) as caught:
        bring(server, tmp_path / "got")
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{server.base}/{VAL}: ")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "got" / "fineweb_val_000000.bin").exists()


@pytest.mark.parametrize("hashes", [True, False])
def test_fetch_gives_up_a_shard_that_never_ends(server, tmp_path, hashes):
    """Without a length beforehand its header says when it is enough; nothing large is left behind."""
    published(server, tmp_path, hashes)
    server.moods[VAL] = ["endless"] * 3
    with pytest.raises(DataError, match=r"more than the \d+ bytes .*tried (once|3 times)"):
        bring(server, tmp_path / "got")
    assert sum(path.stat().st_size for path in (tmp_path / "got").iterdir()) < 1 << 16


def test_fetch_gives_up_other_files_that_never_end(server, tmp_path, monkeypatch):
    """A manifest, an error page in place of a shard, a model: there is a limit for each of them."""
    monkeypatch.setattr("trainer.data.fetch.MOST_OTHER", 1 << 16)
    server.files["b.model"] = b"a model"
    published(server, tmp_path, hashes=False, tokenizers=[{"name": "b", "model_path": "b.model"}])
    for path, content in (("manifest.json", b"{"), (VAL, b"<html>" * 300), ("b.model", b"a model")):
        good, server.files[path] = server.files[path], content
        server.moods[path] = ["endless"]
        with pytest.raises(DataError, match=rf"{Path(path).name}: more than the 65536 bytes .*tried once"):
            bring(server, tmp_path / "got")
        server.files[path] = good
    bring(server, tmp_path / "got")
    check_complete(server, tmp_path / "got")


@pytest.mark.parametrize("wait", ["nan", "-5", "soon"])
def test_fetch_survives_a_wait_that_is_no_number_of_seconds(server, tmp_path, wait):
    """Retry-After is the server's word: what makes no sense is not waited for."""
    server.wait = wait
    server.moods[VAL] = ["503"]
    bring(server, tmp_path / "got")
    check_complete(server, tmp_path / "got")


def test_fetch_goes_on_after_it_was_interrupted(server, tmp_path):
    """What an earlier call left is continued: by hash, or by ETag; without either it begins again."""
    for hashes, tags, continued in ((True, False, True), (False, True, True), (False, False, False)):
        folder = tmp_path / f"got-{hashes}-{tags}"
        published(server, tmp_path, hashes)
        server.tags = tags
        server.moods[VAL] = ["cut:5000", *["cut:0"] * 9]
        with pytest.raises(DataError, match="cut off"):
            bring(server, folder)
        server.moods[VAL] = []
        server.asked.clear()
        bring(server, folder)
        assert (VAL, "bytes=5000-" if continued else None) in server.asked
        check_complete(server, folder)


def test_fetch_never_joins_two_files(server, tmp_path):
    """The file was replaced between two calls: another ETag, so it is brought whole."""
    published(server, tmp_path, hashes=False)
    server.moods[VAL] = ["cut:5000", *["cut:0"] * 9]
    with pytest.raises(DataError):
        bring(server, tmp_path / "got")
    server.moods[VAL] = []
    shards.write(tmp_path / "other.bin", np.full(9001, 65))
    server.files[VAL] = (tmp_path / "other.bin").read_bytes()
    bring(server, tmp_path / "got")
    check_complete(server, tmp_path / "got")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "a shard begins with a header of 1024 bytes"),
        (b"<html>sign in</html>" * 100, "not a token shard (magic"),
        (np.array([20240520, 2, 1, *[0] * 253], "<i4").tobytes() + b"xx", "version 2, allowed"),
        (np.array([20240520, 1, 9, *[0] * 253], "<i4").tobytes() + b"xx", "but 9 tokens need 1042"),
    ],
)
def test_fetch_checks_headers_where_no_hash_is_published(server, tmp_path, content, message):
    """A login page with status 200 is the classic."""
    published(server, tmp_path, hashes=False)
    server.files[VAL] = content
    with pytest.raises(DataError, match=r"fineweb_val_000000.bin: .*tried 3 times") as caught:
        bring(server, tmp_path / "got")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        (b"<html>", "manifest.json: not JSON"),
        (b"[1]", "not a JSON object"),
        (b"[" * 200_000, "manifest.json: not JSON"),
        (b'{"datasets": [{"name": "fineweb10B_b", "stats": {"files_train": Infinity, "files_val": 1}}]}', "must list datasets"),
        ({"files": {VAL: {"bytes": float("inf"), "sha256": "0" * 64}}}, "must hold bytes and sha256"),
        ({"tokenizers": [{"name": "b", "model_path": "evil/fineweb_val_000000.bin"}]}, "must be *.model"),
        ({"tokenizers": [{"name": "b", "model_path": "evil/manifest.json"}]}, "must be *.model"),
        ({"tokenizers": [{"name": "b", "model_path": f"{at}/evil.model"} for at in "xy"]}, "each with a name of its own"),
        (b"{}", "must list datasets"),
        (b'{"datasets": [{"name": "fineweb10B_bytes", "stats": {"files_train": -1, "files_val": 1}}]}', "must list datasets"),
        (b'{"datasets": [{"name": "fineweb10B_bytes", "stats": {"files_train": 1e9, "files_val": 1}}]}', "must list datasets"),
        (b'{"datasets": [{"name": "fineweb10B_sp1", "stats": {"files_train": 1, "files_val": 1}}]}', "variants there are sp1"),
        ({"files": {VAL: {"bytes": 5}}}, "must hold bytes and sha256"),
        ({"files": {VAL: {"bytes": 5, "sha256": "0" * 64}}}, "the server announces 19026 bytes, the manifest says 5"),
        ({"files": [VAL]}, "must hold bytes and sha256"),
        ({"tokenizers": {"b": 1}}, "tokenizers must be a list"),
        ({"tokenizers": [{"name": "b", "model_path": "../../evil.model"}]}, "is no path to write to"),
        ({"tokenizers": [{"name": "b", "model_path": "/etc/evil.model"}]}, "is no path to write to"),
    ],
)  # fmt: skip
def test_fetch_refuses_a_manifest_that_makes_no_sense(server, tmp_path, manifest, message):
    """Also one that names files outside the folder."""
    if isinstance(manifest, dict):
        published(server, tmp_path, hashes=False, **manifest)
    else:
        server.files["manifest.json"] = manifest
    with pytest.raises(DataError) as caught:
        bring(server, tmp_path / "got")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("evil*"))


def test_fetch_checks_that_token_counts_add_up(server, tmp_path):
    """Each shard is right, and one is not that of this data set."""
    published(server, tmp_path, hashes=False)
    shards.write(tmp_path / "other.bin", np.full(500, 65))
    server.files[VAL] = (tmp_path / "other.bin").read_bytes()
    with pytest.raises(DataError, match="val shards hold 500 tokens, the published manifest says 9001"):
        bring(server, tmp_path / "got")


def test_fetch_brings_the_tokenizer_and_the_first_shards_only(server, tmp_path):
    """--train-shards 1, and the model that the manifest names."""
    server.files["tokenizers/b.model"] = b"a model"
    published(server, tmp_path, tokenizers=[{"name": "b", "model_path": "tokenizers/b.model"}])
    folder = tmp_path / "got"
    bring(server, folder, train_shards=1)
    found = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    assert found == ["b.model", "fineweb_train_000000.bin", "fineweb_val_000000.bin", "manifest.json"]
    with pytest.raises(DataError, match="--train-shards 3: bytes has 1 to 2"):
        bring(server, folder, train_shards=3)
    bring(server, folder, train_shards=2)
    assert set(json.loads((folder / "manifest.json").read_text())["files"]) == {*found, "fineweb_train_000001.bin"} - {
        "manifest.json"
    }


def test_fetch_refuses_a_folder_in_use(server, tmp_path):
    """Two at once would write the same parts."""
    (tmp_path / "got").mkdir()
    with (tmp_path / "got" / ".fetch.lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="another process fetches into it"):
            bring(server, tmp_path / "got")


def test_fetch_says_that_nobody_answers(tmp_path):
    """Connection refused, a broken address, one that is not HTTP, a folder that can't be made."""
    for base, message in (
        ("http://127.0.0.1:1", "can't be reached"),
        ("http://[", "no address"),
        ("file:///etc", "must be an http or https address"),
        ("http://127.0.0.1:1/p?token=x", "address without ? and #"),
        ("http://127.0.0.1:1/p#x", "address without ? and #"),
    ):
        with pytest.raises(DataError, match=re.escape(message)):
            fetch(base, "bytes", None, tmp_path / "got", HOW, print)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match="can't be written"):
        fetch("http://127.0.0.1:1", "bytes", None, tmp_path / "file", HOW, print)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--timeout", "1e12"], "--timeout 1e+12: must be over 0 and at most 3600 seconds"),
        (["--timeout", "0"], "--timeout 0: must be"),
        (["--timeout", "-1"], "--timeout -1: must be"),
        (["--timeout", "nan"], "--timeout nan: must be"),
        (["--retries", "-1"], "--retries -1: must be at least 0"),
    ],
)
def test_fetch_refuses_times_and_numbers_that_make_no_sense(tmp_path, capsys, words, message):
    """In one line, before anything is asked for or made."""
    line = ["fetch", "--base", "http://127.0.0.1:1", "--to", str(tmp_path / "got"), *words]
    assert command.main(line) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")
    assert not (tmp_path / "got").exists()


def test_download_replaces_only_with_what_is_right(server, tmp_path):
    """An old file stays until the new one is complete and checked."""
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    server.moods[VAL] = ["wrong-bytes"] * 3
    good = server.files[VAL]

    def problem(part: Path) -> str | None:
        return None if part.read_bytes() == good else "differs"

    def most(head: bytes) -> int:
        return 1 << 20

    with pytest.raises(DataError, match="differs"):
        download(f"{server.base}/{VAL}", path, HOW, problem, most=most)
    assert path.read_bytes() == b"old"
    download(f"{server.base}/{VAL}", path, HOW, problem, most=most)
    assert path.read_bytes() == good


def test_fetch_command_prints_lines_and_exits_with_2(server, tmp_path, capsys):
    """What a person sees: a line a file; or one line of what is wrong."""
    line = ["fetch", "--base", server.base, "--variant", "bytes", "--to", str(tmp_path / "got"), "--retries", "0"]
    assert command.main(line) == 0
    assert "complete:" in capsys.readouterr().out
    server.files.pop(VAL)
    (tmp_path / "got" / "fineweb_val_000000.bin").unlink()
    assert command.main(line) == 2
    assert capsys.readouterr().err == f"error: {server.base}/{VAL}: HTTP 404 Not Found (tried once)\n"


def test_fetch_line_of_the_document_is_understood():
    """The one command of docs/data.md that no test can run: it needs the network."""
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^python -m trainer\.data (fetch .*)$", page, re.MULTILINE)
    given = command._parser().parse_args(line.split())
    assert given.base.startswith("https://")
    assert given.train_shards == 10
