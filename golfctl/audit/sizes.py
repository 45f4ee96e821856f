"""A1, A2: bytes, recounted from the disk where it holds them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from golfctl.audit import shipped
from golfctl.audit.contest import Contest
from golfctl.audit.result import Check, Evidence, fail, ok, several, unknown, warn
from golfctl.audit.target import Target
from golfctl.store.evidence import Log

PACKED = (".ptz", ".golf")
_NAMED = re.compile(r"(model|artifact|weights|final|int\d|quant)\w*[^/]*\.(br|xz|zst|lzma)$", re.IGNORECASE)
"""Ends of models as they are shipped; others may be the weights before they were packed."""


def check(target: Target, contest: Contest) -> list[Check]:
    """The artifact's bytes against the cap, and the counted code against the code that ships."""
    return [
        Check(
            "A1",
            "artifact under the cap",
            "logs of 16,186,500 and 16,059,704 bytes in merged folders",
            _size(target, contest),
        ),
        Check(
            "A2",
            "all shipped code is counted",
            "a 74-byte script that executes 80,055 bytes nobody counted (#1412)",
            _code(target, contest),
        ),
    ]


def _size(target: Target, contest: Contest) -> tuple[Evidence, ...]:
    return tuple(_sizes(target, contest)) or (
        unknown("no log says how many bytes code and model have, and no model lies here"),
    )


def _sizes(target: Target, contest: Contest) -> Iterator[Evidence]:
    cap = contest.limits.artifact_cap_bytes
    code = _shipped_bytes(target)
    for log in target.logs:
        where = _line(target, log, "artifact_bytes")
        size = _counted(target, log, code)
        if size is None:
            if log.counted:
                yield _rounded(target, log, cap)
            continue
        total, how = size
        if total > cap:
            yield fail(f"{total:,} bytes of code and model ({how}), {total - cap:,} over the cap of {cap:,}", where)
        else:
            yield ok(f"{total:,} bytes of code and model ({how}), {cap - total:,} under the cap of {cap:,}", where)
    if not target.runs:
        yield from _on_disk(target, code, cap)
    claimed = target.claim.bytes_total
    if claimed and claimed > cap and all(log.artifact_bytes is None for log in target.logs):
        yield fail(f"claims {claimed:,} bytes itself, {claimed - cap:,} over the cap of {cap:,}", "submission.json")


def _on_disk(target: Target, code: int | None, cap: int) -> Iterator[Evidence]:
    """Packed models that lie in a record folder, whatever its logs say."""
    for path, size in target.weights.items():
        if (path.endswith(PACKED) or _NAMED.search(path)) and size + (code or 0) > cap:
            yield fail(
                f"{size:,} bytes on the disk and {code or 0:,} of code: {size + (code or 0) - cap:,} over the cap", path
            )


def _counted(target: Target, log: Log, code: int | None) -> tuple[int, str] | None:
    """(bytes, how they were counted) of one run: from the disk for runs of ours, else as the log says, the larger figure."""
    run = target.runs.get(log.file)
    if run is not None:
        weights = [size for path, size in target.weights.items() if path.startswith(f"{run.spec.name}/")]
        pulled = run.result.artifact_bytes if run.result is not None else None
        if weights and code is not None and sum(weights) + code >= (pulled or 0):
            return sum(weights) + code, "recounted from disk"
        if pulled is not None:
            return pulled, f"recounted when it was pulled{'; less lies here' if weights else ''}"
    return (log.artifact_bytes, "by its log") if log.artifact_bytes is not None else None


def _rounded(target: Target, log: Log, cap: int) -> Evidence:
    """A log that says megabytes only: they settle it where all that rounds to them lies on one side of the cap."""
    megabytes = target.parsed[log.file].artifact_mb_rounded
    if megabytes is None:
        return unknown("says no bytes of code and model", log.file)
    size = megabytes * 1e6
    if size - 0.005e6 > cap:
        return fail(f"{megabytes:g} MB (decimal) is over the cap of {cap:,} bytes", log.file)
    if size + 0.05e6 <= cap:
        return ok(f"{megabytes:g} MB, under the cap of {cap:,} bytes", log.file)
    return unknown(f"{megabytes:g} MB is too rounded to be held against {cap:,} bytes", log.file)


