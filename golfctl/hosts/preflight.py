"""Preflight: what a host's facts (hostside/probe.py) and speed (hostside/speed.py) mean for a run, before money is spent.

Pure but for `read_manifest` and the history. Facts come from another machine: anything may be missing or of a wrong kind,
and every text is scrubbed before it is shown.

HostSpec.manifest names a JSON file that lists the data: {"name", "files": {path: {"bytes", "sha256"}},
"header": {"magic", "version"}, "count": {pattern: n}} (see hostside/shards.py).
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from golfctl.domain.host import HostSpec
from golfctl.errors import InputError
from golfctl.hosts.facts import at, digits, gigabytes, gpu_list, gpu_name, list_at, number_at, text_at
from golfctl.hosts.history import FIGURES, felt, past, remember, same_machine
from golfctl.hosts.reference import is_model, reference, short_name
from golfctl.hostside.files import one_line

SKEW_S = 5.0
"""A clock that is off by more is told of. Nothing here compares a host's clock with ours; its own logs and TLS do."""
BELOW_USUAL, BELOW_OWN = 0.92, 0.90
"""Slow: below this part of the lower end of the usual range, or of the median of the host's own former probes."""
NOISY = 0.15
"""Spread above which a figure says that something else is running, not that the machine is slow."""
OLDEST_DRIVER = {11: 450, 12: 525, 13: 580}
"""CUDA's major version -> the first driver that runs it (CUDA release notes, minor version compatibility)."""
IDLE_MIB = 1024
"""Memory in use on an idle GPU (driver, display) stays below."""
SMALL_SHM = 1 << 30

__all__ = ["Finding", "Need", "findings", "past", "read_manifest", "remember", "summary_lines", "with_skew"]

_STEPS = ("matmul_tflops", "memory_gb_s", "all_reduce_gb_s")
"""Figures that step time hangs on; the others are warnings."""


@dataclass(frozen=True)
class Need:
    """What a run asks of a host. gpu: model, "" for the host's own (none: CPU). torch: version, "" for any, None for none."""

    processes: int = 1
    gpu: str = ""
    torch: str | None = ""
    compiler: bool = False
    data: bool = False
    min_disk_bytes: int = 5_000_000_000
    min_memory_bytes: int = 0


@dataclass(frozen=True)
class Finding:
    """level: "ok", "warn", "slow" (the run would work and cost more) or "fail" (it would not work)."""

    level: str
    text: str


def findings(
    spec: HostSpec,
    need: Need,
    facts: Mapping[str, Any],
    speed: Mapping[str, Any] | None,
    past: Sequence[Mapping[str, Any]],
) -> list[Finding]:
    """All that is to be said, failures first. `past`: former probes of this host (see `past`); `speed`: None if not measured."""
    found = [
        *_gpus(spec, need, facts),
        *_software(spec, need, facts),
        *_room(spec, need, facts),
        *_clock(facts),
        *_data(spec, need, facts),
        *_speed(facts, speed, past),
    ]
    order = ("fail", "slow", "warn", "ok")
    return sorted(found, key=lambda finding: order.index(finding.level))


# -- the parts


