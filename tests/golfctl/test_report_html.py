"""The report's model, its pictures and its page, without a browser."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from golfctl.cli.figure import figure, write_page
from golfctl.errors import InputError
from golfctl.report.build import report_of
from golfctl.report.html import words
from golfctl.report.html.page import page
from golfctl.report.model import Report
from golfctl.report.pictures import axes, flow, graph, panels, png, sizes, stack, svg, text, timeline
from golfctl.report.pictures.scene import Scene, Words, flat
from golfctl.store.campaign import load
from tests.golfctl.reportlab import GOLF, lived_in

DRAWINGS = {
    "timeline": timeline.draw,
    "stack": stack.draw,
    "graph": graph.draw,
    "flow": flow.draw,
    "sizes": sizes.draw,
    "money": panels.money,
}
WIDTHS = (1080.0, 346.0)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A campaign with twelve plans and the made-up field's records, without logs."""
    root = tmp_path_factory.mktemp("lab")
    lived_in(root, runs=60, plans=12, logs=False)
    return root


@pytest.fixture(scope="module")
def report(lab: Path) -> Report:
    """Its report."""
    return report_of(load(lab))


def overlaps(scene: Scene) -> list[tuple[str, str]]:
    """Pairs of words of a picture that lie on each other, by their estimated widths."""
    boxes = []
    for item in flat(scene.items):
        if isinstance(item, Words):
            wide = text.width(item.text, item.size, item.bold)
            left = item.x - {"start": 0.0, "middle": wide / 2, "end": wide}[item.anchor]
            boxes.append((left, item.y - 0.7 * item.size, left + wide, item.y + 0.15 * item.size, item.text))
    return [
        (one[4], two[4])
        for number, one in enumerate(boxes)
        for two in boxes[number + 1 :]
        if one[0] < two[2] and two[0] < one[2] and one[1] < two[3] and two[1] < one[3]
    ]


def test_model_says_where_each_plan_stands(report: Report) -> None:
    """Stations follow verdicts: passed gates, then the one that stopped it, then nothing."""
    plan = report.plan("int5-mlp")
    assert plan is not None and plan.standing == "passed"
    assert [station.state for station in plan.stations] == ["passed"] * 4
    assert plan.delta is not None and plan.delta == pytest.approx(-0.0042, abs=0.002)
    assert plan.usd == pytest.approx(sum(report.runs[name].usd for name in plan.runs))
    stopped = [plan for plan in report.plans if plan.standing == "stopped"]
    assert stopped
    for plan in stopped:
        states = [station.state for station in plan.stations]
        at = next(number for number, state in enumerate(states) if state in {"failed", "inconclusive"})
        assert set(states[:at]) <= {"passed"} and set(states[at + 1 :]) <= {"ahead"}
        assert plan.stations[at].why


def test_model_stacks_a_plan_on_what_it_builds_on(report: Report) -> None:
    """Its layer stands where the layer below stands, plus what was measured."""
    layers = {layer.name: layer for layer in report.layers}
    upper, lower = layers["bigram-8k"], layers["int5-mlp"]
    assert upper.below == "int5-mlp" and upper.score is not None and lower.score is not None and upper.delta is not None
    assert upper.score == pytest.approx(lower.score + upper.delta)
    records = [layer for layer in report.layers if layer.kind == "record"]
    assert records[0].below == "" and [layer.below for layer in records[1:]] == [layer.name for layer in records[:-1]]
    assert all(layer.delta is not None and layer.delta < 0 for layer in records[1:])


def test_model_finds_conflicts_that_nobody_declared(report: Report) -> None:
    """Two plans that set one variable to different values, unless one builds on the other."""
    found = {frozenset((edge.source, edge.target)) for edge in report.edges if edge.kind == "conflict"}
    assert frozenset(("bigram-8k", "bigram-16k")) in found
    assert frozenset(("int5-mlp", "bigram-8k")) not in found


