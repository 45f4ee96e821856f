"""Every mode of evaluation: the probes, the rate zero, each token once, and slow second implementations."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.trainer.tiny import settings, two_processes
from tests.trainer.toys import VOCAB
from trainer import contract
from trainer.evaluate import modes, probes
from trainer.evaluate.documents import Chunked, Documents, bounds
from trainer.evaluate.lora import DocumentLora
from trainer.evaluate.mixing import Counts, Hedge, Mixed, Tilt, Uniform, links
from trainer.evaluate.sliding import Sliding
from trainer.evaluate.text import Text
from trainer.evaluate.walk import Clock, Mode, OutOfTime, run, walk
from trainer.model.gpt import GPT
from trainer.optim.adam import Adam

SMALL = {"NGRAM_MAX_ORDER": 2, "NGRAM_LOGITS": 1, "NUM_LAYERS": 1, "EVAL_BATCH_SEQS": 2, "TTT_CHUNK_BYTES": 16}
SMALL |= {"LORA_ENABLED": 1, "LORA_CHUNK_TOKENS": 4, "LORA_DOCS": 3, "LORA_LR": 0.02, "LORA_RANK": 2, "PHASE_DOCS": 3}
SMALL |= {"TTT_MATRIX_LR": 0.01, "TTT_TABLE_LR": 0.05, "PHASE_LR": 0.1, "MIX_LOW_ORDER": 1, "MIX_HIGH_ORDER": 3}

CASES = {
    "sliding": (contract.FINAL_SLIDING, {}),
    "temperature": (contract.FINAL_SLIDING, {"EVAL_TEMPERATURE": 0.8}),
    "flat": (contract.FINAL_FLAT, {}),
    "documents": (contract.FINAL_DOCUMENTS, {}),
    "ttt": (contract.FINAL_TTT, {"TTT_EPOCHS": 2}),
    "sgd": (contract.FINAL_TTT_SGD, {"TTT_OPTIMIZER": "sgd", "TTT_SCHEDULE": "cosine", "TTT_CLIP": 0.5}),
    "lora": (contract.FINAL_LORA, {}),
    "warm": (contract.FINAL_LORA, {"LORA_WARM": 1}),
    "phased": (contract.FINAL_PHASED, {"PHASES": 2}),
    "ngrams": (contract.FINAL_NGRAMS, {}),
    "tilt": (contract.FINAL_NGRAMS, {"MIX_TILT": 2.0, "MIX_HIGH_ORDER": 2}),
    "ngrams_over_ttt": (contract.FINAL_NGRAMS, {"MIX_OVER": "ttt"}),
    "hedge": (contract.FINAL_HEDGE, {}),
    "hedge_over_ttt": (contract.FINAL_HEDGE, {"MIX_OVER": "ttt", "HEDGE_ETA": 0.5}),
}
HOW = {"seq_len": 16, "stride": 8, "batch": 2}


def gpt(**more: object) -> GPT:
    """The trainer's own model in float64, every weight away from its birth."""
    model = GPT(settings(**(SMALL | more)), VOCAB).double()
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=noise, dtype=torch.float64) * 0.3)
    return model.eval()


def stream(size: int = 60, seed: int = 0) -> np.ndarray:
    """Documents of uneven length that repeat themselves; 0 ends each."""
    random = np.random.default_rng(seed)
    words = [random.integers(1, VOCAB, size=size) for size in (3, 4, 5)]
    parts: list[np.ndarray] = []
    while sum(map(len, parts)) < size:
        chosen = [words[i] for i in random.integers(3, size=random.integers(1, 6))]
        parts += [*chosen, np.array([0])]
    return np.concatenate(parts)[:size].astype(np.uint16)


def mode_of(case: str, model: GPT | None = None) -> Mode:
    label, more = CASES[case]
    return modes.build(label, model or gpt(), settings(**(SMALL | more)), 16)[0]


def nats_of(mode: Mode, tokens: np.ndarray) -> np.ndarray:
    """Nats of each target."""
    found = np.full(len(tokens), np.nan)
    run(mode, Text(tokens, np.ones_like(tokens), 0), nlls=found)
    return found


def test_cases_hold_every_label():
    """A new mode is a new case here."""
    labels = {value for name, value in vars(contract).items() if name.startswith("FINAL_")}
    assert {label for label, _ in CASES.values()} == labels


