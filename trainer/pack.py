"""`python -m trainer.pack OUT.py [--config NAME] [NAME=VALUE ...]`: one configuration as a single self-contained script.

The script holds what the settings use and nothing else (see `trainer.export`). `python OUT.py [NAME=VALUE ...]` trains, writes
the artifact, reloads and scores it; `python OUT.py --score ARTIFACT` scores an artifact alone. What is counted is what is
shipped: it reports the bytes of its own file as code.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from trainer import contract
from trainer.config import Config, SettingsError, load

USAGE = (
    "usage: python -m trainer.pack OUT.py [--config NAME] [--settings FILE.json] [NAME=VALUE ...] [--compress | --readable]\n"
    "       python -m trainer.pack --explain ARTIFACT [--json]   (where every byte of it goes)"
)


def pack(config: Config, *, compress: bool = False, readable: bool = False) -> str:
    """The text of a script that does what this trainer does with these settings.

    The same sources and settings give the same text. `readable`: names and docstrings stay. Raises ExportError where the sources
    do something an export can't follow, OSError, SyntaxError.
    """
    source, packages = source_of(config, readable=readable)
    return finished(source, packages, compress=compress)


def source_of(config: Config, *, readable: bool = False) -> tuple[str, tuple[str, ...]]:
    """What such a script does, and the packages that it needs. Raises as `pack` does."""
    from trainer.export import names, script, text

    program = script.program(contract.code_root(), config)
    body = program.linked.body
    if readable:
        return text.written(body), program.packages
    text.undocumented(body)
    names.shorten(body)
    return text.squeezed(text.written(body)), program.packages


def finished(source: str, packages: tuple[str, ...], *, compress: bool) -> str:
    """The script itself: what it needs said first, its source compressed or not."""
    from trainer.export import text

    return text.headed(text.compressed(source) if compress else source, packages)


def main(arguments: list[str]) -> int:
    """Write the script and print its size. Returns the exit code: 0 done, 1 not written, 2 wrongly called."""
    if {"-h", "--help"} & set(arguments):
        print(USAGE)
        return 0
    if "--explain" in arguments:
        return _explain([word for word in arguments if word != "--explain"])
    flags = {"--compress", "--readable"} & set(arguments)
    words = [word for word in arguments if word not in flags]
    if not words or words[0].startswith("-") or not words[0].endswith(".py") or len(flags) > 1:
        print(USAGE, file=sys.stderr)
        return 2
    try:
        config = load(words[1:], {})
    except SettingsError as error:
        return _fail(error, 2)
    from trainer.export.link import ExportError
    from trainer.export.script import OPEN

    out, root = Path(words[0]), contract.code_root()
    try:
        content = pack(config, compress="--compress" in flags, readable="--readable" in flags).encode()
        contract.write_file(out, content)
    except (OSError, SyntaxError, ExportError) as error:
        return _fail(error, 1)
    print(f"{out}: {len(content)} bytes (the package folder: {contract.code_bytes(root)} bytes)")
    print(
        f"open: {' '.join(name for name in OPEN if name in config.as_settings())}; all other settings are part of the code"
    )
    return 0


def _explain(arguments: list[str]) -> int:
    """Say where the bytes of an artifact go. Returns the exit code."""
    paths = [word for word in arguments if word != "--json"]
    if len(paths) != 1:
        print(USAGE, file=sys.stderr)
        return 2
    from trainer import artifact
    from trainer.packing import explain

    try:
        parts = artifact.read_parts(paths[0])
    except (OSError, artifact.ArtifactError) as error:
        return _fail(error, 1)
    schemes = {name: item.scheme for name, item in parts.stored.items()}
    code = contract.code_bytes(contract.code_root())
    found = explain.explain(parts.sections, schemes, parts.header_bytes, parts.size, code)
    try:
        print(json.dumps(found, indent=2) if "--json" in arguments else "\n".join(explain.lines(found)), flush=True)
    except BrokenPipeError:  # the reader went away (| head): nothing is wrong, but Python would complain at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _fail(error: Exception, code: int) -> int:
    for line in str(error).splitlines():
        print(f"trainer.pack: {line}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
