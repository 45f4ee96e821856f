"""ROOT/venv: a virtual environment with pinned packages, made once, without root's rights. Standard library, Python >= 3.9.

ROOT/venv/.golfctl.json is written last and holds what the environment was made of. While it is missing the environment is
unfinished: a package whose installation was cut off may look installed, so everything is made anew (pip keeps what
it has downloaded).
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from golfctl.hostside.children import find_json, last_words, run_lines
from golfctl.hostside.files import one_line, read_json, remove_tree, utc_now, write_json

Say = Callable[[str], None]

MARKER = ".golfctl.json"
INSTALL_TIMEOUT_S = 3600.0
IMPORT_TIMEOUT_S = 300.0
_MARK = "golfctl-facts "
_TOLD = ("Collecting", "Downloading", "Installing", "Successfully", "Building", "Using cached", "ERROR", "error")

_IMPORTS = """
import importlib, json, sys
facts = {}
for name in sys.argv[2:]:
    facts[name] = str(getattr(importlib.import_module(name), "__version__", ""))
if "torch" in facts:
    import torch
    facts["cuda"], facts["devices"] = torch.version.cuda, torch.cuda.device_count()
print(sys.argv[1] + json.dumps(facts))
"""


def prepare(root: str, request: Mapping[str, Any], say: Say, keep: Sequence[int] = ()) -> dict[str, Any]:
    """Make or complete ROOT/venv; see setup.py for the request. `keep`: descriptors (the lock) installers inherit.

    Returns {"python", "changed", "versions": {import name: version}, "notes"}. Raises OSError with one line, ValueError.
    """
    wish = _wish(request)
    place = os.path.join(root, "venv")
    python, marker = os.path.join(place, "bin", "python"), os.path.join(place, MARKER)
    digest = hashlib.sha256(json.dumps(wish, sort_keys=True).encode()).hexdigest()
    try:
        known = read_json(marker)
    except (OSError, ValueError):
        known = None
    if known and known.get("digest") == digest and os.path.exists(python):
        return {
            "python": python,
            "changed": False,
            "versions": known.get("versions", {}),
            "notes": known.get("notes", []),
        }
    if known is None or known.get("base") != wish["base"] or not os.path.exists(python):
        say(f"making {place}")
        _make(place, python, bool(wish["system_site_packages"]), keep)
    else:
        os.unlink(marker)  # from here on it is unfinished
    installer = _installer(python, keep)
    notes = install(python, installer, wish, request, say, keep)
    say("importing " + ", ".join(wish["imports"]) if wish["imports"] else "no imports to verify")
    versions = verify(python, wish["imports"])
    write_json(
        marker,
        {"digest": digest, "base": wish["base"], "versions": versions, "notes": notes, "made_at": utc_now()},
        sync=True,
    )
    return {"python": python, "changed": True, "versions": versions, "notes": notes}


def _wish(request: Mapping[str, Any]) -> dict[str, Any]:
    """What the environment is made of: its hash decides whether anything is to be done. Raises ValueError."""
    torch = request.get("torch") or {}
    torch = {"requirement": torch} if isinstance(torch, str) else torch
    lines = [str(line).split(" #")[0].strip() for line in request.get("requirements") or []]
    lines = [line for line in lines if line and not line.startswith("#")]
    for line in [*lines, str(torch.get("requirement") or "torch")]:
        if line.startswith("-") or "\n" in line or "\r" in line:
            raise ValueError(f"requirement {line!r}: options are not allowed; name an index in index_url or find_links")
    system = bool(request.get("system_site_packages"))
    imports = request.get("imports")
    if imports is None:
        asked = torch or system or any(re.match(r"torch\b(?![-_.])", line) for line in lines)
        imports = ["torch"] if asked else []
    if not all(isinstance(name, str) and name.isidentifier() for name in imports):
        raise ValueError("imports: must be names of modules")
    # In a virtual environment the interpreter below it: --clear must not delete the one we run under.
    base = getattr(sys, "_base_executable", None) or sys.executable
    return {
        "requirements": lines,
        "constraints": [str(line) for line in request.get("constraints") or []],
        "torch": str(torch.get("requirement") or ""),
        "torch_index_url": str(torch.get("index_url") or ""),
        "system_site_packages": system,
        "imports": list(imports),
        "base": [base, sys.version, system],
    }


def _make(place: str, python: str, system: bool, keep: Sequence[int]) -> None:
    """A fresh environment, whatever was there. Raises OSError."""
    remove_tree(place)
    base = str(getattr(sys, "_base_executable", None) or sys.executable)
    options = ["--system-site-packages"] if system else []
    lines: list[str] = []
    if importlib.util.find_spec("venv"):
        command = [base, "-I", "-m", "venv", "--clear", "--without-pip", *options, place]
        code, lines = run_lines(command, timeout_s=300.0, keep=keep)
        if code == 0 and os.path.exists(python):
            return
    uv = shutil.which("uv")
    if uv:
        code, lines = run_lines([uv, "venv", "--python", base, *options, place], timeout_s=300.0, keep=keep)
        if code == 0 and os.path.exists(python):
            return
    why = last_words(lines) or f"{base} has no venv module and there is no uv"
    raise OSError(
        f"{place}: can't make a virtual environment ({why}); install your system's python3-venv package, or uv"
    )


def _installer(python: str, keep: Sequence[int]) -> list[str]:
    """The command that installs into the environment: its own pip, pip brought by ensurepip, uv, or pip of the system."""
    own = [python, "-I", "-m", "pip", "--disable-pip-version-check", "--no-input"]
    # Packages of the system count where they are visible: with --system-site-packages its pip serves.
    if run_lines([*own, "--version"], timeout_s=60.0, keep=keep)[0] == 0:
        return [*own, "install", "--progress-bar", "off"]
    if run_lines([python, "-I", "-m", "ensurepip"], timeout_s=300.0, keep=keep)[0] == 0:
        return [*own, "install", "--progress-bar", "off"]
    uv = shutil.which("uv")
    if uv:
        return [uv, "pip", "install", "--python", python]
    base = str(getattr(sys, "_base_executable", None) or sys.executable)
    other = [base, "-I", "-m", "pip", "--python", python, "--disable-pip-version-check", "--no-input"]
    if run_lines([*other, "--version"], timeout_s=60.0, keep=keep)[0] == 0:
        return [*other, "install", "--progress-bar", "off"]
    raise OSError(f"{python}: no pip, ensurepip or uv here; install your system's python3-venv package, or uv")


def install(
    python: str,
    installer: list[str],
    wish: Mapping[str, Any],
    request: Mapping[str, Any],
    say: Say,
    keep: Sequence[int],
) -> list[str]:
    """torch first and by itself, then the rest, which may not replace it. Returns notes. Raises OSError."""
    notes: list[str] = []
    torch, lines = wish["torch"], list(wish["requirements"])
    pinned = ""
    if wish["system_site_packages"]:
        try:
            pinned = verify(python, ["torch"])["torch"]
        except OSError as error:
            notes.append(f"the system's torch can't be used: {error}")
        if pinned:
            asked = torch or next((line for line in lines if re.match(r"torch\s*==", line)), "")
            exact = re.match(r"torch\s*==\s*([^\s;]+)", asked)
            if exact and exact[1].split("+")[0] != pinned.split("+")[0]:
                notes.append(f"torch {pinned} of the system kept; {asked} was asked for")
            torch, lines = "", [line for line in lines if not re.match(r"torch\b(?![-_.])", line)]
    folder = os.path.dirname(os.path.dirname(python))
    if torch:
        other = {**request, "index_url": wish["torch_index_url"] or request.get("index_url")}
        pip(installer, [torch], other, say, folder, keep)
        pinned = _version_of(python, "torch")
    if lines:
        pip(installer, lines, request, say, folder, keep, [f"torch=={pinned}"] if pinned else [])
    return notes


def pip(
    installer: list[str],
    lines: list[str],
    request: Mapping[str, Any],
    say: Say,
    folder: str,
    keep: Sequence[int] = (),
    constraints: Sequence[str] = (),
) -> None:
    """Install requirement lines; `folder` keeps them for whoever looks. Raises OSError with pip's own last words."""
    wanted = os.path.join(folder, "golfctl-requirements.txt")
    limits = os.path.join(folder, "golfctl-constraints.txt")
    for path, content in ((wanted, lines), (limits, [*constraints, *(request.get("constraints") or [])])):
        with open(path, "w", encoding="utf-8") as file:
            file.write("\n".join(map(str, content)) + "\n")

    def told(line: str) -> None:
        if line.strip().startswith(_TOLD):
            say(one_line(line))

    command = [*installer, "-r", wanted, "-c", limits]
    if request.get("no_index"):
        command.append("--no-index")
    code, tail = run_lines(command, told, INSTALL_TIMEOUT_S, env=_indexes(request), keep=keep)
    if code != 0:
        errors = [line for line in tail if "error" in line.lower() and "notice" not in line]
        why = one_line(errors[-1] if errors else last_words(tail))
        hint = "; free some disk" if any("No space left" in line for line in tail) else ""
        raise OSError(f"packages could not be installed: {_public(why)}{hint}")


