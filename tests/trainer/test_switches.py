"""The generic suite: what every switch of the model must keep, alone and in 200 random combinations."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.trainer import reference, switches
from tests.trainer.switches import SWITCHES, TRAINING, built, text
from tests.trainer.tiny import dataset, settings
from trainer import train
from trainer.config import SettingsError, fields_by_name
from trainer.dist import Group
from trainer.metrics import Metrics
from trainer.model.gpt import GPT
from trainer.optim.groups import Optimizers

COMBINATIONS, REFUSED = switches.combinations(200)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Models this small lose time to a second thread, and most of it on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", SWITCHES)
def test_switch_alone_keeps_every_property(name: str, tmp_path: Path) -> None:
    """Causal, rows alone, normalised, one path, gradients right by finite differences, artifact complete."""
    config = settings(**{"NUM_LAYERS": 3} | SWITCHES[name])
    for _, check in switches.model_checks():
        check(built(config))
    switches.check_adapters(built(config))
    switches.check_finite_differences(built(config))
    switches.check_round_trip(config, tmp_path)


@pytest.mark.parametrize("name", SWITCHES)
def test_switch_trains_every_parameter(name: str) -> None:
    """A few steps of the default optimisers from birth move all of them."""
    switches.check_alive(settings(**{"NUM_LAYERS": 3} | SWITCHES[name]))


@pytest.mark.parametrize("number", range(0, len(COMBINATIONS), 20))
def test_combinations_train_every_parameter(number: int) -> None:
    """The same for some of the mixtures."""
    switches.check_alive(settings(**COMBINATIONS[number]))


@pytest.mark.parametrize("number", range(len(COMBINATIONS)))
def test_combination_keeps_every_property(number: int, tmp_path: Path) -> None:
    """The same for mixtures, without the finite differences."""
    config = settings(**COMBINATIONS[number])
    model = built(config)
    for _, check in switches.model_checks():
        check(model)
    switches.check_round_trip(config, tmp_path)


@pytest.mark.parametrize("number", range(0, len(COMBINATIONS), 10))
def test_combinations_keep_documents_apart(number: int) -> None:
    """Attention inside documents and every look-back that stops at their starts: packing changes no bit, whatever else is on."""
    found = [config for mixture in COMBINATIONS[number : number + 10] if (config := switches.apart(mixture))]
    assert found, "all ten are refused"
    for config in found:
        switches.check_documents(built(config))


@pytest.mark.parametrize("name", SWITCHES)
def test_switch_keeps_documents_apart(name: str) -> None:
    """The same for each switch alone."""
    config = switches.apart({"NUM_LAYERS": 3} | SWITCHES[name])
    if config is None:
        pytest.skip("it can't go with documents kept apart")
    switches.check_documents(built(config))


def test_combinations_are_many_different_and_allowed() -> None:
    """200 allowed mixtures, nearly all different, in which every switch takes part."""
    assert len(COMBINATIONS) == 200
    assert len(REFUSED) < 1000
    assert len({str(sorted(mixture.items())) for mixture in COMBINATIONS}) > 100
    for name, values in SWITCHES.items():
        assert any(values.items() <= mixture.items() for mixture in COMBINATIONS), f"{name} is in no combination"


def test_refused_combinations_are_told_which_settings_and_why() -> None:
    """Every line of a refusal names the setting that is in the way."""
    assert REFUSED
    for line in {line for message in REFUSED for line in message.splitlines()}:
        assert any(name in line for name in fields_by_name()), line
        assert len(line.split()) >= 3, line


@pytest.mark.parametrize("name", SWITCHES)
def test_switch_leaves_weights_it_does_not_own_as_they_are(name: str) -> None:
    """Switched on, a technique draws from a stream of its own: weights of the baseline are born with the same bits."""
    plain, other = (GPT(settings(**{"NUM_LAYERS": 3} | more), 24).state_dict() for more in ({}, SWITCHES[name]))
    shared = plain.keys() & other.keys()
    if name in switches.OTHER_BIRTH or any(plain[key].shape != other[key].shape for key in shared):
        pytest.skip("it changes the size or the birth of the baseline's own weights")
    for key in shared:
        assert torch.equal(plain[key], other[key]), key


@pytest.mark.parametrize("name", TRAINING)
def test_training_switch_trains_whatever_the_model_is(name: str, tmp_path: Path) -> None:
    """The default model and four mixtures train for four steps with it, to other weights than without it."""
    group = Group(0, 1, 0, 1, torch.device("cpu"))
    first = 4 * list(TRAINING).index(name)
    trained = []
    for mixture in ({}, *COMBINATIONS[first : first + 4]):
        for more in ({}, TRAINING[name]):
            try:
                config = settings(**mixture | more | {"ITERATIONS": 4, "TRAIN_LOG_EVERY": 0})
            except SettingsError:
                assert mixture, "refused with the default model"
                continue
            going = train.Run(config, dataset(), group, Metrics(tmp_path, 0))
            assert going.loop() == 4
            going.average.keep()
            trained.append(torch.cat([parameter.flatten() for parameter in going.parameters]))
            assert bool(trained[-1].isfinite().all())
    alike = name == "parallel_muon"  # one process has nobody to share with
    assert torch.equal(trained[0], trained[1]) == alike


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("values", switches.SIZES, ids=str)
def test_default_model_equals_the_reference_to_rounding(values: dict[str, object], dtype: torch.dtype) -> None:
    """With every switch off the model is the contest's baseline, written a second time in `reference.py`.

    To the last bit it was so until norms took one pass over each row: sums of other order, the same formula.
    """
    config = settings(**values)
    model, ids = built(config, dtype), text(3)
    sizes = reference.Sizes(config.num_layers, config.num_heads, config.num_kv_heads)
    wanted = reference.logits(dict(model.named_parameters()), sizes, ids)
    near = 1e-12 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(model(ids), wanted, rtol=0, atol=near)


EVERYTHING = (
    *("swiglu", "ln_scale", "xsa", "value_residual", "value_embedding", "output_gate", "key_offset", "lanes"),
    *("untied_head", "documents", "smear_token", "bigram", "document_ngrams", "skip_gates"),
)


@pytest.mark.filterwarnings("default")
def test_everything_at_once_is_one_graph() -> None:
    """torch.compile takes the model whole, switches and all, and gives the same numbers (traced; no code is generated)."""
    mixture: dict[str, object] = {"NUM_LAYERS": 2}
    for name in EVERYTHING:
        mixture |= SWITCHES[name]
    model, ids = built(settings(**mixture)), text(2)
    compiled = torch.compile(model, backend="eager", fullgraph=True, dynamic=False)
    torch.testing.assert_close(compiled(ids), model(ids))
    compiled(ids).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


GOLDEN = {
    "tiny": ({}, [3.176454, 3.187418, 3.179809, 3.187662, 3.171170]),
    "wide": (
        {"NUM_LAYERS": 3, "MODEL_DIM": 128, "NUM_HEADS": 4, "NUM_KV_HEADS": 2},
        [3.154464, 3.301554, 3.341918, 3.458220, 3.443254],
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_default_training_gives_the_golden_losses(name: str) -> None:
    """Five steps of the default optimisers from the default seed give the losses stored when the baseline was built."""
    values, expected = GOLDEN[name]
    config = settings(**values)
    model = GPT(config, switches.VOCAB)
    optimizers, found = Optimizers(model, config), []
    for step in range(5):
        optimizers.clear()
        loss = switches.loss(model, text(4, seed=step, length=33))
        loss.backward()
        optimizers.step(scale=1.0, momentum=0.9)
        found.append(loss.item())
    assert found == pytest.approx(expected, abs=1e-4)
