"""The range coder: every stream comes back, at the size its model promises, and nothing else is taken for one."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from trainer.packing import codecs, rans
from trainer.packing.blocks import Layout
from trainer.packing.histograms import MOST, classify, codes_of, frequencies_of
from trainer.packing.rans import TOTAL, DamagedError


def layout(rows: list[int], alphabet: int) -> Layout:
    return Layout(np.array(rows, np.int64), alphabet, 1)


def weights(count: int, seed: int, spread: float = 6.0, levels: int = 31) -> np.ndarray:
    """Symbols of Gaussian weights, as uint8 around `levels`."""
    draws = np.random.default_rng(seed).normal(0.0, spread, count)
    return (np.rint(draws).clip(-levels, levels) + levels).astype(np.uint8)


def adversarial() -> dict[str, tuple[list[int], int, np.ndarray]]:
    """Row lengths, alphabet and symbols of streams that coders stumble over."""
    one_rare = np.zeros(9000, np.uint8)
    one_rare[7777] = 5
    wide = np.random.default_rng(1).integers(0, 256, 12_000).astype(np.uint8)
    runs = np.repeat(np.arange(200, dtype=np.uint8), 50)
    return {
        "constant": ([100] * 90, 6, np.full(9000, 3, np.uint8)),
        "last symbol alone": ([1], 256, np.array([255], np.uint8)),
        "one rare symbol": ([100] * 90, 6, one_rare),
        "alternating": ([1000] * 8, 2, np.tile(np.array([0, 1], np.uint8), 4000)),
        "one row": ([8000], 63, weights(8000, 2)),
        "rows of one": ([1] * 6000, 63, weights(6000, 3)),
        "all 256 symbols evenly": ([300] * 40, 256, wide),
        "constant rows, each another": ([50] * 200, 200, runs),
        "rows of every length": (list(range(1, 150)), 255, weights(149 * 75, 4, 40.0, 127)),
        "nine rows": ([1000] * 9, 256, np.repeat(np.arange(9, dtype=np.uint8) * 20, 1000) + weights(9000, 14)),
        "half of the rows untrained": ([20] * 400, 63, np.where(np.arange(8000) // 20 % 2, weights(8000, 5), 31)),
    }


@pytest.mark.parametrize("name", adversarial())
def test_rans_gives_back_adversarial_streams(name: str) -> None:
    """Bit for bit, and never at more than a byte a symbol and what tables cost."""
    rows, alphabet, symbols = adversarial()[name]
    content = codecs.encode(symbols.astype(np.uint8), layout(rows, alphabet))
    assert np.array_equal(codecs.decode(content, layout(rows, alphabet)), symbols)
    assert len(content) <= len(symbols) + 2 * alphabet + 64


@given(st.data())
@hypothesis_settings(max_examples=60, deadline=None)
def test_rans_gives_back_any_stream(data: st.DataObject) -> None:
    """Rows of any lengths over alphabets of 1 to 256 symbols, with any skew."""
    alphabet = data.draw(st.integers(1, 256))
    rows = data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=30))
    picks = data.draw(st.lists(st.integers(0, alphabet - 1), min_size=1, max_size=6))
    seed = data.draw(st.integers(0, 2**16))
    symbols = np.random.default_rng(seed).choice(np.array(picks, np.uint8), sum(rows))
    content = codecs.encode(symbols, layout(rows, alphabet))
    assert np.array_equal(codecs.decode(content, layout(rows, alphabet)), symbols)


@given(st.data())
@hypothesis_settings(max_examples=80, deadline=None)
def test_rans_refuses_or_gives_another_stream_for_changed_bytes(data: st.DataObject) -> None:
    """Whatever the bytes, decoding ends with symbols of the alphabet or with DamagedError; the file's checksum does the rest."""
    rows, alphabet = [20] * 30, 63
    content = bytearray(codecs.encode(weights(600, 6), layout(rows, alphabet)))
    kind = data.draw(st.sampled_from(["flip", "cut", "more", "noise"]))
    if kind == "flip":
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, min(60, len(content) - 1)) | st.integers(0, len(content) - 1))] ^= (
                data.draw(st.integers(1, 255))
            )
    elif kind == "cut":
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    elif kind == "more":
        content += data.draw(st.binary(min_size=1, max_size=9))
    else:
        content = bytearray(data.draw(st.binary(max_size=200)))
    try:
        found = codecs.decode(bytes(content), layout(rows, alphabet))
    except DamagedError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert found.shape == (600,)
        assert found.max() < alphabet


