"""`golfctl audit`: every deterministic check says no where it must, and nothing where all is well."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from golfctl.audit import contest, words
from golfctl.audit.clocks import calibration
from golfctl.audit.durations import spoken
from golfctl.audit.result import Answer
from golfctl.cli.run import run
from golfctl.errors import InputError
from tests.golfctl.auditkit import README, SCORES, SCRIPT, answer, audited, log, package

MEAN = round(sum(SCORES.values()) / 3, 6)


def seeds(**changes: Any) -> dict[str, str]:
    """Logs of three seeds, all changed the same way."""
    return {f"train_seed{seed}.log": log(seed, bpb, **changes) for seed, bpb in SCORES.items()}


def one(**changes: Any) -> dict[str, str]:
    """Logs of three seeds, the second of them changed."""
    return seeds() | {"train_seed2.log": log(2, SCORES[2], **changes)}


CASE_OPS = {"tokens": 47_851_520, "bytes_per_token": 3.15715}
HELPER = "def f():\n    return 1\n" * 50
WITH_HELPER = f"import helper\n{SCRIPT}"
EXEC = 'exec(open(__file__.replace("train_gpt.py", "real.py")).read())\n'
BOTH = len(WITH_HELPER) + len(HELPER)
DEAD_NAME = f'"""Not helper.py."""\n{SCRIPT}'

REACHING = (
    'import importlib\nimportlib.import_module("helper")',
    '__import__("helper")',
    'import runpy\nrunpy.run_module("helper")',
    'import subprocess, sys\nsubprocess.run([sys.executable, "-m", "helper"])',
    'import sys\nsys.path.insert(0, "lib")\nimport helper',
)


def reaching(how: str) -> dict[str, Any]:
    """A script that runs another file in some way, and counts itself alone."""
    source = f"{how}\n{SCRIPT}"
    place = "lib/helper.py" if "sys.path" in how else "helper.py"
    return {"code": {"train_gpt.py": source, place: HELPER}, "logs": seeds(code=len(source))}


CASES: list[tuple[str, str, str, dict[str, Any]]] = [
    ("A1", "PASS", "under by much", {}),
    ("A1", "PASS", "at the cap to the byte", {"logs": one(model=16_000_000 - len(SCRIPT))}),
    ("A1", "PASS", "a total that is less than its parts", {"logs": one(total=14_000_000)}),
    ("A1", "FAIL", "one byte over in one seed", {"logs": one(model=16_000_001 - len(SCRIPT))}),
    ("A1", "FAIL", "16.45 MB, under 16 MiB", {"logs": seeds(model=16_450_000)}),
    ("A1", "FAIL", "only the total is over", {"logs": one(total=16_000_001)}),
    ("A2", "PASS", "one script, all of it counted", {}),
    (
        "A2",
        "PASS",
        "a helper that is counted",
        {"code": {"train_gpt.py": WITH_HELPER, "helper.py": HELPER}, "logs": seeds(code=BOTH)},
    ),
    (
        "A2",
        "PASS",
        "a file beside it that nothing runs",
        {"code": {"train_gpt.py": DEAD_NAME, "helper.py": HELPER}, "logs": seeds(code=len(DEAD_NAME))},
    ),
    (
        "A2",
        "FAIL",
        "exec of an uncounted file",
        {"code": {"train_gpt.py": EXEC, "real.py": HELPER}, "logs": seeds(code=len(EXEC))},
    ),
    (
        "A2",
        "FAIL",
        "an uncounted import",
        {"code": {"train_gpt.py": WITH_HELPER, "helper.py": HELPER}, "logs": seeds(code=len(WITH_HELPER))},
    ),
    (
        "A2",
        "FAIL",
        "compressed in the log, plain in the folder, too large so",
        {"code": {"train_gpt.py": SCRIPT + "x = 1\n" * 40_000}, "logs": seeds(code=100, model=15_900_000)},
    ),
    *(("A2", "FAIL", f"reached by {how.split()[-1]}", reaching(how)) for how in REACHING),
    ("A2", "FAIL", "exec of a text file", {**reaching('exec(open("notes.txt").read())'), "notes.txt": HELPER}),
    ("A2", "WARN", "exec of a name that is worked out", reaching('exec(open("hel" + "per.py").read())')),
    (
        "A2",
        "PASS",
        "a folder's module of another name",
        reaching("import sys\nsys.path.insert(0, 'lib')\nimport helpers"),
    ),
    ("A2", "PASS", "compile of a pattern", reaching("import re\nre.compile(open('x').read())")),
    ("A1", "FAIL", "a packed model on the disk, whatever its logs say", {"model.ptz": "x" * 16_000_000}),
    ("A1", "PASS", "one that fits", {"model.ptz": "x" * 15_000_000}),
    ("A1", "PASS", "the weights before they were packed", {"final_model.pt": "x" * 16_000_001}),
    ("A3", "PASS", "within", {}),
    ("A3", "PASS", "to the millisecond", {"logs": seeds(ms=600_000)}),
    ("A3", "PASS", "long before its time", {"logs": seeds(ms=300_000)}),
    ("A3", "WARN", "late by half a step", {"logs": one(ms=600_050)}),
    ("A3", "FAIL", "late by two steps", {"logs": one(ms=600_250)}),
    ("A3", "FAIL", "2,400 s", {"logs": one(ms=2_400_000)}),
    ("A3", "FAIL", "late by 1.15 s", {"logs": seeds(ms=601_150)}),
    ("A4", "PASS", "calibration within", {"logs": seeds(ms=588_000, extra="GPTQ:collected 67 Hessians in 11.9s")}),
    ("A4", "PASS", "no calibration", {}),
    (
        "A4",
        "PASS",
        "a reserve is no calibration",
        {"logs": seeds(ms=599_500, extra="gptq:reserving 12s, effective=588000ms")},
    ),
    ("A4", "FAIL", "604.3 s", {"logs": seeds(ms=599_433, extra="GPTQ:collected 67 Hessians in 4.9s")}),
    ("A4", "FAIL", "calibrated layers", {"logs": one(ms=599_000, extra="gptq:calibrated 66 layers in 30.1s")}),
    ("A4", "FAIL", "in milliseconds", {"logs": one(ms=599_900, extra="calibration took 8000ms")}),
    ("A4", "FAIL", "another wording", {"logs": one(ms=599_900, extra="calibration took 8.0 seconds")}),
    ("A4", "PASS", "tokens in millions", {"logs": one(ms=599_990, extra="gptq: calibration on 2M training tokens")}),
    ("A4", "PASS", "the time of day", {"logs": one(ms=599_990, extra="12:30:45 collecting hessians")}),
    ("A4", "FAIL", "minutes and seconds", {"logs": one(ms=599_990, extra="calibration took 1 min 2 s")}),
    ("A5", "PASS", "within", {}),
    ("A5", "PASS", "the time of day", {"logs": one(extra="[12:30:45] running eval of a model: 26.8M params")}),
    ("A5", "PASS", "599 s", {"logs": seeds(eval_ms=599_000)}),
    ("A5", "PASS", "1 s", {"logs": seeds(eval_ms=1_000)}),
    ("A5", "FAIL", "688 s", {"logs": one(eval_ms=688_000)}),
    ("A5", "FAIL", "600.1 s", {"logs": one(eval_ms=600_100)}),
    ("A5", "FAIL", "all of them", {"logs": seeds(eval_ms=900_000)}),
    ("A6", "PASS", "sp1024", {}),
    ("A6", "PASS", "CaseOps", {"logs": seeds(**CASE_OPS)}),
    ("A6", "PASS", "few digits allow more", {"logs": seeds(bytes_per_token=2.4362, digits=3)}),
    ("A6", "FAIL", "leading spaces twice", {"logs": seeds(bytes_per_token=2.43592 * 1.167)}),
    ("A6", "FAIL", "U+FFFD as 3 bytes", {"logs": one(bytes_per_token=2.43592 * 1.041)}),
    ("A6", "FAIL", "bpb = loss / ln 2 on pieces", {"logs": seeds(bytes_per_token=1.0)}),
    ("A7", "PASS", "sp1024", {}),
    ("A7", "PASS", "CaseOps", {"logs": seeds(**CASE_OPS)}),
    ("A7", "PASS", "windows end elsewhere", {"logs": seeds(tokens=61_997_056, bytes_per_token=2.43599)}),
    ("A7", "FAIL", "a part of the text", {"logs": seeds(tokens=36_562_944, bytes_per_token=2.43592)}),
    ("A7", "FAIL", "half of CaseOps", {"logs": one(tokens=23_925_760, bytes_per_token=3.15715)}),
    ("A7", "FAIL", "a tenth of sp8192", {"logs": one(tokens=4_054_016, bytes_per_token=3.72661)}),
    (
        "A9",
        "PASS",
        "three seeds, all claims shown",
        {"claim": {"val_bpb": MEAN, "seeds": {"1": 1.1, "2": 1.1004, "3": 1.0998}}},
    ),
    ("A9", "PASS", "a fourth seed", {"logs": seeds() | {"train_seed4.log": log(4, 1.1000667)}}),
    ("A9", "PASS", "claims cut to four digits", {"claim": {"val_bpb": 1.1000}}),
    ("A9", "PASS", "a claim with all digits of a float", {"claim": {"val_bpb": sum(SCORES.values()) / 3 + 4e-9}}),
    (
        "A9",
        "PASS",
        "a claim with more digits than its logs",
        {"logs": seeds(digits=4), "claim": {"val_bpb": MEAN + 3e-5}},
    ),
    (
        "A9",
        "FAIL",
        "logs too coarse to show a claim",
        {"logs": {f"train_seed{seed}.log": log(seed, 1.2, digits=1) for seed in (1, 2, 3)}, "claim": {"val_bpb": 1.12}},
    ),
    ("A9", "FAIL", "a seed without a log", {"claim": {"val_bpb": MEAN, "seeds": {"1": 1.1, "2": 1.1004, "9": 1.0998}}}),
    ("A9", "FAIL", "a log that prints another seed", {"logs": one(printed_seed=7)}),
    (
        "A9",
        "FAIL",
        "a claim that its log does not say",
        {"claim": {"val_bpb": MEAN, "seeds": {"1": 1.09, "2": 1.1004, "3": 1.0998}}},
    ),
    ("A9", "WARN", "one log under two names", {"logs": seeds() | {"train.log": log(1, SCORES[1])}}),
    ("A10", "PASS", "the mean, with its sample sd", {"claim": {"val_bpb": MEAN, "val_bpb_std": 0.00030551}}),
    ("A10", "PASS", "the mean alone", {}),
    ("A10", "PASS", "the mean cut to four digits", {"claim": {"val_bpb": 1.1000}}),
    ("A10", "FAIL", "the best seed", {"claim": {"val_bpb": 1.0998}}),
    (
        "A10",
        "FAIL",
        "a score before quantisation",
        {
            "claim": {"val_bpb": 1.1058},
            "logs": {"train.log": log(1, 1.1998, extra="step:5999/20000 val_loss:1.8 val_bpb:1.1058")},
        },
    ),
    ("A10", "WARN", "the population sd", {"claim": {"val_bpb": MEAN, "val_bpb_std": 0.00024944}}),
    ("A11", "PASS", "complete", {}),
    (
        "A11",
        "PASS",
        "a package its README names",
        {"code": {"train_gpt.py": "import brotli\n" + SCRIPT}, "readme": README + "pip install brotli\n"},
    ),
    (
        "A11",
        "PASS",
        "a package behind try",
        {"code": {"train_gpt.py": "try:\n    import foo\nexcept ImportError:\n    foo = None\n" + SCRIPT}},
    ),
    ("A11", "FAIL", "a script that is no Python", {"code": {"train_gpt.py": "def f(:\n"}}),
    ("A11", "WARN", "a package nothing names", {"code": {"train_gpt.py": "import brotli\n" + SCRIPT}}),
    ("A11", "WARN", "no README", {"readme": ""}),
    ("A12", "PASS", "near the others", {}),
    ("A12", "PASS", "a new record by far", {"logs": {"train.log": log(1, 0.9)}}),
    ("A12", "PASS", "a poor one", {"logs": {"train.log": log(1, 2.4)}}),
    ("A12", "WARN", "a patch loss divided twice", {"logs": {"train.log": log(1, 0.29)}}),
    ("A12", "WARN", "half of what is possible", {"logs": {"train.log": log(1, 0.55)}}),
    ("A12", "WARN", "one seed of three", {"logs": seeds() | {"train_seed2.log": log(2, 0.7)}}),
]


@pytest.mark.parametrize(("number", "wanted", "name", "made"), CASES, ids=[f"{c[0]}-{c[1]}-{c[2]}" for c in CASES])
def test_audit_answers_each_planted_case(
    tmp_path: Path, number: str, wanted: str, name: str, made: dict[str, Any]
) -> None:
    """A fault is found by the check it belongs to, and a clean package by none."""
    record = package(tmp_path, **{key: value for key, value in made.items() if "." not in key})
    for file, text in made.items():
        if "." in file:
            (record / file).write_text(text)
    found = audited(record)
    assert answer(found, number) == wanted, words.markdown([found])


def test_audit_of_a_clean_package_is_clean() -> None:
    """Every check has at least three faulty and three clean cases but A8, which has its own tests."""
    for number in {case[0] for case in CASES}:
        answers = [case[1] for case in CASES if case[0] == number]
        assert answers.count("PASS") >= 3, number
        assert len(answers) - answers.count("PASS") >= 3, number


def test_audit_says_nothing_of_a_format_it_does_not_know(tmp_path: Path) -> None:
    """Where neither token count nor bytes a token are known, the answer is NOT CHECKABLE and never FAIL."""
    found = audited(package(tmp_path, logs=seeds(tokens=None, bytes_per_token=2.9)))
    assert answer(found, "A6") == answer(found, "A7") == "NOT CHECKABLE"
    assert found.answer is not Answer.FAIL


def shard(path: Path, documents: list[list[int]]) -> None:
    """A shard in the contest's form, each document opened by id 1."""
    tokens = np.array([token for document in documents for token in (1, *document)], dtype="<u2")
    header = np.zeros(256, dtype="<i4")
    header[:3] = 20240520, 1, len(tokens)
    path.write_bytes(header.tobytes() + tokens.tobytes())


