"""S1 to S10: faults planted in small scripts are found on their line; scripts that do it right are left alone."""

from __future__ import annotations

import base64
import lzma
import zlib
from pathlib import Path

import pytest

from golfctl.audit import code
from golfctl.audit.result import Answer
from golfctl.audit.source import Script, scripts, unpacked
from golfctl.audit.target import RECORD, Target
from golfctl.store.claims import Claim
from tests.golfctl import auditflow
from tests.golfctl.auditscripts import CLEAN, FAULTY

HERE = Path(__file__).parents[2]


def findings(number: str, source: str) -> list[int]:
    """Lines a rule names in a script."""
    found = scripts({"train_gpt.py": source.encode()})[0][:1]
    return sorted({line for line, _ in code.look(found)[1][number, 0]})


@pytest.mark.parametrize(
    ("number", "source"),
    [(number, source) for number, sources in FAULTY.items() for source in sources],
    ids=lambda value: value if len(value) < 4 else "",
)
def test_code_check_finds_the_planted_line(number: str, source: str) -> None:
    """The rule names exactly the line that is wrong."""
    wrong = [line for line, text in enumerate(source.splitlines(), 1) if "# HERE" in text]
    assert findings(number, source) == wrong


@pytest.mark.parametrize(
    ("number", "source"),
    [(number, source) for number, sources in CLEAN.items() for source in sources],
    ids=lambda value: value if len(value) < 4 else "",
)
def test_code_check_leaves_clean_code_alone(number: str, source: str) -> None:
    """What looks alike and is right is not warned of."""
    assert findings(number, source) == []


@pytest.mark.parametrize(
    ("number", "source"),
    [(number, source) for number, sources in auditflow.FAULTY.items() for source in sources],
    ids=lambda value: value if len(value) < 4 else "",
)
def test_code_check_follows_values_to_the_planted_line(number: str, source: str) -> None:
    """What no name gives away is found by following values through calls, objects and loops."""
    wrong = [line for line, text in enumerate(source.splitlines(), 1) if "# HERE" in text]
    assert findings(number, source) == wrong


@pytest.mark.parametrize(
    ("number", "source"),
    [(number, source) for number, sources in auditflow.CLEAN.items() for source in sources],
    ids=lambda value: value if len(value) < 4 else "",
)
def test_code_check_follows_clean_code_without_a_warning(number: str, source: str) -> None:
    """A careful reader finds nothing there, and neither does the rule."""
    assert findings(number, source) == []


def test_code_checks_have_three_faulty_and_three_clean_cases_each() -> None:
    """No rule goes untested on either side."""
    numbers = {rule.id for rule in code.RULES}
    assert {number for number, cases in FAULTY.items() if len(cases) >= 3} == numbers
    assert {number for number, cases in CLEAN.items() if len(cases) >= 3} == numbers


@pytest.mark.parametrize("pack", ["lzma85", "zlib64", "raw"])
def test_code_checks_look_into_packed_scripts(pack: str) -> None:
    """A script inside a compressed string is unpacked, not run, and its lines are named as such."""
    inner = FAULTY["S6"][0].replace("def", "import torch\n\ndef", 1) + "".join(
        f"# {n * n} {n**3}\n" for n in range(300)
    )
    if pack == "lzma85":
        filters = [{"id": lzma.FILTER_LZMA2}]
        data = base64.b85encode(lzma.compress(inner.encode(), format=lzma.FORMAT_RAW, filters=filters)).decode()
        outer = (
            f"import lzma as L,base64 as B\nexec(L.decompress(B.b85decode({data!r}),L.FORMAT_RAW,None,[{{'id':33}}]))\n"
        )
    elif pack == "zlib64":
        data = base64.b64encode(zlib.compress(inner.encode())).decode()
        outer = f"import zlib,base64\nexec(zlib.decompress(base64.b64decode({data!r})))\n"
    else:
        outer = f"SOURCE = {inner!r}\nexec(SOURCE)\n"
    found = [item for item in scripts({"train_gpt.py": outer.encode()})[0] if item.inside]
    assert len(found) == 1
    assert found[0].at(5) == f"train_gpt.py (unpacked from line {1 if pack == 'raw' else 2}):5"
    target = Target("x", RECORD, HERE, [], Claim(), code={"train_gpt.py": outer.encode()})
    answers = {check.id: check.answer for check in code.check(target)}
    assert answers["S6"] is Answer.WARN


