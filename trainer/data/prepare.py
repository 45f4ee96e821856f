"""Turns a source (embedded corpus, text files, contest shards) into a prepared folder, once, under a lock.

Other readers never see a half-built folder: it is filled under a temporary name, synced, and renamed. Shards stay where they are;
their folder holds only the byte table, hashes and, while small, the decoded text for the reference scores.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainer.contract import SEPARATOR, write_file
from trainer.data import alphabets, corpus, shards, tokens
from trainer.data.errors import DataError
from trainer.data.files import sha256_of_file

MANIFEST = "manifest.json"
FORMAT = 2
"""Raised whenever the same source would be prepared otherwise; part of the cache key."""
TEXT_LIMIT = 1 << 24
"""Tokens up to which the text of shards is kept: references over gigabytes would take hours."""
TUNE_SHARE = 20
TUNE_MOST = 1 << 20


@dataclass(frozen=True)
class Source:
    """Where data comes from. kind: "embedded", "text" or "shards"; `key` names the prepared folder."""

    kind: str
    tokenizer: str
    key: str
    folder: Path | None
    train: tuple[Path, ...] = ()
    val: tuple[Path, ...] = ()
    model: Path | None = None

    @property
    def files(self) -> list[Path]:
        """All files the data comes from."""
        return [*self.train, *self.val, *([self.model] if self.model else [])]


def holds_training(data_path: str) -> bool:
    """Whether DATA_PATH means training data, too; a folder with the validation part alone is enough to score on."""
    folder = Path(data_path)
    return not data_path or (folder / "train.txt").is_file() or bool(shards.paths(folder, "train"))


def find_source(data_path: str, tokenizer: str, training: bool = True) -> Source:
    """What DATA_PATH means. training: whether its training part is needed; without it, that part is not looked at, and pieces
    always need their model. Raises DataError if it holds no usable data or an unreadable, empty or re-sized file."""
    alphabets.check(tokenizer)
    if not data_path:
        facts = ["embedded", platform.python_version(), str(corpus.library_folder()), str(corpus.FORMAT)]
        return Source("embedded", tokenizer, _key(f"python{platform.python_version()}", tokenizer, facts), None)
    folder = Path(data_path)
    if not folder.is_dir():
        raise DataError(f"DATA_PATH={data_path}: not a folder")
    folder = folder.resolve()
    texts = folder / "train.txt", folder / "val.txt"
    train, val = (tuple(shards.paths(folder, part)) for part in ("train", "val"))
    if val and (train or not training):
        kind, model = "shards", _model_in(folder, tokenizer)
    elif all(path.is_file() for path in (texts if training else texts[1:])):
        kind, model, train, val = "text", None if training else _model_in(folder, tokenizer), texts[:1], texts[1:]
    elif training:
        raise DataError(f"{folder}: needs train.txt and val.txt, or fineweb_train_*.bin and fineweb_val_*.bin")
    else:
        raise DataError(f"{folder}: needs val.txt or fineweb_val_*.bin")
    train = train if training else ()
    files = [*train, *val, *([model] if model else [])]
    _check_against_manifest(folder, files)
    facts = [kind, str(folder)]
    for path in files:
        status = path.stat()
        if status.st_size == 0:
            raise DataError(f"{path}: 0 bytes")
        facts.append(f"{path.name} {status.st_size} {status.st_mtime_ns}")
    return Source(kind, tokenizer, _key(folder.name, tokenizer, facts), folder, train, val, model)


def _model_in(folder: Path, tokenizer: str) -> Path | None:
    """The file that an alphabet of pieces is; None for the others."""
    if not alphabets.needs_model(tokenizer):
        return None
    models = sorted(folder.glob("*.model"))
    if len(models) != 1:
        raise DataError(f"{folder}: {len(models)} *.model files beside the data; exactly 1 is needed")
    return models[0]


def _key(label: str, tokenizer: str, facts: list[str]) -> str:
    digest = hashlib.sha256("\n".join([str(FORMAT), tokenizer, *facts]).encode()).hexdigest()
    safe = "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in label)
    return f"{safe[:40]}-{tokenizer}-{digest[:16]}"


def _check_against_manifest(folder: Path, files: list[Path], hashes: bool = False) -> None:
    """Compare a data folder with the manifest.json in it, if any: sizes always, contents when `hashes`."""
    path = folder / MANIFEST
    if not path.exists():
        return
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))["files"]
        facts = {name: (int(entry["bytes"]), str(entry["sha256"])) for name, entry in listed.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise DataError(f"{path}: must hold {{'files': {{name: {{'bytes': n, 'sha256': hex}}}}}}") from None
    for file in files:
        if file.name not in facts:
            raise DataError(f"{file}: not listed in {path}")
        size, digest = facts[file.name]
        if file.stat().st_size != size:
            raise DataError(f"{file}: {file.stat().st_size} bytes, {path.name} says {size}")
        if hashes and sha256_of_file(file) != digest:
            raise DataError(f"{file}: its sha256 is not the one in {path.name}")


def cache_root() -> Path:
    """Folder of all prepared data."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path.home() / ".cache") / "golfctl" / "data"


