"""What every spawner must do: the same tests on real processes and on those that follow a script."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from repeater._lazy_dataclasses import dataclass, replace
from repeater.engine.facts import Fact, RunEnded, RunExited, RunStarted, SpawnFailed
from repeater.model.reasons import reason as because
from repeater.model.run import Exit, Usage
from repeater.ports import EmitFact, LaunchRequest, RunSink, Spawner
from repeater.processes.local_spawner import LocalSpawner
from repeater.processes.shim_spawner import ShimSpawner
from repeater.system.loops.minimal import MinimalLoop
from tests.fakes.clock import FakeClock
from tests.fakes.own_runs import OwnRuns
from tests.fakes.sink import FakeSink
from tests.fakes.spawn import FOR_EVER, Act, FakeSpawner, Said, seconds

LONG = "sleep 60"


@dataclass(frozen=True)
class Sample:
    """The same behaviour twice: as a shell script and as a script for the fake."""

    shell: str
    act: Act


TRUE = Sample("exit 0", Act())
SLEEPS = Sample(f"exec {LONG}", Act(lasts=FOR_EVER))
SPEAKS = Sample("echo out; echo err >&2", Act(says=(Said(b"out\n"), Said(b"err\n", "stderr"))))
DEAF = Sample(
    "trap '' TERM; echo ready; while :; do sleep 0.05; done",
    Act(lasts=FOR_EVER, ignores=frozenset({"TERM"}), says=(Said(b"ready\n"),)),
)
LEAVES_A_CHILD = Sample(f"{LONG} & exit 3", Act(exit=Exit(code=3), leaves=FOR_EVER))
LEAVES_A_QUIET_CHILD = Sample(f"{LONG} >/dev/null 2>&1 & exit 3", Act(exit=Exit(code=3), leaves=FOR_EVER, quiet=True))
LEAVES_A_CHILD_FOR_A_MOMENT = Sample("sleep 0.3 & exit 0", Act(leaves=seconds(0.3)))
CHILD_ESCAPES = Sample(f"setsid {LONG} & sleep 0.1; exit 0", Act(lasts=seconds(0.1), leaves=FOR_EVER, escaped=True))
COUNTS = Sample("x=0; while [ $x -lt 20000 ]; do x=$((x+1)); done", Act(lasts=seconds(0.1)))
SPEAKS_TWICE = Sample(
    "echo one; sleep 0.1; echo two", Act(lasts=seconds(0.1), says=(Said(b"one\n"), Said(b"two\n", at=seconds(0.1))))
)


class World:
    """A spawner, what it told, and a way to let things happen."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []
        self.sink = FakeSink()
        self.spawner: Spawner

    def _own(self, make: Callable[[EmitFact, RunSink], Spawner]) -> Spawner:
        return OwnRuns(make, self.facts.append, self.sink)

    def begin(self, run: str, sample: Sample) -> None:
        raise NotImplementedError

    def until(self, condition: Callable[[], bool]) -> None:
        raise NotImplementedError

    def go_on(self, length: float) -> None:
        raise NotImplementedError

    def of(self, run: str) -> list[Fact]:
        """Without what a run needed, which a clock measures."""
        found = [fact for fact in self.facts if getattr(fact, "run", None) == run]
        return [replace(fact, usage=Usage()) if isinstance(fact, RunEnded) else fact for fact in found]

    def kinds(self, run: str) -> list[str]:
        return [type(fact).__name__ for fact in self.of(run)]

    def until_told(self, run: str, kind: type) -> None:
        self.until(lambda: any(isinstance(fact, kind) for fact in self.of(run)))

    def until_said(self, run: str, text: bytes) -> None:
        self.until(lambda: text in self.sink.written[run]["stdout"])


class RealWorld(World):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.spawner = self._own(lambda tell, sink: LocalSpawner(tell, sink, self.loop))

    def begin(self, run: str, sample: Sample) -> None:
        env = {"PATH": os.environ["PATH"], "RPR_RUN_ID": run, "RPR_JOB": run}
        self.spawner.start(LaunchRequest(run, ("/bin/sh", "-c", sample.shell), "/", env))

    def until(self, condition: Callable[[], bool]) -> None:
        async def wait() -> None:
            async with asyncio.timeout(10):
                while not condition():  # noqa: ASYNC110 - there is no event to wait for
                    await asyncio.sleep(0.002)

        self.loop.run_until_complete(wait())

    def go_on(self, length: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(length))

    def close(self) -> None:
        self.spawner.close()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()


class KeeperWorld(RealWorld):
    def __init__(self) -> None:
        World.__init__(self)
        self.loop = asyncio.new_event_loop()
        self.spawner = self._own(lambda tell, sink: ShimSpawner(tell, sink, self.loop))


class SmallWorld(World):
    """As one-off commands have it: processes are started in the loop, which is a small one."""

    threads = 0

    def __init__(self) -> None:
        super().__init__()
        self.loop = MinimalLoop()
        self.spawner = self._own(
            lambda tell, sink: LocalSpawner(tell, sink, self.loop, threads=self.threads, remembers=True)
        )

    begin = RealWorld.begin

    def until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < end
            self.go_on(0.002)

    def go_on(self, length: float) -> None:
        self.loop.call_later(length, self.loop.stop)
        self.loop.run()

    def close(self) -> None:
        self.spawner.close()
        self.loop.close()


