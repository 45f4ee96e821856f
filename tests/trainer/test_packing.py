"""Sections: every stream in every codec and back, the smallest chosen, sizes on demand, and where the bytes go."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.trainer.test_artifact import META, VOCAB, trained
from tests.trainer.tiny import call, dataset, environment, settings, text_folder
from trainer import artifact, contract
from trainer.config import SettingsError
from trainer.dist import Group
from trainer.metrics import Metrics
from trainer.pack import main as pack_main
from trainer.packing import codecs, explain, sections
from trainer.packing.blocks import arrays_of, layout_of, shuffled, symbols_of, unshuffled
from trainer.packing.rans import DamagedError
from trainer.packing.target import COARSEST, FINEST, TOLERANCE, land
from trainer.quant.grid import SCHEMES, limits
from trainer.quant.stored import Stored, Stream, streams_of
from trainer.train import Diverged, check, run

KINDS = [
    *(("|i1", -127, 127), ("|i1", -128, 127), ("|i1", -2, 1), ("|u1", 0, 255), ("<i2", 1000, 1100), ("<i2", -900, 900)),
    *(("<f2", 0, 0), ("<f4", 0, 0), ("<i4", -(2**31), 2**31 - 1)),
]
EVERYWHERE = ("zlib", "zstd", "lzma", "rans")


def filled(scheme: str, shape: tuple[int, ...], seed: int) -> Stored:
    """A weight whose every array holds something its stream allows."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for name, stream in streams_of(scheme, shape).items():
        if stream.low < stream.high:
            values = np.rint(rng.normal(0, stream.high / 3 + 0.4, stream.shape)).clip(stream.low, stream.high)
        else:
            values = np.exp(rng.normal(-3, 1, stream.shape))
        arrays[name] = values.astype(stream.dtype)
    return Stored(scheme, shape, arrays)


def same(before: Stored, after: dict[str, np.ndarray]) -> bool:
    """Bit for bit, dtypes and shapes included."""
    return before.streams.keys() == after.keys() and all(
        array.dtype == after[name].dtype
        and array.shape == after[name].shape
        and array.tobytes() == after[name].tobytes()
        for name, array in before.streams.items()
    )


@pytest.mark.parametrize("codec", [*EVERYWHERE, "brotli", "auto"])
@pytest.mark.parametrize("scheme", [*SCHEMES, "fp16", "fp32", "int4+awq", "int6+lqer2", "int5+awq+lqer1"])
def test_every_scheme_comes_back_from_every_codec(scheme: str, codec: str) -> None:
    """Bit for bit: several tensors of a section, odd shapes, and vectors beside matrices."""
    if codec == "brotli":
        pytest.importorskip("brotli")
    stored = {"blocks.0.mlp.up": filled(scheme, (9, 130), 1), "blocks.0.mlp.down": filled(scheme, (4, 3), 2)}
    stored |= {"blocks.0.mlp_scale": filled("fp16", (7,), 3), "embed": filled(scheme, (5, 4), 4)}
    found: dict[str, dict[str, np.ndarray]] = {name: {} for name in stored}
    for section in sections.pack(stored, codec):
        assert codec in {"auto", section.codec}
        for (name, stream), array in zip(section.kind.parts, sections.unpack(section), strict=True):
            found[name][stream] = array
    assert all(same(stored[name], arrays) for name, arrays in found.items())


@given(st.data())
@hypothesis_settings(max_examples=60, deadline=None)
def test_blocks_keep_any_array(data: st.DataObject) -> None:
    """Whole numbers of any range and width, floats of any bits: symbols and back, shuffled and back."""
    dtype, low, high = data.draw(st.sampled_from(KINDS))
    shapes = data.draw(st.lists(st.lists(st.integers(0, 7), min_size=1, max_size=3).map(tuple), min_size=1, max_size=4))
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    streams = [Stream(dtype, shape, low, high) for shape in shapes]
    if low < high:
        arrays = [rng.integers(low, high, shape, endpoint=True).astype(dtype) for shape in shapes]
    else:
        size = np.dtype(dtype).itemsize
        arrays = [np.frombuffer(rng.bytes(math.prod(s) * size), dtype).reshape(s) for s in shapes]
    symbols, layout = symbols_of(streams, arrays), layout_of(streams)
    assert len(symbols) == layout.count
    back = arrays_of(streams, unshuffled(shuffled(symbols, layout.width), layout.width))
    assert [b.tobytes() for b in back] == [a.tobytes() for a in arrays]
    for codec in EVERYWHERE:
        for mixed in (False, True):
            if sections.fits(codec, mixed, layout):
                kind = sections.Kind("matrix", "symbols", [("x", "symbols")] * len(streams), streams)
                content = zlib.crc32(symbols).to_bytes(4, "little") + sections._coded(codec, mixed, symbols, layout)
                assert np.array_equal(sections.symbols_in(sections.Section(kind, codec, mixed, content)), symbols)


