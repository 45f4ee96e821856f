"""What a foreign script reads and prints, told from its source alone: odd ways of reading, packed sources, newer Python."""

from __future__ import annotations

import ast
import base64
import bz2
import gzip
import lzma
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from golfctl.errors import InputError
from golfctl.store import packed
from golfctl.store.envvars import read_env
from golfctl.store.fstrings import for_older_python
from golfctl.store.labels import choose, score_labels
from golfctl.store.syntax import read_script, syntax_tree

ODD = b"""\
import os
import dataclasses
from dataclasses import dataclass, field
@dataclass
class Args:
    a: int = field(default_factory=lambda: int(os.environ.get("A", 5)))
    b: bool = field(default_factory=lambda: bool(int(os.getenv("B", "1"))))
def _get(name, kind, fallback="7"):
    return kind(os.environ.get(name, fallback))
C = _get("C", int)
D = _get(name="D", kind=int, fallback="8")
class Reader:
    def env(self, key, default=None):
        return os.environ.get(key, default)
    def must(self, key):
        return os.environ[key]
reader = Reader()
E = reader.env("E", 3)
F = reader.must("F")
G, H = "GEE", "AITCH"
g = H in os.environ and os.environ[G]
def local():
    G = compute()
    return os.environ.get(G)
for name in ("I", "J"):
    print(os.environ.get(f"LOOP_{name}", "0"))
K = {key: os.environ[key] for key in ["K1", "K2"]}
def outer(key): return _get(key, float, 1.5)
L = outer("L")
M = os.environ["M"] if "M" in os.environ else 1
N = os.environ[f"N{compute()}"]
"""


def test_envvars_follows_factories_wrappers_constants_and_loops() -> None:
    """Wrappers of wrappers, methods, keyword names, names bound once; a name that is computed is told by its line."""
    reads = read_env(ODD, "x.py")
    found = {item.name: item for item in reads.variables}
    assert set(found) == {*"ABCDEFLM", "GEE", "AITCH", "LOOP_I", "LOOP_J", "K1", "K2"}
    defaults = {name: found[name].default for name in ("A", "B", "C", "D", "E", "L", "LOOP_I", "F")}
    assert defaults == {
        "A": "5", "B": "'1'", "C": "'7'", "D": "'8'", "E": "3", "L": "1.5", "LOOP_I": "'0'", "F": None,
    }  # fmt: skip
    assert {name for name, item in found.items() if item.required} == {"F", "GEE", "K1", "K2"}
    assert reads.computed == (24, 31)
    assert (found["E"].place, found["F"].place) == ("x.py:18", "x.py:19")


INNER = b"import os\nRATE = float(os.environ.get('RATE', '0.1'))\nSEED = os.environ['SEED']\n"
RAW = [{"id": lzma.FILTER_LZMA2}]


def ways() -> dict[str, bytes]:
    """One source packed as the field does it, and as it might."""
    raw = lzma.compress(INNER, format=lzma.FORMAT_RAW, filters=RAW)
    lzma85, zlib64 = base64.b85encode(lzma.compress(INNER)), base64.b64encode(zlib.compress(INNER)).decode()
    twice = f"import zlib\nexec(zlib.decompress({zlib.compress(INNER)!r}))".encode()
    return {
        "lzma raw": (
            f"import lzma as L,base64 as B\nexec(L.decompress(B.b85decode({base64.b85encode(raw).decode()!r}),"
            'format=L.FORMAT_RAW,filters=[{"id":L.FILTER_LZMA2}]))'
        ).encode(),
        "lzma": f"import lzma,base64\nexec(lzma.decompress(base64.b85decode({lzma85!r})))".encode(),
        "zlib, named": (
            f"from zlib import decompress as d\nfrom base64 import b64decode\nA = {zlib64!r}\n"
            "code = d(b64decode(A)).decode('utf-8')\nexec(compile(code, __file__, 'exec'), globals())"
        ).encode(),
        "bz2 in two": f"import bz2\nexec(bz2.decompress({bz2.compress(INNER)[:30]!r} + {bz2.compress(INNER)[30:]!r}))".encode(),
        "gzip": f"import gzip\nexec(gzip.decompress({gzip.compress(INNER)!r}))".encode(),
        "twice": f"import bz2\nexec(bz2.decompress({bz2.compress(twice)!r}))".encode(),
        "plain": f"exec({INNER.decode()!r})".encode(),
    }


