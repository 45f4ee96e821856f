"""How often gate 4 says PASS when nothing is gained, and when something is. Writes results/false_accepts.md.

100,000 campaigns of plain normal scores a figure, judged with formulas written here and levels from golfctl.sequential; a part of
them by golfctl.judge itself, whose answers must be the same ones.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtr

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from machine import describe

from golfctl import judge, looks, sequential, stats
from golfctl.domain.gate import Answer, Gate, Requirement
from golfctl.domain.rules import Rules
from golfctl.domain.run import RunRecord
from tests.golfctl import factories

Array = NDArray[np.float64]

RESULT = Path(__file__).parent / "results" / "false_accepts.md"
CAMPAIGNS = 100_000
ALPHA = 0.01
EVERY = tuple(range(3, 11))
DESIGNS = {1: (3,), 3: (3, 6, 9), 8: EVERY}


def tests(own: Array, base: Array | None, sizes: Sequence[int], bases: Sequence[int]) -> Iterator[tuple[Array, Array]]:
    """(t, one-sided p) of every campaign at each look; own, base: (campaigns, seeds); base None: against 0."""
    for n, m in zip(sizes, bases, strict=True):
        x = own[:, :n]
        a = x.var(axis=1, ddof=1) / n
        if base is None:
            t, df = x.mean(axis=1) / np.sqrt(a), np.full(len(x), n - 1.0)
        else:
            y = base[:, :m]
            b = y.var(axis=1, ddof=1) / m
            t, df = (x.mean(axis=1) - y.mean(axis=1)) / np.sqrt(a + b), (a + b) ** 2 / (a**2 / (n - 1) + b**2 / (m - 1))
        yield t, stdtr(df, t)


def draw(seed: int, welch: bool, sd: float = 1.0, gain: float = 0.0, m: int = 3) -> tuple[Array, Array | None]:
    """Scores of CAMPAIGNS campaigns with ten seeds each, sd and gain in units of the base's sd."""
    rng = np.random.default_rng(seed)
    return rng.normal(-gain, sd, (CAMPAIGNS, 10)), rng.normal(size=(CAMPAIGNS, m)) if welch else None


def accepted(
    own: Array,
    base: Array | None,
    sizes: Sequence[int],
    levels: Sequence[float],
    bases: Sequence[int] = (),
    on_t: bool = False,
) -> float:
    """Percent of campaigns that pass at some look. on_t: levels are bounds on t, not on p."""
    hit = np.zeros(len(own), bool)
    for level, (t, p) in zip(levels, tests(own, base, sizes, bases or (3,) * len(sizes)), strict=True):
        hit |= (t if on_t else p) < level
    return 100 * float(hit.mean())


def false_accepts() -> Iterator[str]:
    """The table of the null: with the boundary, and with what people do instead."""
    yield "| looks | at seeds | boundary | nominal level, one-sample | accepted % | nominal level, Welch | accepted % |"
    yield "|---|---|---|---|---|---|---|"
    for count, sizes in DESIGNS.items():
        for kind in sequential.Kind if count > 1 else (sequential.Kind.POCOCK,):
            name = kind if count > 1 else "none needed"
            cells = [str(count), ", ".join(map(str, sizes)), str(name)]
            for welch in (False, True):
                levels = sequential.nominal_alpha(ALPHA, count, kind, sizes, 3 if welch else None)
                shown = f"{levels[0]:.2g} .. {levels[-1]:.2g}" if levels[0] != levels[-1] else f"{levels[0]:.4f}"
                cells += [shown, f"**{accepted(*draw(count, welch), sizes, levels):.2f}**"]
            yield f"| {' | '.join(cells)} |"
    flat = (ALPHA,) * len(EVERY)
    z = -float(ndtri(sequential.nominal_alpha(ALPHA, 8, "pocock", [n * 10_000 for n in EVERY])[0]))
    for name, levels, on_t in (
        ("none: 0.01 at every look", flat, False),
        ("Bonferroni", tuple(level / len(EVERY) for level in flat), False),
        (f"Pocock's for z, used on t (t < -{z:.2f})", (-z,) * len(EVERY), True),
    ):
        shares = [f"{accepted(*draw(8, welch), EVERY, levels, on_t=on_t):.2f}" for welch in (False, True)]
        yield f"| 8 | 3 .. 10 | {name} | | {shares[0]} | | {shares[1]} |"


def departures() -> Iterator[str]:
    """Where the assumptions fail: a base that grows between the looks, a technique that is noisier or calmer than its base."""
    yield "| Welch | looks at 3, 6, 9 seeds: accepted % | one look at 9 seeds: accepted % |"
    yield "|---|---|---|"
    sizes = DESIGNS[3]
    growing = [sequential.nominal_alpha(ALPHA, 3, "pocock", sizes, m)[0] for m in sizes]
    share = accepted(*draw(21, True, m=9), sizes, growing, sizes)
    yield f"| base of 3, 6, 9 seeds, each look at the level for its own | {share:.2f} | |"
    designs = [(at, sequential.nominal_alpha(ALPHA, len(at), "pocock", at, 3)) for at in (sizes, (9,))]
    for sd in (0.5, 2.0):
        share, once = (accepted(*draw(22, True, sd), at, levels) for at, levels in designs)
        yield f"| base of 3 seeds, the technique's sd {sd:g} times the base's | {share:.2f} | {once:.2f} |"