@pytest.mark.parametrize(("shared", "wanted"), [(0, "PASS"), (1, "PASS"), (40, "FAIL"), (160, "FAIL"), (200, "FAIL")])
def test_audit_finds_validation_documents_in_training(tmp_path: Path, shared: int, wanted: str) -> None:
    """Of 200 validation documents so many also lie in the training shards; one of 200 is chance."""
    rng = np.random.default_rng(0)
    text = [rng.integers(2, 1000, size=80).tolist() for _ in range(700)]
    data = tmp_path / "data"
    data.mkdir()
    shard(data / "fineweb_val_000000.bin", text[:200])
    shard(data / "fineweb_train_000000.bin", text[200:450])
    shard(data / "fineweb_train_000001.bin", text[450:700] + text[:shared])
    found = audited(package(tmp_path), data=data)
    assert answer(found, "A8") == wanted


def test_audit_finds_validation_documents_in_a_shard_that_begins_within_one(tmp_path: Path) -> None:
    """Shards are cut by size: the first token of a later one opens no document."""
    rng = np.random.default_rng(0)
    text = [rng.integers(2, 1000, size=80).tolist() for _ in range(300)]
    shard(tmp_path / "fineweb_val_000000.bin", text[:100])
    shard(tmp_path / "fineweb_train_000000.bin", text[100:200])
    path = tmp_path / "fineweb_train_000001.bin"
    shard(path, text[200:] + text[:100])
    cut = path.read_bytes()
    path.write_bytes(cut[:1024] + cut[1024 + 2 * 33 :])
    assert answer(audited(package(tmp_path / "r"), data=tmp_path), "A8") == "FAIL"


