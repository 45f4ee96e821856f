"""Rounding weights: what every scheme and every way of clipping must keep, and which weight gets which."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor

from tests.trainer.switches import SWITCHES, built
from tests.trainer.tiny import settings
from trainer import artifact
from trainer.config import SettingsError, from_values
from trainer.quant.clip import Clip
from trainer.quant.grid import SCHEMES, TERNARY, limits
from trainer.quant.pipeline import quantised
from trainer.quant.rowwise import GRIDS, SMALLEST_SCALE
from trainer.quant.stored import SCALE, SYMBOLS, Stored, restore, streams_of
from trainer.quant.ternary import GROUP

DOCS = Path(__file__).parents[2] / "docs"
CLIPS = (Clip(), Clip("quantile", 0.9), Clip("mse"), Clip("sigma", sigmas=3.0))
FIXED = CLIPS[:3]
ROWS = sorted(GRIDS)

weights = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.integers(1, 9)),
    elements=st.floats(-(2.0**14), 2.0**14, width=32, allow_subnormal=False),
)


def stored(weight: Tensor, scheme: str, clip: Clip = CLIPS[0], **how: float) -> Stored:
    """One weight through the pipeline."""
    return quantised([("w", weight)], {"w": scheme}, {"w": clip}, settings(), **how)["w"]


def back(weight: Tensor, scheme: str, clip: Clip = CLIPS[0]) -> Tensor:
    """The weight that a reader of the artifact has."""
    return restore(stored(weight, scheme, clip))


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Weights as a trained matrix has them, more or less."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@examples(deadline=None, max_examples=60)
@given(weights, st.sampled_from(SCHEMES), st.sampled_from(CLIPS))
def test_streams_are_what_the_scheme_says(array: np.ndarray, scheme: str, clip: Clip) -> None:
    """Types, shapes and limits are those a reader checks against; symbols are multiples of the grid's step."""
    found = stored(torch.from_numpy(array), scheme, clip)
    expected = streams_of(scheme, array.shape)
    assert {name: (stream.dtype, stream.shape) for name, stream in expected.items()} == {
        name: (content.dtype.newbyteorder("<").str, content.shape) for name, content in found.streams.items()
    }
    symbols, scale = found.streams[SYMBOLS], found.streams[SCALE]
    assert expected[SYMBOLS].low <= symbols.min() <= symbols.max() <= expected[SYMBOLS].high
    assert (scale > 0).all()
    if scheme != TERNARY:
        assert not (symbols % GRIDS[scheme].step).any()


@examples(deadline=None, max_examples=60)
@given(weights, st.sampled_from(ROWS), st.sampled_from(CLIPS))
def test_rounding_stays_within_half_a_step_where_nothing_is_clipped(array: np.ndarray, scheme: str, clip: Clip) -> None:
    """What lies beyond the last symbol is off by the distance to it and no more."""
    found = stored(torch.from_numpy(array), scheme, clip)
    scale = found.streams[SCALE].astype(np.float64)[:, None]
    weight, grid = array.astype(np.float64), GRIDS[scheme]
    allowed = np.maximum(0.5 * grid.step * scale, np.abs(weight) - grid.levels * scale) * (1 + 1e-6)
    assert (np.abs(restore(found).double().numpy() - weight) <= allowed).all()
    if clip.kind == "max":
        assert (np.abs(weight) <= (grid.levels + 0.5 * grid.step) * scale).all(), "max clips nothing"


@examples(deadline=None, max_examples=60)
@given(weights)
def test_ternary_is_never_worse_than_zeros_and_keeps_the_mean_magnitude(array: np.ndarray) -> None:
    """Per group of a row; what is off is off by no more than the scale or the entry itself."""
    found = stored(torch.from_numpy(array), TERNARY)
    weight, kept = array.astype(np.float64), restore(found).double().numpy()
    scale = found.streams[SCALE].astype(np.float64)
    assert (np.abs(kept - weight) <= np.maximum(np.abs(weight), scale) * (1 + 1e-6)).all()
    assert (((kept - weight) ** 2).sum(1) <= (weight**2).sum(1) * (1 + 1e-5)).all()
    mean, seen = np.abs(weight).mean(1), scale[:, 0] > SMALLEST_SCALE
    np.testing.assert_allclose(np.abs(kept).mean(1)[seen], mean[seen], rtol=2**-10)


