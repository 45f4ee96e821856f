"""One call opens the data of a run: prepared on first use, verified on every use.

Prepared data lies in `$XDG_CACHE_HOME/golfctl/data` (else `~/.cache/golfctl/data`), one folder per source and tokenizer, with a
`manifest.json` that states counts, sizes and sha256 of every file. A folder appears complete, by rename; processes that start
together wait for one builder (see `trainer.data.prepare`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from trainer.contract import SEPARATOR
from trainer.data import alphabets, prepare, shards
from trainer.data.errors import DataError


@dataclass(frozen=True)
class Dataset:
    """Flat token streams and what is known about them.

    train, tune, val: uint16 (N,); `tune` is held out from the training text, so settings may be tuned on it and never on val.
    `train` is a `shards.Stream` (len, size, slices) when it spans several shards. val_bytes, tune_bytes: uint16 (N,), bytes of
    text that each token decodes to. `bos` is the context of the first token. Hashes are hex: of the streams as little endian
    uint16, and of the raw validation text, which is the same for every tokenizer. `folder` may hold caches.
    """

    vocab_size: int
    train: np.ndarray | shards.Stream
    tune: np.ndarray
    val: np.ndarray
    val_bytes: np.ndarray
    tune_bytes: np.ndarray
    bos: int
    tokenizer: str
    tokenizer_sha256: str
    train_sha256: str
    val_sha256: str
    val_text_sha256: str
    folder: Path

    def text(self, part: str) -> bytes | None:
        """Raw text of "train", "tune" or "val", verified; None where it was too large to keep (contest shards)."""
        path = self.folder / f"{part}.txt"
        manifest = _manifest(self.folder)
        if path.name not in manifest["files"]:
            return None
        _verify(self.folder, path.name, manifest["files"][path.name])
        return path.read_bytes()


class OnDisk(Dataset):
    """A dataset whose streams are opened anew at each use: who asks for one holds it, and `trainer.opened` hears of it."""

    def __init__(self, streams: dict[str, Callable[[], Any]], **facts: Any) -> None:
        for name, value in {"_streams": streams, **facts}.items():
            object.__setattr__(self, name, value)

    train = property(lambda self: self._streams["train"]())
    tune = property(lambda self: self._streams["tune"]())
    val = property(lambda self: self._streams["val"]())
    val_bytes = property(lambda self: self._streams["val_bytes"]())
    tune_bytes = property(lambda self: self._streams["tune_bytes"]())


def open_dataset(data_path: str, tokenizer: str) -> Dataset:
    """Open, and on first use prepare, the data of a run.

    data_path: "" for the embedded corpus, else a folder with train.txt and val.txt, or with contest shards
    (fineweb_train_*.bin, fineweb_val_*.bin and, for pieces, one tokenizer *.model). tokenizer: "bytes" or "sp1024".
    Raises DataError with one line: what is wrong, where, and what was allowed.
    """
    source = prepare.find_source(data_path, tokenizer)
    folder = prepare.prepared_folder(source)
    manifest = _manifest(folder)
    for name, facts in manifest["files"].items():
        if name.endswith(".bin"):  # texts are verified when they are read
            _verify(folder, name, facts)
    streams = {
        name: partial(shards.read, folder / f"{name}.bin")
        for name in ("train", "tune", "val", "val_bytes", "tune_bytes")
    }
    if source.kind == "shards":
        streams["train"] = lambda: prepare.shard_train(source)["train"]
        streams["tune"] = lambda: prepare.shard_train(source)["tune"]
        streams["val"] = lambda: prepare.shard_val(source, manifest["bos"])
    for name, expected in manifest["tokens"].items():
        if (count := len(streams[name]())) != expected:
            raise DataError(f"{folder}: {name} has {count} tokens, manifest.json says {expected}")
    if (
        source.kind == "shards" and prepare.stream_sha256(streams["val"]()) != manifest["val_sha256"]
    ):  # they lie outside
        raise DataError(
            f"{source.val[0].parent}: the validation shards are not what they were when they were prepared, though size and "
            f"date are the same; bring them again, or delete {folder} to prepare these"
        )
    return OnDisk(
        streams,
        vocab_size=manifest["vocab_size"],
        bos=manifest["bos"],
        tokenizer=tokenizer,
        tokenizer_sha256=manifest["tokenizer_sha256"],
        train_sha256=manifest["train_sha256"],
        val_sha256=manifest["val_sha256"],
        val_text_sha256=manifest["val_text_sha256"],
        folder=folder,
    )


def open_validation(data_path: str, tokenizer: str) -> Dataset:
    """The validation part alone, of a folder with val.txt or fineweb_val_*.bin and, for pieces, one *.model; nothing is cached.

    No training data is looked for: `train` and `tune` are empty, `train_sha256` is "". Raises DataError.
    """
    source = prepare.find_source(data_path, tokenizer, training=False)
    alphabet = alphabets.of_model(tokenizer, source.model)
    if source.kind == "shards":
        val = prepare.shard_val(source, alphabet.bos)
        if int(val.max()) >= alphabet.vocab_size:
            raise DataError(f"{data_path}: holds token {int(val.max())}, but the tokenizer has {alphabet.vocab_size}")
        text = alphabet.text(val)
    else:
        content = source.val[0].read_bytes()
        val, text = alphabet.encode(content.split(bytes([SEPARATOR]))), iter([content])
    digest = hashlib.sha256()
    for piece in text:
        digest.update(piece)
    nothing = np.empty(0, np.uint16)
    return Dataset(
        vocab_size=alphabet.vocab_size,
        train=nothing,
        tune=nothing,
        val=val,
        val_bytes=alphabet.byte_lengths(val),
        tune_bytes=nothing,
        bos=alphabet.bos,
        tokenizer=tokenizer,
        tokenizer_sha256=alphabet.sha256,
        train_sha256="",
        val_sha256=prepare.stream_sha256(val),
        val_text_sha256=digest.hexdigest(),
        folder=Path(data_path),
    )


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / prepare.MANIFEST
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        missing = {"files", "tokens", "vocab_size", "bos", "train_sha256", "val_sha256", "val_text_sha256"} - set(found)
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror}); delete {folder} to prepare it again") from None
    except (ValueError, TypeError):
        raise DataError(f"{path}: not the JSON it was written as; delete {folder} to prepare it again") from None
    if missing:
        raise DataError(f"{path}: lacks {', '.join(sorted(missing))}; delete {folder} to prepare it again")
    return found


def _verify(folder: Path, name: str, facts: dict[str, Any]) -> None:
    path = folder / name
    try:
        size = path.stat().st_size
        if size != facts["bytes"]:
            raise DataError(
                f"{path}: {size} bytes, manifest.json says {facts['bytes']}; delete {folder} to prepare it again"
            )
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror}); delete {folder} to prepare it again") from None
    if found != facts["sha256"]:
        raise DataError(
            f"{path}: sha256 {found[:16]}..., manifest.json says {facts['sha256'][:16]}...; delete {folder}"
        )
