"""What damage does to the log reader: source code in front, other encodings, cuts, spliced bytes.

    python benchmarks/log_damage.py LOGS... [--cuts 200] [--splices 200] [--seed 0] [--show]

`tests/golfctl/logdamage.py` says what counts as a failure.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.golfctl.logdamage import FORMS, cut, reading, spliced, wrong


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("logs", nargs="+", type=Path)
    parser.add_argument("--cuts", type=int, default=200)
    parser.add_argument("--splices", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", action="store_true")
    options = parser.parse_args()
    rng, counts, bad, inputs = random.Random(options.seed), Counter[str](), Counter[tuple[str, str]](), Counter[str]()
    began = time.monotonic()

    def note(kind: str, path: Path, what: str, fields: list[str]) -> None:
        counts[kind] += 1
        inputs[kind] += bool(fields)
        bad.update((kind, name) for name in fields)
        if options.show and fields:
            print(kind, path.name, what, fields)

    for path in options.logs:
        content = path.read_bytes()
        whole = reading(content)
        for form, change in FORMS.items():
            note(form, path, "", list(wrong(reading(change(content)), whole)))
        for _ in range(options.cuts):
            offset = rng.randrange(len(content))
            note("cut", path, f"at {offset}", cut(content, offset))
        for _ in range(options.splices):
            damaged, where = spliced(content, rng)
            found = reading(damaged)
            warned = set(found["warnings"]) - set(whole["warnings"])
            note("spliced", path, where, [] if warned else list(wrong(found, whole)))
    print(f"{len(options.logs)} logs, {sum(counts.values())} readings in {time.monotonic() - began:.0f} s")
    for kind, count in counts.items():
        fields = {name: number for (form, name), number in bad.items() if form == kind}
        print(f"{kind:<26} {count:>7} readings, {inputs[kind]} silently wrong {fields or ''}")


if __name__ == "__main__":
    main()
