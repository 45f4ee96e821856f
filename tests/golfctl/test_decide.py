"""What to do next, for every state a campaign can be in."""

from __future__ import annotations

from dataclasses import replace

from golfctl.decide import (
    Action,
    Hold,
    Judge,
    Launch,
    Lose,
    Pull,
    Request,
    Room,
    Stop,
    Wait,
    Withdraw,
    decide,
    next_gate,
    ready_for_final,
)
from golfctl.domain.gate import Answer, Gate
from golfctl.domain.host import Poll
from golfctl.domain.plan import ResolvedPlan
from golfctl.domain.run import Outcome, RunRecord
from golfctl.domain.state import Revision, State
from golfctl.domain.verdict import Verdict
from tests.golfctl.factories import SEEDS, gates, plan, run, spec

SMOKE, FULL, SCALE, FINAL = gates()
A = plan()


def state_of(*runs: RunRecord, plans: tuple[ResolvedPlan, ...] = (A,)) -> State:
    state = State(runs={run.spec.name: run for run in runs})
    for item in plans:
        state.revisions[item.id] = [Revision(item.id, 1, item.digest, item.bundle, {})]
    return state


def passed(state: State, *numbers: int, plan_id: str = "A", answer: Answer = Answer.PASS) -> State:
    for number in numbers:
        state.verdicts[(plan_id, 1, number)] = Verdict(plan_id, 1, number, answer, "said")
    return state


def request(plans: tuple[str, ...], through: int, slots: int, free: int) -> Request:
    """These plans on the host of the factories."""
    return Request(plans, through, (Room("local", slots, free),))


def ask(state: State, polls: dict[str, Poll] | None = None, through: int = 4, slots: int = 8) -> list[Action]:
    return decide(request(("A",), through, 8, slots), {"A": A}, state, polls or {})


def unfinished(owner: str, at: Gate, seed: int = 1337, started: bool = True) -> RunRecord:
    return RunRecord(spec(owner, at, seed), "m000001", started)


def launches(actions: list[Action]) -> list[tuple[str, int, int]]:
    return [(item.owner, item.seed, item.attempt) for item in actions if isinstance(item, Launch)]


def test_fresh_plan_launches_its_smoke_run_only() -> None:
    """Nothing passes a gate it has not earned: one run, gate 1."""
    actions = ask(state_of())
    assert launches(actions) == [("A", 1337, 1)]
    assert len(actions) == 1


def test_finished_smoke_run_is_judged_not_repeated() -> None:
    """All runs ended: judge."""
    (action,) = ask(state_of(run("A", SMOKE)))
    assert isinstance(action, Judge)
    assert action.own == (run("A", SMOKE).spec.name,)


def test_versus_gate_launches_the_parent_runs_first() -> None:
    """Three parent seeds and the plan's own."""
    actions = ask(passed(state_of(), 1))
    assert launches(actions) == [*(("base", seed, 1) for seed in SEEDS), ("A", 1337, 1)]


def test_parent_runs_of_the_same_shape_serve_two_gates() -> None:
    """Gates 3 and 4 share a shape: the base is measured once."""
    base = [run("base", SCALE, seed) for seed in SEEDS]
    actions = ask(passed(state_of(*base), 1, 2, 3))
    assert launches(actions) == [("A", seed, 1) for seed in SEEDS]


def test_own_runs_do_not_serve_another_gate() -> None:
    """The seed that passed gate 3 is run again for gate 4: counting it twice would select for luck."""
    base = [run("base", SCALE, seed) for seed in SEEDS]
    actions = ask(passed(state_of(*base, run("A", SCALE)), 1, 2, 3))
    assert launches(actions) == [("A", seed, 1) for seed in SEEDS]


def test_slots_limit_launches_but_not_pulls() -> None:
    """A full host starts nothing; what ended is collected all the same."""
    state = passed(state_of(unfinished("base", FULL)), 1)
    actions = ask(state, {spec("base", FULL).name: Poll("exited")}, slots=0)
    assert [type(action) for action in actions] == [Pull, Hold]


