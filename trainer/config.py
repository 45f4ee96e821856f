"""Every setting of the trainer, in one typed place. Standard library only.

A setting is an environment variable in the field's convention, or the same name in a JSON file (`--settings FILE`), or
`NAME=VALUE` on the command line; later ones win: default < file < environment < command line. Unknown names are refused
with the nearest known one. Defaults are the small CPU run; `presets/*.json` hold the contest baseline and the tuned CPU
configuration.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BASELINE = "contest baseline"
FIELD = "contest records"
OURS = "this trainer"


class SettingsError(ValueError):
    """A setting is unknown or its value is not allowed. The message has one line per problem."""


def setting(
    name: str,
    default: Any,
    meaning: str,
    *,
    source: str,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[Any, ...] | None = None,
) -> Any:
    """A dataclass field for the setting `name`. Its type is the default's; `low` and `high` are inclusive."""
    metadata = {
        "name": name,
        "meaning": meaning,
        "source": source,
        "low": low,
        "high": high,
        "choices": choices,
    }
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Config:
    """All settings, resolved. Lengths are in tokens, sizes in bytes, times in the unit the name ends with."""

    # where and when
    data_path: str = setting("DATA_PATH", "", "folder of prepared data; empty: the embedded corpus", source=BASELINE)
    out_dir: str = setting("OUT_DIR", "", "run folder; empty: runs/<utc time>", source=OURS)
    seed: int = setting("SEED", 1337, "seeds weights and batch order", source=BASELINE, low=0, high=2**31 - 1)
    iterations: int = setting("ITERATIONS", 200, "optimizer steps at most", source=BASELINE, low=0)
    max_wallclock_seconds: float = setting(
        "MAX_WALLCLOCK_SECONDS", 0.0, "training time at most; 0: stop by step only", source=BASELINE, low=0
    )
    train_log_every: int = setting("TRAIN_LOG_EVERY", 10, "steps between train lines; 0: none", source=BASELINE, low=0)
    val_loss_every: int = setting(
        "VAL_LOSS_EVERY", 0, "steps between val lines; 0: at the end only", source=BASELINE, low=0
    )
    cpu_threads: int = setting(
        "CPU_THREADS", 0, "torch threads per process; 0: cores / local processes", source=OURS, low=0
    )
    device: str = setting(
        "DEVICE",
        "auto",
        "where to compute; auto: cuda, else mps, else cpu",
        source=OURS,
        choices=("auto", "cpu", "cuda", "mps"),
    )
    compile: bool = setting("COMPILE", False, "torch.compile the model", source=BASELINE)

    # data
    tokenizer: str = setting("TOKENIZER", "bytes", "alphabet of the text", source=OURS, choices=("bytes", "sp1024"))
    train_batch_tokens: int = setting(
        "TRAIN_BATCH_TOKENS", 2048, "tokens per optimizer step, all ranks", source=BASELINE, low=1
    )
    train_seq_len: int = setting("TRAIN_SEQ_LEN", 128, "context length", source=BASELINE, low=2)
    grad_accum_steps: int = setting("GRAD_ACCUM_STEPS", 1, "micro-batches per rank and step", source=BASELINE, low=1)

    # model
    num_layers: int = setting("NUM_LAYERS", 2, "transformer blocks", source=BASELINE, low=1)
    model_dim: int = setting("MODEL_DIM", 128, "width of the residual stream", source=BASELINE, low=8)
    num_heads: int = setting("NUM_HEADS", 4, "query heads", source=BASELINE, low=1)
    num_kv_heads: int = setting(
        "NUM_KV_HEADS", 2, "key and value heads, shared by consecutive query heads", source=BASELINE, low=1
    )
    mlp_mult: float = setting("MLP_MULT", 2.0, "MLP width in model widths", source=BASELINE, low=0.25)
    rope_base: float = setting("ROPE_BASE", 10000.0, "base of the rotary frequencies", source=BASELINE, low=1)
    rope_fraction: float = setting(
        "ROPE_FRACTION", 1.0, "share of head dimensions that rotate", source=FIELD, low=0, high=1
    )
    qk_gain_init: float = setting("QK_GAIN_INIT", 1.5, "initial gain of normed queries", source=BASELINE)
    logit_softcap: float = setting("LOGIT_SOFTCAP", 30.0, "logits = cap * tanh(z / cap)", source=BASELINE, low=0.1)
    tied_embed_init_std: float = setting(
        "TIED_EMBED_INIT_STD", 0.005, "std of the tied embedding at init", source=BASELINE, low=0
    )
    skip_connections: bool = setting(
        "SKIP_CONNECTIONS", True, "U-Net skips from the first half to the second", source=BASELINE
    )

    # hashed n-gram embeddings
    ngram_max_order: int = setting(
        "NGRAM_MAX_ORDER",
        0,
        "hashed n-gram embeddings of orders 2 to this; 0: off",
        source=OURS,
        choices=(0, 2, 3, 4, 5, 6),
    )
    ngram_buckets: int = setting("NGRAM_BUCKETS", 32768, "rows per order", source=OURS, low=16)
    ngram_dim: int = setting("NGRAM_DIM", 16, "width of a row", source=OURS, low=1)
    ngram_logits: bool = setting(
        "NGRAM_LOGITS", False, "a linear map from the n-gram rows straight to the logits", source=OURS
    )

    # optimisation
    matrix_lr: float = setting("MATRIX_LR", 0.02, "Muon rate of 2-D matrices", source=BASELINE, low=0)
    embed_lr: float = setting("EMBED_LR", 0.01, "Adam rate of the tied embedding", source=BASELINE, low=0)
    table_lr: float = setting("TABLE_LR", 0.01, "Adam rate of the n-gram tables", source=OURS, low=0)
    scalar_lr: float = setting("SCALAR_LR", 0.01, "Adam rate of vectors and scalars", source=BASELINE, low=0)
    beta1: float = setting("BETA1", 0.9, "Adam", source=BASELINE, low=0, high=0.9999)
    beta2: float = setting("BETA2", 0.95, "Adam", source=BASELINE, low=0, high=0.99999)
    adam_eps: float = setting("ADAM_EPS", 1e-8, "Adam", source=BASELINE, low=0)
    muon_momentum: float = setting("MUON_MOMENTUM", 0.95, "after warm-up", source=BASELINE, low=0, high=0.9999)
    muon_momentum_start: float = setting(
        "MUON_MOMENTUM_WARMUP_START", 0.85, "at step 0", source=BASELINE, low=0, high=0.9999
    )
    muon_momentum_steps: int = setting(
        "MUON_MOMENTUM_WARMUP_STEPS", 300, "steps of the momentum warm-up", source=BASELINE, low=0
    )
    muon_backend_steps: int = setting("MUON_BACKEND_STEPS", 5, "Newton-Schulz iterations", source=BASELINE, low=1)
    muon_weight_decay: float = setting("MUON_WD", 0.0, "decoupled decay of matrices", source=FIELD, low=0)
    grad_clip_norm: float = setting(
        "GRAD_CLIP_NORM", 0.0, "global norm after the all-reduce; 0: off", source=BASELINE, low=0
    )
    warmdown_fraction: float = setting(
        "WARMDOWN_FRACTION",
        0.6,
        "last share of the budget over which rates fall to MIN_LR",
        source=FIELD,
        low=0,
        high=1,
    )
    min_lr: float = setting("MIN_LR", 0.0, "share of the rate left at the end", source=FIELD, low=0, high=1)

    # artifact
    matrix_bits: int = setting("MATRIX_BITS", 8, "bits of 2-D matrices in the artifact", source=FIELD, choices=(6, 8))
    embed_bits: int = setting(
        "EMBED_BITS", 8, "bits of the tied embedding in the artifact", source=FIELD, choices=(6, 8)
    )
    table_bits: int = setting("TABLE_BITS", 6, "bits of the n-gram tables in the artifact", source=OURS, choices=(6, 8))

    # evaluation
    eval_stride: int = setting("EVAL_STRIDE", 64, "new tokens per sliding window", source=FIELD, low=1)
    eval_batch_seqs: int = setting("EVAL_BATCH_SEQS", 64, "windows scored at once", source=FIELD, low=1)
    ttt: bool = setting("TTT_ENABLED", False, "score-first test-time training after the static score", source=FIELD)
    ttt_chunk_bytes: int = setting("TTT_CHUNK_BYTES", 2048, "bytes scored before each update", source=FIELD, low=1)
    ttt_epochs: int = setting("TTT_EPOCHS", 1, "updates per chunk", source=FIELD, low=1)
    ttt_matrix_lr: float = setting("TTT_MATRIX_LR", 0.001, "Adam rate of everything but tables", source=OURS, low=0)
    ttt_table_lr: float = setting("TTT_TABLE_LR", 0.01, "Adam rate of the n-gram tables", source=OURS, low=0)
    references: bool = setting(
        "REFERENCE_SCORES",
        True,
        "print what compressors and n-gram models reach on the same bytes",
        source=OURS,
    )

    def as_settings(self) -> dict[str, Any]:
        """Setting name to value, in declaration order."""
        return {field.metadata["name"]: getattr(self, field.name) for field in dataclasses.fields(self)}


