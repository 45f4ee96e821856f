"""Bundles: what a stack freezes to, what its settings are checked against, and what lies on the disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from golfctl.errors import InputError
from golfctl.store import bases, bundle
from golfctl.store.campaign import Campaign, load
from golfctl.store.init import create
from golfctl.store.tree import Entry, Tree, pack
from tests.golfctl import plankit

NEW = plankit.SCRIPT.replace("WIDTH = int", 'NUM_BLOCKS = int(os.environ.get("NUM_BLOCKS", 2))\nWIDTH = int')


@pytest.fixture
def campaign(tmp_path: Path) -> Campaign:
    return plankit.make(tmp_path)


def resolve(campaign: Campaign, name: str) -> bundle.ResolvedPlan:
    plans, problems = campaign.load_plans()
    assert problems == []
    return bundle.resolve(campaign, plans, name)


def test_bundle_holds_the_stack_and_its_settings(campaign: Campaign) -> None:
    """Dependencies first, each once; the parent is the last dependency, else the base."""
    plankit.plan(campaign, "D", "diffs:\n  - set: {WIDTH: 8}\n")
    plankit.plan(campaign, "E", "depends_on: [D]\ndiffs:\n  - set: {LEARNING_RATE: 1e-3}\n")
    plankit.plan(campaign, "F", "depends_on: [D, E]\nseeds: [7, 8, 9]\ngates: {3: {looks: 2}}\n")
    plan = resolve(campaign, "F")
    assert (plan.stack, plan.parent) == (("D", "E", "F"), "E")
    assert plan.parent_bundle == plan.bundle == resolve(campaign, "E").bundle
    assert plan.base_bundle == resolve(campaign, "D").parent_bundle
    assert (plan.seeds, plan.gate(3).looks, plan.gate(1).looks) == ((7, 8, 9), 2, 1)
    assert bundle.settings_of(campaign, plan.bundle) == {"WIDTH": "8", "LEARNING_RATE": "1e-3"}
    assert bundle.code_bytes_of(campaign, plan.bundle, bases.load(campaign, "tiny")) == len(plankit.SCRIPT)


def test_bundle_planning_writes_nothing(campaign: Campaign) -> None:
    """A plan can be resolved on a read-only disk."""
    plankit.plan(campaign, "D", "diffs:\n  - set: {WIDTH: 8}\n")
    before = sorted(campaign.root.rglob("*"))
    resolve(campaign, "D")
    assert sorted(campaign.root.rglob("*")) == before


def test_bundle_archive_is_written_once_and_verified(campaign: Campaign) -> None:
    """The same content is stored once; damage is found when it is read."""
    plankit.plan(campaign, "D", "diffs:\n  - set: {WIDTH: 8}\n")
    sha = resolve(campaign, "D").bundle
    path = bundle.archive_of(campaign, sha)
    assert path == campaign.bundles_folder / f"{sha}.tar.gz"
    first = (path.stat().st_mtime_ns, path.read_bytes())
    assert bundle.archive_of(campaign, sha) == path
    assert (path.stat().st_mtime_ns, path.read_bytes()) == first
    assert [item.name for item in campaign.bundles_folder.iterdir()] == [path.name]
    path.write_bytes(pack(Tree({"tiny.py": Entry(b"other")})))
    with pytest.raises(InputError, match=rf"experiments/bundles/{sha}\.tar\.gz: holds other code than its name says"):
        bundle.archive_of(campaign, sha)
    with pytest.raises(InputError, match="is neither in experiments/bundles nor made by a current plan"):
        bundle.archive_of(campaign, "0" * 64)


def test_bundle_hash_depends_on_content_alone(campaign: Campaign) -> None:
    """Title, order of keys and comments do not matter; a value does; so does the digest for seeds and gates."""
    plankit.plan(campaign, "D", "diffs:\n  - set: {WIDTH: 8, STEPS: 7}\n")
    plankit.plan(campaign, "E", "tags: [x]\ndiffs:\n  - set: {STEPS: 7}\n  # why\n  - set: {WIDTH: 8}\n")
    plankit.plan(campaign, "F", "diffs:\n  - set: {WIDTH: 9, STEPS: 7}\n")
    plankit.plan(campaign, "G", "diffs:\n  - set: {WIDTH: 8, STEPS: 7}\nseeds: [4, 5, 6]\n")
    d, e, f, g = (resolve(campaign, name) for name in "DEFG")
    assert d.bundle == e.bundle == g.bundle != f.bundle
    assert d.digest == e.digest
    assert len({d.digest, f.digest, g.digest}) == 3


def test_bundle_checks_setting_names_against_the_code(campaign: Campaign) -> None:
    """A misspelt variable names the one the script reads, and where."""
    plankit.plan(campaign, "D", "diffs:\n  - set: {WIDHT: 8, STEPS: 3}\ngates: {1: {env: {LR: 1}}}\n")
    found = plankit.said(campaign)
    assert found == [
        "plans/D.yaml:5:11 set.WIDHT: tiny does not read this variable; did you mean WIDTH (tiny.py:5)?",
        "plans/D.yaml:6:19 gates.1.env.LR: tiny does not read this variable",
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("SEED", "set.SEED: golfctl sets it for every run; write `seeds:`"),
        ("OUT_DIR", "set.OUT_DIR: the host sets it for every run"),
        ("DATA_PATH", "set.DATA_PATH: the host sets it: a plan does not choose the text it is judged on"),
        ("RANK", "set.RANK: the launcher sets it for every process"),
    ],
)
def test_bundle_refuses_variables_that_are_not_a_plans(campaign: Campaign, name: str, message: str) -> None:
    """Seeds, folders and data belong to golfctl and the host."""
    plankit.plan(campaign, "D", f"diffs:\n  - set: {{{name}: 8}}\n")
    assert plankit.said(campaign) == [f"plans/D.yaml:5:11 {message}"]


@pytest.mark.service
def test_bundle_knows_a_variable_that_the_plans_own_patch_brings(campaign: Campaign) -> None:
    """Names are checked in the patched code; without the patch the same name is refused."""
    patch = plankit.patch(campaign, "depth", plankit.SCRIPT, NEW)
    plankit.plan(campaign, "D", f"diffs:\n  - patch: {patch}\n  - set: {{NUM_BLOCKS: 4}}\n")
    plan = resolve(campaign, "D")
    tree = bundle.tree_of(campaign, plan.bundle)
    assert tree.files["tiny.py"].content.decode() == NEW
    assert json.loads(tree.files["settings.json"].content) == {"NUM_BLOCKS": "4"}
    plankit.plan(campaign, "E", "diffs:\n  - set: {NUM_BLOCKS: 4}\n")
    assert plankit.said(campaign) == ["plans/E.yaml:5:11 set.NUM_BLOCKS: tiny does not read this variable"]


@pytest.mark.service
def test_bundle_with_a_patch_that_does_not_apply_stops(campaign: Campaign) -> None:
    """The hunk is named; the broken code is never frozen."""
    text = plankit.SCRIPT.replace("import os", "import sys")
    patch = plankit.patch(
        campaign, "bad", text, text.replace("def train", "def traim").replace("import sys", "import re")
    )
    plankit.plan(campaign, "D", f"diffs:\n  - patch: {patch}\n")
    assert plankit.said(campaign) == [
        "plans/patches/bad.patch:3:1 does not apply: the code reads differently at tiny.py:1; nothing was changed"
    ]


@pytest.mark.service
def test_bundle_that_is_no_python_any_more_is_said(campaign: Campaign) -> None:
    """A patch may apply and still break the script: found before money is spent."""
    patch = plankit.patch(campaign, "syntax", plankit.SCRIPT, plankit.SCRIPT.replace("def train():", "def train(:"))
    plankit.plan(campaign, "D", f"diffs:\n  - patch: {patch}\n")
    (found,) = plankit.said(campaign)
    assert found.startswith("plans/D.yaml") and "tiny.py:12: not Python" in found


def test_trainer_settings_are_checked_as_the_trainer_would(tmp_path: Path) -> None:
    """Range, kind, choices, and settings that are impossible together, also under a gate's own settings."""
    campaign = create(tmp_path / "golf", "cpu-demo")
    lines = "diffs:\n  - set:\n      NUM_LAYERS: 0\n      MODEL_DIN: 64\n      MATRIX_BITS: 7\n      COMPILE: maybe\n"
    plankit.plan(campaign, "D", lines)
    found = plankit.said(campaign)
    assert found[0] == "plans/D.yaml:6:19 set.NUM_LAYERS: 0: must be at least 1"
    assert found[1].startswith(
        "plans/D.yaml:7:7 set.MODEL_DIN: tiny-bytes does not read this variable; did you mean MODEL_DIM"
    )
    assert found[2] == "plans/D.yaml:8:20 set.MATRIX_BITS: 7: allowed are 2, 4, 5, 6, 8, 16"
    assert found[3] == "plans/D.yaml:9:16 set.COMPILE: 'maybe': not a switch (1 or 0)"
    plankit.plan(campaign, "D", "diffs:\n  - set: {MODEL_DIM: 130}\ngates: {1: {env: {ITERATIONS: many}}}\n")
    assert plankit.said(campaign) == [
        "plans/D.yaml:6:31 gates.1.env.ITERATIONS: 'many': not a whole number",
    ]
    plankit.plan(campaign, "D", "diffs:\n  - set: {MODEL_DIM: 130}\n")
    assert plankit.said(campaign) == [
        "plans/D.yaml:5:3 diffs: MODEL_DIM=130 is not divisible by NUM_HEADS=4",
    ]


