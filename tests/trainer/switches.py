"""Every switch that changes what the model computes, and the properties that each of them, and any mixture, must keep.

A new switch needs one line in SWITCHES: small numbers, so that the whole suite stays fast. `test_switches.py` runs the
properties over each switch alone and over random combinations.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.trainer.tiny import settings
from trainer import artifact
from trainer.config import Config, SettingsError
from trainer.model.gpt import GPT
from trainer.model.roles import EMBED, HEAD, MATRIX, role
from trainer.optim.groups import Optimizers

VOCAB = 24
LENGTH = 16

SWITCHES: dict[str, dict[str, object]] = {
    "baseline": {},
    "full_heads": {"NUM_KV_HEADS": 2},
    "partial_rope": {"ROPE_FRACTION": 0.5},
    "no_rope": {"ROPE_FRACTION": 0},
    "qk_gain": {"QK_GAIN_INIT": 4},
    "no_skips": {"SKIP_CONNECTIONS": 0},
    "leaky_relu2": {"MLP_KIND": "leaky_relu2"},
    "swiglu": {"MLP_KIND": "swiglu", "MLP_MULT": 3},
    "mlp_4x": {"MLP_MULT": 4},
    "ln_scale": {"LN_SCALE": 1},
    "xsa": {"XSA_LAST_N": 1},
    "value_residual": {"VALUE_RESIDUAL": 1},
    "value_embedding": {"VE_ENABLED": 1, "VE_DIM": 4},
    "output_gate": {"ATTN_GATE": "output"},
    "dense_gate": {"ATTN_GATE": "dense"},
    "sparse_gate": {"ATTN_GATE": "sparse", "SPARSE_ATTN_GATE_SCALE": 2, "GATE_WINDOW": 6},
    "key_offset": {"PARTIAL_KEY_OFFSET": 1, "ROPE_FRACTION": 0.5},
    "parallel": {"PARALLEL_RESIDUAL": "gptj", "PARALLEL_START_LAYER": 1},
    "lanes": {"PARALLEL_RESIDUAL": "lanes", "PARALLEL_START_LAYER": 1},
    "mlp_lane": {"PARALLEL_RESIDUAL": "lanes", "PARALLEL_FINAL_LANE": "mlp"},
    "untied_head": {"TIE_EMBEDDINGS": 0},
    "ortho_init": {"ORTHO_INIT": 1},
    "overtone_init": {"OVERTONE_INIT": 1},
    "ngrams": {"NGRAM_MAX_ORDER": 3, "NGRAM_DIM": 4},
    "ngram_logits": {"NGRAM_MAX_ORDER": 2, "NGRAM_DIM": 4, "NGRAM_LOGITS": 1},
    "documents": {"DOCUMENT_ATTENTION": 1},
    "document_ngrams": {"NGRAM_MAX_ORDER": 3, "NGRAM_DIM": 4, "DOCUMENT_NGRAMS": 1, "DOCUMENT_ATTENTION": 1},
    "smear_channel": {"SMEAR_GATE": "channel"},
    "smear_token": {"SMEAR_GATE": "token"},
    "bigram": {"BIGRAM_VOCAB_SIZE": 32, "BIGRAM_DIM": 4},
    "skip_gates": {"SKIP_GATES_ENABLED": 1},
    "loops": {"NUM_LAYERS": 4, "NUM_LOOPS": 2, "LOOP_START": 1, "LOOP_END": 2, "LOOP_EMBEDDING": 1},
    "tied": {"NUM_LAYERS": 5, "TIE_LAYERS": "1-3"},
    "patch_flat": {"PATCH_SIZE": 2, "PATCH_DECODER": "flat", "PATCH_DIM": 16},
    "patch_position_mlp": {"PATCH_SIZE": 4, "PATCH_DECODER": "position_mlp", "PATCH_DIM": 8},
    "patch_causal_conv": {"PATCH_SIZE": 8, "PATCH_DECODER": "causal_conv", "PATCH_DIM": 8},
    "patch_autoregressive": {"PATCH_SIZE": 4, "PATCH_DECODER": "autoregressive", "PATCH_DIM": 8, "PATCH_LAYERS": 2},
    "patch_moe": {"PATCH_SIZE": 2, "PATCH_DECODER": "moe", "PATCH_DIM": 8, "PATCH_EXPERTS": 2},
}
"""Name to settings over `tiny.settings`."""

TRAINING: dict[str, dict[str, object]] = {
    "polar_express": {"MUON_COEFFICIENTS": "polar_express"},
    "halley": {"MUON_COEFFICIENTS": "halley"},
    "row_norm": {"MUON_ROW_NORM": 1},
    "parallel_muon": {"MUON_PARALLEL": 1},
    "decay_taper": {"MUON_WD": 0.1, "MUON_WD_TAPER": 0.5},
    "adam_decay": {"ADAM_WD": 0.1},
    "soap": {"OPTIMIZER": "soap", "SOAP_EVERY": 2},
    "adam": {"OPTIMIZER": "adam"},
    "clipping": {"GRAD_CLIP_NORM": 0.5},
    "warmup": {"LR_WARMUP_STEPS": 2},
    "cosine": {"WARMDOWN_SHAPE": "cosine"},
    "sqrt": {"WARMDOWN_SHAPE": "sqrt", "MIN_LR": 0.1},
    "growing_context": {"CONTEXT_SCHEDULE": "8@0,16@0.5"},
    "ema": {"AVERAGE": "ema", "EMA_DECAY": 0.5},
    "swa": {"AVERAGE": "swa", "SWA_EVERY": 1, "SWA_START": 0.9},
    "lawa": {"AVERAGE": "lawa", "LAWA_EVERY": 1, "WARMDOWN_FRACTION": 0},
    "qat": {"QAT_START": 0, "MATRIX_BITS": 5},
    "late_qat": {"QAT_START": 0.5, "MATRIX_BITS": 2, "QUANT_CLIP": "mse"},
}
"""Switches that change how a model is trained, and nothing of what it computes."""

OTHER_BIRTH = {"qk_gain", "ortho_init", "overtone_init"}
"""Switches whose very point is how the baseline's own weights are born."""