def test_model_of_one_plan_holds_its_runs_and_their_references(lab: Path) -> None:
    """And nobody else's."""
    report = report_of(load(lab), "bigram-8k")
    assert [plan.id for plan in report.plans] == ["bigram-8k"]
    assert {run.spec.owner for run in report.runs.values()} == {"bigram-8k", "int5-mlp", "merged-stack"}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", DRAWINGS)
def test_picture_holds_no_words_that_overlap_or_stick_out(report: Report, name: str, width: float) -> None:
    """At both widths of the page."""
    scene = DRAWINGS[name](report, width)
    assert overlaps(scene) == []
    for item in flat(scene.items):
        if isinstance(item, Words):
            wide = text.width(item.text, item.size, item.bold)
            left = item.x - {"start": 0.0, "middle": wide / 2, "end": wide}[item.anchor]
            assert left > -3 and left + wide < width + 6, item.text
            assert 0 < item.y < scene.height + 1, item.text


def test_timeline_shows_every_record_and_each_of_ours(report: Report) -> None:
    """One mark each, which opens its record."""
    scene = timeline.draw(report, 1080)
    keys = {getattr(item, "key", "") for item in scene.items}
    assert {entry.key for entry in report.entries} <= keys
    assert {own.key for own in report.own} <= keys
    said = " ".join(item.text for item in flat(scene.items) if isinstance(item, Words))
    assert "target 1.0" in said and "a record needs" in said and "PhasedTtt" in said


def test_timeline_breaks_its_axis_between_the_field_and_runs_much_later() -> None:
    """Half a year of nothing would press both into the corners."""
    field, ours = [0.0, 30 * timeline.DAY], [250 * timeline.DAY]
    times = timeline._times(field, ours, 0.0, 1000.0)
    assert len(times.parts) == 2
    assert times(30 * timeline.DAY) == pytest.approx(740.0) and 760 < times(250 * timeline.DAY) < 1000
    assert len(timeline._times(field, [40 * timeline.DAY], 0.0, 100.0).parts) == 1


def test_pictures_of_an_empty_campaign_say_so(tmp_path: Path) -> None:
    """No plan, no run, no record: words instead of empty axes, and a whole page."""
    for name in ("plans", "bases", "experiments"):
        (tmp_path / name).mkdir()
    (tmp_path / "golf.yaml").write_text(GOLF.replace("host: pod1\n", ""))
    report = report_of(load(tmp_path), full=True)
    for draw in DRAWINGS.values():
        for width in WIDTHS:
            scene = draw(report, width)
            assert any(isinstance(item, Words) for item in scene.items)
            ElementTree.fromstring(svg.document(scene))
    assert "No plan yet" in page(report)


def test_svg_is_the_same_each_time_and_follows_the_viewers_colours(report: Report) -> None:
    """A file that can be committed, in light and dark."""
    first, second = (svg.document(flow.draw(report, 1080)) for _ in range(2))
    assert first == second and "prefers-color-scheme: dark" in first
    assert ElementTree.fromstring(first).tag.endswith("svg")


def test_png_has_two_pixels_for_each_unit(report: Report) -> None:
    """Sharp on a good screen, dark if asked for."""
    scene = panels.money(report, 400)
    light, dark = png.render(scene), png.render(scene, dark=True)
    assert light[:8] == b"\x89PNG\r\n\x1a\n" and light != dark
    assert int.from_bytes(light[16:20]) == 800


def test_page_holds_only_itself(report: Report) -> None:
    """No address to fetch from in style, script or markup, and a policy that forbids it."""
    content = page(report)
    assert not re.search(r"(?:src|href)=[\"']?(?![#\"'])|url\(|@import|fetch\(|XMLHttpRequest", content)
    assert "default-src 'none'" in content


