"""Tool `probe`: what this machine is and has, as facts; judged by the controller (hosts/preflight.py). Python >= 3.9.

Request (all optional): root, cache, data (folders); torch (true: import it and tell what it sees); python (interpreter of the
runs, by default the one this runs under); manifest and hash (see shards.py); nonce (given back).
Answer: gpus, gpu_error, driver, python, torch, compiler, disk {root, cache, shm}, memory, cpu, boot, system, data, and last
of all `time`, this machine's clock in seconds since 1970, with `took_s`, the seconds from the start of the probe to there.
No host name and no address is among them.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

from golfctl.hostside import shards
from golfctl.hostside.children import find_json, last_words, run_lines
from golfctl.hostside.files import one_line
from golfctl.hostside.machine import cpus, disk, memory
from golfctl.hostside.processes import MARKER, boot_id

Say = Callable[[str], None]

SMI_TIMEOUT_S = 30.0
TORCH_TIMEOUT_S = 180.0
"""A first import from a cold network disk takes a minute or two."""

_MARK = "golfctl-facts "
_BASIC = ("index", "uuid", "name", "memory.total", "memory.used", "driver_version")
_MORE = ("utilization.gpu", "ecc.errors.uncorrected.volatile.total", "temperature.gpu", "clocks.max.sm", "power.limit")
_KEYS = {
    "memory.total": "memory_mib",
    "memory.used": "used_mib",
    "utilization.gpu": "utilisation",
    "ecc.errors.uncorrected.volatile.total": "ecc_errors",
    "temperature.gpu": "celsius",
    "clocks.max.sm": "max_mhz",
    "power.limit": "limit_w",
}

# Runs under the interpreter of the runs; a library that crashes or hangs there does not take the probe along.
_PYTHON = """
import json, sys, sysconfig
facts = {"version": "%d.%d.%d" % sys.version_info[:3], "include": sysconfig.get_paths()["include"], "torch": None}
if sys.argv[1] == "torch":
    try:
        import torch
        cuda = torch.cuda.is_available()
        facts["torch"] = {"version": str(torch.__version__), "cuda": torch.version.cuda, "available": cuda,
                          "devices": torch.cuda.device_count() if cuda else 0}
        if not cuda and torch.version.cuda:
            try:
                torch.cuda.init()
            except Exception as error:
                facts["torch"]["error"] = str(error)
    except BaseException as error:
        facts["torch"] = {"error": "%s: %s" % (type(error).__name__, error)}
