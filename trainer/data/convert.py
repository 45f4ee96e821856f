"""`python -m trainer.data convert`: the text of a data folder in other tokens, or as plain text, and proof that it is the same.

Shards -> text -> shards goes through any two alphabets. Over bytes (`bytes`, `caseops`, the contest's `byte260`) and over pieces
of our own every document comes back to the last byte. A foreign sentencepiece model may have changed the text before it was
tokens; what that was, is asked of the model and said (`trainer.data.losses`).

The new folder appears when it is complete and verified: read back and decoded, its text must have the hash of what was read.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainer.contract import SEPARATOR, write_file
from trainer.data import alphabets, losses, shards, tokens
from trainer.data.byte260 import Byte260
from trainer.data.errors import DataError
from trainer.data.files import CHUNK, sha256_of_file
from trainer.data.prepare import MANIFEST
from trainer.options.data import TOKENIZERS

PARTS = ("train", "val")
SHARD_TOKENS = 100_000_000
"""As the contest cuts them."""
LEARN_BYTES = 1 << 26
"""Training text that pieces are learned from: more takes memory and changes little."""
_MARK = bytes([SEPARATOR])


@dataclass
class Measured:
    """Documents that passed by, their bytes (separators included) and the hash of that text."""

    documents: int = 0
    bytes: int = 0
    sha256: str = ""

    def of(self, documents: Iterable[bytes]) -> Iterator[bytes]:
        """The same documents; when they are through, this knows all of them."""
        digest = hashlib.sha256()
        for document in documents:
            if self.documents:
                digest.update(_MARK)
                self.bytes += 1
            digest.update(document)
            self.documents += 1
            self.bytes += len(document)
            yield document
        self.sha256 = digest.hexdigest()


@dataclass(frozen=True)
class Held:
    """What a folder holds: shards of an alphabet, or text files (alphabet None)."""

    folder: Path
    alphabet: tokens.Tokenizer | Byte260 | None

    def documents(self, part: str) -> Iterator[bytes]:
        """The documents of "train" or "val", in order. Raises DataError if they can't be read or hold the separator."""
        if self.alphabet is None:
            yield from split_documents(_blocks(self.folder / f"{part}.txt"))
            return
        stream = self.stream(part)
        found = 0
        for document in split_documents(self.alphabet.text(stream)):
            found += 1
            yield document
        marks = sum(int((block == self.alphabet.bos).sum()) for block in stream.blocks())
        if found != marks + 1:
            raise DataError(
                f"{self.folder}: {abs(found - marks - 1)} of the bytes {SEPARATOR} in {part} are text of a document, "
                "and would be taken for the separator"
            )

    def stream(self, part: str) -> shards.Stream:
        """All shards of a part, after a leading BOS. Raises DataError for tokens beyond the alphabet."""
        assert self.alphabet is not None
        paths = shards.paths(self.folder, part)
        whole = [shards.read(path) for path in paths]
        for path, one in zip(paths, whole, strict=True):
            highest = max(int(block.max()) for block in shards.Stream([one]).blocks())
            if highest >= self.alphabet.vocab_size:
                raise DataError(f"{path}: holds token {highest}, but the tokenizer has {self.alphabet.vocab_size}")
        if int(whole[0][0]) == self.alphabet.bos:
            whole[0] = whole[0][1:]
        return shards.Stream(whole)