@pytest.mark.parametrize("case", CASES)
def test_mode_passes_every_probe(case):
    """Flip, sum, order, and boundary where a mode claims it; learning takes part where there is any."""
    model = gpt()
    found = probes.of_our_mode(lambda: mode_of(case, model), stream(48), 0, flips=3)
    assert all(item.passed for item in found), [item for item in found if not item.passed]
    names = [item.probe for item in found]
    assert names[:4] == ["flip", "flip-steps", "sum", "order"]
    assert ("boundary" in names) == (case in {"documents", "lora"})
    learns = bool(mode_of(case, model).state())
    assert (
        (found[3].numbers["updates"] > 0)
        == learns
        == (case not in {"sliding", "temperature", "flat", "documents", "ngrams", "tilt"})
    )


@pytest.mark.parametrize("case", CASES)
def test_mode_scores_each_token_once_and_leaves_the_model_as_it_was(case):
    """The judge counts; a second run on the same model gives the same nats to the last bit."""
    model = gpt()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    first, second = (nats_of(mode_of(case, model), stream()) for _ in range(2))
    assert np.isfinite(first).all()
    assert (first == second).all()
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_static_score_comes_first_and_switches_add_theirs():
    """Labels in the order of their lines."""
    assert modes.wanted(settings()) == [contract.FINAL_SLIDING]
    on = {"EVAL_FLAT": 1, "EVAL_DOCUMENTS": 1, "TTT_ENABLED": 1, "LORA_ENABLED": 1, "MIX_NGRAMS": 1, "HEDGE_ENABLED": 1}
    on |= {"LORA_CHUNK_TOKENS": 4}
    every = modes.wanted(settings(**on))
    assert every[0] == contract.FINAL_SLIDING
    assert len(every) == len(set(every)) == 7
    other = modes.wanted(settings(**on, TTT_OPTIMIZER="sgd", PHASES=1))
    assert set(every) ^ set(other) == {
        contract.FINAL_TTT,
        contract.FINAL_TTT_SGD,
        contract.FINAL_LORA,
        contract.FINAL_PHASED,
    }


def test_sliding_with_stride_equal_to_context_is_flat():
    """Two labels, one number, bit for bit."""
    model = gpt()
    flat = nats_of(mode_of("flat", model), stream())
    sliding = modes.build(contract.FINAL_SLIDING, model, settings(**(SMALL | {"EVAL_STRIDE": 16})), 16)[0]
    assert (nats_of(sliding, stream()) == flat).all()


@pytest.mark.parametrize("case", ["lora", "warm", "phased"])
def test_document_training_with_rates_zero_is_the_static_score_bit_for_bit(case):
    """Adapters that do not learn add nothing: not even a rounding error."""
    model, config = gpt(), settings(**(SMALL | CASES[case][1] | {"LORA_LR": 0, "PHASE_LR": 0}))
    adapted = modes.build(CASES[case][0], model, config, 16)[0]
    static = Chunked(model, seq_len=16, chunk=4, docs=3, ordered=case == "warm", pause=3, pauses=config.phases)
    text = Text(stream(), np.ones_like(stream()), 0)
    assert run(adapted, text).nats == run(static, text).nats
    assert run(mode_of(case, model), text).nats != run(static, text).nats


def test_documents_equal_documents_scored_by_hand():
    """Each document after its separator, window by window, by the definition of the sliding window."""
    model, tokens = gpt(), stream()
    found = nats_of(Documents(model, **HOW), tokens)
    for first, stop in bounds(tokens, 0):
        # As if the document went on: how much a target sees of it may not depend on where it ends.
        endless = np.concatenate([tokens[first:stop], np.zeros(-(stop - first) % 8 + 16, np.uint16)])
        alone = nats_of(Sliding(model, **HOW), endless)
        assert found[first:stop] == pytest.approx(alone[: stop - first], rel=1e-12)


@pytest.mark.parametrize("case", ["documents", "lora"])
def test_documents_do_not_know_that_they_end_soon(case):
    """Every place flipped in the whole evaluation: an end that comes or goes moves nothing before it."""
    model, tokens = gpt(), np.array([1, 2, 3, 4, 5, 6] * 5 + [0] + [3, 4] * 4 + [0, 5], np.uint16)
    for seed in range(1 if case == "lora" else 3):
        found = probes.flip(probes.of_mode(lambda: mode_of(case, model), 0), tokens, range(15, 41, 1), seed=seed)
        assert found.passed, found
    shorter = np.where(np.arange(len(tokens)) == 20, 0, tokens).astype(np.uint16)
    before, after = (nats_of(mode_of(case, model), text) for text in (tokens, shorter))
    assert before[:20] == pytest.approx(after[:20], rel=1e-9)