def _indexes(request: Mapping[str, Any]) -> dict[str, str]:
    """Where packages come from, in the environment: a URL may hold a password, and command lines are public."""
    values = {}
    names = {"index_url": ("PIP_INDEX_URL", "UV_DEFAULT_INDEX"), "extra_index_url": ("PIP_EXTRA_INDEX_URL", "UV_INDEX")}
    names["find_links"] = ("PIP_FIND_LINKS", "UV_FIND_LINKS")
    for key, variables in names.items():
        if request.get(key):
            values.update(dict.fromkeys(variables, str(request[key])))
    return values


def _public(text: str) -> str:
    """The text without user and password of URLs."""
    return re.sub(r"(https?://)[^/@\s]+@", r"\1", text)


def _version_of(python: str, package: str) -> str:
    code = "import sys; from importlib.metadata import version; print(sys.argv[2] + '{\"v\": \"' + version(sys.argv[1]) + '\"}')"
    _, lines = run_lines([python, "-I", "-c", code, package, _MARK], timeout_s=60.0)
    try:
        return str(find_json(lines, _MARK)["v"])
    except ValueError:
        return ""


def verify(python: str, imports: Sequence[str]) -> dict[str, str]:
    """Import these modules there: {name: version}, with torch also its CUDA. Raises OSError that names the failure."""
    if not imports:
        return {}
    try:
        _, lines = run_lines([python, "-I", "-c", _IMPORTS, _MARK, *imports], timeout_s=IMPORT_TIMEOUT_S)
        return {str(name): value for name, value in find_json(lines, _MARK).items()}
    except TimeoutError:
        raise OSError(f"{python}: importing {', '.join(imports)} took over {IMPORT_TIMEOUT_S:g} s") from None
    except ValueError:
        raise OSError(f"{python}: {last_words(lines) or 'import ' + ', '.join(imports) + ' failed'}") from None
