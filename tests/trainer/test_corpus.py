"""The embedded corpus."""

from __future__ import annotations

import hashlib

import pytest

from trainer.data import corpus
from trainer.data.errors import DataError


@pytest.fixture(scope="module")
def real() -> list[corpus.Document]:
    """This Python's own documentation."""
    return corpus.documents()


def library(folder, **files: str):
    """A standard library of a few modules; `__` in a name stands for a slash."""
    for name, source in files.items():
        path = folder / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
    return folder


def texts_of(folder, group: str) -> list[str]:
    return [document.text.decode() for document in corpus.documents(folder) if document.group == group]


LONG = "a docstring that is long enough to be kept, number"


def test_corpus_finds_every_kind_of_docstring_in_source_order(tmp_path):
    """Module, class, method, function, nested and async ones; cleaned of their indentation."""
    source = f'''"""{LONG} 1"""
class C:
    """{LONG} 2

        more, indented
    and back
    """
    def m(self):
        """{LONG} 3"""
        if True:
            async def inner():
                """{LONG} 4"""
try:
    pass
except ValueError:
    def late():
        """{LONG} 5"""
'''
    found = texts_of(library(tmp_path, zeta=source), "zeta")
    assert [text.split("\n")[0][-1] for text in found] == ["1", "2", "3", "4", "5"]
    assert found[1].endswith("\n\n    more, indented\nand back")


def test_corpus_leaves_out_tests_short_doubled_and_unusable_texts(tmp_path):
    """Shorter than 32 characters, seen before, no UTF-8, holding the separator, in a skipped folder, not Python."""
    folder = library(
        tmp_path,
        alpha=f'"""{LONG} 1"""\ndef f():\n    """too short"""\ndef g():\n    """{LONG} 1"""',
        beta=f'"""{LONG} 1"""\ndef s():\n    "{LONG} \\ud800"\ndef z():\n    "{LONG} \\0"',
        gamma__test__case=f'"""{LONG} 7"""',
        gamma__site=f'"""{LONG} 8"""',
        idlelib__x=f'"""{LONG} 9"""',
        broken="def (",
    )
    found = [document for document in corpus.documents(folder) if LONG.encode() in document.text]
    assert [(d.group, d.text.decode()) for d in found] == [("alpha", f"{LONG} 1"), ("gamma", f"{LONG} 8")]


def test_corpus_without_sources_says_what_to_do(tmp_path):
    """A stripped Python is no reason for a traceback."""
    with pytest.raises(DataError, match="set DATA_PATH"):
        corpus.documents(tmp_path)


def test_corpus_is_clean_and_large_enough(real):
    """No separator, each text once, UTF-8, at least 32 characters, over a megabyte on any supported Python."""
    assert len({document.text for document in real}) == len(real)
    assert all(0 not in document.text and len(document.text.decode()) >= 32 for document in real)
    assert sum(len(document.text) for document in real) > 1_000_000


def test_corpus_splits_by_group_and_keeps_the_sizes_in_reach(real):
    """A group lies in one split; val is some 3-15 % and tune 2-12 % of the bytes."""
    home = corpus.homes(real)
    sizes = dict.fromkeys(corpus.SPLITS, 0)
    for document in real:
        sizes[corpus.split_of(home[document.group])] += len(document.text)
    total = sum(sizes.values())
    assert 0.03 < sizes["val"] / total < 0.15
    assert 0.02 < sizes["tune"] / total < 0.12
    parts = corpus.split_documents()
    assert {name: sum(map(len, texts)) for name, texts in parts.items()} == sizes
    assert [document.text for document in real if corpus.split_of(home[document.group]) == "val"] == parts["val"]


def test_split_of_a_group_is_a_function_of_its_name():
    """Recomputed by hand: last decimal digit of the hash."""
    for group in ("random", "socket", "json", "asyncio", "debugger"):
        number = int(hashlib.sha256(group.encode()).hexdigest()[:16], 16)
        expected = "val" if str(number).endswith("0") else "tune" if (number // 10) % 20 == 9 else "train"
        assert corpus.split_of(group) == expected
    assert {corpus.split_of(f"name{i}") for i in range(200)} == set(corpus.SPLITS)


def test_group_that_quotes_a_larger_one_goes_where_it_goes():
    """A quarter of its long lines decides; a chain ends at its largest member; a stray common line does not count."""
    lines = [b"%04d a line of more than forty bytes that two groups may share" % i for i in range(40)]
    make = corpus.Document
    found = [
        make("large", b"\n".join(lines[:20])),
        make("middle", b"\n".join(lines[17:27])),
        make("small", b"\n".join(lines[25:29])),
        make("apart", b"\n".join([lines[0], *lines[30:40]])),
        make("other", b"x" * 100),
    ]
    assert corpus.homes(found) == {
        "large": "large", "middle": "large", "small": "large", "apart": "apart", "other": "other"
    }  # fmt: skip
