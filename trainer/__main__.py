"""`python -m trainer [--config NAME] [--settings FILE] [NAME=VALUE ...]`: one run, from settings to result.json.

With `--describe [--json]` nothing is trained: what the settings weigh and cost is printed (see `trainer.describe`).

Exit codes: 0 done, 1 the run failed, 2 the settings or the data are wrong. Errors are lines on standard error.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer import contract
from trainer.config import SettingsError, about, fields_by_name, load, preset_names

if TYPE_CHECKING:  # torch takes a second to load; a typo in a setting should not wait for it
    from trainer.config import Config
    from trainer.data.dataset import Dataset
    from trainer.dist import Group


def main(arguments: list[str]) -> int:
    """Run with the given arguments and this process's environment. Returns the exit code."""
    if {"-h", "--help"} & set(arguments):
        print(usage())
        return 0
    only = {"--describe", "--json"} & set(arguments)
    try:
        if only == {"--json"}:
            raise SettingsError("--json: goes with --describe")
        config = load([word for word in arguments if word not in only], os.environ)
    except SettingsError as error:
        return _fail(error, 2, os.environ.get("RANK", "0") == "0")
    # Before torch loads its OpenMP: threads that wait spin briefly, then sleep. Where another process wants a core too, longer
    # spinning makes a step up to five times as long; on an idle machine it would save a quarter of a small step
    # (docs/performance.md), so who has a machine alone may set more. Results do not depend on it.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    if only:
        return _describe(config, arguments)
    from trainer import dist
    from trainer.artifact import ArtifactError
    from trainer.data.errors import DataError
    from trainer.evaluate.bpb import ScoreError
    from trainer.train import Diverged

    group = None
    try:
        group = dist.start(config)
        _train_and_score(config, group)
    except (SettingsError, DataError) as error:
        return _fail(error, 2, group is None or group.rank == 0)
    except (Diverged, ScoreError) as error:  # every rank sees it; one of them says it
        return _fail(error, 1, group is None or group.rank == 0)
    except (ArtifactError, OSError) as error:
        return _fail(error, 1, True)
    finally:
        if group is not None:
            group.stop()
    return 0


def _describe(config: Config, arguments: list[str]) -> int:
    """Print what the settings weigh and cost. Returns the exit code."""
    import json

    from trainer.describe import describe, lines

    found = describe(config)
    print(json.dumps(found) if "--json" in arguments else "\n".join(lines(found, about(arguments))))
    return 0


def _train_and_score(config: Config, group: Group) -> None:
    """The run itself. Raises what its parts raise; result.json is written last, and only if all went well."""
    from trainer import opened, score, train
    from trainer.data.prepare import cache_root
    from trainer.metrics import Metrics, write_result

    train.check(config, group.world)
    out_dir = _out_dir(config, group)
    _refuse_used(out_dir)
    group.barrier()
    metrics = Metrics(out_dir, group.rank)
    opened.start([cache_root(), *([Path(config.data_path)] if config.data_path else [])])
    with opened.phase("opening"):
        dataset = _open(config, group)
    with opened.phase("training", whole=True):
        trained = train.run(config, dataset, group, metrics)
    with opened.phase("evaluation", whole=True):
        scored = score.run(out_dir / contract.ARTIFACT, dataset, config, group, metrics.say)
    if group.rank == 0:
        with opened.phase("after"):
            result = _result(config, dataset, group, trained, scored)
        write_result(out_dir, {**result, "files_opened": opened.found()})


def _open(config: Config, group: Group) -> Dataset:
    """The data; rank 0 opens it first, because opening may build a cache that the others then find ready."""
    from trainer.data.dataset import open_dataset

    dataset = open_dataset(config.data_path, config.tokenizer) if group.rank == 0 else None
    group.wait_for_work()
    return dataset or open_dataset(config.data_path, config.tokenizer)


def _out_dir(config: Config, group: Group) -> Path:
    """OUT_DIR, or a folder named after rank 0's clock."""
    import time

    (now,) = group.broadcast_floats([time.time()])
    return Path(config.out_dir or time.strftime("runs/%Y%m%dT%H%M%SZ", time.gmtime(now)))


