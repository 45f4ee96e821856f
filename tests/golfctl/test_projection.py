"""What `plan check` foretells: bytes of the artifact and steps in the time there is, from finished runs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from golfctl.domain.event import Type
from golfctl.domain.run import RunSpec
from golfctl.errors import InputError
from golfctl.store import bases
from golfctl.store.campaign import Campaign, load
from golfctl.store.check import check
from golfctl.store.ledger import Ledger
from golfctl.store.pace import pace_notes
from golfctl.store.projection import Known, byte_notes, project
from golfctl.store.status import open_state
from golfctl.store.tensors import WEIGHT, Models, normal_bits, trained_alike
from tests.golfctl import plankit
from tests.golfctl.campaigns import golfctl
from tests.golfctl.factories import result
from trainer.artifact import scheme_name
from trainer.config import from_values
from trainer.model.gpt import GPT
from trainer.model.roles import EMBED, MATRIX, TABLE, role

GOLF = """\
name: kit
seeds: [1, 2, 3]
rules: {artifact_cap_bytes: 1500000}
gates:
  1: {name: smoke, kind: threshold, env: {ITERATIONS: 5}, require: {step_avg_ms: "<= 400"}}
  2:
    {name: final, kind: threshold, env: {MAX_WALLCLOCK_SECONDS: 60, ITERATIONS: 20000}, require: {score: "<= 1.2"}}
"""


def grounded(root: Path) -> Campaign:
    """A campaign on the bundled trainer; its last gate ends after 60 s."""
    bases.freeze_trainer(plankit.make(root, GOLF), "ground", {})
    (root / "golf.yaml").write_text(GOLF + "base: ground\n")
    return load(root)


def measure(campaign: Campaign, plan: str, gate: int, side: str = "base_bundle", **changes: object) -> None:
    """Record two completed runs of a plan's bundle (or of its base's) at a gate."""
    resolved = check(campaign).resolved[plan]
    bundle, at = getattr(resolved, side), resolved.gate(gate)
    ledger = Ledger(campaign.ledger_folder, campaign.state_folder)
    for seed in (1, 2):
        name = f"r{bundle[:8]}-{gate}-{seed}"
        spec = RunSpec(name, "somebody", bundle, gate, seed, 1, "local", at.shape, at.processes)
        end = {"run": name, "outcome": "completed", "reason": "", "result": asdict(result(2.0, **changes))}
        ledger.append(Type.RUN_INTENT, {"spec": asdict(spec)})
        ledger.append(Type.RUN_FINISHED, end)


def notes(campaign: Campaign) -> list[str]:
    """What `plan check` foretells."""
    found = check(campaign)
    assert not found.problems
    told = (campaign, found.plans, found.resolved, open_state(campaign))
    return [*byte_notes(*told), *pace_notes(*told)]


tensors = Models(Path("/dev/null/nowhere")).tensors
"""Asks the trainer each time it is not known yet: nothing can be kept there."""


# --- tensors and their bytes ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"NUM_LAYERS": "1", "MLP_MULT": "2.6", "MATRIX_BITS": "6"},
        {"NUM_LAYERS": "5", "SKIP_CONNECTIONS": "0", "TOKENIZER": "sp1024", "NUM_KV_HEADS": "1"},
        {"NUM_LAYERS": "3", "NGRAM_MAX_ORDER": "4", "NGRAM_LOGITS": "1", "NGRAM_BUCKETS": "64", "EMBED_BITS": "6"},
        {"NGRAM_MAX_ORDER": "2", "NGRAM_DIM": "8", "MODEL_DIM": "64", "TABLE_BITS": "8"},
        {"NGRAM_MAX_ORDER": "2", "MATRIX_BITS": "5", "EMBED_BITS": "16", "TABLE_BITS": "16"},
    ],
)
def test_tensors_are_those_of_the_model(settings: Mapping[str, str]) -> None:
    """What a process of the trainer answers, against its model."""
    config = from_values(settings)
    with torch.device("meta"):
        model = GPT(config, 256 if config.tokenizer == "bytes" else 1024)
    bits = {MATRIX: config.matrix_bits, EMBED: config.embed_bits, TABLE: config.table_bits}
    real = {name: (tuple(item.shape), bits.get(role(name), 16)) for name, item in model.named_parameters()}
    assert {name: (item.shape, item.bits) for name, item in tensors(settings).items()} == real
    assert scheme_name(config).endswith("+auto"), "what does not entropy-code needs another projection"


def test_tensors_are_kept_in_a_file_that_is_never_trusted(tmp_path: Path) -> None:
    """A second reader asks no process; a damaged file is asked for anew; impossible settings are one line."""
    file = tmp_path / "kept" / "tensors.json"
    first = Models(file).tensors({})
    again = Models(file)
    assert again.tensors({}) == first
    assert "_process" not in vars(again)
    for content in (
        "{",
        "[]",
        json.dumps({"x": {"embed": ["matrix", 3, "int8", 0]}}),
        json.dumps({"x": {"a": ["m", [1, 1], "fp8", 0]}}),
    ):
        file.write_text(content)
        assert Models(file).tensors({}) == first
    with pytest.raises(InputError, match="NUM_HEADS"):
        again.tensors({"MODEL_DIM": "130"})


def test_projection_of_the_same_model_is_what_was_measured() -> None:
    """With twice the seeds' spread around it."""
    same = tensors({})
    span = project(Known(same, [300_000, 302_000]), [], same)
    assert span.point == 301_000
    assert span.high - span.point == pytest.approx(2 * 1414.2, rel=0.01) == span.point - span.low