def test_ternary_groups_have_scales_of_their_own() -> None:
    """128 entries share a scale, the rest of the row has another, and a row's last group counts its own entries only."""
    weight = torch.cat([normal(3, GROUP), 100 * normal(3, 7, seed=1)], dim=1)
    whole = back(weight, TERNARY)
    assert torch.equal(whole[:, :GROUP], back(weight[:, :GROUP].contiguous(), TERNARY))
    assert torch.equal(whole[:, GROUP:], back(weight[:, GROUP:].contiguous(), TERNARY))


@examples(deadline=None, max_examples=60)
@given(weights, st.sampled_from(ROWS), st.sampled_from(FIXED))
def test_rounded_weights_are_fixed_points(array: np.ndarray, scheme: str, clip: Clip) -> None:
    """Rounded again they give the same symbols and scales, not even zero or tiny rows move."""
    check_fixed(torch.from_numpy(array), scheme, clip)


@examples(deadline=None, max_examples=60)
@given(arrays.arrays(np.float32, (2, 2 * GROUP + 3), elements=st.floats(-9, 9, width=32)))
def test_ternary_weights_are_fixed_points(array: np.ndarray) -> None:
    """The same for groups, whole and cut."""
    check_fixed(torch.from_numpy(array), TERNARY, CLIPS[0])


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("clip", FIXED, ids=lambda clip: clip.kind)
def test_long_rounded_rows_are_fixed_points(scheme: str, clip: Clip) -> None:
    """Rows long enough for quantiles to clip."""
    check_fixed(normal(4, 3000), scheme, clip)


def check_fixed(weight: Tensor, scheme: str, clip: Clip) -> None:
    once = stored(weight, scheme, clip)
    again = stored(restore(once), scheme, clip)
    assert np.array_equal(once.streams[SYMBOLS], again.streams[SYMBOLS])
    assert np.array_equal(once.streams[SCALE], again.streams[SCALE])


@pytest.mark.parametrize("bits", [6, 8])
def test_plain_rounding_is_what_it_always_was(bits: int) -> None:
    """The contest's export, spelled out: largest magnitude over the levels as float16, half to even."""
    weight, levels = normal(20, 50), 2 ** (bits - 1) - 1
    scale = (weight.abs().amax(1) / levels).half()
    q = torch.round(weight / scale.float()[:, None]).clamp(-levels, levels)
    found = stored(weight, f"int{bits}")
    assert np.array_equal(found.streams[SYMBOLS], q.to(torch.int8).numpy())
    assert np.array_equal(found.streams[SCALE], scale.numpy())


def test_rows_are_rounded_alone() -> None:
    """A huge row does not coarsen its neighbour, whatever the scheme."""
    small = normal(1, 9)
    for scheme, clip in itertools.product(SCHEMES, CLIPS):
        assert torch.equal(back(torch.cat([small, small * 1e4]), scheme, clip)[:1], back(small, scheme, clip))


def test_zero_rows_get_the_smallest_scale() -> None:
    """A row of zeros has a positive, finite scale and comes back as zeros."""
    for scheme, clip in itertools.product(SCHEMES, CLIPS):
        found = stored(torch.zeros(2, 3), scheme, clip)
        assert (found.streams[SCALE] == SMALLEST_SCALE).all()
        assert not restore(found).any()