def more_base_seeds() -> Iterator[str]:
    """One look of three seeds against a base that has more: what plain Welch accepts, and at the level the judge takes."""
    yield "| base seeds | Welch at 0.01: accepted % | level | accepted % |"
    yield "|---|---|---|---|"
    for m in (3, 6, 10, 30):
        level = sequential.welch_alpha(ALPHA, 3, m)
        sides = draw(50, True, m=m)
        plain, kept = (accepted(*sides, (3,), (at,), (m,)) for at in (ALPHA, level))
        yield f"| {m} | {plain:.2f} | {level:.4f} | **{kept:.2f}** |"


def power() -> Iterator[str]:
    """Simulated against computed power, sd 0.001, gain 0.007, bar 0.005: two sd beyond the bar."""
    yield "| seeds | one-sample: simulated % | computed % | Welch, as many base seeds: simulated % | computed % |"
    yield "|---|---|---|---|---|"
    for n in (3, 5, 8):
        cells = [str(n)]
        for welch in (False, True):
            cells.append(f"{accepted(*draw(30 + n, welch, gain=2.0, m=n), (n,), (ALPHA,), (n,)):.1f}")
            theory = stats.welch_power(-2.0, 1.0, n, 1.0, n, ALPHA) if welch else stats.power(-2.0, 1.0, n, ALPHA)
            cells.append(f"{100 * theory:.1f}")
        yield f"| {' | '.join(cells)} |"


def by_the_judge(campaigns: int = 2000) -> str:
    """Campaigns with some gain through golfctl.judge, look after look; raises AssertionError if one answer differs."""
    passed = 0
    for welch in (False, True):
        target = Requirement("score", "<=", 0.0 if welch else 2.0, "base" if welch else None)
        gate = factories.gate(4, require=(target,), seeds=3, alpha=ALPHA, looks=3)
        own, base = draw(40, welch, gain=0.7)
        level = sequential.nominal_alpha(ALPHA, 3, "pocock", DESIGNS[3], 3 if welch else None)[0]
        expected = np.array([p[:campaigns] < level for _, p in tests(own, base, DESIGNS[3], (3, 3, 3))])
        for index in range(campaigns):
            side = [] if base is None else scored("base", gate, base[index])
            answers = judged(gate, scored("A", gate, own[index, :9]), side)
            assert answers == list(expected[:, index]), (welch, index)
            passed += sum(answers)
    return (
        f"{2 * campaigns:,} campaigns of three looks each (a true gain of 0.7 sd) went through `golfctl.judge`, look after "
        f"look: of {6 * campaigns:,} verdicts {passed:,} were PASS, the same ones as by the formulas here."
    )


def scored(owner: str, gate: Gate, scores: Array) -> list[RunRecord]:
    """Finished runs with these scores, around 2 bpb."""
    return [factories.run(owner, gate, seed, 2 + float(score)) for seed, score in enumerate(scores, 1)]


def judged(gate: Gate, runs: Sequence[RunRecord], side: Sequence[RunRecord]) -> list[bool]:
    """Whether gate 4 passed at each look of three more runs."""
    former: tuple[looks.Look, ...] = ()
    answers = []
    for at in range(0, len(runs), 3):
        fresh = runs[at : at + 3]
        case = judge.Case(factories.plan(), 1, gate, Rules(), fresh, side, side, runs[:at], former=former)
        verdict = judge.judge(case)
        answers.append(verdict.answer is Answer.PASS)
        former = (*former, looks.Look(tuple(fresh), verdict.numbers["alpha_spent"], True))
    return answers


def main() -> None:
    """Measure, print, write."""
    began = time.perf_counter()
    about = describe()
    error = 100 * (ALPHA * (1 - ALPHA) / CAMPAIGNS) ** 0.5
    parts = [
        "# False accepts and power of gate 4",
        f"{CAMPAIGNS:,} campaigns a figure, one-sided alpha {ALPHA:g}, made by `benchmarks/false_accepts.py`; the standard "
        f"error of 1 % is {error:.2f} points.\n{about['processor']}, {about['cores']} cores, Python {about['python']}.",
        "## Nothing is gained",
        "\n".join(false_accepts()),
        "One-sample against a known number; Welch against three base seeds, the same at all looks.",
        "## One look of three seeds, more seeds of the base",
        "\n".join(more_base_seeds()),
        "## Where the assumptions fail",
        "\n".join(departures()),
        "## Power",
        "\n".join(power()),
        "True gain 0.007 bpb, bar 0.005, sd 0.001: two sd beyond the bar.",
        "## The judge itself",
        by_the_judge(),
    ]
    RESULT.write_text("\n\n".join(parts) + "\n")
    print(f"{RESULT.read_text()}\n{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
