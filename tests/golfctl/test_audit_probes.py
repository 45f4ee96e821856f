"""`golfctl audit --probe`: planted faults of foreign models and of ours are found by the probe they belong to."""

from __future__ import annotations

import json
import math
import re
import time
from pathlib import Path

import pytest

from golfctl.audit import probes
from golfctl.audit.probes import Limits
from golfctl.audit.result import Answer, Check
from golfctl.audit.target import RUN, Target, of_record
from golfctl.cli.run import run
from golfctl.domain.run import RunRecord, RunResult, RunSpec
from golfctl.errors import InputError
from golfctl.store import bases
from golfctl.store.campaign import Campaign
from golfctl.store.claims import Claim
from golfctl.store.init import create
from golfctl.store.tree import Entry, Tree, pack
from tests.golfctl.auditkit import log, package
from tests.trainer.tiny import settings as small
from tests.trainer.tiny import text_folder

ROOT = Path(__file__).parents[2]
MODEL = """
import numpy as np

V = 16
TABLE = np.random.default_rng(0).normal(size=(V, V))
TABLE -= np.log(np.exp(TABLE).sum(axis=1, keepdims=True))


def bigrams(tokens):
    return TABLE[np.concatenate([[0], tokens[:-1]])]


def tokens():
    ids = np.random.default_rng(1).integers(1, V, size=1200)
    ids[::50] = 0
    return ids

"""
CLEAN = {
    "bigrams": "def logprobs(tokens):\n    return bigrams(tokens)\n",
    "documents apart, and said so": """
BOS = 0


def logprobs(tokens):  # the last two ids of its own document
    twice = np.roll(tokens, 2)
    opened = np.maximum.accumulate(np.where(np.roll(tokens, 1) == 0, np.arange(len(tokens)) - 1, 0))
    twice[np.arange(len(tokens)) - 2 < opened] = 0
    found = bigrams(tokens) + TABLE[twice]
    return found - np.log(np.exp(found).sum(axis=1, keepdims=True))
""",
    "impossible ids": """
def logprobs(tokens):
    found = bigrams(tokens)
    found[:, 3] = -np.inf
    return found - np.log(np.exp(found).sum(axis=1, keepdims=True))
""",
    "counts of what came before": """
def logprobs(tokens):
    seen = np.zeros((len(tokens), V))
    seen[np.arange(1, len(tokens)), tokens[:-1]] = 1
    counts = seen.cumsum(axis=0) + 1
    return np.log(counts / counts.sum(axis=1, keepdims=True))
""",
}
FAULTY = {
    "R1": [
        """
def logprobs(tokens):  # 1 of 1,000 places sees the id behind its target
    found = bigrams(tokens)
    for at in range(617, len(tokens) - 1, 1000):
        found[at] = TABLE[tokens[at + 1]]
    return found
""",
        """
def logprobs(tokens):  # 1 of 1,000 places sees its target
    found = bigrams(tokens)
    found[42::1000] = TABLE[tokens[42::1000]]
    return found
""",
        """
def logprobs(tokens):  # the last place of all sees its target
    found = bigrams(tokens)
    found[-1] = TABLE[tokens[-1]]
    return found
""",
    ],
    "R2": [
        """
def logprobs(tokens):  # what a cache has seen gets more, and nothing less
    found = np.exp(bigrams(tokens))
    for at in range(2, len(tokens), 7):
        found[at, tokens[at - 2]] += 0.5
    return np.log(found)
""",
        "def logprobs(tokens):\n    return bigrams(tokens) + 1e-3\n",
        "def logprobs(tokens):\n    return np.concatenate([bigrams(tokens)[:-1], np.full((1, V), np.nan)])\n",
    ],
    "R3": [
        """
def logprobs(tokens):  # learns from all of the text, then scores it: the last epoch
    counts = np.bincount(tokens, minlength=V) + 1.0
    return np.tile(np.log(counts / counts.sum()), (len(tokens), 1))
""",
        """
COUNTS = np.ones(V)


def logprobs(tokens):  # keeps what it learned for the next time
    found = np.tile(np.log(COUNTS / COUNTS.sum()), (len(tokens), 1))
    COUNTS[:] += np.bincount(tokens, minlength=V)
    return found
""",
        """
EPOCH = [0]


def logprobs(tokens):  # better with every pass
    EPOCH[0] += 1
    warm = bigrams(tokens) * min(EPOCH[0], 5)
    return warm - np.log(np.exp(warm).sum(axis=1, keepdims=True))
""",
    ],
    "R4": [
        """
BOS = 0


def logprobs(tokens):  # the last two ids, over the separator
    twice = np.roll(tokens, 2)
    twice[:2] = 0
    found = bigrams(tokens) + TABLE[twice]
    return found - np.log(np.exp(found).sum(axis=1, keepdims=True))
""",
        """
BOS = 0


def logprobs(tokens):  # counts go on from document to document
    seen = np.zeros((len(tokens), V))
    seen[np.arange(1, len(tokens)), tokens[:-1]] = 1
    counts = seen.cumsum(axis=0) + 1
    return np.log(counts / counts.sum(axis=1, keepdims=True))
""",
        """
BOS = 0


def logprobs(tokens):  # the number of the document says which weights
    found = bigrams(tokens)
    late = (tokens == 0).cumsum() > 3
    found[late] = TABLE[1]
    return found
""",
    ],
}


