"""`golfctl plan`: what a person types, what is printed, and the exit code."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from golfctl.errors import InputError
from golfctl.store.campaign import Campaign, load
from golfctl.store.init import create
from golfctl.store.revise import new_plan, use_fallback
from tests.golfctl import plankit

GOLFCTL = [sys.executable, "-m", "golfctl"]


@pytest.fixture
def campaign(tmp_path: Path) -> Campaign:
    return plankit.make(tmp_path)


def run(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*GOLFCTL, *words], cwd=root, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.service
def test_plan_commands_work_from_new_to_show(campaign: Campaign) -> None:
    """The life of a plan file in five commands."""
    root = campaign.root
    made = run(root, "plan", "new", "D", "--title", 'Say "more": é 🙂')
    assert (made.returncode, made.stdout.split(" written")[0]) == (0, "plans/D.yaml")
    assert run(root, "plan", "new", "E", "--depends-on", "D").returncode == 0
    checked = run(root, "plan", "check")
    assert (checked.returncode, checked.stdout) == (0, "2 plans checked: no problems\n")
    assert checked.stderr.splitlines()[0] == "note: D: changes nothing: its bundle is that of tiny"
    listed = json.loads(run(root, "plan", "list", "--json").stdout)
    assert [(row["id"], row["depends_on"]) for row in listed] == [("D", []), ("E", ["D"])]
    assert listed[0]["title"] == 'Say "more": é 🙂'
    assert "tiny" in run(root, "plan", "list").stdout
    plankit.plan(campaign, "F", "depends_on: [D]\ndiffs:\n  - set: {WIDTH: 8}\n")
    shown = json.loads(run(root, "plan", "show", "F", "--json").stdout)
    assert shown["stack"] == ["D", "F"]
    assert shown["settings"] == {"WIDTH": {"before": "16", "after": "8", "plan": "F"}}
    assert len(shown["bundle"]) == 64
    assert "set     WIDTH: 16 -> 8   (F)" in run(root, "plan", "show", "F").stdout


@pytest.mark.service
def test_plan_check_prints_every_problem_and_exits_2(campaign: Campaign) -> None:
    """One line each on standard error, nothing on standard output; other plans' problems only when asked for."""
    plankit.plan(campaign, "D", "diffs:\n  - pathch: x\nseeds: [1, 1]\n")
    plankit.plan(campaign, "E", "diffs:\n  - set: {WIDHT: 1}\n")
    plankit.plan(campaign, "ok", "diffs:\n  - set: {WIDTH: 1}\n")
    done = run(campaign.root, "plan", "check")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "plans/D.yaml:5:5 diffs[0].pathch: unknown key; did you mean 'patch'?",
        "plans/D.yaml:6:12 seeds[1]: seed 1 stands twice",
        "plans/E.yaml:5:11 set.WIDHT: tiny does not read this variable; did you mean WIDTH (tiny.py:5)?",
    ]
    assert run(campaign.root, "plan", "check", "ok").returncode == 0
    data = json.loads(run(campaign.root, "plan", "check", "E", "--json").stdout)
    assert (data["ok"], data["problems"][0]["line"]) == (False, 5)
    unknown = run(campaign.root, "plan", "check", "okk")
    assert (unknown.returncode, unknown.stderr) == (2, "okk: no such plan; did you mean 'ok'?\n")


@pytest.mark.service
def test_plan_schema_is_the_file_that_init_writes(tmp_path: Path) -> None:
    """The command needs no campaign; editors get the same text."""
    printed = run(tmp_path, "plan", "schema").stdout
    campaign = create(tmp_path / "golf", "cpu-demo")
    assert printed == (campaign.plans_folder / "plan.schema.json").read_text()
    assert json.loads(printed)["title"] == "PlanFile"


@pytest.mark.service
def test_plan_help_loads_no_pydantic() -> None:
    """The command group is imported by every `golfctl --help`."""
    code = "import sys, golfctl.cli.plan; print([m for m in ('pydantic', 'yaml', 'torch', 'rich') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() in {"[]", "['rich']"}  # typer itself may load rich


