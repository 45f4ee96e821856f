"""The score of a run: the artifact, reloaded from disk with its quantised weights, on every byte of the validation text.

`python -m trainer.score ARTIFACT [--settings FILE] [NAME=VALUE ...]` does it alone, in a fresh process. The
architecture comes from the artifact; settings of the evaluation come from there too, overridden by the file, the
environment and the command line.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.config import Config, SettingsError, from_values, read_settings

if TYPE_CHECKING:  # torch takes a second to load; a typo in a setting should not wait for it
    from trainer.data.dataset import Dataset
    from trainer.dist import Group
    from trainer.evaluate.bpb import Score

EVALUATION = (
    "EVAL_MAX_SECONDS",
    "EVAL_STRIDE",
    "EVAL_BATCH_SEQS",
    "EVAL_TEMPERATURE",
    "EVAL_FLAT",
    "EVAL_DOCUMENTS",
    "TTT_ENABLED",
    "TTT_CHUNK_BYTES",
    "TTT_EPOCHS",
    "TTT_OPTIMIZER",
    "TTT_MATRIX_LR",
    "TTT_TABLE_LR",
    "TTT_MOMENTUM",
    "TTT_CLIP",
    "TTT_SCHEDULE",
    "LORA_ENABLED",
    "LORA_RANK",
    "LORA_ALPHA",
    "LORA_LR",
    "LORA_WD",
    "LORA_CHUNK_TOKENS",
    "LORA_DOCS",
    "LORA_WARM",
    "PHASES",
    "PHASE_DOCS",
    "PHASE_LR",
    "MIX_NGRAMS",
    "MIX_LOW_ORDER",
    "MIX_HIGH_ORDER",
    "MIX_MOST",
    "MIX_STRENGTH",
    "MIX_TILT",
    "MIX_OVER",
    "HEDGE_ENABLED",
    "HEDGE_ETA",
    "REFERENCE_SCORES",
    "DATA_PATH",
    "DEVICE",
    "CPU_THREADS",
)
"""Settings that may differ from the artifact's own."""

_WITHOUT_EFFECT = {"OUT_DIR", "ATTENTION_BACKEND", "COMPILE", "TRAIN_LOG_EVERY", "VAL_LOSS_EVERY"}
"""Accepted from a run's settings file, and without meaning here: an artifact is scored by the uncompiled model."""


def run(path: Path, dataset: Dataset, config: Config, group: Group, say: Callable[[str], None]) -> dict[str, Any]:
    """Score the artifact at `path` on `dataset.val` and say the final lines. Call it on every rank.

    Returns {"scores": {label: {val_loss (nats per token), val_bpb, nats, tokens, bytes, eval_time_ms}}, "references":
    {name: bpb}, "artifact_sha256", "artifact_file_bytes"}; references only on rank 0 and if asked for. Raises
    ArtifactError for a bad file, DataError if it was made with another tokenizer, ScoreError if the loss is not
    finite, OSError.
    """
    from trainer import artifact, opened
    from trainer.evaluate import modes, references, walk
    from trainer.evaluate.text import Text

    clock = walk.Clock(config.eval_max_seconds)
    path = Path(path)
    content = path.read_bytes()
    model, held = artifact.load_model(path, group.device)
    model.eval()
    _check_alphabet(path, held, dataset)
    chunk, scores = chunk_tokens(config.ttt_chunk_bytes, dataset, held.meta), {}
    for label in modes.wanted(config):
        text = Text(dataset.val, dataset.val_bytes, dataset.bos, group.device)
        mode, how = modes.build(label, model, config, chunk)
        found = walk.run(mode, text, group=group, clock=clock, label=label)
        say(_final_line(label, found, how))
        scores[label] = _as_dict(found)
    say(f"total_eval_time:{clock.seconds():.3f}s")
    yardsticks = {}
    with opened.phase("after"):
        if config.references and group.rank == 0 and len(dataset.train):  # half of them see the training text
            yardsticks = references.of_dataset(dataset)
        if yardsticks:
            say(references.line(yardsticks, len(dataset.text("val") or b"")))
    return {
        "scores": scores,
        "references": yardsticks,
        "artifact_sha256": hashlib.sha256(content).hexdigest(),
        "artifact_file_bytes": len(content),
    }


def chunk_tokens(chunk_bytes: int, dataset: Dataset, meta: Mapping[str, Any] | None = None) -> int:
    """TTT_CHUNK_BYTES as a number of tokens, at least 1, by the bytes per token of the held-out training text.

    Not by the validation text: chunk bounds must not depend on what is still to be predicted. An artifact's meta states the
    counts of the text it was made from, so that a score needs no training data; older artifacts state none. Raises DataError if
    neither knows.
    """
    counts = [(meta or {}).get(name) for name in ("tune_tokens", "tune_bytes")]
    if not all(type(count) is int and count > 0 for count in counts):
        counts = [len(dataset.tune), int(dataset.tune_bytes.sum(dtype="int64"))]
    if not counts[1]:
        from trainer.data.errors import DataError

        raise DataError(
            "the artifact does not state its bytes per token (an older one): it needs its training data, too"
        )
    return max(1, round(chunk_bytes * counts[0] / counts[1]))


