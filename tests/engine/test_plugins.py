"""Plugins in virtual time: what the engine makes of their answers, and of answers that do not come."""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import pytest

from repeater.engine.simulate import simulate
from repeater.errors import PluginBusy, PluginFailed
from repeater.model.events import Warned
from repeater.model.run import Exit
from repeater.model.spec import Every, JobFile, Manual, Plugin, ProcessSpec, Stop
from repeater.schedule.base import Track
from repeater.schedule.factory import schedule_for
from repeater.schedule.forecast import starts
from tests.engine.stage import Stage, job
from tests.fakes.clock import EPOCH, FakeClock
from tests.fakes.plugins import FakePlugins
from tests.fakes.spawn import Act, seconds
from tests.fakes.text import text_of


def grid(keys: dict[str, Any], track: dict[str, Any]) -> str | None:
    """Whole multiples of `seconds` since the epoch of the tests, up to `last`."""
    step = keys.get("seconds", 10)
    begin = datetime.fromisoformat(track["last_end"] or track["anchor"]) if keys.get("waits") else EPOCH
    after = datetime.fromisoformat(track["after"] or track["anchor"])
    number = int((after - begin) / timedelta(seconds=step)) + 1
    at = begin + timedelta(seconds=step) * number
    return None if (at - EPOCH).total_seconds() > keys.get("last", 1e9) else at.isoformat()


def use(**keys: Any) -> Plugin:
    return Plugin.of("grid", keys)


def warnings(stage: Stage) -> list[str]:
    return [f"{event.job}: {text_of(event.reason)}" for event in stage.events if isinstance(event, Warned)]


def test_a_job_starts_at_the_times_of_its_plugin() -> None:
    stage = Stage(plugins=FakePlugins({"grid": grid}))
    stage.apply(job("a", use(seconds=7)))
    stage.advance(30)
    assert stage.starts("a") == [7, 14, 21, 28]


def test_a_plugin_without_a_further_start_ends_the_job_and_the_supervisor() -> None:
    stage = Stage(plugins=FakePlugins({"grid": grid}), keep_alive=False)
    stage.apply(job("a", use(last=20)))
    stage.advance(60)
    assert stage.starts("a") == [10, 20]
    assert stage.left == [0]


def test_a_schedule_that_waits_for_the_end_counts_from_there() -> None:
    stage = Stage({"a": Act(lasts=seconds(3))}, plugins=FakePlugins({"grid": grid}))
    stage.apply(job("a", use(waits=True)))
    stage.advance(45)
    assert stage.starts("a") == [10, 23, 36]


def test_a_plugin_is_asked_at_most_twice_for_each_slot() -> None:
    plugins = FakePlugins({"grid": grid})
    stage = Stage(plugins=plugins)
    stage.apply(job("a", use()), job("b", Every(seconds(1))))
    stage.advance(100)
    assert len(stage.starts("a")) == 10
    assert plugins.asked <= 22


def test_a_failed_schedule_is_named_once_and_retried_while_other_jobs_run() -> None:
    plugins = FakePlugins({"grid": grid})
    plugins.broken["grid"] = "cannot use schedule plugin `grid`: it did not answer"
    stage = Stage(plugins=plugins, keep_alive=False)
    stage.apply(job("a", use(last=200)), job("b", Every(seconds(10)), stop=Stop(times=3)))
    stage.advance(100)
    assert stage.starts("b") == [0, 10, 20]
    assert stage.starts("a") == []
    assert stage.left == [], "it may start again"
    assert warnings(stage) == ["a: cannot use schedule plugin `grid`: it did not answer; retrying"]
    assert 5 < plugins.asked < 12, "less and less often"
    assert stage.engine.jobs["a"].next_slot.fault
    plugins.broken.clear()
    stage.advance(110)
    assert stage.starts("a")[-1] == 200
    assert len(stage.starts("a")) >= 4
    stage.advance(10)
    assert stage.left == [0]