def test_audit_refuses_data_that_are_no_shards(tmp_path: Path) -> None:
    """--data with nothing in it, or with other files, is the user's error."""
    with pytest.raises(InputError, match="holds no"):
        audited(package(tmp_path), data=tmp_path)
    (tmp_path / "x_val_0.bin").write_bytes(b"abc")
    (tmp_path / "x_train_0.bin").write_bytes(b"abc")
    with pytest.raises(InputError, match="no shard"):
        audited(package(tmp_path / "more"), data=tmp_path)


def test_audit_holds_a_record_against_the_standing_score(tmp_path: Path) -> None:
    """Under all three readings of the margin; a gain below it is a warning with its p."""
    record = package(tmp_path)
    good = next(check for check in audited(record, standing=1.15).checks if check.id == "A10")
    assert good.answer is Answer.PASS
    assert any("per token" in item.text and "per byte" in item.text for item in good.evidence)
    assert answer(audited(record, standing=1.1003), "A10") == "WARN"


def test_calibration_reads_seconds_and_no_source_code(tmp_path: Path) -> None:
    """Lines of the script that a log embeds carry no numbers; the longest calibration counts."""
    path = tmp_path / "x.log"
    path.write_text(
        'log0(f"GPTQ:collected {len(h)} Hessians in {time.time() - t0:.1f}s")\n'
        "gptq:reserving 14s, effective=586000ms\nGPTQ:collected 66 Hessians in 3.4s\nGPTQ:collected 1 Hessians in 0.4s\n"
    )
    found = calibration(spoken(path))
    assert found is not None
    assert found[:2] == (3, 3.4)


