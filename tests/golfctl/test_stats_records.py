"""The field's published claims, reproduced: a byte-level submission, and twenty-two records against the one before."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

from golfctl.assessment import BYTES_PER_TOKEN, Assessment, assess

RECORDS = Path(os.environ.get("GOLFCTL_RECORDS") or Path(__file__).resolve().parents[3] / "shared" / "records")
BYTE_LEVEL = [1.2146, 1.2120, 1.2174, 1.2166]

CHAIN = """
1019 sp1024  -.00464 .0004 .0095 | 1060 sp1024  -.00251 .0010 .88   | 1204 sp1024  -.00597 .0098 .041
1218 sp4096  -.00840 .0051 .0097 | 1285 sp4096  -.00661 .0013 .0037 | 1334 sp4096  -.00152 .048 .82
1394 sp8192  -.00409 <.0001 .0006 | 1412 sp8192 -.00208 .0017 .37   | 1413 sp8192  -.00075 .087 .97
1477 sp8192  -.00061 .12 .98     | 1493 sp8192  -.00118 .016 .96    | 1514 sp8192  -.00117 .020 .95
1530 sp8192  -.00647 .0005 .0016 | 1610 sp8192  -.00056 .20 .96     | 1626 sp8192  -.00088 .097 .93
1667 sp8192  -.00054 .23 .95     | 1729 caseops -.00359 .0031 .046  | 1736 caseops -.00231 .0062 .48
1769 caseops -.00096 .063 .97    | 1787 caseops -.00118 .023 .97    | 1868 caseops -.00194 .024 .69
1855 caseops -.00033 .36 .96
"""
"""Pull request, tokenizer, gain in bpb, p of any gain, p of one beyond 0.005 nats per token; each against the one before (#549).
#1851 has one log; #1868 is its reproduction and stands for it."""


def reading(found: Assessment, name: str) -> tuple[float, str]:
    return next((item.p, item.answer) for item in found.readings if item.name == name)


def test_byte_level_submission_is_better_than_both_baselines() -> None:
    """As it says itself: p 0.0023 and 0.0011, 99 % interval [1.2081, 1.2222]."""
    found = assess(BYTE_LEVEL, 1.2244, bytes_per_token=1.0)
    assert [round(value, 4) for value in (found.gain.low, found.gain.high, found.gain.p)] == [1.2081, 1.2222, 0.0023]
    assert round(assess(BYTE_LEVEL, 1.2269).gain.p, 4) == 0.0011


def test_byte_level_submission_is_no_record_under_the_margin() -> None:
    """A byte is its token: 0.005 nats are 0.0072 bpb in both readings, and p is 0.095."""
    found = assess(BYTE_LEVEL, 1.2244, bytes_per_token=1.0)
    for name in ("nats per byte", "nats per token"):
        p, answer = reading(found, name)
        assert (round(p, 3), answer) == (0.095, "INCONCLUSIVE")
    assert reading(found, "any gain")[1] == "PASS"


def steps() -> list[tuple[str, str, str, str, str, str]]:
    """The printed table, with the pull request each record is compared with."""
    cells = [cell.split() for line in CHAIN.strip().splitlines() for cell in line.split("|")]
    before = ["549", *(cell[0] for cell in cells)]
    return [(cell[0], last, cell[1], cell[2], cell[3], cell[4]) for cell, last in zip(cells, before, strict=False)]


def scores() -> dict[str, list[float]]:
    """Per pull request the scores of its logs."""
    with (RECORDS / "records.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {row["pr"].lstrip("#"): [float(item.split(":")[1]) for item in row["per_seed"].split()] for row in rows}


def prints(printed: str, value: float) -> bool:
    """Whether a number, rounded to the digits of the printed one, is that one."""
    if printed.startswith("<"):
        return value < float(printed[1:])
    return abs(value - float(printed)) <= 0.5000001 * 10.0 ** -len(printed.partition(".")[2])


def test_the_table_has_twenty_two_steps() -> None:
    """Each against the one before it, from #1019 against #549 to #1855 against #1868."""
    assert [step[:2] for step in (steps()[0], steps()[-1])] == [("1019", "549"), ("1855", "1868")]
    assert len(steps()) == 22


@pytest.mark.skipif(
    not (RECORDS / "records.csv").exists(), reason="needs records.csv; GOLFCTL_RECORDS names its folder"
)
@pytest.mark.parametrize("step", steps(), ids=lambda step: f"#{step[0]} vs #{step[1]}")
def test_consecutive_records_have_the_printed_p(step: tuple[str, str, str, str, str, str]) -> None:
    """Welch on the logs' scores, the margin in nats per token of the candidate's tokenizer, to the printed digits."""
    name, before, tokenizer, delta, p_any, p_margin = step
    known = scores()
    found = assess(known[name], known[before], bytes_per_token=BYTES_PER_TOKEN[tokenizer])
    assert prints(delta, found.gain.effect)
    assert prints(p_any, reading(found, "any gain")[0])
    assert prints(p_margin, reading(found, "nats per token")[0])
