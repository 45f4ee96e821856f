"""Which alphabet a TOKENIZER setting means."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trainer.data import caseops, tokens
from trainer.data.errors import DataError
from trainer.options.data import TOKENIZERS

_PLAIN: dict[str, type[tokens.Bytes | caseops.CaseBytes]] = {"bytes": tokens.Bytes, "caseops": caseops.CaseBytes}
_PIECES: dict[str, type[tokens.Pieces]] = {"sp1024": tokens.Pieces, "sp1024caseops": caseops.CasePieces}
assert {*_PLAIN, *_PIECES} == set(TOKENIZERS)


def check(tokenizer: str) -> None:
    """Raise DataError unless there is such an alphabet."""
    if tokenizer not in TOKENIZERS:
        raise DataError(f"TOKENIZER={tokenizer}: allowed are {', '.join(TOKENIZERS)}")


def needs_model(tokenizer: str) -> bool:
    """Whether the alphabet is a file (of pieces) beside the data."""
    return tokenizer in _PIECES


def of_model(tokenizer: str, path: Path | None) -> tokens.Tokenizer:
    """The alphabet of existing shards; `path` is its model, where it needs one. Raises DataError, OSError."""
    if path is None:
        return _PLAIN[tokenizer]()
    alphabet = _PIECES[tokenizer](path.read_bytes(), str(path))
    if alphabet.vocab_size != tokens.VOCABULARY:
        raise DataError(f"{path}: {alphabet.vocab_size} pieces, TOKENIZER={tokenizer} means {tokens.VOCABULARY}")
    return alphabet


def trained(tokenizer: str, documents: Sequence[bytes]) -> tokens.Tokenizer:
    """The alphabet for new streams, learned from the training documents where it is learned. Raises DataError."""
    if tokenizer in _PLAIN:
        return _PLAIN[tokenizer]()
    return (caseops.train_pieces if tokenizer == "sp1024caseops" else tokens.train_pieces)(documents)
