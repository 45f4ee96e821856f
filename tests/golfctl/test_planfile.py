"""Plan files: every mistake has its line, its column and a remedy, and all of them come at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from golfctl.domain.gate import Gate, Kind, Requirement
from golfctl.domain.plan import PatchDiff, Plan, SetDiff
from golfctl.errors import InputErrors
from golfctl.store import gates
from golfctl.store.campaign import Campaign
from golfctl.store.planfile import Context, read_plan
from tests.golfctl import plankit

GATES = {1: Gate(1, "smoke", Kind.THRESHOLD), 2: Gate(2, "final", Kind.THRESHOLD, seeds=3)}
CONTEXT = Context(Path(gates.__file__).parent, ("tiny", "merged-sota"), ("D", "B", "ngram"), "tiny", (1, 2, 3), GATES)
HEAD = "id: D\ntitle: t\nhypothesis: h\n"

FULL = """\
id: D
title: Int5 MLP weights pay for a larger bigram table
hypothesis: |
  The MLP holds most bytes.
expect: {score: [-0.003, -0.002], bytes: -1500000}
risk: low
tags: [quantisation, bigram]
base: merged-sota
depends_on: [B]
conflicts_with: [ngram]
diffs:
  - set: {MLP_BITS: 5, RATE: 1e-3, DECAY: 0.10, SWITCH: true, NAME: 'on'}
fallback:
  set: {MLP_BITS: 6}
seeds: [1337, 42, 2025]
gates:
  1: {require: {step_avg_ms: "<= 130", at_gpus: 8}, overriding: true}
  "2": {require: {score: "<= base - 0.07"}, looks: 2, alpha: 0.02, env: {STEPS: 1e2}}
