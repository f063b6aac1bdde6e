"""The wall clock is set while the monotonic clock goes on: distances keep their length, over restarts too."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repeater.engine.facts import JobCommand
from repeater.model.events import Warned
from repeater.model.run import SlotRecord
from repeater.model.spec import Always, Backoff, CatchUp, Cron, Every, Growing, Need, Retry, Stop
from repeater.ports import LaunchRequest
from tests.engine.stage import Stage, job
from tests.fakes.clock import EPOCH, FakeClock
from tests.fakes.spawn import Act


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


class World:
    """Lives of a supervisor on one machine, and when each run began and ended by the monotonic clock, in seconds."""

    def __init__(self, *jobs: Any, wall: datetime = EPOCH, lasts: float = 0.0) -> None:
        self.jobs = jobs
        self.starts: dict[str, list[float]] = {}
        self.ends: dict[str, list[float]] = {}
        self.nominals: list[tuple[str, str]] = []
        self.lasts = lasts
        self.stage = Stage(self.act, clock=FakeClock(wall))
        self.stage.apply(*jobs)

    def act(self, launch: LaunchRequest) -> Act:
        name = launch.env["RPR_JOB"]
        self.nominals.append((name, launch.env["RPR_NOMINAL_TIME"]))
        self.starts.setdefault(name, []).append(self.mono)
        self.ends.setdefault(name, []).append(self.mono + self.lasts)
        return Act(lasts=seconds(self.lasts))

    @property
    def mono(self) -> float:
        return (self.stage.clock.now().mono - 1_000_000_000) / 1e6

    def step(self, length: float) -> None:
        self.stage.clock.set_wall(self.stage.clock.now().wall + seconds(length))

    def set(self, wall: datetime) -> None:
        self.stage.clock.set_wall(wall)

    def restart(self, after: float = 0.0) -> None:
        for ends in self.ends.values():
            ends[-1] = min(ends[-1], self.mono)  # a live run dies with its supervisor
        self.stage = self.stage.again(after=after)
        self.stage.apply(*self.jobs)

    def states(self, name: str) -> list[str]:
        return [f"{row.state}/{row.reason.code if row.reason else ''}" for row in self.stage.rows(name)]


STEPS = [5.0, 3600.0, 3 * 3600.0, 400 * 86_400.0, -5.0, -3600.0, -400 * 86_400.0]


@pytest.mark.parametrize("step", STEPS)
def test_a_start_deadline_is_a_distance(step: float) -> None:
    world = World(job("a", Every(seconds(2)), catch_up=CatchUp(start_deadline=seconds(3))))
    world.stage.advance(3)
    world.step(step)
    world.stage.advance(20)
    assert world.starts["a"] == [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22]
    assert set(world.states("a")) == {"succeeded/success"}


@pytest.mark.parametrize("step", STEPS)
def test_a_held_slot_expires_by_distance(step: float) -> None:
    """`b` waits for `a`, which never succeeds: its slot expires three seconds after it was due."""
    wait = {"needs": {"a": Need("a", condition="succeeded")}}
    world = World(
        job("a", Every(seconds(1000)), retry=Retry(attempts=9)),
        job("b", Every(seconds(60), immediate=False), catch_up=CatchUp(start_deadline=seconds(3)), **_needs(wait)),
        lasts=5000,
    )
    world.stage.advance(61)
    world.step(step)
    world.stage.advance(1)
    assert world.stage.rows("b") == []
    world.stage.advance(1.5)
    assert world.states("b") == ["expired/start_deadline"]


def _needs(wait: dict[str, Any]) -> dict[str, Any]:
    return {"needs": tuple(wait["needs"].values())}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("after_end", [False, True])
def test_an_interval_continues_after_a_restart(step: float, after_end: bool) -> None:
    """The clock was wrong when the job came into force, and was set right before the supervisor was started again."""
    world = World(job("a", Every(seconds(10), after_end=after_end)), lasts=1)
    world.stage.advance(25)
    world.step(step)
    world.restart(after=2)
    world.stage.advance(40)
    gaps = [later - earlier for earlier, later in pairwise(world.starts["a"])]
    assert max(gaps) <= 11.0 + 2.0
    assert min(gaps) >= 10.0


@pytest.mark.parametrize("step", STEPS)
def test_an_hourly_job_runs_once_an_hour_over_a_restart(step: float) -> None:
    world = World(job("a", Every(timedelta(hours=1)), catch_up=CatchUp("latest")))
    world.stage.advance(1800)
    world.step(step)
    world.stage.advance(60)
    world.restart(after=5)
    world.stage.advance(3 * 3600)
    assert world.starts["a"] == [0, 3600, 7200, 10800]


@pytest.mark.parametrize(
    "kind", [Growing(Backoff(base=seconds(10), multiplier=1.0)), Every(seconds(10))], ids=["backoff", "every"]
)
def test_a_clock_three_hours_ahead_at_the_start_delays_nothing(kind: Any) -> None:
    world = World(job("a", kind), wall=EPOCH + timedelta(hours=3))
    world.stage.advance(5)
    world.set(EPOCH + seconds(5))
    world.stage.advance(1)
    world.restart(after=1)
    world.stage.advance(60)
    assert 5 <= len(world.starts["a"]) <= 8


def test_times_of_a_board_without_a_clock_become_right() -> None:
    world = World(job("a", Every(seconds(60))), wall=datetime(1972, 1, 1, tzinfo=UTC))
    world.stage.advance(90)
    world.set(EPOCH)
    world.stage.advance(3600)
    world.restart()
    world.stage.advance(60)
    new = [row for row in world.stage.rows("a") if row.nominal >= EPOCH]
    assert len(new) >= 60
    assert world.starts["a"] == [60.0 * number for number in range(len(world.starts["a"]))]
    assert [later.nominal - earlier.nominal for earlier, later in pairwise(new)] == [seconds(60)] * (len(new) - 1)
    progress = world.stage.engine.jobs["a"].progress
    assert progress.first_start is not None
    assert progress.first_start.year == 2025
    assert world.stage.engine.jobs["a"].next is not None
    assert world.stage.engine.jobs["a"].next.nominal > EPOCH


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("again", [False, True])
def test_stop_for_counts_a_distance(step: float, again: bool) -> None:
    world = World(job("a", Every(seconds(60)), stop=Stop(for_=timedelta(hours=1))))
    world.stage.advance(600)
    world.step(step)
    world.stage.advance(600)
    if again:
        world.restart()
    world.stage.advance(2399)
    assert world.stage.engine.jobs["a"].progress.done is None
    world.stage.advance(2)
    done = world.stage.engine.jobs["a"].progress.done
    assert done is not None
    assert done.code == "time_passed"


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("again", [False, True])
def test_a_pause_for_a_length_is_a_distance(step: float, again: bool) -> None:
    world = World(job("a", Every(seconds(60))))
    world.stage.advance(30)
    world.stage.tell(JobCommand("pause", "a", length=timedelta(hours=1)))
    world.stage.advance(10)
    world.step(step)
    world.stage.advance(600)
    if again:
        world.restart()
    world.stage.advance(3600 - 600 - 20)
    assert world.stage.engine.jobs["a"].paused is not None
    world.stage.advance(20)
    assert world.stage.engine.jobs["a"].paused is None


@pytest.mark.parametrize("step", STEPS)
def test_the_floor_of_restarts_of_a_service_is_a_distance(step: float) -> None:
    world = World(job("s", Always()), lasts=30)
    world.stage.advance(15)
    world.step(step)
    world.stage.advance(60)
    assert len(world.starts["s"]) >= 2
    assert world.starts["s"][1] <= 32


@pytest.mark.parametrize("step", STEPS)
def test_needs_within_a_length_count_a_distance(step: float) -> None:
    jobs = (
        job("a", Every(timedelta(hours=10))),
        job(
            "b",
            Every(seconds(60), immediate=False),
            **_needs({"needs": {"a": Need("a", condition="succeeded", within=seconds(100))}}),
        ),
    )
    world = World(*jobs)
    world.stage.advance(30)
    world.step(step)
    world.stage.advance(70)
    assert world.starts["b"] == [60]
    world.stage.advance(100)
    assert world.starts["b"] == [60], "the run of `a` is too old now"


@pytest.mark.parametrize("step", STEPS)
def test_times_in_one_row_are_of_one_clock(step: float) -> None:
    world = World(job("a", Every(seconds(60))), job("c", Cron("* * * * *")), lasts=30)
    world.stage.advance(75)
    world.step(step)
    world.stage.advance(3600)
    for row in world.stage.rows():
        if row.started is not None:
            assert row.due <= row.started
            assert row.ended is not None
            assert row.ended - row.started == seconds(30)


def test_a_cron_job_behind_a_clock_set_back_is_reported_at_the_start() -> None:
    world = World(job("c", Cron("* * * * *")), wall=EPOCH + timedelta(hours=3))
    world.stage.advance(120)
    world.set(EPOCH)
    world.restart()
    world.stage.advance(1)
    warned = [
        event for event in world.stage.events if isinstance(event, Warned) and event.reason.code == "clock_behind"
    ]
    assert [event.reason.detail["job"] for event in warned] == ["c"]
    assert world.stage.engine.jobs["c"].waits_for_clock(world.stage.clock.now().wall) == EPOCH + timedelta(
        hours=3, minutes=2
    )


def test_a_cron_job_that_has_not_run_yet_does_not_wait_for_the_former_time() -> None:
    world = World(job("c", Cron("* * * * *")), wall=EPOCH + timedelta(hours=3, seconds=30))
    world.stage.advance(5)
    world.set(EPOCH + seconds(35))
    world.stage.advance(120)
    assert world.starts["c"] == [30, 90]


# --- laws ---------------------------------------------------------------------------------------------------

storms = st.lists(
    st.one_of(
        st.tuples(st.just("pass"), st.integers(1, 2000)),
        st.tuples(st.just("step"), st.sampled_from([-400_000, -7200, -420, -70, -3, 3, 70, 420, 7200, 10**8])),
        st.tuples(st.just("sleep"), st.integers(3, 50_000)),
        st.tuples(st.just("restart"), st.integers(0, 3000)),
        st.tuples(st.just("step while down"), st.sampled_from([-7200, -420, 420, 7200])),
    ),
    min_size=1,
    max_size=8,
)
LENGTH, LASTS, GRACE = 420, 20, 10


@given(storms, st.sampled_from(["skip", "latest", "all"]))
def test_intervals_keep_their_laws_whatever_the_wall_clock_does(storm: Any, kind: Any) -> None:
    grid = job("grid", Every(seconds(LENGTH)), catch_up=CatchUp(kind))
    end = job("end", Every(seconds(LENGTH), after_end=True), catch_up=CatchUp(kind))
    world = World(grid, end, lasts=LASTS)
    down: list[tuple[float, float]] = []
    for name, length in storm:
        match name:
            case "pass":
                world.stage.advance(length)
            case "step":
                world.step(length)
                world.stage.advance(1)
            case "sleep":
                world.stage.clock.suspend(seconds(length))
                world.stage.advance(1)
            case "restart":
                world.stage.advance(LASTS + 1)
                down.append((world.mono, world.mono + length))
                world.restart(after=length)
            case _:
                world.stage.advance(LASTS + 1)
                down.append((world.mono, world.mono))
                world.stage.supervisor.close()  # so that it does not notice
                world.step(length)
                world.restart()
    world.stage.advance(2 * LENGTH)

    def away(low: float, high: float) -> float:
        return sum(max(0.0, min(high, until) - max(low, since)) for since, until in down)

    assert len(world.nominals) == len(set(world.nominals)), "a slot ran twice"
    starts = world.starts["grid"]
    for start in starts:
        late = start % LENGTH
        assert late <= GRACE or any(since <= start - late <= until for since, until in down), "it left the grid"
    for earlier, later in pairwise(starts):
        assert later - earlier <= LENGTH + GRACE + away(earlier, later) + (LENGTH if away(earlier, later) else 0)
    for ended, later in zip(world.ends["end"], world.starts["end"][1:], strict=False):
        assert later - ended >= LENGTH, "it began too early"
        assert later - ended <= LENGTH + GRACE + away(ended, later) + (LENGTH if away(ended, later) else 0)
    for row in world.stage.rows():
        _check_row(row)


def _check_row(row: SlotRecord) -> None:
    assert row.nominal <= row.due
    if row.state == "succeeded":
        assert row.started is not None
        assert row.ended is not None
        assert row.due <= row.started
        assert row.ended - row.started == seconds(LASTS)