def test_projection_doubts_weights_that_are_trained_in_another_way() -> None:
    """Another rate leaves other values in the same tensors: 0.15 bits of doubt for each; another size is no other training."""
    same = tensors({})
    values = sum(item.values for item in same.values() if item.kind == WEIGHT)
    alike, other = (project(Known(same, [300_000]), [], same, alike) for alike in (True, False))
    assert other.high - alike.high == pytest.approx(values * 0.15 / 8)
    assert trained_alike({}, {"MATRIX_BITS": "6", "MATRIX_LR": "0.02"}), "0.02 is the default"
    assert not trained_alike({}, {"MATRIX_LR": "0.04"})


def test_projection_takes_bits_off_each_value() -> None:
    """Two bits less for every matrix, whatever the codec saves beyond them."""
    eight, six = tensors({}), tensors({"MATRIX_BITS": "6"})
    values = sum(item.values for name, item in eight.items() if item != six[name])
    for weight in (300_000, 320_000):
        span = project(Known(eight, [weight]), [], six)
        assert span.point == pytest.approx(weight - values * 2 / 8)
        assert span.low < span.point < span.high


def test_tensors_of_every_scheme_have_their_bits_and_scales() -> None:
    """Branches of their own, ternary groups of 128, multiples of 4, float16, and k times the spread."""
    many = {
        "ATTN_BITS": "5",
        "MLP_BITS": "2",
        "EMBED_BITS": "16",
        "MODEL_DIM": "192",
        "NUM_HEADS": "4",
        "INT8_STEP": "4",
    }
    found = tensors({**many, "NGRAM_MAX_ORDER": "2", "NGRAM_BUCKETS": "64"})
    query, up, embed = (found[name] for name in ("blocks.0.attention.query", "blocks.0.mlp.up", "embed"))
    assert (query.bits, query.known, query.scale_bytes) == (5, False, 2 * 192)
    assert (up.bits, up.known, up.scale_bytes) == (math.log2(3), True, 2 * 2 * up.shape[0]), "two groups a row"
    assert (embed.kind, embed.bits, embed.scale_bytes, embed.coded(0.4)) == (WEIGHT, 16, 0, 2 * embed.values)
    assert found["ngrams.project"].bits == 6, "multiples of 4 within 8 bits"
    spread = tensors({"QUANT_CLIP": "sigma", "MATRIX_BITS": "6", "MATRIX_CLIP_SIGMAS": "12.85"})["blocks.0.mlp.up"]
    assert spread.known
    assert spread.bits == pytest.approx(6 - math.log2(12.85) + 1, abs=0.1), "#1394: b - log2 k + const"


@pytest.mark.parametrize("sigma", [0.05, 0.3, 1.0, 3.9, 4.1, 30.0])
def test_bits_of_a_rounded_normal_value_are_its_entropy(sigma: float) -> None:
    """Against counted symbols, from steps far wider than the spread to far finer ones."""
    drawn = torch.randn(400_000, generator=torch.Generator().manual_seed(0)) * sigma
    shares = torch.unique(torch.round(drawn), return_counts=True)[1] / len(drawn)
    assert normal_bits(sigma) == pytest.approx(-(shares * shares.log2()).sum().item(), abs=0.01)


