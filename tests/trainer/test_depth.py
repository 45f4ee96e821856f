"""The order of blocks: loops, ties, when they begin, and what a layer's influence is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.trainer import tiny
from tests.trainer.switches import VOCAB, built, loss, text
from tests.trainer.tiny import settings
from trainer import __main__ as entry
from trainer import artifact
from trainer.config import SettingsError
from trainer.dist import Group
from trainer.evaluate import sliding
from trainer.metrics import Metrics
from trainer.model import depth
from trainer.model.gpt import GPT
from trainer.train import Run, run

LOOP = {"NUM_LAYERS": 5, "NUM_LOOPS": 2, "LOOP_START": 1, "LOOP_END": 2, "LOOP_EMBEDDING": 1}


def test_looped_order_repeats_the_range() -> None:
    """0..s-1, (s..e) x (n + 1), e+1..L-1, with a mark where each pass begins."""
    config = settings(**LOOP)
    assert depth.depth(config, 0).blocks == (0, 1, 2, 3, 4)
    assert depth.depth(config, 2).blocks == (0, 1, 2, 1, 2, 1, 2, 3, 4)
    assert depth.depth(config, 2).passes == (None, 0, None, 1, None, 2, None, None, None)


def test_loops_come_at_their_shares() -> None:
    """None before ENABLE_LOOPING_AT; then all, or one until LOOP_SECOND_AT."""
    at_once, progressive = settings(**LOOP), settings(**LOOP, ENABLE_LOOPING_AT=0.35, LOOP_SECOND_AT=0.65)
    assert [depth.loops_at(at_once, done) for done in (0, 0.49, 0.5, 1)] == [0, 0, 2, 2]
    assert [depth.loops_at(progressive, done) for done in (0.34, 0.35, 0.64, 0.65)] == [0, 1, 1, 2]
    assert (depth.stages(at_once), depth.stages(progressive), depth.stages(settings())) == ([0, 2], [0, 1, 2], [0])
    assert depth.stages(settings(**LOOP, ENABLE_LOOPING_AT=0)) == [2]


def test_no_loops_is_the_plain_stack() -> None:
    """A looped model that is told to use no extra pass computes what the plain one does with the same weights."""
    values = LOOP | {"LOOP_EMBEDDING": 0, "SKIP_CONNECTIONS": 0}
    looped, plain = built(settings(**values)), built(settings(**values | {"NUM_LOOPS": 0}))
    assert looped.state_dict().keys() == plain.state_dict().keys()
    assert not torch.equal(looped(text(2)), plain(text(2)))
    looped.set_loops(0)
    assert torch.equal(looped(text(2)), plain(text(2)))


def written_out(looped: GPT, order: tuple[int, ...]) -> GPT:
    """The model with a block of its own at each place, holding what the looped one has there."""
    model = GPT(settings(NUM_LAYERS=len(order)), VOCAB).double()
    state = looped.state_dict()
    for name in model.state_dict():
        head, _, rest = name.removeprefix("blocks.").partition(".")
        source = f"blocks.{order[int(head)]}.{rest}" if name.startswith("blocks.") else name
        with torch.no_grad():
            model.get_parameter(name).copy_(state[source])
    return model


@pytest.mark.parametrize(
    "values", [LOOP | {"LOOP_EMBEDDING": 0}, {"NUM_LAYERS": 6, "TIE_LAYERS": "2-4"}], ids=["looped", "tied"]
)
def test_reused_blocks_equal_copies_and_their_gradients_are_sums(values: dict[str, object]) -> None:
    """U-Net pairs come from the virtual stack; each stored block gets the sum of the gradients of its uses."""
    model = built(settings(**values))
    copies = written_out(model, model.depth.blocks)
    torch.testing.assert_close(model(text(2)), copies(text(2)))
    for each in (model, copies):
        loss(each, text(2)).backward()
    for name, parameter in model.named_parameters():
        if not name.startswith("blocks."):
            continue
        _, number, rest = name.split(".", 2)
        uses = [place for place, block in enumerate(model.depth.blocks) if block == int(number)]
        summed = sum(copies.get_parameter(f"blocks.{place}.{rest}").grad for place in uses)
        torch.testing.assert_close(parameter.grad, summed)


def test_loop_embedding_is_added_as_each_pass_begins() -> None:
    """The block at the head of the range sees its pass's vector on top of what came before."""
    model = built(settings(**LOOP | {"SKIP_CONNECTIONS": 0}))
    seen: list[torch.Tensor] = []
    kept = []
    model.blocks[1].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    for number in (0, 2):
        model.blocks[number].register_forward_hook(lambda _, given, out, number=number: kept.append((number, out)))
    model(text(1))
    before = [out for number, out in kept]
    for number in range(3):
        torch.testing.assert_close(seen[number], before[number] + model.loop_embedding[number])
    assert not GPT(settings(**LOOP), VOCAB).loop_embedding.any()


