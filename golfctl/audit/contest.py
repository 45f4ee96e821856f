"""Limits and reference constants of a contest, from a data file: another contest is another file."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any

from golfctl.errors import InputError


@dataclass(frozen=True)
class Limits:
    """What a result must respect. Bytes are decimal; None: not limited. seeds: how many a record needs."""

    artifact_cap_bytes: int
    train_seconds: float | None = None
    eval_seconds: float | None = None
    seeds: int = 1
    record_margin_nats: float = 0.0
    alpha: float = 0.01


@dataclass(frozen=True)
class Reference:
    """The validation text in one alphabet: tokens scored, bytes of text a token (val_loss / ln 2 / val_bpb), and who says so."""

    name: str
    val_tokens: int
    bytes_per_token: float
    source: str = ""


@dataclass(frozen=True)
class Lowest:
    """The lowest score ever shown on the text, bits per byte, and what reached it. Raises ValueError unless it is above 0."""

    bpb: float
    source: str = ""

    def __post_init__(self) -> None:
        if not self.bpb > 0:
            raise ValueError(f"bpb: {self.bpb!r} is not above 0")


@dataclass(frozen=True)
class Contest:
    """text_bytes: length of the validation text, None where it is not fixed; tail: share that whole windows may leave out.

    image: packages that are there without being declared. lowest_bpb: the lowest score that was ever shown on the text, lowest_of
    what reached it.
    """

    name: str
    limits: Limits
    references: tuple[Reference, ...] = ()
    tolerance: float = 1e-4
    text_bytes: int | None = None
    tail: float = 0.0
    image: tuple[str, ...] = ()
    lowest_bpb: float | None = None
    lowest_of: str = ""


def names() -> list[str]:
    """Contests that come with golfctl."""
    return sorted(item.name.removesuffix(".yaml") for item in _folder().iterdir() if item.name.endswith(".yaml"))


def load(name: str) -> Contest:
    """A contest that comes with golfctl, or the file of one. Raises InputError: unknown, unreadable or of another form."""
    if name in names():
        return parse(_folder().joinpath(f"{name}.yaml").read_text(encoding="utf-8"), name)
    path = Path(name)
    if not path.is_file():
        raise InputError(f"--contest {name}: neither a file nor one of {', '.join(names())}")
    try:
        return parse(path.read_text(encoding="utf-8"), name)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--contest {name}: can't be read ({error})") from None


def parse(text: str, where: str) -> Contest:
    """A contest from YAML. Raises InputError naming what is wrong."""
    import yaml

    try:
        content = yaml.safe_load(text)
        told = content.get("text") or {}
        lowest = _record(Lowest, content["lowest"]) if content.get("lowest") is not None else None
        return Contest(
            name=str(content["name"]),
            limits=_record(Limits, content["limits"]),
            references=tuple(_record(Reference, item) for item in content.get("references") or ()),
            tolerance=float(content.get("bytes_per_token_tolerance", 1e-4)),
            text_bytes=int(told["bytes"]) if told.get("bytes") is not None else None,
            tail=float(told.get("tail", 0.0)),
            image=tuple(map(str, content.get("image") or ())),
            lowest_bpb=lowest.bpb if lowest else None,
            lowest_of=lowest.source if lowest else "",
        )
    except KeyError as error:
        raise InputError(f"{where}: lacks {error.args[0]}") from None
    except (yaml.YAMLError, AttributeError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{where}: not a contest file ({str(error).splitlines()[0]})") from None


def _record(kind: type, content: Any) -> Any:
    known = {field.name for field in fields(kind)}
    if not isinstance(content, dict):
        raise ValueError(f"{content!r} has no keys; allowed are {', '.join(sorted(known))}")
    if extra := set(content) - known:
        raise ValueError(f"unknown key {sorted(extra)[0]}; allowed are {', '.join(sorted(known))}")
    for name, value in content.items():
        right = isinstance(value, str) if name in {"name", "source"} else _number(value)
        if not right and (value is not None or name not in {"train_seconds", "eval_seconds"}):
            raise ValueError(f"{name}: {value!r} is no {'text' if name in {'name', 'source'} else 'finite number'}")
    return kind(**content)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _folder() -> Any:
    return resources.files("golfctl.audit") / "contests"
