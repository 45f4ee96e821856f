"""The artifact: round trips, and everything a file may do wrong."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import zstandard
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.trainer.tiny import call, environment, settings
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
    """Header and sections of a valid file."""
    (length,) = struct.unpack_from("<I", content, 20)
    return json.loads(zstandard.ZstdDecompressor().decompress(content[60 : 60 + length])), content[60 + length :]


def join(header: Any, sections: bytes) -> bytes:
    """A file with correct lengths and hash around any header: what a careful forger would write."""
    return artifact.seal(header if isinstance(header, bytes) else json.dumps(header).encode(), sections)


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


def test_artifact_refuses_wrong_frames(tmp_path: Path, sample: bytes) -> None:
    """Magic, version, lengths, hash and trailing bytes are each checked; an older file is sent to the trainer that wrote it."""
    assert "begins with" in refused(tmp_path, b"PK\x03\x04" + sample[4:])
    assert "the trainer that wrote it" in refused(tmp_path, sample[:8] + struct.pack("<I", 1) + sample[12:])
    assert "cut off or overlong" in refused(tmp_path, sample + b"\0")
    assert "cut off or overlong" in refused(tmp_path, sample[:12] + struct.pack("<Q", 1 << 40) + sample[20:])
    assert "sha256" in refused(tmp_path, sample[:28] + bytes(32) + sample[60:])
    assert "too few" in refused(tmp_path, b"")


def sealed(packed: bytes, header_length: int, sections: bytes = b"", packed_length: int | None = None) -> bytes:
    """A file around any bytes in place of the header's frame, with a correct hash."""
    lengths = len(packed) + len(sections), len(packed) if packed_length is None else packed_length, header_length
    prefix = struct.pack("<8sIQII", artifact.MAGIC, artifact.VERSION, *lengths)
    return prefix + hashlib.sha256(prefix + packed + sections).digest() + packed + sections


def test_artifact_refuses_decompression_bombs(tmp_path: Path) -> None:
    """Headers that claim another size than the file, no size, too much, more than one frame, or nothing sensible are refused."""
    bomb = zstandard.ZstdCompressor(level=3).compress(bytes(1 << 26))
    assert len(bomb) < 10_000
    assert "not one frame of 1000 bytes" in refused(tmp_path, sealed(bomb, 1000))
    assert "at most" in refused(tmp_path, sealed(bomb, 1 << 26))
    assert "at most" in refused(tmp_path, sealed(bomb, 1000, packed_length=1 << 20))
    streamed = zstandard.ZstdCompressor().compressobj()
    unsized = streamed.compress(bytes(1 << 20)) + streamed.flush()
    assert "not one frame" in refused(tmp_path, sealed(unsized, 1 << 20))
    small = zstandard.ZstdCompressor().compress(b"abc")
    assert "header: zstd" in refused(tmp_path, sealed(small + small, 3))
    assert "header: zstd" in refused(tmp_path, sealed(b"not zstd at all", 3))
    # The frame header says 100 bytes, the blocks behind it hold 64 MiB.
    honest = zstandard.ZstdCompressor().compress(bytes(100))
    cut = zstandard.frame_header_size
    assert "header: zstd" in refused(tmp_path, sealed(honest[: cut(honest)] + bomb[cut(bomb) :], 100))


def test_artifact_refuses_models_no_file_of_its_size_holds(tmp_path: Path, sample: bytes) -> None:
    """Settings of a huge model are refused before anything is allocated for it."""
    header, sections = split(sample)
    header["config"].update(NGRAM_BUCKETS=10**15)
    assert "are claimed by a file of" in refused(tmp_path, join(header, sections))


