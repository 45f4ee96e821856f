"""The report in words: verdict sentences, every seed, a terminal of 80 columns, Markdown in which nothing is markup but ours."""

from __future__ import annotations

import html
import io
import json
import re
import resource
from dataclasses import replace
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from rich.cells import cell_len
from rich.console import Console

from golfctl.domain.gate import Answer
from golfctl.domain.rules import Rules
from golfctl.domain.run import Outcome
from golfctl.errors import InputError
from golfctl.report import brief, markdown, terminal, verdicts
from golfctl.report.build import report_of
from golfctl.report.html.page import page
from golfctl.report.model import GateSpec, PlanReport, Report
from golfctl.report.summary import GateRow
from golfctl.store.campaign import Campaign, load
from tests.golfctl.campaigns import golfctl
from tests.golfctl.reportlab import lived_in

EVIL = (
    "<script>alert(1)</script> | `x` **b** _i_ [a](http://b) \u202egnp.exe\nnew # line $1$ &amp; \x1b]0;t\x07 "
    + "é" * 10_000
)


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """30 plans and 200 runs, some crashed and some under way, with a leaderboard."""
    return lived_in(tmp_path_factory.mktemp("report") / "golf", logs=False)


@pytest.fixture(scope="module")
def report(campaign: Campaign) -> Report:
    return report_of(campaign)


def evil(report: Report) -> Report:
    """Hostile text wherever people and hosts have their say."""
    plans = []
    for plan in report.plans:
        gates = tuple(
            replace(gate, waived=EVIL, verdict=replace(gate.verdict, reason=EVIL, numbers={}))
            for gate in plan.row.gates
        )
        row = replace(plan.row, title=EVIL, status=f"retired: {EVIL}", gates=gates)
        plans.append(replace(plan, row=row, hypothesis=EVIL, diffs=(EVIL,), again=(EVIL,)))
    runs = {name: replace(run, reason=EVIL, outcome=Outcome.CRASHED, excused=EVIL) for name, run in report.runs.items()}
    summary = replace(report.summary, campaign=EVIL, without_why=(EVIL,), plans=tuple(plan.row for plan in plans))
    return replace(report, plans=tuple(plans), runs=runs, summary=summary)


# --- sentences ----------------------------------------------------------------------------------------------------------
TEST = {"test": "one-sample t", "n": 3, "mean": 1.1171, "sd": 0.0006, "bound": 1.1174, "effect": -0.0003, "p": 0.24}
NUMBERS = {
    "test": TEST,
    "own": {"n": 3, "mean": 1.1171, "sd": 0.0006},
    "target": 1.1174,
    "seeds_needed": 43,
    "settle_usd": 150.0,
}


def judged(plan: PlanReport, answer: Answer, cause: str, waived: str | None = None, **numbers: object) -> PlanReport:
    """The plan with one verdict at its last gate, which costs $3.50 a run."""
    old = next(gate for gate in plan.row.gates if gate.verdict.numbers)
    verdict = replace(old.verdict, answer=answer, cause=cause, reason="as it was", numbers={**NUMBERS, **numbers})
    gate = GateRow(4, "final", verdict, waived, (), ())
    specs = tuple(GateSpec(n, "g", "threshold", 8, 3 if n == 4 else 1, (), False, 0.01, 3.5) for n in (1, 2, 3, 4))
    return replace(plan, row=replace(plan.row, gates=(gate,)), gates=specs)


@pytest.fixture
def plan(report: Report) -> PlanReport:
    return next(plan for plan in report.plans if any(gate.verdict.numbers for gate in plan.row.gates))


def test_inconclusive_says_how_far_how_sure_and_what_more_would_cost(plan: PlanReport, report: Report) -> None:
    """As a person would say it; a price above that of a new plan is not worth it, one below is."""
    bare = replace(report, bar={})
    said = verdicts.sentence(judged(plan, Answer.INCONCLUSIVE, "not-significant"), bare)
    assert said == (
        "INCONCLUSIVE: mean 1.1171 is 0.0003 below the target 1.1174, half a seed sd: p = 0.24 with three seeds; "
        "about 43 seeds, some $150, would be needed. Not worth it alone."
    )
    cheap = verdicts.sentence(judged(plan, Answer.INCONCLUSIVE, "not-significant", settle_usd=20.5), bare)
    assert cheap.endswith("some $20, would be needed. Worth it: a new plan costs $21.00 up to its last gate.")
    free = verdicts.sentence(
        judged(plan, Answer.INCONCLUSIVE, "not-significant", settle_usd=0.0, settle_s=90.0, seeds_needed=6), bare
    )
    assert free.endswith(
        "about 6 seeds, some 1 min 30 s of runs, would be needed. Worth it: a new plan takes 6 runs up to its last gate."
    )
    wrong = verdicts.sentence(
        judged(plan, Answer.INCONCLUSIVE, "not-significant", test={**TEST, "effect": 0.0003}), bare
    )
    assert "0.0003 above the target" in wrong and wrong.endswith(
        "the wrong way, not yet beyond the noise. Not worth more seeds."
    )
    endless = verdicts.sentence(judged(plan, Answer.INCONCLUSIVE, "not-significant", seeds_needed=None), bare)
    assert endless.endswith("more than 10,000 seeds would be needed. Not worth it alone.")