print(sys.argv[2] + json.dumps(facts))
"""


def run(request: dict[str, Any], say: Say) -> dict[str, Any]:
    """The facts, as above. A fact that can't be had is None or carries an `error`; only a bad request raises (ValueError)."""
    began = time.monotonic()
    root = str(request.get("root") or os.getcwd())
    cache = str(request.get("cache") or root)
    gpus, driver, gpu_error = gpu_facts()
    if request.get("torch"):
        say("importing torch")
    python = python_facts(str(request.get("python") or sys.executable), bool(request.get("torch")))
    answer: dict[str, Any] = {
        "gpus": gpus,
        "gpu_error": gpu_error,
        "driver": driver,
        "torch": python.pop("torch", None),
        "python": python,
        "compiler": compiler_facts(str(python.get("include") or "")),
        "disk": {name: _disk(path) for name, path in (("root", root), ("cache", cache), ("shm", "/dev/shm"))},
        "memory": memory(),
        "cpu": cpus(),
        "boot": boot_id(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "data": None,
        "nonce": request.get("nonce"),
    }
    if request.get("manifest") is not None:
        if not isinstance(request["manifest"], dict):
            raise ValueError("probe: manifest must be an object (see shards.py)")
        if not request.get("data"):
            raise ValueError("probe: a manifest needs the data folder it describes")
        answer["data"] = shards.check(str(request["data"]), request["manifest"], say, bool(request.get("hash")))
    answer["took_s"], answer["time"] = time.monotonic() - began, time.time()
    return answer


def gpu_facts() -> tuple[list[dict[str, Any]], str, str]:
    """GPUs as nvidia-smi lists them, the driver's version, and what is wrong ("": nothing, also where there is no nvidia-smi).

    Each: index, uuid, name, memory_mib, used_mib, utilisation (%), ecc_errors (uncorrected since the driver's start), celsius,
    max_mhz, limit_w (None where not told), processes [{pid, name, used_mib, run}]; `run` names a run of ours.
    """
    smi = shutil.which("nvidia-smi")
    if not smi:
        return [], "", ""
    rows, error = _query(smi, "--query-gpu", _BASIC + _MORE)
    if error:  # an old nvidia-smi refuses a query for one unknown field
        rows, error = _query(smi, "--query-gpu", _BASIC)
    if error:
        return [], "", error
    gpus = [{_KEYS.get(key, key): _value(key, text) for key, text in row.items()} for row in rows]
    driver = str(gpus[0].pop("driver_version", "")) if gpus else ""
    processes, error = _query(smi, "--query-compute-apps", ("gpu_uuid", "pid", "used_memory", "process_name"))
    for gpu in gpus:
        gpu.pop("driver_version", None)
        gpu["processes"] = [_process(row) for row in processes if row["gpu_uuid"] == gpu["uuid"]]
    return gpus, driver, f"processes on the GPUs: {error}" if error else ""


def _query(smi: str, what: str, fields: Sequence[str]) -> tuple[list[dict[str, str]], str]:
    """Rows of one nvidia-smi query, or one line that says why there are none."""
    command = [smi, f"{what}={','.join(fields)}", "--format=csv,noheader,nounits"]
    try:
        code, lines = run_lines(command, timeout_s=SMI_TIMEOUT_S)
    except TimeoutError:
        return [], f"nvidia-smi did not answer within {SMI_TIMEOUT_S:g} s: the driver hangs; restart the machine"
    except OSError as error:
        return [], one_line(f"nvidia-smi: {error}")
    if code != 0:
        return [], last_words(lines) or f"nvidia-smi: exit code {code}"
    rows = [[part.strip() for part in line.split(",", len(fields) - 1)] for line in lines]
    return [{field: row[at] for at, field in enumerate(fields)} for row in rows if len(row) == len(fields)], ""


def _value(key: str, text: str) -> Any:
    """A field of nvidia-smi: a number where it is one, None for [N/A] and its like."""
    if key in ("uuid", "name", "driver_version"):
        return one_line(text)
    try:
        number = float(text)
    except ValueError:
        return None
    return int(number) if number.is_integer() else number


def _process(row: dict[str, str]) -> dict[str, Any]:
    pid, used = _value("pid", row["pid"]), _value("used_memory", row["used_memory"])
    words = row["process_name"].split()
    name = "" if row["process_name"].startswith("[") or not words else one_line(os.path.basename(words[0]))
    return {"pid": pid, "name": name, "used_mib": used, "run": run_of(pid) if isinstance(pid, int) else ""}


def run_of(pid: int) -> str:
    """Name of the run of ours this process belongs to; "" for another's process and for one we can't look into."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            words = file.read().split(b"\0")
    except OSError:
        return ""
    prefix = f"{MARKER}=".encode()
    folder = next((word[len(prefix) :] for word in words if word.startswith(prefix)), b"")
    return one_line(os.path.basename(folder.decode("utf-8", "replace")))


def python_facts(python: str, torch: bool) -> dict[str, Any]:
    """version and include folder of an interpreter; torch: {version, cuda, available, devices} or {error}, None if not asked."""
    command = [python, "-I", "-c", _PYTHON, "torch" if torch else "", _MARK]
    try:
        code, lines = run_lines(command, timeout_s=TORCH_TIMEOUT_S)
    except TimeoutError:
        return {"error": f"{python}: no answer within {TORCH_TIMEOUT_S:g} s", "torch": None}
    except OSError as error:
        return {"error": one_line(f"{python}: {error}"), "torch": None}
    try:
        facts = find_json(lines, _MARK)
    except ValueError:
        why = last_words(lines) or (f"killed by signal {-code}" if code < 0 else f"exit code {code}")
        return {"error": one_line(f"{python}: {why}"), "torch": {"error": why} if torch else None}
    if isinstance(facts["torch"], dict) and "error" in facts["torch"]:
        facts["torch"]["error"] = one_line(str(facts["torch"]["error"]))
    return {**facts, "path": python}


def compiler_facts(include: str) -> dict[str, Any]:
    """The C compiler torch.compile would call: path (None: there is none), works (it built a Python extension), error."""
    names = [name for name in (os.environ.get("CC"), "gcc", "clang", "cc") if name]
    path = next((found for found in map(shutil.which, names) if found), None)
    if not path:
        return {"path": None, "works": False, "error": "no C compiler"}
    code = b"#include <Python.h>\nint golfctl_answer(void) { return PY_MAJOR_VERSION; }\n"
    with tempfile.TemporaryDirectory(prefix="golfctl-") as folder:
        source, target = os.path.join(folder, "t.c"), os.path.join(folder, "t.so")
        with open(source, "wb") as file:
            file.write(code)
        try:
            status, lines = run_lines([path, "-shared", "-fPIC", "-I", include, source, "-o", target], timeout_s=60.0)
        except OSError as error:  # TimeoutError is one
            return {"path": path, "works": False, "error": one_line(str(error))}
    errors = [line for line in lines if "error" in line] or lines
    return {"path": path, "works": status == 0, "error": "" if status == 0 else one_line(errors[0] if errors else "")}


def _disk(path: str) -> dict[str, Any]:
    try:
        return disk(path)
    except OSError as error:
        return {"path": path, "error": error.strerror or str(error)}


def main() -> None:
    """For a look by hand: `python -m golfctl.hostside.probe [torch]`."""
    print(json.dumps(run({"torch": "torch" in sys.argv[1:]}, lambda text: print(text, file=sys.stderr)), indent=1))


if __name__ == "__main__":
    main()