def test_bounds_cover_a_text_with_empty_documents():
    """A separator behind a separator is a document of its own, and the end needs none."""
    assert bounds(np.array([0, 5, 0, 0, 7]), 0) == [(0, 1), (1, 3), (3, 4), (4, 5)]
    assert bounds(np.array([5, 0]), 0) == [(0, 2)]


def test_lora_scores_do_not_depend_on_the_order_of_documents():
    """Whatever stands beside or before a document, its nats stay: adapters are reset and learn alone."""
    model, tokens = gpt(), stream(90)
    parts = [tokens[first:stop] for first, stop in bounds(tokens, 0)][:-1]  # the last one is cut off
    nats = []
    for order in (range(len(parts)), np.random.default_rng(3).permutation(len(parts))):
        found = nats_of(mode_of("lora", model), np.concatenate([parts[i] for i in order]))
        cuts = np.cumsum([0, *(len(parts[i]) for i in order)])
        nats.append({int(i): found[a:b] for i, a, b in zip(order, cuts[:-1], cuts[1:], strict=True)})
    for number in range(len(parts)):
        assert nats[0][number] == pytest.approx(nats[1][number], rel=1e-9), number


def test_warm_adapters_do_not_know_how_long_documents_become():
    """Documents side by side stand by length: that a later one ends sooner must not change who gets which adapter."""
    random = np.random.default_rng(0)
    tokens = np.concatenate([[*random.integers(1, VOCAB, size=n), 0] for n in (19, 16, 13, 11, 10, 15)]).astype(
        np.uint16
    )
    at = len(tokens) - 12
    other = tokens.copy()
    other[at] = 0  # the last document was the longest of its batch, and becomes the shortest
    model = gpt()
    one, two = (nats_of(mode_of("warm", model), text) for text in (tokens, other))
    assert (one[:at] == pytest.approx(two[:at], rel=1e-9)) and one[at] != two[at]
    cold = nats_of(mode_of("lora", model), tokens)
    assert np.abs(one - cold)[: 17 + 20 + 14].max() == pytest.approx(0, abs=1e-9) and np.abs(one - cold).max() > 1e-3


def test_lora_equals_a_slow_second_implementation():
    """One document at a time, weights W + scale B A written into a plain copy."""
    tokens, rank, scale = stream(36), 2, 16.0 / 2
    mode = DocumentLora(gpt(), seq_len=16, chunk=4, docs=3, rank=rank, alpha=16.0, lr=0.02, decay=0.1)
    found = nats_of(mode, tokens)
    full = torch.tensor([0, *tokens.tolist()])
    for first, stop in bounds(tokens, 0):
        model = gpt()
        names = [name for name in mode.adapters.down if name != "embed"]
        down = {name: mode.adapters.first[name].clone().requires_grad_(True) for name in mode.adapters.down}
        up = {name: torch.zeros(len(model.get_parameter(name)), rank).double().requires_grad_(True) for name in down}
        adam = Adam([*down.values(), *up.values()], lr=0.02, betas=(0.9, 0.95), weight_decay=0.1)

        def rows(start, end, at, model=model, names=names, down=down, up=up):
            weights = {name: model.get_parameter(name) + scale * up[name] @ down[name] for name in names}

            def head(name, x):  # the tied table is the input, too: only the product at the end is adapted
                return x @ down[name].T @ up[name].T * scale if name == "embed" else None

            logits = torch.func.functional_call(model, weights, (full[start:end][None], head))[0]
            return F.cross_entropy(logits, full[start + 1 : end + 1], reduction="none")[at - start :]

        for at in range(first, stop, 4):
            end = min(at + 4, stop)
            start = max(first, at + 4 - 16)
            assert found[at:end] == pytest.approx(rows(start, end, at).detach().numpy(), rel=1e-7)
            for weight in adam.parameters:
                weight.grad = None
            rows(start, end, at).mean().backward()
            adam.step()


def test_phases_learn_from_scored_documents_only_and_in_time():
    """Before the first pause nothing differs from no phases; behind it everything does; the last phase is not learned from."""
    model, tokens = gpt(), stream(90)
    plain, phased = (nats_of(mode_of(case, model), tokens) for case in ("lora", "phased"))
    third = bounds(tokens, 0)[3][0]
    assert phased[:third] == pytest.approx(plain[:third], rel=1e-9)
    assert (np.abs(phased[third:] - plain[third:]) > 1e-9).all()


