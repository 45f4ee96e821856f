"""What general methods reach on the same validation bytes, as bits per byte: the yardsticks printed beside every score.

Alone, a compressor sees nothing but the validation text. Primed, it has seen all training text, held-out `tune` text
included: an honest opponent gets everything the trainer had. The n-gram models are trained on the same training text
and then frozen. No figure charges for the size of a program, a dictionary or a model; neither does val_bpb.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import lzma
import math
import zlib
from pathlib import Path

import numpy as np
import zstandard

from trainer.contract import SEPARATOR, write_file
from trainer.data.dataset import Dataset
from trainer.evaluate.ngram import WittenBell

VERSION = 1
ORDERS = (2, 4)
LABELS = {
    "zlib9": "zlib-9",
    "zstd22": "zstd-22",
    "lzma9e": "lzma-9e",
    "ngram2": "order-2 n-gram",
    "ngram4": "order-4 n-gram",
    "zstd22_primed": "zstd-22",
    "lzma9e_primed": "lzma-9e",
}
"""Name of each reference in a result to what people call it, in the order of printing."""


def of_dataset(dataset: Dataset) -> dict[str, float]:
    """References for a data set, computed once (some 5 s for 2 MB) and kept in its folder; {} where its text was not kept.

    A cached file counts only if it was made from the same texts by the same libraries. Raises DataError for damaged
    texts.
    """
    texts = [dataset.text(part) for part in ("train", "tune", "val")]
    if any(text is None for text in texts):
        return {}
    train, tune, val = (text for text in texts if text is not None)
    facts = [VERSION, zlib.ZLIB_RUNTIME_VERSION, zstandard.ZSTD_VERSION, *map(_sha256, (train, tune, val))]
    key = _sha256(json.dumps(facts).encode())
    path = dataset.folder / "references.json"
    cached = _cached(path, key)
    if cached is None:
        cached = compute(train + bytes([SEPARATOR]) + tune, val)
        with contextlib.suppress(OSError):  # a read-only cache costs time on the next call, nothing else
            write_file(path, json.dumps({"key": key, "bpb": cached}, indent=1).encode())
    return cached


def compute(training: bytes, text: bytes) -> dict[str, float]:
    """bits per byte of `text` by each method in LABELS. Raises ValueError if either is empty."""
    if not training or not text:
        raise ValueError("references need training and validation text")
    joined = training + bytes([SEPARATOR]) + text
    sizes = {
        "zlib9": len(zlib.compress(text, 9)),
        "zstd22": len(zstd(text)),
        "lzma9e": _lzma(text),
        "zstd22_primed": len(zstd(text, training)),
        "lzma9e_primed": _lzma(joined) - _lzma(training),
    }
    found = {name: 8 * size / len(text) for name, size in sizes.items()}
    bits = -np.log2(WittenBell(training, max(ORDERS)).probabilities(text)).mean(axis=1)
    found |= {f"ngram{order}": float(bits[order]) for order in ORDERS}
    return {name: found[name] for name in LABELS}


def zstd(text: bytes, prefix: bytes = b"") -> bytes:
    """`text` at level 22, its window wide enough to reach back over all of `prefix` (zstd's --patch-from)."""
    size = len(text) + len(prefix)
    window = min(max(10, math.ceil(math.log2(size + 1))), zstandard.WINDOWLOG_MAX)
    settings = zstandard.ZstdCompressionParameters.from_level(
        22, source_size=size, window_log=window, enable_ldm=bool(prefix), write_checksum=False, write_dict_id=False
    )
    dictionary = zstandard.ZstdCompressionDict(prefix, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if prefix else None
    return zstandard.ZstdCompressor(dict_data=dictionary, compression_params=settings).compress(text)


def line(references: dict[str, float], text_bytes: int) -> str:
    """One line for people, e.g. "references on the same 117,571 bytes: zlib-9 2.493 ... (primed ...: lzma-9e 1.769)"."""
    alone = [f"{LABELS[name]} {bpb:.3f}" for name, bpb in references.items() if not name.endswith("_primed")]
    primed = [f"{LABELS[name]} {bpb:.3f}" for name, bpb in references.items() if name.endswith("_primed")]
    tail = f"   (primed with the training text: {'  '.join(primed)})" if primed else ""
    return f"references on the same {text_bytes} bytes: {'  '.join(alone)}{tail}"


def _lzma(text: bytes) -> int:
    return len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _cached(path: Path, key: str) -> dict[str, float] | None:
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        if held["key"] == key and set(held["bpb"]) == set(LABELS):
            return {name: float(held["bpb"][name]) for name in LABELS}
    except (OSError, ValueError, KeyError, TypeError):
        pass  # absent, or not ours: computed afresh
    return None