def test_values_beyond_a_scheme_are_not_packed() -> None:
    """A quantiser that leaves its grid is stopped before a file is made."""
    stored = filled("int4", (3, 4), 1)
    stored.streams["symbols"][0, 0] = limits("int4")[1] + 1
    with pytest.raises(ValueError, match="beyond"):
        sections.pack({"embed": stored}, "auto")


def test_auto_takes_the_smallest_of_each_section() -> None:
    """No codec alone makes any section smaller; of large trained-like matrices the range coder wins, of repeated rows lzma."""
    rows = np.random.default_rng(5).integers(-31, 32, (8, 128)).astype(np.int8)
    embed = Stored("int6", (256, 128), {"symbols": np.tile(rows, (32, 1)), "scale": np.full(256, 0.5, "<f2")})
    stored = {
        "blocks.0.mlp.up": filled("int6", (256, 128), 1),
        "embed": embed,
        "blocks.0.mlp_scale": filled("fp16", (99,), 2),
    }
    best = sections.pack(stored, "auto")
    for codec in EVERYWHERE:
        alone = sections.pack(stored, codec)
        assert all(len(a.content) <= len(b.content) for a, b in zip(best, alone, strict=True)), codec
    chosen = {(s.kind.role, s.kind.stream): s.codec for s in best}
    assert chosen["matrix", "symbols"] == "rans"
    assert chosen["embed", "symbols"] != "rans"
    again = sections.pack(stored, "auto", like=best)
    assert [s.content for s in again] == [s.content for s in best]


def test_large_sections_are_screened_and_not_made_larger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking a sample first gives what trying everything gives, on weights that are alike all over."""
    stored = {"blocks.0.mlp.up": filled("int5", (256, 128), 1), "embed": filled("fp16", (128, 128), 2)}
    whole = [len(s.content) for s in sections.pack(stored, "auto")]
    monkeypatch.setattr(sections, "SCREENED", 10_000)
    monkeypatch.setattr(sections, "SAMPLE", 5000)
    assert [len(s.content) for s in sections.pack(stored, "auto")] == whole


@pytest.mark.parametrize("codec", ["zlib", "zstd", "lzma", "brotli"])
def test_general_codecs_refuse_bombs_and_rests(codec: str) -> None:
    """Content that is longer, shorter or other than announced; nothing is unpacked beyond the length asked for."""
    if codec == "brotli":
        pytest.importorskip("brotli")
    bomb = codecs.pack(codec, bytes(1 << 22), 1)
    assert len(bomb) < 1 << 16
    for content, count in (
        (bomb, 1000),
        (bomb, 0),
        (bomb, 1 << 23),
        (bomb[:-3], 1 << 22),
        (bomb + b"x", 1 << 22),
        (b"", 9),
    ):
        with pytest.raises(DamagedError, match=codec):
            codecs.unpack(codec, content, count, 1)
    for seed in range(40):
        with pytest.raises(DamagedError, match=codec):
            codecs.unpack(codec, np.random.default_rng(seed).bytes(60), 5000, 1)


def test_codec_that_is_not_installed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused before training, and when a file needs it."""
    monkeypatch.setattr(codecs, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match="CODEC=brotli needs a package"):
        check(settings(CODEC="brotli"), 1)
    check(settings(CODEC="auto"), 1)
    monkeypatch.setitem(__import__("sys").modules, "brotli", None)
    with pytest.raises(ValueError, match="not installed"):
        codecs.unpack("brotli", b"abc", 9, 1)


# --- sizes on demand -----------------------------------------------------------------------------------------------------
def bent(k: float) -> int:
    """Bytes of a model whose weights lose a bit with each doubling of k, a tenth of which is something else."""
    return int(100_000 + 1_000_000 * max(0.2, 6.5 - math.log2(k)) / 8)