def edits() -> list[tuple[Callable[[dict[str, Any]], object], str]]:
    """Ways to spoil a header, each with a word of the expected message."""
    return [
        (lambda h: h["tensors"].append(copy.deepcopy(h["tensors"][-1])), "tensors, the model has"),
        (lambda h: h["tensors"].pop(), "tensors, the model has"),
        (lambda h: h["tensors"].pop(0), "stands where"),
        (lambda h: h["tensors"].reverse(), "stands where"),
        (lambda h: h["tensors"][0].__setitem__(0, "foreign"), "stands where"),
        (lambda h: h["tensors"][0].__setitem__(0, ["embed"]), "pairs of name and scheme"),
        (lambda h: h["tensors"][0].__setitem__(1, "int3"), "scheme"),
        (lambda h: h["tensors"][0].__setitem__(1, {}), "pairs of name and scheme"),
        (lambda h: h["tensors"][0].__setitem__(1, "fp32"), "section"),
        (lambda h: h["tensors"][0].__setitem__(1, "int8+lqer9999"), "scheme"),
        (lambda h: h["tensors"][0].append(1), "pairs of name and scheme"),
        (lambda h: h["tensors"].insert(0, 7), "pairs of name and scheme"),
        (lambda h: h.update(tensors={}), "tensors"),
        (lambda h: h.update(extra=1), "exactly"),
        (lambda h: h.pop("meta"), "exactly"),
        (lambda h: h.pop("sections"), "exactly"),
        (lambda h: h["sections"].pop(), "sections, the tensors fill"),
        (lambda h: h["sections"].append(h["sections"][0]), "sections, the tensors fill"),
        (lambda h: h["sections"][0].update(bytes=-5), "are left"),
        (lambda h: h["sections"][0].update(bytes=10**12), "are left"),
        (lambda h: h["sections"][0].update(bytes=True), "exactly codec"),
        (lambda h: h["sections"][-1].update(bytes=h["sections"][-1]["bytes"] - 1), "belong to no section"),
        (lambda h: h["sections"][0].update(codec="pickle"), "does not fit"),
        (lambda h: h["sections"][0].update(codec=None), "exactly codec"),
        (lambda h: h["sections"][0].update(shuffled=True), "does not fit"),
        (lambda h: h["sections"][0].update(extra=1), "exactly codec"),
        (lambda h: h["sections"].insert(0, 7), "sections, the tensors fill"),
        (lambda h: h["sections"].__setitem__(0, 7), "exactly codec"),
        (lambda h: h.update(vocab_size=33), "section"),
        (lambda h: h.update(vocab_size=True), "vocab_size"),
        (lambda h: h.update(vocab_size=1 << 40), "vocab_size"),
        (lambda h: h["config"].update(NUM_LAYERS=10**9), "NUM_LAYERS"),
        (lambda h: h["config"].update(NUM_LAYERS=2), "stands where"),
        (lambda h: h["config"].update(MODEL_DIM=1 << 20), "are claimed by"),
        (lambda h: h["config"].update(MODEL_DIM=10**30), "impossible model"),
        (lambda h: h["config"].update(MODEL_DIMM=8), "did you mean MODEL_DIM"),
        (lambda h: h["config"].update(MODEL_DIM="wide"), "settings"),
        (lambda h: h["config"].update(OUT_DIR="/etc"), "OUT_DIR"),
    ]


@pytest.mark.parametrize("number", range(len(edits())))
def test_artifact_refuses_forged_headers(tmp_path: Path, sample: bytes, number: int) -> None:
    """Tables that do not fit the model or the file, and settings that don't parse, are refused by name."""
    spoil, word = edits()[number]
    header, sections = split(sample)
    spoil(header)
    assert word in refused(tmp_path, join(header, sections))


def test_artifact_refuses_headers_that_are_not_json(tmp_path: Path, sample: bytes) -> None:
    """Broken UTF-8, doubled keys, NaN, deep nesting and an array."""
    header, payload = split(sample)
    good = json.dumps(header).encode()
    for text in (b"\xff", b"{", b"[" * 100_000, b'{"a":1,"a":2}', good.replace(b'"steps": 3', b'"steps": NaN')):
        assert "not JSON" in refused(tmp_path, join(text, payload))
    assert "exactly" in refused(tmp_path, join(b"[]", payload))


