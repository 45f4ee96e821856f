"""Training on the grid: the weights the forward pass sees are those of the artifact, and gradients go straight through."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.trainer.switches import SWITCHES, VOCAB, built, loss, text
from tests.trainer.tiny import dataset, settings
from trainer import artifact, contract, train
from trainer.config import Config
from trainer.dist import Group
from trainer.metrics import Metrics
from trainer.model.gpt import GPT
from trainer.quant.clip import Clip
from trainer.quant.grid import SCHEMES
from trainer.quant.pipeline import quantised
from trainer.quant.qat import rounded
from trainer.quant.rowwise import GRIDS
from trainer.quant.stored import SCALE, restore

ALONE = Group(0, 1, 0, 1, torch.device("cpu"))
CLIPS = (Clip(), Clip("quantile", 0.9), Clip("mse"), Clip("sigma", sigmas=2.0))
MIXTURES: tuple[dict[str, object], ...] = (
    {"MATRIX_BITS": 6},
    {"ATTN_BITS": 5, "MLP_BITS": 2, "EMBED_BITS": 16, "TABLE_BITS": 4, "QUANT_CLIP": "mse"},
    {"INT8_STEP": 4, "EMBED_BITS": 6, "TABLE_BITS": 2, "QUANT_CLIP": "quantile", "CLIP_QUANTILE": 0.9},
    {"MATRIX_BITS": 5, "QUANT_CLIP": "sigma"},
)


def exported(weight: Tensor, scheme: str, clip: Clip) -> Tensor:
    """One weight after the artifact."""
    return restore(quantised([("w", weight)], {"w": scheme}, {"w": clip}, settings())["w"])


def written(model: GPT, config: Config, folder: Path) -> GPT:
    """The model a reader of its artifact has."""
    artifact.write(folder / "a.golf", model, config, VOCAB, {})
    return artifact.load_model(folder / "a.golf")[0]


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("scheme", [*SCHEMES, "fp16", "fp32"])
@pytest.mark.parametrize("clip", CLIPS, ids=lambda clip: clip.kind)
def test_rounded_weight_is_the_exported_one(scheme: str, clip: Clip) -> None:
    """To the last bit, and the same again for what was exported unless the grid follows the spread."""
    for weight in (random(7, 300), random(3, 1), torch.zeros(2, 5), random(4, 40) * 1e-6, -random(2, 130) * 500):
        value = rounded(weight, scheme, clip)
        assert torch.equal(value, exported(weight, scheme, clip))
        if clip.kind != "sigma":
            assert torch.equal(rounded(value, scheme, clip), value)


@pytest.mark.parametrize("scheme", [*SCHEMES, "fp16"])
@pytest.mark.parametrize("clip", CLIPS, ids=lambda clip: clip.kind)
def test_gradient_is_identity_inside_the_clip_and_zero_beyond(scheme: str, clip: Clip) -> None:
    """Nothing is beyond it where a grid ends at the largest weight, nor for ternary and float16."""
    weight, sent = random(6, 200).requires_grad_(), random(6, 200) + 3.0
    rounded(weight, scheme, clip).backward(sent)
    assert weight.grad is not None
    if scheme in GRIDS:
        grid = GRIDS[scheme]
        found = quantised([("w", weight)], {"w": scheme}, {"w": clip}, settings())["w"]
        scale = torch.from_numpy(found.streams[SCALE].astype("float32"))
        inside = weight.abs() <= (grid.levels + grid.step / 2) * scale[:, None]
        assert torch.equal(weight.grad, sent * inside)
        assert clip.kind != "max" or bool(inside.all())
        assert clip.kind != "quantile" or 0.05 < 1 - inside.float().mean() < 0.15
    else:
        assert torch.equal(weight.grad, sent)


@pytest.mark.parametrize("mixture", MIXTURES, ids=str)
@pytest.mark.parametrize("switch", ["ngram_logits", "untied_head", "loops", "patch_moe", "bigram"])
def test_training_computes_what_the_artifact_will(mixture: dict[str, object], switch: str, tmp_path: Path) -> None:
    """Logits of the rounded pass are those of the model read from the file, bit for bit; every parameter gets a gradient."""
    config = settings(**mixture, **SWITCHES[switch])
    model = built(config, torch.float32)
    on_grid = artifact.as_stored(model, config)
    logits = on_grid(text(2))
    assert torch.equal(logits, written(model, config, tmp_path)(text(2)))
    assert not torch.equal(logits, model(text(2))), "rounding changes nothing"
    logits.square().mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_auxiliary_losses_and_adapters_come_through() -> None:
    """Called as the model is called."""
    config = settings(MATRIX_BITS=6)
    model = built(config, torch.float32)
    on_grid = artifact.as_stored(model, config)
    asked: list[str] = []
    logits, hidden = on_grid(text(2), lambda name, x: asked.append(name), with_hidden=True)
    assert hidden.shape == (2, 16, 16)
    assert "blocks.0.mlp.up" in asked
    assert torch.equal(logits, on_grid(text(2)))


@pytest.mark.parametrize("mixture", MIXTURES[:3], ids=str)
def test_weights_on_the_grid_are_fixed_points(mixture: dict[str, object], tmp_path: Path) -> None:
    """A model that was exported computes the same with rounding as without, and exports to itself."""
    config = settings(**mixture, NGRAM_MAX_ORDER=2)
    once = written(built(config, torch.float32), config, tmp_path)
    assert torch.equal(artifact.as_stored(once, config)(text(2)), once(text(2)))
    again = written(once, config, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(once.parameters(), again.parameters(), strict=True))


def test_rounding_changes_the_loss_and_not_the_weights() -> None:
    """The optimisers keep exact weights: the forward pass writes nothing back."""
    config = settings(MATRIX_BITS=4)
    model = built(config, torch.float32)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    assert loss(artifact.as_stored(model, config), text(2)) != loss(model, text(2))
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


# --- in a run ------------------------------------------------------------------------------------------------------------
def ran(folder: Path, **values: object) -> tuple[list[float], int | None]:
    """Losses by step of a small run, and the step from which on it rounded."""
    folder.mkdir()
    config = settings(ITERATIONS=8, TRAIN_LOG_EVERY=1, MATRIX_LR=0.1, **values)
    result = train.run(config, dataset(), ALONE, Metrics(folder, 0))
    lines = [json.loads(line) for line in (folder / contract.METRICS).read_text().splitlines()]
    return [line["train_loss"] for line in lines if "train_loss" in line], result.get("qat_from_step")


def test_run_is_bit_identical_until_rounding_begins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Steps before QAT_START see exact weights, the ones from it on rounded ones; log and result say which."""
    (plain, none), (late, fourth), (whole, first) = (
        ran(tmp_path / str(start), MATRIX_BITS=4, QAT_START=start) for start in (1.0, 0.5, 0.0)
    )
    assert (none, fourth, first) == (None, 4, 0)
    assert late[:4] == plain[:4]
    assert late[4] != plain[4], "the pass of the fifth step is the first on the grid"
    assert whole[0] != plain[0]
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines() if "qat:" in line] == [
        ["qat:on", "step:4"],
        ["qat:on", "step:0"],
    ]