def test_links_lead_to_the_latest_earlier_place_with_the_same_context():
    """Against a dictionary of contexts."""
    ids = stream(200)
    found = links(ids, 4)
    for order in range(1, 5):
        latest: dict[tuple[int, ...], int] = {}
        for place in range(len(ids)):
            context = tuple(ids[place - order + 1 : place + 1].tolist()) if place >= order - 1 else None
            assert found[order - 1][place] == (latest.get(context, -1) if context else -1)
            if context:
                latest[context] = place


def slow_counts(seen: list[int], p: np.ndarray, low: int, high: int, most: int, strength: float) -> np.ndarray:
    """The n-gram correction of one distribution, by its definition; seen: ids so far, the separator first."""
    for order in range(low, high + 1):
        context = seen[-order:]
        if len(context) < order:
            break
        followers = [seen[j + order] for j in range(len(seen) - order) if seen[j : j + order] == context][-most:]
        if followers:
            count = np.bincount(followers, minlength=VOCAB)
            kinds = strength * (count > 0).sum()
            p = (count + kinds * p) / (len(followers) + kinds)
    return p


def test_ngram_mixture_equals_a_slow_second_implementation():
    """Tables of the prefix alone, one token at a time."""
    tokens, base = stream(120), Sliding(gpt(), **HOW)
    net = np.exp(probes.of_mode(lambda: base, 0)(tokens))
    found = np.exp(probes.of_mode(lambda: Mixed(base, [Counts(2, 4, 3, 2.5)]), 0)(tokens))
    for t in range(len(tokens)):
        expected = slow_counts([0, *tokens[:t].tolist()], net[t], 2, 4, 3, 2.5)
        assert found[t] == pytest.approx(expected, abs=1e-12)


def test_tilt_follows_its_formula_and_beta_zero_changes_nothing():
    """p(h) e^beta / Z for the hint, p / Z for the others."""
    tokens, base = stream(80), Sliding(gpt(), **HOW)
    net = np.exp(probes.of_mode(lambda: base, 0)(tokens))
    found = np.exp(probes.of_mode(lambda: Mixed(base, [Tilt(2, 1.5)]), 0)(tokens))
    latest: dict[tuple[int, int], int] = {}
    full = [0, *tokens.tolist()]
    hinted = 0
    for t in range(len(tokens)):
        expected = net[t].copy()
        context = (full[t - 1], full[t]) if t else None
        if context in latest:
            expected[latest[context]] *= math.exp(1.5)
            expected /= expected.sum()
            hinted += 1
        assert found[t] == pytest.approx(expected, abs=1e-12)
        if t:
            latest[context] = full[t + 1]
    assert hinted > 20
    still = np.exp(probes.of_mode(lambda: Mixed(base, [Tilt(2, 0.0)]), 0)(tokens))
    assert still == pytest.approx(net, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_hedge_with_eta_one_is_the_bayes_mixture(seed):
    """Its loss is that of the mean of the experts' joint probabilities, so at most the best plus ln K nats."""
    tokens, base = stream(100, seed), Sliding(gpt(), **HOW)
    mixed, alone = Mixed(base, [Counts(1, 3, 8, 2.0)]), Uniform(base, [Counts(1, 3, 8, 1.0)])
    losses = torch.tensor([nats_of(mode, tokens).sum() for mode in (base, mixed, alone)], dtype=torch.float64)
    found = nats_of(Hedge(base, [None, mixed, alone]), tokens).sum()
    assert found == pytest.approx(-torch.logsumexp(-losses, 0).item() + math.log(3), rel=1e-12)
    assert found <= losses.min().item() + math.log(3) + 1e-9


def test_hedge_with_another_eta_equals_a_loop():
    """w_k <- w_k p_k^eta, normalised, one target at a time."""
    tokens, base, eta = stream(), Sliding(gpt(), **HOW), 0.3
    alone = Uniform(base, [Counts(1, 2, 8, 1.0)])
    each = [np.exp(probes.of_mode(lambda mode=mode: mode, 0)(tokens)) for mode in (base, alone)]
    weights, total = np.array([0.5, 0.5]), []
    for t, target in enumerate(tokens):
        p = np.array([expert[t, target] for expert in each])
        total.append(-math.log(weights @ p))
        weights = weights * p**eta
        weights /= weights.sum()
    assert nats_of(Hedge(base, [None, alone], eta), tokens) == pytest.approx(total, rel=1e-9)


def test_temperature_divides_the_logits():
    """Softmax of logits / T."""
    model, tokens = gpt(), stream(16)
    found = probes.of_mode(lambda: mode_of("temperature", model), 0)(tokens)
    logits = model(torch.tensor([[0, *tokens[:-1].tolist()]]))[0]
    assert found == pytest.approx(torch.log_softmax(logits / 0.8, -1).detach().numpy(), abs=1e-12)


def test_run_past_its_clock_raises_whatever_was_scored():
    """Also when only the last step took too long."""
    clock = Clock(1e-9)
    with pytest.raises(OutOfTime, match="flat: the evaluation passed EVAL_MAX_SECONDS=1e-09 after .* no score of it"):
        run(mode_of("flat"), Text(stream(), np.ones_like(stream()), 0), clock=clock, label="flat")
    assert not Clock(0.0).over()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"LORA_ENABLED": 1, "LORA_CHUNK_TOKENS": 32}, "LORA_CHUNK_TOKENS=32 exceeds TRAIN_SEQ_LEN=16"),
        ({"PHASES": 1}, "PHASES=1 needs LORA_ENABLED=1"),
        ({"MIX_NGRAMS": 1, "MIX_LOW_ORDER": 5, "MIX_HIGH_ORDER": 4}, "MIX_LOW_ORDER=5 exceeds MIX_HIGH_ORDER=4"),
        (
            {"LORA_ENABLED": 1, "LORA_CHUNK_TOKENS": 3, "PATCH_SIZE": 2},
            "LORA_CHUNK_TOKENS=3 is not a multiple of PATCH",
        ),
    ],
)
def test_settings_that_can_not_be_scored_are_refused(values, message):
    """With the reason."""
    with pytest.raises(ValueError, match=message):
        settings(**values)