def test_a_schedule_that_fails_after_a_slot_does_not_take_that_slot_away() -> None:
    plugins = FakePlugins({"grid": grid})
    stage = Stage(plugins=plugins)
    stage.apply(job("a", use()))
    stage.advance(5)
    plugins.broken["grid"] = "gone"
    stage.advance(20)
    assert stage.starts("a") == [10]
    plugins.broken.clear()
    stage.advance(60)
    assert stage.rows("a")[-1].nominal == EPOCH + timedelta(seconds=80)


def test_answers_that_make_no_sense_are_failures_of_the_plugin() -> None:
    def answer(text: str) -> FakePlugins:
        return FakePlugins({"grid": lambda *_: text})

    for text, told in (
        ("yesterday", "it answered Invalid isoformat string: 'yesterday'"),
        ("2026-01-01T00:00:00", "it answered `2026-01-01T00:00:00` has no UTC offset"),
        ("1999-01-01T00:00:00Z", "it answered 1999-01-01T00:00:00Z, which is before"),
    ):
        stage = Stage(plugins=answer(text))
        stage.apply(job("a", use()))
        assert [told in words for words in warnings(stage)] == [True], warnings(stage)
    late = (EPOCH + timedelta(seconds=5)).isoformat()
    stage = Stage(plugins=answer(late))
    stage.apply(job("a", use()))
    stage.advance(10)
    assert stage.starts("a") == [5]
    assert ["is not after" in words for words in warnings(stage)] == [True]


def test_a_reload_keeps_the_place_in_a_plugins_schedule() -> None:
    plugins = FakePlugins({"grid": grid})
    stage = Stage(plugins=plugins)
    stage.apply(job("a", use(seconds=10, why={"b": 1, "a": [2]})))
    stage.advance(14)
    asked = plugins.asked
    plan = stage.apply(job("a", Plugin.of("grid", {"why": {"a": [2], "b": 1}, "seconds": 10})), job("b", Manual()))
    assert [entry.reload for entry in plan.jobs] == ["keep", "add"]
    assert plugins.asked == asked
    stage.advance(20)
    assert stage.starts("a") == [10, 20, 30]
    plan = stage.apply(job("a", use(seconds=25)), job("b", Manual()))
    assert [entry.reload for entry in plan.jobs] == ["retime", "keep"]
    stage.advance(30)
    assert stage.starts("a") == [10, 20, 30, 50]


def test_a_restart_continues_at_the_cursor_of_the_schedule() -> None:
    plugins = FakePlugins({"grid": grid})
    stage = Stage(plugins=plugins)
    stage.apply(job("a", use()))
    stage.advance(15)
    after = stage.again(after=30, plugins=plugins)
    after.apply(job("a", use()))
    after.advance(20)
    assert [words.partition("@")[2] for words in after.history("a")] == ["10", "20", "30", "40", "50", "60"]
    assert after.starts("a") == [10, 45, 50, 60]  # what is late by less than ten seconds is not missed


def test_forecast_and_simulation_agree_with_the_live_run() -> None:
    plugins = FakePlugins({"grid": grid})
    spec, begin = job("a", use(seconds=7)), FakeClock().now()
    stage = Stage(plugins=plugins)
    stage.apply(spec)
    stage.advance(70)
    rows = simulate(JobFile("p", (spec,)), begin, timedelta(seconds=71), plugins=plugins)
    coming = [start.due for start in starts(spec, schedule_for(spec, plugins), begin, 10)]
    live = [row.nominal for row in stage.rows("a")]
    assert live == [row.nominal for row in rows] == coming
    assert len(live) == 10


def test_a_simulation_reports_a_plugin_that_fails() -> None:
    plugins = FakePlugins()
    plugins.broken["grid"] = "gone"
    told: list[tuple[str, str]] = []
    file = JobFile("p", (job("a", use()), job("b", Every(seconds(10)))))
    rows = list(
        simulate(
            file,
            FakeClock().now(),
            timedelta(hours=1),
            plugins=plugins,
            warn=lambda name, reason: told.append((name, str(text_of(reason)))),
        )
    )
    assert {row.job for row in rows} == {"b"}
    assert told == [("a", "gone; retrying")]


