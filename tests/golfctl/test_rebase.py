"""`golfctl plan rebase`: what carries to a new base, what does not and why, and what of a plan's file stays as it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from golfctl.errors import InputError, InputErrors
from golfctl.store import bases, rewrite
from golfctl.store.campaign import Campaign, load
from golfctl.store.planfile import read_plan
from golfctl.store.rebase import CARRIED, LEFT, OWN, rebase
from tests.golfctl import plankit
from tests.golfctl.campaigns import golfctl

# Another name, lines above, one default changed, one variable renamed, one line of train() changed.
NEW = (
    plankit.SCRIPT.replace("import os\n", "import os\nimport sys\n\nDEPTH = int(os.environ.get('DEPTH', 2))\n")
    .replace('"LEARNING_RATE", "0.1"', '"LEARNING_RATE", "0.2"')
    .replace('"WIDTH"', '"MODEL_WIDTH"')
    .replace("print(step, RATE, WIDTH)", "print(step, RATE, WIDTH, DEPTH, file=sys.stderr)")
)
PLAN = """\
# the plan
id: D
title: t   # a title
hypothesis: |
  Two
  lines.
base: tiny
diffs:
  # the rate
  - set: {LEARNING_RATE: 0.3, STEPS: 50}  # both
  - patch: patches/D.patch
seeds: [4, 5, 6]  # mine
"""


@pytest.fixture
def campaign(tmp_path: Path) -> Campaign:
    made = plankit.make(tmp_path)
    script = tmp_path / "newer.py"
    script.write_text(NEW)
    bases.freeze_script(made, "newer", script, score_label="final")
    return load(made.root)


def write_plan(campaign: Campaign, text: str = PLAN, name: str = "D") -> Path:
    path = campaign.plans_folder / f"{name}.yaml"
    path.write_text(text)
    return path


def patch_score(campaign: Campaign, name: str = "D", value: str = "0.5") -> str:
    """A change of a function that both bases hold alike."""
    return plankit.patch(
        campaign, name, plankit.SCRIPT, plankit.SCRIPT.replace("    return 1.0\n", f"    return {value}\n")
    )


def patch_print(campaign: Campaign, name: str = "D") -> str:
    """A change of the line that the new base changed, too."""
    return plankit.patch(campaign, name, plankit.SCRIPT, plankit.SCRIPT.replace("RATE, WIDTH)", "WIDTH, RATE)"))


def contents(campaign: Campaign) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in campaign.plans_folder.rglob("*") if path.is_file()}


def outcomes(campaign: Campaign, plan: str = "D") -> dict[str, str]:
    return {item.what: item.outcome for item in rebase(campaign, plan, "newer").items}


def test_rebase_carries_settings_and_a_patch_to_a_script_of_another_name(campaign: Campaign) -> None:
    """Comments and layout stay, the former text and patch are kept, and the plan passes the check on its new base."""
    path = write_plan(campaign)
    patch = campaign.plans_folder / patch_score(campaign)
    former = patch.read_bytes()
    before = contents(campaign)
    found = rebase(campaign, "D", "newer")
    assert [(item.what, item.outcome) for item in found.items] == [
        ("patches/D.patch", CARRIED),
        ("LEARNING_RATE=0.3", CARRIED),
        ("STEPS=50", CARRIED),
    ]
    assert contents(campaign) == before  # working it out writes nothing
    _, kept = rewrite.write(campaign, found)
    assert (kept.name, kept.read_text(), patch.read_bytes()) == ("D.r1.yaml", PLAN, former)
    wanted = PLAN.replace("base: tiny", "# rebased from tiny; before: old/D.r1.yaml\nbase: newer").replace(
        "patches/D.patch", "patches/D.newer.patch"
    )
    assert path.read_text() == wanted
    assert plankit.said(campaign) == []
    assert "+    return 0.5" in (campaign.plans_folder / "patches/D.newer.patch").read_text()


def test_rebase_keeps_a_patch_that_applies_as_it_is(tmp_path: Path) -> None:
    """Between bases of one file name the plan's own patch is not written anew without need."""
    campaign = plankit.make(tmp_path)
    script = tmp_path / "v2" / "tiny.py"
    script.parent.mkdir()
    script.write_text(plankit.SCRIPT.replace('"STEPS", 100', '"STEPS", 200'))
    bases.freeze_script(campaign, "newer", script, score_label="final")
    write_plan(campaign)
    patch_score(campaign)
    found = rebase(campaign, "D", "newer")
    assert (found.patches, found.after.diffs[1]) == ({}, found.before.diffs[1])


