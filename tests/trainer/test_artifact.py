"""The artifact: round trips, and everything a file may do wrong."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import zstandard
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.trainer.tiny import settings
from trainer import artifact
from trainer.artifact import ArtifactError
from trainer.config import Config
from trainer.model.gpt import GPT
from trainer.model.roles import VECTOR, role

VOCAB = 32
META = {"steps": 3, "note": "é"}


def trained(config: Config) -> GPT:
    """A model whose every weight is something."""
    model = GPT(config, VOCAB)
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=noise) * 0.1)
    return model


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a small valid artifact."""
    config = settings(NGRAM_MAX_ORDER=2, MODEL_DIM=8, NUM_LAYERS=1)
    path = tmp_path_factory.mktemp("artifact") / "sample.golf"
    assert artifact.write(path, trained(config), config, VOCAB, META) == path.stat().st_size
    return path.read_bytes()


def split(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and payload of a valid file."""
    body = zstandard.ZstdDecompressor().decompress(content[60:])
    (length,) = struct.unpack_from("<I", body)
    return json.loads(body[4 : 4 + length]), body[4 + length :]


def join(header: Any, payload: bytes) -> bytes:
    """A file with correct lengths and hash around any header: what a careful forger would write."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return artifact.seal(struct.pack("<I", len(text)) + text + payload)


def refused(folder: Path, content: bytes) -> str:
    """The message of the error reading these bytes gives."""
    path = folder / "x.golf"
    path.write_bytes(content)
    with pytest.raises(ArtifactError) as caught:
        artifact.read(path)
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value).startswith(str(path))
    return str(caught.value)


@pytest.mark.parametrize(
    "switches",
    [{}, {"NGRAM_MAX_ORDER": 3, "NGRAM_LOGITS": 1, "MATRIX_BITS": 6, "TABLE_BITS": 8}, {"SKIP_CONNECTIONS": 0}],
)
def test_artifact_round_trip_keeps_settings_and_nearly_the_weights(tmp_path: Path, switches: dict[str, Any]) -> None:
    """What is read has the settings written, weights within half a quantisation step, and scores alike."""
    config = settings(**switches)
    model = trained(config)
    artifact.write(tmp_path / "a.golf", model, config, VOCAB, META)
    loaded, found = artifact.load_model(tmp_path / "a.golf", "cpu")
    assert found.config == dataclasses.replace(config, cpu_threads=0)  # a matter of the machine, not of the model
    assert (found.vocab_size, found.meta) == (VOCAB, META)
    for (name, before), after in zip(model.named_parameters(), loaded.parameters(), strict=True):
        step = before.abs().max() * 2**-10 if role(name) == VECTOR else before.abs().amax(1, keepdim=True) / 31
        assert ((after - before).abs() <= 0.501 * step).all(), name
        assert after.requires_grad
        assert after.dtype == torch.float32
    ids = torch.arange(16).view(2, 8)
    assert (loaded(ids) - model(ids)).abs().max() < 0.5
    assert loaded.embed is dict(loaded.named_parameters())["embed"]


def test_artifact_is_a_fixed_point(tmp_path: Path) -> None:
    """Writing what was loaded gives the same bytes: nothing is lost a second time."""
    config = settings(NGRAM_MAX_ORDER=3)
    artifact.write(tmp_path / "a.golf", trained(config), config, VOCAB, META)
    loaded, found = artifact.load_model(tmp_path / "a.golf", "cpu")
    artifact.write(tmp_path / "b.golf", loaded, found.config, VOCAB, META)
    assert (tmp_path / "a.golf").read_bytes() == (tmp_path / "b.golf").read_bytes()


def test_artifact_does_not_know_where_it_was_made(tmp_path: Path) -> None:
    """Folders, devices and log settings leave no trace, so equal runs give equal files."""
    files = []
    for place, threads in (("one", 1), ("two", 2)):
        config = settings(OUT_DIR=place, DATA_PATH=place, CPU_THREADS=threads, TRAIN_LOG_EVERY=threads)
        artifact.write(tmp_path / place, trained(config), config, VOCAB, META)
        files.append((tmp_path / place).read_bytes())
    assert files[0] == files[1]


def test_artifact_leaves_no_half_file(tmp_path: Path) -> None:
    """A weight that is not finite is an error that names it, and no file appears, not even a temporary one."""
    config = settings()
    for name in ("embed", "blocks.0.mlp_scale"):
        model = trained(config)
        with torch.no_grad():
            dict(model.named_parameters())[name].view(-1)[0] = torch.nan
        with pytest.raises(ValueError, match=name):
            artifact.write(tmp_path / "a.golf", model, config, VOCAB, META)
    assert list(tmp_path.iterdir()) == []


