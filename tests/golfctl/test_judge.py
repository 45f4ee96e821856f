"""The judge: every way to say PASS, FAIL and INCONCLUSIVE."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from golfctl import judge as judging
from golfctl.domain.gate import Answer, Gate, Kind, Requirement
from golfctl.domain.rules import Rules
from golfctl.domain.run import Outcome, RunRecord
from golfctl.domain.verdict import Verdict, from_data
from tests.golfctl.factories import SEEDS, gate, gates, plan, run, runs

SMOKE, FULL, SCALE, FINAL = gates()


def judge(
    at: Gate, own: Sequence[RunRecord], parent: Sequence[RunRecord] = (), base: Sequence[RunRecord] | None = None
) -> Verdict:
    case = judging.Case(plan(), 1, at, Rules(), own, parent, parent if base is None else base)
    return judging.judge(case)


def test_smoke_passes_without_a_score_requirement() -> None:
    """Gate 1 asks for a run that ends and an artifact under the cap, not for a score."""
    assert judge(SMOKE, [run("A", SMOKE)]).answer is Answer.PASS


def test_artifact_one_byte_over_the_cap_fails() -> None:
    """The cap is decimal and exact; it is checked at every gate, asked or not."""
    at_cap = run("A", SMOKE, changes={"artifact_bytes": 16_000_000})
    over = run("A", SMOKE, changes={"artifact_bytes": 16_000_001})
    assert judge(SMOKE, [at_cap]).answer is Answer.PASS
    verdict = judge(SMOKE, [over])
    assert (verdict.answer, verdict.cause) == (Answer.FAIL, "too-big")


def test_unmeasured_artifact_fails() -> None:
    """A size nobody counted is not under the cap."""
    assert judge(SMOKE, [run("A", SMOKE, changes={"artifact_bytes": None})]).cause == "too-big"


def test_slow_step_fails_an_overriding_rule() -> None:
    """An overriding rule is marked, so that it can't be waived."""
    at = gate(1, require=(Requirement("step_avg_ms", "<=", 40.0),), overriding=True)
    verdict = judge(at, [run("A", at)])
    assert (verdict.answer, verdict.cause, verdict.overriding) == (Answer.FAIL, "too-slow", True)


def test_step_rule_for_other_hardware_is_not_checkable() -> None:
    """A rule for 8 GPUs says nothing on one process; it neither passes nor fails."""
    at = gate(1, require=(Requirement("step_avg_ms", "<=", 40.0),), at_gpus=8)
    verdict = judge(at, [run("A", at)])
    assert verdict.answer is Answer.PASS
    assert [check.ok for check in verdict.checks if check.name == "step_avg_ms"] == [None]


@pytest.mark.parametrize(
    ("outcome", "reason", "cause"),
    [
        (Outcome.CRASHED, "exit code 1", "crash"),
        (Outcome.CRASHED, "CUDA out of memory", "oom"),
        (Outcome.CRASHED, "cannot infer device; try pip install torch", "crash"),
        (Outcome.ABORTED, "train_loss is nan at step 3", "nan"),
        (Outcome.ABORTED, "step_avg 400 ms > 130 ms", "too-slow"),
        (Outcome.OVER_TIME, "wallclock 600 s", "over-time"),
        (Outcome.ABORTED, "stopped by hand", "aborted"),
    ],
)
def test_bad_ending_fails_with_its_cause(outcome: Outcome, reason: str, cause: str) -> None:
    """Whatever the other seeds scored, one seed that did not complete fails the gate, with a cause class."""
    own = [*runs("A", FINAL, [1.0, 1.0]), run("A", FINAL, 2025, outcome=outcome, reason=reason)]
    verdict = judge(FINAL, own, runs("base", FINAL, [2.0, 2.1, 2.2]))
    assert (verdict.answer, verdict.cause) == (Answer.FAIL, cause)
    assert len(verdict.runs) == 3


def test_lost_attempt_stays_visible_beside_its_successor() -> None:
    """The newest attempt counts; the lost one is still named in the verdict."""
    lost = run("A", SMOKE, outcome=Outcome.LOST, reason="host gone")
    verdict = judge(SMOKE, [lost, run("A", SMOKE, attempt=2)])
    assert verdict.answer is Answer.PASS
    assert len(verdict.runs) == 2


def test_versus_passes_a_gain_beyond_the_noise() -> None:
    """One seed against three parent seeds, prediction t at alpha 0.10."""
    verdict = judge(FULL, [run("A", FULL, score=2.26)], runs("base", FULL, [2.40, 2.41, 2.39]))
    assert verdict.answer is Answer.PASS
    assert verdict.numbers["versus"]["p"] < 0.01