def test_rans_is_within_one_percent_of_the_models_entropy() -> None:
    """Of the sum of -log2 p under the tables it stores, tables and all; for large streams within a fifth of a percent."""
    for count, most in ((80_000, 1.01), (800_000, 1.002)):
        rows = [400] * (count // 400)
        spread = np.repeat(np.random.default_rng(7).uniform(3.0, 12.0, len(rows)), 400)
        symbols = weights(count, 8, 1.0, 31)
        symbols = ((symbols.astype(float) - 31 + np.random.default_rng(9).uniform(-0.5, 0.5, count)) * spread).round()
        symbols = (symbols.clip(-31, 31) + 31).astype(np.uint8)
        content = codecs.encode(symbols, layout(rows, 63))
        bits = codecs.cost(content, symbols, layout(rows, 63)).sum()
        assert bits / 8 < len(content) <= most * bits / 8
        plain = np.bincount(symbols) / count
        order_0 = -np.log2(plain[symbols]).sum()
        assert bits < 0.99 * order_0, "rows of different spread are worth telling apart"


def test_rans_lanes_read_only_their_input() -> None:
    """A stream without its last word, or with one more, is refused, not read past its end."""
    frequencies = frequencies_of(codes_of(np.bincount(weights(5000, 10), minlength=63))[None])
    models = np.zeros(5000, np.uint8)
    content = rans.encode(weights(5000, 10), models, frequencies)
    assert np.array_equal(rans.decode(content, models, frequencies), weights(5000, 10))
    for wrong in (content[:-2], content[:-1], content + b"\0\0", b"", content[:3], bytes(len(content))):
        with pytest.raises(DamagedError):
            rans.decode(wrong, models, frequencies)
    with pytest.raises(DamagedError):
        rans.decode(content, models[:-1], frequencies)


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=256).filter(any))
@hypothesis_settings(max_examples=200, deadline=None)
def test_histograms_survive_their_bytes(counts: list[int]) -> None:
    """Every symbol that occurs keeps a frequency, none that does not gets one, the sum is TOTAL, large shares keep theirs."""
    found = frequencies_of(codes_of(np.array(counts))[None])[0]
    assert found.sum() == TOTAL
    assert np.array_equal(found > 0, np.array(counts) > 0)
    share = np.array(counts, float) / sum(counts) * TOTAL
    large = share > TOTAL / 8
    assert (abs(found[large] / share[large] - 1) < 0.15).all()


def test_histograms_of_any_bytes_are_usable_or_refused() -> None:
    """Tables no encoder wrote still sum to TOTAL."""
    codes = np.random.default_rng(11).integers(0, 256, (500, 256)).astype(np.uint8)
    codes[::7, 3:] = 0
    codes[::5] //= 200
    codes[:, 0] = 1
    found = frequencies_of(codes)
    assert (found.sum(axis=1) == TOTAL).all()
    assert (found >= 0).all()
    assert ((found > 0) == (codes > 0)).all()
    with pytest.raises(ValueError, match="without symbols"):
        frequencies_of(np.zeros((2, 5), np.uint8))


def test_classes_tell_rows_apart_where_it_pays() -> None:
    """Rows alike form one class; rows of a few widths as many; never more than MOST, and the same bytes whatever the threads."""
    alike = weights(60_000, 12)
    assert len(classify(alike, np.full(300, 200), 63).codes) == 1
    mixed = np.concatenate([weights(200, seed, (2.0, 6.0, 11.0)[seed % 3]) for seed in range(300)])
    found = classify(mixed, np.full(300, 200), 63)
    assert 3 <= len(found.codes) <= MOST
    assert len(set(found.labels[0::3]) & set(found.labels[2::3])) == 0
    many = classify(np.tile(mixed, 40), np.full(12_000, 200), 63)  # more rows than are sampled
    assert len(many.labels) == 12_000
    assert len(set(many.labels[0::3]) & set(many.labels[2::3])) == 0


def test_rans_speed_is_bearable() -> None:
    """At the contest's 36 M weights a file must be read in seconds, not minutes; a generous bound for a busy machine."""
    rows, symbols = [500] * 1000, weights(500_000, 13)
    content = codecs.encode(symbols, layout(rows, 63))
    began = time.process_time()
    assert np.array_equal(codecs.decode(content, layout(rows, 63)), symbols)
    assert (time.process_time() - began) / len(symbols) < 5e-6
