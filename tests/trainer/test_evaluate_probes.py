"""Probes find what they exist for: a planted leak of each kind, and nothing in a clean model."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from tests.trainer.test_evaluate_modes import HOW, gpt, stream
from tests.trainer.tiny import call, environment, text_folder
from tests.trainer.tiny import settings as small
from tests.trainer.toys import VOCAB, Toy
from trainer import artifact, probe
from trainer.data.dataset import open_dataset
from trainer.evaluate import probes
from trainer.evaluate.documents import Documents
from trainer.evaluate.sliding import Sliding
from trainer.evaluate.ttt import Ttt
from trainer.model.gpt import GPT

TABLE = torch.log_softmax(torch.randn(VOCAB, VOCAB, generator=torch.Generator().manual_seed(0)).double(), -1).numpy()


def bigrams(tokens: np.ndarray) -> np.ndarray:
    """A clean foreign model: the next id by the last one."""
    return TABLE[np.concatenate([[0], tokens[:-1]]).astype(int)]


def leaking(tokens: np.ndarray, ahead: int) -> np.ndarray:
    """The same, but in 1 of 1,000 places it sees the id `ahead` of its target (0: the target itself)."""
    found = bigrams(tokens)
    for at in range(617, len(tokens) - ahead, 1000):
        found[at] = TABLE[tokens[at + ahead]]
    return found


def test_probes_of_a_clean_callable_pass():
    """Any function of tokens will do."""
    tokens = stream(300)
    assert probes.flip(bigrams, tokens).passed
    assert probes.sums(bigrams, tokens).passed
    assert not probes.boundary(bigrams, tokens, bos=7).passed, "no document but the first: nothing was shown"


@pytest.mark.parametrize("ahead", [0, 1])
def test_flip_finds_one_future_byte_in_a_thousand_places(ahead):
    """By the place and by a number."""
    found = probes.flip(lambda tokens: leaking(tokens, ahead), stream(1100))
    assert not found.passed
    assert found.numbers["at"] == 617
    assert found.numbers["seen"] == 1 + ahead
    assert "most at target 617" in found.said


class RarelyPeeking(Toy):
    """Sees its own target after one context in hundreds."""

    def forward(self, ids):
        ahead = torch.cat([ids[:, 1:], ids[:, -1:]], dim=1)
        before = torch.cat([torch.zeros_like(ids[:, :1]), ids[:, :-1]], dim=1)
        rare = (ids == 3) & (before == 3) & (torch.arange(ids.shape[1]) == 5)
        return super().forward(ids) + 3 * torch.nn.functional.one_hot(ahead, VOCAB) * rare.unsqueeze(-1)


def test_flip_within_steps_finds_a_rare_leak_in_one_of_our_modes():
    """Every place is tried at the cost of a step; the last id of a row has none after it, so the leak needs a long row."""
    tokens = np.random.default_rng(0).integers(VOCAB, size=400).astype(np.uint16)
    how = {"seq_len": 8, "stride": 4, "batch": 1}
    assert probes.flip_steps(lambda: Sliding(Toy(), **how), tokens, 0).passed
    found = probes.flip_steps(lambda: Sliding(RarelyPeeking(), **how), tokens, 0)
    assert not found.passed
    assert 0 < found.numbers["seen"] < 20


def test_sum_finds_an_unnormalised_cache():
    """The closed pull requests' kind: what a cache has seen gets more, and nothing less."""

    def cached(tokens):
        found = np.exp(bigrams(tokens))
        for at in range(1, len(tokens)):
            if tokens[at - 1] in tokens[: at - 1]:
                found[at, tokens[np.flatnonzero(tokens[: at - 1] == tokens[at - 1])[-1] + 1]] += 0.5
        return np.log(found)

    tokens = stream(100)
    assert probes.flip(cached, tokens, range(0, 100, 9)).passed
    found = probes.sums(cached, tokens)
    assert not found.passed
    assert found.numbers["largest"] == pytest.approx(0.5)


class LastEpoch(Ttt):
    """Learns first and scores afterwards: every epoch but the last is practice."""

    alone = True

    def predict(self, text, step):
        if step.targets()[0] == 16:
            list(Ttt.learn(self, text, type(step)(step.windows, 0, ends=(16, 24))))
        return super().predict(text, step)


class Twice(Sliding):
    """Scores a batch again, once it knows how the first time went."""

    def steps(self, text):
        for step in super().steps(text):
            yield step
            if step.part == 1:
                yield step


class Hasty(Ttt):
    """Learns from the chunk after the one just scored."""

    def learn(self, text, step):
        if step.ends and step.ends[1] + 8 <= len(text):
            yield from super().learn(text, type(step)(step.windows, 0, ends=(step.ends[0] + 8, step.ends[1] + 8)))


def order_of(make):
    tokens, events = stream(), []
    probes.of_mode(make, 0, order=events)(tokens)
    return probes.order(events, len(tokens))


LEARN = {"chunk": 8, "epochs": 1, "matrix_lr": 0.05, "table_lr": 0.05} | HOW


