"""`python -m trainer.data [describe|convert|fetch|validation]`: what a run reads; other tokens; shards; the part to score on."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path

from trainer.data.errors import DataError
from trainer.options.data import TOKENIZERS


def main(arguments: list[str] | None = None) -> int:
    """Print one `name:value` line per fact. Returns the exit code: 2 when the data can't be used."""
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] not in ("describe", "convert", "fetch", "validation", "-h", "--help"):
        words = ["describe", *words]  # the plain call of old
    given = _parser().parse_args(words)
    try:
        {"describe": _describe, "convert": _convert, "fetch": _fetch, "validation": _validation}[given.command](given)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("error: interrupted; the same call goes on from here", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m trainer.data", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    describe = commands.add_parser("describe", help="prepare the data of a run and state sizes and hashes (default)")
    alone = commands.add_parser("validation", help="copy the validation part alone: all that scoring an artifact needs")
    alone.add_argument("target", type=Path, help="folder to make; must not exist")
    for command in (describe, alone):
        command.add_argument(
            "--data-path", default=os.environ.get("DATA_PATH", ""), help="folder of data; empty: the embedded corpus"
        )
        command.add_argument("--tokenizer", default=os.environ.get("TOKENIZER", "bytes"), help=", ".join(TOKENIZERS))
    convert = commands.add_parser("convert", help="the text of a data folder in other tokens, or as text; verified")
    convert.add_argument("source", type=Path, help="folder with shards, or with train.txt and val.txt")
    convert.add_argument("target", type=Path, help="folder to make; must not exist")
    convert.add_argument("--from", dest="held", default="bytes", help="tokens of the source's shards")
    convert.add_argument("--to", dest="wanted", required=True, help=f"text, {', '.join(TOKENIZERS)}")
    convert.add_argument("--model", type=Path, help="pieces to use, instead of training some on the training text")
    fetch = commands.add_parser(
        "fetch", help="bring published shards into a folder; resumes, checks, replaces atomically"
    )
    fetch.add_argument("--base", required=True, help="address under which manifest.json and datasets/ lie")
    fetch.add_argument("--variant", default="sp1024", help="which data set: sp1024, byte260, ...")
    fetch.add_argument("--train-shards", type=int, help="the first so many; all if not given")
    fetch.add_argument("--to", type=Path, required=True, help="folder for the files, then a DATA_PATH")
    fetch.add_argument(
        "--timeout", type=float, default=30.0, help="seconds of silence after which a server has stalled"
    )
    fetch.add_argument("--retries", type=int, default=5, help="attempts in a row without progress before giving up")
    return parser


def _convert(given: argparse.Namespace) -> None:
    from trainer.data.convert import convert

    convert(given.source, given.target, given.held, given.wanted, given.model, print)


def _fetch(given: argparse.Namespace) -> None:
    from trainer.data.download import How
    from trainer.data.fetch import fetch

    how = How(timeout=given.timeout, retries=given.retries)
    fetch(given.base, given.variant, given.train_shards, given.to, how, print)


def _validation(given: argparse.Namespace) -> None:
    from trainer.data import prepare
    from trainer.data.dataset import open_dataset, open_validation

    if given.target.exists():
        raise DataError(f"{given.target}: is there already; nothing is overwritten")
    if prepare.holds_training(given.data_path):
        source = prepare.find_source(given.data_path, given.tokenizer)
        if source.kind == "shards":
            held = [*source.val, *([source.model] if source.model else [])]
        else:
            made = open_dataset(given.data_path, given.tokenizer).folder
            held = [made / "val.txt", *made.glob("*.model")]
    else:
        held = prepare.find_source(given.data_path, given.tokenizer, training=False).files
    given.target.mkdir(parents=True)
    for path in held:
        shutil.copyfile(path, given.target / path.name)
    print(f"val_text_sha256:{open_validation(str(given.target), given.tokenizer).val_text_sha256}")


def _describe(given: argparse.Namespace) -> None:
    from trainer.data.dataset import open_dataset
    from trainer.data.prepare import MANIFEST

    dataset = open_dataset(given.data_path, given.tokenizer)
    facts = json.loads((dataset.folder / MANIFEST).read_text(encoding="utf-8"))
    print(f"folder:{dataset.folder}")
    print(f"source:{facts['source']} from:{facts['from']} python:{facts['python']}")
    print(f"tokenizer:{dataset.tokenizer} vocab_size:{dataset.vocab_size} sha256:{dataset.tokenizer_sha256}")
    for part in ("train", "tune", "val"):
        line = f"{part} tokens:{facts['tokens'][part]}"
        for fact in ("documents", "bytes"):
            line += f" {fact}:{facts[fact][part]}" if fact in facts else ""
        print(line)
    print(f"val scored_bytes:{int(dataset.val_bytes.sum(dtype='int64'))}")
    print(f"train_sha256:{dataset.train_sha256}")
    print(f"val_sha256:{dataset.val_sha256}")
    print(f"val_text_sha256:{dataset.val_text_sha256}")


if __name__ == "__main__":
    sys.exit(main())