@pytest.mark.parametrize("case", ["documents", "phased"])
def test_documents_of_a_patch_model_pass_the_probes(case):
    """Windows of a document begin at whole patches of it."""
    more = {"PATCH_SIZE": 4, "PATCH_DECODER": "autoregressive", "PATCH_DIM": 8, "NGRAM_MAX_ORDER": 0, "NGRAM_LOGITS": 0}
    config = settings(**(SMALL | more | CASES[case][1]))
    model = GPT(config, VOCAB).double().eval()
    found = probes.of_our_mode(lambda: modes.build(CASES[case][0], model, config, 16)[0], stream(40), 0, flips=3)
    assert all(item.passed for item in found), [item for item in found if not item.passed]


RANKS = """
import numpy as np
from tests.trainer.test_evaluate_modes import CASES, gpt, mode_of, stream
from trainer import dist
from trainer.config import Config
from trainer.evaluate.text import Text
from trainer.evaluate.walk import Clock, OutOfTime, run
group = dist.start(Config(device="cpu", cpu_threads=1))
model, tokens = gpt(), stream()
text = Text(tokens, np.ones_like(tokens), 0)
for case in CASES:
    print(case, repr(run(mode_of(case, model), text, group=group).nats))
    try:
        run(mode_of(case, model), text, group=group, clock=Clock(1e-9 if group.rank == 0 else 0.0))
    except OutOfTime:
        print("late")
group.stop()
"""


@pytest.mark.service
def test_two_ranks_reach_the_score_of_one_in_every_mode(tmp_path):
    """The same on both ranks to the last bit, whoever walked; if one is late, all of them say so and none waits for ever."""
    heard = two_processes(RANKS, home=tmp_path)
    assert heard[0] == heard[1]
    lines = heard[0].splitlines()
    assert lines[1::2] == ["late"] * len(CASES)
    for case, line in zip(CASES, lines[::2], strict=True):
        assert float(line.split()[1]) == pytest.approx(nats_of(mode_of(case), stream()).sum(), rel=1e-9), case
        assert line.split()[0] == case


def test_config_of_a_run_reaches_the_modes():
    """Every setting of the evaluation that names a number changes what is built."""
    config = settings(**(SMALL | {"PHASES": 1}))
    mode, said = modes.build(contract.FINAL_PHASED, gpt(), dataclasses.replace(config, lora_rank=3), 16)
    assert isinstance(mode, DocumentLora)
    assert mode.adapters.up["embed"].shape == (3, VOCAB, 3)
    assert said == "rank:3 chunk:4 phases:1"
    steps = list(walk(mode, Text(stream(), np.ones_like(stream()), 0)))
    assert sum(step.ends is not None for step, _ in steps) == 1