def test_other_verdicts_are_sentences_too(plan: PlanReport, report: Report) -> None:
    """A pass with the record's bar in every reading, a crash in its own words, a waiver."""
    best = judged(
        plan,
        Answer.PASS,
        "",
        test={**TEST, "mean": 1.1088, "effect": -0.0086, "p": 0.0006},
        own={"mean": 1.1088, "sd": 0.0005},
    )
    said = verdicts.sentence(
        best, replace(report, bar={"nats per token": 1.1164, "nats per byte": 1.08}, margin_nats=0.005)
    )
    assert said == (
        "PASS: mean 1.1088 is 0.0086 below the target 1.1174, 17.2 seed sds: p = 0.0006 with three seeds. The bar of a record "
        "(0.005 nats: 1.1164 read as nats per token, 1.0800 read as nats per byte) is reached by the mean "
        "under nats per token only."
    )
    versus = {**TEST, "test": "Welch t", "mean": 1.2, "effect": 0.1, "p": 0.99, "bound": 0.0}
    both = judged(plan, Answer.FAIL, "worse-than-parent", versus=versus, parent={"name": "base", "mean": 1.1})
    assert "is 0.1000 above base (1.1000)" in verdicts.sentence(both, report)
    assert (
        verdicts.sentence(judged(plan, Answer.FAIL, "crash", "known"), replace(report, bar={}))
        == "FAIL: as it was. Waived: known."
    )


def test_expectation_is_held_against_what_was_measured(report: Report) -> None:
    """Better, as expected, short of it, the wrong way."""
    known = next(plan for plan in report.plans if plan.measured and plan.expected)
    assert known.measured
    for gain, word in (
        (0.5, "better than expected"),
        (0.0025, "as expected"),
        (0.001, "short of it"),
        (-0.1, "the wrong way"),
    ):
        found = replace(known, expect={"score": (-0.003, -0.002)}, measured=replace(known.measured, bpb=gain))
        assert verdicts.expected(found).endswith(f": {word}"), gain


# --- terminal -----------------------------------------------------------------------------------------------------------
def on_terminal(report: Report, full: bool, width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None, highlight=False)
    with console.capture() as shown:
        terminal.render(report, console, full)
    return shown.get().splitlines()


def test_terminal_report_fits_80_columns_without_colour(report: Report) -> None:
    """Every line but those to be copied; every started run of every plan is there, whatever became of it."""
    lines = on_terminal(report, full=False)
    assert max(map(len, lines)) <= 80 and all(line.isprintable() for line in lines)
    text = " ".join(" ".join(lines).split())
    for plan in report.plans:
        assert verdicts.sentence(plan, report) in text
        for name in plan.runs:
            assert re.search(rf"\b{report.runs[name].spec.seed} ", text)
    assert text.count("aborted: ") >= report.summary.outcomes["aborted"]
    assert report.summary.outcomes["unfinished"] and re.search(r"seeds (\d+ [\d.]+, )*\d+ unfinished", text)


def test_report_of_one_plan_shows_everything(campaign: Campaign, report: Report) -> None:
    """Hypothesis, expectation, each seed with its figures, whole hashes, and lines to copy that are not broken."""
    passed = next(plan for plan in report.plans if plan.standing == "passed")
    lines = on_terminal(report_of(campaign, passed.id), full=True)
    text = " ".join(" ".join(lines).split())
    for word in (" ".join(passed.hypothesis.split()), passed.bundle, passed.base_bundle, verdicts.expected(passed)):
        assert word in text
    for name in passed.runs:
        run = report.runs[name]
        score = f"{run.result.score:.6f}" if run.result and run.result.score is not None else "none"
        assert f"seed {run.spec.seed} {score}" in text
    assert all(any(line.strip() == command for line in lines) for command in passed.again)