def test_run_takes_a_slot_per_process_and_none_slips_past_it() -> None:
    """Two processes do not fit into one free slot; the plan behind it does not overtake."""
    other = plan("C")
    base = [run("base", SCALE, seed) for seed in SEEDS]
    state = passed(state_of(*base, plans=(A, other)), 1, 2)
    plans = {"A": A, "C": other}
    held = decide(request(("A", "C"), 4, 2, 1), plans, state, {})
    assert [(type(item), item.plan) for item in held if isinstance(item, Hold)] == [(Hold, "A"), (Hold, "C")]
    assert len(held) == 2
    assert launches(decide(request(("A", "C"), 4, 2, 2), plans, state, {})) == [("A", 1337, 1)]
    assert launches(decide(request(("A",), 4, 1, 1), plans, state, {})) == [("A", 1337, 1)]


def test_running_run_is_waited_for() -> None:
    """A run under way is watched, never started again."""
    (action,) = ask(state_of(unfinished("A", SMOKE)), {spec("A", SMOKE).name: Poll("running")})
    assert isinstance(action, Wait)


def test_intent_without_a_folder_continues_the_same_run() -> None:
    """A controller killed between intent and start: the same name is started, no second attempt."""
    record = unfinished("A", SMOKE, started=False)
    (action,) = ask(state_of(record), {record.spec.name: Poll("absent")})
    assert isinstance(action, Launch)
    assert action.resume == record.spec.name


def test_vanished_folder_of_a_started_run_is_a_loss() -> None:
    """Started once, gone now: that is recorded, not hidden by a restart under the same name."""
    record = unfinished("A", SMOKE)
    (action,) = ask(state_of(record), {record.spec.name: Poll("absent")})
    assert isinstance(action, Lose)


def test_dead_supervisor_is_a_loss() -> None:
    """A folder without an end and without a supervisor."""
    record = unfinished("A", SMOKE)
    (action,) = ask(state_of(record), {record.spec.name: Poll("dead")})
    assert isinstance(action, Lose)


def test_lost_run_gets_a_second_attempt_and_then_a_person() -> None:
    """Twice by itself; the third loss stops the plan."""
    lost = [run("A", SMOKE, outcome=Outcome.LOST, attempt=attempt) for attempt in (1, 2, 3)]
    assert launches(ask(state_of(lost[0]))) == [("A", 1337, 2)]
    (action,) = ask(state_of(*lost))
    assert isinstance(action, Stop)
    assert "3 times in all" in action.why


def test_crashed_own_run_is_judged() -> None:
    """A crash is a result."""
    (action,) = ask(state_of(run("A", SMOKE, outcome=Outcome.CRASHED)))
    assert isinstance(action, Judge)


def test_crashed_reference_run_stops_the_plan() -> None:
    """Without the parent's score there is nothing to compare with; the plan is not blamed."""
    (action,) = ask(passed(state_of(run("base", FULL, outcome=Outcome.CRASHED)), 1))
    assert isinstance(action, Stop)
    assert not action.done


def test_plan_that_stops_leaves_shared_launches_to_the_others() -> None:
    """A's own run is out of reach; C needs the same base runs and must get them in the same round."""
    other = plan("C")
    state = state_of(unfinished("A", FULL), plans=(A, other))
    passed(passed(state, 1), 1, plan_id="C")
    actions = decide(request(("A", "C"), 4, 8, 8), {"A": A, "C": other}, state, {})
    assert [item.plan for item in actions if isinstance(item, Stop)] == ["A"]
    assert launches(actions) == [*(("base", seed, 1) for seed in SEEDS), ("C", 1337, 1)]