def test_tied_layers_are_stored_once(tmp_path: Path) -> None:
    """Six layers of which three are tied have four blocks, in memory and in the artifact."""
    config = settings(NUM_LAYERS=6, TIE_LAYERS="2-4")
    model = GPT(config, VOCAB)
    assert (len(model.blocks), model.depth.blocks) == (4, (0, 1, 2, 2, 2, 3))
    artifact.write(tmp_path / "a.golf", model, config, VOCAB, {})
    read, _ = artifact.load_model(tmp_path / "a.golf")
    assert read.depth == model.depth
    numbers = {name.split(".")[1] for name, _ in read.named_parameters() if name.startswith("blocks.")}
    assert numbers == {"0", "1", "2", "3"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"NUM_LOOPS": 1, "LOOP_START": 1, "LOOP_END": 2}, "must be a range of the blocks 0 to 1"),
        ({"NUM_LOOPS": 1, "LOOP_START": 1, "LOOP_END": 0}, "must be a range"),
        ({"NUM_LOOPS": 1, "NUM_LAYERS": 1}, "has no skips before"),
        ({"NUM_LOOPS": 1, "TIE_LAYERS": "0-1"}, "a loop already"),
        ({"TIE_LAYERS": "1-1"}, "must be a range FIRST-LAST"),
        ({"TIE_LAYERS": "0-2"}, "the last layer is 1"),
        ({"LOOP_EMBEDDING": 1}, "needs NUM_LOOPS"),
        ({"SKIP_GATES_ENABLED": 1, "SKIP_CONNECTIONS": 0}, "needs SKIP_CONNECTIONS"),
        ({"SKIP_GATES_ENABLED": 1, "NUM_LAYERS": 1}, "no skips to gate"),
        (LOOP | {"ENABLE_LOOPING_AT": 1}, "ENABLE_LOOPING_AT=1 .*no step would train"),
        (LOOP | {"LOOP_SECOND_AT": 1}, "LOOP_SECOND_AT=1 .*no step would train"),
        (LOOP | {"ENABLE_LOOPING_AT": 0.996, "ITERATIONS": 200}, "ITERATIONS=200: no step would train"),
    ],
)
def test_depth_refuses_what_makes_no_sense(values: dict[str, object], message: str) -> None:
    """Ranges outside the model, and switches that would do nothing."""
    with pytest.raises(SettingsError, match=message):
        settings(**values)


def test_depth_allows_loops_that_the_last_step_trains() -> None:
    """The last of 200 steps begins at a share of 0.995; a trial of a few steps is not held up."""
    settings(**LOOP, ENABLE_LOOPING_AT=0.995, ITERATIONS=200)
    settings(**LOOP, LOOP_SECOND_AT=0.8, ITERATIONS=2)


def test_training_deepens_and_scores_at_the_final_depth(tmp_path: Path) -> None:
    """Steps before the share run the plain stack, later ones the looped; every validation runs all passes."""
    values = LOOP | {"LOOP_SECOND_AT": 0.75, "ITERATIONS": 4, "VAL_LOSS_EVERY": 1, "EVAL_STRIDE": 16}
    going = Run(settings(**values), tiny.dataset(), Group(0, 1, 0, 1, torch.device("cpu")), Metrics(tmp_path, 0))
    depths: list[tuple[bool, int]] = []
    going.model.register_forward_hook(
        lambda model, *_: depths.append((torch.is_grad_enabled(), len(model.depth.blocks)))
    )
    going.loop()
    going.validate(4)
    assert [count for training, count in depths if training] == [5, 5, 7, 9]
    assert {count for training, count in depths if not training} == {9}


def test_looped_run_ends_with_a_looped_artifact(tmp_path: Path) -> None:
    """What a run writes is read back with its loops, and scores what the run said (quantised, so nearly)."""
    config = settings(**LOOP, OUT_DIR=str(tmp_path))
    found = run(config, tiny.dataset(), Group(0, 1, 0, 1, torch.device("cpu")), Metrics(tmp_path, 0))
    model, _ = artifact.load_model(tmp_path / "artifact.golf")
    assert len(model.depth.blocks) == 9
    data = tiny.dataset()
    how = {"seq_len": 16, "stride": 8, "batch": 64, "bos": data.bos, "device": "cpu"}
    assert sliding.score(model, data.val, data.val_bytes, **how).bpb == pytest.approx(
        found["prequant"]["val_bpb"], rel=0.01
    )


@pytest.mark.parametrize(("second", "deepest"), [(0.0, 2), (0.8, 1)])
def test_run_that_ends_before_its_last_pass_is_warned_of(tmp_path: Path, second: float, deepest: int) -> None:
    """Steps at shares 0 and 0.5: a second pass that waits for 0.8 is scored and was never trained."""
    config = settings(**LOOP | {"LOOP_SECOND_AT": second, "ITERATIONS": 2})
    found = run(config, tiny.dataset(), Group(0, 1, 0, 1, torch.device("cpu")), Metrics(tmp_path, 0))
    assert found["loops_trained"] == deepest
    said = [f"scored with NUM_LOOPS=2, trained with at most {deepest}"] if deepest < 2 else []
    assert entry._warnings(config, found | {"total_bytes": 0}) == said


def test_each_depth_is_compiled_once_and_kept() -> None:
    """Two depths make two graphs without a break; going back and forth between them compiles nothing more."""
    model = built(
        settings(NUM_LOOPS=1, LOOP_START=1, LOOP_END=1, SMEAR_GATE="token", DOCUMENT_ATTENTION=1, BIGRAM_VOCAB_SIZE=64)
    )
    model(text(2))  # rotary tables are kept from here on
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    compiled = torch.compile(model, backend=backend, fullgraph=True, dynamic=False)
    for loops in (0, 1, 0, 1):
        model.set_loops(loops)
        torch.testing.assert_close(compiled(text(2)), model(text(2)))
    assert len(graphs) == 2
