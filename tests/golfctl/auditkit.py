"""A clean record package of our own making, and the ways to spoil it: one argument a fault."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from golfctl.audit import contest, every
from golfctl.audit.result import Audit
from golfctl.audit.target import of_record

TOKENS, BYTES_PER_TOKEN = 62_021_632, 2.43592
SCRIPT = "import json\nimport torch\n\nprint(json.dumps({}))\n"
README = "# A record\n\nRun `python train_gpt.py`.\n"


def log(
    seed: int = 1,
    bpb: float = 1.1,
    *,
    ms: int = 599_000,
    steps: int = 6000,
    code: int = len(SCRIPT),
    model: int = 15_000_000,
    total: int | None = None,
    eval_ms: int = 60_000,
    tokens: int | None = TOKENS,
    bytes_per_token: float = BYTES_PER_TOKEN,
    digits: int = 8,
    printed_seed: int | None = None,
    extra: str = "",
) -> str:
    """A whole log in the contest's family, its numbers in keeping with each other unless told otherwise."""
    step = ms / steps
    lines = [
        "model_params:17059912",
        "world_size:8 grad_accum_steps:1",
        "max_wallclock_seconds:600.000",
        f"seed:{seed if printed_seed is None else printed_seed}",
    ]
    if tokens is not None:
        lines.append(f"val_loader:shards pattern=./data/fineweb_val_*.bin tokens:{tokens}")
    for number in range(1000, steps + 1, 1000):
        loss = 4 - number / 10_000 + seed / 1e4
        lines.append(
            f"step:{number}/20000 train_loss:{loss:.4f} train_time:{number * step:.0f}ms step_avg:{step:.2f}ms"
        )
    loss = bpb * math.log(2) * bytes_per_token
    lines += [
        f"step:{steps}/20000 val_loss:{loss + 0.01:.4f} val_bpb:{bpb + 0.006:.4f} train_time:{ms}ms step_avg:{step:.2f}ms",
        f"stopping_early: wallclock_cap train_time:{ms}ms step:{steps}/20000",
        *([extra] if extra else []),
        f"Code size: {code} bytes",
        f"Serialized model int8+zlib: {model} bytes",
        f"Total submission size int8+zlib: {total if total is not None else model + code} bytes",
        f"final_int8_zlib_roundtrip val_loss:{loss:.{min(4, digits)}f} val_bpb:{bpb:.{min(4, digits)}f} eval_time:{eval_ms}ms",
        f"final_int8_zlib_roundtrip_exact val_loss:{loss:.{digits}f} val_bpb:{bpb:.{digits}f}",
    ]
    return "\n".join(lines) + "\n"


SCORES = {1: 1.1, 2: 1.1004, 3: 1.0998}


def package(
    folder: Path,
    logs: Mapping[str, str] | None = None,
    claim: Mapping[str, Any] | None = None,
    code: Mapping[str, str] | None = None,
    readme: str = README,
) -> Path:
    """Write a record folder; what is not given is clean: three seeds, their mean claimed, one script."""
    record = folder / "track_10min_16mb" / "2026-04-01_Own"
    record.mkdir(parents=True)
    written = {f"train_seed{seed}.log": log(seed, bpb) for seed, bpb in SCORES.items()} if logs is None else logs
    for name, text in written.items():
        (record / name).write_text(text)
    for name, text in ({"train_gpt.py": SCRIPT} if code is None else code).items():
        path = record / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    mean = sum(SCORES.values()) / len(SCORES)
    said = {"val_bpb": round(mean, 6), "bytes_total": 15_000_000 + len(SCRIPT)} if claim is None else claim
    (record / "submission.json").write_text(json.dumps(said))
    if readme:
        (record / "README.md").write_text(readme)
    return record


def audited(record: Path, **how: Any) -> Audit:
    """The audit of a record folder under the rules of the field."""
    return every.audit(of_record(record), contest.load("parameter-golf"), **how)


def answer(found: Audit, number: str) -> str:
    """What a check said."""
    return str(next(check.answer for check in found.checks if check.id == number))
