"""`golfctl log curves`: what is drawn, that it says what was left out, and that big logs draw soon."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path, PurePath

import numpy as np
import pytest

from golfctl.logs import read_bytes
from golfctl.report import curves, figure, textplot

RECORDS = Path(__file__).resolve().parents[2].parent / "shared" / "records"


def log_of(steps: int = 200, floor: float = 2.0, bad: range = range(0), end: bool = True) -> str:
    """A run of the baseline's family whose first steps lie far above all others."""
    lines = []
    for step in [*range(10), *range(10, steps + 1, 10)]:
        loss = "nan" if step in bad else f"{floor + 15 * math.exp(-step / 4):.4f}"
        lines.append(f"step:{step}/{steps} train_loss:{loss} train_time:{step * 100}ms step_avg:100.00ms")
        if step % 100 == 0:
            lines.append(
                f"step:{step}/{steps} val_loss:{floor:.4f} val_bpb:{floor / 2:.4f} train_time:{step * 100}ms step_avg:100.00ms"
            )
    if end:
        lines.append(f"final_int8_zlib_roundtrip_exact val_loss:{floor + 0.01:.8f} val_bpb:{floor / 2 + 0.01:.8f}")
    return "\n".join(lines) + "\n"


def curve(text: str, name: str = "one", kind: str = "train", smooth: int = 1) -> curves.Curve:
    found = curves.curve_of(read_bytes(text.encode()).last, name, kind, smooth)
    assert found is not None
    return found


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "golfctl", "log", "curves", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_curve_scores_in_the_unit_it_is_drawn_in() -> None:
    """Training loss ends in the score's loss, bits per byte in its bits; the end is where training ended."""
    assert curve(log_of(floor=3.0)).final == (3.01, "final_int8_zlib_roundtrip_exact")
    assert curve(log_of(floor=3.0), kind="bpb").final == (1.51, "final_int8_zlib_roundtrip_exact")
    assert curve(log_of()).end == {"step": 200.0, "time": 20_000.0}
    assert curve(log_of(end=False)).final is None


def test_curve_of_a_log_without_the_number_is_none() -> None:
    """And so is one of nothing but nan."""
    run_log = read_bytes(b"step:1/2 train_loss:3.0 train_time:1ms step_avg:1.00ms\n").last
    assert curves.curve_of(run_log, "one", "bpb") is None
    assert curves.curve_of(read_bytes(log_of(bad=range(1000)).encode()).last, "one", "train") is None


def test_limits_are_not_set_by_the_first_steps() -> None:
    """Nine of 29 points lie far above; they are cut, counted, and the end of the curve is in view."""
    found = curve(log_of(2000))
    limits = curves.limits_of([found], ["step", "time"])
    assert limits.high < 3 < found.y.max()
    assert limits.above == int((found.y > limits.high).sum()) > 5
    assert f"{limits.above} points lie above" in limits.say()


def test_limits_are_not_cut_where_nothing_stands_out() -> None:
    """A straight line is shown whole, a flat one too."""
    x = np.arange(100.0)
    for y in (x, np.ones(100)):
        flat = curves.Curve("flat", {"step": x, "time": x}, y, None, {"step": 99.0, "time": 99.0})
        limits = curves.limits_of([flat], ["step"])
        assert limits.above == 0
        assert limits.low < y.min() <= y.max() < limits.high


def test_thinned_keeps_extremes_gaps_and_ends() -> None:
    """Of 100,000 points a few thousand stay, and no spike is lost."""
    x, y = np.arange(100_000.0), np.sin(np.arange(100_000.0))
    y[54_321], y[77_777], y[12_345] = 9.0, -9.0, np.nan
    kept_x, kept_y = curves.thinned(x, y, 500)
    assert len(kept_x) <= 5 * 500
    assert np.nanmax(kept_y) == 9.0
    assert np.nanmin(kept_y) == -9.0
    assert kept_x[np.isnan(kept_y)].tolist() == [12_345.0]
    assert (kept_x[0], kept_x[-1]) == (0.0, 99_999.0)
    assert (np.diff(kept_x) > 0).all()


