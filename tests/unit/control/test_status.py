"""What `status` says of a supervisor and its jobs, on virtual clocks."""

from __future__ import annotations

import asyncio
import errno
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from repeater._lazy_dataclasses import replace
from repeater.cli.status import _headline
from repeater.control.commands.status import status
from repeater.control.commands.why import now as explain
from repeater.control.commands.why import why
from repeater.model.run import Exit, SlotRecord
from repeater.model.spec import Always, Backoff, Every, Jitter, Manual, Slowdown
from repeater.model.time import span, to_epoch_us
from tests.engine.stage import job
from tests.fakes.spawn import Act, seconds
from tests.unit.control.test_server import Bench

STEPS = (timedelta(0), timedelta(hours=3), timedelta(hours=-3), timedelta(days=20_000), timedelta(seconds=1))


def asked(bench: Bench) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    items: list[dict[str, Any]] = []

    async def send(*found: dict[str, Any]) -> None:
        items.extend(found)

    return items, dict(asyncio.run(status(bench.desk, {"jobs": []}, send)))


@pytest.fixture
def bench(tmp_path: Path) -> Any:
    async def build() -> Bench:
        return Bench(tmp_path)

    built = asyncio.run(build())
    built.stage.script = {"web": Act(lasts=timedelta(days=99_999))}
    built.stage.spawner.script = built.stage.script
    built.stage.apply(job("web", Always()))
    built.stage.clock.settle()
    built.desk.life = replace(built.desk.life, began=built.stage.clock.now())
    yield built
    built.server.hang_up()
    built.door.close()


@pytest.mark.parametrize("step", STEPS)
def test_uptime_does_not_change_when_the_clock_is_set(bench: Bench, step: timedelta) -> None:
    clock = bench.stage.clock
    clock.advance(seconds(70))
    began = clock.now().wall - seconds(70) + step
    clock.set_wall(clock.now().wall + step)
    clock.advance(seconds(5))
    (item,), about = asked(bench)
    assert about["uptime"] == 75.0
    assert "up for 1m" in _headline({**about, "jobs": 1}, began)[0]
    assert abs(float((_instant(about["since"]) - began).total_seconds())) <= 1
    assert item["running"][0]["seconds"] == 75.0
    facts = explain(bench.desk, bench.desk.engine.jobs["web"]).facts
    (fact,) = [fact for fact in facts if fact.code == "run_goes_on"]
    assert abs(fact.detail["since"] - to_epoch_us(began)) <= 1_000_000
    assert fact.detail["lasts"] == 75_000_000


@pytest.mark.parametrize("jitter", [None, Jitter(span=timedelta(milliseconds=1))])
def test_why_does_not_blame_jitter_for_a_slowdown(bench: Bench, jitter: Jitter | None) -> None:
    stage = bench.stage
    stage.script["flaky"] = Act(exit=Exit(code=3), lasts=seconds(1))
    every = Every(seconds(2), after_end=True, jitter=jitter)
    slow = Slowdown(Backoff("fixed", base=timedelta(hours=1)))
    stage.apply(job("web", Always()), job("flaky", every, slowdown=slow))
    stage.clock.advance(seconds(10))
    flaky = bench.desk.engine.jobs["flaky"]
    assert flaky.next is not None
    assert flaky.next.due > flaky.next.nominal + seconds(50)
    codes = [fact.code for fact in explain(bench.desk, flaky).facts]
    assert "slowed_down" in codes
    assert "start_put_off" not in codes


@pytest.mark.parametrize(
    ("length", "text"),
    [(-5, "0s"), (0.9, "0s"), (59.9, "59s"), (60, "1m"), (3600, "1h"), (7500, "2h 05m"), (90_000, "1d")],
)
def test_a_span_is_rounded_down_to_one_or_two_units(length: float, text: str) -> None:
    assert span(length) == text


def _instant(text: str) -> Any:
    from repeater.model.time import from_rfc3339

    return from_rfc3339(text)


