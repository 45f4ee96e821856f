"""`golfctl base`: what a person types about bases, and what is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from golfctl.errors import InputError
from golfctl.store import basediff, bases, newbase
from golfctl.store.campaign import Campaign, load
from tests.golfctl import plankit
from tests.golfctl.campaigns import golfctl

ROUNDTRIP = 'print(f"final_roundtrip_exact val_loss:{1:.8f} val_bpb:{2:.8f}")\n'
SLIDING = 'print(f"final_sliding_exact val_loss:{1:.8f} val_bpb:{2:.8f}")\n'
SLID = "final_sliding_exact val_loss:2.10000000 val_bpb:1.25000000"
LOG = """\
step:1/20 train_loss:6.0000 train_time:10ms step_avg:10.00ms
step:20/20 train_loss:3.0000 train_time:2000ms step_avg:100.00ms
step:20/20 val_loss:2.1000 val_bpb:1.2400 train_time:2000ms step_avg:100.00ms
Code size: 1000 bytes
Serialized model int8+zlib: {model} bytes
Total submission size int8+zlib: {total} bytes
final_roundtrip_exact val_loss:2.20000000 val_bpb:1.30000000
{last}
"""


@pytest.fixture
def campaign(tmp_path: Path) -> Campaign:
    return plankit.make(tmp_path / "golf")


def script(campaign: Campaign, text: str = plankit.SCRIPT, name: str = "train.py") -> Path:
    path = campaign.root.parent / name
    path.write_text(text)
    return path


def log(campaign: Campaign, name: str, total: int = 14_001_000, last: str = "") -> Path:
    path = campaign.root.parent / name
    path.write_text(LOG.format(total=total, model=total - 1000, last=last))
    return path


@pytest.mark.service
def test_base_add_takes_the_only_label_of_the_source(campaign: Campaign) -> None:
    """And says so, with what of the roles the script does not read."""
    path = script(campaign, plankit.SCRIPT + ROUNDTRIP)
    done = golfctl(campaign.root, "base", "add", "field", "--script", str(path))
    assert done.stderr.splitlines()[0] == "score: final_roundtrip_exact, the only final line that train.py prints"
    assert "it does not read ITERATIONS (iterations), MAX_WALLCLOCK_SECONDS (seconds), DATA_PATH (data);" in done.stderr
    assert bases.load(load(campaign.root), "field").score_label == "final_roundtrip_exact"
    mapped = golfctl(
        campaign.root, "base", "add", "mapped", "--script", str(path), "--role", "iterations=STEPS", "--env", "HIDDEN"
    )
    assert "ITERATIONS" not in mapped.stderr
    base = bases.load(load(campaign.root), "mapped")
    assert (base.vars["iterations"], base.vars["seed"], base.env) == ("STEPS", "SEED", ("HIDDEN",))


@pytest.mark.service
def test_base_add_names_the_candidates_where_there_is_a_choice(campaign: Campaign) -> None:
    """Which line is the score is not guessed; nothing is frozen."""
    path = script(campaign, plankit.SCRIPT + ROUNDTRIP + SLIDING)
    done = golfctl(campaign.root, "base", "add", "field", "--script", str(path), expect=2)
    assert done.stderr == (
        "--score-label: train.py prints final_roundtrip_exact, final_sliding_exact; say which line of the log carries the score, "
        "or give a log of it with --log FILE\n"
    )
    assert not (campaign.bases_folder / "field.yaml").exists()
    odd = golfctl(campaign.root, "base", "add", "field", "--script", str(path), "--score-label", "fnal_exact")
    assert "no line of train.py is seen to print fnal_exact; it prints final_roundtrip_exact" in odd.stderr
    bare = script(campaign, plankit.SCRIPT, "bare.py")
    nothing = golfctl(campaign.root, "base", "add", "bare", "--script", str(bare), expect=2)
    assert nothing.stderr.startswith("--score-label: no final line can be seen in bare.py;")


@pytest.mark.service
def test_base_add_reads_label_step_time_and_headroom_from_logs(campaign: Campaign) -> None:
    """The median step time, the largest artifact, the mean score."""
    path = script(campaign, plankit.SCRIPT + ROUNDTRIP + SLIDING)
    logs = [log(campaign, f"{seed}.log", 15_990_000 + seed, SLID) for seed in (1, 2)]
    options = [word for item in logs for word in ("--log", str(item))]
    done = golfctl(campaign.root, "base", "add", "field", "--script", str(path), *options)
    assert done.stderr.startswith("score: final_sliding_exact, the last word of the logs (")
    assert (
        "  2 logs, score 1.2500 (n 2), step time 100.0 ms, artifact 15.99 MB: 9,998 bytes of headroom left\n"
        in done.stdout
    )


def test_base_logs_that_say_nothing_or_contradict_are_refused(campaign: Campaign) -> None:
    """A file that is no log, one that is not there, two that end differently."""
    path = script(campaign, plankit.SCRIPT + ROUNDTRIP + SLIDING)
    (campaign.root / "notes.txt").write_text("nothing here\n")
    with pytest.raises(InputError, match=r"--log .*notes\.txt: no line of it is a step or a score"):
        newbase.read_logs([campaign.root / "notes.txt"])
    with pytest.raises(InputError, match=r"--log .*gone\.log: can't be read: No such file"):
        newbase.read_logs([campaign.root / "gone.log"])
    logs = [log(campaign, "a.log"), log(campaign, "b.log", last=SLID)]
    with pytest.raises(InputError, match="the logs end with different lines: final_roundtrip_exact"):
        newbase.label_of(path, newbase.read_logs(logs), logs)


def test_base_roles_must_exist_and_be_read(campaign: Campaign) -> None:
    """A role that is mapped to nothing would leave the seed unset."""
    path = script(campaign)
    with pytest.raises(InputError) as caught:
        bases.freeze_script(
            campaign, "field", path, score_label="x", variables={"seed": "RANDOM_SEED", "steps": "STEPS"}
        )
    said = str(caught.value)
    assert "vars.seed: RANDOM_SEED: the script does not read this variable" in said
    assert "vars.steps: unknown role; allowed are data, iterations, out, seconds, seed" in said


@pytest.mark.service
def test_base_options_for_scripts_need_a_script(campaign: Campaign) -> None:
    """The bundled trainer has a label of its own."""
    done = golfctl(campaign.root, "base", "add", "t", "--score-label", "x", expect=2)
    assert done.stderr.endswith("describe a foreign script; say --script FILE\n")


@pytest.mark.service
def test_base_env_lists_places_defaults_and_who_sets_what(campaign: Campaign) -> None:
    """Sorted by line; required ones, the base's own values, plans' values; a glob in any case; notes apart."""
    text = plankit.SCRIPT + "import sys\nX = os.environ[sys.argv[1]]\nR = os.environ.get('RANK', 0)\n"
    bases.freeze_script(campaign, "field", script(campaign, text), score_label="x", settings={"WIDTH": "12"})
    plankit.plan(campaign, "D", "base: field\ndiffs:\n  - set: {WIDTH: 8, STEPS: 7}\n")
    done = golfctl(campaign.root, "base", "env", "field")
    assert done.stdout.splitlines() == [
        "train.py:3   STEPS          100   (D sets 7)",
        "train.py:4   LEARNING_RATE  '0.1'",
        "train.py:5   WIDTH          16   (base sets 12; D sets 8)",
        "train.py:9   SEED           required   (the seed)",
        "train.py:23  OUT_DIR        required   (the out)",
    ]
    assert done.stderr.splitlines() == [
        "note: names computed at run time, which can't be listed: train.py:25",
        "note: set by the launcher, not by plans: RANK",
    ]
    found = json.loads(golfctl(campaign.root, "base", "env", "field", "*rate", "--json").stdout)
    assert [(row["name"], row["default"], row["line"], row["required"]) for row in found["variables"]] == [
        ("LEARNING_RATE", "'0.1'", 4, False)
    ]
    none = golfctl(campaign.root, "base", "env", "field", "x*")
    assert (none.stdout, none.stderr.splitlines()[0]) == ("", "field: reads no variable like 'x*'")


@pytest.mark.service
def test_base_show_and_list_say_what_is_frozen(campaign: Campaign) -> None:
    """For people and for programs; before any run."""
    plankit.plan(campaign, "D")
    text = golfctl(campaign.root, "base", "show", "tiny").stdout
    assert "tiny: script, " in text
    assert ", the base of golf.yaml" in text
    assert "iterations ITERATIONS (not read)" in text
    assert f"code     tiny.py: {len(plankit.SCRIPT)} bytes counted" in text
    assert "runs     none yet" in text
    shown = json.loads(golfctl(campaign.root, "base", "show", "tiny", "--json").stdout)
    assert (shown["variables"], shown["plans"], shown["runs"]) == (5, ["D"], [])
    listed = json.loads(golfctl(campaign.root, "base", "list", "--json").stdout)
    assert [(row["name"], row["kind"], row["current"]) for row in listed] == [("tiny", "script", True)]
    assert golfctl(campaign.root, "base", "show", "tinny", expect=2).stderr == (
        "base 'tinny': unknown; did you mean 'tiny'?\n"
    )


@pytest.mark.service
def test_base_diff_says_what_differs(campaign: Campaign) -> None:
    """Label, settings, variables with both places, code by file; the two scripts may be called differently."""
    text = plankit.SCRIPT.replace('"STEPS", 100', '"STEPS", 200').replace("WIDTH", "BREADTH")
    other = script(campaign, text, "other.py")
    bases.freeze_script(campaign, "other", other, score_label="final_exact", settings={"STEPS": "9"})
    lines = golfctl(campaign.root, "base", "diff", "tiny", "other").stdout.splitlines()
    assert "score_label: final -> final_exact" in lines
    assert "set STEPS: not set -> 9" in lines
    assert "~ STEPS: 100 (tiny.py:3) -> 200 (other.py:3)" in lines
    assert "+ BREADTH = 16 (other.py:5)" in lines
    assert "- WIDTH = 16 (tiny.py:5)" in lines
    assert lines[-1] == "code tiny.py -> other.py: +3 -3"
    code = golfctl(campaign.root, "base", "diff", "tiny", "other", "--code").stdout
    assert "--- a/tiny.py\n+++ b/other.py\n" in code
    assert '+BREADTH = int(os.getenv("BREADTH", 16))' in code
    data = json.loads(golfctl(campaign.root, "base", "diff", "tiny", "other", "--json").stdout)
    assert [item["name"] for item in data["variables"]] == ["BREADTH", "STEPS", "WIDTH"]


def test_base_diff_of_a_base_with_its_twin_is_empty(campaign: Campaign) -> None:
    """Only the names differ."""
    bases.freeze_script(campaign, "twin", script(campaign, name="tiny.py"), score_label="final")
    campaign = load(campaign.root)
    assert basediff.compare(bases.load(campaign, "tiny"), bases.load(campaign, "twin")).empty


def test_unified_diff_of_the_base_is_one_that_git_applies(campaign: Campaign) -> None:
    """Also with no newline at the end, form feeds inside and bytes that are no UTF-8."""
    from golfctl.store.patches import apply
    from golfctl.store.tree import Entry, Tree

    before, after = b"a\n\x0cb\nc\x0c", b"a\n\x0cB\nc\x0cd\nno newline"
    text = basediff.unified(before, after, "x.py", "x.py")
    assert apply(Tree({"x.py": Entry(before)}), text.encode(), "p", (), "").files["x.py"].content == after


@pytest.mark.service
def test_plan_check_names_the_variable_that_was_meant(campaign: Campaign) -> None:
    """With the line of the script that reads it."""
    text = 'import os\nBIGRAM = int(os.environ.get("BIGRAM_BUCKETS", 2048))\nseed = os.environ["SEED"]\n'
    bases.freeze_script(campaign, "merged-sota", script(campaign, text, "train_gpt.py"), score_label="x")
    plankit.plan(campaign, "D", "base: merged-sota\ndiffs:\n  - set: {BIGRAM_BUCKET: 4096}\n")
    done = golfctl(campaign.root, "plan", "check", "D", expect=2)
    assert done.stderr.splitlines()[0] == (
        "plans/D.yaml:6:11 set.BIGRAM_BUCKET: merged-sota does not read this variable; "
        "did you mean BIGRAM_BUCKETS (train_gpt.py:2)?"
    )