def _gpus(spec: HostSpec, need: Need, facts: Mapping[str, Any]) -> list[Finding]:
    gpus, error, wanted = gpu_list(facts), text_at(facts, "gpu_error"), need.gpu or spec.gpu
    if not wanted:
        usable = number_at(facts, "cpu", "usable")
        if usable is not None and usable < need.processes:
            return [Finding("warn", f"{need.processes} processes share {usable:g} cores")]
        return []
    if not gpus:
        return [Finding("fail", f"no GPU: {need.processes}x {wanted} needed; {error or 'nvidia-smi is not there'}")]
    found = [Finding("warn", error)] if error else []
    right = [gpu for gpu in gpus if is_model(wanted, text_at(gpu, "name"))]
    for gpu in gpus:
        if gpu not in right:
            found.append(
                Finding("fail", f"{gpu_name(gpu)} is a {short_name(text_at(gpu, 'name'))}, {wanted} is needed")
            )
            break
    if len(gpus) < need.processes:
        found.append(Finding("fail", f"{len(gpus)} GPUs, {need.processes} are needed"))
    elif spec.slots > len(gpus):
        found.append(Finding("warn", f"hosts.yaml says slots: {spec.slots}, there are {len(gpus)} GPUs"))
    if len({text_at(gpu, "name") for gpu in gpus}) > 1:
        found.append(Finding("warn", "GPUs of different models: results would depend on the slot"))
    taken = [text for gpu in gpus if (text := _foreign(gpu))]
    enough = len(gpus) - len(taken) >= need.processes
    found += [Finding("warn" if enough else "fail", text) for text in taken]
    for gpu in gpus:
        if (errors := number_at(gpu, "ecc_errors")) and errors > 0:
            found.append(
                Finding("warn", f"{gpu_name(gpu)}: {errors:g} uncorrected memory errors; ask for another machine")
            )
    if not any(finding.level == "fail" for finding in found):
        found.append(Finding("ok", f"{len(gpus)}x {short_name(text_at(gpus[0], 'name'))}"))
    return found


def _foreign(gpu: Mapping[str, Any]) -> str:
    """Who else uses this GPU; "" if nobody does."""
    processes = gpu.get("processes")
    processes = [entry for entry in processes if isinstance(entry, dict)] if isinstance(processes, list) else []
    others = [entry for entry in processes if not entry.get("run")]
    used = number_at(gpu, "used_mib") or 0
    if others:
        names = ", ".join(
            f"{text_at(entry, 'name') or 'process'} (pid {text_at(entry, 'pid')})" for entry in others[:3]
        )
        return f"{gpu_name(gpu)}: {names} of someone else is on it, {used:,.0f} MiB in use"
    if not processes and used > IDLE_MIB:
        return f"{gpu_name(gpu)}: {used:,.0f} MiB in use by a process that is not visible here (another container?)"
    return ""


def _software(spec: HostSpec, need: Need, facts: Mapping[str, Any]) -> list[Finding]:
    found = []
    if error := text_at(facts, "python", "error"):
        found.append(Finding("fail", f"python: {error}"))
    if need.torch is not None and facts.get("torch") is not None:
        found += _torch(spec, need, facts)
    if need.compiler and isinstance(facts.get("compiler"), dict) and not facts["compiler"].get("works"):
        why = text_at(facts, "compiler", "error")
        found.append(Finding("fail", f"torch.compile needs a C compiler and Python.h: {why or 'it does not work'}"))
    return found


def _torch(spec: HostSpec, need: Need, facts: Mapping[str, Any]) -> list[Finding]:
    version, cuda = text_at(facts, "torch", "version"), text_at(facts, "torch", "cuda")
    if not version:
        why = text_at(facts, "torch", "error") or "it is not installed"
        return [Finding("fail", f"torch does not import: {why}; golfctl host prepare {spec.alias}")]
    found = []
    if need.torch and version.split("+")[0] != need.torch.split("+")[0]:
        found.append(Finding("warn", f"torch is {version}, the plan's runs use {need.torch}"))
    if not (need.gpu or spec.gpu):
        return found
    gpus, devices = len(gpu_list(facts)), number_at(facts, "torch", "devices") or 0
    driver = text_at(facts, "driver")
    oldest = OLDEST_DRIVER.get(int(cuda.split(".")[0])) if cuda[:1].isdigit() and cuda.split(".")[0].isdigit() else None
    if not cuda:
        found.append(Finding("fail", f"torch {version} is built without CUDA; golfctl host prepare {spec.alias}"))
    elif oldest and driver.split(".")[0].isdigit() and int(driver.split(".")[0]) < oldest:
        found.append(
            Finding("fail", f"driver {driver} is too old for CUDA {cuda} of torch {version} ({oldest} or newer)")
        )
    elif not at(facts, "torch", "available"):
        why = text_at(facts, "torch", "error") or f"driver {driver}, CUDA {cuda}"
        found.append(Finding("fail", f"torch {version} can't use the GPUs: {why}"))
    elif devices < gpus:
        found.append(Finding("fail", f"torch sees {devices:g} of {gpus} GPUs"))
    return found


