"""Campaigns: found from anywhere inside, checked as strictly as plans, made from presets all or nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from golfctl.domain.gate import Kind
from golfctl.errors import InputError, InputErrors
from golfctl.store import bases
from golfctl.store.campaign import find, load
from golfctl.store.init import create, presets
from tests.golfctl import plankit


def test_campaign_is_found_from_any_folder_inside(tmp_path: Path) -> None:
    """A person may stand in plans/patches."""
    plankit.make(tmp_path)
    assert find(tmp_path / "plans" / "patches").root == tmp_path.resolve()


def test_campaign_missing_says_how_to_make_one(tmp_path: Path) -> None:
    """The remedy is in the message."""
    with pytest.raises(InputError, match=r"no golf\.yaml here or above; make a campaign with `golfctl init DIR`"):
        find(tmp_path)


def test_campaign_reads_rules_gates_and_hosts(tmp_path: Path) -> None:
    """Defaults fill what golf.yaml leaves out; the last gate takes the rules' alpha."""
    campaign = plankit.make(tmp_path, plankit.GOLF + "rules: {alpha: 0.02}\nbudget: {usd: 12.5}\n")
    assert (campaign.name, campaign.base_name, campaign.seeds) == ("kit", "tiny", (1, 2, 3))
    assert (campaign.gates[2].kind, campaign.gates[2].alpha, campaign.gates[3].alpha) == (Kind.VERSUS, 0.10, 0.02)
    assert campaign.gates[1].env == {"STEPS": "5"}
    assert campaign.rules.artifact_cap_bytes == 16_000_000
    assert campaign.budget.usd == 12.5
    assert campaign.hosts["local"].root == str(tmp_path / ".golfctl" / "host")
    assert campaign.ledger_folder == tmp_path / "experiments" / "ledger"


def test_campaign_hosts_file_overrides_golf_yaml(tmp_path: Path) -> None:
    """Addresses and prices of a person's machines stay out of the shared file."""
    plankit.make(tmp_path, plankit.GOLF + "hosts: {box: {kind: local, slots: 1, root: here}}\n")
    (tmp_path / "hosts.yaml").write_text("box: {kind: local, slots: 4, usd_per_hour: 2.7, root: /data/golf}\n")
    box = load(tmp_path).hosts["box"]
    assert (box.slots, box.usd_per_hour, box.root) == (4, 2.7, "/data/golf")
    (tmp_path / "hosts.yaml").write_text("box: {slotz: 4}\n")
    assert plankit.refusals(load, tmp_path) == ["hosts.yaml:1:7 box.slotz: unknown key; did you mean 'slots'?"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("base: tiny", "base: tinyy"), "golf.yaml:2:7 base: unknown base 'tinyy'; did you mean 'tiny'?"),
        (("base: tiny", "host: pod"), "golf.yaml:2:7 host: unknown host 'pod'; allowed are local"),
        (("name: kit", "nam: kit"), "golf.yaml:1:1 nam: unknown key; did you mean 'name'?"),
        (("seeds: [1, 2, 3]", "seeds: [1]"), "golf.yaml:7:44 gates.3.seeds: gate 3 needs 3 seeds, 1 are declared"),
        (("kind: versus", "kind: verses"), "golf.yaml:6:25 gates.2.kind: must be 'threshold' or 'versus', is 'verses'"),
        (("  2: {", "  5: {"), "golf.yaml:5:3 gates: are numbered 1, 3, 5; they must be 1 to 3"),
        (("STEPS: 5", "STEPS: [5]"), "golf.yaml:5:50 gates.1.env.STEPS: is a list; a setting is one value"),
        (("'<= 400'", "400"), "golf.yaml:5:77 gates.1.require.step_avg_ms: has no comparison; write '<= 400'"),
    ],
)
def test_campaign_marks_mistakes_in_golf_yaml(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    """golf.yaml has the error quality of a plan."""
    plankit.make(tmp_path)
    text = plankit.GOLF.replace('"', "'")
    assert change[0] in text
    (tmp_path / "golf.yaml").write_text(text.replace(*change))
    found = plankit.refusals(load, tmp_path)
    assert found[0].startswith(message), found


@pytest.mark.parametrize("preset", sorted(presets()))
def test_create_makes_a_campaign_that_checks(tmp_path: Path, preset: str) -> None:
    """Every preset loads without a problem."""
    campaign = create(tmp_path / "golf", preset)
    assert campaign.preset == preset
    assert campaign.load_plans() == ({}, [])
    assert plankit.said(campaign) == []
    assert (campaign.plans_folder / "plan.schema.json").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["golf"]


def test_create_freezes_the_bundled_trainer(tmp_path: Path) -> None:
    """cpu-demo's base is the installed trainer, without caches, with its settings known from the syntax tree."""
    campaign = create(tmp_path / "golf", "cpu-demo")
    base = bases.load(campaign, "tiny-bytes")
    assert base.kind == "trainer"
    assert all(path.startswith("trainer/") and path.endswith((".py", ".json", ".txt")) for path in base.tree.files)
    from trainer.config import fields_by_name

    assert set(base.variables(base.tree)) == set(fields_by_name())


def test_create_copies_plans_and_refuses_wrong_ones(tmp_path: Path) -> None:
    """Plans come with their patches; a wrong plan leaves nothing behind."""
    source = tmp_path / "mine"
    (source / "patches").mkdir(parents=True)
    (source / "a.yaml").write_text("id: a\ntitle: t\nhypothesis: h\ndiffs:\n  - patch: patches/a.patch\n")
    (source / "patches" / "a.patch").write_text("--- a/x\n")
    campaign = create(tmp_path / "good", "cpu-demo", source)
    assert list(campaign.load_plans()[0]) == ["a"]
    (source / "a.yaml").write_text("id: b\n")
    with pytest.raises(InputErrors, match=r"plans/a\.yaml:1:5 id: 'b' is not the file's name"):
        create(tmp_path / "bad", "cpu-demo", source)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good", "mine"]


def test_create_refuses_what_it_would_overwrite(tmp_path: Path) -> None:
    """A campaign is never replaced; in a folder with other files nothing of theirs is touched."""
    create(tmp_path / "golf", "cpu-demo")
    with pytest.raises(InputError, match="holds a campaign already"):
        create(tmp_path / "golf", "cpu-demo")
    with pytest.raises(InputError, match="preset 'cpu-dmo': unknown; did you mean 'cpu-demo'"):
        create(tmp_path / "x", "cpu-dmo")
    other = tmp_path / "other"
    other.mkdir()
    (other / "failures.md").write_text("mine")
    with pytest.raises(InputError, match=r"failures\.md: exists; nothing was written"):
        create(other, "cpu-demo")
    assert [path.name for path in other.iterdir()] == ["failures.md"]
    (other / "failures.md").rename(other / "notes.md")
    (other / ".gitignore").write_text("mine")
    assert create(other, "cpu-demo").name == "cpu-demo"
    assert (other / ".gitignore").read_text() == "mine"