class Late(FakePlugins):
    """Answers each question only after it was asked `times` times."""

    def __init__(self, answers: dict[str, Any], times: int) -> None:
        super().__init__(answers)
        self._times = times
        self._seen: Counter[str] = Counter()

    def call(self, kind: Any, plugin: Plugin, question: str, *arguments: Any) -> Any:
        key = json.dumps(arguments)
        self._seen[key] += 1
        if self._seen[key] < self._times:
            raise PluginBusy("it has not answered yet")
        return super().call(kind, plugin, question, *arguments)


def test_an_answer_that_takes_a_while_delays_nothing_and_is_not_a_failure() -> None:
    stage = Stage(plugins=Late({"grid": grid}, 20))
    stage.apply(job("a", use(seconds=10)), job("b", Every(seconds(1))))
    stage.advance(0.5)
    assert stage.engine.jobs["a"].next is None
    stage.advance(35)
    assert stage.starts("a") == [10, 20, 30]
    assert stage.starts("b") == list(range(36))
    assert warnings(stage) == []


def test_a_condition_that_takes_a_while_is_asked_again_until_it_answers() -> None:
    stage = Stage({"a": Act(exit=Exit(code=1))}, plugins=Late({"x": failed_twice}, 8))
    stage.apply(job("a", Every(seconds(10)), stop=stopping(Plugin("x"))))
    stage.advance(12)
    assert stage.starts("a") == [0, 10]
    assert text_of(stage.engine.jobs["a"].progress.done) == "`x`: enough of this"
    assert warnings(stage) == []


def test_a_condition_slower_than_the_interval_is_evaluated_again() -> None:
    stage = Stage({"a": Act(exit=Exit(code=1))}, plugins=Late({"x": failed_twice}, 30))
    stage.apply(job("a", Every(seconds(1)), stop=stopping(Plugin("x"))))
    stage.advance(30)
    assert text_of(stage.engine.jobs["a"].progress.done) == "`x`: enough of this"
    assert 2 < len(stage.starts("a")) < 12


# --- stop conditions ----------------------------------------------------------------------------------------------


def failed_twice(keys: dict[str, Any], tally: dict[str, Any]) -> str | None:
    return "enough  of\nthis" if tally["failures"] >= keys.get("most", 2) else None


def stopping(*plugins: Plugin, **keys: Any) -> Stop:
    return Stop(plugins=plugins, **keys)


def test_a_job_is_done_when_its_condition_is_met() -> None:
    stage = Stage({"a": Act(exit=Exit(code=1))}, plugins=FakePlugins({"x": failed_twice}), keep_alive=False)
    stage.apply(job("a", Every(seconds(10)), stop=stopping(Plugin("x"))))
    stage.advance(60)
    assert stage.starts("a") == [0, 10]
    assert text_of(stage.engine.jobs["a"].progress.done) == "`x`: enough of this"
    assert stage.left == [1]


def test_with_all_every_condition_has_to_hold() -> None:
    stage = Stage({"a": Act(exit=Exit(code=1))}, plugins=FakePlugins({"x": failed_twice}))
    stage.apply(job("a", Every(seconds(10)), stop=stopping(Plugin("x"), times=4, all=True)))
    stage.advance(60)
    assert stage.starts("a") == [0, 10, 20, 30]
    assert text_of(stage.engine.jobs["a"].progress.done) == "4 runs, `x`: enough of this"