def test_terminal_report_obeys_nobody(report: Report) -> None:
    """Hostile titles, reasons, hypotheses, settings: text, within the width, and not 10,000 letters of it a line."""
    lines = on_terminal(evil(report), full=True)
    assert all(line.isprintable() for line in lines)
    # Commands and hashes are never broken; a mark of width 0 or 2 may shift an edge.
    assert max(cell_len(line) for line in lines if "é" * 20 not in line) <= 90
    assert sum(map(len, lines)) < 200_000 * len(report.plans)


# --- Markdown -----------------------------------------------------------------------------------------------------------
GITHUB = MarkdownIt("gfm-like", {"linkify": False, "html": True})
OURS = {"h1", "h2", "h3", "p", "ul", "li", "strong", "table", "thead", "tbody", "tr", "th", "td", "code", "pre", "br"}


def test_markdown_shows_hostile_text_as_text(report: Report) -> None:
    """Read as a code-hosting site reads it: no tag, link, emphasis or table cell that we did not write."""
    for source in (markdown.render(evil(report)), brief.render(brief.brief_of(evil(report), Rules()))):
        page = GITHUB.render(source)
        assert set(re.findall(r"<(\w+)", page)) <= OURS
        assert "&lt;script&gt;alert(1)&lt;/script&gt; | `x` **b** _i_ [a](http://b)" in page
        assert "\u202e" not in source and "\x1b" not in source
        for table in re.findall(r"<table>.*?</table>", page, re.DOTALL):
            columns = {row.count("<td") + row.count("<th") - row.count("<thead") for row in table.split("<tr")[1:]}
            assert len(columns) == 1, table


def test_markdown_tables_are_aligned(report: Report) -> None:
    """In the source, too: every line of a table has its bars under each other."""
    source = markdown.render(report)
    tables = re.findall(r"(?:^\|.*\n)+", source, re.MULTILINE)
    assert len(tables) > len(report.plans)
    for table in tables:
        bars = [[place for place, letter in enumerate(line) if letter == "|"] for line in table.splitlines()]
        assert all(places == bars[0] for places in bars), table
    text = html.unescape(re.sub(r"<[^>]+>", "", GITHUB.render(source)))
    for plan in report.plans:
        assert all(name in text for name in plan.runs) and plan.bundle in text


def test_escape_changes_nothing_a_reader_sees() -> None:
    """What stands on the page is what was written."""
    for words in (
        "1. a",
        "# a",
        "- b",
        "-0.05 *c*",
        "a_b _c_ __d__",
        "x|y `z` \\q",
        "<b>&amp;",
        "~~a~~ [b] $c$",
        "+ d",
        "= e",
        "###",
    ):
        page = GITHUB.render(markdown.escape(words))
        assert html.unescape(page.removeprefix("<p>").removesuffix("</p>\n")) == words, page
        assert html.unescape(GITHUB.render(markdown.code(words))).replace("\n", "") == f"<p><code>{words}</code></p>"


# --- brief --------------------------------------------------------------------------------------------------------------
def test_brief_ranks_steps_by_gain_per_dollar(report: Report) -> None:
    """Of plans with a next gate or a question that pays; what the cap forbids comes last."""
    found = brief.brief_of(report, Rules())
    ready = {
        plan.id
        for plan in report.plans
        if any(item.state == "waiting" for item in plan.stations) and plan.standing in {"active", "not run"}
    }
    assert ready and {step.plan for step in found.steps if step.what == "gate"} == ready
    worth = [(not step.blocked, step.per_usd) for step in found.steps if step.per_usd is not None and step.affordable]
    assert worth == sorted(worth, reverse=True) and len(worth) > 3
    for step in found.steps:
        plan = report.plan(step.plan)
        assert plan and step.gain is not None and step.per_usd == pytest.approx(step.gain / step.usd)
        assert step.gain == (plan.measured.bpb if plan.measured else -sum(plan.expected or (0, 0)) / 2)
        if step.what == "gate":
            spec = next(gate for gate in plan.gates if gate.number == step.gate)
            assert step.usd == pytest.approx(spec.usd * spec.seeds)
    plan = next(plan for plan in report.plans if plan.id in ready)
    last = replace(plan, standing="active", stations=(replace(plan.stations[-1], state="waiting"),))
    (step,) = brief.brief_of(replace(report, plans=(last,)), Rules()).steps
    assert (step.gate, step.command) == (4, f"golfctl seeds {plan.id}")
    assert step.usd == pytest.approx(3 * plan.gates[-1].usd) and step.usd > 1
    broke = brief.brief_of(replace(report, money=replace(report.money, left_usd=0.01)), Rules())
    assert not any(step.affordable for step in broke.steps if step.usd > 0.01)