def test_status_of_many_jobs_is_sent_in_small_pieces(bench: Bench) -> None:
    bench.stage.apply(*(job(f"j{n}", Always()) for n in range(100)))
    pieces: list[int] = []

    async def send(*found: dict[str, Any]) -> None:
        pieces.append(len(found))

    asyncio.run(status(bench.desk, {"jobs": []}, send))
    assert sum(pieces) == len(bench.desk.engine.jobs) >= 100
    assert max(pieces) <= 10


def again(bench: Bench) -> None:
    """The next supervisor on the same state, with the context of the bench."""
    bench.stage.stop("kill")
    bench.stage.clock.settle()
    bench.stage = bench.stage.again()
    bench.desk.engine, bench.desk.clock = bench.stage.engine, bench.stage.clock
    bench.desk.rows = lambda jobs=None, most=100, **filters: list(bench.stage.store.find_records(jobs, most, **filters))
    bench.desk.earlier.clear()


def test_a_status_without_a_readable_history_has_all_jobs(bench: Bench) -> None:
    asked: list[Any] = []

    def refuse(*args: Any, **_: Any) -> list[SlotRecord]:
        asked.append(args)
        raise OSError(errno.EMFILE, "Too many open files")

    bench.stage.apply(job("a", Every(seconds(1))))
    bench.stage.advance(2)
    again(bench)
    bench.stage.apply(job("a", Manual()))
    bench.desk.rows = refuse
    found: list[dict[str, Any]] = []

    async def send(*items: dict[str, Any]) -> None:
        found.extend(items)

    asyncio.run(status(bench.desk, {"jobs": []}, send))
    assert asked, "the history was read"
    assert "a" in [item["job"] for item in found]


def test_a_job_without_a_run_in_the_history_is_looked_up_once(bench: Bench) -> None:
    asked: list[Any] = []

    def nothing(names: list[str], *_: Any, **__: Any) -> list[SlotRecord]:
        asked.extend(names)
        return []

    bench.stage.apply(job("a", Every(seconds(1))))
    bench.stage.advance(2)
    again(bench)
    bench.stage.apply(job("a", Manual()))
    bench.desk.rows = nothing

    async def send(*_: dict[str, Any]) -> None:
        return None

    for _ in range(3):
        asyncio.run(status(bench.desk, {"jobs": []}, send))
    assert asked.count("a") == 1


def test_after_a_restart_the_last_run_has_outcome_reason_and_exit_code(tmp_path: Path) -> None:
    async def build() -> Bench:
        return Bench(tmp_path)

    bench = asyncio.run(build())
    try:
        bench.stage.script = {"a": [Act(exit=Exit(code=3)), Act(exit=Exit(code=4))]}
        bench.stage.spawner.script = bench.stage.script
        bench.stage.apply(job("a", Every(seconds(3600))), job("b", Manual()))
        bench.stage.clock.settle()
        bench.stage.advance(3601)
        bench.stage.advance(1)
        (before, _), _ = asked(bench)
        again(bench)
        bench.stage.apply(job("a", Every(seconds(3600))), job("b", Manual()))
        bench.stage.clock.settle()
        (item, never), _ = asked(bench)
        assert (item["last"], item["last"]["exit"], item["last"]["outcome"]) == (before["last"], 4, "failed")
        assert item["last"]["reason_code"] == "exit"
        assert never["last"] is None

        async def send(*_: Any) -> None: ...

        told = asyncio.run(why(bench.desk, {"job": "a", "at": ""}, send))
        assert [slot["exit"] for slot in told["slots"]] == [4, 3]
        (fact,) = [fact for fact in told["fact_reasons"] if fact["reason_code"] == "last_run_ended"]
        assert fact["detail"]["outcome"] == "failed"
        assert fact["detail"]["cause"] is not None
    finally:
        bench.server.hang_up()
        bench.door.close()
