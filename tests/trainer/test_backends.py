"""Other ways to attend: they compute what torch's own does, on one row of all documents too, and a wrong one is refused."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.trainer import switches
from tests.trainer.switches import SWITCHES, VOCAB, built, text
from tests.trainer.tiny import dataset, settings, two_processes
from trainer import train
from trainer.config import SettingsError
from trainer.dist import Group
from trainer.evaluate import sliding
from trainer.losses import Losses
from trainer.metrics import Metrics
from trainer.model import backends
from trainer.model.backends import Cudnn, Flex, Unusable, Varlen, adapted, reference
from trainer.model.documents import document_starts, segment_bounds

CPU = torch.device("cpu")
ALONE = Group(0, 1, 0, 1, CPU)
LOOP = Varlen("varlen:loop", reference)
WAYS = {"varlen": LOOP, "cudnn": Cudnn(), "flex": Flex(CPU)}
HEADS = {"MODEL_DIM": 32, "NUM_HEADS": 4, "NUM_KV_HEADS": 2}
BODIES = {
    "whole rows": {},
    "documents": {"DOCUMENT_ATTENTION": 1},
    "stack": HEADS | {"DOCUMENT_ATTENTION": 1, "XSA_LAST_N": 1, "VALUE_RESIDUAL": 1, "ATTN_GATE": "output"},
    "key offset": {"DOCUMENT_ATTENTION": 1} | SWITCHES["key_offset"],
    "loops": {"DOCUMENT_ATTENTION": 1} | SWITCHES["loops"],
    "lanes": {"DOCUMENT_ATTENTION": 1} | SWITCHES["lanes"],
    "patches": SWITCHES["patch_autoregressive"],
}

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without")


def packed(rows: int = 3) -> Tensor:
    """Ids with documents of every length from one on, in rows of LENGTH."""
    ids = text(rows)
    ids[:, ::5] = 0
    ids[0, 1:4] = 0
    return ids


@pytest.mark.parametrize(("body", "way"), [*product(BODIES, ("varlen", "cudnn")), ("patches", "flex")])
def test_backends_give_the_logits_of_torchs_own_attention(body: str, way: str) -> None:
    """float64, every weight random: equal to rounding, for rows, documents, patches and what is built on attention."""
    config = settings(**BODIES[body])
    model, ids = built(config), packed()
    with torch.no_grad():
        torch.testing.assert_close(model(ids, backend=WAYS[way]), model(ids))


@pytest.mark.parametrize("way", ["varlen", "cudnn"])
@pytest.mark.parametrize("body", BODIES)
def test_backends_give_its_gradients(body: str, way: str) -> None:
    """The loss and the gradient of every parameter, with bounds found before the pass as training finds them."""
    config = settings(**BODIES[body])
    model, ids = built(config), packed()
    bounds = backends.bounds_of(WAYS[way], ids.numpy(), model.bos, config, ALONE)
    assert (bounds is not None) == (way == "varlen" and config.document_attention)
    found = []
    for more in ({}, {"backend": WAYS[way], "bounds": bounds}):
        model.zero_grad()
        loss = model(ids, targets=ids.roll(-1, 1), **more)
        loss.backward()
        found.append([loss.detach(), *[parameter.grad.clone() for parameter in model.parameters()]])
    torch.testing.assert_close(found[1], found[0])


@pytest.mark.parametrize("check", [switches.check_rows_alone, switches.check_documents])
def test_flat_row_keeps_rows_and_documents_apart(check: Callable[[Any], None]) -> None:
    """Rows alone, documents alone: to the last bit on one flat row, too."""
    model = built(settings(DOCUMENT_ATTENTION=1, NUM_LAYERS=3))
    flat = partial(model, backend=LOOP)
    flat.bos = model.bos  # type: ignore[attr-defined]
    check(flat)


@pytest.mark.parametrize("way", WAYS)
def test_backends_are_causal(way: str) -> None:
    """Another id at t, also one that begins or ends a document, leaves the rows before t: to rounding, as sums change shape."""
    model, clean = built(settings(DOCUMENT_ATTENTION=1, NUM_LAYERS=3)), packed(2)
    with torch.no_grad():
        before = model(clean, backend=WAYS[way])
        for at in (1, 5, 6, 15):
            changed = clean.clone()
            changed[:, at] = torch.where(changed[:, at] == 0, 3, 0)
            after = model(changed, backend=WAYS[way])
            torch.testing.assert_close(after[:, :at], before[:, :at])
            assert not torch.allclose(after[:, at:], before[:, at:])


def test_segment_bounds_cover_the_batch_and_are_padded() -> None:
    """Starts of the flattened batch, then its end up to one more than a multiple of 64; a row always begins a document."""
    starts = document_starts(torch.tensor([[5, 0, 7, 0], [1, 2, 3, 4]]), 0)
    bounds = segment_bounds(starts)
    assert bounds.dtype == torch.int32
    assert bounds.tolist() == [0, 1, 3, 4] + [8] * 61
    assert len(segment_bounds(torch.ones(1, 64, dtype=torch.bool))) == 65
    assert segment_bounds(torch.ones(1, 65, dtype=torch.bool)).tolist() == [*range(65), *[65] * 64]


def test_segments_operator_is_sound() -> None:
    """Gradients by central differences; schema and fake shapes by torch's own checks of operators."""
    draw = torch.Generator().manual_seed(0)
    three = [torch.randn(7, h, 4, dtype=torch.float64, generator=draw).requires_grad_() for h in (4, 2, 2)]
    bounds = torch.tensor([0, 1, 5, 7, 7], dtype=torch.int32)
    assert torch.autograd.gradcheck(lambda q, k, v: reference(q, k, v, bounds, 7), three)
    torch.library.opcheck(backends._segments, (*three, bounds), test_utils=("test_schema", "test_faketensor"))