def fields_by_name() -> dict[str, dataclasses.Field[Any]]:
    """Setting name to its dataclass field (metadata: meaning, source, low, high, choices)."""
    return {field.metadata["name"]: field for field in dataclasses.fields(Config)}


def nearest(name: str, known: Mapping[str, Any], cutoff: float = 0.6) -> str | None:
    """The known name most like `name`, or None if nothing is close."""
    found = difflib.get_close_matches(name, known, n=1, cutoff=cutoff)
    return found[0] if found else None


def parse_value(field: dataclasses.Field[Any], raw: Any) -> Any:
    """`raw` (text or a JSON value) as the field's type, within its limits. Raises SettingsError naming both."""
    name, kind = field.metadata["name"], type(field.default)
    try:
        value = _convert(kind, raw)
    except (TypeError, ValueError, OverflowError):
        raise SettingsError(f"{name}={raw!r}: not {_KINDS[kind]}") from None
    low, high, choices = (field.metadata[key] for key in ("low", "high", "choices"))
    if choices is not None and value not in choices:
        raise SettingsError(f"{name}={raw}: allowed are {', '.join(map(str, choices))}")
    if (low is not None and value < low) or (high is not None and value > high):
        span = f"at least {low}" if high is None else f"between {low} and {high}"
        raise SettingsError(f"{name}={raw}: must be {span}")
    return value


