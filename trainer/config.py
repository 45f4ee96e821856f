"""Every setting of the trainer, in one typed place. Standard library only.

A setting is an environment variable in the field's convention, or the same name in a JSON file (`--settings FILE`, or one of
ours, `--config NAME`), or `NAME=VALUE` on the command line. Later ones win: default < config < file < environment < command
line. Unknown names are refused with the nearest known one. Defaults are the small CPU run; `presets/*.json` hold the named
configurations. Settings are declared in `trainer/options/`, a file a part, each with the combinations it rules out.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from trainer.options import (
    artifact,
    average,
    calibration,
    data,
    depth,
    embedding,
    evaluation,
    losses,
    model,
    optim,
    patch,
    quant,
    run,
    schedule,
)
from trainer.options.declare import setting

__all__ = ["Config", "SettingsError", "fields_by_name", "from_values", "load", "nearest", "parse_value", "setting"]


class SettingsError(ValueError):
    """A setting is unknown or its value is not allowed. The message has one line per problem."""


_PARTS: tuple[ModuleType, ...] = (
    run,
    data,
    model,
    depth,
    embedding,
    patch,
    losses,
    optim,
    schedule,
    average,
    quant,
    artifact,
    calibration,
    evaluation,
)
"""In the order in which settings are listed."""


@dataclass(frozen=True, kw_only=True)
class Config(
    # A dataclass takes its bases from last to first.
    evaluation.EvaluationOptions,
    calibration.CalibrationOptions,
    artifact.ArtifactOptions,
    quant.QuantOptions,
    average.AverageOptions,
    schedule.ScheduleOptions,
    optim.OptimOptions,
    losses.LossOptions,
    patch.PatchOptions,
    embedding.EmbeddingOptions,
    depth.DepthOptions,
    model.ModelOptions,
    data.DataOptions,
    run.RunOptions,
):
    """All settings, resolved. Lengths are in tokens, sizes in bytes, times in the unit the name ends with."""

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


def _contradictions(config: Config) -> Iterator[str]:
    """Settings that are fine alone and impossible together."""
    for part in _PARTS:
        if hasattr(part, "problems"):
            yield from part.problems(config)


def load(arguments: list[str], environment: Mapping[str, str]) -> Config:
    """Settings from `[--config NAME] [--settings FILE] [NAME=VALUE ...]` and an environment.

    Raises SettingsError, one line per problem.
    """
    named: dict[str, Any] = {}
    file_values: dict[str, Any] = {}
    given: dict[str, Any] = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--settings":
            if not rest:
                raise SettingsError("--settings: needs a JSON file")
            file_values = read_settings(Path(rest.pop(0)))
        elif word == "--config":
            named = read_settings(_preset(rest.pop(0) if rest else ""))
        elif "=" in word and not word.startswith("-"):
            name, _, value = word.partition("=")
            given[name] = value
        else:
            raise SettingsError(f"{word}: not understood; allowed are --config NAME, --settings FILE and NAME=VALUE")
    known = fields_by_name()
    from_environment = {name: value for name, value in environment.items() if name in known}
    return from_values(named | file_values | from_environment | given, environment)


PRESETS = Path(__file__).parent / "presets"
"""Named configurations, a JSON file each."""

ABOUT = "_about"
"""Key of a settings file that says what the file is; JSON has no comments."""


def preset_names() -> list[str]:
    """What `--config` takes; none in a trainer packed into one file."""
    return sorted(path.stem for path in PRESETS.glob("*.json"))


def _preset(name: str) -> Path:
    names = preset_names()
    if name not in names:
        raise SettingsError(f"--config {name}: no such configuration; there are {', '.join(names) or 'none here'}")
    return PRESETS / f"{name}.json"


def about(arguments: list[str]) -> str:
    """What the configuration named in accepted arguments says it is; empty without one."""
    if "--config" not in arguments:
        return ""
    path = _preset(arguments[arguments.index("--config") + 1])
    return str(json.loads(path.read_text(encoding="utf-8")).get(ABOUT, ""))


def read_settings(path: Path) -> dict[str, Any]:
    """The settings of a JSON file, without what it says about itself. Raises SettingsError if it is not one object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path}: can't be read as JSON ({error})") from None
    if not isinstance(content, dict):
        raise SettingsError(f"{path}: must hold one JSON object of settings")
    return {name: value for name, value in content.items() if name != ABOUT}
