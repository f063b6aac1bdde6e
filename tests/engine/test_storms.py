"""Random lives: reloads, requests, changed files, stalls, clock jumps, deaths. Whatever comes, the laws hold."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from repeater.model.run import INTERIM, Exit
from repeater.model.spec import (
    Backoff,
    CatchUp,
    JobSpec,
    Need,
    OnChange,
    Pool,
    ProcessSpec,
    Retry,
    Slowdown,
    Stop,
    Termination,
)
from repeater.ports import LaunchRequest
from tests.engine.stage import Stage, job
from tests.engine.test_simulation import overlaps, schedules, stops
from tests.fakes.spawn import FOR_EVER, Act, seconds

POOLS = (Pool("p", 1),)
NAMES = "abcd"
ALONE = "ab"
"""Jobs that never allow two runs at once, in none of their definitions."""


@st.composite
def specs(draw: st.DrawFn, name: str) -> JobSpec:
    needs: tuple[Need, ...] = ()
    earlier = NAMES[: NAMES.index(name)]
    if earlier and draw(st.booleans()):
        condition: Any = draw(st.sampled_from(["started", "succeeded", "completed", "failed"]))
        needs = (
            Need(
                draw(st.sampled_from(earlier)),
                condition,
                within=draw(st.sampled_from(["ever", "same_slot", seconds(30)])),
                trigger=draw(st.booleans()),
                required=draw(st.booleans()),
                hold=draw(st.booleans()),
                timeout=draw(st.sampled_from([None, seconds(20)])),
            ),
        )
    return job(
        name,
        draw(st.one_of(schedules, st.just(OnChange(("*.py",))))),
        overlap=draw(overlaps.filter(lambda rule: rule.kind != "allow") if name in ALONE else overlaps),
        stop=draw(st.one_of(stops, st.just(Stop(consecutive_failures=2)), st.just(Stop(for_=seconds(20))))),
        retry=draw(st.sampled_from([Retry(), Retry(3, Backoff("fixed", base=seconds(2)))])),
        slowdown=draw(st.sampled_from([None, Slowdown(Backoff("linear", base=seconds(3)))])),
        ending=draw(st.sampled_from([Termination(), Termination(timeout=seconds(4), stop_timeout=seconds(2))])),
        catch_up=CatchUp(draw(st.sampled_from(["skip", "latest", "all"]))),
        delivery=draw(st.sampled_from(["at-most-once", "at-least-once"])),
        enabled=draw(st.integers(0, 9)) > 0,
        pool=draw(st.sampled_from([None, "p"])),
        needs=needs,
        process=ProcessSpec(("true",), cwd="/w"),
    )


@st.composite
def files(draw: st.DrawFn) -> tuple[JobSpec, ...]:
    names = sorted(draw(st.sets(st.sampled_from(NAMES), min_size=1)))
    jobs = [draw(specs(name)) for name in names]
    known = set(names)
    return tuple(
        spec if all(need.job in known for need in spec.needs) else job(spec.name, spec.schedule) for spec in jobs
    )


moves = st.one_of(
    st.tuples(st.just("pass"), st.floats(0.01, 40)),
    st.tuples(st.just("apply"), files()),
    st.tuples(
        st.just("ask"),
        st.sampled_from(NAMES),
        st.sampled_from(["trigger", "pause", "resume", "start", "stop", "restart", "reset"]),
        st.booleans(),
    ),
    st.tuples(st.just("touch")),
    st.tuples(st.just("stall"), st.floats(1, 100)),
    st.tuples(st.just("set clock"), st.floats(-4000, 4000)),
    st.tuples(st.just("die"), st.floats(0, 200)),
)
acts = st.lists(
    st.sampled_from(
        [
            Act(),
            Act(lasts=seconds(1.3)),
            Act(lasts=seconds(17.7), exit=Exit(code=1)),
            Act(exit=Exit(code=3)),
            Act(lasts=FOR_EVER, ignores=frozenset({"TERM"})),
            Act(leaves=seconds(100)),
            Act(refusal="no such file"),
            Act(refusal="no memory", temporary=True),
        ]
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=250, deadline=None)
@given(files(), st.lists(moves, max_size=14), acts)
def test_the_laws_hold_under_random_events(first: tuple[JobSpec, ...], storm: list[Any], script: list[Act]) -> None:
    turn = Counter[str]()

    def act(launch: LaunchRequest) -> Act:
        turn["acts"] += 1
        return script[turn["acts"] % len(script)]

    stage = Stage(act)
    current = first
    stage.apply(*current, pools=POOLS)
    launched: Counter[tuple[str, str, str]] = Counter()
    for move in storm:
        match move:
            case ("pass", float(length)):
                stage.advance(length)
            case ("apply", jobs):
                current = jobs
                stage.apply(*current, pools=POOLS)
            case ("ask", name, verb, force):
                stage.request(verb, name, force=force)
            case ("touch",):
                stage.watcher.touch("/w/x.py")
            case ("stall", float(length)):
                stage.clock.stall(timedelta(seconds=length))
            case ("set clock", float(length)):
                stage.clock.set_wall(stage.clock.now().wall + timedelta(seconds=length))
            case ("die", float(length)):
                launched += _launches(stage)
                stage = stage.again(after=length)
                stage.apply(*current, pools=POOLS)
        _check(stage, current)
    launched += _launches(stage)
    stage.stop()
    stage.stop("stop")
    stage.stop("kill")
    stage.advance(5)
    assert stage.left == [0]
    assert stage.spawner.live == frozenset()
    assert max(launched.values(), default=1) == 1, "an attempt of a slot was started twice"
    assert not [row for row in stage.store.find_records(most=10**6) if row.state in INTERIM], (
        "a slot was left undecided"
    )


def _launches(stage: Stage) -> Counter[tuple[str, str, str]]:
    return Counter(
        (launch.env["RPR_JOB"], launch.env["RPR_NOMINAL_TIME"], launch.env["RPR_ATTEMPT"])
        for launch in stage.spawner.launches
    )


def _check(stage: Stage, wanted: tuple[JobSpec, ...]) -> None:
    assert {name: one.spec for name, one in stage.engine.jobs.items()} == {spec.name: spec for spec in wanted}
    for one in stage.engine.jobs.values():
        if one.spec.name in ALONE and not any(held.slot.forced for held in one.open):
            assert len(one.open) <= 1, f"{one.spec.name} overlaps itself"
    busy = sum(held.pool != () for one in stage.engine.jobs.values() for held in one.open)
    assert busy <= len(POOLS)
