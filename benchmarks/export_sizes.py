"""Bytes of code that count for each preset: the package folder, its one-file export, and that compressed.

python benchmarks/export_sizes.py    (a few minutes; writes results/export_sizes.md)
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from machine import describe

from trainer import contract, pack
from trainer.config import load, preset_names

RESULTS = Path(__file__).parent / "results" / "export_sizes.md"
CASES = {"(defaults)": [], "(defaults) REFERENCE_SCORES=0": ["REFERENCE_SCORES=0"]} | {
    n: ["--config", n] for n in preset_names()
}


def row(name: str, words: list[str]) -> str:
    """One line of the table."""
    config, began = load(words, {}), time.perf_counter()
    made = pack.source_of(config)
    seconds = time.perf_counter() - began
    plain, packed = (len(pack.finished(*made, compress=compress).encode()) for compress in (False, True))
    print(f"{name}: {plain} {packed} ({seconds:.1f} s)", flush=True)
    return f"| {name} | {plain:,} | {packed:,} |"


def main() -> None:
    """Measure and write."""
    whole = contract.code_bytes(contract.code_root())
    own = sum(path.stat().st_size for path in (contract.code_root() / "export").rglob("*.py"))
    rows = [row(name, words) for name, words in CASES.items()]
    RESULTS.write_text(
        "\n".join(
            [
                "# Bytes of code by preset",
                "",
                "Made by `benchmarks/export_sizes.py`. The package folder counts "
                f"{whole:,} bytes; the exporter, {own:,} bytes more, is not code of any run and not counted.",
                "",
                "| configuration | export, bytes | compressed, bytes |",
                "|---|---|---|",
                *rows,
                "",
                f"Machine: {json.dumps(describe())}",
                "",
            ]
        )
    )


if __name__ == "__main__":
    main()