def prepared_folder(source: Source) -> Path:
    """The complete prepared folder of a source, built now if it is missing. Raises DataError."""
    folder = cache_root() / source.key
    if (folder / MANIFEST).is_file():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _lock(folder.with_name(f"{folder.name}.lock")):
            if not folder.exists():  # another process may have built it while we waited
                _build_beside(folder, source)
    except OSError as error:
        place = error.filename or folder
        raise DataError(
            f"{place}: can't prepare data ({error.strerror}); set XDG_CACHE_HOME to a writable folder"
        ) from None
    return folder


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released by the kernel even if we are killed
        yield


def _build_beside(folder: Path, source: Source) -> None:
    for stale in folder.parent.glob(f".{folder.name}.*"):  # left by a builder that was killed; we hold the lock
        shutil.rmtree(stale, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        if source.folder is not None:
            _check_against_manifest(source.folder, source.files, hashes=True)
        facts = _build_shards(temporary, source) if source.kind == "shards" else _build_text(temporary, source)
        files = {
            path.name: {"bytes": path.stat().st_size, "sha256": sha256_of_file(path)}
            for path in sorted(temporary.iterdir())
        }
        manifest = {
            "format": FORMAT,
            "source": source.kind,
            "from": str(source.folder or corpus.library_folder()),
            "python": platform.python_version(),
            **facts,
            "files": files,
        }
        write_file(temporary / MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _build_text(folder: Path, source: Source) -> dict[str, Any]:
    parts = corpus.split_documents() if source.kind == "embedded" else _text_documents(source)
    alphabet = alphabets.trained(source.tokenizer, parts["train"])
    if isinstance(alphabet, tokens.Pieces):
        write_file(folder / "tokenizer.model", alphabet.model)
    streams, texts = {}, {}
    for name, documents in parts.items():
        texts[name] = tokens.raw_text(documents)
        streams[name] = alphabet.encode(documents)
        assert alphabet.decode(streams[name]) == documents, name
        write_file(folder / f"{name}.txt", texts[name])
        shards.write(folder / f"{name}.bin", streams[name])
    counts = _write_byte_tables(folder, alphabet, streams)
    silent = 0 if alphabet.separators_are_text else len(parts["val"]) - 1  # boundaries that decode to no byte
    assert counts["val"] == len(texts["val"]) - silent, (counts, len(texts["val"]))
    return {
        **_facts(alphabet, streams),
        "documents": {name: len(documents) for name, documents in parts.items()},
        "bytes": {name: len(text) for name, text in texts.items()},
        "val_text_sha256": hashlib.sha256(texts["val"]).hexdigest(),
    }


def _build_shards(folder: Path, source: Source) -> dict[str, Any]:
    alphabet = alphabets.of_model(source.tokenizer, source.model)
    for path in (*source.train, *source.val):
        highest = max(int(block.max()) for block in shards.Stream([shards.read(path)]).blocks())
        if highest >= alphabet.vocab_size:
            raise DataError(f"{path}: holds token {highest}, but the tokenizer has {alphabet.vocab_size}")
    streams = shard_parts(source, alphabet.bos)
    counts = _write_byte_tables(folder, alphabet, streams)
    if counts["val"] == 0:
        raise DataError(f"{source.val[0]}: its tokens decode to no text")
    digest = hashlib.sha256()
    keep = len(streams["train"]) <= TEXT_LIMIT and len(streams["val"]) <= TEXT_LIMIT
    for name in ("train", "tune", "val") if keep else ("val",):
        stream = streams[name][:]
        if name != "val" and int(stream[0]) == alphabet.bos:
            stream = stream[1:]
        pieces = alphabet.text(stream)
        if keep:
            text = b"".join(pieces)
            write_file(folder / f"{name}.txt", text)
            pieces = iter([text])
        if name == "val":
            for piece in pieces:
                digest.update(piece)
    return {**_facts(alphabet, streams), "val_text_sha256": digest.hexdigest()}


def shard_parts(source: Source, bos: int) -> dict[str, Any]:
    """train, tune and val of contest shards, as memory maps."""
    return {**shard_train(source), "val": shard_val(source, bos)}


def shard_train(source: Source) -> dict[str, Any]:
    """train and tune of contest shards: the last 5 % of the training tokens (at most 2^20) are `tune`."""
    train = [shards.read(path) for path in source.train]
    total = sum(part.size for part in train)
    held = min(total // TUNE_SHARE, TUNE_MOST)
    whole = shards.Stream(train)
    tune = whole[total - held :]
    if not held:
        raise DataError(f"{source.folder}: {total} training tokens; at least {TUNE_SHARE} are needed")
    kept, room = [], total - held
    for part in train:
        kept.append(part[: max(0, room)])
        room -= part.size
    kept = [part for part in kept if part.size]
    return {"train": kept[0] if len(kept) == 1 else shards.Stream(kept), "tune": tune}


def shard_val(source: Source, bos: int) -> np.ndarray:
    """val of contest shards, uint16 (N,). A leading BOS is dropped: it is the context of the first target, and none itself
    (contest baseline)."""
    val = shards.Stream([shards.read(path) for path in source.val])[:]
    return val[1:] if int(val[0]) == bos and len(val) > 1 else val


def _text_documents(source: Source) -> dict[str, list[bytes]]:
    """Documents of train.txt and val.txt, split at separator bytes; the last 5 % of train.txt, cut at a line, are `tune`."""
    separator = bytes([SEPARATOR])
    text = source.train[0].read_bytes()
    at = len(text) - len(text) // TUNE_SHARE
    mark = separator if separator in text[:at] else b"\n"
    cut = text.rfind(mark, 0, at) + 1 or at
    while 0 < cut < len(text) and text[cut] & 0xC0 == 0x80:  # never inside a UTF-8 character
        cut -= 1
    if not 0 < cut < len(text):
        raise DataError(f"{source.train[0]}: {len(text)} bytes; too short to hold out a twentieth for tuning")
    parts = {"train": text[:cut], "tune": text[cut:], "val": source.val[0].read_bytes()}
    # Only the separator at the cut is nobody's; one at the end of a file comes before an empty document, as `convert` reads it.
    parts["train"] = parts["train"].removesuffix(separator)
    return {name: part.split(separator) for name, part in parts.items()}


def _write_byte_tables(folder: Path, alphabet: tokens.Tokenizer, streams: dict[str, Any]) -> dict[str, int]:
    totals = {}
    for name in ("tune", "val"):
        lengths = alphabet.byte_lengths(np.asarray(streams[name][:]))
        shards.write(folder / f"{name}_bytes.bin", lengths)
        totals[name] = int(lengths.sum(dtype=np.int64))
    return totals


def _facts(alphabet: tokens.Tokenizer, streams: dict[str, Any]) -> dict[str, Any]:
    return {
        "tokenizer": alphabet.name,
        "tokenizer_sha256": alphabet.sha256,
        "vocab_size": alphabet.vocab_size,
        "bos": alphabet.bos,
        "tokens": {name: len(stream) for name, stream in streams.items()},
        **{f"{name}_sha256": stream_sha256(streams[name]) for name in ("train", "val")},
    }


def stream_sha256(stream: Any) -> str:
    """Hex sha256 of a stream's tokens as little endian uint16."""
    digest = hashlib.sha256()
    blocks = stream.blocks() if isinstance(stream, shards.Stream) else shards.Stream([stream]).blocks()
    for block in blocks:
        digest.update(block.astype("<u2").tobytes())
    return digest.hexdigest()