def test_unpacking_is_bounded_and_never_executes() -> None:
    """A bomb stops at its bound; rubbish is rubbish."""
    bomb = base64.b64encode(zlib.compress(b"import os\n" + b" " * 50_000_000)).decode()
    assert len(unpacked(bomb) or b"") <= 2_000_000
    assert unpacked("x" * 5000) is None
    assert unpacked(b"\x00" * 5000) is None


@pytest.mark.parametrize("without", ["nothing", "/export/"])
def test_own_trainer_is_clean(without: str) -> None:
    """No rule warns of the bundled trainer, whose test-time training scores first; nor of what a bundle holds of it."""
    paths = [path for path in sorted((HERE / "trainer").rglob("*.py")) if without not in path.as_posix()]
    sources = {path.relative_to(HERE).as_posix(): path.read_bytes() for path in paths}
    found, broken = scripts(sources, whole=True)
    assert not broken
    said = [
        (number, found[index].at(line), text)
        for (number, index), lines in code.look(found)[1].items()
        for line, text in lines
        if not (number == "S9" and found[index].path in FETCHERS)
    ]
    assert said == []


FETCHERS = {"trainer/data/fetch.py", "trainer/data/download.py"}
"""`python -m trainer.data fetch` downloads, by name and on demand; no run imports it."""


def test_script_without_python_is_not_checkable() -> None:
    """No code here: NOT CHECKABLE; code that does not parse: said by name."""
    nothing = code.check(Target("x", RECORD, HERE, [], Claim()))
    assert {check.answer for check in nothing} == {Answer.NOT_CHECKABLE}
    broken = code.check(Target("x", RECORD, HERE, [], Claim(), code={"train_gpt.py": b"def f(:\n"}))
    assert all("train_gpt.py" in check.evidence[0].where for check in broken)
    assert isinstance(scripts({"train_gpt.py": b"x = 1\n"})[0][0], Script)


@pytest.mark.parametrize(
    "way",
    [
        'split = "val"\nif len(sys.argv) > 1:\n    split = "train"\nlearn(split)',
        'learn("train" if at else "val")',
        'learn(**{"split": "val"})',
        "for part in (others, others, tokens):\n    step(part)",
        "match at:\n    case _:\n        step(tokens)",
        "assert step(tokens) is None",
        'learn("x")\nlearn("val")',
    ],
)
def test_code_that_may_learn_from_validation_tokens_is_met_on_every_way(way: str) -> None:
    """A branch is left out only where the text that decides it is known; nothing that runs is passed over."""
    source = (
        'tokens = np.fromfile("data/fineweb_val_000.bin")\nothers = np.fromfile("data/fineweb_train_000.bin")\n'
        "def step(data):\n    net(data[:64], data[1:65]).backward()\n"
        'def learn(split="train"):\n    if split == "val":\n        step(tokens)\n'
    )
    found, _ = scripts({"train_gpt.py": f"import sys\n{source}{way}\n".encode()})
    assert code.look(found)[1]["S1", 0]
    clean, _ = scripts({"train_gpt.py": f"import sys\n{source}learn('train')\nlearn()\n".encode()})
    assert not code.look(clean)[1]["S1", 0]


def test_code_that_can_not_be_followed_to_its_end_is_not_checkable() -> None:
    """Thirty functions that call the next twice: silence is no PASS. Tuples that double with each line end quickly."""
    calls = "".join(f"def f{at}(x):\n    f{at + 1}(x)\n    f{at + 1}(x)\n    y = x[{at}]\n" for at in range(30))
    nested = "x = (tokens, 2)\nfor i in range(3):\n" + "    x = (x, x, x, x)\n" * 14
    answers = []
    for body in (f"{calls}def f30(x):\n    val_tokens[x]\nf0(val_tokens)\n", nested):
        target = Target("x", RECORD, HERE, [], Claim(), code={"train_gpt.py": body.encode()})
        answers.append({check.id: check.answer for check in code.check(target)}["S1"])
    assert answers[1] is Answer.PASS
    assert answers[0] in {Answer.NOT_CHECKABLE, Answer.PASS}  # it may know calls again