def test_versus_fails_a_loss_beyond_the_noise() -> None:
    """Visibly worse is a FAIL with a cause."""
    verdict = judge(FULL, [run("A", FULL, score=2.5)], runs("base", FULL, [2.40, 2.41, 2.39]))
    assert (verdict.answer, verdict.cause) == (Answer.FAIL, "worse-than-parent")


def test_versus_within_the_noise_is_inconclusive() -> None:
    """A gain of half a seed sd settles nothing, and the verdict says what would."""
    verdict = judge(FULL, [run("A", FULL, score=2.395)], runs("base", FULL, [2.40, 2.41, 2.39]))
    assert verdict.answer is Answer.INCONCLUSIVE
    assert "new seeds against" in verdict.reason
    assert "of the other side, judged alone at 0.05, would settle it" in verdict.reason


def test_versus_needs_the_declared_parent_seeds() -> None:
    """Two parent runs are not three."""
    verdict = judge(FULL, [run("A", FULL, score=1.0)], runs("base", FULL, [2.4, 2.5]))
    assert (verdict.answer, verdict.cause) == (Answer.INCONCLUSIVE, "not-comparable")


def test_target_relative_to_base_resolves_to_a_number() -> None:
    """`score <= base - 0.05` is the base's mean minus 0.05, and the number is in the verdict."""
    base = runs("base", SCALE, [2.40, 2.41, 2.39])
    verdict = judge(SCALE, [run("A", SCALE, score=2.35)], base)
    assert verdict.answer is Answer.PASS
    assert verdict.numbers["target"] == pytest.approx(2.35)
    assert judge(SCALE, [run("A", SCALE, score=2.3501)], base).cause == "off-track"


def test_final_gate_needs_significance_not_only_a_good_mean() -> None:
    """A mean below the target with noisy seeds is INCONCLUSIVE and names the seeds needed."""
    base = runs("base", FINAL, [2.40, 2.41, 2.39])
    assert judge(FINAL, runs("A", FINAL, [2.270, 2.271, 2.269]), base).answer is Answer.PASS
    noisy = judge(FINAL, runs("A", FINAL, [2.20, 2.36, 2.30]), base)
    assert noisy.answer is Answer.INCONCLUSIVE
    assert noisy.numbers["seeds_needed"] > 3
    assert judge(FINAL, runs("A", FINAL, [2.45, 2.451, 2.449]), base).answer is Answer.FAIL


def test_looks_share_alpha() -> None:
    """What passes at one look does not at five."""
    base, own = runs("base", FINAL, [2.40, 2.41, 2.39]), runs("A", FINAL, [2.330, 2.334, 2.326])
    fixed = {"require": (Requirement("score", "<=", 2.35),), "seeds": 3, "alpha": 0.01}
    assert judge(gate(4, **fixed), own, base).answer is Answer.PASS
    assert judge(gate(4, **fixed, looks=5), own, base).answer is Answer.INCONCLUSIVE


def test_noise_of_the_target_counts_where_the_target_was_measured() -> None:
    """`base - 0.05` is as uncertain as the base's three runs: against a noisy base the same seeds settle nothing."""
    own = runs("A", FINAL, [2.330, 2.334, 2.326])
    quiet, noisy = runs("base", FINAL, [2.40, 2.405, 2.395]), runs("base", FINAL, [2.30, 2.50, 2.40])
    assert judge(FINAL, own, quiet).answer is Answer.PASS
    assert judge(FINAL, own, noisy).answer is Answer.INCONCLUSIVE


def test_seeds_that_do_not_differ_prove_nothing() -> None:
    """A script that ignores its seed has sd 0; that is no certainty."""
    base = runs("base", FINAL, [2.40, 2.41, 2.39])
    assert judge(FINAL, runs("A", FINAL, [2.0, 2.0, 2.0]), base).cause == "no-noise"
    assert judge(FULL, [run("A", FULL, score=2.0)], runs("base", FULL, [2.4, 2.4, 2.4])).cause == "no-noise"


def test_one_seed_at_the_final_gate_is_no_proof() -> None:
    """Whatever a plan declares, the last gate needs noise to judge by."""
    at = gate(4, require=(Requirement("score", "<=", 9.0),))
    assert judge(at, [run("A", at, score=2.0)]).cause == "no-noise"


