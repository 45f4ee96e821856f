"""What others may rely on: file names, log lines, versions. Standard library only; golfctl reads this module too.

Log lines, one event each, in the field's format (contest baseline):

    step:10/200 train_loss:3.1234 train_time:512ms step_avg:51.20ms
    step:200/200 val_loss:1.6012 val_bpb:2.3100 train_time:10240ms step_avg:51.20ms
    Code size: 61234 bytes
    Serialized model int6+auto: 1312345 bytes
    Total submission size int6+auto: 1373579 bytes
    final_sliding_window_exact val_loss:1.57262626 val_bpb:2.26882100 stride:64 eval_time:2100ms
    legal_ttt_exact val_loss:1.39000000 val_bpb:2.00500000 chunk:2048 eval_time:6100ms
    total_eval_time:8.3s

A `key:value` line states the seed, world size, parameters and data hashes before step 0. The score is the one a fresh load
of the artifact from disk reaches, never that of the weights in memory.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path, PurePath

METRIC_VERSION = 1
"""Raised whenever the same model on the same text would score differently; scores of two versions are not compared."""

LOG = "train.log"
METRICS = "metrics.jsonl"
RESULT = "result.json"
ARTIFACT = "artifact.golf"

FINAL_SLIDING = "final_sliding_window_exact"
FINAL_FLAT = "final_flat_exact"
FINAL_DOCUMENTS = "final_document_isolated_exact"
FINAL_TTT = "legal_ttt_exact"
FINAL_TTT_SGD = "legal_ttt_sgd_exact"
FINAL_LORA = "legal_ttt_lora_exact"
FINAL_PHASED = "legal_ttt_phased_exact"
FINAL_NGRAMS = "legal_ngram_mix_exact"
FINAL_HEDGE = "legal_hedge_mix_exact"

CAP_BYTES = 16_000_000
"""Decimal: code + compressed model."""

CODE_SUFFIXES = frozenset({".py", ".so", ".c", ".cu", ".cpp"})
"""What counts as code."""

TOOLS = "export"
"""Folder of the trainer that no run imports: it makes other scripts, is not shipped with them, and does not count."""

SEPARATOR = 0
"""Byte between documents of a raw-bytes stream; also the context of the first scored byte (itself not scored)."""

PIECES_BOS = 1
"""The same for sentencepiece alphabets, by their convention; a run that needs it checks it against its data."""


def document_id(tokenizer: str) -> int:
    """The id that opens every document in the streams of an alphabet, as TOKENIZER names it."""
    return PIECES_BOS if tokenizer.startswith("sp") else SEPARATOR


def code_root() -> Path:
    """Where the running trainer's code lies: its folder, or the one file made by `trainer.pack`."""
    here = Path(__file__).resolve()
    return here.parent if here.name == "contract.py" else here


def code_files(folder: Path) -> list[Path]:
    """Every file of a trainer folder that counts as code: what is imported or executed, sorted by relative path.

    A packed trainer is one file: given a file, the list holds that file alone.
    """
    if folder.is_file():
        return [folder]
    return sorted(path for path in folder.rglob("*") if counts(path.relative_to(folder)) and path.is_file())


def counts(path: PurePath) -> bool:
    """Whether a file of the trainer counts as code, by its path below the trainer's folder."""
    return path.suffix in CODE_SUFFIXES and path.parts[0] != TOOLS


def code_bytes(folder: Path) -> int:
    """Bytes of shipped code, counted from the files as they lie on disk: neither minified nor compressed."""
    return sum(path.stat().st_size for path in code_files(folder))


def code_sha256(folder: Path) -> str:
    """Hash over relative names and contents of the counted code, hex.

    A run reports it; golfctl compares it with the bundle's. A packed trainer is hashed under the name of its file.
    """
    digest = hashlib.sha256()
    top = folder.parent if folder.is_file() else folder
    for path in code_files(folder):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(top).as_posix()}\0{content}\n".encode())
    return digest.hexdigest()


def write_file(path: Path, content: bytes) -> None:
    """Write a file that appears complete or not at all: temporary name in the same folder, fsync, rename.

    Raises OSError as the system gives it; the temporary file is gone then.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