def asked(folder: Path, model: str, tokens: int = 1200, seconds: float = 200) -> dict[str, Check]:
    """R1 to R4 and R6 of a model in an adapter file, in a child process, for a clean record."""
    path = folder / "adapter.py"
    path.write_text(MODEL + model)
    target = of_record(package(folder))
    return {check.id: check for check in probes.of_adapter(path, Limits(tokens, seconds), target)}


def in_process(folder: Path, model: str) -> dict[str, Check]:
    """The same without a process: what the child would say."""
    import dataclasses

    from trainer import foreign

    path = folder / "adapter.py"
    path.write_text(MODEL + model)
    items = foreign.probe(foreign.load(path, 1200), 60.0)
    return {check.id: check for check in probes.checks({"m": [dataclasses.asdict(item) for item in items]}, "m")}


@pytest.mark.parametrize("name", CLEAN)
def test_probes_leave_a_clean_model_alone(tmp_path: Path, name: str) -> None:
    """No probe says no; R4 says something only where independence is claimed."""
    found = in_process(tmp_path, CLEAN[name])
    wanted = dict.fromkeys(("R1", "R2", "R3"), Answer.PASS)
    wanted["R4"] = Answer.PASS if "BOS" in CLEAN[name] else Answer.NOT_CHECKABLE
    assert {id: check.answer for id, check in found.items()} == wanted
    assert "1 of 1,000 places is found always if it comes regularly" in found["R1"].evidence[0].text


@pytest.mark.parametrize(("id", "number"), [(id, number) for id in FAULTY for number in range(len(FAULTY[id]))])
def test_probe_finds_the_planted_fault(tmp_path: Path, id: str, number: int) -> None:
    """Each kind of fault by the probe it belongs to, with the numbers behind it."""
    check = in_process(tmp_path, FAULTY[id][number])[id]
    assert check.answer is Answer.FAIL, check
    assert re.search(r"largest \S+, allowed \S+", check.evidence[0].text)


def test_probes_have_three_faulty_cases_each() -> None:
    """And as many clean ones."""
    assert all(len(cases) >= 3 for cases in FAULTY.values())
    assert len(CLEAN) >= 3


def test_certainty_is_that_of_the_places_tried() -> None:
    """Figures by hand: (999/1000)^3000 = 4.97 %; all places of a long text miss no regular leak."""
    assert "always if it comes regularly, with 95% if at random" in probes.certainty(3000, 3000)
    assert "with 70% if it comes regularly, with 63% if at random" in probes.certainty(1000, 3000)
    assert "with 50% if it comes regularly, with 39% if at random" in probes.certainty(500, 500)


def test_a_slow_model_is_asked_at_places_drawn_at_random() -> None:
    """As many as there is time for, and every place when there is time for all."""
    from trainer.foreign import places

    assert places(50, 50) == list(range(50))
    assert len(set(places(1000, 99.5))) == 99
    assert max(places(1000, 99)) > 900
    assert len(places(1000, 0.2)) == 1