class ManyWorld(SmallWorld):
    """As one-off commands have it that run several at once."""

    threads = 3


class FakeWorld(World):
    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.acts: dict[str, Act] = {}
        self.spawner = FakeSpawner(self.clock, self.facts.append, self.sink, lambda launch: self.acts[launch.run])

    def begin(self, run: str, sample: Sample) -> None:
        self.acts[run] = sample.act
        self.spawner.start(LaunchRequest(run, ("/bin/sh", "-c", sample.shell), "/", {"RPR_JOB": run}))

    def until(self, condition: Callable[[], bool]) -> None:
        self.clock.run_until(condition, within=timedelta(seconds=10))

    def go_on(self, length: float) -> None:
        self.clock.advance(timedelta(seconds=length))

    def close(self) -> None:
        self.spawner.close()


WORLDS = (RealWorld, KeeperWorld, SmallWorld, ManyWorld, FakeWorld)


@pytest.fixture(params=WORLDS, ids=lambda world: world.__name__.removesuffix("World").lower())
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    made = request.param()
    yield made
    made.close()


def test_a_run_that_ends_by_itself_is_started_and_ended(world: World) -> None:
    world.begin("a", TRUE)
    world.until_told("a", RunEnded)
    assert world.kinds("a") == ["RunStarted", "RunEnded"]
    assert world.of("a")[-1] == RunEnded("a", Exit(code=0))


def test_a_run_ends_with_what_it_needed(world: World) -> None:
    world.begin("a", COUNTS)
    world.until_told("a", RunEnded)
    (ended,) = [fact for fact in world.facts if isinstance(fact, RunEnded)]
    if not isinstance(world, FakeWorld):
        assert (ended.usage.memory or 0) > 100_000
        assert (ended.usage.cpu or 0) > 1000


def test_starting_reports_nothing_before_the_caller_returned(world: World) -> None:
    world.begin("a", TRUE)
    assert world.facts == []
    world.until_told("a", RunEnded)


def test_pids_differ(world: World) -> None:
    world.begin("a", SLEEPS)
    world.begin("b", SLEEPS)
    world.until(lambda: len(world.facts) == 2)
    first, second = (fact.pid for fact in world.facts if isinstance(fact, RunStarted))
    assert first != second


def test_many_runs_begun_at_once_all_begin_and_end_each_as_itself(world: World) -> None:
    count = 48
    for number in range(count):
        world.begin(f"r{number}", (TRUE, SLEEPS, SPEAKS)[number % 3])
        if number % 3 == 1:
            world.spawner.signal(f"r{number}", "KILL") if number % 2 else world.spawner.kill_tree(f"r{number}")
    world.until(lambda: sum(isinstance(fact, RunEnded) for fact in world.facts) == count)
    for number in range(count):
        exit_ = Exit(signal=signal.SIGKILL) if number % 3 == 1 else Exit(code=0)
        assert world.kinds(f"r{number}")[0] == "RunStarted"
        assert world.of(f"r{number}")[-1] == RunEnded(f"r{number}", exit_)
        if number % 3 == 2:
            assert world.sink.written[f"r{number}"] == {"stdout": b"out\n", "stderr": b"err\n"}


def test_output_of_both_streams_arrives_whole_and_before_the_end(world: World) -> None:
    world.begin("a", SPEAKS)
    world.until_told("a", RunEnded)
    assert world.sink.written["a"] == {"stdout": b"out\n", "stderr": b"err\n"}
    assert world.sink.ended == ["a"]


def test_patterns_found_by_the_sink_are_reported_with_the_end(world: World) -> None:
    world.sink.found["a"] = frozenset({"stop"})
    world.begin("a", TRUE)
    world.until_told("a", RunEnded)
    assert world.of("a")[-1] == RunEnded("a", Exit(code=0), frozenset({"stop"}))


def test_a_signal_ends_a_run_and_is_what_it_ended_by(world: World) -> None:
    world.begin("a", SLEEPS)
    world.until_told("a", RunStarted)
    world.spawner.signal("a", "TERM")
    world.until_told("a", RunEnded)
    assert world.of("a")[-1] == RunEnded("a", Exit(signal=signal.SIGTERM))


def test_a_signal_before_the_process_exists_reaches_it(world: World) -> None:
    world.begin("a", SLEEPS)
    world.spawner.signal("a", "KILL")
    world.until_told("a", RunEnded)
    assert world.kinds("a")[0] == "RunStarted"
    assert world.of("a")[-1] == RunEnded("a", Exit(signal=signal.SIGKILL))


def test_a_sweep_before_the_process_exists_ends_it(world: World) -> None:
    world.begin("a", SLEEPS)
    world.spawner.kill_tree("a")
    world.until_told("a", RunEnded)
    assert world.of("a")[-1] == RunEnded("a", Exit(signal=signal.SIGKILL))