def test_order_finds_last_epoch_scoring():
    """Weights change inside scoring; the flip probe sees it, too."""
    found = order_of(lambda: LastEpoch(gpt(), **LEARN))
    assert not found.passed
    assert found.numbers["changed while scoring"] == 1
    assert order_of(lambda: Ttt(gpt(), **LEARN)).passed
    model = gpt()
    logprobs = probes.of_mode(lambda: LastEpoch(model, **LEARN), 0)
    assert not probes.flip(logprobs, stream(), [18, 22]).passed


def test_order_finds_rescoring_and_learning_from_what_is_not_scored():
    """One pass; score first."""
    assert order_of(lambda: Twice(gpt(), **HOW)).numbers["twice"] > 0
    hasty = order_of(lambda: Hasty(gpt(), **LEARN))
    assert not hasty.passed
    assert hasty.numbers["used before scored"] > 0


def test_order_finds_a_state_that_changes_between_update_and_score():
    """Somebody writes into the weights where nobody looks."""

    class Sly(Ttt):
        def steps(self, text):
            for step in super().steps(text):
                yield step
                with torch.no_grad():
                    next(self.student.parameters()).mul_(1.5)

    assert order_of(lambda: Sly(gpt(), **LEARN)).numbers["changed in between"] > 0


def test_boundary_finds_a_mode_that_is_not_isolated():
    """The sliding window looks back over separators; documents do not."""
    tokens, model = stream(), gpt()
    assert probes.boundary(probes.of_mode(lambda: Documents(model, **HOW), 0), tokens, 0).passed
    found = probes.boundary(probes.of_mode(lambda: Sliding(model, **HOW), 0), tokens, 0)
    assert not found.passed
    assert "predicted differently behind others" in found.said


def test_flip_takes_what_is_no_number_as_a_change():
    """nan equals nothing, and an impossible id stays impossible."""

    def hole(tokens):
        found = bigrams(tokens)
        found[:, 2] = -np.inf
        found[5, 1] = np.nan if tokens[7] != stream(20)[7] else 0.0
        return found

    assert not probes.flip(hole, stream(20), [7]).passed
    assert probes.flip(hole, stream(20), [8]).passed


@pytest.mark.service
def test_probe_command_says_pass_and_fails_on_wrong_input(tmp_path, monkeypatch):
    """Lines for people, JSON for programs, exit codes for both."""
    data = text_folder(tmp_path / "data")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    dataset = open_dataset(str(data), "bytes")
    config = small(NGRAM_MAX_ORDER=2, TTT_ENABLED=1)
    path = tmp_path / "a.golf"
    artifact.write(path, GPT(config, 256), config, 256, {"tokenizer_sha256": dataset.tokenizer_sha256})
    env = environment(tmp_path / "cache", DATA_PATH=str(data), DEVICE="cpu", CPU_THREADS="1")
    done = call("-m", "trainer.probe", path, "--tokens", 96, env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr + done.stdout
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == [
        f"{label} {probe}"
        for label in ("final_sliding_window_exact", "legal_ttt_exact")
        for probe in ("flip", "flip-steps", "sum", "order")
    ]
    assert all(": PASS " in line for line in done.stdout.splitlines())


def test_probe_command_refuses_what_it_does_not_know(tmp_path, capsys):
    """One line, exit code 2, and nothing is run."""
    config = small()
    artifact.write(tmp_path / "a.golf", GPT(config, 256), config, 256, {})
    for arguments, message in (
        (["--mode", "best"], "trainer.probe: --mode best: allowed are final_"),
        (["--tokens", "few"], "trainer.probe: --tokens few: needs a whole number"),
        (["MODEL_DIM=5"], "trainer.probe: MODEL_DIM=5"),
    ):
        assert probe.main([str(tmp_path / "a.golf"), *arguments]) == 2
        assert capsys.readouterr().err.startswith(message)
    assert probe.main([str(tmp_path / "none.golf")]) == 2
    assert probe.main([]) == 2


def test_probed_stretch_begins_with_a_document_and_holds_several():
    """One long document would show no boundary."""
    tokens = np.array([5] * 50 + [0] + ([5] * 4 + [0]) * 10 + [5] * 30)
    assert probe.stretch(tokens, 0, 30).tolist() == ([5] * 4 + [0]) * 6
    assert probe.stretch(tokens, 0, 300).tolist() == tokens.tolist()
    assert probe.stretch(tokens[:20], 0, 16).tolist() == [5] * 16


@pytest.mark.parametrize("broken", [False, True])
def test_probe_command_prints_json_and_fails_on_a_fail(tmp_path, capsys, monkeypatch, broken):
    """For programs: a list of findings a label, and the exit code."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = text_folder(tmp_path / "data")
    config = small()
    artifact.write(tmp_path / "a.golf", GPT(config, 256), config, 256, {})
    if broken:
        monkeypatch.setattr(Sliding, "predict", lambda self, text, step: torch.zeros(len(step.targets()), 256))
    words = ["--json", "--tokens", "24", f"DATA_PATH={data}", "DEVICE=cpu", "CPU_THREADS=1"]
    assert probe.main([str(tmp_path / "a.golf"), *words]) == int(broken)
    (items,) = json.loads(capsys.readouterr().out).values()
    assert [item["passed"] for item in items] == [True, True, not broken, True]