@pytest.mark.parametrize("weight", [150_000, 230_000, 300_000])
@pytest.mark.parametrize("bits", ["2", "4"])
def test_projection_of_coarse_weights_is_never_below_what_they_hold(weight: int, bits: str) -> None:
    """Weights that pack well leave few bits to save: their coarse form still has some, with tables or without."""
    coarse = {"MATRIX_BITS": bits, "EMBED_BITS": bits}
    for more in ({}, {"NGRAM_MAX_ORDER": "2", "NGRAM_BUCKETS": "64"}):
        before, after = tensors(more), tensors({**more, **coarse})
        span = project(Known(before, [weight]), [], after)
        values = sum(item.values for item in after.values() if item.kind == WEIGHT)
        assert 0.5 * values / 8 < span.point < weight
        assert 0 <= span.low <= span.point <= span.high


def test_projection_knows_the_bits_that_the_spread_decides() -> None:
    """Six bits at k = 12.85 keep 3.3 whatever a run with the largest weight at the end of the row has shown."""
    peak, spread = tensors({"MATRIX_BITS": "6"}), tensors({"MATRIX_BITS": "6", "QUANT_CLIP": "sigma"})
    changed = [item for name, item in spread.items() if item != peak[name]]
    span = project(Known(peak, [250_000]), [], spread, alike=False)
    assert span.point < 250_000 - sum(item.values for item in changed) * 1.5 / 8
    assert span.point > sum(item.values * item.bits / 8 for item in changed)


def test_bits_are_trained_for_where_training_rounds() -> None:
    """Otherwise they are a matter of the export."""
    assert trained_alike({"QAT_START": "1"}, {"MLP_BITS": "4", "EMBED_CLIP_SIGMAS": "15"})
    assert not trained_alike({"QAT_START": "0.5"}, {"QAT_START": "0.5", "MLP_BITS": "4"})


def test_projection_learns_the_codec_from_runs_without_tables() -> None:
    """The base's runs say what the codec saves a value; a layer more is that much lighter."""
    plain, tables = tensors({}), tensors({"NGRAM_MAX_ORDER": "2"})
    more = tensors({"NGRAM_MAX_ORDER": "2", "NUM_LAYERS": "3"})
    spans = [project(Known(tables, [900_000]), [Known(plain, [size])], more) for size in (270_000, 300_000)]
    assert spans[1].point - spans[0].point == pytest.approx(30_000 / 2, rel=0.2), "a third block beside two"


def test_projection_of_an_unseen_table_is_anything_up_to_its_size() -> None:
    """How many rows training touches is not known; a table that was seen scales by its rows."""
    plain, table = tensors({}), tensors({"NGRAM_MAX_ORDER": "2"})
    full = 32768 * 16 * 6 / 8 + 2 * 32768
    unseen = project(Known(plain, [300_000]), [], table)
    assert unseen.high - unseen.low > full
    seen = Known(table, [500_000])
    fewer = project(seen, [Known(plain, [300_000])], tensors({"NGRAM_MAX_ORDER": "2", "NGRAM_BUCKETS": "16384"}))
    assert 500_000 - fewer.point == pytest.approx(200_000 / 2, rel=0.1)


# --- notes on plans ------------------------------------------------------------------------------------------------------
def test_plan_on_the_trainer_is_projected_from_its_settings(tmp_path: Path) -> None:
    """More when it is larger, told when it can't fit, silent once it was measured."""
    campaign = grounded(tmp_path)
    plankit.plan(campaign, "six", "diffs: [{set: {MATRIX_BITS: 6}}]\n")
    plankit.plan(campaign, "huge", "diffs: [{set: {MODEL_DIM: 512}}]\n")
    assert notes(campaign) == [], "nothing was measured yet"
    measure(campaign, "six", 1, model_bytes=300_000, artifact_bytes=400_000)
    huge, six = sorted(notes(campaign))
    assert huge.startswith("huge: it cannot fit: projected ")
    assert "MB" in six
    assert six.startswith("six: projected 0.")
    assert six.endswith("cap 1.50 (from its settings and ground at gate 1: 0.40 MB, n 2)")
    measure(campaign, "six", 1, "bundle", model_bytes=200_000, artifact_bytes=300_000)
    assert [note for note in notes(campaign) if note.startswith("six")] == []


def test_patched_model_is_not_projected_from_settings(tmp_path: Path) -> None:
    """Its shapes may be others: what the plan expects counts, or nothing does."""
    campaign = grounded(tmp_path)
    block = bases.load(campaign, "ground").tree.files["trainer/model/block.py"].content.decode()
    diff = plankit.patch(campaign, "p", block, block + "\nWIDER = True\n", "trainer/model/block.py")
    plankit.plan(campaign, "p", f"diffs: [{{patch: {diff}}}]\n")
    measure(campaign, "p", 1, model_bytes=300_000, artifact_bytes=400_000)
    assert notes(campaign) == ["p: its bytes can't be told: p says no expect.bytes (ground at gate 1: 0.40 MB, n 2)"]