def test_new_plan_template_passes_and_its_comments_are_valid(campaign: Campaign) -> None:
    """Uncommenting the template's examples gives a plan that reads, too."""
    (campaign.plans_folder / "plan.schema.json").write_text("{}")
    path = new_plan(campaign, "D", "t", None, [])
    text = path.read_text()
    assert text.startswith("# yaml-language-server: $schema=plan.schema.json\n")
    assert plankit.said(campaign) == []
    lines = [line for line in text.splitlines() if not line.startswith(("# yaml-language", "diffs: []", "#   - patch"))]
    bare = [line.removeprefix("# ") if line.startswith("# ") else line.removeprefix("#") for line in lines]
    bare.insert(next(index for index, line in enumerate(bare) if line.startswith("  - set:")), "diffs:")
    path.write_text("\n".join(bare).replace("NAME: value", "WIDTH: 3") + "\n")
    assert plankit.said(campaign) == []
    plan = campaign.load_plans()[0]["D"]
    assert (plan.seeds, plan.fallback[0].values) == ((1337, 42, 2025), {"WIDTH": "3"})  # type: ignore[union-attr]  # a set


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("D", "t", None, []), r"plans/D\.yaml: exists; choose another id"),
        (("a b", "t", None, []), r"plan id 'a b': must be letters"),
        (("../x", "t", None, []), r"plan id '\.\./x': must be letters"),
        (("tiny", "t", None, []), "is the name of a base"),
        (("E", "t", "tini", []), "--base tini: unknown; did you mean 'tiny'?"),
        (("E", "t", None, ["F"]), "--depends-on F: no such plan"),
        (("E", "", None, []), "title: must not be empty"),
        (("E", "a\nb", None, []), "can't be printed"),
    ],
)
def test_new_plan_refuses(campaign: Campaign, arguments: tuple[str, str, str | None, list[str]], message: str) -> None:
    """Nothing is written, and nothing overwritten."""
    plankit.plan(campaign, "D")
    before = {path: path.read_bytes() for path in campaign.plans_folder.glob("*.yaml")}
    with pytest.raises(InputError, match=message):
        new_plan(campaign, *arguments)
    assert {path: path.read_bytes() for path in campaign.plans_folder.glob("*.yaml")} == before


FALLBACK = """\
# my plan
id: D
title: t   # keep me
hypothesis: |
  Two
  lines.
diffs:
  - set: {WIDTH: 8}
  - set:
      LEARNING_RATE: 1

# about the fallback
fallback:
  set: {WIDTH: 4, LEARNING_RATE: 'on'}
# about seeds
seeds: [4, 5, 6]
"""


def test_fallback_becomes_the_diffs_and_keeps_the_rest(campaign: Campaign) -> None:
    """Comments and order stay, the old text is kept, a second fallback is refused."""
    path = campaign.plans_folder / "D.yaml"
    path.write_text(FALLBACK)
    before = campaign.load_plans()[0]["D"]
    written, kept = use_fallback(campaign, "D")
    assert (written, kept) == (path, campaign.plans_folder / "old" / "D.r1.yaml")
    assert kept.read_text() == FALLBACK
    after = load(campaign.root).load_plans()[0]["D"]
    assert (after.diffs, after.fallback, after.seeds) == (before.fallback, (), (4, 5, 6))
    text = path.read_text()
    assert "# my plan\nid: D\ntitle: t   # keep me\n" in text
    assert (
        '# the fallback of old/D.r1.yaml\ndiffs:\n  - set: {WIDTH: 4, LEARNING_RATE: "on"}\n\n# about the fallback\n'
        in text
    )
    assert text.endswith("# about seeds\nseeds: [4, 5, 6]\n")
    with pytest.raises(InputError, match=r"plans/D\.yaml: declares no `fallback`"):
        use_fallback(campaign, "D")
    path.write_text(FALLBACK)
    assert use_fallback(campaign, "D")[1].name == "D.r2.yaml"


@pytest.mark.parametrize(
    "text",
    [
        "id: D\ntitle: t\nhypothesis: h\nfallback:\n- set: {WIDTH: 4}\n- set: {STEPS: 2}\n",
        "fallback: {set: {WIDTH: 1e-3}}\nid: D\ntitle: t\nhypothesis: h\ndiffs: []",
        "id: D\ntitle: t\nhypothesis: h\ndiffs:\n- set: {WIDTH: 4}\nfallback: [{set: {WIDTH: 'a: b #c'}}]\n",
    ],
)
def test_fallback_handles_other_layouts(campaign: Campaign, text: str) -> None:
    """Lists at the margin, flow style, any order, no final newline."""
    (campaign.plans_folder / "D.yaml").write_text(text)
    before = campaign.load_plans()[0]["D"]
    use_fallback(campaign, "D")
    after = campaign.load_plans()[0]["D"]
    assert (after.diffs, after.fallback) == (before.fallback, ())


def test_fallback_refuses_a_layout_it_can_not_edit(campaign: Campaign) -> None:
    """A whole file in flow style is left as it is."""
    text = "{id: D, title: t, hypothesis: h, fallback: {set: {WIDTH: 4}}}\n"
    (campaign.plans_folder / "D.yaml").write_text(text)
    with pytest.raises(InputError, match=r"plans/D\.yaml:1:34 fallback: is not a block"):
        use_fallback(campaign, "D")
    assert (campaign.plans_folder / "D.yaml").read_text() == text
    assert not (campaign.plans_folder / "old").exists()


@pytest.mark.service
def test_plan_check_of_200_plans_is_quick(tmp_path: Path) -> None:
    """The target is 1.5 s on two slow cores; the bound here only catches a change of order."""
    campaign = create(tmp_path / "golf", "cpu-demo")
    for number in range(200):
        needs = f"depends_on: [p{number - 1}]\n" if number % 4 else ""
        rate = ("MATRIX_LR", "EMBED_LR", "SCALAR_LR", "TABLE_LR")[number % 4]
        plankit.plan(campaign, f"p{number}", f"{needs}diffs:\n  - set: {{{rate}: 0.0{number + 100}}}\n")
    start = time.monotonic()
    done = run(campaign.root, "plan", "check")
    assert done.stdout == "200 plans checked: no problems\n", done.stderr
    assert time.monotonic() - start < 6
