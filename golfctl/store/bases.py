"""Bases: frozen code that plans build on. A snapshot of the bundled trainer, or a foreign single-file script."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from golfctl.errors import InputError, InputErrors, Problem
from golfctl.store import marks
from golfctl.store.envvars import EnvVar, Reads, read_env
from golfctl.store.files import os_error, write_atomic
from golfctl.store.marks import did_you_mean
from golfctl.store.schema import BaseFile
from golfctl.store.syntax import read_script
from golfctl.store.tree import Entry, Tree, pack, read_folder, unpack
from golfctl.store.validate import validate
from trainer import contract

if TYPE_CHECKING:
    from golfctl.store.campaign import Campaign

TRAINER_FILES = ("*.py", "presets/*.json", "export/*.txt")
_TORCHRUN = ["{python}", "-m", "torch.distributed.run", "--standalone", "--nproc_per_node={processes}"]
_TRAINER_ARGS = ["-m", "trainer", "--settings", "settings.json"]
TRAINER: Mapping[str, Any] = {
    "kind": "trainer",
    "launch": ["{python}", *_TRAINER_ARGS],
    "launch_many": [*_TORCHRUN, *_TRAINER_ARGS],
    "artifact": [contract.ARTIFACT],
    "code": ["*.py", "*.so", "*.c", "*.cu", "*.cpp"],  # as contract.code_files counts
    "score_label": contract.FINAL_SLIDING,
    # The judge, and the names that would shadow it: a package `artifact/` is imported before a module `artifact.py`.
    "protected": [
        "trainer/evaluate/*",
        "trainer/data/*",
        *(
            f"trainer/{name}{end}"
            for name in ("artifact", "score", "contract", "opened", "probe")
            for end in (".*", "/*")
        ),
        "trainer/packing/*",
        "trainer/evaluate.*",
        "trainer/data.*",
        "trainer/packing.*",
    ],
    "env_calls": ["setting"],
}
ROLES: Mapping[str, str] = {
    "seed": "SEED",
    "iterations": "ITERATIONS",
    "seconds": "MAX_WALLCLOCK_SECONDS",
    "data": "DATA_PATH",
    "out": "OUT_DIR",
}
"""What golfctl or its host fills, and the variable the field uses for it."""
SCRIPT_ARTIFACT = ("final_model.int*.ptz", "final_model.int*.pt.*", "*.ptz")
LAUNCHER_VARS = frozenset(
    {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT", "NODE_RANK"}
)
"""Set by torchrun for every process; never a plan's business."""


@dataclass(frozen=True)
class Base:
    """A base as its file says; `tree` is the verified snapshot.

    launch, launch_many: argv templates for one and for several processes, run in the bundle's folder; `{python}` and
    `{processes}` are filled at launch. vars: role (seed, iterations, seconds, data, out) to variable. env: variables the
    syntax tree can't show.
    """

    name: str
    kind: str
    sha256: str
    tree: Tree
    launch: tuple[str, ...]
    launch_many: tuple[str, ...]
    vars: Mapping[str, str]
    artifact: tuple[str, ...]
    code: tuple[str, ...]
    score_label: str
    settings: Mapping[str, str]
    protected: tuple[str, ...]
    env_calls: tuple[str, ...]
    env: tuple[str, ...] = ()

    def variables(self, tree: Tree) -> dict[str, EnvVar]:
        """Every setting the code in `tree` (this base, perhaps patched) reads, by name. Raises InputError if it can't be parsed.

        Of the bundled trainer these are its declared settings; what it reads from the launcher is not a setting.
        """
        found: dict[str, EnvVar] = {name: EnvVar(name, None, f"bases/{self.name}.yaml", 1) for name in self.env}
        for reads in self.reads(tree).values():
            if reads.error:
                raise InputError(reads.error)
            for item in reads.variables:
                declared = bool(item.limits) or not self.env_calls
                if item.name not in LAUNCHER_VARS and (declared or self.kind != "trainer"):
                    found.setdefault(item.name, item)
        return found

    def reads(self, tree: Tree) -> dict[str, Reads]:
        """Python file of `tree` to what it reads from the environment."""
        return {
            path: read_env(entry.content, path, self.env_calls)
            for path, entry in tree.files.items()
            if path.endswith(".py")
        }

    def unread_roles(self) -> dict[str, str]:
        """Role to variable, for those the base's code does not read: setting them changes nothing."""
        known = self.variables(self.tree)
        return {role: name for role, name in self.vars.items() if name not in known}