def test_page_data_can_not_end_its_script(report: Report) -> None:
    """A reason that closes a tag stays text; the data still says it."""
    evil = "</script><script>alert(1)</script><!--"
    name, run = next(iter(report.runs.items()))
    made = type(run)(**{**vars(run), "reason": evil})
    altered = type(report)(**{**vars(report), "runs": {name: made}})
    content = page(altered)
    found = re.findall(r'<script type="application/json" id="data">(.*?)</script>', content, re.DOTALL)
    assert len(found) == 1 and json.loads(found[0])["runs"][0][13] == evil
    assert content.count("<script") == 2


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("<b>&\"'", "<bdi>&lt;b&gt;&amp;&quot;&#x27;</bdi>"),
        ("a\x00\x1b[31mb\x9b", "<bdi>a\ufffd\ufffd[31mb\ufffd</bdi>"),
        ("\ud800", "<bdi>?</bdi>"),
        ("\u202egnp.exe", "<bdi>\u202egnp.exe</bdi>"),
        ("⛳ 日本 <b>", "<bdi>⛳ 日本 &lt;b&gt;</bdi>"),
    ],
)
def test_foreign_text_is_shown_as_text(said: str, shown: str) -> None:
    """Markup is escaped, controls are marked, what turns the direction is isolated."""
    assert words.text(said) == shown


def test_long_text_is_folded_and_a_cell_is_cut() -> None:
    """Ten thousand letters stand behind a fold."""
    found = words.folded("x" * 10_000)
    assert "<details" in found and "all 10,000 letters" in found
    assert len(words.short("x" * 10_000)) < 200


def test_ticks_are_round_and_few() -> None:
    """At most as many as asked, of 1, 2 or 5 times a power of ten."""
    assert axes.ticks(0, 10, 5) == [0, 2, 4, 6, 8, 10]
    assert axes.ticks(1.0611, 1.2244, 6) == pytest.approx([1.1, 1.15, 1.2])
    for low, high in ((0.0, 1e-9), (5.0, 5.0), (-3.0, 9e9)):
        assert 1 <= len(axes.ticks(low, high, 6)) <= 7


def test_label_finds_another_place_or_none() -> None:
    """Two labels of one point stand apart; in a frame without room there is none."""
    labels = axes.Labels((0, 0, 200, 60))
    one, two = labels.place(100, 30, "first"), labels.place(100, 30, "second")
    assert one and two and (one.x, one.y) != (two.x, two.y)
    assert axes.Labels((0, 0, 20, 8)).place(10, 4, "nowhere") is None


def test_requirement_is_told_as_people_say_it() -> None:
    """Bytes as decimal megabytes, milliseconds with their unit."""
    assert flow.told("artifact_bytes <= 16000000") == "artifact ≤ 16 MB"
    assert flow.told("step_avg_ms <= 130") == "step avg ≤ 130 ms"
    assert flow.told("train_time_ms <= 600500") == "train time ≤ 600.5 s"
    assert flow.told("score <= base - 0.05") == "score ≤ base − 0.05"


def test_figure_command_writes_what_was_asked_for(lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And refuses in one line what it can't."""
    monkeypatch.chdir(lab)
    figure("graph", tmp_path / "g.svg", 1080, False)
    assert ElementTree.fromstring((tmp_path / "g.svg").read_text()).tag.endswith("svg")
    with pytest.raises(InputError, match="did you mean 'graph'"):
        figure("grph", tmp_path / "g.svg", 1080, False)
    with pytest.raises(InputError, match="must end in"):
        figure("graph", tmp_path / "g.pdf", 1080, False)
    with pytest.raises(InputError, match="can't be written"):
        figure("graph", tmp_path / "no" / "g.svg", 1080, False)


def test_report_command_writes_the_page(lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one plan here; the page of all is opened in test_report_browser.py."""
    monkeypatch.chdir(lab)
    write_page("int5-mlp", tmp_path / "page.html", False)
    content = (tmp_path / "page.html").read_text()
    assert content.startswith("<!doctype html>") and "int5-mlp" in content and "recur-naive" not in content