def test_rebase_drops_what_has_become_the_bases_own(campaign: Campaign) -> None:
    """A default that is now the plan's value (0.2 and 2e-1 are one), and a patch that the new base holds already."""
    name = plankit.patch(
        campaign,
        "D",
        plankit.SCRIPT,
        plankit.SCRIPT.replace('"LEARNING_RATE", "0.1"', '"LEARNING_RATE", "0.2"'),
    )
    write_plan(
        campaign, f"{plankit.PLAN.format(id='D')}base: tiny\ndiffs:\n- set: {{LEARNING_RATE: 2e-1}}\n- patch: {name}\n"
    )
    found = rebase(campaign, "D", "newer")
    assert {item.outcome for item in found.items} == {OWN}
    assert found.items[1].detail == "newer.py:7: newer has this value by itself now; dropped"
    rewrite.write(campaign, found)
    assert load(campaign.root).load_plans()[0]["D"].diffs == ()


def test_rebase_keeps_a_setting_that_overrides_its_dependency(campaign: Campaign) -> None:
    """The value equals the new base's default, but the plan below sets another: it still changes something."""
    write_plan(campaign, f"{plankit.PLAN.format(id='A')}base: newer\ndiffs:\n- set: {{LEARNING_RATE: 0.9}}\n", "A")
    old = f"{plankit.PLAN.format(id='A')}base: tiny\ndiffs:\n- set: {{LEARNING_RATE: 0.9}}\n"
    (campaign.plans_folder / "old").mkdir()
    (campaign.plans_folder / "old" / "A.r1.yaml").write_text(old)
    write_plan(
        campaign,
        f"{plankit.PLAN.format(id='D')}base: tiny\ndepends_on: [A]\ndiffs:\n- set: {{LEARNING_RATE: 0.2}}\n",
    )
    assert outcomes(campaign) == {"LEARNING_RATE=0.2": CARRIED}


@pytest.mark.service
def test_rebase_shows_what_does_not_carry_and_changes_nothing(campaign: Campaign) -> None:
    """A setting with what was meant, a conflict with its lines; exit 1, and every file as it was."""
    write_plan(campaign, PLAN.replace("STEPS: 50", "WIDTH: 8"))
    patch_print(campaign)
    before = contents(campaign)
    done = golfctl(campaign.root, "plan", "rebase", "D", "--base", "newer", expect=1)
    assert "WIDTH=8   does not carry: newer does not read this variable; did you mean MODEL_WIDTH (newer.py:8)?" in (
        done.stdout
    )
    assert "newer.py:17: both changed these lines" in done.stdout
    assert "newer|         print(step, RATE, WIDTH, DEPTH, file=sys.stderr)" in done.stdout
    assert "D|         print(step, WIDTH, RATE)" in done.stdout
    assert done.stderr.startswith("D: 2 parts of it do not carry to newer; nothing was changed.")
    assert contents(campaign) == before
    data = json.loads(
        golfctl(campaign.root, "plan", "rebase", "D", "--base", "newer", "--dry-run", "--json", expect=1).stdout
    )
    assert (data["carries"], data["written"], len(data["parts"])) == (False, False, 3)


def test_rebase_place_of_a_conflict_is_a_line_of_the_new_base(campaign: Campaign) -> None:
    """Also below lines that the plan itself adds."""
    changed = plankit.SCRIPT.replace("def seed():", "def added():\n    pass\n\n\ndef seed():").replace(
        "RATE, WIDTH)", "WIDTH, RATE)"
    )
    plankit.patch(campaign, "D", plankit.SCRIPT, changed)
    write_plan(campaign)
    (conflict,) = rebase(campaign, "D", "newer").items[0].conflicts
    assert NEW.splitlines()[conflict.line - 1] == conflict.here[0]


