"""Partial evaluation: what is left of small programs, and that they still do the same."""

from __future__ import annotations

import ast
import contextlib
import io
from types import SimpleNamespace
from typing import Any

import pytest

from trainer.export import names, text
from trainer.export.link import ExportError, Linked, link
from trainer.export.script import settle


def linked(**modules: str) -> Linked:
    """Modules of a package `p`, the last one being run."""
    trees = {f"p.{name}": ast.parse(source) for name, source in modules.items()}
    return link({"p": ast.parse(""), **trees}, [f"p.{[*modules][-1]}"])


def left(source: str, root: str = "main", **frozen: Any) -> str:
    """What is left of a module when its settings are known and `main` is called."""
    program = linked(main=source)
    settle(program, [root], frozen, set(frozen), SimpleNamespace(**frozen))
    text.undocumented(program.body)
    return text.written(program.body)


def printed(source: str) -> str:
    """What a program prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(source, "program", "exec", dont_inherit=True), {"__name__": "program"})
    return out.getvalue()


def test_export_cuts_branches_that_settings_rule_out() -> None:
    """A setting becomes its value, a condition its answer, and what only the other branch used is gone."""
    found = left(
        "import json\nimport math\n"
        "def big(x): return json.dumps(x)\n"
        "def small(x): return math.sqrt(x)\n"
        "def main(config, x):\n    if config.size > 3 and config.kind == 'a':\n        return big(x)\n"
        "    return small(x) * config.size\n",
        size=2,
        kind="a",
    )
    assert "json" not in found
    assert "return small(x) * 2" in found


def test_export_folds_a_registry_to_its_one_entry() -> None:
    """A table read at a known key is that entry; the others and the table are gone."""
    found = left(
        "class A: pass\nclass B: pass\nFORMS = {'a': A, 'b': B}\n"
        "def main(config):\n    return FORMS[config.form]() if config.form != 'off' else None\n",
        form="b",
    )
    assert "return B()" in found
    assert "class A" not in found
    assert "FORMS" not in found


def test_export_keeps_a_table_that_is_changed_later() -> None:
    """A registry that something writes to is looked up when the program runs."""
    source = "T = {'a': 1, 'b': 2}\ndef change():\n    T['a'] = 9\ndef main(config):\n    change()\n    return T[config.form]\n"
    assert "T['a']" in left(source, form="a").split("def main")[1]


OBJECTS = """
class Part: pass
class Model:
    def __init__(self, config):
        self.part = Part() if config.on else None
        self.name = 'model'
        self.size = config.size
    def run(self):
        if self.part is not None:
            print('part')
        return self.size
    def other(self): return self.name
def main(config): return Model(config).run()
"""


def test_export_reads_attributes_that_always_hold_one_value() -> None:
    """Set once to a constant: read as that. Set to an object: never None. Never read: not set. Never called: not there."""
    off, on = left(OBJECTS, on=False, size=3), left(OBJECTS, on=True, size=3)
    assert "part" not in off
    assert "return 3" in off
    assert "other" not in off
    assert "is not None" not in on
    assert "print('part')" in on


@pytest.mark.parametrize(
    "more",
    [
        "def poke(m):\n    m.size = 4\n",
        "def poke(m):\n    m.size += 1\n",
        "def poke(m):\n    setattr(m, 'size', 4)\n",
        "class Sub(Model):\n    def __init__(self, config):\n        self.size = 5\ndef poke(m): return Sub(m)\n",
    ],
)
def test_export_trusts_no_attribute_that_something_else_sets(more: str) -> None:
    """Another object's store, setattr or a subclass: the attribute is read when the program runs."""
    source = OBJECTS.replace("return Model(config).run()", "return (poke(Model(config)), Model(config).run())") + more
    assert "return self.size" in left(source, on=False, size=3)


def test_export_keeps_methods_that_a_foreign_base_calls() -> None:
    """Nobody here calls `run` of a thread by name."""
    source = (
        "import threading\nclass T(threading.Thread):\n    def run(self): print(1)\n    def unused(self): print(2)\n"
    )
    found = left(source + "def main(config):\n    T().start()\n")
    assert "def run" in found
    assert "unused" not in found


def test_export_of_a_class_nobody_makes_answers_isinstance() -> None:
    """Then the class is gone; one that is made stays asked for."""
    source = "class A: pass\nclass B: pass\ndef main(config, x):\n    y = B()\n    return isinstance(x, A), isinstance(x, B), y\n"
    found = left(source)
    assert "return (False, isinstance(x, B), y)" in found
    assert "class A" not in found