@pytest.mark.parametrize("target", [300_000, 400_000, 500_000, 612_345, 700_000])
@pytest.mark.parametrize("start", [FINEST, 12.85, COARSEST])
def test_target_is_met_from_anywhere(target: int, start: float) -> None:
    """Within the tolerance below it, in a handful of tries."""
    found = land(bent, target, start)
    assert target * (1 - TOLERANCE) < found.size <= target
    assert found.size == bent(found.k)
    assert found.tries <= 12


def test_target_out_of_reach_says_the_smallest_size() -> None:
    """A model that can't be made small enough is refused; one that is always small enough gets the finest grid."""
    with pytest.raises(ValueError, match=f"MODEL_BYTES_TARGET=110000 is out of reach.* {bent(COARSEST)} bytes"):
        land(bent, 110_000, 12.85)
    assert land(bent, 5_000_000, 12.85).k == pytest.approx(FINEST)


def test_target_of_steps_takes_the_largest_that_fits() -> None:
    """Where no k lands within the tolerance the search ends, under the target."""
    found = land(lambda k: 10_000 if k < 20 else 5_000, 9_000, 12.85)
    assert found.size == 5_000


def test_settings_of_the_target_are_checked() -> None:
    """It needs a k to move, and room under the cap beside the code."""
    with pytest.raises(SettingsError, match="QUANT_CLIP=max has none"):
        settings(MODEL_BYTES_TARGET=10_000)
    with pytest.raises(SettingsError, match="over the cap"):
        check(settings(MODEL_BYTES_TARGET=contract.CAP_BYTES, QUANT_CLIP="sigma"), 1)


def test_write_lands_under_the_target(tmp_path: Path) -> None:
    """The file has the size asked for, the log says k, and the file reads like any other."""
    config = settings(MODEL_DIM=64, QUANT_CLIP="sigma", MATRIX_BITS=6, MODEL_BYTES_TARGET=40_000, CODEC="zlib")
    heard: list[str] = []
    size = artifact.write(tmp_path / "a.golf", trained(config), config, VOCAB, META, say=heard.append)
    assert 40_000 * (1 - TOLERANCE) < size <= 40_000
    assert re.fullmatch(
        rf"model_bytes_target:40000 model_bytes:{size} clip_k:[\d.]+ tries:\d+ target_time:\d+ms", heard[0]
    )
    assert torch.isfinite(artifact.read(tmp_path / "a.golf").state["embed"]).all()


def test_target_out_of_reach_keeps_what_was_trained(tmp_path: Path) -> None:
    """The run fails with the smallest size there is, and its model lies there, without the target."""
    config = settings(QUANT_CLIP="sigma", MODEL_BYTES_TARGET=4_000, TRAIN_LOG_EVERY=0)
    with pytest.raises(Diverged, match=r"out of reach.*artifact\.golf holds the model without the target, \d+ bytes"):
        run(config, dataset(), Group(0, 1, 0, 1, torch.device("cpu")), Metrics(tmp_path, 0))
    assert artifact.read(tmp_path / contract.ARTIFACT).config.model_dim == config.model_dim


@pytest.mark.service
@pytest.mark.parametrize(
    ("target", "words"),
    [
        (180_000, ["--config", "cpu-best", "MATRIX_BITS=6", "EMBED_BITS=6", "NGRAM_BUCKETS=4096", "TTT_ENABLED=0"]),
        (200_000, ["MODEL_DIM=128", "MATRIX_BITS=5", "NUM_LAYERS=3", "GPTQ=1", "GPTQ_BATCHES=1", "CODEC=rans"]),
        (180_000, ["MODEL_DIM=128", "MATRIX_BITS=8", "BIGRAM_VOCAB_SIZE=1024", "MLP_MULT=3"]),
    ],
)
def test_training_lands_under_the_target(tmp_path: Path, target: int, words: list[str]) -> None:
    """A real run of three configurations: at most 0.2 % of the target is left, and the score is that of the file."""
    more = ["QUANT_CLIP=sigma", "ITERATIONS=6", "MAX_WALLCLOCK_SECONDS=0", "CPU_THREADS=1", "REFERENCE_SCORES=0"]
    more += [
        f"MODEL_BYTES_TARGET={target}",
        f"OUT_DIR={tmp_path / 'run'}",
        f"DATA_PATH={text_folder(tmp_path / 'text')}",
    ]
    done = call("-m", "trainer", *words, *more, "EVAL_STRIDE=128", env=environment(tmp_path), cwd=tmp_path, timeout=250)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "run" / contract.RESULT).read_text())
    assert 0.998 * target < result["model_bytes"] <= target
    assert f"model_bytes_target:{target} model_bytes:{result['model_bytes']} clip_k:" in done.stdout


