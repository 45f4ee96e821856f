"""R1 to R4 and R6: what is asked, runs. In a child process with limits, never in ours.

The artifact of a run of ours is probed by its bundle's own `trainer.probe`, unpacked into a temporary folder: no patch of a base
frozen since then may touch it. A foreign model is probed through an adapter file by the trainer that came with golfctl.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from golfctl.audit.result import Check, Evidence, fail, ok, unknown
from golfctl.audit.target import Target
from golfctl.domain import rundir
from golfctl.errors import InputError
from golfctl.hostside.files import one_line
from golfctl.store import bundle
from golfctl.store.campaign import Campaign
from golfctl.store.evidence import Log

ONE_OF = 1000
"""A leak at one place of so many is what the certainty is stated for."""
MEMORY_BYTES = 24 << 30
"""Address space of the child; torch alone maps several GB."""
PLAUSIBLE = 0.25
"""Share of its loss by which a model may do worse on the probed stretch than on the whole text."""
ERRORS = 6.0
"""Standard errors that it may be off besides."""
ANSWER_BYTES = 4 << 20
KEPT = ("PATH", "HOME", "LANG", "TMPDIR", "XDG_CACHE_HOME", "LD_LIBRARY_PATH")
"""What the child sees of our environment: no secret that a stranger's code could read there."""
_START = """
import contextlib, resource, runpy, sys
with contextlib.suppress(ValueError, OSError):
    resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2)
del sys.argv[:2]
sys.path.insert(0, sys.argv.pop(0))
sys.argv.insert(0, "trainer.probe")
runpy.run_module("trainer.probe", run_name="__main__", alter_sys=True)
"""
_RULES = (
    (
        "R1",
        "no prediction sees its target or what comes after it",
        "240 of 240 pairs violated (#1240)",
        ("flip-steps", "flip"),
    ),
    ("R2", "every distribution sums to 1", "sums of 277 (#886) and 1000 (#1147)", ("sum",)),
    ("R3", "scored once, in order, before anything is learned from it", "last-epoch scoring", ("order",)),
    (
        "R4",
        "documents are predicted as if alone, where that is claimed",
        "SmearGate without the mask (#1797)",
        ("boundary",),
    ),
)


@dataclass(frozen=True)
class Limits:
    """tokens: length of the text that is probed. seconds: after which the child is ended."""

    tokens: int = 3000
    seconds: float = 900.0


Found = Mapping[str, Sequence[Mapping[str, Any]]]
"""Label of a score, or name of an adapter, to its findings (trainer.evaluate.probes.Finding)."""


def of_adapter(path: Path, limits: Limits, target: Target) -> tuple[Check, ...]:
    """A foreign model through its adapter, R6 against the target's logs. Raises InputError if there is no such file."""
    if not path.is_file():
        raise InputError(f"--adapter {path}: no such file")
    words = ["--adapter", str(path.resolve()), "--seconds", str(int(limits.seconds / 2))]
    found = _run(Path(__file__).parents[2], words, path.resolve().parent, limits)
    return (*checks(found, path.name), charged(found, target))


def of_runs(target: Target, campaign: Campaign, data: Path | None, limits: Limits) -> tuple[Check, ...]:
    """The artifact of a run: of a plan's runs, which share their code, the first whose artifact lies here.

    data: the folder it was trained on; without it the one its settings name, else the text that comes with the trainer.
    """
    runs = list(target.runs.values())
    files = bundle.tree_of(campaign, runs[0].spec.bundle).files if runs else {}
    if "trainer/probe.py" not in files:
        return checks("its code brings no probe; --adapter FILE asks it through a few lines of yours", target.name)
    run = next((run for run in runs if (target.folder / run.spec.name / rundir.ARTIFACT).is_file()), None)
    if run is None:
        return checks("its artifact is not here", target.name)
    settings = bundle.settings_of(campaign, run.spec.bundle)
    source = str(data or run.spec.env.get("DATA_PATH") or settings.get("DATA_PATH", ""))
    if source and not Path(source).is_dir():
        return checks("its data are not here; --data DIR says where they are", run.spec.name)
    artifact = (target.folder / run.spec.name / rundir.ARTIFACT).resolve()
    words = [str(artifact), f"DATA_PATH={Path(source).resolve() if source else ''}", "DEVICE=cpu"]
    with tempfile.TemporaryDirectory(prefix="golfctl-probe-") as folder:
        for path, entry in files.items():
            place = Path(folder, path)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(entry.content)
        return checks(_run(Path(folder), words, Path(folder), limits), run.spec.name)


def checks(found: Found | str, where: str) -> tuple[Check, ...]:
    """R1 to R4 from what was found; from a sentence, why nothing could be."""
    if isinstance(found, str):
        return tuple(Check(id, title, case, (unknown(found, where),)) for id, title, case, _ in _RULES)
    return tuple(
        Check(
            id,
            title,
            case,
            tuple(
                _said(label, item, items)
                for probe in probes
                for label, items in found.items()
                for item in items
                if item["probe"] == probe
            )
            or (unknown("nothing of it claims so", where),),
        )
        for id, title, case, probes in _RULES
    )


