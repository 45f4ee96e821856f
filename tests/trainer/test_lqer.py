"""LQER: what the low-rank correction wins, what it weighs, and where it is left out."""

from __future__ import annotations

import pytest
import torch

from tests.trainer.calib import hessian, inputs, matrix, nearest
from tests.trainer.tiny import settings
from trainer.quant import lqer
from trainer.quant.calibrated import corrected
from trainer.quant.clip import Clip
from trainer.quant.gptq import damped_factor, weighted_error
from trainer.quant.pipeline import quantised
from trainer.quant.stored import LQER, Stored, parts_of, restore, streams_of


@pytest.mark.parametrize("weighted", [False, True])
def test_lqer_error_falls_with_rank_and_full_rank_is_exact(weighted: bool) -> None:
    """Without rounding: each rank loses less than the one before, by the best possible; the last loses nothing."""
    error = matrix(12, 20).double()
    root = damped_factor(hessian(20, 100), 0.01) if weighted else torch.eye(20, dtype=torch.float64)
    singular = torch.linalg.svdvals(error @ root)
    for rank in range(1, 13):
        a, b = lqer.factors(error, rank, root if weighted else None)
        lost = float(((error - a @ b) @ root).norm())
        assert lost == pytest.approx(float(singular[rank:].norm()), abs=1e-9)
    torch.testing.assert_close(a @ b, error)


@pytest.mark.parametrize("shape", [(40, 130), (130, 40), (16, 64)])
def test_lqer_as_stored_falls_with_rank(shape: tuple[int, int]) -> None:
    """A of two bits and B of four: more rank, less error, on errors that have few directions."""
    draw = torch.Generator().manual_seed(1)
    error = torch.randn(shape[0], 6, generator=draw) @ torch.randn(6, shape[1], generator=draw) + 0.5 * matrix(*shape)
    lost = [float((error - lqer.product(*lqer.coded(error, rank))).norm()) for rank in (1, 2, 4, 8, 16)]
    assert lost == sorted(lost, reverse=True)
    assert lost[0] < float(error.norm())
    assert lost[2] < 0.7 * float(error.norm())


def test_lqer_symbols_fill_their_levels_and_no_more() -> None:
    """A in [-2, 1], standing for -1.5 to 1.5 scales, its largest entry at the end; B in [-7, 7], 64 columns a scale."""
    error = matrix(30, 100)
    parts = dict(zip(LQER, lqer.coded(error, 4), strict=True))
    wanted = streams_of("int6+lqer4", (30, 100))
    for name, array in parts.items():
        stream = wanted[name]
        assert tuple(array.shape) == stream.shape
        assert array.numpy().dtype == stream.dtype
        if stream.dtype == "|i1":
            assert int(array.min()) >= stream.low
            assert int(array.max()) <= stream.high
    assert {int(q) for q in parts["lqer_a"].flatten()} <= {-2, -1, 0, 1}
    exact, _ = lqer.factors(error, 4)
    assert float(parts["lqer_a_scale"]) == pytest.approx(float(exact.abs().max()) / 1.5, rel=1e-3)
    assert tuple(parts["lqer_b_scale"].shape) == (4, 2)
    assert int(parts["lqer_b"][:, :64].abs().amax()) == 7


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (3, 65)])
@pytest.mark.parametrize("size", [0.0, 1e-20, 1.0, 1e4])
def test_lqer_bears_small_and_empty_errors(shape: tuple[int, int], size: float) -> None:
    """Nothing to correct, one column, more columns than a group: finite, and about the error where it is not tiny."""
    error = torch.full(shape, size)
    found = lqer.product(*lqer.coded(error, 1))
    assert torch.isfinite(found).all()
    assert float((found - error).abs().max()) <= 0.01 * size + 1e-4


def weights() -> dict[str, torch.Tensor]:
    """Matrices whose rounding loses more from one to the next, and a table that is only looked up."""
    return {f"m{i}": matrix(24, 48, seed=i) * 10.0**i for i in range(4)} | {"table": matrix(24, 48) * 1e6}


def stored(**values: object) -> dict[str, Stored]:
    """All of them rounded to four bits."""
    given = weights()
    seen = {name: inputs(48, 100, seed) for seed, name in enumerate(given) if name != "table"}
    schemes, clips = dict.fromkeys(given, "int4"), dict.fromkeys(given, Clip())
    return quantised(given.items(), schemes, clips, settings(**values), inputs=seen)


def test_lqer_corrects_the_matrices_that_lost_most() -> None:
    """The two with the largest ||W - W^||, with what they weigh in the scheme's name; a table never."""
    found = stored(LQER_RANK=4, LQER_TENSORS=2)
    assert {name: item.scheme for name, item in found.items()} == {
        "m0": "int4",
        "m1": "int4",
        "m2": "int4+lqer4",
        "m3": "int4+lqer4",
        "table": "int4",
    }
    plain = stored()
    for name in ("m2", "m3"):
        before, after = (float((weights()[name] - restore(s[name])).norm()) for s in (plain, found))
        assert after < before


def test_lqer_lowers_the_weighted_error_on_top_of_gptq() -> None:
    """It corrects what GPTQ left."""
    seen = inputs(48, 100, 3)
    lost = [
        weighted_error(weights()["m3"] - restore(stored(GPTQ=1, **more)["m3"]), seen.hessian)
        for more in ({}, {"LQER_RANK": 4}, {"LQER_RANK": 8, "AWQ_ALPHA": 1})
    ]
    assert lost[0] > lost[1] > lost[2]


def test_lqer_is_left_out_where_it_does_not_help() -> None:
    """A weight on the grid lost nothing: no correction is stored. A rank beyond the matrix is its own."""
    weight = restore(nearest("int4")(matrix(6, 10)))
    seen = {"m": inputs(10, 30)}
    kept = corrected({"m": nearest("int4")(weight)}, {"m": weight}, seen, settings(LQER_RANK=4))
    assert kept["m"].scheme == "int4"
    full = corrected({"m": nearest("int4")(matrix(6, 10))}, {"m": matrix(6, 10)}, seen, settings(LQER_RANK=64))
    assert parts_of(full["m"].scheme) == ("int4", False, 6)


@pytest.mark.parametrize(
    "scheme", ["fp16+awq", "fp16+lqer2", "int6+lqer9", "int6+lqer0", "int6+lqer2+awq", "int7", "+awq", ""]
)
def test_schemes_that_make_no_sense_have_no_streams(scheme: str) -> None:
    """Corrections of what is not rounded, ranks beyond the matrix, another order: refused."""
    with pytest.raises(ValueError, match="scheme"):
        streams_of(scheme, (8, 12))


def test_schemes_with_corrections_have_all_their_streams() -> None:
    """In the order in which they are written."""
    names = ["symbols", "scale", "channels", *LQER]
    assert list(streams_of("int6+awq+lqer2", (8, 70))) == names
    assert [s.shape for s in streams_of("int6+awq+lqer2", (8, 70)).values()] == [
        (8, 70),
        (8,),
        (70,),
        (8, 2),
        (1,),
        (2, 70),
        (2, 2),
    ]
