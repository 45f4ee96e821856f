"""`golfctl fail`, and the word a plan owes before it repeats a failure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from golfctl.store.campaign import Campaign
from tests.golfctl import plankit
from tests.golfctl.campaigns import golfctl

TITLE = "Int5 MLP pays for a larger bigram table"


@pytest.fixture
def campaign(tmp_path: Path) -> Campaign:
    return plankit.make(tmp_path, plankit.GOLF + "preset: cpu-demo\n")


@pytest.mark.service
def test_repeat_is_told_when_written_checked_and_run(campaign: Campaign) -> None:
    """Nothing starts without an answer; a waiver is one, and is shown with the resemblance."""
    root = campaign.root
    made = golfctl(root, "plan", "new", "D", "--title", TITLE).stdout
    assert 'It resembles a recorded failure: "BigramHash beyond 10240 buckets" (gain below parameter cost' in made
    path = campaign.plans_folder / "D.yaml"
    path.write_text(path.read_text().replace("diffs: []", "diffs:\n  - set: {WIDTH: 8}"))
    checked = golfctl(root, "plan", "check", expect=2)
    assert "note: D: resembles a recorded failure" in checked.stderr
    assert "plans/D.yaml not_a_repeat: missing: " in checked.stderr
    found = json.loads(golfctl(root, "plan", "check", "D", "--json", expect=2).stdout)
    assert (found["ok"], found["resembles"][0]["failure"]["subject"]) == (False, "bigram-beyond-10240")
    assert "not_a_repeat: missing" in golfctl(root, "gate", "run", "D", "--yes", expect=2).stderr
    assert not list(root.glob("experiments/ledger/*.jsonl"))
    assert "--reason: must be one line" in golfctl(root, "fail", "waive", "D", "--reason", " ", expect=2).stderr
    golfctl(root, "fail", "waive", "D", "--reason", "the table is smaller")
    assert "nothing to waive" in golfctl(root, "fail", "waive", "D", "--reason", "again", expect=2).stderr
    assert "Answered: the table is smaller" in golfctl(root, "plan", "check").stderr
    assert "note: D: resembles" in golfctl(root, "gate", "run", "D", "--dry-run").stderr


@pytest.mark.service
def test_failures_of_others_are_added_listed_and_searched(campaign: Campaign) -> None:
    """Who, where and when stand in failures.md and in JSON; the field's are listed on request."""
    root = campaign.root
    golfctl(
        root,
        "fail",
        "add",
        "mla",
        "--title",
        "Latent attention",
        "--numbers",
        "+0.02",
        "--who",
        "Ann",
        "--source",
        "her log",
    )
    text = campaign.failures_file.read_text()
    assert "- tried: Latent attention\n- who: Ann, her log\n- numbers: +0.02\n" in text
    (entry,) = json.loads(golfctl(root, "fail", "list", "--json").stdout)
    assert (entry["subject"], entry["who"], entry["source"], entry["why"]) == ("mla", "Ann", "her log", "")
    golfctl(root, "fail", "why", "mla", "too slow")
    listed = golfctl(root, "fail", "list")
    assert "recorded by Ann" in listed.stdout and "why: too slow" in listed.stdout
    assert "dead ends of the field" in listed.stderr
    everything = golfctl(root, "fail", "list", "--field").stdout
    assert "naive-looping" in everything and "recorded by the field" in everything
    hits = json.loads(golfctl(root, "fail", "search", "compress", "keys", "and", "values", "--json").stdout)
    assert {hit["subject"] for hit in hits[:2]} == {"mla", "latent-attention"}
    assert "no recorded failure speaks of that" in golfctl(root, "fail", "search", "zebra").stderr
    refused = golfctl(root, "fail", "why", "naive-looping", "x", expect=2).stderr
    assert "naive-looping: was recorded by the field" in refused
    assert (
        "--who: must be one line"
        in golfctl(root, "fail", "add", "x", "--title", "t", "--numbers", "1", "--who", "a\nb", expect=2).stderr
    )