def by_torch_210(query: Tensor, key: Tensor, value: Tensor, cu_seq_q: Tensor, cu_seq_k: Tensor, max_q: int, max_k: int,
                 is_causal: bool = False) -> Tensor:  # fmt: skip
    """Attention over segments as torch 2.10 declares it: as many key as query heads."""
    assert is_causal
    assert key.shape == query.shape
    return reference(query, key, value, cu_seq_q, max_q)


def by_torch_213(query: Tensor, key: Tensor, value: Tensor, cu_seq_q: Tensor, cu_seq_k: Tensor, max_q: int, max_k: int,
                 *, window_size: tuple[int, int] = (-1, -1), enable_gqa: bool = False) -> Tensor:  # fmt: skip
    """As torch 2.13 does: bidirectional unless it is given a window."""
    assert window_size == (-1, 0)
    assert enable_gqa == (key.shape != query.shape)
    return reference(query, key, value, cu_seq_q, max_q)


def by_flash(q: Tensor, k: Tensor, v: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, max_seqlen_q: int,
             max_seqlen_k: int, softmax_scale: float | None = None, causal: bool = False,
             window_size: tuple[int, int] = (-1, -1)) -> tuple[Tensor, None]:  # fmt: skip
    """As FlashAttention 3 does, whose older versions return more than the result."""
    assert causal
    return reference(q, k, v, cu_seqlens_q, max_seqlen_q), None


@pytest.mark.parametrize("function", [by_torch_210, by_torch_213, by_flash])
def test_adapted_speaks_every_versions_signature(function: Callable[..., Any]) -> None:
    """Causal and with fewer key heads, whatever the words for it are."""
    config = settings(**HEADS, DOCUMENT_ATTENTION=1)
    assert backends.fault(Varlen("it", adapted(function)), config, CPU) == ""


def test_adapted_understands_the_installed_torch() -> None:
    """Its words for bounds and causality are known; a function with other words is refused."""
    varlen = pytest.importorskip("torch.nn.attention.varlen")
    adapted(varlen.varlen_attn)
    with pytest.raises(Unusable, match="unknown parameters \\(a, b\\)"):
        adapted(lambda a, b: a)


def ahead(query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, longest: int) -> Tensor:
    """Bidirectional within rows."""
    q, k, v = (
        backends.expanded(x, query.shape[1]).unflatten(0, (-1, longest)).transpose(1, 2) for x in (query, key, value)
    )
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(0, 1)


def inexact(query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, longest: int) -> Tensor:
    """A result that is a thousandth too large."""
    return reference(query, key, value, bounds, longest) * 1.001


def undivided(query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, longest: int) -> Tensor:
    """Documents of a row run into each other."""
    rows = torch.arange(0, len(query) + 1, longest, dtype=torch.int32)
    return reference(query, key, value, rows, longest)


