"""Where a run works, for how long, and what it says. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainer.options.declare import BASELINE, OURS, setting

if TYPE_CHECKING:
    from trainer.config import Config


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Part of trainer.config.Config."""

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
    attention_backend: str = setting(
        "ATTENTION_BACKEND",
        "sdpa",
        "how attention is computed in training; sdpa: as torch chooses; auto: the best that passes a check on the device",
        source=OURS,
        choices=("sdpa", "auto", "cudnn", "varlen", "flex"),
    )
    compile: bool = setting("COMPILE", False, "torch.compile the model", source=BASELINE)
    compile_optimizer: bool = setting("COMPILE_OPTIMIZER", False, "with COMPILE=1: Newton-Schulz, too", source=BASELINE)


def problems(config: Config) -> Iterator[str]:
    """Settings that are fine alone and impossible together, one line each."""
    if config.compile_optimizer and not (config.compile and config.optimizer == "muon"):
        yield "COMPILE_OPTIMIZER=1 compiles Muon's Newton-Schulz: it needs COMPILE=1 and OPTIMIZER=muon"