def test_brief_sends_nobody_up_a_stopped_stack(report: Report) -> None:
    """A plan can't pass a gate that what it builds on did not pass: however much it hopes for, it comes after those that can."""
    found = brief.brief_of(report, Rules())
    stopped = {plan.id for plan in report.plans if plan.standing == "stopped"}
    on_them = [bool(stopped & set(plan.stack[:-1])) for step in found.steps if (plan := report.plan(step.plan))]
    assert any(on_them) and not all(on_them) and on_them == sorted(on_them)
    assert [bool(step.blocked) for step in found.steps] == on_them
    assert re.search(r"builds on [\w-]+, which gate \d stopped", brief.render(found))


def test_brief_is_one_page_with_everything(campaign: Campaign, report: Report) -> None:
    """Rules, base, frontier, money, steps, what was tried with its why"""
    page = brief.render(brief.brief_of(report, campaign.rules))
    assert len(page) < 20_000
    for word in (
        "16,000,000 bytes",
        "gate 4 final",
        "merged-stack",
        "frontier",
        "left of the cap",
        "per dollar",
        "Why: ",
        "running: `",
    ):
        assert word in page, word


@pytest.mark.service
def test_brief_command_prints_writes_and_speaks_json(campaign: Campaign, report: Report, tmp_path: Path) -> None:
    """The same page on the screen and in a file; the JSON holds every plan."""
    page = golfctl(campaign.root, "brief").stdout
    golfctl(campaign.root, "brief", "-o", str(tmp_path / "brief.md"))
    assert (tmp_path / "brief.md").read_text().splitlines()[5:] == page.splitlines()[5:]
    tried = json.loads(golfctl(campaign.root, "brief", "--json").stdout)["tried"]
    assert len(tried) == sum(bool(plan.row.revision) for plan in report.plans)


@pytest.mark.service
def test_plan_file_with_an_error_is_named_on_every_face(tmp_path: Path) -> None:
    """Its plan said what it expects; a report that can't read it must not say that nothing was foretold."""
    campaign = lived_in(tmp_path / "c", runs=12, plans=3, records=False, logs=False)
    path = campaign.plans_folder / "int5-mlp.yaml"
    path.write_text(path.read_text().replace("title: ", f"title: {'long ' * 60}"))
    (campaign.plans_folder / "fresh.yaml").write_text("id: fresh\nnonsense: 1\n")
    found = report_of(load(campaign.root), full=True)
    assert set(found.unusable) == {"fresh", "int5-mlp", "bigram-8k", "bigram-16k"}
    rules = campaign.rules
    for face in (
        " ".join(" ".join(on_terminal(found, full=False)).split()),
        markdown.render(found),
        brief.render(brief.brief_of(found, rules)),
        page(found),
    ):
        assert "Plan files with an error" in face and "int5-mlp" in face and "foretold" not in face
        assert "no plan file in use says what it expected, measured" in face
    with pytest.raises(InputError, match="fresh: its plan file has an error"):
        report_of(load(campaign.root), "fresh")
    assert json.loads(golfctl(campaign.root, "report", "--json").stdout)["unusable"] == list(found.unusable)


def test_report_command_writes_markdown_and_json(campaign: Campaign, tmp_path: Path) -> None:
    """--md beside what it prints; --json holds the sentence, the hash and how to run it again."""
    target = tmp_path / "plan.md"
    done = golfctl(campaign.root, "report", "int5-mlp", "--md", str(target))
    assert "hypothesis: " in done.stdout and f"Report: {target}" in done.stdout
    assert target.read_text().startswith("# Report of spring-golf") and "```sh\nmkdir again" in target.read_text()
    (row,) = json.loads(golfctl(load(campaign.root).root, "report", "int5-mlp", "--json").stdout)["plans"]
    assert row["verdict"].startswith("PASS: mean ") and len(row["bundle"]) == 64 and row["again"] and row["gates"]
    assert "can't be written" in golfctl(campaign.root, "report", "int5-mlp", "--md", "/proc/x/y.md", expect=2).stderr


@pytest.mark.service
def test_report_of_10_000_runs_takes_seconds(tmp_path: Path) -> None:
    """By processor time, so that a busy machine does not matter; benchmarks/reports.py holds the figures (1.3 s)."""
    root = lived_in(tmp_path / "golf", 10_000, logs=False).root
    golfctl(root, "report")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = golfctl(root, "report")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert re.search(r"10,?\d\d\d runs started", done.stdout)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 5