@pytest.mark.parametrize("source", ways().values(), ids=ways())
def test_packed_source_is_read_inside(source: bytes) -> None:
    """Its variables have places in the unpacked text, and what was done is said."""
    reads = read_env(source, "train.py")
    found = {item.name: item for item in reads.variables}
    assert (found["RATE"].default, found["SEED"].required) == ("'0.1'", True)
    assert found["RATE"].place.endswith("[unpacked]:2")
    assert "its source is packed" in reads.packed
    assert (reads.closed, reads.inner) == (False, INNER)


BOMB = base64.b85encode(zlib.compress(b"x" * (packed.MAX_BYTES + 1), 9)).decode()


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("exec(open(__file__.replace('a', 'b')).read())", "line 1 computes it: a call of open("),
        (
            "import zlib, marshal\nexec(marshal.loads(zlib.decompress(b'x')))",
            "line 2 computes it: a call of marshal.loads",
        ),
        (
            f"import zlib, base64\nexec(zlib.decompress(base64.b85decode({BOMB!r})))",
            "it holds more than 1,000,000 bytes",
        ),
        ("import zlib\nexec(zlib.decompress(b'no zlib'))", "it can't be decoded: Error -3"),
        (f"import zlib\nexec(zlib.decompress({zlib.compress(INNER)[:-9]!r}))", "its zlib stream is cut off"),
        ("import base64\nexec(base64.b85decode('\\x00'))", "it can't be decoded: bad base85"),
        ("a = 'x'\na = 'y'\nexec(a)", "line 3 computes it: name"),
        ("exec(5)", "it runs something that is no text"),
        (
            "import lzma as L\nexec(L.decompress(b'', format=L.FORMAT_RAW, filters=[{'id': L.FILTER_LZMA2,"
            "'dict_size': 1 << 31}]))",
            "an lzma dictionary of 2,147,483,648 bytes",
        ),
        ("import base64\nexec(base64.b64decode('ZGVmICg6'))", "[unpacked]:1: not Python: "),
    ],
)
def test_packed_source_that_stays_closed_is_said(source: str, why: str) -> None:
    """One line with the reason; nothing is run, nothing grows without bounds, nothing is raised."""
    reads = read_env(source.encode(), "t.py")
    assert reads.closed
    assert why in reads.packed
    assert reads.variables == ()


def test_packed_source_that_names_itself_often_is_followed_once() -> None:
    """Nine lines that would be looked at 16 ** 7 times."""
    text = "a0 = ''\n"
    for number in range(1, 8):
        four = f"((a{number - 1} + a{number - 1}) + (a{number - 1} + a{number - 1}))"
        text += f"a{number} = (({four} + {four}) + ({four} + {four}))\n"
    reads = read_env(f"{text}exec(a7)".encode(), "t.py")
    assert (reads.closed, reads.inner) == (False, b"")


def test_chain_of_wrappers_is_followed_to_its_end() -> None:
    """Each of 1,000 functions calls the next, which stands below it: the last one reads, the first is called."""
    chain = [f"def f{i}(n): return f{i + 1}(n)" for i in range(1000)]
    source = "\n".join(["import os", *chain, "def f1000(n): return os.environ.get(n, 5)", "f0('X')"])
    (found,) = read_env(source.encode(), "t.py").variables
    assert (found.name, found.default, found.line) == ("X", "5", 1003)


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (b"x = " + b"-" * 50_000 + b"1", "too deeply nested"),
        (b"import os\nos.environ.get(" + b"'a' + " * 5000 + b"'a')", "too deeply nested"),
        (b"x = [" + b"0, " * 400_000 + b"]", "too large: of a script at most 1,000,000 bytes"),
        (
            b"import os\ndef g(n, d='" + b"y" * 60_000 + b"'): return os.environ.get(n, d)\n" + b"g('A')\n" * 100,
            "put together from too many parts",
        ),
    ],
)
def test_source_that_would_take_too_long_is_refused_in_words(source: bytes, why: str) -> None:
    """Size, depth and effort have bounds, for what it reads as for what it prints."""
    assert str(read_env(source, "t.py").error).startswith(f"t.py:1: {why}")
    assert score_labels(source, "t.py") == []


def test_script_that_is_no_file_or_too_large_is_not_read(tmp_path: Path) -> None:
    """A pipe is not waited for, a device has no end."""
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "large.py").write_bytes(b"#" * 1_000_001)
    (tmp_path / "zero.py").symlink_to("/dev/zero")
    for name, why in (("pipe.py", "is no file"), ("zero.py", "is no file"), ("large.py", "is too large")):
        with pytest.raises(InputError, match=why):
            read_script(tmp_path / name)