@pytest.mark.service
def test_rebase_partial_leaves_out_and_says_so_in_the_file(campaign: Campaign) -> None:
    """The parts that carry are kept, also the other hunks of a patch; comments in the file name the rest."""
    both = plankit.SCRIPT.replace("RATE, WIDTH)", "WIDTH, RATE)").replace("    return 1.0\n", "    return 0.5\n")
    plankit.patch(campaign, "D", plankit.SCRIPT, both)
    path = write_plan(campaign, PLAN.replace("STEPS: 50", "WIDTH: 8"))
    done = golfctl(campaign.root, "plan", "rebase", "D", "--base", "newer", "--partial")
    assert "plans/D.yaml now builds on newer; before: plans/old/D.r1.yaml" in done.stdout
    text = path.read_text()
    assert "# left out: diffs: WIDTH=8: newer does not read this variable" in text
    assert "# left out: diffs: patches/D.patch: newer.py:17 both changed these lines" in text
    assert "  # the rate\n  - set: {LEARNING_RATE: 0.3}  # both\n" in text
    new = (campaign.plans_folder / "patches/D.newer.patch").read_text()
    assert "return 0.5" in new
    assert "print(step, WIDTH, RATE)" not in new
    assert plankit.said(campaign) == []


def test_rebase_of_a_stack_goes_from_below(campaign: Campaign) -> None:
    """The dependency first; then a patch on top of the dependency's patch carries, against the form that was kept."""
    write_plan(
        campaign, f"{plankit.PLAN.format(id='A')}base: tiny\ndiffs:\n- patch: {patch_score(campaign, 'A')}\n", "A"
    )
    below = plankit.SCRIPT.replace("    return 1.0\n", "    return 0.5\n")
    name = plankit.patch(campaign, "D", below, below.replace("return 0.5", "return 0.5 + 0.1"))
    write_plan(campaign, f"{plankit.PLAN.format(id='D')}base: tiny\ndepends_on: [A]\ndiffs:\n- patch: {name}\n")
    with pytest.raises(
        InputError, match=r"D: depends on A, which builds on tiny; rebase that first: golfctl plan rebase A"
    ):
        rebase(campaign, "D", "newer")
    rewrite.write(campaign, rebase(campaign, "A", "newer"))
    rewrite.write(campaign, rebase(load(campaign.root), "D", "newer"))
    assert plankit.said(campaign) == []
    assert "return 0.5 + 0.1" in (campaign.plans_folder / "patches/D.newer.patch").read_text()


@pytest.mark.parametrize(
    "text",
    [
        "id: D\ntitle: t\nhypothesis: h\nbase: tiny\ndiffs:\n- set:\n    WIDTH: 8\n    STEPS: 5\n- set: {WIDTH: 9}\n",
        "id: D\ntitle: t\nhypothesis: h\nbase: 'tiny'\ndiffs: [{set: {WIDTH: 8, STEPS: 5}}]\nfallback: {set: {WIDTH: 4}}\n",
        'id: D\ntitle: t\nhypothesis: h\ndiffs:\n  - set: {WIDTH: \'8\', "STEPS": "5", }\nfallback:\n- set: {STEPS: 6, WIDTH: 1}',
        "id: D\ntitle: t\nhypothesis: h\ndiffs:\n- {set: {WIDTH: 8}}\n\n# more\ngates:\n  2: {env: {WIDTH: 3, STEPS: 7}}\n",
    ],
)
def test_rebase_partial_handles_other_layouts(campaign: Campaign, text: str) -> None:
    """Block and flow style, quotes, one item or several: the file reads as what was worked out."""
    path = write_plan(campaign, text)
    found = rebase(campaign, "D", "newer")
    assert {item.outcome for item in found.items if "WIDTH" in item.what} == {LEFT}
    rewrite.write(campaign, found)
    plan = read_plan(path.read_bytes(), "plans/D.yaml", load(campaign.root).context())[0]
    assert plan == found.after
    assert plan.base == "newer"
    assert "WIDTH" not in str((plan.diffs, plan.fallback, plan.gates))


def test_rebase_refuses_a_layout_it_can_not_edit(campaign: Campaign) -> None:
    """A whole file in flow style is left as it is."""
    text = "{id: D, title: t, hypothesis: h, base: tiny, diffs: [{set: {STEPS: 4}}]}\n"
    path = write_plan(campaign, text)
    with pytest.raises(InputErrors, match="its layout can't be edited safely; write `base: newer`"):
        rewrite.write(campaign, rebase(campaign, "D", "newer"))
    assert path.read_text() == text
    assert not (campaign.plans_folder / "old").exists()


def test_rebase_refuses_the_same_and_an_unknown_base(campaign: Campaign) -> None:
    """And a plan that does not exist."""
    write_plan(campaign, PLAN.replace("  - patch: patches/D.patch\n", ""))
    with pytest.raises(InputError, match="D: builds on tiny already"):
        rebase(campaign, "D", "tiny")
    with pytest.raises(InputError, match="base 'newr': unknown; did you mean 'newer'"):
        rebase(campaign, "D", "newr")
    with pytest.raises(InputError, match="E: no such plan"):
        rebase(campaign, "E", "newer")