SIZES: tuple[dict[str, object], ...] = (
    {"NUM_LAYERS": 1},
    {"NUM_LAYERS": 2},
    {"NUM_LAYERS": 3, "MODEL_DIM": 32, "NUM_HEADS": 4, "NUM_KV_HEADS": 2},
    {"NUM_LAYERS": 4},
    {"NUM_LAYERS": 5, "NUM_HEADS": 4},
)
"""Bodies that combinations are tried on."""


def combinations(wanted: int, seed: int = 0) -> tuple[list[dict[str, object]], list[str]]:
    """`wanted` random mixtures that the configuration allows, and what it said to those it refused on the way."""
    draw, allowed, refused = random.Random(seed), [], []
    while len(allowed) < wanted:
        mixture = dict(draw.choice(SIZES))
        for name in draw.sample(sorted(SWITCHES), draw.randint(2, 8)):
            mixture |= SWITCHES[name]
        try:
            settings(**mixture)
        except SettingsError as error:
            refused.append(str(error))
            assert len(refused) < 50 * wanted, "nearly every combination is refused"
        else:
            allowed.append(mixture)
    return allowed, refused


def built(config: Config, dtype: torch.dtype = torch.float64) -> GPT:
    """A model in which no weight has the value it is born with, so that every path carries signal."""
    model = GPT(config, VOCAB).to(dtype)
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=noise, dtype=dtype) * 0.1)
    return model


def text(rows: int, seed: int = 0, length: int = LENGTH) -> Tensor:
    """Random ids, (rows, length) int64."""
    return torch.randint(0, VOCAB, (rows, length), generator=torch.Generator().manual_seed(seed))


def loss(model: GPT, ids: Tensor) -> Tensor:
    """Mean nats of the ids after the first."""
    return F.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def check_causality(model: GPT) -> None:
    """Another id at t leaves every row before t as it was, to the last bit; another first id changes something."""
    clean = text(2)
    before = model(clean)
    for at in (0, 1, 6, LENGTH - 1):
        changed = clean.clone()
        changed[:, at] = (changed[:, at] + 1) % VOCAB
        after = model(changed)
        assert torch.equal(after[:, :at], before[:, :at]), f"row {at - 1} or one before it sees id {at}"
        assert at or not torch.equal(after, before), "nothing depends on the first id"


def check_rows_alone(model: GPT) -> None:
    """The logits of a row do not depend on the other rows of the batch."""
    batch = text(3)
    other = batch.clone()
    other[1:] = text(2, seed=9)
    assert torch.equal(model(batch)[0], model(other)[0]), "a row sees its neighbours"


def check_normalisation(model: GPT) -> None:
    """Probabilities of a row sum to one, and logits are finite and within the cap."""
    logits = model(text(2))
    assert logits.shape == (2, LENGTH, VOCAB)
    assert logits.dtype == torch.float64
    assert bool((logits.abs() <= model.softcap).all())
    assert bool(((logits.softmax(-1).sum(-1) - 1).abs() < 1e-6).all())


def check_one_path(model: GPT) -> None:
    """Training, scoring, a copy (test-time training) and an adapter that adds nothing give the same bits."""
    ids = text(2)
    trained = model.train()(ids).detach()
    with torch.inference_mode():
        assert torch.equal(model.eval()(ids), trained), "eval differs from train"
        asked: set[str] = set()
        assert torch.equal(model(ids, lambda name, x: asked.add(name)), trained), "an idle adapter changes the result"
    assert torch.equal(copy.deepcopy(model)(ids), trained), "a copy differs"
    strangers = asked - {name for name, _ in model.named_parameters()}
    assert not strangers, f"products of no parameter: {sorted(strangers)}"
    missed = set(products(model)) - asked
    assert not missed, f"matrices used behind the adapter's back: {sorted(missed)}"