def load(campaign: Campaign, name: str) -> Base:
    """The base `name`, its snapshot verified. Raises InputError(s): unknown, a wrong file, other code than was frozen."""
    path = campaign.bases_folder / f"{name}.yaml"
    if not path.is_file():
        raise InputError(f"base {name!r}: unknown{did_you_mean(name, campaign.bases)}")
    file = campaign.relative(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{file}: can't be read: {os_error(error)}") from None
    model = _read(content, file)
    snapshot = campaign.bases_folder / model.snapshot
    place = campaign.relative(snapshot)
    try:
        tree = _verified(snapshot.read_bytes(), place, model.sha256)
    except OSError as error:
        raise InputError(f"{place}: can't be read: {error.strerror}; {file} needs it") from None
    return Base(
        name=model.name,
        kind=model.kind,
        sha256=model.sha256,
        tree=tree,
        launch=tuple(model.launch),
        launch_many=tuple(model.launch_many),
        vars=model.vars.model_dump(),
        artifact=tuple(model.artifact),
        code=tuple(model.code),
        score_label=model.score_label,
        settings=dict(model.settings),
        protected=tuple(model.protected),
        env_calls=tuple(model.env_calls),
        env=tuple(model.env),
    )


@lru_cache(maxsize=64)
def _read(content: bytes, file: str) -> BaseFile:
    document = marks.read(content, file)
    model, problems = validate(document, BaseFile, [("settings",)])
    name = document.value.get("name")
    if isinstance(name, str) and name != Path(file).stem:
        problems.append(document.problem(["name"], f"{name!r} is not the file's name; write {Path(file).stem!r}"))
    snapshot = document.value.get("snapshot")
    if isinstance(snapshot, str) and ("/" in snapshot or "\\" in snapshot or not snapshot.endswith(".tar.gz")):
        problems.append(document.problem(["snapshot"], f"{snapshot!r} is no NAME.tar.gz in the same folder"))
    for key in ("launch", "launch_many"):
        words = document.value.get(key)
        for index, word in enumerate(words if isinstance(words, list) else []):
            rest = str(word).replace("{python}", "").replace("{processes}", "")
            if "{" in rest or "}" in rest:
                message = f"{word!r}: only {{python}} and {{processes}} are filled in"
                problems.append(document.problem([key, index], message))
    if model is None or problems:
        raise InputErrors(problems)
    return model


@lru_cache(maxsize=8)
def _verified(archive: bytes, place: str, sha256: str) -> Tree:
    tree = unpack(archive, place)
    if tree.sha256 != sha256:
        raise InputError(
            f"{place}: is not the code that was frozen (tree hash {tree.sha256[:12]}, expected {sha256[:12]}); "
            "restore the file, or freeze it as a new base under another name"
        )
    return tree


def freeze_trainer(campaign: Campaign, name: str, settings: Mapping[str, str]) -> Base:
    """Snapshot the installed trainer as base `name` with these settings. Raises InputError(s): a taken name, wrong settings."""
    from trainer.config import SettingsError, from_values

    try:
        from_values(settings)
    except SettingsError as error:
        problems = [Problem(f"bases/{name}.yaml", 0, 0, f"settings: {line}") for line in str(error).splitlines()]
        raise InputErrors(problems) from None
    found = importlib.util.find_spec("trainer")
    if found is None or not found.submodule_search_locations:
        raise InputError("the package `trainer` is not installed beside golfctl; install this project as a whole")
    folder = Path(next(iter(found.submodule_search_locations)))
    code = read_folder(folder, TRAINER_FILES)
    # Modes depend on how the package was installed; the code does not.
    tree = Tree({f"trainer/{path}": Entry(entry.content) for path, entry in code.files.items()})
    return _freeze(campaign, name, tree, TRAINER, settings)


def freeze_script(
    campaign: Campaign,
    name: str,
    path: Path,
    *,
    score_label: str,
    settings: Mapping[str, str] | None = None,
    artifact: Sequence[str] = SCRIPT_ARTIFACT,
    variables: Mapping[str, str] | None = None,
    env: Sequence[str] = (),
) -> Base:
    """Freeze a single-file script that is driven by environment variables.

    Raises InputError(s): a taken name, unreadable, not Python, settings or roles it does not read. variables: role (seed,
    iterations, seconds, data, out) to variable, where it differs from the field's convention.
    """
    content = read_script(path)
    reads = read_env(content, path.name, ())  # as `Base.reads` asks, so that it is followed once
    if reads.error:
        raise InputError(f"{path.parent / reads.error}")
    known = {item.name for item in reads.variables} | set(env)
    given = [(key, f"settings.{key}") for key in settings or {}]
    given += [(name, f"vars.{role}: {name}") for role, name in (variables or {}).items()]
    problems = [
        Problem(str(path), 0, 0, f"{label}: the script does not read this variable{did_you_mean(name, known)}")
        for name, label in given
        if name not in known
    ]
    problems += [
        Problem(str(path), 0, 0, f"vars.{role}: unknown role{did_you_mean(role, ROLES)}")
        for role in variables or {}
        if role not in ROLES
    ]
    if problems:
        raise InputErrors(problems)
    tree = Tree({path.name: Entry(content)})
    template = {
        "kind": "script",
        "launch": ["{python}", path.name],
        "launch_many": [*_TORCHRUN, path.name],
        "artifact": list(artifact),
        "code": [path.name],
        "score_label": score_label,
        "protected": [],
        "env_calls": [],
        "env": list(env),
    }
    return _freeze(campaign, name, tree, template, settings or {}, variables)


def _freeze(
    campaign: Campaign,
    name: str,
    tree: Tree,
    template: Mapping[str, Any],
    settings: Mapping[str, str],
    variables: Mapping[str, str] | None = None,
) -> Base:
    folder = campaign.bases_folder
    target = folder / f"{name}.yaml"
    snapshot = f"{name}.tar.gz"
    content = {
        "name": name,
        "kind": template["kind"],
        "snapshot": snapshot,
        "sha256": tree.sha256,
        "launch": template["launch"],
        "launch_many": template["launch_many"],
        "vars": {**ROLES, **(variables or {})},
        **{key: template[key] for key in ("artifact", "code", "score_label")},
        "settings": dict(settings),
        **{key: template[key] for key in ("protected", "env_calls")},
        **({"env": template["env"]} if template.get("env") else {}),
    }
    text = "# Frozen by golfctl. The hash covers the snapshot: change the code, and it is another base.\n"
    # JSON is YAML: every value is quoted, so that no reader takes a text for a number or a switch.
    text += "".join(f"{key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in content.items())
    _read(text.encode(), f"bases/{name}.yaml")
    if target.exists() or (folder / snapshot).exists():
        raise InputError(f"{campaign.relative(target)}: exists; a base is frozen once, choose another name")
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / snapshot, pack(tree))
    write_atomic(target, text.encode())
    return load(campaign, name)