def test_a_process_that_ignores_term_runs_until_it_is_killed(world: World) -> None:
    world.begin("a", DEAF)
    world.until_said("a", b"ready")
    world.spawner.signal("a", "TERM")
    world.go_on(0.2)
    assert world.kinds("a") == ["RunStarted"]
    world.spawner.signal("a", "KILL")
    world.until_told("a", RunEnded)
    assert world.of("a")[-1] == RunEnded("a", Exit(signal=signal.SIGKILL))


def test_a_signal_to_an_ended_or_unknown_run_is_ignored(world: World) -> None:
    world.begin("a", TRUE)
    world.until_told("a", RunEnded)
    for run in ("a", "nobody"):
        world.spawner.signal(run, "TERM")
        world.spawner.kill_tree(run)
        world.spawner.resume_reading(run)
    world.go_on(0.05)
    assert world.kinds("a") == ["RunStarted", "RunEnded"]


def test_a_child_that_holds_the_output_keeps_the_run_open_until_swept(world: World) -> None:
    world.begin("a", LEAVES_A_CHILD)
    world.until_told("a", RunExited)
    assert world.of("a")[-1] == RunExited("a", Exit(code=3))
    world.go_on(0.1)
    assert world.kinds("a") == ["RunStarted", "RunExited"]
    world.spawner.kill_tree("a")
    world.until_told("a", RunEnded)
    assert world.of("a")[-1] == RunEnded("a", Exit(code=3))


def test_a_child_that_closed_the_output_keeps_the_run_open_too(world: World) -> None:
    world.begin("a", LEAVES_A_QUIET_CHILD)
    world.until_told("a", RunExited)
    world.go_on(0.1)
    assert world.kinds("a") == ["RunStarted", "RunExited"]
    world.spawner.signal("a", "TERM")
    world.until_told("a", RunEnded)
    assert world.of("a")[-1] == RunEnded("a", Exit(code=3))


def test_a_run_ends_when_its_last_child_does(world: World) -> None:
    world.begin("a", LEAVES_A_CHILD_FOR_A_MOMENT)
    world.until_told("a", RunEnded)
    assert world.kinds("a") == ["RunStarted", "RunExited", "RunEnded"]


def test_a_child_that_left_the_session_is_found_by_a_sweep_only(world: World) -> None:
    world.begin("a", CHILD_ESCAPES)
    world.until_told("a", RunExited)
    world.spawner.signal("a", "TERM")
    world.go_on(0.2)
    assert world.kinds("a") == ["RunStarted", "RunExited"]
    world.spawner.kill_tree("a")
    world.until_told("a", RunEnded)


def test_two_sweeps_are_one(world: World) -> None:
    world.begin("a", LEAVES_A_CHILD)
    world.until_told("a", RunExited)
    world.spawner.kill_tree("a")
    world.spawner.kill_tree("a")
    world.until_told("a", RunEnded)
    world.go_on(0.05)
    assert world.kinds("a").count("RunEnded") == 1


def test_a_paused_run_is_not_read_and_its_exit_follows_its_output(world: World) -> None:
    world.sink.full.add("a")
    world.begin("a", SPEAKS_TWICE)
    world.until_told("a", RunExited)
    assert world.sink.written["a"]["stdout"] == b"one\n"
    world.sink.full.clear()
    world.spawner.resume_reading("a")
    world.until_told("a", RunEnded)
    assert world.sink.written["a"]["stdout"] == b"one\ntwo\n"


def test_a_swept_run_hands_over_its_output_from_the_pause(world: World) -> None:
    world.sink.full.add("a")
    world.begin("a", SPEAKS_TWICE)
    world.until_told("a", RunExited)
    world.spawner.kill_tree("a")
    world.until_told("a", RunEnded)
    assert world.sink.written["a"]["stdout"] == b"one\ntwo\n"


def test_a_run_that_cannot_be_started_is_reported_and_releases_the_sink(world: World) -> None:
    if isinstance(world, FakeWorld):
        world.begin("a", Sample("", Act(refusal="it is not there")))
        reason = because("text", text="it is not there")
        refused = SpawnFailed("a", reason, temporary=False)
    else:
        world.spawner.start(LaunchRequest("a", ("/no/such/command",), "/", {}))
        reason = because("program_missing", program="/no/such/command")
        refused = SpawnFailed("a", reason, temporary=False, exit_code=127)
    world.until_told("a", SpawnFailed)
    assert world.of("a") == [refused]
    assert world.sink.ended == ["a"]


def test_after_close_no_process_runs_and_nothing_is_reported(world: World) -> None:
    world.begin("a", SLEEPS)
    world.until_told("a", RunStarted)
    world.begin("b", SLEEPS)
    world.spawner.close()
    world.go_on(0.05)
    assert world.kinds("a") == ["RunStarted"]
    assert world.kinds("b") == []
    if isinstance(world, RealWorld):
        started = world.of("a")[0]
        assert isinstance(started, RunStarted)
        with pytest.raises(ProcessLookupError):
            os.killpg(started.pid, 0)