def undefined(query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, longest: int) -> Tensor:
    """Not a number."""
    return reference(query, key, value, bounds, longest) * torch.nan


def one_sided(query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, longest: int) -> Tensor:
    """Right, with a gradient that forgets the keys."""
    return reference(query, key.detach() + 0 * key, value, bounds, longest)


@pytest.mark.parametrize(
    ("kernel", "documents", "said"),
    [
        (ahead, 0, "it looks ahead"),
        (inexact, 0, "off by 1.0e-03 of the largest value, 0.0001 is allowed"),
        (undivided, 1, "off by"),
        (undefined, 0, "it looks ahead"),
        (one_sided, 0, "off by 1.0e+00"),
    ],
)
def test_fault_finds(kernel: backends.Kernel, documents: int, said: str) -> None:
    """A kernel that leaks, is off, mixes documents, yields nan or has wrong gradients."""
    config = settings(**HEADS, DOCUMENT_ATTENTION=documents, TRAIN_SEQ_LEN=64)
    assert backends.fault(Varlen("it", kernel), config, CPU).startswith(said)
    assert backends.fault(LOOP, config, CPU) == ""


def test_choose_falls_back_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """auto goes to the next way and in the end to torch's own; a way that was named is refused with the reasons."""
    monkeypatch.setitem(backends.WAYS, "cudnn", lambda device: Varlen("leaky", ahead))
    offered = ["cudnn", "varlen:torch", "varlen:loop"]
    monkeypatch.setattr(backends, "tried", lambda config, device: offered)
    found, line = backends.choose(settings(ATTENTION_BACKEND="auto"), ALONE)
    assert isinstance(found, Varlen)
    assert line == (
        "attention:varlen:loop (causal, agrees with the formula); not cudnn: it looks ahead; varlen:torch: needs a GPU"
    )
    del offered[1:]
    assert backends.choose(settings(ATTENTION_BACKEND="auto"), ALONE) == (
        None,
        "attention:sdpa; not cudnn: it looks ahead",
    )
    with pytest.raises(SettingsError, match="^ATTENTION_BACKEND=cudnn: cudnn: it looks ahead$"):
        backends.choose(settings(ATTENTION_BACKEND="cudnn"), ALONE)


def test_choose_on_a_cpu() -> None:
    """auto is torch's own, untried; varlen is the loop; cuDNN and FlexAttention can't train here, and that is said in a line."""
    assert backends.choose(settings(ATTENTION_BACKEND="auto"), ALONE) == (None, "attention:sdpa")
    found, line = backends.choose(settings(ATTENTION_BACKEND="varlen", DOCUMENT_ATTENTION=1), ALONE)
    assert isinstance(found, Varlen)
    assert line.startswith("attention:varlen:loop (causal, agrees with the formula); not varlen:fa3: No module named")
    with pytest.raises(
        SettingsError, match="ATTENTION_BACKEND=flex: flex: FlexAttention does not support backward on CPU"
    ):
        backends.choose(settings(ATTENTION_BACKEND="flex"), ALONE)
    with pytest.raises(SettingsError, match="ATTENTION_BACKEND=cudnn: cudnn: needs a GPU of the Hopper generation"):
        backends.choose(settings(ATTENTION_BACKEND="cudnn"), ALONE)


def test_ways_of_a_gpu_come_in_their_order() -> None:
    """Documents: over segments first; whole rows: FlashAttention 3, then cuDNN."""
    gpu = torch.device("cuda")
    for documents, wanted in ((1, ["varlen:fa3", "varlen:torch", "flex"]), (0, ["varlen:fa3", "cudnn"])):
        config = settings(ATTENTION_BACKEND="auto", DOCUMENT_ATTENTION=documents)
        assert backends.tried(config, gpu) == wanted


def trained(folder: Path, **values: object) -> dict[str, Any]:
    """Result of a run on a text with documents."""
    data = dataset()
    data.train[::11] = 0
    folder.mkdir()
    return train.run(settings(**values), data, ALONE, Metrics(folder, 0))


