"""Output plugins: what reaches them, in which order, and what a slow or broken one costs: nothing but its own part."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from repeater._lazy_dataclasses import replace
from repeater.model.events import SlotDecided
from repeater.model.plugins import Description
from repeater.model.reasons import SUCCESS, Reason
from repeater.model.reasons import reason as because
from repeater.model.run import SlotRecord, SlotState
from repeater.model.spec import JobFile, JobSpec, Output, Plugin, ProcessSpec
from repeater.plugins import output_feeds as feeds_module
from repeater.plugins.output_feeds import OutputFeeds
from repeater.plugins.pool import PluginPool
from tests.fakes.sink import FakeSink
from tests.fakes.text import text_of
from tests.unit.plugins.bad import MODULE

NOW = datetime(2030, 1, 1, tzinfo=UTC)
ALL = frozenset({"begin", "chunk", "record", "close"})


class Behind(FakeSink):
    def begin(self, run: str, spec: JobSpec, kind: str = "run") -> None:
        pass


class World:
    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.jobs: dict[str, JobSpec] = {}
        self.residents = PluginPool()
        self.behind = Behind()
        self.feeds = OutputFeeds(
            self.behind,
            self.residents,
            spec_of=self.jobs.get,
            warn=lambda _, message: self.warnings.append(str(text_of(message))),
            call_soon=lambda call: call(),
        )

    def job(self, name: str, *plugins: Plugin) -> JobSpec:
        self.jobs[name] = JobSpec(name, ProcessSpec("x"), output=Output(plugins=plugins))
        return self.jobs[name]

    def know(self, name: str, target: str, answers: frozenset[str] = ALL) -> None:
        self.residents.prepare([Description("output", name, "1", "x", f"bad_plugins:{target}", answers=answers)])

    def decided(self, job: str, reason: Reason = SUCCESS) -> None:
        state: SlotState = "succeeded" if reason == SUCCESS else "failed"
        self.feeds(SlotDecided(SlotRecord(job, NOW, NOW, NOW, NOW, state, reason, "1", 1, 0)))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    (tmp_path / "bad_plugins.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    world = World()
    yield world
    world.feeds.close()
    world.residents.close()


def until(holds: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_plugin_gets_everything_of_its_jobs_in_order_and_nothing_else(world: World, tmp_path: Path) -> None:
    world.know("all", "Collects")
    told = tmp_path / "told"
    spec, other = world.job("a", Plugin.of("all", {"file": str(told)})), world.job("b")
    world.feeds.begin("1", spec)
    world.feeds.begin("2", other)
    world.feeds.begin("hook:on_success:1:a", spec, "hook")
    for stream, data in (("stdout", b"\xff\x00 one"), ("stderr", "ü\n".encode())):
        assert world.feeds.write("1", stream, data)
        assert world.feeds.write("2", stream, b"not for it")
        assert world.feeds.write("hook:on_success:1:a", stream, b"nor this")
    assert world.feeds.finish("1") == frozenset()
    world.decided("a")
    world.decided("b")
    world.decided("a", because("exit", exit=1))
    world.feeds.close()
    assert told.read_text().splitlines() == [
        "begin a 1",
        r"chunk 1 stdout b'\xff\x00 one'",
        r"chunk 1 stderr b'\xc3\xbc\n'",
        "record a success",
        "record a failed",
        "close",
    ]
    assert world.behind.written["1"]["stdout"] == b"\xff\x00 one"
    assert world.warnings == []


def test_a_plugin_that_wants_only_rows_gets_no_output(world: World) -> None:
    world.know("rows", "OnlyRecords", frozenset({"record"}))
    spec = world.job("a", Plugin("rows"))
    world.feeds.begin("1", spec)
    world.feeds.write("1", "stdout", b"x" * 100)
    assert not [thread for thread in threading.enumerate() if thread.name == "rpr-feed"]
    world.decided("a")
    assert [thread for thread in threading.enumerate() if thread.name == "rpr-feed"]


def test_a_feed_that_fails_is_named_with_the_lost_amount_and_continues(world: World, tmp_path: Path) -> None:
    world.know("all", "Collects")
    told = tmp_path / "told"
    world.job("a", Plugin.of("all", {"file": str(told), "fail": "chunk"}))
    world.feeds.begin("1", world.jobs["a"])
    until(told.exists)
    world.feeds.write("1", "stdout", b"x")
    until(lambda: bool(world.warnings))
    world.decided("a")
    until(lambda: "record a success" in told.read_text())
    (warning,) = world.warnings
    assert warning.startswith("cannot use output plugin `all`: OSError: disk on fire (bad_plugins.py:")
    assert warning.endswith("; an item was lost")


def test_a_full_queue_drops_and_counts_output_and_the_job_never_waits(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds_module, "FULL", 10_000)
    world.know("all", "Collects")
    told = tmp_path / "told"
    world.job("a", Plugin.of("all", {"file": str(told), "slow": 0.3}))
    began = time.monotonic()
    world.feeds.begin("1", world.jobs["a"])
    for _ in range(1000):
        assert world.feeds.write("1", "stdout", b"x" * 100)
    assert time.monotonic() - began < 5
    assert len(world.behind.written["1"]["stdout"]) == 100_000
    (feed,) = world.feeds._feeds.values()
    assert feed._waiting < 10_000 + 400
    until(lambda: bool(world.warnings), 60)
    assert world.warnings[0].startswith("output plugin `all` is too slow: ")


def test_a_feed_that_no_job_uses_any_more_gives_what_it_has_and_ends(world: World, tmp_path: Path) -> None:
    world.know("all", "Collects")
    one, two = (Plugin.of("all", {"file": str(tmp_path / name)}) for name in ("one", "two"))
    spec = world.job("a", one)
    world.decided("a")
    world.feeds.accepted(JobFile("p", (spec,)))
    assert world.feeds.names == {"all"}
    spec = world.job("a", two)
    world.feeds.accepted(JobFile("p", (spec,)))
    until(lambda: (tmp_path / "one").exists() and (tmp_path / "one").read_text() == "record a success\nclose\n")
    world.decided("a")
    until((tmp_path / "two").exists)
    world.feeds.accepted(JobFile("p", (replace(spec, output=Output()),)))
    world.residents.retain_only(JobFile("p", ()), world.feeds.names)
    until(lambda: "close" in (tmp_path / "two").read_text())


def test_an_output_that_is_not_loaded_is_ignored(world: World) -> None:
    spec = world.job("a", Plugin("gone"))
    world.feeds.begin("1", spec)
    world.feeds.write("1", "stdout", b"x")
    world.decided("a")
    assert world.behind.written["1"]["stdout"] == b"x"
