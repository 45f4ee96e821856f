"""The whole way: settings and sources in, the program of one configuration out."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.config import Config, fields_by_name
from trainer.export import substitutes
from trainer.export.facts import Facts
from trainer.export.fold import Fold
from trainer.export.link import ExportError, Linked, link, read
from trainer.export.literal import Put, same, value_of
from trainer.export.reach import Reach
from trainer.export.scopes import walk
from trainer.export.spread import spread

OPEN = (
    "SEED",
    "DATA_PATH",
    "OUT_DIR",
    "DEVICE",
    "CPU_THREADS",
    "ITERATIONS",
    "MAX_WALLCLOCK_SECONDS",
    "EVAL_MAX_SECONDS",
    "GRAD_ACCUM_STEPS",
    "COMPILE",
    "TRAIN_LOG_EVERY",
    "VAL_LOSS_EVERY",
)
"""Settings that an exported script still takes: where it works, for how long, how loudly, from which seed."""

_AWAY = re.compile(r"trainer\.(pack|export(\..*)?)")
"""Never in an export."""

_ENTRY = "if __name__ == '__main__':\n    sys.exit({entry}(sys.argv[1:]))"
_MOST_ROUNDS = 40


@dataclass(frozen=True)
class Program:
    """A script as statements. packages: what it imports beside the standard library, sorted. open: settings it takes."""

    linked: Linked
    packages: tuple[str, ...]
    open: tuple[str, ...]


def program(folder: Path, config: Config) -> Program:
    """What the package in `folder` does with these settings, and nothing else. Raises ExportError, OSError, SyntaxError."""
    changed: set[str] = set()
    while True:  # twice at most a field: the first try takes all settings to be the same everywhere
        linked, replaced = _program(folder, config, changed)
        if replaced <= changed:
            break
        changed |= replaced
    return Program(linked, _packages(linked), tuple(name for name in OPEN if name in fields_by_name()))


def _program(folder: Path, config: Config, changed: set[str]) -> tuple[Linked, set[str]]:
    """The program if only the fields in `changed` may differ from the settings in some part, and the fields that do."""
    linked = _linked(folder, config, changed)
    fields = {field.name: name for name, field in fields_by_name().items()}
    frozen = {
        field: getattr(config, field) for field, name in fields.items() if name not in OPEN and field not in changed
    }
    entry = next(name for name, at in linked.origin.items() if at == ("trainer.__main__", "entry"))
    settle(linked, [entry], frozen, set(fields), config)
    _keep_for_getattr(linked, frozen)
    entry_point = ast.parse(_ENTRY.format(entry=entry)).body
    linked.body = [ast.Import([ast.alias("sys")]), *_without_sys(linked.body), *entry_point]
    return linked, _replaced(linked, set(fields), frozen)


def _keep_for_getattr(linked: Linked, frozen: dict[str, Any]) -> None:
    """Where settings are read by names that are only known when it runs, Config has all of them."""
    asked = [
        n for s in linked.body for n in walk(s) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "getattr"
    ]
    if any(getattr(n.args[0], "id", getattr(n.args[0], "attr", "")) == "config" for n in asked):
        made = next(s for s in linked.body if linked.origin.get(_name(s)) == ("trainer.config", "Config"))
        made.body += [ast.parse(f"{name} = {value!r}").body[0] for name, value in frozen.items()]  # type: ignore[attr-defined]


def settle(linked: Linked, roots: list[str], frozen: dict[str, Any], fields: set[str], settings: Any) -> None:
    """Work out and drop until nothing changes any more. `roots`: globals that the outside calls; the others are as in `Facts`."""
    for _ in range(_MOST_ROUNDS):
        linked.body, dropped = Reach(linked, roots).pruned()
        facts = Facts(linked, frozen, fields, settings)
        settled = spread(facts) + _empty_rules(facts)
        fold = Fold(facts)
        linked.body = fold.run(linked.body)
        if not dropped + fold.changes + settled:
            return
    raise ExportError(f"the program still changes after {_MOST_ROUNDS} rounds")


def _without_sys(body: list[ast.stmt]) -> list[ast.stmt]:
    return [s for s in body if not (isinstance(s, ast.Import) and [a.name for a in s.names] == ["sys"])]


def _replaced(linked: Linked, fields: set[str], frozen: dict[str, Any]) -> set[str]:
    """Fields that some part of the program gives another value than the settings have."""
    found = set()
    for node in (n for s in linked.body for n in walk(s)):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == "replace":
            for word in node.keywords:
                if word.arg in fields and not (word.arg in frozen and same([value_of(word.value), frozen[word.arg]])):
                    found.add(word.arg)
    return found


def _empty_rules(facts: Facts) -> int:
    """Drop the checks of settings that no open setting can make fail: they passed when the script was exported."""
    check = next(
        (f for n, f in facts.functions.items() if facts.origin[n] == ("trainer.config", "_contradictions")), None
    )
    if check is None:
        return 0
    open_ = facts.fields - facts.frozen.keys() | {"*"}
    kept = [s for s in check.body if not (name := _rule(s)) or name not in facts.functions or facts.reads(name) & open_]
    dropped = len(check.body) - len(kept)
    check.body = kept or ast.parse("def f():\n yield from ()").body[0].body  # type: ignore[attr-defined]
    return dropped


def _rule(statement: ast.stmt) -> str:
    """The function that a `yield from f(...)` names."""
    value = statement.value if isinstance(statement, ast.Expr) else None
    call = value.value if isinstance(value, ast.YieldFrom) else None
    return call.func.id if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) else ""


def _linked(folder: Path, config: Config, changed: set[str]) -> Linked:
    modules = {name: tree for name, tree in read(folder, "trainer").items() if not _AWAY.fullmatch(name)}
    for module, statements in substitutes.by_module().items():
        if module not in modules:
            raise ExportError(f"{module}: no such module, and an export has to replace parts of it")
        _substitute(modules[module], statements, module)
    _settings_module(modules["trainer.config"], config, changed)
    modules["trainer.__main__"].body[:0] = ast.parse(
        "import sys\nfrom trainer.config import SETTINGS\nfrom trainer.score import main as score_alone"
    ).body
    modules["trainer.score"].body[:0] = ast.parse("from trainer.config import OPEN, load").body
    return link(modules, ["trainer.__main__"])


def _substitute(tree: ast.Module, statements: list[ast.stmt], module: str) -> None:
    """Put statements where those of the same names stood; new ones come last."""
    new = {_name(statement): statement for statement in statements}
    for place, old in enumerate(tree.body):
        if _name(old) in new:
            tree.body[place] = new.pop(_name(old))
    tree.body += new.values()


def _name(statement: ast.stmt) -> str:
    if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
        return statement.targets[0].id
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        return statement.target.id
    return getattr(statement, "name", "")


def _settings_module(tree: ast.Module, config: Config, changed: set[str]) -> None:
    """trainer.config with a Config of what is open, and everything else as the values it has."""
    parts = next(s.value for s in tree.body if _name(s) == "_PARTS")  # type: ignore[attr-defined]
    rules = [f"yield from {part.id}.problems(config)" for part in parts.elts if _has_problems(part.id)]
    live = []
    for name, field in fields_by_name().items():
        value = getattr(config, field.name)
        if name in OPEN:
            limits = {key: field.metadata[key] for key in ("low", "high", "choices") if field.metadata[key] is not None}
            more = "".join(f", {key}={limit!r}" for key, limit in limits.items())
            live.append(
                f"{field.name}: int = setting({name!r}, {value!r}, {field.metadata['meaning']!r}, source=''{more})"
            )
        elif field.name in changed:
            live.append(f"{field.name}: int = {value!r}")
    text = f"""