def test_plan_on_a_script_is_projected_from_what_it_expects(tmp_path: Path) -> None:
    """Its parent's measured bytes and `expect.bytes`, over every plan in between; and it says so."""
    campaign = plankit.make(tmp_path)
    plankit.plan(campaign, "A", "expect: {bytes: [100000, 300000]}\ndiffs: [{set: {WIDTH: 8}}]\n")
    plankit.plan(campaign, "B", "depends_on: [A]\nexpect: {bytes: 50000}\ndiffs: [{set: {LEARNING_RATE: 1}}]\n")
    measure(campaign, "A", 1, model_bytes=15_799_000, artifact_bytes=15_800_000)
    source = "(from the plan's own expect.bytes and tiny at gate 1: 15.80 MB, n 2)"
    assert notes(campaign) == [
        f"A: it may not fit: projected 16.00 MB +- 0.10 (+0.20), cap 16.00 {source}",
        f"B: it may not fit: projected 16.05 MB +- 0.10 (+0.25), cap 16.00 {source}",
    ]


@pytest.mark.service
def test_plan_check_tells_what_is_foretold(tmp_path: Path) -> None:
    """Among its notes; a damaged ledger foretells nothing, and stops no check."""
    campaign = plankit.make(tmp_path)
    plankit.plan(campaign, "A", "expect: {bytes: 900000}\ndiffs: [{set: {WIDTH: 8}}]\n")
    measure(campaign, "A", 1, model_bytes=15_799_000, artifact_bytes=15_800_000)
    found = json.loads(golfctl(tmp_path, "plan", "check", "--json").stdout)
    assert (found["ok"], found["notes"][-1][:31]) == (True, "A: it cannot fit: projected 16.")
    ledger = next(campaign.ledger_folder.glob("*.jsonl"))
    ledger.write_bytes(ledger.read_bytes().replace(b"15800000", b"15700000", 1))
    done = golfctl(tmp_path, "plan", "check")
    assert "note: sizes and steps are not projected: the ledger is damaged" in done.stderr


# --- steps ---------------------------------------------------------------------------------------------------------------
def test_steps_in_a_gates_seconds_are_counted(tmp_path: Path) -> None:
    """60 s at 50 ms are 1,200 steps; a plan that expects 10 ms more makes 200 fewer."""
    campaign = grounded(tmp_path)
    plankit.plan(campaign, "slow", "expect: {step_avg_ms: 10}\ndiffs: [{set: {MLP_MULT: 4}}]\n")
    measure(campaign, "slow", 1, step_avg_ms=50.0, model_bytes=None)
    assert notes(campaign) == [], "five steps end the smoke run, whatever they take"
    measure(campaign, "slow", 2, step_avg_ms=50.0, model_bytes=None)
    assert notes(campaign) == [
        "ground: 1 process, 60 s: 50.0 ms a step (n 2) make 1,200 steps; 1 % slower costs 12",
        "slow: it expects +10.0 ms a step: 200 steps fewer than ground's 1,200 (1 process, 60 s)",
    ]


def test_measured_step_time_beats_the_expected_one(tmp_path: Path) -> None:
    """The plan's smoke run took a quarter longer than the base's: so will its steps where time ends the run."""
    campaign = grounded(tmp_path)
    plankit.plan(campaign, "slow", "expect: {step_avg_ms: 10}\ndiffs: [{set: {MLP_MULT: 4}}]\n")
    for gate, ms in ((1, 80.0), (2, 50.0)):
        measure(campaign, "slow", gate, step_avg_ms=ms, model_bytes=None)
    measure(campaign, "slow", 1, "bundle", step_avg_ms=100.0, model_bytes=None)
    own = next(note for note in notes(campaign) if note.startswith("slow"))
    assert own == "slow: its steps took +25.0% at gate 1: 240 steps fewer than ground's 1,200 (1 process, 60 s)"


def test_where_steps_end_the_run_a_slower_step_costs_none(tmp_path: Path) -> None:
    """20,000 steps of 1 ms are over before the minute is."""
    campaign = grounded(tmp_path)
    plankit.plan(campaign, "any", "diffs: [{set: {MLP_MULT: 4}}]\n")
    measure(campaign, "any", 2, step_avg_ms=1.0, model_bytes=None)
    assert notes(campaign) == []