def test_default_that_overflows_has_no_value() -> None:
    """A product of whole numbers too large for the fraction it is multiplied with."""
    source = f"import os\ndef g(n, d=1): return os.environ.get(n, d)\ng('A', low={'1024**64*' * 9}1.5)"
    (found,) = read_env(source.encode(), "t.py").variables
    assert found.limits == ()


def test_packed_source_keeps_the_wrappers_own_variables() -> None:
    """What the outer lines read counts, too; an exec inside a function is no packed script."""
    source = b"import os, zlib\nX = os.environ.get('OUTER')\n" + ways()["gzip"]
    assert {item.name for item in read_env(source, "t.py").variables} == {"OUTER", "RATE", "SEED"}
    assert read_env(b"def f(code):\n    exec(code)\n", "t.py").packed == ""


NEWER = [
    "f'{a['b']}'",
    'f"{x["y"]} {z!r:>{w}} {{no}}"',
    "f'{'\\n'.join(items)} and {d['k']:.2f}'",
    "f'{f'{deep['x']}'}'",
    "f'''{a['b']} \"quoted\" {c}'''",
    "rf'\\d{n['#']}' + 'plain {no[\"field\"]}' + b'bytes'.decode()",
    "f'{a[\n1]}'",
]


@pytest.mark.parametrize("text", NEWER)
def test_newer_fstrings_are_read_by_any_python(text: str) -> None:
    """What Python 3.12 allows parses after rewriting, with every line where it was."""
    source = f"import os\nshown = {text}\nLAST = os.environ.get('LAST', 1)  # f'{{not['a'] string\n"
    tree = ast.parse(for_older_python(source))
    assert isinstance(tree.body[1], ast.Assign)
    reads = read_env(source.encode(), "t.py")
    assert [(item.name, item.line) for item in reads.variables] == [("LAST", 3 + text.count("\n"))]


@pytest.mark.parametrize("text", ["f'{a", "f'{a[}'", "'''never", "f'{" * 20, 'f"{\'\'\'a\'\'\' + """b"""}"'])
def test_source_that_can_not_be_followed_is_left_as_it_is(text: str) -> None:
    """A broken source stays broken and is reported as such."""
    assert for_older_python(text) == text
    assert "not Python" in str(read_env(f"x = {text}".encode(), "t.py").error) or syntax_tree(
        f"x = {text}".encode(), "t"
    )


SCRIPT = """\
def log(text): print(text)
def timed(label, f):
    loss, bpb = f()
    log(f"{label} val_loss:{loss:.8f} val_bpb:{bpb:.8f} eval_time:{1:.0f}ms")
log(f"step:{1}/{2} val_loss:{3:.4f} val_bpb:{4:.4f} train_time:{5}ms")
log("val_bpb:enabled tokenizer_kind=sentencepiece")
"""


def labelled(*lines: str) -> list[str]:
    return score_labels((SCRIPT + "\n".join(lines)).encode(), "t.py")


def test_score_labels_come_from_literals_and_from_calls() -> None:
    """Progress lines are none; of a line printed twice the exact one counts; a label that is computed is marked."""
    exact = 'log(f"final_x val_loss:{1:.4f} val_bpb:{2:.4f}"); log(f"final_x_exact val_loss:{1:.8f} val_bpb:{2:.8f}")'
    assert labelled(exact) == ["final_x_exact"]
    assert labelled("timed('quantized', f)", "timed(label='quantized_sliding', f=f)", exact) == [
        "quantized",
        "quantized_sliding",
        "final_x_exact",
    ]
    assert labelled() == []
    assert labelled("timed(name(), f)") == ["*"]
    assert labelled("timed('a', f)", "log(f'final_{how()}_roundtrip val_loss:{1} val_bpb:{2}')") == [
        "a",
        "final_*_roundtrip",
    ]


@pytest.mark.parametrize(
    ("labels", "chosen"), [(["a"], "a"), (["a", "b"], None), ([], None), (["final_*_roundtrip"], None)]
)
def test_score_label_is_chosen_only_without_a_choice(labels: list[str], chosen: str | None) -> None:
    """Which of two lines is the score is not guessed."""
    assert choose(labels) == chosen


@pytest.mark.parametrize("pack", [zlib.compress, lzma.compress, bz2.compress])
def test_score_labels_of_a_packed_source(pack: Callable[[bytes], bytes]) -> None:
    """The text inside is the script."""
    module = {zlib.compress: "zlib", lzma.compress: "lzma", bz2.compress: "bz2"}[pack]
    inner = SCRIPT + "timed('packed_score', f)\n"
    source = f"import {module}\nexec({module}.decompress({pack(inner.encode())!r}))"
    assert score_labels(source.encode(), "t.py") == ["packed_score"]