import os
SETTINGS = {config.as_settings()!r}
OPEN = {tuple(name for name in OPEN if name in fields_by_name())!r}
@dataclass(frozen=True, kw_only=True)
class Config:
    {chr(10).join(live).replace(chr(10), chr(10) + "    ")}
    def as_settings(self):
        return SETTINGS | {{n: getattr(self, f.name) for n, f in fields_by_name().items()}}
def _contradictions(config):
    {chr(10).join(rules).replace(chr(10), chr(10) + "    ")}
"""
    made = ast.parse(text).body
    # Written out where the environment is read: who looks for what a script reads finds it there.
    Put({"OPEN": tuple(name for name in OPEN if name in fields_by_name())}).visit(tree)
    tree.body = [s for s in tree.body if _name(s) not in {"_PARTS", "Config", "_contradictions", "SETTINGS"}]
    last = max(i for i, s in enumerate(tree.body) if isinstance(s, ast.Import | ast.ImportFrom))
    tree.body[last + 1 : last + 1] = made


def _has_problems(part: str) -> bool:
    return hasattr(importlib.import_module(f"trainer.options.{part}"), "problems")


def _packages(linked: Linked) -> tuple[str, ...]:
    """Packages that are imported anywhere in a program and are not the standard library's."""
    found = set()
    for node in (n for s in linked.body for n in walk(s)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found |= {name.partition(".")[0] for name in names}
    return tuple(sorted(found - set(sys.stdlib_module_names) - {""}))