"""


def read(text: str, context: Context = CONTEXT) -> Plan:
    return read_plan(text.encode(), "plans/D.yaml", context)[0]


def problems(text: str, context: Context = CONTEXT) -> list[str]:
    return plankit.refusals(read_plan, text.encode(), "plans/D.yaml", context)


def test_planfile_reads_every_key() -> None:
    """The whole of DESIGN.md's example arrives in the domain's words; settings are the text a person wrote."""
    plan = read(FULL)
    assert plan.diffs == (SetDiff({"MLP_BITS": "5", "RATE": "1e-3", "DECAY": "0.10", "SWITCH": "1", "NAME": "on"}),)
    assert plan.fallback == (SetDiff({"MLP_BITS": "6"}),)
    assert plan.expect == {"score": (-0.003, -0.002), "bytes": (-1500000.0, -1500000.0)}
    assert (plan.base, plan.depends_on, plan.seeds) == ("merged-sota", ("B",), (1337, 42, 2025))
    assert plan.gates[1] == {
        "require": (Requirement("step_avg_ms", "<=", 130.0),), "at_gpus": 8, "overriding": True,
    }  # fmt: skip
    assert plan.gates[2]["require"] == (Requirement("score", "<=", -0.07, "base"),)
    assert plan.gates[2]["env"] == {"STEPS": "1e2"}


def test_planfile_defaults_come_from_the_campaign() -> None:
    """A plan states only what differs."""
    plan = read(HEAD)
    assert (plan.base, plan.seeds, plan.gates, plan.diffs) == ("tiny", (1, 2, 3), {}, ())


def test_gate_differences_merge_requirements_and_env_by_name() -> None:
    """What a plan does not mention stays as golf.yaml has it."""
    gate = Gate(1, "x", Kind.THRESHOLD, env={"A": "1", "B": "2"}, require=(Requirement("step_avg_ms", "<=", 400.0),))
    changes = read(HEAD + "gates: {1: {require: {score: '< 1'}, env: {B: 3}, processes: 2}}").gates[1]
    merged = gates.apply(gate, changes)
    assert merged.env == {"A": "1", "B": "3"}
    assert [str(item) for item in merged.require] == ["score < 1", "step_avg_ms <= 400"]
    assert (merged.processes, merged.name) == (2, "x")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("diffs:\n  - pathch: x\n", "plans/D.yaml:5:5 diffs[0].pathch: unknown key; did you mean 'patch'?"),
        ("gate: {}\n", "plans/D.yaml:4:1 gate: unknown key; did you mean 'gates'?"),
        ("diffs:\n  - {set: {A: 1}, patch: planfile.py}\n", "plans/D.yaml:5:5 diffs[0]: holds both 'set' and 'patch'"),
        ("diffs:\n  - {}\n", "plans/D.yaml:5:5 diffs[0]: holds neither 'set' nor 'patch'"),
        ("diffs:\n  - set: {A: [1, 2]}\n", "plans/D.yaml:5:14 diffs[0].set.A: is a list; a setting is one value"),
        ("diffs:\n  - set: {A: }\n", "plans/D.yaml:5:14 diffs[0].set.A: has no value"),
        ("diffs:\n  - set: {A: on}\n", "plans/D.yaml:5:14 diffs[0].set.A: `on` is a truth value to some"),
        ("diffs:\n  - set: {a-b: 1}\n", "plans/D.yaml:5:11 diffs[0].set.a-b: 'a-b' is no name of an environment"),
        ("diffs:\n  - patch: patches/no.patch\n", "plans/D.yaml:5:12 diffs[0].patch: 'patches/no.patch' does not exist"),
        ("diffs:\n  - patch: ../x.patch\n", "plans/D.yaml:5:12 diffs[0].patch: '../x.patch' is no path inside"),
        ("diffs: {set: {A: 1}}\n", "plans/D.yaml:4:8 diffs: must be a list, is a mapping"),
        ("fallback: {sett: {A: 1}}\n", "plans/D.yaml:4:12 fallback.sett: unknown key; did you mean 'set'?"),
        ("base: mergd-sota\n", "plans/D.yaml:4:7 base: unknown base 'mergd-sota'; did you mean 'merged-sota'?"),
        ("depends_on: [ngrm]\n", "plans/D.yaml:4:14 depends_on[0]: unknown plan 'ngrm'; did you mean 'ngram'?"),
        ("conflicts_with: [B, E5]\n", "plans/D.yaml:4:21 conflicts_with[1]: unknown plan 'E5'"),
        ("conflicts_with: [D]\n", "plans/D.yaml:4:18 conflicts_with[0]: a plan can't conflict with itself"),
        ("seeds: [1, 2, 1]\n", "plans/D.yaml:4:15 seeds[2]: seed 1 stands twice"),
        ("seeds: [1, 2]\n", "plans/D.yaml:4:8 seeds: gate 2 needs 3 seeds, 2 are declared"),
        ("seeds: [1, 2.5, 3]\n", "plans/D.yaml:4:12 seeds[1]: must be a whole number, is 2.5"),
        ("seeds: []\n", "plans/D.yaml:4:8 seeds: must not be empty"),
        ("gates: {2: {seeds: 9}}\n", "plans/D.yaml:4:20 gates.2.seeds: gate 2 needs 9 seeds, 3 are declared"),
        ("gates: {7: {looks: 1}}\n", "plans/D.yaml:4:9 gates.7: unknown gate; golf.yaml has 1, 2"),
        ("gates: {one: {}}\n", "plans/D.yaml:4:9 gates.one: must be a whole number"),
        ("gates: {1: {name: x}}\n", "plans/D.yaml:4:13 gates.1.name: can't be changed by a plan"),
        ("gates: {1: {lookz: 1}}\n", "plans/D.yaml:4:13 gates.1.lookz: unknown key; did you mean 'looks'?"),
        ("gates: {1: {alpha: 0.9}}\n", "plans/D.yaml:4:20 gates.1.alpha: must be below 0.5, is 0.9"),
        ("gates: {1: {overriding: 1}}\n", "plans/D.yaml:4:25 gates.1.overriding: must be true or false, is 1"),
        ("gates: {1: {require: {score: 1.2}}}\n", "plans/D.yaml:4:30 gates.1.require.score: has no comparison; write"),
        ("gates: {1: {require: {score: '=< 1'}}}\n", "plans/D.yaml:4:30 gates.1.require.score: '=< 1' is no requirement"),
        ("gates: {1: {require: {step_avg_ms: '>= 1'}}}\n", "plans/D.yaml:4:36 gates.1.require.step_avg_ms: '>= 1': "),
        ("gates: {1: {require: {speed: '<= 1'}}}\n", "plans/D.yaml:4:23 gates.1.require.speed: unknown key; allowed"),
        ("expect: {score: [-0.002, -0.003]}\n", "plans/D.yaml:4:17 expect.score: [-0.002, -0.003]: the low end comes"),
        ("expect: {score: much}\n", "plans/D.yaml:4:17 expect.score: must be a number or a range"),
        ("tags: [1]\n", "plans/D.yaml:4:8 tags[0]: must be text, is 1; quote it"),
        ("risk: low\nrisk: high\n", "plans/D.yaml:5:1 risk: duplicate key; the first stands in line 4"),
    ],
)  # fmt: skip
def test_planfile_marks_each_mistake(lines: str, message: str) -> None:
    """What is wrong, at which line and column, and what was allowed."""
    (found,) = problems(HEAD + lines)
    assert found.startswith(message), found


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("id: E\ntitle: t\nhypothesis: h\n", ["plans/D.yaml:1:5 id: 'E' is not the file's name; write 'D'"]),
        ("id: NO\ntitle: t\nhypothesis: h\n", ["1:5 id: 'NO' is not the file's name", "1:5 id: `NO` is a truth value"]),
        ("id: 5\ntitle: t\nhypothesis: h\n", ["plans/D.yaml:1:5 id: must be text, is 5; quote it"]),
        ("id: D\n", ["plans/D.yaml:1:1 hypothesis: is missing", "plans/D.yaml:1:1 title: is missing"]),
        ("id: D\ntitle: t\nhypothesis:\n", ["plans/D.yaml:3:12 hypothesis: must be text, is empty"]),
    ],
)
def test_planfile_marks_mistakes_of_the_head(text: str, messages: list[str]) -> None:
    """Missing keys are reported at the mapping that lacks them."""
    found = problems(text)
    assert len(found) == len(messages)
    assert all(message in line for message, line in zip(messages, found, strict=True)), found


@pytest.mark.parametrize("name", ["-x", "a b", "é", "x" * 65])
def test_planfile_refuses_an_id_that_is_no_file_name_everywhere(name: str) -> None:
    """Ids become folder names and branch names on other machines."""
    file = f"plans/{name}.yaml"
    found = plankit.refusals(read_plan, f"id: {name!r}\ntitle: t\nhypothesis: h\n".encode(), file, CONTEXT)
    assert any("must be letters, digits" in line for line in found)


def test_planfile_refuses_the_name_of_a_base() -> None:
    """Runs are owned by a plan or a base, by name."""
    context = Context(Path("plans"), ("tiny", "D"), ("D",), "tiny", (1, 2, 3), GATES)
    assert problems(HEAD, context) == [
        "plans/D.yaml:1:5 id: 'D' is the name of a base; plans and bases share one name space"
    ]


def test_planfile_reports_all_mistakes_at_once() -> None:
    """Nobody fixes one mistake to be told of the next."""
    text = "id: E\ntitle: 5\nbase: nope\nseeds: [1, 1]\ndiffs:\n  - pathch: x\n  - set: {A: on, B: []}\nid: D\n"
    found = problems(text)
    assert [line.split(" ")[1] for line in found] == [
        "hypothesis:", "id:", "title:", "base:", "seeds[1]:", "diffs[0].pathch:", "diffs[1].set.A:", "diffs[1].set.B:",
        "id:",
    ]  # fmt: skip


def test_planfile_finds_a_patch_and_suggests_a_near_one(tmp_path: Path) -> None:
    """A patch that exists is taken, one that is misspelt is named."""
    campaign = plankit.make(tmp_path)
    (campaign.plans_folder / "patches" / "D-int5.patch").write_text("x")
    text = (HEAD + "diffs:\n  - patch: patches/D-int5.patch\n").encode()
    assert read_plan(text, "plans/D.yaml", campaign.context())[0].diffs == (PatchDiff("patches/D-int5.patch"),)
    found = plankit.refusals(read_plan, text.replace(b"int5", b"in5"), "plans/D.yaml", campaign.context())
    assert found[0].endswith("does not exist in plans/; did you mean 'patches/D-int5.patch'?")


def test_planfile_refuses_a_patch_that_links_out_of_the_folder(tmp_path: Path) -> None:
    """What is frozen must lie in the campaign."""
    campaign = plankit.make(tmp_path)
    (campaign.plans_folder / "patches" / "x.patch").symlink_to("/etc/passwd")
    text = (HEAD + "diffs:\n  - patch: patches/x.patch\n").encode()
    (found,) = plankit.refusals(read_plan, text, "plans/D.yaml", campaign.context())
    assert "leads out of the plans folder" in found


def test_planfile_cycle_names_the_path(tmp_path: Path) -> None:
    """One finding per circle; a plan that hangs on it is told, too, and none of them is usable."""
    campaign = plankit.make(tmp_path)
    for name, needs in {"A": "B", "B": "C", "C": "A", "E": "A", "S": "S"}.items():
        plankit.plan(campaign, name, f"depends_on: [{needs}]\n")
    plankit.plan(campaign, "ok")
    plans, found = campaign.load_plans()
    assert [str(item) for item in found] == [
        "plans/A.yaml:4:14 depends_on[0]: depends on itself: A -> B -> C -> A",
        "plans/S.yaml:4:14 depends_on[0]: depends on itself: S -> S",
    ]
    assert list(plans) == ["ok"]


def test_planfile_dependency_problems_are_told_to_the_dependent(tmp_path: Path) -> None:
    """A broken dependency is named, so that no plan drops out in silence."""
    campaign = plankit.make(tmp_path)
    plankit.plan(campaign, "bad", "nonsense: 1\n")
    plankit.plan(campaign, "upon", "depends_on: [bad]\n")
    plans, found = campaign.load_plans()
    assert plans == {}
    assert str(found[1]) == "plans/upon.yaml:4:14 depends_on[0]: bad has problems of its own; they come first"


def test_planfile_wrong_ending_is_not_silently_skipped(tmp_path: Path) -> None:
    """A .yml file would otherwise never be seen."""
    campaign = plankit.make(tmp_path)
    (campaign.plans_folder / "x.yml").write_text("id: x\n")
    assert [str(item) for item in campaign.load_plans()[1]] == [
        "plans/x.yml plan files end in .yaml; rename it to x.yaml"
    ]


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["D", "tiny", "<= 1"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4) | st.integers(0, 3), inner, max_size=3)
    ),
    max_leaves=6,
)
KEYS = st.sampled_from(
    [
        "id",
        "title",
        "hypothesis",
        "expect",
        "base",
        "depends_on",
        "diffs",
        "fallback",
        "seeds",
        "gates",
        "tags",
        "set",
        "x",
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=6), st.binary(max_size=8), st.integers(0, 200))
def test_planfile_any_input_gives_a_plan_or_input_errors(raw: dict[str, object], noise: bytes, at: int) -> None:
    """Structured nonsense, with and without stray bytes, never raises anything else."""
    import yaml

    clean = yaml.safe_dump({"id": "D", "title": "t", "hypothesis": "h"} | raw, allow_unicode=True).encode()
    for content in (clean, clean[:at] + noise + clean[at:]):
        try:
            plan, _ = read_plan(content, "plans/D.yaml", CONTEXT)
        except InputErrors as error:
            assert error.problems
            assert all(item.line >= 0 and "\n" not in str(item) for item in error.problems)
        else:
            assert plan.id == "D"


def test_planfile_unreadable_file_is_one_problem(tmp_path: Path) -> None:
    """A folder named like a plan is no crash."""
    campaign: Campaign = plankit.make(tmp_path)
    (campaign.plans_folder / "D.yaml").mkdir()
    (found,) = campaign.load_plans()[1]
    assert str(found).startswith("plans/D.yaml can't be read")