def test_artifact_refuses_every_truncation(tmp_path: Path, sample: bytes) -> None:
    """No proper prefix of a file is read."""
    for length in [*range(70), *range(70, len(sample), 97), len(sample) - 1]:
        refused(tmp_path, sample[:length])


@given(st.data())
@hypothesis_settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_artifact_refuses_every_flipped_byte(tmp_path: Path, sample: bytes, data: st.DataObject) -> None:
    """Any byte changed anywhere is noticed."""
    at, change = data.draw(st.integers(0, len(sample) - 1)), data.draw(st.integers(1, 255))
    damaged = bytearray(sample)
    damaged[at] ^= change
    refused(tmp_path, bytes(damaged))


@given(st.data())
@hypothesis_settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_artifact_reading_a_forged_body_never_crashes(tmp_path: Path, sample: bytes, data: st.DataObject) -> None:
    """A body with changed bytes behind a correct hash is either refused as an artifact or a valid one."""
    body = bytearray(zstandard.ZstdDecompressor().decompress(sample[60:]))
    header_end = 4 + struct.unpack_from("<I", body)[0]
    for _ in range(data.draw(st.integers(1, 3))):
        place = st.integers(0, header_end - 1) | st.integers(0, len(body) - 1)
        body[data.draw(place)] = data.draw(st.integers(0, 255))
    path = tmp_path / "x.golf"
    path.write_bytes(artifact.seal(bytes(body)))
    try:
        found = artifact.read(path)
    except ArtifactError:
        return
    assert all(torch.isfinite(weight).all() for weight in found.state.values())


def test_artifact_refuses_wrong_frames(tmp_path: Path, sample: bytes) -> None:
    """Magic, version, lengths, hash and trailing bytes are each checked."""
    assert "begins with" in refused(tmp_path, b"PK\x03\x04" + sample[4:])
    assert "version 2" in refused(tmp_path, sample[:8] + struct.pack("<I", 2) + sample[12:])
    assert "cut off or overlong" in refused(tmp_path, sample + b"\0")
    assert "at most" in refused(tmp_path, sample[:20] + struct.pack("<Q", 1 << 40) + sample[28:])
    assert "sha256" in refused(tmp_path, sample[:28] + bytes(32) + sample[60:])
    assert "too few" in refused(tmp_path, b"")


def sealed(packed: bytes, body_length: int) -> bytes:
    """A file around any bytes in place of the zstd frame, with a correct hash."""
    prefix = struct.pack("<8sIQQ", artifact.MAGIC, artifact.VERSION, len(packed), body_length)
    return prefix + hashlib.sha256(prefix + packed).digest() + packed


def test_artifact_refuses_decompression_bombs(tmp_path: Path) -> None:
    """Frames that claim another size than the file, no size, more than one frame, or nothing sensible are refused."""
    bomb = zstandard.ZstdCompressor(level=3).compress(bytes(1 << 26))
    assert len(bomb) < 10_000
    assert "different body lengths" in refused(tmp_path, sealed(bomb, 1000))
    streamed = zstandard.ZstdCompressor().compressobj()
    unsized = streamed.compress(bytes(1 << 20)) + streamed.flush()
    assert "different body lengths" in refused(tmp_path, sealed(unsized, 1 << 20))
    assert "different body lengths" in refused(tmp_path, sealed(unsized, 1000))
    small = zstandard.ZstdCompressor().compress(b"abc")
    assert "zstd frame" in refused(tmp_path, sealed(small + small, 3))
    assert "zstd frame" in refused(tmp_path, sealed(b"not zstd at all", 3))
    # The frame header says 100 bytes, the blocks behind it hold 64 MiB.
    honest = zstandard.ZstdCompressor().compress(bytes(100))
    cut = zstandard.frame_header_size
    assert "zstd frame" in refused(tmp_path, sealed(honest[: cut(honest)] + bomb[cut(bomb) :], 100))