@pytest.mark.parametrize("scheme", [*SCHEMES, "fp16"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_weights_that_are_not_finite_are_refused(bad: float, scheme: str) -> None:
    """Or beyond float16: an error that names the weight and not a silent clamp."""
    for clip in CLIPS:
        with pytest.raises(ValueError, match="w: weights are not finite"):
            stored(torch.tensor([[1.0, bad, 0.5]]), scheme, clip)


def test_float16_errs_as_the_docs_say() -> None:
    """By up to 2^-11 of a weight, which is reached, and 2^-25 below the normal numbers."""
    size = torch.linspace(2.0**-14, 4.0, 100_001)
    share = ((back(size, "fp16") - size).abs() / size).max()
    assert 2.0**-12 < share <= 2.0**-11
    tiny = torch.linspace(0, 2.0**-14, 10_001)
    assert (back(tiny, "fp16") - tiny).abs().max() <= 2.0**-25
    assert "at most 2^-11 of it (2^-25 where it is below 2^-14)" in (DOCS / "quantisation.md").read_text()


def test_fewer_bits_err_more() -> None:
    """Each bit halves the error; ternary leaves a fifth of the power."""
    weight = normal(50, 256)
    error = {scheme: (back(weight, scheme) - weight).square().mean().sqrt().item() for scheme in SCHEMES}
    for fine, coarse, ratio in (("int8", "int6", 4.1), ("int6", "int5", 2.07), ("int5", "int4", 2.14)):
        assert error[coarse] / error[fine] == pytest.approx(ratio, rel=0.03)
    assert error["int8x4"] == pytest.approx(error["int6"], rel=0.03)
    assert 0.2 < error[TERNARY] ** 2 < 0.24


def test_least_squared_error_is_never_worse_than_none_clipped() -> None:
    """Row by row, under each scheme; and clearly better where a row has a few entries far out."""
    weight = normal(20, 6000)
    weight[:10, :3] = 12.0
    for scheme in ROWS:
        least, most = ((back(weight, scheme, clip) - weight).square().sum(1) for clip in (CLIPS[2], CLIPS[0]))
        assert (least <= most * (1 + 1e-5)).all()
        if scheme == "int4":
            assert (least[:10] < 0.8 * most[:10]).all()


def test_spread_sets_the_scale_and_the_bytes() -> None:
    """sigma: s = k * spread / levels; doubling k takes a bit out of every symbol."""
    weight = normal(200, 512)
    entropy = []
    for k in (6.0, 12.0):
        found = stored(weight, "int6", Clip("sigma", sigmas=k))
        np.testing.assert_allclose(found.streams[SCALE], k * weight.square().mean(1).sqrt() / 31, rtol=1e-3)
        share = np.unique(found.streams[SYMBOLS], return_counts=True)[1] / weight.numel()
        entropy.append(-(share * np.log2(share)).sum())
    assert entropy[0] - entropy[1] == pytest.approx(1.0, abs=0.02)
    assert np.array_equal(stored(weight, "int6", Clip("sigma", sigmas=6.0)).streams[SCALE][:0], np.zeros(0, "<f2"))


def test_one_k_moves_all_of_them() -> None:
    """clip_k stands in for MATRIX_CLIP_SIGMAS; an embedding at 20 keeps its ratio to it."""
    weight = normal(4, 64)
    found = stored(weight, "int8", Clip("sigma", sigmas=20.0), clip_k=2 * settings().matrix_clip_sigmas)
    assert np.array_equal(found.streams[SCALE], stored(weight, "int8", Clip("sigma", sigmas=40.0)).streams[SCALE])
    plain = stored(weight, "int8", Clip(), clip_k=1.0)
    assert np.array_equal(plain.streams[SCALE], stored(weight, "int8").streams[SCALE])


def test_equal_entries_keep_their_value_under_every_clip() -> None:
    """A row without spread about its mean is no row of zeros."""
    for scheme, clip in itertools.product(SCHEMES, CLIPS):
        weight = torch.full((2, 40), -0.25)
        assert ((back(weight, scheme, clip) - weight).abs() <= 0.25 / 6).all(), (scheme, clip)


# --- which weight gets which ---------------------------------------------------------------------------------------------
def test_bits_go_by_role_and_branch() -> None:
    """Branches fall back to MATRIX_BITS; 16 is float16, 2 ternary; only 8-bit matrices get multiples of 4."""
    config = settings(MATRIX_BITS=8, ATTN_BITS=6, MLP_BITS=2, EMBED_BITS=16, TABLE_BITS=4, INT8_STEP=4)
    names = ("blocks.0.attention.query", "blocks.1.mlp.down", "ngrams.project", "embed", "head", "ngrams.tables")
    found = [artifact.scheme_of(name, config) for name in (*names, "blocks.0.attention.gain")]
    assert found == ["int6", "ternary", "int8x4", "fp16", "fp16", "int4", "fp16"]
    eight = settings(MATRIX_BITS=5, ATTN_BITS=8)
    assert [artifact.scheme_of(name, eight) for name in names[:3]] == ["int8", "int5", "int5"]
    assert artifact.scheme_of("embed", settings(INT8_STEP=4)) == "int8"
    with pytest.raises(KeyError):
        artifact.scheme_of("stranger", config)


def test_clips_go_by_role_and_branch() -> None:
    """The same for k."""
    config = settings(QUANT_CLIP="sigma", MATRIX_CLIP_SIGMAS=10, MLP_CLIP_SIGMAS=11, EMBED_CLIP_SIGMAS=12)
    names = ("blocks.0.attention.query", "blocks.1.mlp.down", "embed", "head", "ngrams.tables")
    assert [artifact.clip_of(name, config).sigmas for name in names] == [10, 11, 12, 12, 12.85]
    assert artifact.clip_of("embed", config).kind == "sigma"
    assert artifact.clip_of("embed", settings()) == Clip("max", 0.9999984, 20.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"INT8_STEP": 4, "MATRIX_BITS": 6}, "INT8_STEP=4 needs matrices of 8 bits"),
        ({"INT8_STEP": 2}, "allowed are 1, 4"),
        ({"MLP_BITS": 3}, "allowed are 0, 2, 4"),
        ({"MLP_CLIP_SIGMAS": 0.2}, "MLP_CLIP_SIGMAS=0.2: must be at least 0.5"),
        ({"QAT_START": 0.5, "QUANT_CLIP": "sigma", "MODEL_BYTES_TARGET": 90000}, "chooses that grid afterwards"),
        ({"QAT_START": 0, "AWQ_ALPHA": 0.5}, "scales columns afterwards"),
        ({"QAT_START": 0, "LQER_RANK": 4}, "adds what rounding loses"),
        ({"QUANT_CLIP": "median"}, "allowed are max, quantile"),
        ({"CLIP_QUANTILE": 1.5}, "between 0.5 and 1"),
    ],
)
def test_impossible_settings_are_refused(values: dict[str, object], message: str) -> None:
    """One line says what was allowed."""
    with pytest.raises(SettingsError, match=message):
        from_values(values)