def test_run_nobody_asks_for_is_collected() -> None:
    """A plan was edited or removed while its run went on: what ended is pulled, what runs is left alone."""
    record = unfinished("B", SMOKE)
    ended = ask(passed(state_of(record), 1, 2, 3, 4), {record.spec.name: Poll("exited")})
    assert any(isinstance(item, Pull) and item.run == record.spec.name for item in ended)
    running = ask(passed(state_of(record), 1, 2, 3, 4), {record.spec.name: Poll("running")})
    assert [type(item) for item in running] == [Stop]


def test_full_host_is_waited_for_whoever_fills_it() -> None:
    """Another plan's run takes the only slot: wait for it, do not end with nothing done."""
    record = unfinished("B", SMOKE)
    actions = ask(state_of(record), {record.spec.name: Poll("running")}, slots=0)
    assert [type(item) for item in actions] == [Hold, Wait]


def test_verdict_that_is_no_pass_stops_everything_behind_it() -> None:
    """Neither FAIL nor INCONCLUSIVE advances."""
    for answer in (Answer.FAIL, Answer.INCONCLUSIVE):
        (action,) = ask(passed(passed(state_of(), 1), 2, answer=answer))
        assert isinstance(action, Stop)
        assert (action.gate, action.done) == (2, False)


def test_waiver_lets_a_plan_go_on() -> None:
    """A waived gate is behind; the next one is asked for."""
    state = passed(passed(state_of(), 1), 2, answer=Answer.FAIL)
    state.waivers[("A", 1, 2)] = "because"
    gate = next_gate(A, state)
    assert gate is not None
    assert gate.number == 3


def test_request_stops_at_its_last_gate() -> None:
    """`--through 1` does nothing once gate 1 has passed."""
    (action,) = ask(passed(state_of(), 1), through=1)
    assert isinstance(action, Stop)
    assert action.done


def test_stack_does_not_pass_what_its_foundation_failed() -> None:
    """B depends on A; A failed gate 2: B is not run at gate 2."""
    child = plan("B", parent="A", stack=("A", "B"))
    state = passed(passed(state_of(plans=(A, child)), 1), 2, answer=Answer.FAIL)
    passed(state, 1, plan_id="B")
    (action,) = decide(request(("B",), 4, 8, 8), {"A": A, "B": child}, state, {})
    assert isinstance(action, Stop)
    assert "depends on A" in action.why


def test_two_plans_share_the_reference_runs_they_both_need() -> None:
    """The base's runs are launched once for both."""
    other = plan("C")
    state = passed(passed(state_of(plans=(A, other)), 1), 1, plan_id="C")
    actions = decide(request(("A", "C"), 4, 8, 8), {"A": A, "C": other}, state, {})
    assert launches(actions) == [*(("base", seed, 1) for seed in SEEDS), ("A", 1337, 1), ("C", 1337, 1)]


def test_new_revision_starts_at_the_first_gate() -> None:
    """Verdicts belong to a revision; an edited plan earns its gates again."""
    state = passed(state_of(), 1, 2)
    state.revisions["A"].append(Revision("A", 2, "new", A.bundle, {}))
    gate = next_gate(A, state)
    assert gate is not None
    assert gate.number == 1


def test_ready_for_final_lists_plans_before_their_last_gate() -> None:
    """Exactly those whose next gate is the last one and has said nothing."""
    assert ready_for_final([A], passed(state_of(), 1, 2, 3)) == ["A"]
    assert ready_for_final([A], passed(state_of(), 1, 2)) == []
    assert ready_for_final([A], passed(passed(state_of(), 1, 2, 3), 4, answer=Answer.FAIL)) == []


def test_decide_is_pure() -> None:
    """The same input gives the same actions and changes nothing."""
    state = passed(state_of(), 1)
    before = replace(state)
    assert ask(state) == ask(state)
    assert state == before


# --- many hosts ------------------------------------------------------------------------------------------------------
def on(*rooms: Room, plans: tuple[str, ...] = ("A",), **changes: object) -> Request:
    """A request for these hosts."""
    return Request(plans, 4, rooms, **changes)  # type: ignore[arg-type]