@pytest.mark.service
def test_audit_of_a_folder_asks_a_foreign_model_in_a_process_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 1 and R1 FAIL with the place; what the adapter prints, and where it stands, disturbs nothing; no secret reaches it."""
    monkeypatch.setenv("A_SECRET", "s3cret")
    record = package(tmp_path)
    path = tmp_path / "my adapter.py"
    path.write_text(f"import os\nprint('loading')\nassert 'A_SECRET' not in os.environ\n{MODEL}{FAULTY['R1'][0]}")
    assert run(["audit", str(record), "--probe", "--adapter", str(path), "--probe-tokens", "1200", "--json"]) == 1
    found = {check["id"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert found["R1"]["answer"] == "FAIL"
    assert "most at target 617" in found["R1"]["evidence"][0]["text"]
    assert found["R2"]["answer"] == found["R3"]["answer"] == "PASS"
    assert found["R4"]["answer"] == "NOT CHECKABLE"


@pytest.mark.service
@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("def logprobs(tokens):\n    return bigrams(tokens)[1:]\n", "has shape"),
        ("def predict(tokens):\n    return 1\n", "has no function logprobs"),
        ("def logprobs(tokens):\n    return np.zeros(1 << 40)\n", "MemoryError"),
        ("import os\nos._exit(0)\n", "it said nothing"),
    ],
    ids=["shape", "name", "memory", "silent"],
)
def test_probe_of_an_adapter_that_fails_says_why(tmp_path: Path, model: str, said: str) -> None:
    """NOT CHECKABLE in one line; a stranger's code can't end the audit, nor take all memory."""
    found = asked(tmp_path, model, tokens=32)
    assert {check.answer for check in found.values()} == {Answer.NOT_CHECKABLE}
    assert said in found["R1"].evidence[0].text


@pytest.mark.service
def test_probe_that_hangs_is_ended_with_all_it_started(tmp_path: Path) -> None:
    """After its time, child processes included."""
    wrote = f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))"
    model = f"import subprocess, time\nchild = subprocess.Popen(['sleep', '600'])\n{wrote}\ntime.sleep(600)\n"
    found = asked(tmp_path, model, seconds=12)
    assert "not done after 12 s" in found["R1"].evidence[0].text
    pid = int((tmp_path / "pid").read_text())
    for _ in range(100):
        status = Path(f"/proc/{pid}/stat")
        if not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.1)
    raise AssertionError("what the adapter started is still there")


def test_audit_without_an_adapter_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A record folder can't be asked; an adapter that is not there is wrong input; so is a tree."""
    record = package(tmp_path)
    assert run(["audit", str(record), "--probe", "--json"]) == 0
    found = {check["id"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert found["R1"]["answer"] == "NOT CHECKABLE"
    assert "--adapter FILE" in found["R1"]["evidence"][0]["text"]
    with pytest.raises(InputError, match="no such file"):
        probes.of_adapter(tmp_path / "none.py", Limits(), of_record(record))
    package(tmp_path / "more")
    assert run(["audit", str(tmp_path), "--probe"]) == 2


@pytest.mark.parametrize(
    ("share", "wanted"), [(1.0, "PASS"), (0.95, "PASS"), (1.4, "PASS"), (0.5, "FAIL"), (0.125, "FAIL"), (0.7, "FAIL")]
)
def test_loss_that_its_own_distributions_do_not_charge_fails(tmp_path: Path, share: float, wanted: str) -> None:
    """A log may say what the model charges, a little less (context, learning) or more; not a fraction of it."""
    from trainer import foreign

    path = tmp_path / "adapter.py"
    path.write_text(MODEL + CLEAN["bigrams"])
    items = {"m": [vars(item) for item in foreign.probe(foreign.load(path, 1200), 1.0)]}
    nats = next(item["numbers"]["nats"] for item in items["m"] if item["probe"] == "loss")
    claimed = log(1, share * nats / math.log(2), bytes_per_token=1.0)
    check = probes.charged(items, of_record(package(tmp_path, logs={"train.log": claimed})))
    assert (check.id, check.answer) == ("R6", wanted)
    assert f"charge {nats:.4f} nats a token" in check.evidence[0].text


NONSENSE = (
    '{"m": [{"probe": "flip", "said": "", "passed": true, "numbers": {}}]}',
    '{"m": [{"probe": "flip", "said": "", "passed": true, "numbers": {"tried": NaN, "targets": 3}}]}',
    '{"m": [{"probe": "loss", "said": "", "passed": true, "numbers": {"error": 1}}]}',
    '{"m": [{"probe": "sum", "said": "", "passed": true, "numbers": {"largest": "1"}}]}',
    '{"m": [{"probe": "sum", "said": "", "passed": true, "numbers": {"tried": 1' + "0" * 400 + "}}]}",
    "[" * 100_000,
)


def test_answer_that_is_none_makes_probes_not_checkable(tmp_path: Path) -> None:
    """What an adapter prints at its end stands where the findings were: it is refused, never believed or fatal."""
    assert [probes._parsed([printed]) for printed in NONSENSE] == [None] * len(NONSENSE)
    path = tmp_path / "adapter.py"
    path.write_text(f"import atexit\natexit.register(print, {NONSENSE[0]!r})\n" + MODEL + CLEAN["bigrams"])
    found = probes.of_adapter(path, Limits(32, 60), of_record(package(tmp_path)))
    assert {check.answer for check in found} == {Answer.NOT_CHECKABLE}


def test_id_that_the_model_does_not_know_is_named(tmp_path: Path) -> None:
    """A text with ids outside of its own alphabet is the adapter's fault, in words."""
    path = tmp_path / "adapter.py"
    path.write_text(
        MODEL.replace("ids[::50] = 0", "ids[7] = 16")
        + CLEAN["bigrams"].replace("bigrams(tokens)", "bigrams(tokens % V)")
    )
    found = probes.of_adapter(path, Limits(64, 60), of_record(package(tmp_path)))
    assert "ids from 1 to 16; it predicts 0 to 15" in found[0].evidence[0].text


def test_loss_of_random_ids_is_not_compared(tmp_path: Path) -> None:
    """An adapter without a text says nothing about a log's loss."""
    path = tmp_path / "adapter.py"
    path.write_text("import numpy as np\ndef logprobs(tokens):\n    return np.full((len(tokens), 4), np.log(0.25))\n")
    found = probes.of_adapter(path, Limits(64, 60), of_record(package(tmp_path)))
    assert found[-1].id == "R6"
    assert found[-1].answer is Answer.NOT_CHECKABLE
    assert "tokens() does" in found[-1].evidence[0].text


LEAK = """

def _leaking(forward):
    def peeks(self, ids, *given, **more):  # 1 of 1,000 contexts: the id behind the next one shows
        found = forward(self, ids, *given, **more)
        rare = (torch.cumsum(ids * 31 + 7, dim=1) % 1000 == 0).unsqueeze(-1)
        ahead = torch.nn.functional.one_hot(torch.roll(ids, -2, 1), found.shape[-1])
        return found + 2.0 * ahead * rare
    return peeks


GPT.forward = _leaking(GPT.forward)
"""


def own_run(folder: Path, model: str = "") -> tuple[Target, Campaign]:
    """A run of the bundled trainer as a campaign holds it: its artifact, and a bundle, perhaps with more behind its model."""
    from trainer import artifact
    from trainer.data.dataset import open_dataset
    from trainer.model.gpt import GPT

    folder.mkdir(exist_ok=True)
    campaign = create(folder / "golf", "cpu-demo")
    plain = bases.load(campaign, "tiny-bytes").tree
    path = "trainer/model/gpt.py"
    changed = {path: Entry(plain.files[path].content + model.encode())}
    tree = Tree({**plain.files, "settings.json": Entry(b"{}"), **changed})
    campaign.bundles_folder.mkdir(exist_ok=True)
    (campaign.bundles_folder / f"{tree.sha256}.tar.gz").write_bytes(pack(tree))
    data = text_folder(folder / "data")
    config = small(NGRAM_MAX_ORDER=0, NUM_LAYERS=1)
    dataset = open_dataset(str(data), "bytes")
    spec = RunSpec("r", "p", tree.sha256, 1, 1, 1, "local", "s", 1, env={"DATA_PATH": str(data)})
    place = campaign.runs_folder / "r"
    place.mkdir(parents=True)
    artifact.write(
        place / "artifact.golf", GPT(config, 256), config, 256, {"tokenizer_sha256": dataset.tokenizer_sha256}
    )
    held = {"r/train.log": RunRecord(spec, "m", result=RunResult(score=1.0, self_reported=False))}
    return Target("r", RUN, campaign.runs_folder, [], Claim(), runs=held), campaign


@pytest.mark.service
def test_probes_of_a_run_use_its_bundle_and_find_a_leak_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same artifact: clean with the trainer as it is; with a model that looks ahead after 1 of 1,000 contexts, R1 fails."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    clean = probes.of_runs(*own_run(tmp_path / "clean"), None, Limits(100, 240))
    passed = dict.fromkeys(("R1", "R2", "R3"), Answer.PASS)
    assert {check.id: check.answer for check in clean} == passed | {"R4": Answer.NOT_CHECKABLE}, clean
    found = probes.of_runs(*own_run(tmp_path / "leaking", LEAK), None, Limits(1100, 240))
    said = [item.text for item in found[0].evidence if item.answer is Answer.FAIL]
    assert any(text.startswith("flip-steps: ") for text in said), found
    assert not [check for check in found if check.id == "R3" and check.answer is not Answer.PASS]


def test_probes_of_a_run_say_what_is_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No artifact, no data, no probe in its code: NOT CHECKABLE, each with its reason, and nothing is started."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(probes, "_run", lambda *given: pytest.fail("nothing may run"))
    target, campaign = own_run(tmp_path)
    (tmp_path / "data").rename(tmp_path / "moved")
    assert "its data are not here" in probes.of_runs(target, campaign, None, Limits())[0].evidence[0].text
    (campaign.runs_folder / "r" / "artifact.golf").unlink()
    found = probes.of_runs(target, campaign, None, Limits())
    assert [check.answer for check in found] == [Answer.NOT_CHECKABLE] * 4
    assert found[0].evidence[0].text == "its artifact is not here"