@pytest.mark.parametrize("more", [{"DOCUMENT_ATTENTION": 1}, {}, {"DOCUMENT_ATTENTION": 1, "QAT_START": 0}], ids=str)
def test_run_on_a_flat_row_learns_the_same(
    more: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Losses of training and the score after it are those of masked rows, to rounding; auto on a CPU is them to the bit."""
    plain = trained(tmp_path / "plain", **more)
    assert "attention:" not in capsys.readouterr().out
    flat = trained(tmp_path / "flat", ATTENTION_BACKEND="varlen", **more)
    assert "\nattention:varlen:loop (causal, agrees" in capsys.readouterr().out
    auto = trained(tmp_path / "auto", ATTENTION_BACKEND="auto", **more)
    assert flat["train_loss"] == pytest.approx(plain["train_loss"], abs=1e-5)
    assert flat["prequant"]["val_bpb"] == pytest.approx(plain["prequant"]["val_bpb"], abs=1e-5)
    assert auto["artifact_sha256"] == plain["artifact_sha256"]


def test_score_on_a_flat_row_is_the_score() -> None:
    """Sliding windows of documents, other batches and lengths than in training: the same sum of nats."""
    model, data = built(settings(DOCUMENT_ATTENTION=1), torch.float32), dataset()
    big = np.random.default_rng(0).integers(0, VOCAB, 500).astype(np.uint16)
    how = {"seq_len": 16, "stride": 8, "batch": 5, "bos": 0, "device": CPU, "group": ALONE, "patch": 1}
    scores = [sliding.score(m, big, data.val_bytes, **how) for m in (model, partial(model, backend=LOOP))]
    assert scores[1].nats == pytest.approx(scores[0].nats, rel=1e-6)


@pytest.mark.service  # tracing takes seconds
@pytest.mark.filterwarnings("default")
def test_compiled_flat_row_traces_one_graph_for_every_number_of_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of 32 to 512 documents, five lengths of bounds: one graph, and the losses of masked rows."""
    compiler: Callable[..., Any] = torch.compile
    monkeypatch.setattr(torch, "compile", lambda what, **options: compiler(what, backend="aot_eager", **options))
    config = settings(DOCUMENT_ATTENTION=1, ATTENTION_BACKEND="varlen", COMPILE=1)
    way, _ = backends.choose(config, ALONE)
    assert way is not None
    model, losses = built(config, torch.float32), Losses(config, 0, ALONE)
    compiled = torch.compile(model, dynamic=False, fullgraph=True)
    before, sizes = 0, set()
    for number, every in enumerate((16, 9, 2, 5, 1, 3)):
        ids = text(32)
        ids[ids == 0] = 1
        ids.view(-1)[::every] = 0
        bounds = backends.bounds_of(way, ids.numpy(), model.bos, config, ALONE)
        sizes.add(len(bounds))
        loss, _ = losses(partial(compiled, backend=way, bounds=bounds), ids, ids.roll(-1, 1), 0.0, 0)
        loss.backward()
        torch.testing.assert_close(loss, model(ids, targets=ids.roll(-1, 1)))
        if number < 2:  # rotary tables are made in the first and found in the second
            before = train.graphs_traced()
    assert len(sizes) == 5
    assert train.graphs_traced() == before


RANK = """
import sys
from pathlib import Path
from tests.trainer.tiny import dataset, settings
from trainer import dist, train
from trainer.metrics import Metrics

config = settings(DEVICE="cpu", DOCUMENT_ATTENTION=1, ATTENTION_BACKEND=sys.argv[1], ITERATIONS=3)
group = dist.start(config)
assert [group.unanimous(True), group.unanimous(group.rank == 0)] == [True, False]
data = dataset()
data.train[::11] = 0
folder = Path(sys.argv[2]) / f"{sys.argv[1]}{group.rank}"
folder.mkdir()
print(train.run(config, data, group, Metrics(folder, group.rank))["train_loss"])
group.stop()
"""


@pytest.mark.service
def test_two_ranks_on_flat_rows_learn_the_same(tmp_path: Path) -> None:
    """Two ranks, masked rows and flat rows; and what one rank refuses, both do."""
    plain, flat = (
        [float(out.splitlines()[-1]) for out in two_processes(RANK, way, tmp_path, home=tmp_path)]
        for way in ("sdpa", "varlen")
    )
    assert flat[0] == flat[1]
    assert flat == pytest.approx(plain, abs=1e-5)