def test_launches_fill_one_host_after_the_other() -> None:
    """Four runs, two hosts with two slots each: two and two, in the order the hosts were named."""
    actions = decide(on(Room("x", 2, 2), Room("y", 2, 2)), {"A": A}, passed(state_of(), 1), {})
    assert [item.host for item in actions if isinstance(item, Launch)] == ["x", "x", "y", "y"]


def test_gpus_can_not_be_shared_and_cpu_can() -> None:
    """Two processes: a host with one GPU is passed over, one with a single share of a CPU takes them both."""
    base = [run("base", SCALE, seed) for seed in SEEDS]
    state = passed(state_of(*base), 1, 2)
    (launch,) = decide(on(Room("one", 1, 1, gpus=True), Room("two", 2, 2, gpus=True)), {"A": A}, state, {})
    assert isinstance(launch, Launch)
    assert launch.host == "two"
    (stop,) = decide(on(Room("one", 1, 1, gpus=True)), {"A": A}, state, {})
    assert isinstance(stop, Stop)
    assert "needs 2 GPUs, the hosts named have at most 1" in stop.why
    (launch,) = decide(on(Room("cpu", 1, 1)), {"A": A}, state, {})
    assert isinstance(launch, Launch)


def test_lost_run_is_retried_on_a_different_host() -> None:
    """Whatever host it was lost on is the last choice; with no other host it is tried there again."""
    gone = replace(run("A", SMOKE, outcome=Outcome.LOST), spec=replace(spec("A", SMOKE), host="x"))
    (launch,) = decide(on(Room("x", 4, 4), Room("y", 1, 1)), {"A": A}, state_of(gone), {})
    assert isinstance(launch, Launch)
    assert (launch.host, launch.attempt) == ("y", 2)
    assert "failed by x" in launch.why
    (launch,) = decide(on(Room("x", 4, 4)), {"A": A}, state_of(gone), {})
    assert isinstance(launch, Launch)
    assert launch.host == "x"
    (hold,) = decide(on(Room("x", 4, 4), Room("y", 1, 0)), {"A": A}, state_of(gone), {})
    assert isinstance(hold, Hold)


def test_crash_that_was_the_hosts_fault_is_repeated_unless_a_score_was_seen() -> None:
    """A communication error says nothing about the plan; a run with a score is never drawn again."""
    crashed = run("A", SMOKE, outcome=Outcome.CRASHED)
    faulty = replace(crashed, fault="host", result=None, spec=replace(crashed.spec, host="x"))
    (launch,) = decide(on(Room("x"), Room("y")), {"A": A}, state_of(faulty), {})
    assert isinstance(launch, Launch)
    assert launch.host == "y"
    scored = replace(run("A", SMOKE), fault="host")
    (judge,) = ask(state_of(scored))
    assert isinstance(judge, Judge)
    (judge,) = ask(state_of(replace(crashed, result=None)))
    assert isinstance(judge, Judge)


def test_silent_host_is_waited_for_then_its_runs_are_lost() -> None:
    """A lost connection is never a failed run; only a stated time without any answer is."""
    record = unfinished("A", SMOKE)
    name, ask_for = record.spec.name, on(Room("local", 1, 0), lost_after_s={"local": 600.0})
    (wait,) = decide(ask_for, {"A": A}, state_of(record), {name: Poll("unreachable", why="timed out", silent_s=599)})
    assert isinstance(wait, Wait)
    (lose,) = decide(ask_for, {"A": A}, state_of(record), {name: Poll("unreachable", why="10.0.0.1", silent_s=601)})
    assert isinstance(lose, Lose)
    assert lose.why == "local has not answered for 601 s"  # recorded: no address


