"""Our range coder against general codecs on trained models, and its speed at 36 M symbols. Writes results/packing.md.

Two models are trained: cpu-best for its 40 seconds, and four layers of width 256 with weight decay for 300 steps or four minutes.
Each is rounded to int8 and int6 and packed by every codec; decoding is timed on one thread.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from machine import describe

from trainer import artifact, contract
from trainer.config import from_values
from trainer.packing import codecs, explain, sections
from trainer.packing.blocks import Layout, layout_of
from trainer.packing.sections import Section

RESULT = Path(__file__).parent / "results" / "packing.md"
MODELS = {
    "cpu-best, 40 s": ["--config", "cpu-best", "TTT_ENABLED=0"],
    "4 x 256, 4 minutes": [
        *("NUM_LAYERS=4", "MODEL_DIM=256", "NUM_HEADS=8", "NUM_KV_HEADS=4", "MLP_MULT=2", "MUON_WD=0.05"),
        *("ITERATIONS=300", "MAX_WALLCLOCK_SECONDS=240"),
    ],
}
BITS = ({}, {"MATRIX_BITS": 6, "EMBED_BITS": 6})
CODECS = ("zlib", "zstd", "lzma", "brotli", "rans", "auto")
SYMBOLS, REPEATS = 36_000_000, 3


def trained(folder: Path, words: list[str]) -> Path:
    """The artifact of one run at float16, so that its weights can be rounded in any way."""
    more = [f"{name}_BITS=16" for name in ("MATRIX", "EMBED", "TABLE")]
    more += ["CPU_THREADS=1", "EVAL_STRIDE=128", "REFERENCE_SCORES=0", f"OUT_DIR={folder}"]
    subprocess.run([sys.executable, "-m", "trainer", *words, *more], check=True, stdout=subprocess.DEVNULL)
    return folder / contract.ARTIFACT


def packings(path: Path) -> Iterator[tuple[str, dict[str, list[Section]]]]:
    """Bits, and the sections by codec, of a trained model rounded in every way."""
    model, found = artifact.load_model(path)
    settings = {**found.config.as_settings(), "TABLE_BITS": 6}
    for bits in BITS:
        config = from_values({**settings, "MATRIX_BITS": 8, "EMBED_BITS": 8, **bits})
        stored = artifact.stored_weights(model, config)
        yield "int6" if bits else "int8", {codec: sections.pack(stored, codec) for codec in CODECS}


def size_rows(name: str, path: Path) -> list[str]:
    """Table rows of one model: bytes of each section by each codec, and what the range coder should need."""
    out = []
    for bits, packed in packings(path):
        for place, ours in enumerate(packed["rans"]):
            told = explain.section(ours, dict.fromkeys((part[0] for part in ours.kind.parts), ""))
            sizes = [len(packed[codec][place].content) for codec in CODECS[:-1]]
            best = packed["auto"][place].codec
            cells = " | ".join(f"**{size:,}**" if size == min(sizes) else f"{size:,}" for size in sizes)
            over = f"{told['coded_bytes'] / told['bound_bytes'] - 1:+.2%}"
            section = f"{ours.kind.role} {ours.kind.stream}"
            out.append(f"| {name}, {bits} | {section} | {told['raw_bytes']:,} | {cells} | {over} | {best} |")
        wholes = [sum(len(section.content) for section in packed[codec]) for codec in CODECS]
        cells = " | ".join(f"{size:,}" for size in wholes[:-1])
        raw = sum(layout_of(section.kind.streams).count for section in packed["auto"])
        out.append(f"| {name}, {bits} | **all** | {raw:,} | {cells} | | {wholes[-1]:,} |")
    return out


def speed() -> str:
    """Seconds for 36 M symbols of Gaussian rows of differing spread, one thread."""
    rng = np.random.default_rng(0)
    spread = np.repeat(rng.uniform(4, 12, SYMBOLS // 512 + 1), 512)[:SYMBOLS].astype(np.float32)
    symbols = (rng.standard_normal(SYMBOLS, np.float32) * spread).round().clip(-31, 31).astype(np.int8)
    symbols = (symbols + 31).astype(np.uint8)
    rows = np.full(SYMBOLS // 512, 512, np.int64)
    layout = Layout(np.append(rows, SYMBOLS % 512) if SYMBOLS % 512 else rows, 63, 1)
    began = time.process_time()
    content = codecs.encode(symbols, layout)
    encoding, times = time.process_time() - began, []
    for _ in range(REPEATS):
        began = time.process_time()
        back = codecs.decode(content, layout)
        times.append(time.process_time() - began)
    assert np.array_equal(back, symbols)
    return (
        f"{SYMBOLS:,} symbols of Gaussian rows: {len(content):,} bytes; encoded in {encoding:.1f} s, decoded in "
        f"{statistics.median(times):.1f} s (median of {', '.join(f'{t:.1f}' for t in times)}; processor time, one thread)."
    )


def main() -> None:
    """Train, pack, time, write."""
    lines = [
        f"| model | section | bytes before | {' | '.join(CODECS[:-1])} | rans over its bound | auto |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as place:
        for number, (name, words) in enumerate(MODELS.items()):
            lines += size_rows(name, trained(Path(place) / str(number), words))
            print("\n".join(lines), flush=True)
    timing = speed()
    print(timing)
    folder = Path(codecs.__file__).parent
    counted = {path.name: path.stat().st_size for path in sorted(folder.glob("*.py"))}
    ours = counted["rans.py"] + counted["histograms.py"]
    code = (
        f"Code: trainer/packing is {sum(counted.values()):,} bytes as shipped, of which the range coder and its histograms "
        f"{ours:,}; the package folder is {contract.code_bytes(contract.code_root()):,}."
    )
    how = (
        "Bytes of each section of the artifact by each codec, checksum included (the smallest is bold); the bound is the sum of "
        "-log2 p under the tables that the section holds, row labels included and tables not. `auto` never tries brotli."
    )
    facts = "; ".join(f"{key}: {value}" for key, value in describe().items())
    head = "# Packing\n\nMade by `benchmarks/packing.py`. " + how
    RESULT.write_text(head + "\n\n" + "\n".join(lines) + f"\n\n{timing}\n\n{code}\n\n{facts}\n")


if __name__ == "__main__":
    main()
