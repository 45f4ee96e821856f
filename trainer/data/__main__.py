"""`python -m trainer.data [--data-path P] [--tokenizer bytes|sp1024]`: prepare the data and state sizes and hashes."""

from __future__ import annotations

import argparse
import json
import os
import sys

from trainer.data.dataset import open_dataset
from trainer.data.errors import DataError
from trainer.data.prepare import MANIFEST


def main() -> int:
    """Print one `name:value` line per fact. Returns the exit code: 2 when the data can't be used."""
    parser = argparse.ArgumentParser(
        prog="python -m trainer.data", description="Prepare the data of a run and describe it."
    )
    parser.add_argument(
        "--data-path", default=os.environ.get("DATA_PATH", ""), help="folder of data; empty: the embedded corpus"
    )
    parser.add_argument("--tokenizer", default=os.environ.get("TOKENIZER", "bytes"), help="bytes or sp1024")
    given = parser.parse_args()
    try:
        dataset = open_dataset(given.data_path, given.tokenizer)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
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
    return 0


if __name__ == "__main__":
    sys.exit(main())
