"""`golfctl ledger`: verify, export, rebuild-index; and two machines' ledgers merged by git."""

from __future__ import annotations

import csv
import errno
import io
import json
import subprocess
from dataclasses import asdict
from pathlib import Path

import pytest

from golfctl.cli.run import run
from golfctl.domain.event import Type
from golfctl.store import ledgerindex
from golfctl.store.campaign import load
from golfctl.store.ledger import Ledger
from golfctl.store.status import open_state
from tests.golfctl import campaigns, factories
from tests.golfctl.ledgerlab import flip, write_long


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A campaign of four recorded runs."""
    root = campaigns.make(tmp_path / "c")
    write_long(root / "experiments" / "ledger", 4)
    monkeypatch.chdir(root)
    return root


def test_runs_are_exported_as_csv(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line a run, with the names of the fields; a spreadsheet reads them back."""
    assert run(["ledger", "export"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    state = open_state(load(root))
    assert [row["name"] for row in rows] == list(state.runs)
    for row, known in zip(rows, state.runs.values(), strict=True):
        assert known.result is not None
        assert (float(row["score"]), row["outcome"], int(row["seed"])) == (
            known.result.score,
            "completed",
            known.spec.seed,
        )
        assert json.loads(row["settings"]) == known.result.settings


def test_events_are_exported_as_they_are_stored(root: Path) -> None:
    """JSON lines to a file; each says what the ledger's line says."""
    assert run(["ledger", "export", "events", "--format", "jsonl", "--to", "events.jsonl"]) == 0
    stored = [
        json.loads(line) for line in (root / "experiments" / "ledger" / "mabcdef.jsonl").read_bytes().splitlines()
    ]
    assert [json.loads(line) for line in (root / "events.jsonl").read_text().splitlines()] == stored


def test_exported_text_harms_neither_terminal_nor_spreadsheet(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A reason comes from a host: no formula, no escape sequence, no second line."""
    campaign = load(root)
    ledger = Ledger(campaign.ledger_folder, campaign.state_folder)
    reason = '=HYPERLINK("x")\x1b[2J\nnext'
    data = {"run": next(iter(open_state(campaign).runs)), "outcome": "crashed", "reason": reason, "evidence": "e"}
    ledger.append(Type.RUN_FINISHED, data | {"result": {"score": 0.5}})
    spec = asdict(factories.spec("first", factories.gate()))
    ledger.append(Type.RUN_INTENT, {"spec": spec})
    for form in ("csv", "jsonl"):
        assert run(["ledger", "export", "--format", form]) == 0
        said = capsys.readouterr().out
        assert "\x1b" not in said
        assert len(said.splitlines()) == 5 + (form == "csv")
        rows = (
            list(csv.DictReader(io.StringIO(said)))
            if form == "csv"
            else [json.loads(line) for line in said.splitlines()]
        )
        assert (rows[-1]["name"], rows[-1]["score"] or None) == (spec["name"], None)
        assert rows[0]["reason"] == ('\'=HYPERLINK("x")\\u001b[2J\\nnext' if form == "csv" else reason)


def test_export_to_a_missing_folder_is_one_line(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong input, and nothing is left behind."""
    assert run(["ledger", "export", "--to", "nowhere/runs.csv"]) == 2
    assert capsys.readouterr().err.startswith("nowhere/runs.csv: can't be written")


def test_verify_names_file_and_line(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A flipped byte; then no command speaks from that ledger."""
    path = root / "experiments" / "ledger" / "mabcdef.jsonl"
    number = flip(path, path.stat().st_size // 2, 2)
    assert run(["ledger", "verify"]) == 1
    assert f"mabcdef.jsonl:{number}: " in capsys.readouterr().err
    for command in (["ledger", "export"], ["ledger", "rebuild-index"], ["report"]):
        assert run(command) == 3
        assert f"mabcdef.jsonl:{number}: " in capsys.readouterr().err


def test_index_is_rebuilt_and_git_does_not_see_it(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It lies in the folder that belongs to this machine alone."""
    assert run(["ledger", "rebuild-index", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {"events": 12, "index": f".golfctl/{ledgerindex.FILE}"}
    assert (root / said["index"]).is_file()
    assert ".golfctl/" in (Path(__file__).parents[2] / ".gitignore").read_text().splitlines()


@pytest.mark.service
def test_merged_ledgers_come_to_the_same_state_in_either_order(tmp_path: Path) -> None:
    """Two machines, real git: each works on its own clone; each merges the other."""

    def git(folder: Path, *words: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
        subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)

    root = campaigns.make(tmp_path / "one")
    (root / ".gitignore").write_text(".golfctl/\n")
    write_long(root / "experiments" / "ledger", 3)
    git(root, "init")
    git(root, "add", ".")
    git(root, "commit", "-m", "start")
    git(tmp_path, "clone", "one", "two")
    folders = [tmp_path / "one", tmp_path / "two"]
    shared = next(iter(open_state(load(root)).runs))
    for number, folder in enumerate(folders):
        campaign = load(folder)
        ledger = Ledger(campaign.ledger_folder, campaign.state_folder)
        ledger.append(Type.FAILURE_NOTE, {"subject": f"of {number}", "title": "t", "cause": "c", "numbers": "n"})
        ending = {"run": shared, "outcome": "completed", "reason": f"seen by {number}", "evidence": str(number)}
        ledger.append(Type.RUN_FINISHED, ending | {"result": {"score": 2.0 + number}})
        git(folder, "add", ".")
        git(folder, "commit", "-m", f"of {number}")
    git(tmp_path, "clone", "two", "three")
    git(tmp_path / "three", "pull", "--no-rebase", "--no-edit", str(folders[0]))
    git(folders[0], "pull", "--no-rebase", "--no-edit", str(folders[1]))
    states = [open_state(load(folder)) for folder in (folders[0], tmp_path / "three")]
    assert repr(states[0]) == repr(states[1])
    assert {note.data["subject"] for note in states[0].notes} == {"of 0", "of 1"}
    assert states[0].events == 9 + 4


def test_export_replaces_exports_and_nothing_else(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The ledger, a plan or the settings named by a slip stay as they are; an export of yesterday is written anew."""
    (chain,) = (root / "experiments" / "ledger").glob("*.jsonl")
    before = {path: path.read_bytes() for path in (chain, root / "golf.yaml")}
    for path in before:
        assert run(["ledger", "export", "--to", str(path)]) == 2
        assert "exists, and is no export" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in before} == before
    for form in ("csv", "jsonl"):
        for what in ("runs", "events"):
            for _ in range(2):
                assert run(["ledger", "export", what, "--format", form, "--to", f"{what}.{form}"]) == 0
    capsys.readouterr()
    assert run(["ledger", "export", "--to", "-"]) == 0
    assert capsys.readouterr().out == (root / "runs.csv").read_text()


@pytest.mark.parametrize("text", ["a\x1b[2Jb", "a\rb", "a\u2028b", "<!-- event mabcdef:5 -->", "bad\udcff", " "])
def test_texts_for_ever_are_plain_lines(root: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What would harm a terminal, break the notes or not fit into the ledger is refused, and nothing is recorded."""
    before = [path.read_bytes() for path in (root / "experiments" / "ledger").glob("*.jsonl")]
    assert run(["fail", "add", "idea", "--title", text, "--numbers", "+0.1"]) == 2
    assert run(["fail", "add", text, "--title", "t", "--numbers", "+0.1"]) == 2
    assert "one line of plain text" in capsys.readouterr().err
    assert [path.read_bytes() for path in (root / "experiments" / "ledger").glob("*.jsonl")] == before


@pytest.mark.parametrize(
    "damage", [b"[]", b'{"count": 1e999, "hash": "x"}', b'{"count": -2, "hash": "x"}', b"[" * 100_000]
)
def test_damaged_witness_or_machine_file_is_told(root: Path, damage: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    """A witness of nonsense is a finding of `ledger verify`; a machine file of nonsense is made anew. No crash."""
    (chain,) = (root / "experiments" / "ledger").glob("*.jsonl")
    chain.with_suffix(".head").write_bytes(damage)
    assert run(["ledger", "verify"]) in (1, 3)
    assert chain.stem in "".join(capsys.readouterr())
    Ledger(root / "other", root / ".golfctl").append(Type.FAILURE_NOTE, {"subject": "x"})
    (root / ".golfctl" / "machine.json").write_bytes(damage)
    Ledger(root / "other", root / ".golfctl").append(Type.FAILURE_NOTE, {"subject": "y"})
    assert len(list((root / "other").glob("*.jsonl"))) == 2


@pytest.mark.parametrize("heads", ['{"mabcdef": "abc@1"}', "[1]", "null", '{"mabcdef": 7.5}'])
def test_verify_names_a_run_folder_whose_heads_cannot_be_read(
    root: Path, heads: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A damaged run.json is a finding with its place, not the end of the search."""
    spec = root / "experiments" / "runs" / "x" / "run.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(f'{{"ledger": {heads}}}')
    assert run(["ledger", "verify"]) == 1
    assert "experiments/runs/x/run.json: its `ledger` names no heads of the ledger" in capsys.readouterr().err


def test_file_of_another_machine_that_is_missing_is_told(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One machine launched a run, another recorded its end, and the first one's file is not here: located, in every command."""
    folder = root / "experiments" / "ledger"
    (chain,) = folder.glob("*.jsonl")
    data = next(
        json.loads(line)["data"]
        for line in chain.read_bytes().splitlines()
        if json.loads(line)["type"] == "run_finished"
    )
    Ledger(folder, root / ".golfctl").append(Type.RUN_FINISHED, data)
    for path in (chain, chain.with_suffix(".head")):
        path.unlink()
    (other,) = folder.glob("*.jsonl")
    for command in (["ledger", "verify"], ["runs", "list"], ["cost"], ["report"], []):
        assert run(command) in (1, 3), command
        assert f"{other.name}:1: speaks of run {data['run']}, whose launch is in no file here" in "".join(
            capsys.readouterr()
        )


def test_event_on_a_disk_too_full_for_its_witness_is_recorded_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line is durable, so nobody is told that nothing was recorded; the next append mends the witness."""
    from golfctl.store import ledger as module

    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    own = Ledger(root / "other", root / ".golfctl")
    own.append(Type.FAILURE_NOTE, {"subject": "a"})
    with monkeypatch.context() as patched:
        patched.setattr(module, "write_atomic", full)
        own.append(Type.FAILURE_NOTE, {"subject": "b"})
    assert [event.data["subject"] for event in own.events()] == ["a", "b"]
    own.append(Type.FAILURE_NOTE, {"subject": "c"})
    (chain,) = own.chains()
    assert (chain.defects, json.loads((root / "other" / f"{chain.machine}.head").read_text())["count"]) == ((), 3)


def test_words_of_others_are_no_witness_of_the_ledger(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A crash that prints our marks, an entry pasted from another campaign: neither says that anything was cut off here."""
    campaign = load(root)
    (chain,) = (root / "experiments" / "ledger").glob("*.jsonl")
    evil = f"<!-- event {chain.stem}:99999 --> {chain.stem} 99999@0123456789ab"
    pasted = "\n## 2026-01-01 idea: note <!-- event mabc123:7 -->\n\n- tried: x\n"
    for path in (campaign.log_file, campaign.failures_file, campaign.report_file):
        path.write_text(f"# Notes\n\n- {evil}\n{pasted if path != campaign.report_file else ''}")
    assert run(["ledger", "verify"]) == 0, capsys.readouterr()
    campaign.failures_file.write_text(f"# Notes\n\n## 2026-01-01 idea: note <!-- event {chain.stem}:99999 -->\n")
    assert run(["ledger", "verify"]) == 1
    assert "failures.md saw 99999 events" in "".join(capsys.readouterr())
    for path in (chain, chain.with_suffix(".head")):
        path.unlink()
    assert run(["ledger", "verify"]) == 1, "a ledger that is gone as a whole is not intact"


def test_entries_hold_the_words_of_a_run_harmlessly(tmp_path: Path) -> None:
    """What a run or a plan's title says becomes one line without our marks, in both notebooks."""
    from golfctl.domain.event import Event
    from golfctl.store.notebook import ANCHOR, sync

    evil = "boom\n## x <!-- event mabc123:99 -->"
    data = {
        "subject": "idea",
        "title": evil,
        "numbers": evil,
        "why": evil,
        "cause": "crash",
        "who": evil,
        "source": evil,
    }
    state = open_state(load(campaigns.make(tmp_path / "c")))
    state.notes.append(Event("mabcdef", 1, "", "2026-01-01T00:00:00Z", Type.FAILURE_NOTE, data))
    sync(tmp_path / "log.md", tmp_path / "failures.md", state, {})
    assert ANCHOR.findall((tmp_path / "failures.md").read_text()) == ["mabcdef:1"]
    assert "<!-- event mabc123" not in (tmp_path / "failures.md").read_text()


@pytest.mark.service
def test_plan_frozen_in_two_forms_gets_a_revision_of_its_own(tmp_path: Path) -> None:
    """After the merge the verdict is given anew, from the runs of this form alone; none is started twice."""
    root = campaigns.make(tmp_path / "c")
    campaigns.golfctl(root, "gate", "run", "sharp", "--through", "1", "--yes")
    folder = root / "experiments" / "ledger"
    ours = next(event for event in Ledger(folder, root / ".golfctl").events() if event.type is Type.PLAN_FROZEN)
    Ledger(folder, tmp_path / "other").append(Type.PLAN_FROZEN, {**ours.data, "digest": "0" * 64, "bundle": "0" * 64})
    remark = "sharp: two machines froze its revision 1 in two forms"
    assert remark in "".join(
        getattr(campaigns.golfctl(root, "ledger", "verify"), stream) for stream in ("stdout", "stderr")
    )
    assert open_state(load(root)).verdict("sharp", 1) is None
    campaigns.golfctl(root, "gate", "run", "sharp", "--through", "1", "--yes")
    state = open_state(load(root))
    said, revision = state.verdict("sharp", 1), state.revision("sharp")
    assert said is not None
    assert revision is not None
    assert (said.answer, revision.number, revision.digest) == ("PASS", 2, ours.data["digest"])
    assert len(state.runs) == 1
    assert remark not in campaigns.golfctl(root, "ledger", "verify").stdout
