"""A host's own past: one line per speed probe in FOLDER/ALIAS.jsonl. Figures and models only, no addresses."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from golfctl.errors import InputError
from golfctl.hosts.facts import gpu_list, number_at, text_at
from golfctl.hostside.files import utc_now
from golfctl.hostside.supervise import NAME

FIGURES = {
    "matmul_tflops": "matmul",
    "memory_gb_s": "memory",
    "all_reduce_gb_s": "all-reduce",
    "host_to_device_gb_s": "copy to GPU",
    "disk_read_mb_s": "disk read",
}
"""Figures of the speed probe and what people call them."""


def felt(speed: Mapping[str, Any], name: str) -> float | None:
    """The figure a run feels: every step waits for the slowest GPU."""
    return number_at(speed, "figures", name, "worst")


def remember(folder: Path, alias: str, facts: Mapping[str, Any], speed: Mapping[str, Any]) -> None:
    """Append one probe to FOLDER/ALIAS.jsonl: figures and models, no addresses. Raises InputError, OSError."""
    figures = {
        name: {"value": value, "method": text_at(speed, "figures", name, "method")}
        for name in FIGURES
        if (value := felt(speed, name)) is not None
    }
    entry = {
        "at": utc_now(),
        "boot": text_at(facts, "boot"),
        "machine": _machine(facts),
        "driver": text_at(facts, "driver"),
        "torch": text_at(facts, "torch", "version"),
        "figures": figures,
    }
    path = _history(folder, alias)
    folder.mkdir(parents=True, exist_ok=True)
    line = json.dumps(entry, separators=(",", ":")).encode() + b"\n"
    number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        size = os.fstat(number).st_size
        if size and os.pread(number, 1, size - 1) != b"\n":
            line = b"\n" + line  # a line torn by a crash stays by itself
        os.write(number, line)
        os.fsync(number)
    finally:
        os.close(number)


def past(folder: Path, alias: str) -> list[dict[str, Any]]:
    """Former probes of a host, oldest first; lines that are none are passed over. Raises InputError, OSError."""
    try:
        lines = _history(folder, alias).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # torn
        if isinstance(entry, dict):
            found.append(entry)
    return found


def _history(folder: Path, alias: str) -> Path:
    if not NAME.match(alias):
        raise InputError(f"host {alias!r}: allowed are letters, digits, '.', '_' and '-'")
    return folder / f"{alias}.jsonl"


def _machine(facts: Mapping[str, Any]) -> str:
    """What makes figures comparable: models and number of GPUs, else the number of cores."""
    gpus = gpu_list(facts)
    if gpus:
        return f"{len(gpus)}x " + ", ".join(sorted({text_at(gpu, "name") for gpu in gpus}))
    return f"cpu {number_at(facts, 'cpu', 'usable') or 0:g}"


def same_machine(entry: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
    boot = text_at(facts, "boot")
    return text_at(entry, "machine") == _machine(facts) or (bool(boot) and text_at(entry, "boot") == boot)