def test_rebase_reports_files_that_are_gone_or_taken(tmp_path: Path) -> None:
    """A patch that adds a file the new base has in another form does not carry; one that adds its own does."""
    from golfctl.store.threeway import carry
    from golfctl.store.tree import Entry, Tree

    before, mine = Tree({"a.py": Entry(b"1\n")}), Entry(b"mine\n")
    after = Tree({"a.py": Entry(b"1\n"), "b.py": mine})
    found = carry(before, after, Tree({"a.py": Entry(b"1\n"), "b.py": Entry(b"theirs\n")}), {})
    assert [(item.file, item.line) for item in found.conflicts] == [("b.py", 0)]
    assert carry(before, after, before, {}).tree.files["b.py"] == mine
    gone = carry(before, Tree({"a.py": Entry(b"2\n")}), Tree({"c.py": Entry(b"3\n")}), {})
    assert gone.conflicts[0].reason == "the plan changes this file, and it is not here"
    deleted = carry(after, before, Tree({"a.py": Entry(b"1\n"), "b.py": Entry(b"theirs\n")}), {})
    assert deleted.conflicts[0].reason == "the plan deletes this file, and it is another here"
    assert "b.py" not in carry(after, before, after, {}).tree.files


def test_carry_of_random_changes_loses_nothing() -> None:
    """To its own ground a change carries whole; where it is already, nothing is left to do; apart, both sides stand."""
    import random

    from golfctl.store.threeway import carry
    from golfctl.store.tree import Entry, Tree

    def tree(lines: list[str]) -> Tree:
        return Tree({"a.py": Entry("".join(f"{line}\n" for line in lines).encode())})

    draw = random.Random(5)
    for _ in range(25):
        lines = [f"line {draw.randrange(30)}" for _ in range(40)]
        changed = [line if draw.random() < 0.8 else f"new {draw.randrange(9)}" for line in lines[:20]]
        changed = [line for line in changed if draw.random() < 0.95]
        before, after = tree(lines), tree(changed + lines[20:])
        for ground in (before, after):
            merged = carry(before, after, ground, {})
            assert (merged.tree, merged.conflicts) == (after, ())
        far = tree([*lines, "", "more"])
        merged = carry(before, after, far, {})
        assert (merged.tree, merged.conflicts) == (tree([*changed, *lines[20:], "", "more"]), ())


def test_carry_counts_only_lines_that_both_changed_as_a_conflict() -> None:
    """Neighbouring settings are none; two values for one are, at that line."""
    from golfctl.store.threeway import carry
    from golfctl.store.tree import Entry, Tree

    def tree(text: str) -> Tree:
        return Tree({"a.py": Entry(text.encode())})

    merged = carry(tree("a = 1\nb = 2\n"), tree("a = 9\nb = 2\n"), tree("a = 1\nb = 7\n"), {})
    assert (merged.tree, merged.conflicts) == (tree("a = 9\nb = 7\n"), ())
    merged = carry(tree("a = 1\nb = 2\n"), tree("a = 9\nb = 8\n"), tree("a = 1\nb = 7\n"), {})
    assert merged.tree == tree("a = 9\nb = 7\n")
    assert [(item.line, item.here, item.wanted) for item in merged.conflicts] == [(2, ("b = 7",), ("b = 8",))]


def test_rebase_of_a_trainer_plan_checks_values_and_settings_together(tmp_path: Path) -> None:
    """What the new base takes one by one and not together does not carry, and what is wrong is said."""
    from golfctl.store.init import create

    campaign = create(tmp_path / "golf", "cpu-demo")
    bases.freeze_trainer(campaign, "odd", {"NUM_HEADS": "6", "NUM_KV_HEADS": "3", "MODEL_DIM": "96"})
    plankit.plan(campaign, "D", "base: tiny-bytes\ndiffs:\n  - set: {MLP_MULT: 3.0}\n")
    plankit.plan(campaign, "E", "base: tiny-bytes\ndiffs:\n  - set: {MODEL_DIM: 128}\n")
    assert {item.outcome for item in rebase(campaign, "D", "odd").items} == {CARRIED}
    (left,) = rebase(campaign, "E", "odd").left
    assert (left.what, left.outcome) == ("settings together", LEFT)
    assert "MODEL_DIM" in left.detail