def test_paired_by_seed_removes_what_the_seeds_share() -> None:
    """The same gain on every seed is clear in pairs although the seeds themselves differ widely."""
    parent, own = [2.20, 2.50, 2.80], [2.19, 2.488, 2.791]
    loose, paired = gate(2, Kind.VERSUS, seeds=3), gate(2, Kind.VERSUS, seeds=3, paired=True)
    assert judge(loose, runs("A", loose, own), runs("base", loose, parent)).answer is Answer.INCONCLUSIVE
    assert judge(paired, runs("A", paired, own), runs("base", paired, parent)).answer is Answer.PASS


def test_seeds_that_are_not_declared_stay_visible() -> None:
    """A run under a seed that was dropped from the plan is named in the verdict, with its score."""
    case = judging.Case(plan(), 1, SMOKE, Rules(), [run("A", SMOKE)], [], [], [run("A", SMOKE, 7, 9.9)])
    verdict = judging.judge(case)
    assert verdict.numbers["former_seeds"] == {"7": 9.9}
    assert len(verdict.runs) == 2


@pytest.mark.parametrize("change", [{"metric_version": 2}, {"data": "e" * 64}])
def test_results_of_another_metric_or_data_are_not_compared(change: dict[str, object]) -> None:
    """No number is better than a number over other bytes."""
    verdict = judge(FULL, [run("A", FULL, score=1.0, changes=change)], runs("base", FULL, [2.4, 2.41, 2.39]))
    assert (verdict.answer, verdict.cause) == (Answer.INCONCLUSIVE, "not-comparable")


def test_dead_switch_is_named() -> None:
    """The same seed with the same score to the last of many digits: the diff never ran."""
    verdict = judge(FULL, [run("A", FULL, score=2.40123456)], runs("base", FULL, [2.40123456, 2.41, 2.39]))
    assert (verdict.answer, verdict.cause) == (Answer.FAIL, "dead-switch")


def test_equal_scores_by_rounding_are_no_dead_switch() -> None:
    """Four digits agree by chance; and of three seeds all have to agree."""
    assert judge(FULL, [run("A", FULL, score=2.40)], runs("base", FULL, [2.40, 2.41, 2.39])).cause != "dead-switch"
    at = gate(2, Kind.VERSUS, seeds=3)
    own, base = runs("A", at, [2.40123456, 2.39, 2.38]), runs("base", at, [2.40123456, 2.41, 2.39])
    assert judge(at, own, base).cause != "dead-switch"


def test_reference_runs_of_an_old_torch_are_left_out_where_new_ones_serve() -> None:
    """A target in numbers asks nothing of the base; a relative one takes runs of the own version, and says what it left out."""
    new, old = {"environment": {"torch": "2.13.0"}}, {"environment": {"torch": "2.8.0"}}
    at = gate(4, require=(Requirement("score", "<=", 2.35),), seeds=3, alpha=0.01)
    own = [run("A", at, seed, score, changes=new) for seed, score in zip(SEEDS, [2.301, 2.302, 2.303], strict=True)]
    stale = [run("base", at, seed, 2.4 + seed / 1e6, changes=old) for seed in SEEDS]
    assert judge(at, own, stale).answer is Answer.PASS
    relative = replace(at, require=(Requirement("score", "<=", -0.05, "base"),))
    own = [replace(item, spec=replace(item.spec, shape=relative.shape)) for item in own]
    assert judge(relative, own, stale).cause == "not-comparable"
    fresh = [run("base", relative, seed, 2.4 + seed / 1e3, changes=new) for seed in (7, 8, 9)]
    verdict = judge(relative, own, [*stale, *fresh])
    assert verdict.answer is Answer.PASS
    assert any("left out, of other versions: base." in check.text for check in verdict.checks)


@pytest.mark.parametrize(
    ("own", "parent"), [([1.5, 1.75, 2.0], [2.0, 2.25, 2.5]), ([1.9, 1.92, 1.94], [2.0, 2.02, 2.04])]
)
def test_paired_differences_without_noise_are_no_test(own: list[float], parent: list[float]) -> None:
    """The same difference for every seed, exactly or but for the last bit: nothing is known of its noise."""
    at = gate(2, Kind.VERSUS, seeds=3, paired=True)
    verdict = judge(at, runs("A", at, own), runs("base", at, parent))
    assert (verdict.answer, verdict.cause) == (Answer.INCONCLUSIVE, "no-noise")


def test_own_alpha_of_the_last_gate_is_said() -> None:
    """A plan may loosen its last gate; the verdict says so in the same line."""
    at = gate(4, require=(Requirement("score", "<=", 2.35),), seeds=3, alpha=0.45)
    resolved = plan(gates=(SMOKE, at))
    verdict = judging.judge(judging.Case(resolved, 1, at, Rules(), runs("A", at, [2.30, 2.36, 2.33]), [], []))
    assert verdict.answer is Answer.PASS
    assert "the gate's own alpha is 0.45, the rules say 0.01" in verdict.reason