def test_intended_run_goes_elsewhere_if_its_host_has_no_room() -> None:
    """It never started: withdrawn where its host is not named, or full while another is free; else it stays."""
    record = unfinished("A", SMOKE, started=False)
    absent = {record.spec.name: Poll("absent")}
    for rooms in ([Room("other")], [Room("local", 1, 0), Room("other")]):
        (withdraw,) = decide(on(*rooms), {"A": A}, state_of(record), absent)
        assert isinstance(withdraw, Withdraw)
    (launch,) = decide(on(Room("local"), Room("other")), {"A": A}, state_of(record), absent)
    assert isinstance(launch, Launch)
    assert (launch.resume, launch.host) == (record.spec.name, "local")
    (hold,) = decide(on(Room("local", 1, 0), Room("other", 1, 0)), {"A": A}, state_of(record), absent)
    assert isinstance(hold, Hold)


def test_withdrawn_runs_never_count_against_a_plan() -> None:
    """Five of them, and the sixth attempt starts all the same."""
    lost = run("A", SMOKE, outcome=Outcome.LOST)
    gone = [
        replace(lost, withdrawn=True, result=None, spec=replace(lost.spec, name=f"w{number}", attempt=number))
        for number in range(1, 6)
    ]
    (launch,) = ask(state_of(*gone))
    assert isinstance(launch, Launch)
    assert launch.attempt == 6


def test_run_that_blames_its_machine_twice_stops_the_plan() -> None:
    """What a log says can be printed by the code: one more attempt, then a person has to look."""
    crashed = run("A", SMOKE, outcome=Outcome.CRASHED)
    first = replace(crashed, fault="host", result=None)
    second = replace(first, spec=replace(first.spec, name="again", attempt=2))
    (launch,) = ask(state_of(first))
    assert isinstance(launch, Launch)
    (stop,) = ask(state_of(first, second))
    assert isinstance(stop, Stop)
    assert "2 times in all" in stop.why


def test_lost_run_whose_score_was_seen_is_judged_not_drawn_again() -> None:
    """Killing a supervisor after a bad score buys no second draw."""
    seen = replace(run("A", SMOKE), outcome=Outcome.LOST)
    assert seen.scored
    (judge,) = ask(state_of(seen))
    assert isinstance(judge, Judge)


def test_run_whose_files_can_not_be_read_stops_its_plan_only() -> None:
    """It is neither lost nor waited for in silence."""
    other = plan("C")
    record = unfinished("A", SMOKE)
    polls = {record.spec.name: Poll("broken", why="Too many levels of symbolic links")}
    stop, launch = decide(
        on(Room("local", 8, 7), plans=("A", "C")), {"A": A, "C": other}, state_of(record, plans=(A, other)), polls
    )
    assert isinstance(stop, Stop)
    assert "can't be examined on local: Too many levels" in stop.why
    assert isinstance(launch, Launch)


def test_fail_fast_starts_nothing_after_a_no() -> None:
    """What runs is waited for and collected; what was not started stops, and says why."""
    other, third = plan("C"), plan("D")
    record = unfinished("C", SMOKE)
    state = passed(state_of(record, plans=(A, other, third)), 1, answer=Answer.FAIL)
    plans = {"A": A, "C": other, "D": third}
    ask_for = on(Room("local", 8, 7), plans=("A", "C", "D"), fail_fast=True)
    actions = decide(ask_for, plans, state, {record.spec.name: Poll("running")})
    assert [type(item) for item in actions] == [Stop, Wait, Stop]
    assert isinstance(actions[2], Stop)
    assert "--fail-fast, and gate 1 of A said FAIL" in actions[2].why


def test_run_that_can_not_be_brought_home_stops_its_plan_only() -> None:
    """The others go on."""
    other = plan("C")
    record = unfinished("A", SMOKE)
    ask_for = on(Room("local", 8, 8), plans=("A", "C"), troubles={record.spec.name: "disk full"})
    actions = decide(
        ask_for, {"A": A, "C": other}, state_of(record, plans=(A, other)), {record.spec.name: Poll("exited")}
    )
    stop, launch, *_ = actions
    assert isinstance(stop, Stop)
    assert "can't be brought home: disk full" in stop.why
    assert isinstance(launch, Launch)
    assert launch.owner == "C"