def _room(spec: HostSpec, need: Need, facts: Mapping[str, Any]) -> list[Finding]:
    found = []
    for name, where in (("root", "ROOT"), ("cache", "the compile cache")):
        if error := text_at(facts, "disk", name, "error"):
            found.append(Finding("fail", f"disk of {where}: {error}"))
    free = number_at(facts, "disk", "root", "free_bytes")
    if free is not None and free < need.min_disk_bytes:
        found.append(
            Finding(
                "fail", f"disk: {gigabytes(free)} free, {gigabytes(need.min_disk_bytes)} needed; make room or rent more"
            )
        )
    if at(facts, "disk", "cache", "network") is True:
        kind, path = text_at(facts, "disk", "cache", "filesystem"), text_at(facts, "disk", "cache", "path")
        text = f"compile cache {path} is on a network file system ({kind}): processes race there; set cache: to a local disk"
        found.append(Finding("warn", text))
    shm = number_at(facts, "disk", "shm", "total_bytes")
    if (need.gpu or spec.gpu) and need.processes > 1 and shm is not None and shm < SMALL_SHM:
        text = f"/dev/shm holds {shm / 2**20:.0f} MiB: NCCL may fail; start the container with a larger --shm-size"
        found.append(Finding("warn", text))
    memory = number_at(facts, "memory", "available_bytes")
    if memory is not None and memory < need.min_memory_bytes:
        found.append(
            Finding("fail", f"memory: {gigabytes(memory)} available, {gigabytes(need.min_memory_bytes)} needed")
        )
    return found


def with_skew(facts: Mapping[str, Any], sent: float, received: float) -> dict[str, Any]:
    """Facts with skew_s (the host's clock minus ours) and skew_error_s; sent, received: our clock (time.time()) around the probe.

    The host read its clock at least took_s after `sent`, and before `received`.
    """
    there, took = number_at(facts, "time"), number_at(facts, "took_s") or 0.0
    if there is None:
        return dict(facts)
    earliest = min(sent + max(0.0, took), received)
    return {**facts, "skew_s": there - (earliest + received) / 2, "skew_error_s": (received - earliest) / 2}


def _clock(facts: Mapping[str, Any]) -> list[Finding]:
    skew, error = number_at(facts, "skew_s"), number_at(facts, "skew_error_s") or 0.0
    if skew is None or abs(skew) - error <= SKEW_S:
        return []
    size = f"{abs(skew):.0f} s" if abs(skew) < 120 else f"{abs(skew) / 60:.0f} min"
    text = f"its clock is {size} {'ahead' if skew > 0 else 'behind'}: harmless to runs, but downloads over TLS may fail"
    return [Finding("warn", text)]


def _data(spec: HostSpec, need: Need, facts: Mapping[str, Any]) -> list[Finding]:
    data = facts.get("data")
    if not isinstance(data, dict):
        if need.data:
            why = "was not checked" if spec.manifest else "has no manifest: in hosts.yaml"
            return [Finding("warn", f"data {why}")]
        return []
    problems = data.get("problems")
    problems = [one_line(str(problem)) for problem in problems] if isinstance(problems, list) else ["no answer"]
    if problems:
        return [Finding("fail", f"data: {problem}") for problem in problems]
    return [Finding("ok", f"data {text_at(data, 'summary')}")]