def convert(source: Path, target: Path, held: str, wanted: str, model: Path | None, say: Callable[[str], None]) -> None:
    """Write the text of `source` (its shards in tokens `held`) to the new folder `target` in tokens `wanted`, or as "text".

    model: pieces to use for `wanted`; None: trained on the training text. Says a line for each part and for each thing that
    `source`'s tokens do not tell. Raises DataError: one line, and no folder.
    """
    if wanted != "text":
        alphabets.check(wanted)
    if target.exists():
        raise DataError(f"{target}: exists; name a folder that does not")
    found = _open(source, held)
    if isinstance(found.alphabet, tokens.Pieces):
        for line in losses.of_pieces(found.alphabet, {part: found.stream(part) for part in PARTS}):
            say(line)
    else:
        say("lossless:yes")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            for line in _fill(temporary, found, wanted, model):
                say(line)
            temporary.rename(target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise DataError(f"{error.filename or target}: {error.strerror}") from None


def _open(source: Path, held: str) -> Held:
    """What lies in the source folder. Raises DataError."""
    allowed = (*TOKENIZERS, "byte260", "pieces")
    if held not in allowed:
        raise DataError(f"--from {held}: allowed are {', '.join(allowed)}")
    if all(shards.paths(source, part) for part in PARTS):
        if held == "byte260":
            return Held(source, Byte260())
        if held != "pieces" and not alphabets.needs_model(held):
            return Held(source, alphabets.of_model(held, None))
        models = sorted(source.glob("*.model"))
        if len(models) != 1:
            raise DataError(f"{source}: {len(models)} *.model files beside the shards; exactly 1 is needed")
        if held == "pieces":
            return Held(source, tokens.Pieces(models[0].read_bytes(), str(models[0])))
        return Held(source, alphabets.of_model(held, models[0]))
    if all((source / f"{part}.txt").is_file() for part in PARTS):
        return Held(source, None)
    raise DataError(f"{source}: needs train.txt and val.txt, or fineweb_train_*.bin and fineweb_val_*.bin")


def _fill(folder: Path, found: Held, wanted: str, model: Path | None) -> Iterator[str]:
    """Write both parts and the manifest, and verify them. Yields a line for each part."""
    alphabet = None if wanted == "text" else _alphabet(found, wanted, model)
    if isinstance(alphabet, tokens.Pieces):
        write_file(folder / "tokenizer.model", alphabet.model)
    written = Held(folder, alphabet)
    for part in PARTS:
        before, after = Measured(), Measured()
        documents = before.of(found.documents(part))
        if alphabet is None:
            _write_text(folder / f"{part}.txt", documents)
        else:
            _write_shards(folder, part, alphabet, documents)
        for _ in after.of(written.documents(part)):
            pass
        if after != before:
            raise DataError(f"{found.folder}: {part} does not survive in {wanted}: read {before}, read back {after}")
        line = f"{part} documents:{before.documents} bytes:{before.bytes} sha256:{before.sha256}"
        yield line if alphabet is None else f"{line} {_counted(written, part, before)}"
    names = sorted(path.name for path in folder.iterdir())
    files = {name: {"bytes": (folder / name).stat().st_size, "sha256": sha256_of_file(folder / name)} for name in names}
    content: dict[str, Any] = {"from": str(found.folder), "tokens": wanted, "files": files}
    write_file(folder / MANIFEST, (json.dumps(content, indent=1) + "\n").encode())


def _alphabet(found: Held, wanted: str, model: Path | None) -> tokens.Tokenizer:
    if model is None:
        return alphabets.trained(wanted, list(_first(found.documents("train"), LEARN_BYTES)))
    if not alphabets.needs_model(wanted):
        raise DataError(f"--model {model}: {wanted} has no pieces")
    return alphabets.of_model(wanted, model)


def _first(documents: Iterator[bytes], most: int) -> Iterator[bytes]:
    for document in documents:
        yield document
        most -= len(document)
        if most <= 0:
            return


def _counted(written: Held, part: str, text: Measured) -> str:
    """How many tokens, after checking that their bytes sum to the text. A failure here would be ours."""
    alphabet = written.alphabet
    assert alphabet is not None
    stream = written.stream(part)
    total = sum(int(alphabet.byte_lengths(block).sum(dtype=np.int64)) for block in stream.blocks())
    silent = 0 if alphabet.separators_are_text else text.documents - 1
    assert total == text.bytes - silent, (total, text)
    return f"tokens:{len(stream)} counted_bytes:{total}"


def _write_text(path: Path, documents: Iterable[bytes]) -> None:
    with path.open("wb") as file:
        for number, document in enumerate(documents):
            file.write(_MARK + document if number else document)


def _write_shards(folder: Path, part: str, alphabet: tokens.Tokenizer, documents: Iterator[bytes]) -> None:
    """Each document after a BOS, documents running on from one shard into the next."""
    held: list[np.ndarray] = []
    size = number = 0
    while batch := list(itertools.islice(documents, 1000)):
        held += [np.array([alphabet.bos], np.uint16), alphabet.encode(batch)]
        size += 1 + len(held[-1])
        while size >= SHARD_TOKENS:
            stream = np.concatenate(held)
            shards.write(folder / f"fineweb_{part}_{number:06d}.bin", stream[:SHARD_TOKENS])
            held, size, number = [stream[SHARD_TOKENS:]], size - SHARD_TOKENS, number + 1
    if size:
        shards.write(folder / f"fineweb_{part}_{number:06d}.bin", np.concatenate(held))


def split_documents(text: Iterable[bytes]) -> Iterator[bytes]:
    """Documents of a text that comes in blocks: what stands between separators. Always at least one, perhaps empty."""
    held: list[bytes] = []
    for block in text:
        first, *rest = block.split(_MARK)
        held.append(first)
        for document in rest:
            yield b"".join(held)
            held = [document]
    yield b"".join(held)


def _blocks(path: Path) -> Iterator[bytes]:
    """A text file, piece by piece."""
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            yield block