def charged(found: Found | str, target: Target) -> Check:
    """R6: a log's loss a token against what the model charges for a stretch of the text when it is asked."""
    said = (
        [item for items in found.values() for item in items if item["probe"] == "loss"]
        if isinstance(found, dict)
        else []
    )
    if not said:
        evidence = [
            unknown(found if isinstance(found, str) else "the adapter names no text; tokens() does", target.name)
        ]
    else:
        mean, error = (float(said[0]["numbers"][name]) for name in ("nats", "error"))
        if not math.isfinite(mean + error):
            return _claims([unknown(said[0]["said"], target.name)])
        allowed = max(ERRORS * error, PLAUSIBLE * mean)
        evidence = [_loss_of(log, said[0]["said"], mean - allowed) for log in target.counted if log.score is not None]
    return _claims(evidence or [unknown("no log holds a score", target.name)])


def _claims(evidence: Sequence[Evidence]) -> Check:
    return Check(
        "R6",
        "the distributions charge what the log claims",
        "0.29 bpb claimed for byte patches; 2.39, 2.15 and 1.38 measured by others",
        tuple(evidence),
    )


def _loss_of(log: Log, said: str, least: float) -> Evidence:
    assert log.score is not None
    where = f"{log.file}:{log.score.line}" if log.score.line else log.file
    if not log.score.val_loss > 0:
        return unknown("prints no loss beside its score", where)
    text = f"{said}; the log says {log.score.val_loss:.4f}"
    if log.score.val_loss >= least:
        return ok(text, where)
    return fail(f"{text}, and a stretch of the text can explain {least:.4f} at the least", where)


def _said(label: str, item: Mapping[str, Any], items: Sequence[Mapping[str, Any]]) -> Evidence:
    numbers, text = item["numbers"], f"{item['probe']}: {item['said']}"
    if item["probe"] == "boundary" and not numbers.get("documents"):
        return unknown(text, label)
    if "largest" in numbers:
        text += f" (largest {numbers['largest']:.1e}, allowed {numbers['tolerance']:.0e})"
    thorough = "flip-steps" if any(other["probe"] == "flip-steps" for other in items) else "flip"
    if item["passed"] and item["probe"] == thorough:
        text += f"; {certainty(int(numbers['tried']), int(numbers['targets']))}"
    return ok(text, label) if item["passed"] else fail(text, label)


def certainty(tried: int, total: int) -> str:
    """How surely a leak at one of ONE_OF places is found by so many places of a text, in words.

    Leaks that come at random, each place for itself, are all missed with (1 - 1/ONE_OF)^tried. Those that come regularly stand
    at total/ONE_OF places of the text, and each is met with tried/total.
    """
    random = 1 - (1 - 1 / ONE_OF) ** tried
    regular = 1 - (1 - tried / max(total, ONE_OF)) ** max(1, total // ONE_OF)
    return (
        f"a leak at 1 of {ONE_OF:,} places is found {'always' if regular == 1 else f'with {regular:.0%}'} if it comes "
        f"regularly, with {random:.0%} if at random"
    )


def _run(code: Path, words: Sequence[str], cwd: Path, limits: Limits) -> Found | str:
    """What `trainer.probe` of a folder says, or a sentence why it says nothing."""
    line = [
        sys.executable,
        "-c",
        _START,
        str(MEMORY_BYTES),
        str(code),
        *words,
        "--tokens",
        str(limits.tokens),
        "--json",
    ]
    environment = {name: os.environ[name] for name in KEPT if name in os.environ} | {"PYTHONDONTWRITEBYTECODE": "1"}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(
            line, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=errors, start_new_session=True
        )
        try:
            status = child.wait(limits.seconds)
        except subprocess.TimeoutExpired:
            return f"not done after {limits.seconds:g} s; fewer --probe-tokens or more --probe-seconds"
        finally:  # also what the child itself started, and also when we are interrupted
            _end(child)
        said, why = (_tail(file) for file in (out, errors))
    found = _parsed(said)
    if found is None or status not in {0, 1}:
        return f"the probe ended with exit code {status}: {one_line(why[-1]) if why else 'it said nothing'}"
    return found


def _end(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _tail(file: Any) -> list[str]:
    """Lines at the end of what was printed."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - ANSWER_BYTES))
    return [line for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]


def _numbers(item: Mapping[str, Any]) -> None:
    """Raises if a finding lacks a number that is looked at here, or has text for one: who is probed may have printed it."""
    numbers = {name: float(value) for name, value in item["numbers"].items()}
    if any(isinstance(value, str) for value in item["numbers"].values()):
        raise TypeError("text where a number belongs")
    if item["probe"] in {"flip", "flip-steps"}:
        int(numbers["tried"]), int(numbers["targets"])
    if item["probe"] == "loss":
        numbers["nats"], numbers["error"], int(numbers["impossible"])
    if "largest" in numbers:
        numbers["tolerance"]


def _parsed(lines: Sequence[str]) -> Found | None:
    """The findings, in the last line; None if that is no such thing."""
    try:
        found = json.loads(lines[-1])
        for items in found.values():
            for item in items:
                str(item["probe"]), str(item["said"]), bool(item["passed"])
                _numbers(item)
    except (IndexError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
    return found or None
