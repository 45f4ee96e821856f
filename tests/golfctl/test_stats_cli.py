"""`golfctl stats`: what a person types, what is printed, what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from golfctl.cli.app import app
from golfctl.errors import InputError
from tests.golfctl import recordkit

BYTE_LEVEL = ("--values", "1.2146,1.2120,1.2174,1.2166", "--baseline", "1.2244", "--tokenizer", "bytes")


def run(*words: str | Path) -> Any:
    return CliRunner().invoke(app, ["stats", *map(str, words)])


def said(*words: str | Path) -> dict[str, Any]:
    """The JSON it prints."""
    done = run(*words, "--json")
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def refused(*words: str | Path) -> str:
    done = run(*words)
    assert isinstance(done.exception, InputError), done.output
    return str(done.exception)


def logs(folder: Path, **scores: tuple[float, int]) -> list[Path]:
    """A log for each name: score and seed."""
    for name, (score, seed) in scores.items():
        (folder / f"{name}.log").write_text(recordkit.log(score, seed))
    return [folder / f"{name}.log" for name in scores]


def test_page_for_people_holds_every_reading_and_its_verdict() -> None:
    """n, mean, sd, interval, t, p, the three readings, power, seeds, the smallest gain that shows."""
    page = run(*BYTE_LEVEL).stdout
    rows = {
        line[:16].strip(): line.split()[-6:] for line in page.splitlines() if line.endswith(("PASS", "INCONCLUSIVE"))
    }
    assert "n 4   mean 1.215150   sd 0.002408" in page
    assert "99 % CI [1.2081, 1.2222]" in page
    assert rows["any gain"] == ["0.00000", "-7.68", "0.0023", "0.95", "4", "PASS"]
    assert rows["nats per byte"] == ["0.00721", "-1.69", "0.095", "0.10", "17", "INCONCLUSIVE"]
    assert set(rows) == {"any gain", "nats per byte", "nats per token", "bpb"}
    assert "with a power of 0.8 here: 0.00706 bpb" in page


def test_json_holds_what_the_page_says() -> None:
    """The same figures, unrounded."""
    found = said(*BYTE_LEVEL)
    assert found["gain"]["p"] == pytest.approx(0.00229, abs=1e-6)
    assert {item["name"]: item["answer"] for item in found["readings"]}["bpb"] == "INCONCLUSIVE"
    assert found["bytes_per_token"] == 1.0


def test_logs_are_compared_by_their_headlines(tmp_path: Path) -> None:
    """Several words after each option; bytes per token come from loss and score of the logs themselves."""
    own = logs(tmp_path, a=(1.101, 1), b=(1.102, 2), c=(1.103, 3))
    other = logs(tmp_path, d=(1.111, 1), e=(1.113, 2), f=(1.112, 4))
    found = said("--logs", *own, "--versus", *other, "--alpha", "0.01")
    assert (found["values"], found["against"]) == ([1.101, 1.102, 1.103], [1.111, 1.113, 1.112])
    assert found["gain"]["test"] == "Welch t"
    assert found["bytes_per_token"] == pytest.approx(1.7 / math.log(2))


def test_pairs_are_matched_by_seed_not_by_order(tmp_path: Path) -> None:
    """The other side's logs in another order give the same differences."""
    own = logs(tmp_path, a=(1.10, 1), b=(1.20, 2), c=(1.30, 3))
    other = logs(tmp_path, d=(1.31, 3), e=(1.112, 1), f=(1.211, 2))
    found = said("--logs", *own, "--versus", *other, "--paired")
    assert found["against"] == [1.112, 1.211, 1.31]
    assert (found["gain"]["test"], found["gain"]["mean"]) == ("paired t", pytest.approx(-0.011))
    assert "the seeds differ, 1, 2 here and 3, 1, 2 there" in refused(
        "--logs", *own[:2], "--versus", *other, "--paired"
    )


def test_copy_of_a_log_counts_once_and_is_said(tmp_path: Path) -> None:
    """The field leaves copies beside its logs; as a second value it would halve the noise."""
    own = logs(tmp_path, a=(1.10, 1), b=(1.20, 2), c=(1.10, 1))
    done = run("--logs", *own, "--baseline", "1.5")
    assert "n 2 " in done.stdout
    assert f"{own[2]}: byte for byte {own[0]}; counted once" in done.output


def test_copy_that_differs_in_a_byte_counts_once(tmp_path: Path) -> None:
    """A run is its losses and scores, not its file: also where no log prints a seed, and for programs, too."""
    own = logs(tmp_path, a=(1.10, 1), b=(1.20, 2), c=(1.10, 1))
    for path in own:
        path.write_text("\n".join(line for line in path.read_text().splitlines() if "seed" not in line))
    own[2].write_text(own[2].read_text() + "\none more line\n")
    found = said("--logs", *own, "--baseline", "1.5")
    assert found["values"] == [1.10, 1.20]
    assert found["notes"] == [f"{own[2]}: with the very losses and scores of {own[0]}; counted once"]


def test_two_runs_of_one_seed_are_refused(tmp_path: Path) -> None:
    """They show the noise of the machine, not that of the seed."""
    own = logs(tmp_path, a=(1.10, 7), b=(1.20, 7))
    assert f"{own[1]}: seed 7, as {own[0]}: a rerun is no other seed" in refused("--logs", *own, "--baseline", "1.5")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--baseline", "1"], "say either --values or --logs"),
        (["--values", "1,2"], "say either --baseline NUMBER or --versus LOG..."),
        (["--values", "1,2", "--baseline", "1", "--versus", "x"], "say either --baseline NUMBER or --versus"),
        (["--values", "1,x", "--baseline", "1"], "'x' is no number"),
        (["--values", "1,nan", "--baseline", "1"], "finite numbers"),
        (["--values", "", "--baseline", "1"], "finite numbers"),
        (["--values", "1e308,1e308", "--baseline", "1"], "finite numbers up to 1e+06"),
        (["--values", "1,2", "--baseline", "-1e200"], "is no score"),
        (["--values", "1,2", "--baseline", "1", "--margin-nats", "inf"], "inf is no margin"),
        (["--values", "1,2", "--baseline", "2", "--tokenizer", "1e-320"], "bytes per token from 0.1 to 1000"),
        (["--values", "1,2", "--baseline", "inf"], "inf is no score"),
        (["--values", "1", "--baseline", "2"], "at least two values"),
        (["--values", "1,1,1", "--baseline", "2"], "do not differ"),
        (["--values", "1,2", "--baseline", "2", "--paired"], "pairs need scores on both sides"),
        (["--values", "1,2", "--baseline", "2", "--tokenizer", "sp512"], "say sp1024, sp4096"),
        (["--values", "1,2", "--baseline", "2", "--tokenizer", "-1"], "or bytes per token"),
        (["--logs", "missing.log", "--baseline", "2"], "missing.log: can't be read"),
    ],
)
def test_impossible_questions_are_refused_in_one_line(words: list[str], message: str) -> None:
    """What is wrong, and what was allowed."""
    text = refused(*words)
    assert message in text
    assert "\n" not in text


def test_log_without_a_score_is_refused_by_name(tmp_path: Path) -> None:
    """A missing score is never taken for a number, nor left out unseen."""
    own = logs(tmp_path, a=(1.10, 1), b=(1.20, 2))
    own[1].write_text(recordkit.log(None, 2))
    assert f"{own[1]}: no score" in refused("--logs", *own, "--baseline", "1.5")