def test_artifact_refuses_values_no_writer_writes(tmp_path: Path) -> None:
    """Symbols beyond the levels, scales and values that are not finite and positive, behind checksums and hashes that fit."""
    config = settings(NGRAM_MAX_ORDER=2, MODEL_DIM=8, NUM_LAYERS=1, CODEC="zlib")
    artifact.write(tmp_path / "a.golf", trained(config), config, VOCAB, META)
    header, sections = split((tmp_path / "a.golf").read_bytes())
    kinds = [(s.kind.role, s.kind.stream) for s in artifact.read_parts(tmp_path / "a.golf").sections]

    def poked(kind: tuple[str, str], value: bytes) -> str:
        number = kinds.index(kind)
        lengths = [entry["bytes"] for entry in header["sections"]]
        at = sum(lengths[:number])
        entry = header["sections"][number]
        raw = zlib.decompress(sections[at + 4 : at + lengths[number]], -15)
        step = len(raw) // len(value) if entry["shuffled"] else 1
        raw = bytearray(raw)
        for place, byte in enumerate(value):
            raw[place * step] = byte
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        halves = (raw[: len(raw) // 2], raw[len(raw) // 2 :])
        values = bytes(byte for pair in zip(*halves, strict=True) for byte in pair) if entry["shuffled"] else raw
        new = struct.pack("<I", zlib.crc32(values)) + packer.compress(raw) + packer.flush()
        changed = copy.deepcopy(header)
        changed["sections"][number]["bytes"] = len(new)
        return refused(tmp_path, join(changed, sections[:at] + new + sections[at + lengths[number] :]))

    for bad in (float("inf"), float("nan"), -1.0, 0.0):
        assert "scale" in poked(("embed", "scale"), struct.pack("<e", bad))
    assert "outside its alphabet" in poked(("table", "symbols"), bytes([63]))
    assert "outside its alphabet" in poked(("embed", "symbols"), bytes([255]))
    assert "not finite" in poked(("vector", "values"), struct.pack("<e", float("nan")))


def test_artifact_read_says_when_there_is_no_file(tmp_path: Path) -> None:
    """A missing file is the system's error, not a malformed artifact."""
    with pytest.raises(FileNotFoundError):
        artifact.read(tmp_path / "none.golf")


def test_artifact_with_hostile_words_in_its_settings_is_refused_in_plain_ones(tmp_path: Path, sample: bytes) -> None:
    """What a file calls its settings reaches no terminal as commands, and fills no log."""
    header, sections = split(sample)
    for word in ("\x1b]0;title\x07\x1b[2J", "\u202eSEED", "A" * 100_000):
        said = refused(tmp_path, join(header | {"config": header["config"] | {word: 1}}, sections))
        assert "unknown setting" in said or len(word) > 1000
        assert said.isprintable()
        assert len(said) < 1000


@pytest.mark.parametrize("bad", [5, None, ["a"], "\x1b[2J"])
def test_artifact_whose_alphabet_is_no_hash_is_refused(tmp_path: Path, sample: bytes, bad: object) -> None:
    """The score cuts and quotes it: another kind would be a traceback, control characters commands."""
    header, sections = split(sample)
    said = refused(tmp_path, join(header | {"meta": {"tokenizer_sha256": bad}}, sections))
    assert "tokenizer_sha256" in said
    assert said.isprintable()


def test_artifact_is_read_from_nothing_but_a_file(tmp_path: Path) -> None:
    """A device never ends and a pipe may never begin: neither is waited for; a folder is the system's error."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ArtifactError, match="a pipe or device"):
            artifact.read(path)
    with pytest.raises(IsADirectoryError):
        artifact.read(tmp_path)


FAULTY_CODER = """
import sys
from pathlib import Path
from tests.trainer.test_artifact import META, VOCAB, trained
from tests.trainer.tiny import settings
from trainer import artifact

right = artifact.pack

def wrong(stored, *how, **named):
    stored["blocks.0.mlp.up"].streams["symbols"][0, 0] ^= 1
    found = right(stored, *how, **named)
    stored["blocks.0.mlp.up"].streams["symbols"][0, 0] ^= 1
    return found

artifact.pack = wrong
config = settings()
try:
    artifact.write(Path(sys.argv[1]), trained(config), config, VOCAB, META)
except AssertionError as error:
    print("refused:", error)
"""


@pytest.mark.parametrize("flags", [[], ["-O"]])
def test_artifact_that_reads_back_as_another_does_not_appear(tmp_path: Path, flags: list[str]) -> None:
    """A coder that errs is caught before the file has its name, also by a Python that skips assertions."""
    done = call(*flags, "-c", FAULTY_CODER, tmp_path / "a.golf", env=environment(tmp_path), cwd=tmp_path)
    assert done.stdout == "refused: blocks.0.mlp.up is read back as something else\n", done.stderr
    assert not [*tmp_path.glob("*golf*")]