_KINDS = {bool: "a switch (1 or 0)", int: "a whole number", float: "a number", str: "text"}
_SWITCH = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}


def _convert(kind: type, raw: Any) -> Any:
    if kind is bool:
        if isinstance(raw, bool):
            return raw
        if str(raw).lower() not in _SWITCH:
            raise ValueError(raw)
        return _SWITCH[str(raw).lower()]
    if kind is str:
        if not isinstance(raw, str):
            raise TypeError(raw)
        return raw
    if isinstance(raw, bool):
        raise TypeError(raw)
    number = float(raw)
    if not math.isfinite(number):
        raise ValueError(raw)
    if kind is int:
        if number != int(number):
            raise ValueError(raw)
        return int(number)
    return number


def from_values(values: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> Config:
    """Settings from a mapping (every name must be known), over those of an environment (only look-alikes are refused).

    Raises SettingsError listing every problem, one per line.
    """
    known = fields_by_name()
    problems: list[str] = []
    chosen: dict[str, Any] = {}
    for name in environment or {}:
        # An environment holds thousands of foreign names: only a near miss of one of ours is taken as a typo.
        if name not in known and name.isupper() and len(name) >= 8 and (close := nearest(name, known, cutoff=0.88)):
            problems.append(f"{name}: unknown setting in the environment; did you mean {close}?")
    merged: dict[str, Any] = {name: value for name, value in (environment or {}).items() if name in known} | dict(
        values
    )
    for name, raw in merged.items():
        if name not in known:
            close = nearest(name, known)
            problems.append(f"{name}: unknown setting" + (f"; did you mean {close}?" if close else ""))
            continue
        try:
            chosen[known[name].name] = parse_value(known[name], raw)
        except SettingsError as error:
            problems.append(str(error))
    if not problems:
        config = Config(**chosen)
        problems = list(_contradictions(config))
    if problems:
        raise SettingsError("\n".join(problems))
    return config


def _contradictions(config: Config) -> list[str]:
    """Settings that are fine alone and impossible together."""
    found = []
    if config.model_dim % config.num_heads:
        found.append(f"MODEL_DIM={config.model_dim} is not divisible by NUM_HEADS={config.num_heads}")
    elif (config.model_dim // config.num_heads) % 2:
        found.append(f"MODEL_DIM/NUM_HEADS={config.model_dim // config.num_heads} must be even for rotary embeddings")
    if config.num_heads % config.num_kv_heads:
        found.append(f"NUM_HEADS={config.num_heads} is not divisible by NUM_KV_HEADS={config.num_kv_heads}")
    if config.train_batch_tokens % (config.train_seq_len * config.grad_accum_steps):
        found.append(
            f"TRAIN_BATCH_TOKENS={config.train_batch_tokens} is not a multiple of TRAIN_SEQ_LEN*GRAD_ACCUM_STEPS"
            f"={config.train_seq_len * config.grad_accum_steps}"
        )
    if config.eval_stride > config.train_seq_len:
        found.append(f"EVAL_STRIDE={config.eval_stride} exceeds TRAIN_SEQ_LEN={config.train_seq_len}")
    if config.ngram_logits and not config.ngram_max_order:
        found.append("NGRAM_LOGITS=1 needs NGRAM_MAX_ORDER >= 2")
    return found


def load(arguments: list[str], environment: Mapping[str, str]) -> Config:
    """Settings from `[--settings FILE] [NAME=VALUE ...]` and an environment.

    Raises SettingsError, one line per problem.
    """
    file_values: dict[str, Any] = {}
    given: dict[str, Any] = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--settings":
            if not rest:
                raise SettingsError("--settings: needs a JSON file")
            file_values = _read_json(Path(rest.pop(0)))
        elif "=" in word and not word.startswith("-"):
            name, _, value = word.partition("=")
            given[name] = value
        else:
            raise SettingsError(f"{word}: not understood; allowed are --settings FILE and NAME=VALUE")
    known = fields_by_name()
    from_environment = {name: value for name, value in environment.items() if name in known}
    return from_values(file_values | from_environment | given, environment)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: can't be read ({error.strerror})") from None
    except ValueError as error:
        raise SettingsError(f"{path}: not JSON ({error})") from None
    if not isinstance(content, dict):
        raise SettingsError(f"{path}: must hold one JSON object of settings")
    return content
