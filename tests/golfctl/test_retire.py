"""`golfctl plan retire`: a plan that is given up keeps its file and its results, and explains itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from golfctl.domain.event import Event, Type
from golfctl.domain.state import fold
from golfctl.errors import InputError
from golfctl.store.campaign import load
from golfctl.store.ledger import Ledger
from golfctl.store.retire import retire, retired
from golfctl.store.revise import new_plan
from golfctl.store.status import open_state
from tests.golfctl import plankit
from tests.golfctl.campaigns import golfctl, make


@pytest.mark.service
def test_retired_plan_leaves_the_queue_and_keeps_its_results(tmp_path: Path) -> None:
    """No command runs it, `plan list --all` shows it, its dependent is told why, and the report still has its verdicts."""
    root = make(tmp_path / "golf")
    golfctl(root, "gate", "run", "sharp", "--through", "1", "--yes")
    before = (root / "plans" / "sharp.yaml").read_text()
    done = golfctl(root, "plan", "retire", "sharp", "--reason", "smoothing is spent")
    assert done.stdout == "sharp is retired; its file: plans/retired/sharp.yaml\n"
    assert "sharper can't run without it" in done.stderr
    kept = (root / "plans" / "retired" / "sharp.yaml").read_text()
    assert kept.partition("\n")[0].endswith("Z: smoothing is spent")
    assert kept.partition("\n")[2] == before
    checked = golfctl(root, "plan", "check", expect=2)
    assert checked.stderr == "plans/sharper.yaml:6:14 depends_on[0]: sharp was retired: smoothing is spent\n"
    for words in (["gate", "run", "sharp", "--yes"], ["plan", "check", "sharp"], ["plan", "show", "sharp"]):
        assert golfctl(root, *words, expect=2).stderr == "sharp: was retired: smoothing is spent\n"
    golfctl(root, "plan", "retire", "sharper", "--reason", "falls with sharp")
    assert [row["id"] for row in json.loads(golfctl(root, "plan", "list", "--json").stdout)] == ["blunt"]
    everything = json.loads(golfctl(root, "plan", "list", "--all", "--json").stdout)
    assert [(row["id"], row["status"], row.get("why")) for row in everything[1:]] == [
        ("sharp", "retired", "smoothing is spent"),
        ("sharper", "retired", "falls with sharp"),
    ]
    assert "sharp  retired 2" in golfctl(root, "plan", "list", "--all").stdout
    (row,) = json.loads(golfctl(root, "report", "sharp", "--json").stdout)["plans"]
    assert row["status"] == "retired: smoothing is spent"
    assert [gate["number"] for gate in row["gates"]] == [1]
    assert "Next: golfctl gate run\n" in golfctl(root).stdout  # blunt is left
    assert "sharp" not in golfctl(root, "gate", "run", "--through", "1", "--dry-run").stdout
    golfctl(root, "ledger", "verify")


def test_retire_records_the_reason_in_the_ledger(tmp_path: Path) -> None:
    """One event with the plan and the reason; the state knows it."""
    campaign = plankit.make(tmp_path)
    plankit.plan(campaign, "D")
    retire(campaign, "D", " no gain ")
    event = Ledger(campaign.ledger_folder, campaign.state_folder).events()[-1]
    assert (event.type, dict(event.data)) == (Type.PLAN_RETIRED, {"plan": "D", "reason": "no gain"})
    assert open_state(campaign).retired["D"].data["reason"] == "no gain"
    assert [(item.id, item.when, item.why) for item in retired(campaign)] == [("D", event.time, "no gain")]


def test_retire_refuses_while_a_run_is_unfinished(tmp_path: Path) -> None:
    """The run would be an orphan; what to do is said, and nothing is moved."""
    campaign = plankit.make(tmp_path)
    path = plankit.plan(campaign, "D", "diffs:\n  - set: {WIDTH: 8}\n")
    spec = {"name": "D.g1.s1.a1", "owner": "D", "bundle": "b" * 64, "gate": 1, "seed": 1, "attempt": 1}
    spec |= {"host": "local", "shape": "s", "processes": 1}
    Ledger(campaign.ledger_folder, campaign.state_folder).append(Type.RUN_INTENT, {"spec": spec})
    with pytest.raises(InputError, match=r"D: D\.g1\.s1\.a1 has not ended; golfctl gate run D brings it home"):
        retire(campaign, "D", "no gain")
    assert path.exists()
    assert open_state(campaign).retired == {}


def test_retire_refuses_nonsense(tmp_path: Path) -> None:
    """No reason, an unknown plan, a plan that is retired; and its id stays taken."""
    campaign = plankit.make(tmp_path)
    plankit.plan(campaign, "D")
    for reason in ("", "  ", "two\nlines"):
        with pytest.raises(InputError, match="--reason: must say why"):
            retire(campaign, "D", reason)
    with pytest.raises(InputError, match="DD: no such plan; did you mean 'D'"):
        retire(campaign, "DD", "r")
    retire(campaign, "D", "no gain")
    with pytest.raises(InputError, match="D: was retired already: no gain"):
        retire(campaign, "D", "again")
    with pytest.raises(InputError, match=r"D: was retired \(no gain\), and its results stand under this id"):
        new_plan(load(campaign.root), "D", "t", None, [])


def test_retired_by_two_machines_is_one_word_whatever_the_order() -> None:
    """No decision hangs on the clocks of different machines."""
    events = [
        Event(machine, 1, "", time, Type.PLAN_RETIRED, {"plan": "D", "reason": machine})
        for machine, time in (("m000002", "2026-01-01T00:00:00Z"), ("m000001", "2026-01-02T00:00:00Z"))
    ]
    assert fold(events).retired["D"] == fold(reversed(events)).retired["D"]


def test_plan_that_names_a_path_as_dependency_reads_no_other_file(tmp_path: Path) -> None:
    """A name with `..` is an unknown plan and nothing else."""
    campaign = plankit.make(tmp_path)
    (campaign.plans_folder / "retired").mkdir()
    (tmp_path / "x.yaml").write_text("# retired 2026: secret\n")
    plankit.plan(campaign, "D", "depends_on: [../../x]\n")
    assert plankit.said(campaign) == ["plans/D.yaml:4:14 depends_on[0]: unknown plan '../../x'"]
