"""Compressors and n-gram models as yardsticks."""

from __future__ import annotations

import json
import lzma
import math
import zlib
from collections import Counter, defaultdict
from functools import cache

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.tiny import text, text_folder
from trainer.data.dataset import open_dataset
from trainer.evaluate import references
from trainer.evaluate.ngram import WittenBell

BYTES = st.binary(max_size=60) | st.lists(st.sampled_from(b"ab\0"), max_size=80).map(bytes)


def slow_probability(training: bytes, order: int, context: bytes, symbol: int) -> float:
    """The recursion of the docstring, with dictionaries and no arrays."""
    after: dict[bytes, Counter[int]] = defaultdict(Counter)
    padded = bytes(order) + training
    for at in range(order, len(padded)):
        for k in range(order + 1):
            after[padded[at - k : at]][padded[at]] += 1
    before = bytes(order) + context

    @cache
    def recurse(k: int) -> float:
        if k < 0:
            return 1 / 256
        seen = after[before[len(before) - k :]]
        if not seen:
            return recurse(k - 1)
        return (seen[symbol] + len(seen) * recurse(k - 1)) / (sum(seen.values()) + len(seen))

    return recurse(order)


@settings(deadline=None, max_examples=60)
@given(BYTES.filter(bool), BYTES.filter(bool), st.integers(0, 6))
def test_witten_bell_equals_a_slow_dictionary_model(training, scored, order):
    """Every byte of the text, under the highest order and all below it."""
    found = WittenBell(training, order).probabilities(scored)
    assert found.shape == (order + 1, len(scored))
    for k in range(order + 1):
        for at in range(0, len(scored), 7):
            assert found[k, at] == pytest.approx(slow_probability(training, k, scored[:at], scored[at]), rel=1e-12)


@settings(deadline=None)
@given(BYTES.filter(bool), BYTES, st.integers(0, 6))
def test_witten_bell_distributions_sum_to_one(training, context, order):
    """A full distribution over all 256 bytes after any context, seen or not, none of them impossible."""
    found = WittenBell(training, order).distribution(context)
    assert found.sum(axis=1) == pytest.approx(np.ones(order + 1), abs=1e-12)
    assert (found > 0).all()


@settings(deadline=None, max_examples=30)
@given(BYTES.filter(bool), BYTES.filter(bool), st.integers(0, 4))
def test_witten_bell_scores_with_the_distribution_it_states(training, scored, order):
    """What a byte is charged is its entry in the distribution after the bytes before it."""
    model = WittenBell(training, order)
    at = len(scored) - 1
    assert model.probabilities(scored)[:, at] == pytest.approx(model.distribution(scored[:at])[:, scored[at]])


@pytest.mark.parametrize(("training", "order"), [(b"", 2), (b"abc", 7), (b"abc", -1)])
def test_witten_bell_refuses_what_it_can_not_count(training, order):
    """Seven bytes of context and the next one would not fit into an int64."""
    with pytest.raises(ValueError, match="allowed are orders 0 to 6"):
        WittenBell(training, order)


def test_zstd_with_a_prefix_can_be_unpacked_and_gains():
    """It really is a compressor: given the prefix, the text comes back."""
    prefix, scored = text(200_000, 1), text(20_000, 1)[5000:] + b"!"
    packed = references.zstd(scored, prefix)
    known = zstandard.ZstdCompressionDict(prefix, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    assert zstandard.ZstdDecompressor(dict_data=known).decompress(packed) == scored
    assert zstandard.ZstdDecompressor().decompress(references.zstd(scored)) == scored
    assert len(packed) < len(references.zstd(scored)) / 20


def test_references_are_sizes_over_the_same_bytes():
    """Recomputed here from the standard library; priming never hurts on related text."""
    training, scored = text(50_000, 1), text(5000, 2)
    found = references.compute(training, scored)
    assert list(found) == list(references.LABELS)
    assert found["zlib9"] == 8 * len(zlib.compress(scored, 9)) / 5000
    both = len(lzma.compress(training + b"\0" + scored, preset=9 | lzma.PRESET_EXTREME))
    assert found["lzma9e_primed"] == 8 * (both - len(lzma.compress(training, preset=9 | lzma.PRESET_EXTREME))) / 5000
    assert found["lzma9e_primed"] < found["lzma9e"]
    assert found["zstd22_primed"] < found["zstd22"]
    slow = -sum(math.log2(slow_probability(training[:3000], 2, scored[:at], scored[at])) for at in range(20))
    fast = -np.log2(WittenBell(training[:3000], 2).probabilities(scored)[2, :20]).sum()
    assert fast == pytest.approx(slow)


def test_references_are_cached_by_content(tmp_path, monkeypatch):
    """The second call reads the file; a file of other texts, or a damaged one, is not believed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = open_dataset(str(text_folder(tmp_path / "data")), "bytes")
    first = references.of_dataset(data)
    path = data.folder / "references.json"
    held = json.loads(path.read_text())
    assert held["bpb"] == first
    path.write_text(json.dumps(held | {"bpb": dict.fromkeys(first, 1.0)}))
    assert references.of_dataset(data) == dict.fromkeys(first, 1.0)
    for damaged in (json.dumps(held | {"key": "of other texts", "bpb": dict.fromkeys(first, 1.0)}), "{", "[]"):
        path.write_text(damaged)
        assert references.of_dataset(data) == first


def test_references_line_names_all_of_them():
    """One line, with the primed ones set apart."""
    line = references.line(dict.fromkeys(references.LABELS, 1.25), 99)
    assert line.startswith("references on the same 99 bytes: zlib-9 1.250  zstd-22 1.250")
    assert line.endswith("(primed with the training text: zstd-22 1.250  lzma-9e 1.250)")