def _speed(
    facts: Mapping[str, Any], speed: Mapping[str, Any] | None, past: Sequence[Mapping[str, Any]]
) -> list[Finding]:
    if speed is None:
        return []
    found = [Finding("warn", f"speed: {one_line(str(note))}") for note in list_at(speed, "notes")]
    usual = _usual(facts, speed)
    former = [entry for entry in past if same_machine(entry, facts)]
    for name, title in FIGURES.items():
        value, unit = felt(speed, name), text_at(speed, "figures", name, "unit")
        if value is None:
            continue
        if text := text_at(speed, "figures", name, "slowest"):
            found.append(Finding("slow" if name in _STEPS else "warn", f"{title}: {text}"))
        method = text_at(speed, "figures", name, "method")
        own = [
            number_at(entry, "figures", name, "value")
            for entry in former
            if text_at(entry, "figures", name, "method") == method
        ]
        known = [number for number in own if number]
        low, high = usual.get(name, (0.0, 0.0))
        if value < BELOW_USUAL * low:
            yardstick, normal = f"usual {low:,.0f}-{high:,.0f}", (low + high) / 2
        elif known and value < BELOW_OWN * statistics.median(known):
            normal = statistics.median(known)
            yardstick = f"this host's own median of {len(known)} probes is {digits(normal)}"
        else:
            continue
        text = f"{title} {digits(value)} {unit}, {yardstick}"
        spread = number_at(speed, "figures", name, "spread") or 0.0
        if spread > NOISY:
            text = f"{text}; its repeats differ by {100 * spread:.0f} %: is something else running? Probe again"
            found.append(Finding("warn", text))
        elif name in _STEPS:
            cost = "expect fewer steps on several GPUs"
            if name != "all_reduce_gb_s":
                cost = f"expect about {100 * (1 - value / normal):.0f} % fewer steps"
            found.append(Finding("slow", f"SLOW: {text}: {cost}"))
        else:
            found.append(Finding("warn", f"slow: {text}"))
    return found


def _usual(facts: Mapping[str, Any], speed: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Usual ranges that apply: a known GPU model, and the all-reduce over 8 GPUs only."""
    gpus = gpu_list(facts)
    found = reference(text_at(gpus[0], "name")) if gpus and speed.get("device") == "cuda" else None
    usual = dict(found.usual) if found else {}
    if number_at(speed, "gpus") != 8:
        usual.pop("all_reduce_gb_s", None)
    return usual


# -- for people


def summary_lines(facts: Mapping[str, Any], speed: Mapping[str, Any] | None) -> list[str]:
    """One line for the machine, and one for its speed where it was measured."""
    gpus, torch = gpu_list(facts), text_at(facts, "torch", "version")
    usable, memory = number_at(facts, "cpu", "usable"), number_at(facts, "memory", "total_bytes")
    free, parts = number_at(facts, "disk", "root", "free_bytes"), []
    if gpus:
        parts += [
            f"{len(gpus)}x {short_name(text_at(gpus[0], 'name'))}",
            f"driver {text_at(facts, 'driver') or 'unknown'}",
        ]
    else:
        parts += (
            ["no GPU"] + ([f"{usable:g} cores"] if usable else []) + ([f"memory {gigabytes(memory)}"] if memory else [])
        )
    if facts.get("torch") is not None:
        parts.append(f"torch {torch}" if torch else "no torch")
    parts += [f"disk {gigabytes(free)} free"] if free is not None else []
    parts += [f"data {text_at(facts, 'data', 'summary')}"] if isinstance(facts.get("data"), dict) else []
    lines = ["   ".join(parts)]
    if speed is not None:
        usual, figures = _usual(facts, speed), []
        for name, title in FIGURES.items():
            value = felt(speed, name)
            if value is not None:
                text = f"{title} {digits(value)} {text_at(speed, 'figures', name, 'unit')}"
                low, high = usual.get(name, (0.0, 0.0))
                figures.append(f"{text} (usual {low:,.0f}-{high:,.0f})" if high else text)
        lines.append("speed  " + ("   ".join(figures) or "nothing could be measured"))
    return lines


# -- files


def read_manifest(path: Path) -> dict[str, Any]:
    """A data manifest from here, to be sent with the probe. Raises InputError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror})") from None
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})") from None
    if not isinstance(content, dict) or not isinstance(content.get("files"), dict):
        raise InputError(f"{path}: a manifest is {{'files': {{path: {{'bytes': n, 'sha256': hex}}}}}}")
    return content
