"""Record folders for tests of the leaderboard: logs of our own making in a common family, claims beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from golfctl.store import leaderboard
from golfctl.store.campaign import Campaign, load

GOLF = """\
name: board
seeds: [1, 2, 3]
gates:
  1:
    name: final
    kind: threshold
    seeds: 3
    env: {MAX_WALLCLOCK_SECONDS: 600, DATA: a}
    require: {score: "<= 1.05", train_time_ms: "<= 600500", eval_time_ms: "<= 600000"}
"""
TRACK = "track_10min_16mb"


def campaign(root: Path, golf: str = GOLF) -> Campaign:
    """A campaign without a base: the leaderboard needs none."""
    for name in ("plans", "bases", "experiments"):
        (root / name).mkdir(parents=True)
    (root / "golf.yaml").write_text(golf)
    return load(root)


def log(
    bpb: float | None = 1.1,
    seed: int | None = 1,
    steps: int = 400,
    ms: int = 599_000,
    model: int = 15_000_000,
    eval_ms: int = 1500,
    prequant: float = 1.3,
    extra: str = "",
    params: int = 17_000_000,
) -> str:
    """A whole training log. bpb None: without an evaluation of the packed model."""
    lines = [f"model_params:{params}", "world_size:8 grad_accum_steps:1", f"max_wallclock_seconds:{600.0}"]
    lines += [f"seed:{seed}"] if seed is not None else []
    for step in range(100, steps + 1, 100):
        loss = 4 - step / 1000 + (seed or 0) / 10_000
        lines.append(
            f"step:{step}/20000 train_loss:{loss:.4f} train_time:{ms * step // steps}ms step_avg:{ms / steps:.2f}ms"
        )
    lines += [
        f"step:{steps}/20000 val_loss:{prequant * 1.7:.4f} val_bpb:{prequant:.4f} train_time:{ms}ms step_avg:{ms / steps:.2f}ms",
        f"stopping_early: wallclock_cap train_time:{ms}ms step:{steps}/20000",
        "Code size: 50000 bytes",
        f"Serialized model int8+zlib: {model} bytes",
        f"Total submission size int8+zlib: {model + 50000} bytes",
    ]
    if bpb is not None:
        lines.append(f"final_int8_zlib_roundtrip val_loss:{bpb * 1.7:.4f} val_bpb:{bpb:.4f} eval_time:{eval_ms}ms")
        lines.append(f"final_int8_zlib_roundtrip_exact val_loss:{bpb * 1.7:.8f} val_bpb:{bpb:.8f}")
    return "\n".join([*lines, *([extra] if extra else [])]) + "\n"


def record(
    tree: Path, name: str, claim: dict[str, Any] | None = None, readme: str = "", track: str = TRACK, **logs: str
) -> Path:
    """Write a record folder. logs: name without .log, `__` for a sub-folder, to content."""
    folder = tree / track / name
    folder.mkdir(parents=True)
    if claim is not None:
        (folder / "submission.json").write_text(json.dumps(claim))
    if readme:
        (folder / "README.md").write_text(readme)
    for stem, content in logs.items():
        path = folder / f"{stem.replace('__', '/')}.log"
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    return folder


def three(*scores: float, **changes: Any) -> dict[str, str]:
    """Logs of seeds 1, 2, ... under names that say so."""
    return {
        f"train_seed{seed}": log(score, seed, model=15_000_000 + seed, **changes)
        for seed, score in enumerate(scores, start=1)
    }


def only(found: Campaign, tree: Path) -> dict[str, Any]:
    """Import a tree with one record; its row as `load` gives it."""
    leaderboard.take(found, tree)
    (row,) = leaderboard.load(found)
    return row


def codes(row: dict[str, Any], level: str | None = None) -> set[str]:
    """Codes of a row's issues, of one level if given."""
    return {issue["code"] for issue in row["issues"] if level in {None, issue["level"]}}