def test_a_condition_gets_the_counters_and_the_last_row() -> None:
    seen: list[dict[str, Any]] = []

    def look(_: dict[str, Any], tally: dict[str, Any]) -> None:
        seen.append(tally)

    stage = Stage({"a": Act(lasts=seconds(2), exit=Exit(code=3))}, plugins=FakePlugins({"x": look}))
    stage.apply(job("a", Every(seconds(10)), stop=stopping(Plugin("x"))))
    stage.advance(15)
    last = seen[-1]
    assert (last["runs"], last["successes"], last["failures"], last["streak"]) == (2, 0, 2, -2)
    assert last["elapsed_seconds"] == 12
    assert last["last"]["exit"] == 3
    assert json.loads(json.dumps(last)) == last, "plain data"


def test_a_condition_that_cannot_be_asked_does_not_hold_and_is_named_once() -> None:
    plugins = FakePlugins({"x": failed_twice, "y": lambda *_: 7})
    plugins.broken["x"] = "cannot use stop condition plugin `x`: it is broken"
    stage = Stage({"a": Act(exit=Exit(code=1))}, plugins=plugins)
    stage.apply(job("a", Every(seconds(10)), stop=stopping(Plugin("x"), Plugin("y"))))
    stage.advance(45)
    assert stage.starts("a") == [0, 10, 20, 30, 40]
    assert warnings(stage) == [
        "a: cannot use stop condition plugin `x`: it is broken; the job continues",
        "a: cannot use stop condition plugin `y`: it answered 7, expected a reason or nothing; the job continues",
    ]
    plugins.broken.clear()
    stage.advance(10)
    assert stage.engine.jobs["a"].progress.done is not None


# --- executors ----------------------------------------------------------------------------------------------------


def test_a_run_of_an_executor_is_a_process_that_gets_its_task() -> None:
    stage = Stage(plugins=FakePlugins())
    process = ProcessSpec(command=("ship", "it"), cwd="/srv", env=(("TOKEN", "x"),), stdin="hello")
    stage.apply(job("a", Every(seconds(10)), process=process, executor=Plugin.of("boat", {"sails": 3})))
    stage.advance(5)
    (launch,) = stage.spawner.launches
    assert launch.argv == ("python", "run")
    assert (launch.cwd, launch.env["TOKEN"], launch.env["RPR_JOB"]) == ("/srv", "x", "a")
    told = json.loads(launch.stdin)
    assert (told["name"], json.loads(told["keys"])) == ("boat", {"sails": 3})
    assert told["task"] == {
        "job": "a", "run": launch.run, "attempt": 1, "nominal": "2026-01-01T00:00:00Z", "due": "2026-01-01T00:00:00Z",
        "trigger": "schedule", "command": ["ship", "it"], "stdin": "hello",
    }  # fmt: skip


def test_a_run_without_its_executor_is_recorded_with_the_reason() -> None:
    plugins = FakePlugins()
    plugins.broken["boat"] = "cannot use executor plugin `boat`: it is not loaded"
    stage = Stage(plugins=plugins)
    stage.apply(job("a", executor=Plugin("boat")), job("b"))
    stage.advance(5)
    assert [(row.state, text_of(row.reason)) for row in stage.rows("a")] == [
        ("spawn_failed", "cannot use executor plugin `boat`: it is not loaded")
    ]
    assert [text_of(row.reason) for row in stage.rows("b")] == ["success"]


def test_the_failure_of_an_executor_names_it() -> None:
    stage = Stage({"a": Act(exit=Exit(code=125)), "b": Act(exit=Exit(code=125))}, plugins=FakePlugins())
    stage.apply(job("a", executor=Plugin("boat")), job("b"))
    stage.advance(5)
    assert text_of(stage.rows("a")[0].reason) == "executor plugin `boat` failed; its output has the reason"
    assert text_of(stage.rows("b")[0].reason) == "exit 125"


def test_without_plugins_a_use_of_one_fails_by_its_name() -> None:
    with pytest.raises(PluginFailed, match="cannot use schedule plugin `grid`: plugins are not loaded here"):
        schedule_for(job("a", use())).next(Track(anchor=FakeClock().now()))