def test_run_without_rounding_knows_nothing_of_it(tmp_path: Path) -> None:
    """Off, the model itself is called."""
    going = train.Run(settings(), dataset(), ALONE, Metrics(tmp_path, 0))
    assert going.forwards == {False: going.model}


def test_averaged_weights_are_rounded_once_more(tmp_path: Path) -> None:
    """EMA averages the exact weights; what ships is their average, rounded, and no average of rounded ones."""
    config = settings(MATRIX_BITS=4, QAT_START=0, AVERAGE="ema", EMA_DECAY=0.5)
    going = train.Run(config, dataset(), ALONE, Metrics(tmp_path, 0))
    going.loop()
    going.average.keep()
    exact = {name: parameter.detach().clone() for name, parameter in going.model.named_parameters()}
    artifact.write(tmp_path / "a.golf", going.model, config, 256, {})
    shipped = artifact.load_model(tmp_path / "a.golf")[0]
    name = "blocks.0.mlp.up"
    assert torch.equal(shipped.get_parameter(name), exported(exact[name], "int4", Clip()))
    assert not torch.equal(shipped.get_parameter(name), exact[name])


# --- compiled ------------------------------------------------------------------------------------------------------------
def calls(graph: torch.fx.GraphModule) -> int:
    """How often a traced graph rounds a weight."""
    return sum("golf.exported" in str(node.target) for node in graph.graph.nodes)


@pytest.mark.service  # tracing takes seconds
def test_compiled_run_swaps_to_a_graph_that_rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Warm-up traces one graph without rounding and one that rounds every weight; the run switches, and traces nothing anew."""
    traced: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _: object) -> object:
        traced.append(graph)
        return graph.forward

    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, **how: compiled(model, backend=backend, **how))
    config = settings(NUM_LAYERS=1, MATRIX_BITS=4, MLP_BITS=2, QAT_START=0.5, ITERATIONS=6, TRAIN_LOG_EVERY=1)
    going = train.Run(config, dataset(), ALONE, Metrics(tmp_path, 0))
    exact = train.Run(config, dataset(), ALONE, Metrics(tmp_path, 0))
    try:
        going.compile()
        rounding = {calls(graph) for graph in traced}
        assert rounding == {0, len(going.parameters)}, "no graph without rounding, or none that rounds every weight"
        torch._dynamo.utils.counters.clear()
        going.loop()
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 0, "something was compiled inside the run"
        assert torch._dynamo.utils.counters["stats"]["calls_captured"] == 0
    finally:
        torch._dynamo.reset()
    exact.loop()  # the same without the compiler
    assert going.loss == pytest.approx(exact.loss, rel=1e-5)


@pytest.mark.service  # code is generated for it
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, when the compiler is loaded
def test_compiled_code_sees_the_exported_weights(tmp_path: Path) -> None:
    """Inductor's own code gives the logits of the model read from the artifact, and follows when weights move."""
    config = settings(NUM_LAYERS=1, SKIP_CONNECTIONS=0, MATRIX_BITS=2, EMBED_BITS=5, QUANT_CLIP="mse")
    model = built(config, torch.float32)
    try:
        fast = torch.compile(artifact.as_stored(model, config), dynamic=False, fullgraph=True)
        for _ in range(2):
            with torch.no_grad():
                torch.testing.assert_close(
                    fast(text(2)), written(model, config, tmp_path)(text(2)), rtol=1e-5, atol=1e-5
                )
                model.blocks[0].mlp.up.mul_(-1.5)
    finally:
        torch._dynamo.reset()
