"""`python -m trainer.pack OUT.py`: the whole trainer as one readable file, run as `python OUT.py NAME=VALUE ...`.

What is counted is what is shipped: a packed run reports the bytes of its own file as code.
"""

from __future__ import annotations

import sys
from pathlib import Path

from trainer import contract

_HEAD = '''"""A language model trainer in one file, made by trainer.pack from the modules embedded below.

Run: python THIS_FILE [--settings FILE.json] [NAME=VALUE ...]   (--help lists the settings)
"""

import importlib.abc
import importlib.util
import sys

SOURCES = {}
'''

_TAIL = '''

class Embedded(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Imports the modules above, before any of the same name on disk."""

    def find_spec(self, name, path=None, target=None):
        if name not in SOURCES:
            return None
        return importlib.util.spec_from_loader(name, self, origin=__file__, is_package=self.is_package(name))

    def is_package(self, name):
        return any(other.startswith(name + ".") for other in SOURCES)

    def get_source(self, name):
        return SOURCES[name]

    def exec_module(self, module):
        module.__file__ = __file__
        name = module.__spec__.name
        exec(compile(SOURCES[name], f"{__file__}:{name}", "exec"), module.__dict__)


if __name__ == "__main__":
    sys.meta_path.insert(0, Embedded())
    from trainer.__main__ import main

    sys.exit(main(sys.argv[1:]))
'''


def pack(folder: Path) -> str:
    """The text of a single-file trainer made from the package in `folder`; the same sources give the same text.

    Raises ValueError for code that can't be embedded (anything but Python).
    """
    parts = [_HEAD]
    for path in contract.code_files(folder):
        if path.suffix != ".py":
            raise ValueError(f"{path}: only Python sources can be packed")
        name = _module_name(path.relative_to(folder))
        if name != "trainer.pack":  # a packed file has no folder to pack again
            parts.append(f'SOURCES["{name}"] = {_literal(path.read_text(encoding="utf-8"))}\n')
    return "".join(parts) + _TAIL


def _module_name(path: Path) -> str:
    """Dotted name of a source file, relative to the package folder."""
    words = ["trainer", *path.with_suffix("").parts]
    return ".".join(words[:-1] if words[-1] == "__init__" else words)


def _literal(source: str) -> str:
    """A string literal that reads like the source where that is possible, and always evaluates to it."""
    quote = "'" * 3
    plain = quote not in source and not source.endswith(("'", "\\")) and "\r" not in source
    return f"r{quote}{source}{quote}" if plain else repr(source)


def main(arguments: list[str]) -> int:
    """Write the packed file and print its size. Returns the exit code: 0 done, 1 not written, 2 wrongly called."""
    if {"-h", "--help"} & set(arguments):
        print("usage: python -m trainer.pack OUT.py")
        return 0
    if len(arguments) != 1 or arguments[0].startswith("-") or not arguments[0].endswith(".py"):
        print("usage: python -m trainer.pack OUT.py", file=sys.stderr)
        return 2
    out, root = Path(arguments[0]), contract.code_root()
    try:
        content = pack(root).encode()
        contract.write_file(out, content)
    except (OSError, ValueError) as error:
        print(f"trainer.pack: {error}", file=sys.stderr)
        return 1
    print(f"{out}: {len(content)} bytes (the package folder: {contract.code_bytes(root)} bytes)")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