def test_smoothed_is_the_mean_of_points_up_to_each() -> None:
    """A gap stays a gap and spoils no neighbour."""
    found = curves.smoothed(np.array([1.0, 3.0, np.nan, 5.0, 9.0]), 3)
    np.testing.assert_allclose(found, [1.0, 2.0, np.nan, 4.0, 7.0])


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["a/b/train.log"], ["train.log"]),
        (["a/one.log", "a/two.log"], ["one", "two"]),
        (["a/one.log", "a/one.txt"], ["one.log", "one.txt"]),
        (["x/seed1/train.log", "x/seed2/train.log"], ["seed1", "seed2"]),
        (["a/1/t.log", "a/2/t.log", "b/1/t.log"], ["a/1/t.log", "a/2/t.log", "b/1/t.log"]),
        (["t.log", "t.log"], ["t.log (1)", "t.log (2)"]),
    ],
)
def test_names_are_the_shortest_that_tell_apart(paths: list[str], expected: list[str]) -> None:
    """A part of the path, without an ending that all share."""
    assert curves.names([PurePath(path) for path in paths]) == expected


def test_picture_is_the_same_bytes_each_time_and_names_no_moment() -> None:
    """SVG and PNG, a file name with signs that mathematics would take."""
    found = [curve(log_of(), "we$ird_$x^2$"), curve(log_of(floor=2.5, bad=range(50, 90)), "two")]
    for form in ("svg", "png"):
        first, second = (figure.picture(found, ["step", "time"], "train", form) for _ in range(2))
        assert first == second
    text = figure.picture(found, ["step", "time"], "train", "svg").decode()
    ET.fromstring(text)
    assert "prefers-color-scheme: dark" in text
    assert not re.search(r"<dc:date|<dc:creator", text)


def test_picture_leaves_a_gap_where_the_loss_is_nan() -> None:
    """The line is drawn in two parts, and the legend counts what is missing."""
    drawn = figure._figure([curve(log_of(2000, bad=range(500, 900)))], ["step"], "train", False)
    panel = drawn.axes[0]
    y = np.asarray(panel.lines[0].get_ydata(), dtype=float)
    assert np.isnan(y).sum() == 40
    assert "40 nan" in str(panel.lines[0].get_label())


def test_looks_of_28_curves_differ() -> None:
    """Neighbours differ in colour and in line style."""
    looks = [figure._look(number) for number in range(28)]
    assert len(set(looks)) == 28
    assert all(one[0] != two[0] and one[1] != two[1] for one, two in pairwise(looks))


def test_text_plot_fits_80_columns_and_tells_curves_apart() -> None:
    """Each curve has its letter, its score the capital; cuts and gaps are marked."""
    found = [curve(log_of(2000), "one"), curve(log_of(1000, 2.5, range(500, 700)), "two")]
    lines = textplot.draw(found, ["step", "time"], "train")
    assert max(map(len, lines)) <= 80
    picture = "\n".join(line for line in lines if "|" in line)
    assert {"a", "b", "A", "B", "^", "!"} <= set(picture)
    assert any(line.startswith("a  one") and "2.0100" in line for line in lines)
    assert sum("points lie above" in line for line in lines) == 2
    assert all(line.isascii() for line in lines)


@pytest.mark.service
def test_curves_draws_in_a_pipe_and_writes_pictures(tmp_path: Path) -> None:
    """Nothing but ASCII without a file; both files in one call; another run of the file with --all-runs."""
    one, two = tmp_path / "one.log", tmp_path / "two.log"
    one.write_text(log_of() + log_of(floor=2.5))
    two.write_text(log_of(floor=3.0))
    done = run(one, two)
    assert done.returncode == 0, done.stderr
    assert "b  two" in done.stdout
    assert "c  two" in run(one, two, "--all-runs", "--against", "step", "--log-x").stdout
    done = run(one, two, "--svg", tmp_path / "x.svg", "--png", tmp_path / "x.png")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    ET.fromstring((tmp_path / "x.svg").read_text())