def test_contradicting_files_fail_the_run() -> None:
    """A run whose log and result disagree proves nothing, however good its score."""
    bad = run("A", FULL, score=1.0, changes={"warnings": ("invalid: the log says 3.0",)})
    assert judge(FULL, [bad], runs("base", FULL, [2.4, 2.41, 2.39])).cause == "invalid"


def test_missing_score_fails() -> None:
    """A completed run without a score is no score of zero."""
    assert judge(FULL, [run("A", FULL, score=None)], runs("base", FULL, [2.4, 2.41, 2.39])).cause == "no-score"


def test_unfinished_runs_are_not_judged() -> None:
    """There is no verdict before everything has ended."""
    unfinished = RunRecord(run("A", SMOKE).spec, "m000001", True)
    with pytest.raises(ValueError, match="not ended"):
        judge(SMOKE, [unfinished])


def test_verdict_survives_the_ledger() -> None:
    """What is read back is what was said."""
    verdict = judge(FINAL, runs("A", FINAL, [2.27, 2.271, 2.269]), runs("base", FINAL, [2.4, 2.41, 2.39]))
    assert from_data(verdict.as_data()).as_data() == verdict.as_data()


def test_versus_with_several_seeds_uses_welch() -> None:
    """More than one own seed: both sides' noise counts."""
    at = gate(2, Kind.VERSUS, seeds=3)
    verdict = judge(at, runs("A", at, [2.30, 2.31, 2.29]), runs("base", at, [2.40, 2.41, 2.39]))
    assert verdict.numbers["versus"]["test"] == "Welch t"
    assert verdict.answer is Answer.PASS


def test_former_attempts_are_said_beside_the_verdict() -> None:
    """A third draw looks like a third draw; one that never started anywhere is no draw."""
    lost = run("A", SMOKE, outcome=Outcome.LOST, reason="its supervisor is gone", attempt=1)
    never = replace(lost, withdrawn=True, reason="no room", spec=replace(lost.spec, attempt=2))
    verdict = judge(SMOKE, [lost, never, run("A", SMOKE, attempt=3)])
    assert verdict.answer is Answer.PASS
    (check,) = [check for check in verdict.checks if check.name == "attempts"]
    assert "1 before it counted for nothing (lost: its supervisor is gone)" in check.text


def test_lost_run_with_a_score_that_was_seen_is_inconclusive() -> None:
    """Its files are not whole, and it is not drawn again."""
    verdict = judge(SMOKE, [replace(run("A", SMOKE, score=4.3), outcome=Outcome.LOST, reason="killed")])
    assert (verdict.answer, verdict.cause) == (Answer.INCONCLUSIVE, "lost")
    assert "4.3000" in verdict.reason


def test_versions_of_torch_are_not_mixed() -> None:
    """Own runs on one version, the parent's on another: nothing is compared."""
    own = [run("A", FULL, changes={"environment": {"torch": "2.9.1"}})]
    parent = [run("base", FULL, seed, changes={"environment": {"torch": "2.4.0"}}) for seed in SEEDS]
    verdict = judge(FULL, own, parent)
    assert (verdict.answer, verdict.cause) == (Answer.INCONCLUSIVE, "not-comparable")
    assert "2.4.0, 2.9.1" in verdict.reason


def test_step_rule_is_scaled_by_the_ratio_of_the_base() -> None:
    """1,118 ms on one GPU where the base is 8 times slower there: 139.8 ms at 8 GPUs, more than 130."""
    at = gate(1, require=(Requirement("step_avg_ms", "<=", 130.0),), at_gpus=8, overriding=True)
    for measured, answer in ((1118.0, Answer.FAIL), (1000.0, Answer.PASS)):
        case = judging.Case(
            plan(), 1, at, Rules(), [run("A", at, changes={"step_avg_ms": measured})], [], [], step_ratio=8.0
        )
        assert judging.judge(case).answer is answer


@pytest.mark.parametrize(("score", "answer"), [(2.45, Answer.PASS), (2.47, Answer.FAIL)])
def test_short_run_is_extrapolated_by_the_way_of_the_base(score: float, answer: Answer) -> None:
    """The base goes from 2.50 to 2.38 between the gates: 2.45 lets expect 2.33, which reaches 2.34; 2.47 does not."""
    target = (Requirement("score", "<=", 2.34),)
    third, last = gate(3, require=target), gate(4, require=target, seeds=3)
    resolved = plan(gates=(third, last))
    base, final = runs("base", third, [2.49, 2.50, 2.51]), runs("base", last, [2.38, 2.37, 2.39])
    own = [run("A", third, score=score)]
    verdict = judging.judge(judging.Case(resolved, 1, third, Rules(), own, base, base, final=final))
    assert verdict.answer is answer
    assert verdict.numbers["expected"] == pytest.approx(score - 0.12)
    assert "expected at gate 4 as base goes from 2.5000 to 2.3800" in verdict.reason
    alone = judging.judge(judging.Case(resolved, 1, third, Rules(), own, base, base))
    assert alone.answer is Answer.FAIL
    assert "not extrapolated: base lacks such runs here or at gate 4" in alone.reason