def products(model: GPT) -> list[str]:
    """Names of the matrices that the stream is multiplied with; what is only looked up is none."""
    looked_up = {"value_embed"} if model.head is None else {"value_embed", "embed"}
    names = [name for name, _ in model.named_parameters()]
    return [
        name
        for name, leaf in ((name, name.rpartition(".")[2]) for name in names)
        if leaf == "head_gate" or (role(name) in (MATRIX, EMBED, HEAD) and leaf not in looked_up)
    ]


def check_adapters(model: GPT) -> None:
    """An adapter that adds x D^T to a product equals adding D to that matrix, for every one that passes on its own."""
    ids, draw = text(2), torch.Generator().manual_seed(5)
    for name in products(model):
        weight = model.get_parameter(name)
        change = torch.randn(weight.shape, dtype=weight.dtype, generator=draw) * 0.1
        if name == "embed":  # it is the input, too
            continue
        with torch.no_grad():
            found = model(ids, lambda asked, x, at=name, by=change: F.linear(x, by) if asked == at else None)
            weight.add_(change)
            torch.testing.assert_close(found, model(ids))
            weight.sub_(change)


def check_documents(model: GPT) -> None:
    """Other ids in the first of two documents leave the logits of the second as they were, to the last bit."""
    packed = text(2)
    packed[packed == model.bos] = 1
    packed[:, 7] = model.bos
    other = packed.clone()
    other[:, :7] = (other[:, :7] + 1) % VOCAB
    before, after = model(packed), model(other)
    assert not torch.equal(after[:, :7], before[:, :7])
    assert torch.equal(after[:, 7:], before[:, 7:]), "a document sees the one before"


def apart(mixture: dict[str, object]) -> Config | None:
    """The mixture with all that keeps documents apart switched on, or None where that is refused."""
    bounds = {"DOCUMENT_ATTENTION": 1, "DOCUMENT_NGRAMS": int("NGRAM_MAX_ORDER" in mixture)}
    try:
        return settings(**mixture | bounds)
    except SettingsError:
        return None


def check_gradients_exist(model: GPT) -> None:
    """One backward reaches every parameter (optimisers rely on it), and some entry of each is not zero."""
    model.zero_grad()
    loss(model, text(3)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f"{name} has no gradient"
        assert bool(parameter.grad.abs().sum() > 0), f"the gradient of {name} is zero"


def check_alive(config: Config, steps: int = 4) -> None:
    """From birth on, every parameter has moved after a few steps: no product of two zeros that stays dead for ever."""
    model = GPT(config, VOCAB)
    born = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizers = Optimizers(model, config)
    for step in range(steps):
        optimizers.clear()
        loss(model, text(4, seed=step)).backward()
        optimizers.step(scale=1.0, momentum=0.9)
    for name, parameter in model.named_parameters():
        assert bool(torch.isfinite(parameter).all()), f"{name} is not finite"
        assert not torch.equal(parameter, born[name]), f"{name} has not moved in {steps} steps"


def check_finite_differences(model: GPT) -> None:
    """Autograd agrees with a central difference at the entry of the largest gradient of every parameter."""
    ids, step = text(1), 1e-5
    model.zero_grad()
    loss(model, ids).backward()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            at, flat = parameter.grad.abs().argmax(), parameter.view(-1)
            value = flat[at].item()
            flat[at] = value + step
            up = loss(model, ids).item()
            flat[at] = value - step
            slope = (up - loss(model, ids).item()) / (2 * step)
            flat[at] = value
            found = parameter.grad.view(-1)[at].item()
            assert abs(found - slope) <= 1e-4 * abs(slope) + 1e-8, f"{name}: autograd {found}, difference {slope}"


def check_round_trip(config: Config, folder: Path) -> None:
    """The artifact gives back settings and weights: the model with the weights read is the model read."""
    model = built(config, torch.float32)
    path = folder / "model.golf"
    artifact.write(path, model, config, VOCAB, {})
    read, held = artifact.load_model(path)
    kept = {name: value for name, value in config.as_settings().items() if name not in artifact._LOCAL}
    assert kept.items() <= held.config.as_settings().items()
    assert dict(read.named_parameters()).keys() == dict(model.named_parameters()).keys()
    for name, parameter in model.named_parameters():
        error = (read.get_parameter(name) - parameter).abs().max()
        assert error <= parameter.abs().max() / 50, f"{name} is off by {error}"
    model.load_state_dict(read.state_dict())
    assert torch.equal(model(text(2)), read(text(2))), "what is not in the file changes the result"


def model_checks() -> Iterator[tuple[str, object]]:
    """Name and function of the properties cheap enough for every combination."""
    for check in (check_causality, check_rows_alone, check_normalisation, check_one_path, check_gradients_exist):
        yield check.__name__.removeprefix("check_"), check
