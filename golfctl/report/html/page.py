"""The page: model in, one HTML text out. It loads nothing: style, script, pictures and data are in it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.resources import files

from golfctl.report.html import data, plans, tables
from golfctl.report.html.words import Html, link, plain, short, text
from golfctl.report.model import Report
from golfctl.report.pictures import flow, graph, panels, sizes, stack, timeline
from golfctl.report.pictures.palette import DARK, FONT, LIGHT
from golfctl.report.pictures.scene import Scene
from golfctl.report.pictures.svg import inline
from golfctl.report.text import references_line, unusable_line

WIDE, NARROW = 1080.0, 346.0
"""Widths of the two forms of each picture: for a screen, and for a hand."""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def page(report: Report) -> str:
    """The whole page."""
    title = f"{plain(report.summary.campaign[:80])}: report"
    body = "".join((_head(report), *_pictures(report), *_rest(report)))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><meta name="color-scheme" content="light dark">'
        f"<title>{title}</title><style>{_colours()}{_asset('page.css')}</style></head><body>"
        f'<a class="skip" href="#main">To the content</a><main id="main">{body}</main>{_foot(report)}'
        '<div id="tip" role="tooltip" hidden></div><dialog id="record" aria-labelledby="record-title"><form method="dialog">'
        '<h2 id="record-title"></h2><button class="close" aria-label="Close">✕</button></form><div id="record-body"></div>'
        f'</dialog><script type="application/json" id="data">{data.of_page(report)}</script>'
        f"<script>{_asset('page.js')}</script></body></html>\n"
    )


def _foot(report: Report) -> str:
    heads = "".join(f", {text(machine)} {text(head)}" for machine, head in report.summary.heads.items())
    events = f"{report.summary.events:,} events in the ledger{heads}"
    return (
        f"<footer><p>{text(report.summary.campaign)}, written {text(report.written)} by golfctl. {events}.</p></footer>"
    )


def _asset(name: str) -> str:
    return (files("golfctl.report.html") / name).read_text(encoding="utf-8")


def _colours() -> str:
    """The palette as variables, light and dark, by the system's wish or the reader's; and classes that use them."""
    light, dark = (";".join(f"--{name}:{code}" for name, code in table.items()) for table in (LIGHT, DARK))
    classes = "".join(f".f-{name}{{fill:var(--{name})}}.s-{name}{{stroke:var(--{name})}}" for name in LIGHT)
    light, dark = f"color-scheme:light;{light}", f"color-scheme:dark;{dark}"
    return (
        f":root{{--font:{FONT};{light}}}"
        f"@media (prefers-color-scheme:dark){{:root:not([data-theme=light]){{{dark}}}}}"
        f":root[data-theme=dark]{{{dark}}}@media print{{:root:root:root{{{light}}}}}{classes}"
    )


# --- top ---------------------------------------------------------------------------------------------------------------
def _head(report: Report) -> str:
    tiles = "".join(
        f'<div class="tile"><dt>{name}</dt><dd>{value}</dd><dd class="soft">{beside}</dd></div>'
        for name, value, beside in _tiles(report)
    )
    about = (f"base {report.summary.base or 'none'}", report.score, f"{report.written[:16].replace('T', ' ')} UTC")
    return (
        f'<header><div><h1>{short(report.summary.campaign, 120)}</h1><p class="soft">{" · ".join(map(text, about))}</p></div>'
        f'<button type="button" id="theme" aria-pressed="false">Dark</button></header><dl class="tiles">{tiles}</dl>'
    )


def _tiles(report: Report) -> Iterator[tuple[str, str, str]]:
    """Name, number, and what stands beside it."""
    ours = [own for own in report.own if own.key.startswith("plan:")]
    best = min(ours, key=lambda own: own.score, default=None)
    if best:
        yield "Our best", f"{best.score:.4f}", f"{link(best.key, best.name)} n {best.n}, gate {best.gate}"
    base = next((own for own in report.own if own.key.startswith("base:")), None)
    if base:
        yield "Base", f"{base.score:.4f}", f"{short(base.name, 40)} n {base.n}"
    if report.target is not None:
        yield "Target", f"{report.target:.4f}", "of the last gate"
    if report.frontier and report.frontier.mean is not None:
        yield (
            "Frontier",
            f"{report.frontier.mean:.4f}",
            f"{link(report.frontier.key, report.frontier.folder[11:].replace('_', ' '))}",
        )
    through = sum(plan.standing == "passed" for plan in report.plans)
    yield "Plans", f"{through}<small> of {len(report.plans)}</small>", "through all gates"
    dropped = sum(run.result is None or run.result.score is None for run in report.runs.values())
    yield "Runs", f"{len(report.runs):,}", f"{dropped:,} without a score"
    left = report.money.left_usd
    beside = f"${left:.2f} left" if left is not None else "no cap"
    yield "Spent", f"${report.money.total.usd:,.2f}", beside


# --- pictures ----------------------------------------------------------------------------------------------------------
Draw = Callable[[Report, float], Scene]


def _pictures(report: Report) -> Iterator[str]:
    yield _sheet("timeline", "Leaderboard", _figure("timeline", timeline.draw, report, tables.records(report)))
    yield _sheet("flow", "From idea to submission", _figure("flow", flow.draw, report, tables.stations(report)))
    yield _sheet("graph", "What builds on what", _figure("graph", graph.draw, report, tables.links(report)))
    yield _sheet("stack", "What each technique brought", _figure("stack", stack.draw, report, tables.layers(report)))
    yield _sheet("sizes", "Score and size", _figure("sizes", sizes.draw, report, tables.sizes(report)))


def _sheet(name: str, heading: str, content: str) -> str:
    return f'<section class="sheet" id="{name}" aria-labelledby="{name}-h"><h2 id="{name}-h">{heading}</h2>{content}</section>'


def _figure(name: str, draw: Draw, report: Report, rows: Html) -> str:
    """A picture in both widths, of which the style sheet shows one, and its table."""
    wide, narrow = inline(draw(report, WIDE), f"{name}-w"), inline(draw(report, NARROW), f"{name}-n")
    return (
        f'<figure class="wide">{wide}</figure><figure class="narrow">{narrow}</figure>'
        f'<details class="fold"><summary>As a table</summary>{rows}</details>'
    )


# --- the rest ----------------------------------------------------------------------------------------------------------
def _rest(report: Report) -> Iterator[str]:
    articles = "".join(plans.articles(report)) or '<p class="soft">No plan yet: golfctl plan new ID</p>'
    unusable = f'<p class="warn">{text(said)}.</p>' if (said := unusable_line(report)) else ""
    yield _sheet("plans", "Every plan", unusable + articles)
    if report.failures:
        yield _sheet("failures", "What failed, and why", tables.failures(report))
    yield _sheet("money", "Money", _spent(report) + _figure("money", panels.money, report, tables.money(report)))
    yield _sheet("runs", "Every run", _runs(report))


def _spent(report: Report) -> str:
    money = report.money
    parts = [f"${money.total.usd:,.2f} spent"]
    parts += [f"${money.total.wasted_usd:,.2f} of it for nothing"] if money.total.wasted_usd else []
    parts += [f"${money.total.saved_usd:,.2f} saved by aborts"] if money.total.saved_usd else []
    parts += [f"about ${money.under_way_usd:,.2f} under way"] if money.under_way else []
    if money.left_usd is not None and money.cap_usd is not None:
        parts.append(f"${money.left_usd:,.2f} left of ${money.cap_usd:,.2f}")
    return f"<p>{'; '.join(parts)}.</p>"


def _runs(report: Report) -> str:
    """The frame of the table that the script fills."""
    references = report.summary.references
    beside = f"<p>On the same bytes: {text(references_line(report.summary))}</p>" if references else ""
    return (
        f'{beside}<div class="filter" role="search"><label for="filter">Filter</label><input id="filter" type="search" '
        'autocomplete="off" spellcheck="false" placeholder="plan, seed, host, outcome …"><span id="count" role="status">'
        '</span></div><div class="scroll" tabindex="0" role="region" aria-label="Runs"><table id="run-table"><caption>Runs, '
        'newest first</caption><thead></thead><tbody></tbody></table></div><button type="button" id="more" hidden>Show more'
        "</button><noscript><p>The table of runs needs JavaScript.</p></noscript>"
    )