def _shipped_bytes(target: Target) -> int | None:
    start = shipped.entry(target.code)
    if target.runs:
        return sum(map(len, target.code.values()))
    return sum(len(target.code[path]) for path in shipped.reached(target.code, start)) if start else None


def _code(target: Target, contest: Contest) -> tuple[Evidence, ...]:
    if target.runs:
        return tuple(_code_of_runs(target))
    start = shipped.entry(target.code)
    said = [log for log in target.logs if log.code_bytes is not None]
    if start is None:
        return (unknown("no script of it lies here, or none can be told to be the entry"),)
    if not said:
        return (unknown("no log says how many bytes of code it counted", start),)
    found = shipped.reached(target.code, start)
    return (
        *(
            _code_of_log(target, log, found, contest.limits.artifact_cap_bytes)
            for log in said
            if log.counted or log is said[0]
        ),
        *_executed(target, found),
    )


def _executed(target: Target, found: Collection[str]) -> Iterator[Evidence]:
    """Files without an ending of code that a script executes, and files that may be it where it works the name out."""
    others = sorted(path for path in target.code if path.endswith(".py") and path not in found)
    for path in found:
        for line, name in shipped.executed(target.code[path]) if path.endswith(".py") else ():
            file = target.folder / name
            if (
                name
                and name not in target.code
                and file.is_file()
                and file.resolve().is_relative_to(target.folder.resolve())
            ):
                yield fail(f"executes {name}, {file.stat().st_size:,} bytes that nobody counted", f"{path}:{line}")
            elif others and not any(known.endswith(name) for known in found if name):
                yield warn(f"executes a file whose name it works out; {several(others)} may be it", f"{path}:{line}")


def _code_of_runs(target: Target) -> Iterator[Evidence]:
    code = sum(map(len, target.code.values()))
    for file, run in target.runs.items():
        counted = run.result.code_bytes if run.result else None
        if counted is None:
            yield unknown("no result says how many bytes of code it counted", file)
        elif counted >= code:
            yield ok(f"{counted:,} bytes counted, its bundle holds {code:,}", file)
        else:
            names = several(sorted(target.code))
            yield warn(
                f"{counted:,} bytes counted, its bundle holds {code:,} ({names}): the rest is not part of what ships",
                file,
            )


def _code_of_log(target: Target, log: Log, found: dict[str, str], cap: int) -> Evidence:
    sizes = {path: len(target.code[path]) for path in found}
    total, counted, where = sum(sizes.values()), log.code_bytes or 0, _line(target, log, "code_bytes")
    start = next(iter(found))
    others = [f"{path} ({found[path]}, {sizes[path]:,} bytes)" for path in found if path != start]
    if counted >= total:
        return ok(f"{counted:,} bytes counted; {several(sorted(found))} have {total:,}", where)
    whole = (log.model_bytes or 0) + total
    if others and counted == sizes[start]:
        text = f"{counted:,} bytes counted, the entry {start} alone; {several(others)} also run: {total:,} bytes ship"
        return fail(text + _over(log, whole, cap), where)
    text = f"{counted:,} bytes counted, {total:,} bytes ship ({several(sorted(found))})"
    if log.model_bytes is not None and whole > cap:
        return fail(text + _over(log, whole, cap), where)
    return warn(f"{text}; with them it stays under the cap" if log.model_bytes is not None else text, where)


def _over(log: Log, whole: int, cap: int) -> str:
    if log.model_bytes is None:
        return ""
    return (
        f"; with the model {whole:,} bytes, {whole - cap:,} over the cap"
        if whole > cap
        else f"; with the model {whole:,}"
    )


def _line(target: Target, log: Log, what: str) -> str:
    line = target.parsed[log.file].lines.get(what) if log.file in target.parsed else None
    return f"{log.file}:{line}" if line else log.file
