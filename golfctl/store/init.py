"""Making a campaign from a preset."""

from __future__ import annotations

import json
import shutil
import tempfile
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from golfctl.errors import InputError, InputErrors
from golfctl.store import bases, campaign, marks
from golfctl.store.campaign import Campaign
from golfctl.store.schema import plan_schema

SCHEMA_FILE = "plan.schema.json"
GITIGNORE = ".gitignore"
_IGNORED = """\
.golfctl/
hosts.yaml
experiments/runs/*/artifact.golf
*.tmp
"""
_FAILURES = """\
# Failures

What was tried and did not work: who, what happened, the numbers, and why. golfctl appends entries; what a person wrote is
never changed.
"""


def presets() -> dict[str, Traversable]:
    """Preset name to its folder."""
    found = files("golfctl") / "presets"
    return {item.name: item for item in found.iterdir() if item.is_dir() and (item / campaign.GOLF).is_file()}


def create(folder: Path, preset: str, plans: Path | None = None) -> Campaign:
    """Make a campaign in `folder` from a preset, with the plan files of `plans` copied in.

    All or nothing: everything is made in a temporary folder beside it and moved. An existing folder is used if nothing in it
    would be overwritten (its own .gitignore is kept). Raises InputError(s): unknown preset, a campaign is there already,
    wrong plan files.
    """
    known = presets()
    if preset not in known:
        raise InputError(f"preset {preset!r}: unknown{marks.did_you_mean(preset, known)}")
    if plans is not None and not plans.is_dir():
        raise InputError(f"{plans}: is not a folder of plan files")
    target = folder.absolute()
    if (target / campaign.GOLF).exists():
        raise InputError(f"{folder}: holds a campaign already ({campaign.GOLF}); choose another folder")
    if target.exists() and not target.is_dir():
        raise InputError(f"{folder}: exists and is not a folder")
    if not target.parent.is_dir():
        raise InputError(f"{folder.parent}: does not exist; make it first")
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as temporary:
        made = Path(temporary) / "campaign"
        made.mkdir(mode=0o755)
        _fill(made, target.name, known[preset], plans)
        _settle(made, target, folder)
    return campaign.load(target)


def _fill(made: Path, name: str, preset: Traversable, plans: Path | None) -> None:
    for part in ("plans", "bases", "experiments"):
        (made / part).mkdir()
    (made / campaign.GOLF).write_bytes((preset / campaign.GOLF).read_bytes())
    (made / "failures.md").write_text(_FAILURES, encoding="utf-8")
    (made / GITIGNORE).write_text(_IGNORED, encoding="utf-8")
    (made / "plans" / SCHEMA_FILE).write_text(schema_text(), encoding="utf-8")
    (made / "experiments" / ".gitkeep").write_bytes(b"")
    base = preset / "base.yaml"
    if base.is_file():
        document = marks.read(base.read_bytes(), f"{preset.name}/base.yaml")
        settings = {key: str(value) for key, value in document.value.get("settings", {}).items()}
        # The base is frozen before golf.yaml, which names it, can be loaded: a stand-in carries the paths.
        bases.freeze_trainer(_stand_in(made), str(document.value["name"]), settings)
    if plans is not None:
        _copy_plans(plans, made / "plans")
    problems = campaign.load(made).load_plans()[1]
    if problems:
        raise InputErrors(problems)


def _stand_in(root: Path) -> Campaign:
    from golfctl.domain.rules import Rules

    return Campaign(root, root.name, "", "", "local", (), Rules(), {}, {})


def _copy_plans(source: Path, target: Path) -> None:
    for pattern in ("*.yaml", "patches/*.patch"):
        for path in sorted(source.glob(pattern)):
            if path.is_file():
                place = target / path.relative_to(source)
                place.parent.mkdir(exist_ok=True)
                shutil.copyfile(path, place)


def _settle(made: Path, target: Path, said: Path) -> None:
    """Move the finished campaign to its place."""
    if not target.exists():
        made.rename(target)
        return
    items = [path for path in sorted(made.rglob("*")) if path.is_file()]
    items.sort(key=lambda path: path.name == campaign.GOLF)  # last: a folder without golf.yaml is no campaign yet
    for path in items:
        place = target / path.relative_to(made)
        if place.exists() and place.name not in {GITIGNORE, ".gitkeep"}:
            raise InputError(f"{said / path.relative_to(made)}: exists; nothing was written. Use an empty folder")
    for path in items:
        place = target / path.relative_to(made)
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            path.rename(place)


def schema_text() -> str:
    """The JSON Schema of plan files as a file."""
    return json.dumps(plan_schema(), indent=2, ensure_ascii=False) + "\n"