@pytest.mark.service
def test_trainer_patch_may_bring_a_setting_with_limits(tmp_path: Path) -> None:
    """The frozen code's own declaration is the law, not the installed trainer's."""
    campaign = create(tmp_path / "golf", "cpu-demo")
    before = bases.load(campaign, "tiny-bytes").tree.files["trainer/options/model.py"].content.decode()
    anchor = '    """Part of trainer.config.Config."""\n'
    assert anchor in before
    after = before.replace(
        anchor, anchor + '    tricks: int = setting("TRICKS", 1, "m", source=FIELD, low=0, high=3)\n'
    )
    patch = plankit.patch(campaign, "tricks", before, after, "trainer/options/model.py")
    plankit.plan(campaign, "D", f"diffs:\n  - patch: {patch}\n  - set: {{TRICKS: 2}}\n")
    assert plankit.said(campaign) == []
    plankit.plan(campaign, "D", f"diffs:\n  - patch: {patch}\n  - set: {{TRICKS: 9}}\n")
    assert plankit.said(campaign) == ["plans/D.yaml:6:19 set.TRICKS: 9: must be between 0 and 3"]


def test_golf_yaml_gate_settings_are_checked_against_the_base(campaign: Campaign) -> None:
    """A misspelt ITERATIONS in a gate would run the full length everywhere."""
    (campaign.root / "golf.yaml").write_text(plankit.GOLF.replace("STEPS", "STEPZ"))
    assert plankit.said(load(campaign.root)) == [
        "golf.yaml:5:43 gates.1.env.STEPZ: tiny does not read this variable; did you mean STEPS (tiny.py:3)?"
    ]


def test_bundle_that_can_not_be_written_raises_the_systems_error(campaign: Campaign) -> None:
    """The command line turns it into one line and exit 3; no half archive is left."""
    plankit.plan(campaign, "D", "diffs:\n  - set: {WIDTH: 8}\n")
    sha = resolve(campaign, "D").bundle
    campaign.bundles_folder.write_text("in the way")
    with pytest.raises(OSError, match="File exists"):
        bundle.archive_of(campaign, sha)
    assert [path.name for path in campaign.experiments_folder.iterdir()] == ["bundles"]