def test_export_settles_parameters_that_all_calls_agree_on() -> None:
    """Such a parameter is its value and is not passed any more; one they differ in stays."""
    found = left(
        "def f(x, size, *, mode='m', other=0):\n    return [x, size, mode, other]\n"
        "def main(config, x):\n    return f(x, config.size, other=1), f(x + 1, 4, other=2)\n",
        size=4,
    )
    assert "def f(x, *, other=0)" in found
    assert "return [x, 4, 'm', other]" in found
    assert "f(x + 1, other=2)" in found


LABELS = """
def wanted(config):
    found = ['a']
    if config.more:
        found.append('b')
    if config.most:
        found.append('c')
    return found
def build(label):
    if label == 'a':
        return 1
    if label in {'c', 'd'}:
        return 3
    if label == 'b':
        return 2
    raise ValueError(label)
def main(config):
    out = []
    for label in wanted(config):
        out.append(build(label))
    return out
"""


def test_export_of_a_loop_over_known_labels_drops_the_others() -> None:
    """Only labels that the list can hold are asked for, each until it is found."""
    found = left(LABELS, more=True, most=False)
    assert "return 1" in found
    assert "return 3" not in found
    assert "return 2" in found
    assert "raise" not in found


def test_export_leaves_a_generator_a_generator() -> None:
    """A function whose last yield is cut still gives something to loop over."""
    found = left(
        "def g(config, x):\n    if config.on:\n        yield x\n    print(x)\ndef main(config):\n    return [*g(config, 7)]\n",
        on=False,
    )
    space: dict[str, Any] = {}
    exec(found, space)
    assert space["main"](None) == []


def test_export_tells_names_of_two_modules_and_locals_apart() -> None:
    """Equal names in two modules, a local of an imported name, an import inside a function."""
    program = linked(
        a="VERSION = 'a'\ndef score(): return VERSION\n",
        b="VERSION = 'b'\ndef score(): return VERSION\n",
        main="from p import a\nfrom p.b import score as other\n"
        "def main():\n    from p import b\n    score = a.score() + b.score()\n    VERSION = other()\n"
        "    return score + VERSION\nprint(main())\n",
    )
    assert printed(text.written(program.body)) == "abb\n"


def test_export_refuses_what_it_cannot_follow() -> None:
    """A module used as a value, and a relative import: one line that says where."""
    with pytest.raises(ExportError, match=r"p\.main:2: the module p\.a is used as a value"):
        linked(a="x = 1\n", main="from p import a\nprint(a)\n")
    with pytest.raises(ExportError, match="relative imports"):
        linked(a="x = 1\n", main="from . import a\n")


TRICKY = '''
import math as m
from dataclasses import dataclass
@dataclass(frozen=True)
class Point:
    """Text."""
    first: int
    second: int = 2
    @property
    def total(self): return self.first + self.second
def decorated(wanted, *rest, scale=1.0, **named):
    """Text."""
    for position, value in enumerate(rest):
        if value: continue
        else:
            try: wanted += position
            except ValueError as error: print(error)
            finally: wanted -= 0
    def nested(inner, lower=lambda held: held + wanted):
        return [lower(each) for each in inner if each not in (1, 2)] or {key: value for key, value in named.items()}
    return nested(rest), f"{wanted!r:>{6}} {scale:.1f}\\n{'x' if wanted else 'y'}", -2 ** 2, (1).real, 1 if wanted else 2
def loop(limit):
    total = 0
    while total < limit:
        total += 1
        if total == 3: break
    else: total = -1
    with open(__import__("os").devnull) as stream: held = stream.read()
    return total, held, m.floor(2.5), Point(first=1).total, Point(3, second=4).second
print(decorated(1, 0, 3, scale=2.0, other=5), loop(9), loop(2), "in" in "inner", not 0, 1 if 1 else 2)
'''


def test_squeezed_and_shortened_program_prints_the_same() -> None:
    """Blanks, docstrings and long names gone, behaviour not; half the size."""
    body = ast.parse(TRICKY).body
    text.undocumented(body)
    names.shorten(body)
    small = text.squeezed(text.written(body))
    assert printed(small) == printed(TRICKY)
    assert len(small) < 0.7 * len(TRICKY)
    assert "position" not in small


def test_compressed_program_prints_the_same() -> None:
    """Behind the line that unpacks it."""
    assert printed(text.compressed(TRICKY)) == printed(TRICKY)