def _refuse_used(out_dir: Path) -> None:
    """Raise SettingsError if the folder holds a run, finished or not: what was trained may have cost hours."""
    if (out_dir / contract.RESULT).exists():
        raise SettingsError(f"OUT_DIR={out_dir}: holds a finished run; choose another folder, nothing is overwritten")
    names = (contract.ARTIFACT, contract.METRICS)
    held = [name for name in names if (out_dir / name).exists() and (out_dir / name).stat().st_size]
    if held:
        path = out_dir / contract.ARTIFACT
        score = f"; `python -m trainer.score {path}` scores what it trained" if contract.ARTIFACT in held else ""
        raise SettingsError(
            f"OUT_DIR={out_dir}: holds {' and '.join(held)} of a run that is under way or did not end well; choose another "
            f"folder or delete this one, nothing is overwritten{score}"
        )


def _result(
    config: Config, dataset: Dataset, group: Group, trained: dict[str, Any], scored: dict[str, Any]
) -> dict[str, Any]:
    """result.json: what was asked for, on what, and what came out. Raises Diverged if a score is not finite."""
    import math

    from trainer.train import Diverged, peak_mem_mib

    for label, values in scored["scores"].items():
        if not math.isfinite(values["val_loss"]) or not math.isfinite(values["val_bpb"]):
            raise Diverged(f"{label} is not finite: no result")
    assert scored["artifact_sha256"] == trained["artifact_sha256"], "the scored artifact is not the one just written"
    data = {
        name: getattr(dataset, name)
        for name in ("train_sha256", "val_sha256", "val_text_sha256", "tokenizer", "tokenizer_sha256")
    }
    data |= {"train_tokens": len(dataset.train), "val_tokens": len(dataset.val)}
    data["val_bytes"] = int(dataset.val_bytes.sum(dtype="int64"))
    return {
        "metric_version": contract.METRIC_VERSION,
        "seed": config.seed,
        "world_size": group.world,
        **trained,
        "peak_mem_mib": round(peak_mem_mib(group), 1),
        "scores": scored["scores"],
        "references": scored["references"],
        # Where it ran is nobody's business: results are published. What was read is in the hashes.
        "settings": {
            name: value for name, value in config.as_settings().items() if name not in {"OUT_DIR", "DATA_PATH"}
        },
        "environment": _environment(group),
        "data": data,
        "warnings": _warnings(config, trained),
    }


def _warnings(config: Config, trained: dict[str, Any]) -> list[str]:
    """What a reader of the score must know beside it, a line each."""
    found = []
    if trained["total_bytes"] > contract.CAP_BYTES:
        found.append(f"{trained['total_bytes']} bytes exceed the cap of {contract.CAP_BYTES}")
    if trained["steps"] == 0:
        found.append("no step was trained")
    elif config.num_loops and trained["loops_trained"] < config.num_loops:  # the clock ended it too early
        found.append(f"scored with NUM_LOOPS={config.num_loops}, trained with at most {trained['loops_trained']}")
    return found


def _environment(group: Group) -> dict[str, Any]:
    """What the run ran on."""
    import platform

    import numpy
    import torch

    cuda = group.device.type == "cuda"
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda if cuda else None,
        "numpy": numpy.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "device": group.device.type,
        "gpu": torch.cuda.get_device_name(group.device) if cuda else None,
        "threads": torch.get_num_threads(),
        "world_size": group.world,
    }


def usage() -> str:
    """The help text: how to call, and every setting with default, meaning and source."""
    lines = [
        "usage: python -m trainer [--config NAME] [--settings FILE.json] [NAME=VALUE ...] [--describe [--json]]",
        "",
    ]
    if names := preset_names():
        lines += [f"configurations: {', '.join(names)}", ""]
    lines.append("settings (also as environment):")
    for name, field in fields_by_name().items():
        default = int(field.default) if isinstance(field.default, bool) else field.default
        lines.append(f"  {name}={default}  {field.metadata['meaning']} [{field.metadata['source']}]")
    return "\n".join(lines)


def _fail(error: Exception, code: int, speaks: bool) -> int:
    if speaks:
        for line in str(error).splitlines() or [type(error).__name__]:
            print(f"trainer: {line}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