MIXTURES: tuple[dict[str, object], ...] = (
    {"MATRIX_BITS": 4, "EMBED_BITS": 16, "TABLE_BITS": 16, "QUANT_CLIP": "quantile", "CLIP_QUANTILE": 0.9},
    {"ATTN_BITS": 5, "MLP_BITS": 2, "EMBED_BITS": 6, "TABLE_BITS": 8, "QUANT_CLIP": "mse"},
    {"INT8_STEP": 4, "EMBED_BITS": 2, "TABLE_BITS": 2},
    {"MATRIX_BITS": 6, "TABLE_BITS": 5, "QUANT_CLIP": "sigma"},
    {"MATRIX_BITS": 16, "EMBED_BITS": 4},
)


@pytest.mark.parametrize("mixture", MIXTURES, ids=str)
@pytest.mark.parametrize("switch", ["baseline", "patch_moe", "bigram"])
def test_file_gives_back_what_was_rounded(mixture: dict[str, object], switch: str, tmp_path: Path) -> None:
    """Every weight read is the one the pipeline made, to the last bit, under the settings written."""
    config = settings(**mixture, **SWITCHES[switch])
    model = built(config, torch.float32)
    artifact.write(tmp_path / "a.golf", model, config, 24, {})
    read, _ = artifact.load_model(tmp_path / "a.golf")
    for name, parameter in model.named_parameters():
        scheme, clip = artifact.scheme_of(name, config), artifact.clip_of(name, config)
        expected = restore(quantised([(name, parameter)], {name: scheme}, {name: clip}, config)[name])
        assert torch.equal(read.get_parameter(name), expected), name


def test_limits_fit_a_byte() -> None:
    """Symbols are stored as int8."""
    assert all(-128 <= low == -high and high <= 127 for low, high in map(limits, SCHEMES))