@pytest.mark.service
def test_curves_json_holds_the_points(tmp_path: Path) -> None:
    """One object a run; nan is the text nan."""
    path = tmp_path / "one.log"
    path.write_text(log_of(100, bad=range(50, 60)))
    found = json.loads(run(path, "--json").stdout)
    assert found["step"][-1] == 100
    assert found["ms"][-1] == 10_000
    assert found["loss"][found["step"].index(50)] == "nan"
    assert found["final"] == 2.01


@pytest.mark.service
def test_curves_names_files_that_say_nothing(tmp_path: Path) -> None:
    """Beside others they are left out; alone they are an error; so is a folder that is not there."""
    good, empty = tmp_path / "good.log", tmp_path / "empty.log"
    good.write_text(log_of())
    empty.write_text("hello\n")
    beside, alone = run(good, empty), run(empty)
    assert beside.returncode == 0
    assert f"{empty}: has no progress lines" in beside.stderr
    assert (alone.returncode, alone.stdout) == (2, "")
    assert alone.stderr == f"{empty}: no progress lines with training loss (nats per token)\n"
    for words in ([tmp_path / "gone.log"], [good, "--svg", tmp_path / "gone" / "x.svg"]):
        done = run(*words)
        assert done.returncode == 2, done.stderr
        assert "gone" in done.stderr.splitlines()[-1]


def test_curves_of_a_log_without_times_are_drawn_against_steps() -> None:
    """The panel against time says so, and nothing breaks."""
    text = "".join(
        f"step {step}: train loss {4 - step / 100:.4f}, val loss {4 - step / 90:.4f}\n" for step in range(90)
    )
    found = curve(text, kind="val")
    assert not len(found.on("time")[0])
    assert figure.picture([found], ["step", "time"], "val", "png").startswith(b"\x89PNG")
    assert sum("training time" in line for line in textplot.draw([found], ["step", "time"], "val")) == 0


def test_curve_takes_times_that_a_validation_line_does_not_say_from_its_neighbours() -> None:
    """Between two training lines, and nowhere else."""
    lines = [f"{step}/400 train_loss: 2.5 train_time: {step / 100:.1f}m" for step in (100, 200, 300)]
    lines[1:1] = ["150/400 val_loss: 2.4000 val_bpb: 1.1000"]
    found = curve("\n".join(["0/400 val_loss: 9.0000 val_bpb: 4.1000", *lines]) + "\n", kind="val")
    np.testing.assert_allclose(found.x["time"], [np.nan, 90_000.0])


def test_million_points_draw_in_seconds() -> None:
    """Thinning is what makes it so; the bound is loose because the machine may be busy."""
    steps = np.arange(1_000_000.0)
    big = curves.Curve("big", {"step": steps, "time": steps * 10}, 2 + np.cos(steps), None, {"step": 1e6, "time": 1e7})
    before = time.process_time()
    svg = figure.picture([big], ["step", "time"], "train", "svg")
    textplot.draw([big], ["step", "time"], "train")
    assert time.process_time() - before < 20
    assert len(svg) < 2_000_000


@pytest.mark.skipif(not RECORDS.exists(), reason="../shared/records is not there")
def test_curves_of_every_recorded_log_can_be_drawn() -> None:
    """Real logs of all families, one after another."""
    drawn = 0
    for path in sorted(RECORDS.glob("track_*/*/**/*.[lt][ox][gt]"))[::4]:
        log = read_bytes(path.read_bytes())
        for kind in curves.KINDS:
            found = curves.curve_of(log.last, path.name, kind)
            if found:
                lines = textplot.draw([found], curves.AXES, kind)
                assert max(len(line) for text in lines for line in text.split("\n")) <= 80
                drawn += 1
    assert drawn > 20