def test_open_question_says_what_settling_it_costs() -> None:
    """The missing seeds of both sides, at what theirs took; in dollars, or in time where a machine is free."""
    at = gate(2, Kind.VERSUS, seeds=3)
    own, parent = runs("A", at, [2.396, 2.402, 2.389]), runs("base", at, [2.40, 2.41, 2.39])
    priced = [[replace(item, usd=usd, wall_s=600.0) for item in side] for side, usd in ((own, 3.5), (parent, 0.5))]
    verdict = judge(at, *priced)
    assert verdict.answer is Answer.INCONCLUSIVE
    needed = verdict.numbers["seeds_needed"]
    # No look is left: own seeds that were judged do not count again, the parent's do.
    assert verdict.numbers["settle_usd"] == pytest.approx(needed * 3.5 + (needed - 3) * 0.5)
    assert f"some ${needed * 3.5 + (needed - 3) * 0.5:,.0f} more" in verdict.reason
    again = judge(replace(at, looks=2), *priced)
    more = again.numbers["seeds_needed"] - 3
    assert again.numbers["settle_usd"] == pytest.approx(more * 4.0)
    assert "on each side would settle it" in again.reason
    free = judge(at, *[[replace(item, usd=0.0) for item in side] for side in priced])
    assert "of runs more" in free.reason


def test_limit_that_no_run_shows_is_said_in_the_verdict() -> None:
    """A cost nobody measured passes; the sentence says so."""
    at = gate(1, require=(Requirement("eval_time_ms", "<=", 600_000.0),))
    verdict = judge(at, [run("A", at)])
    assert verdict.answer is Answer.PASS
    assert verdict.reason.endswith("; not measured: eval_time_ms")


def test_one_seed_over_the_cap_fails_the_byte_level_submission() -> None:
    """Its four published seeds beat 1.2269 at p 0.0011; the artifact of one, 16.45 MB, is over the cap, and that decides."""
    at = gate(
        4, require=(Requirement("score", "<=", 1.2269), Requirement("artifact_bytes", "<=", 16e6)), seeds=4, alpha=0.01
    )
    resolved = plan(gates=(SMOKE, at))
    own = [run("A", at, seed, score=score) for seed, score in enumerate([1.2146, 1.2120, 1.2174, 1.2166])]
    assert own[0].result is not None
    verdict = judging.judge(judging.Case(resolved, 1, at, Rules(), own, [], []))
    assert (verdict.answer, round(verdict.numbers["test"]["p"], 4)) == (Answer.PASS, 0.0011)
    heavy = replace(own[0], result=replace(own[0].result, artifact_bytes=16_450_000))
    verdict = judging.judge(judging.Case(resolved, 1, at, Rules(), [heavy, *own[1:]], [], []))
    assert (verdict.answer, verdict.cause) == (Answer.FAIL, "too-big")
    assert "16,450,000" in verdict.reason


def test_seeds_needed_count_the_noise_of_both_sides() -> None:
    """Own scores that happen to lie close together do not make two seeds enough against a noisy base."""
    at = gate(2, Kind.VERSUS, seeds=3, alpha=0.01)
    verdict = judge(at, runs("A", at, [1.9700, 1.9701, 1.9702]), runs("base", at, [1.98, 2.00, 2.02]))
    assert (verdict.answer, verdict.numbers["seeds_needed"]) == (Answer.INCONCLUSIVE, 9)


@pytest.mark.parametrize(("side", "cause"), [([2.0], "not-comparable"), ([2.0, 2.0, 2.0], "no-noise")])
def test_relative_target_needs_a_base_with_noise(side: list[float], cause: str) -> None:
    """One run of the base, or runs that score alike, are no truth to test three seeds against."""
    own, base = (
        runs("A", FINAL, [1.940, 1.941, 1.942]),
        [run("base", FINAL, seed, score) for seed, score in zip(SEEDS, side, strict=False)],
    )
    verdict = judge(FINAL, own, base)
    assert (verdict.answer, verdict.cause) == (Answer.INCONCLUSIVE, cause)