@pytest.mark.service
def test_range_coder_is_smallest_on_trained_matrices(tmp_path: Path) -> None:
    """Smaller than every general codec on the int6 symbols of a trained model's matrices, and within 1 % of its own bound."""
    words = [
        "MODEL_DIM=192",
        "MATRIX_BITS=6",
        "NUM_LAYERS=3",
        "MUON_WD=0.05",
        "ITERATIONS=40",
        "MAX_WALLCLOCK_SECONDS=0",
    ]
    words += [
        "TRAIN_BATCH_TOKENS=1024",
        "CPU_THREADS=1",
        "REFERENCE_SCORES=0",
        "EVAL_STRIDE=128",
        f"OUT_DIR={tmp_path / 'run'}",
    ]
    data = text_folder(tmp_path / "text")
    done = call("-m", "trainer", *words, f"DATA_PATH={data}", env=environment(tmp_path), cwd=tmp_path, timeout=250)
    assert done.returncode == 0, done.stderr
    parts = artifact.read_parts(tmp_path / "run" / contract.ARTIFACT)
    place = [(s.kind.role, s.kind.stream) for s in parts.sections].index(("matrix", "symbols"))
    ours = parts.sections[place]
    assert ours.codec == "rans"
    assert len(ours.content) < 1.01 * explain.section(ours, dict.fromkeys(parts.stored, ""))["bound_bytes"]
    for codec in ("zlib", "zstd", "lzma", *(["brotli"] if codecs.installed("brotli") else [])):
        assert len(ours.content) < len(sections.pack(parts.stored, codec)[place].content), codec


# --- where the bytes go --------------------------------------------------------------------------------------------------
def test_explain_accounts_for_every_byte(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Sections, roles, tensors and streams each add up to the file; bounds are near what was coded; nothing is left out."""
    config = settings(NGRAM_MAX_ORDER=2, MODEL_DIM=64, MATRIX_BITS=6, CODEC="auto")
    path = tmp_path / "a.golf"
    size = artifact.write(path, trained(config), config, VOCAB, META)
    assert pack_main(["--explain", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    coded = sum(entry["coded_bytes"] for entry in found["sections"])
    assert found["file_bytes"] == size == found["frame_bytes"] + found["header_bytes"] + coded
    assert found["frame_bytes"] == 60
    for key in ("roles", "tensors"):
        assert sum(entry["coded_bytes"] for entry in found[key].values()) == coded
    for entry in found["sections"]:
        assert sum(part["coded_bytes"] for part in entry["parts"]) == entry["coded_bytes"]
        if entry["codec"] == "rans":
            assert entry["bound_bytes"] < entry["coded_bytes"] < 1.02 * entry["bound_bytes"] + 300
    model = trained(config)
    assert list(found["tensors"]) == sorted(found["tensors"], key=list(found["tensors"]).index)
    assert found["tensors"].keys() == {name for name, _ in model.named_parameters()}
    assert sum(entry["values"] for entry in found["tensors"].values()) == sum(p.numel() for p in model.parameters())
    assert found["code_bytes"] == contract.code_bytes(contract.code_root())
    assert pack_main(["--explain", str(path)]) == 0
    said = capsys.readouterr().out
    assert f"= file {size:,} bytes" in said
    assert "blocks.1.mlp.down symbols" in said


def test_explain_bears_a_reader_that_goes_away(tmp_path: Path) -> None:
    """`| head -1` has its line, and nobody complains."""
    config = settings(NUM_LAYERS=1)
    artifact.write(tmp_path / "a.golf", trained(config), config, VOCAB, META)
    done = subprocess.run(
        ["bash", "-c", f"'{sys.executable}' -m trainer.pack --explain a.golf | true; echo ${{PIPESTATUS[0]}}"],
        env=environment(tmp_path),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_explain_refuses_what_is_no_artifact(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, and exit code 1; wrongly called, 2."""
    (tmp_path / "a.golf").write_bytes(b"PK\x03\x04" + bytes(99))
    assert pack_main(["--explain", str(tmp_path / "a.golf")]) == 1
    assert "not an artifact" in capsys.readouterr().err
    assert pack_main(["--explain", str(tmp_path / "none.golf")]) == 1
    assert pack_main(["--explain"]) == 2
    assert "usage" in capsys.readouterr().err