def settings_for(own: Config, arguments: list[str], environment: Mapping[str, str]) -> Config:
    """An artifact's settings under those of a file, an environment and a command line, later ones winning.

    From the environment only EVALUATION is taken. Raises SettingsError, one line per problem, also for a value that
    contradicts the artifact.
    """
    from_file, given = _parse(arguments)
    explicit = from_file | given
    chosen = from_file | {name: environment[name] for name in EVALUATION if name in environment} | given
    config = from_values(own.as_settings() | chosen, environment)
    before, after = own.as_settings(), config.as_settings()
    problems = [
        f"{name}={explicit[name]}: fixed by the artifact at {before[name]}; allowed here are {', '.join(EVALUATION)}"
        for name in explicit
        if name not in EVALUATION and name not in _WITHOUT_EFFECT and before[name] != after[name]
    ]
    if problems:
        raise SettingsError("\n".join(problems))
    return config


def _parse(arguments: list[str]) -> tuple[dict[str, Any], dict[str, str]]:
    from_file: dict[str, Any] = {}
    given: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--settings" and rest:
            from_file = read_settings(Path(rest.pop(0)))
        elif "=" in word and not word.startswith("-"):
            name, _, given[name] = word.partition("=")
        else:
            raise SettingsError(f"{word}: not understood; allowed are --settings FILE and NAME=VALUE")
    return from_file, given


def _check_alphabet(path: Path, held: Any, dataset: Dataset) -> None:
    from trainer.data.errors import DataError

    made_with = held.meta.get("tokenizer_sha256", dataset.tokenizer_sha256)
    if held.vocab_size != dataset.vocab_size or made_with != dataset.tokenizer_sha256:
        raise DataError(
            f"{path}: made for tokenizer {held.config.tokenizer} ({held.vocab_size} tokens, sha256 {made_with[:16]}...), "
            f"the data has {dataset.tokenizer} ({dataset.vocab_size} tokens, sha256 {dataset.tokenizer_sha256[:16]}...)"
        )


def _final_line(label: str, score: Score, how: str) -> str:
    return f"{label} val_loss:{score.loss:.8f} val_bpb:{score.bpb:.8f} {how} eval_time:{score.seconds * 1e3:.0f}ms"


def _as_dict(score: Score) -> dict[str, float]:
    return {
        "val_loss": score.loss,
        "val_bpb": score.bpb,
        "nats": score.nats,
        "tokens": score.tokens,
        "bytes": score.bytes,
        "eval_time_ms": round(score.seconds * 1e3, 3),
    }


def main(arguments: list[str]) -> int:
    """Score one artifact. Exit codes as `python -m trainer`: 0 done, 1 it failed, 2 settings or data are wrong."""
    if not arguments or arguments[0].startswith("-") or "=" in arguments[0]:
        print("usage: python -m trainer.score ARTIFACT [--settings FILE.json] [NAME=VALUE ...]")
        print(f"settings: {', '.join(EVALUATION)}")
        return 0 if {"-h", "--help"} & set(arguments) else 2
    from trainer import artifact, dist
    from trainer.data.errors import DataError
    from trainer.evaluate.bpb import ScoreError

    group, path = None, Path(arguments[0])
    try:
        config = settings_for(artifact.read(path).config, arguments[1:], os.environ)
        group = dist.start(config)
        _alone(path, config, group)
    except (SettingsError, DataError) as error:
        return _fail(error, 2)
    except (artifact.ArtifactError, ScoreError) as error:
        return _fail(error, 1)
    except OSError as error:
        return _fail(f"{error.filename or path}: {error.strerror}", 2 if isinstance(error, FileNotFoundError) else 1)
    finally:
        if group is not None:
            group.stop()
    return 0


def _alone(path: Path, config: Config, group: Group) -> None:
    from trainer.data.dataset import open_dataset, open_validation
    from trainer.data.prepare import holds_training

    def say(line: str) -> None:
        if group.rank == 0:
            print(line, flush=True)

    opening = open_dataset if holds_training(config.data_path) else open_validation
    dataset = opening(config.data_path, config.tokenizer) if group.rank == 0 else None
    group.wait_for_work()  # opening may build a cache, which the others then find ready
    dataset = dataset or opening(config.data_path, config.tokenizer)
    say(f"artifact:{path} tokenizer:{dataset.tokenizer} world_size:{group.world} device:{group.device.type}")
    say(f"val_tokens:{len(dataset.val)} val_sha256:{dataset.val_sha256} val_text_sha256:{dataset.val_text_sha256}")
    scored = run(path, dataset, config, group, say)
    say(f"artifact_sha256:{scored['artifact_sha256']} artifact_file_bytes:{scored['artifact_file_bytes']}")


def _fail(error: Exception | str, code: int) -> int:
    for line in str(error).splitlines() or [type(error).__name__]:
        print(f"trainer.score: {line}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
