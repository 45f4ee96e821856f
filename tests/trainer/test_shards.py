"""The contest's shard format."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainer.data import shards
from trainer.data.errors import DataError

TOKENS = st.lists(st.integers(0, 65535), min_size=1, max_size=300)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(TOKENS)
def test_shard_round_trip(tmp_path, tokens):
    """What is written is read, for every token value."""
    path = tmp_path / "a.bin"
    shards.write(path, np.array(tokens))
    found = shards.read(path)
    assert found.dtype == np.uint16
    assert found.tolist() == tokens


def test_shard_bytes_are_the_contests(tmp_path):
    """Header of 256 little endian int32, then uint16: spelled out by hand."""
    path = tmp_path / "a.bin"
    shards.write(path, np.array([1, 258, 65535], dtype=np.uint16))
    assert path.read_bytes() == struct.pack("<256i", 20240520, 1, 3, *[0] * 253) + b"\x01\x00\x02\x01\xff\xff"


def whole(count: int = 3, magic: int = 20240520, version: int = 1) -> bytes:
    return struct.pack("<256i", magic, version, count, *[0] * 253) + bytes(2 * 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "0 bytes, but a shard begins with a header of 1024"),
        (whole()[:1000], "1000 bytes, but a shard begins"),
        (whole(magic=7), "not a token shard .magic 7"),
        (whole(version=2), "version 2, allowed"),
        (whole()[:-1], "1029 bytes, but 3 tokens need 1030"),
        (whole() + b"x", "1031 bytes, but 3 tokens need 1030"),
        (whole(count=0), "announces 0 tokens"),
        (whole(count=-5), "announces -5 tokens"),
    ],
)
def test_shard_that_is_damaged_is_refused(tmp_path, content, message):
    """Wrong magic, wrong length, 0 bytes, cut off: one line that names the file."""
    path = tmp_path / "bad.bin"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        shards.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_shard_that_is_missing_is_refused(tmp_path):
    """No traceback of the operating system's."""
    with pytest.raises(DataError, match=r"can't be read \(No such file"):
        shards.read(tmp_path / "none.bin")


@pytest.mark.parametrize("tokens", [[], [[1, 2]], [-1], [65536]])
def test_shard_that_can_not_be_written_is_refused(tmp_path, tokens):
    """Empty, two-dimensional or out of range; and no file appears."""
    with pytest.raises(DataError):
        shards.write(tmp_path / "a.bin", np.array(tokens, dtype=np.int64))
    assert list(tmp_path.iterdir()) == []


@given(st.lists(st.lists(st.integers(0, 99), max_size=5), max_size=6), st.integers(-3, 40), st.integers(-3, 40))
def test_stream_reads_like_one_array(parts, start, stop):
    """Any slice of several shards is the slice of their concatenation."""
    stream = shards.Stream([np.array(part, dtype=np.uint16) for part in parts])
    joined = np.array([token for part in parts for token in part], dtype=np.uint16)
    assert len(stream) == stream.size == joined.size
    assert stream[start:stop].tolist() == joined[start:stop].tolist()
    assert [token for block in stream.blocks(2) for token in block] == joined.tolist()


def test_shards_of_a_part_are_found_in_order(tmp_path):
    """A byte sidecar, as contest records put it beside the shards, would be scored as text otherwise."""
    for name in ("val_000001", "val_000000", "val_bytes_000000", "train_000000"):
        shards.write(tmp_path / f"fineweb_{name}.bin", np.array([1]))
    assert [path.name for path in shards.paths(tmp_path, "val")] == ["fineweb_val_000000.bin", "fineweb_val_000001.bin"]