def test_contest_files_are_checked(tmp_path: Path) -> None:
    """Another contest is another file; one that is none is refused with its name and what is wrong."""
    path = tmp_path / "c.yaml"
    path.write_text("name: mine\nlimits: {artifact_cap_bytes: 1000}\n")
    assert contest.load(str(path)).limits.artifact_cap_bytes == 1000
    for text, said in (
        ("name: x\n", "lacks limits"),
        ("[1]", "not a contest"),
        ("name: x\nlimits: {caps: 1}\n", "unknown key caps"),
        ("name: x\nlimits: {artifact_cap_bytes: lots}\n", "artifact_cap_bytes: 'lots' is no finite number"),
        ("name: x\nlimits: {artifact_cap_bytes: 1, alpha: .nan}\n", "alpha: nan is no finite number"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=said):
            contest.load(str(path))
    with pytest.raises(InputError, match="neither a file"):
        contest.load("nowhere")


def test_audit_command_exits_1_on_a_fail_and_writes_markdown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 0 and no FAIL for a clean folder, 1 with the name of a bad one; JSON and Markdown hold all the evidence."""
    monkeypatch.chdir(tmp_path)
    clean, bad = package(tmp_path / "clean"), package(tmp_path / "bad", logs=seeds(model=16_450_000))
    assert run(["audit", str(clean)]) == 0
    assert "FAIL" not in capsys.readouterr().out
    assert run(["audit", str(bad), "--json", "--md", str(tmp_path / "a.md")]) == 1
    said = capsys.readouterr()
    assert "audit: FAIL for 2026-04-01_Own" in said.err
    checks = {check["id"]: check for check in json.loads(said.out)["checks"]}
    assert checks["A1"]["answer"] == "FAIL"
    assert "450,0" in checks["A1"]["evidence"][0]["text"]
    assert "| A1 artifact under the cap | FAIL |" in (tmp_path / "a.md").read_text()
    assert run(["audit", str(tmp_path)]) == 1
    assert "2 targets: 1 with a FAIL" in capsys.readouterr().out
    assert run(["audit", "nothing-of-the-kind"]) == 2
    capsys.readouterr()
    assert run(["audit", str(clean), "--md", str(tmp_path / "no" / "a.md")]) == 2
    assert capsys.readouterr().err.endswith("a.md: can't be written: No such file or directory\n")


def test_audit_markdown_keeps_hostile_names_as_text(tmp_path: Path) -> None:
    """A claim or file name with table marks and tags stays text in its cell."""
    record = package(tmp_path, readme="")
    (record / "a|<script>.log").write_text(log(5, 1.1001))
    page = words.markdown([audited(record)])
    assert "<script>" not in page
    assert all(line.replace("\\|", "").count("|") == 4 for line in page.splitlines() if line.startswith("| A"))