def edits() -> list[tuple[Callable[[dict[str, Any]], object], str]]:
    """Ways to spoil a header, each with a word of the expected message."""
    return [
        (lambda h: h["tensors"].append(copy.deepcopy(h["tensors"][-1])), "begins at"),
        (lambda h: h["tensors"].append({**h["tensors"][0], "offset": end(h)}), "twice"),
        (lambda h: h["tensors"].pop(), "belong to no tensor"),
        (lambda h: h["tensors"].pop(0), "begins at"),
        (lambda h: h["tensors"].reverse(), "begins at"),
        (lambda h: h["tensors"][1].update(offset=h["tensors"][1]["offset"] - 1), "begins at"),
        (lambda h: h["tensors"][0].update(name="foreign"), "does not belong"),
        (lambda h: h["tensors"][0].update(name=["embed"]), "does not belong"),
        (lambda h: h["tensors"][0].update(shape=[1, 2]), "has shape"),
        (lambda h: h["tensors"][0].update(shape=[32.0, 8]), "has shape"),
        (lambda h: h["tensors"][0].update(shape="32x8"), "has shape"),
        (lambda h: h["tensors"][0].update(bytes=-5), "takes"),
        (lambda h: h["tensors"][0].update(bytes=True), "takes"),
        (lambda h: h["tensors"][0].update(scheme="int4"), "scheme"),
        (lambda h: h["tensors"][0].update(scheme={}), "scheme"),
        (lambda h: h["tensors"][0].update(scheme="fp32"), "takes"),
        (lambda h: h["tensors"][0].update(extra=1), "exactly"),
        (lambda h: h["tensors"].insert(0, 7), "exactly"),
        (lambda h: h.update(tensors={}), "tensors"),
        (lambda h: h.update(extra=1), "exactly"),
        (lambda h: h.pop("meta"), "exactly"),
        (lambda h: h.update(vocab_size=33), "has shape"),
        (lambda h: h.update(vocab_size=True), "vocab_size"),
        (lambda h: h.update(vocab_size=1 << 40), "vocab_size"),
        (lambda h: h["config"].update(NUM_LAYERS=10**9), "NUM_LAYERS"),
        (lambda h: h["config"].update(NUM_LAYERS=2), "is missing"),
        (lambda h: h["config"].update(MODEL_DIM=1 << 20), "has shape"),
        (lambda h: h["config"].update(MODEL_DIM=10**30), "impossible model"),
        (lambda h: h["config"].update(NGRAM_BUCKETS=10**15), "has shape"),
        (lambda h: h["config"].update(MODEL_DIMM=8), "did you mean MODEL_DIM"),
        (lambda h: h["config"].update(MODEL_DIM="wide"), "settings"),
        (lambda h: h["config"].update(OUT_DIR="/etc"), "OUT_DIR"),
    ]


def end(header: dict[str, Any]) -> int:
    last = header["tensors"][-1]
    return last["offset"] + last["bytes"]


@pytest.mark.parametrize("number", range(len(edits())))
def test_artifact_refuses_forged_headers(tmp_path: Path, sample: bytes, number: int) -> None:
    """Tables with overlaps, gaps, duplicates, wrong shapes, and settings that don't parse are refused by name."""
    spoil, word = edits()[number]
    header, payload = split(sample)
    spoil(header)
    assert word in refused(tmp_path, join(header, payload))


def test_artifact_refuses_headers_that_are_not_json(tmp_path: Path, sample: bytes) -> None:
    """Broken UTF-8, doubled keys, NaN, deep nesting, an array, and a header longer than the file."""
    header, payload = split(sample)
    good = json.dumps(header).encode()
    for text in (b"\xff", b"{", b"[" * 100_000, b'{"a":1,"a":2}', good.replace(b'"steps": 3', b'"steps": NaN')):
        assert "not JSON" in refused(tmp_path, join(text, payload))
    assert "exactly" in refused(tmp_path, join(b"[]", payload))
    assert "longer than" in refused(tmp_path, artifact.seal(struct.pack("<I", 1 << 30) + good))
    assert "longer than" in refused(tmp_path, artifact.seal(b"ab"))


def test_artifact_refuses_wrong_payloads(tmp_path: Path, sample: bytes) -> None:
    """Payloads cut, overlong, beyond the levels, or with scales and values that are not finite and positive."""
    header, payload = split(sample)
    tensors = {entry["name"]: entry for entry in header["tensors"]}
    assert "belong to no tensor" in refused(tmp_path, join(header, payload + b"\0"))
    assert "ends behind" in refused(tmp_path, join(header, payload[:-1]))

    def poked(at: int, value: bytes) -> str:
        return refused(tmp_path, join(header, payload[:at] + value + payload[at + len(value) :]))

    embed, table = tensors["embed"], tensors["ngrams.tables"]
    scale_at = embed["offset"] + embed["bytes"] - 2
    for bad in (float("inf"), float("nan"), -1.0, 0.0):
        assert "scales" in poked(scale_at, struct.pack("<e", bad))
    assert "beyond 31" in poked(table["offset"], struct.pack("b", 32))
    assert "beyond 127" in poked(embed["offset"], struct.pack("b", -128))
    assert "not finite" in poked(tensors["blocks.0.mlp_scale"]["offset"], struct.pack("<e", float("nan")))


def test_artifact_read_says_when_there_is_no_file(tmp_path: Path) -> None:
    """A missing file is the system's error, not a malformed artifact."""
    with pytest.raises(FileNotFoundError):
        artifact.read(tmp_path / "none.golf")
