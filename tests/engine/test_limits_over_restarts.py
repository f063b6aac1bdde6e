"""No window holds more starts than its limit, whatever ends the supervisor and whatever is edited. Virtual time."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from repeater._lazy_dataclasses import replace
from repeater.model.events import Event, RunBegan
from repeater.model.run import Exit
from repeater.model.spec import Every, JobSpec, Limit, Manual, Overlap, RateLimited, Retry
from repeater.model.time import Mono, to_us
from repeater.model.units import parse_rate
from repeater.ports import LaunchRequest
from repeater.schedule.backoff import Backoff
from tests.engine.stage import Stage, job
from tests.fakes.spawn import Act, seconds

SECOND = 1_000_000
LAG = timedelta(milliseconds=600)
"""From a claim to its start."""
RATES = ("1/3s", "2/5s", "3/20s", "3/1m")
LIMITS = (None, "g", "h")
QUICK = Backoff(base=timedelta(milliseconds=300), max=timedelta(seconds=2))


class Lives:
    """Lives of a supervisor of jobs whose starts are limited. Each start is checked against all earlier ones."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw
        self.rates = {"g": draw(st.sampled_from(RATES)), "h": draw(st.sampled_from(RATES))}
        self.specs: dict[str, JobSpec] = {}
        self.starts: list[tuple[int, str, str | None]] = []
        self.names: dict[str, str] = {}
        self.broken: list[Any] = []
        self.granted: dict[str, tuple[str | None, str | None]] = {}
        self.count = 0
        for limit in ("g", "g", draw(st.sampled_from(LIMITS))):
            self.add(limit)
        self.stage = self.listen(Stage(self.act))
        self.apply()
        self.stage.advance(1)

    def in_force(self, name: str) -> tuple[str | None, str | None]:
        """The limit of a job and its rate."""
        limit = self.specs[name].limit if name in self.specs else None
        return limit, None if limit is None else self.rates[limit]

    def act(self, launch: LaunchRequest) -> Act:
        self.granted[launch.run] = self.in_force(launch.env["RPR_JOB"])
        pick = self.draw(st.integers(0, 5))
        return Act(
            starting=timedelta(milliseconds=[0, 0, 0, 150, 700, 0][pick]),
            lasts=timedelta(milliseconds=[0, 100, 900, 0, 300, 2500][pick]),
            exit=Exit(code=pick % 2),
            refusal="cannot start" if pick == 5 and self.draw(st.booleans()) else None,
        )

    def add(self, limit: str | None) -> None:
        self.count += 1
        name = f"j{self.count}"
        overlap = Overlap(self.draw(st.sampled_from(("skip", "latest", "allow"))))
        schedule: Any = Every(timedelta(milliseconds=self.draw(st.sampled_from((200, 700, 1900)))))
        if self.draw(st.integers(0, 3)) == 0:
            pattern = (seconds(0), seconds(1)) if self.draw(st.booleans()) else ()
            schedule = RateLimited(parse_rate(self.draw(st.sampled_from(("2/4s", "3/20s")))), pattern)
        retry = Retry(attempts=self.draw(st.integers(1, 3)), backoff=QUICK)
        delivery = self.draw(st.sampled_from(("at-most-once", "at-least-once")))
        self.specs[name] = job(name, schedule, limit=limit, overlap=overlap, retry=retry, delivery=delivery)
        self.names[name] = name

    def listen(self, stage: Stage) -> Stage:
        stage.listeners.append(self.heard)
        return stage

    def apply(self) -> None:
        limits = tuple(Limit(name, parse_rate(rate)) for name, rate in self.rates.items())
        self.stage.apply(*self.specs.values(), limits=limits)
        self.specs = {name: replace(spec, moved_from=None) for name, spec in self.specs.items()}

    def heard(self, event: Event) -> None:
        """One start: it must not be one too many for any limit of its job."""
        if not isinstance(event, RunBegan):
            return
        name, now = event.run.slot.job, self.stage.clock.now().mono
        spec = self.specs.get(name)
        if spec is None:  # the job was removed, and its last attempt starts
            return
        self.starts.append((now, self.names[name], spec.limit))
        # an edit cannot hold an attempt that was granted before it and starts after it; that attempt counts for others
        if spec.limit is not None and self.granted[event.run.id] == self.in_force(name):
            limited = {self.names[one.name] for one in self.specs.values() if one.limit == spec.limit}
            self.check(spec.limit, self.rates[spec.limit], lambda who, limit: who in limited or limit == spec.limit)
        if isinstance(spec.schedule, RateLimited):
            own = self.names[name]
            self.check(name, str(spec.schedule.rate), lambda who, _: who == own)

    def check(self, what: str, text: str, counts: Any) -> None:
        rate, now = parse_rate(text), self.starts[-1][0]
        since = now - to_us(rate.window)
        counted = [(at, who, limit) for at, who, limit in self.starts if at > since and counts(who, limit)]
        if len(counted) > rate.count:
            self.broken.append((what, text, counted))  # the supervisor contains exceptions of its observers

    # --- what happens ---

    def step(self) -> None:
        steps = (self.wait, self.wait, self.kill, self.kill, self.leave, self.keep, self.edit, self.set_clock, self.ask)
        self.draw(st.sampled_from(steps))()
        self.stage.advance(self.draw(st.sampled_from((0.1, 1.0, 4.0))))

    def wait(self) -> None:
        self.stage.advance(self.draw(st.sampled_from((0.5, 3.0, 12.0))))

    def kill(self) -> None:
        """Perhaps before it is on record that the last attempts started, perhaps with the clock set meanwhile."""
        if self.draw(st.booleans()):
            store, last = self.stage.store, self.stage.clock.now().mono - SECOND
            for run, start in store.kept_starts.items():
                if start.mono >= last:
                    earlier = {"at": start.at - LAG, "mono": Mono(start.mono - to_us(LAG))}
                    store.kept_starts[run] = replace(start, is_known=False, **earlier)
        after = self.draw(st.sampled_from((0.0, 0.4, 2.0)))
        stage = self.stage.again(after=after)
        self.begin(stage)

    def leave(self) -> None:
        self.stage.stop()
        self.stage.advance(5)
        self.begin(self.stage.again(after=0.1))

    def keep(self) -> None:
        self.begin(self.stage.kept(away=self.draw(st.sampled_from((0.0, 1.5)))))

    def begin(self, stage: Stage) -> None:
        if self.draw(st.booleans()):
            self.set_clock()
        if self.draw(st.booleans()):
            self.change()
        self.stage = self.listen(stage)
        self.apply()

    def edit(self) -> None:
        self.change()
        self.apply()

    def change(self) -> None:
        what = self.draw(st.sampled_from(("rename", "remove", "add", "move", "rate")))
        name = self.draw(st.sampled_from(sorted(self.specs)))
        if what == "rate":
            self.rates[self.draw(st.sampled_from(("g", "h")))] = self.draw(st.sampled_from(RATES))
        elif what == "add" and len(self.specs) < 5:
            self.add(self.draw(st.sampled_from(LIMITS)))
        elif what == "remove" and len(self.specs) > 1:
            del self.specs[name]
        elif what == "rename":
            self.count += 1
            new = f"n{self.count}"
            self.specs[new] = replace(self.specs.pop(name), name=new, group=new, moved_from=(name,))
            self.names[new] = self.names[name]
        elif what == "move":
            self.specs[name] = replace(self.specs[name], limit=self.draw(st.sampled_from(LIMITS)))

    def set_clock(self) -> None:
        clock = self.stage.clock
        clock.set_wall(clock.now().wall + timedelta(seconds=self.draw(st.sampled_from((-7200, -5, 5, 90, 7200)))))

    def ask(self) -> None:
        name = self.draw(st.sampled_from(sorted(self.specs)))
        self.stage.request(self.draw(st.sampled_from(("trigger", "pause", "resume", "restart", "reset"))), name)


@pytest.mark.all
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_no_window_holds_too_many_over_kills_edits_and_clock_steps(data: st.DataObject) -> None:
    lives = Lives(data.draw)
    for _ in range(data.draw(st.integers(2, 8))):
        lives.step()
        assert lives.broken == []
    lives.stage.advance(10)
    assert lives.broken == []


def test_a_reload_counts_an_attempt_that_is_still_starting() -> None:
    stage = Stage({"moved": Act(starting=seconds(15)), "other": Act()})
    moved, other, limit = job("moved", Every(seconds(100))), job("other", Manual()), Limit("h", parse_rate("1/10s"))
    stage.apply(moved, other, limits=(limit,))
    stage.advance(1)
    stage.apply(replace(moved, limit="h"), replace(other, schedule=Every(seconds(1)), limit="h"), limits=(limit,))
    stage.advance(45)
    assert stage.starts("moved") == [15]
    assert stage.starts("other")[:2] == [25, 35]


def test_a_limit_that_returns_counts_an_attempt_that_is_still_starting() -> None:
    stage = Stage({"moved": Act(starting=seconds(15)), "other": Act()})
    moved, other, limit = (
        job("moved", Every(seconds(100)), limit="h"),
        job("other", Manual()),
        Limit("h", parse_rate("1/10s")),
    )
    stage.apply(moved, other, limits=(limit,))
    stage.apply(replace(moved, limit=None), other, limits=(limit,))
    stage.advance(1)
    stage.apply(moved, replace(other, schedule=Every(seconds(1)), limit="h"), limits=(limit,))
    stage.advance(45)
    assert stage.starts("moved") == [15]
    assert stage.starts("other")[:2] == [25, 35]


def test_a_reload_counts_an_attempt_that_is_still_starting_once() -> None:
    stage = Stage({"moved": Act(starting=seconds(15)), "other": Act()})
    moved, other, limit = job("moved", Every(seconds(100))), job("other", Manual()), Limit("h", parse_rate("2/10s"))
    stage.apply(moved, other, limits=(limit,))
    stage.advance(1)
    stage.apply(replace(moved, limit="h"), replace(other, limit="h"), limits=(limit,))
    stage.request("trigger", "other")
    assert stage.starts("other") == [1]


def test_a_start_is_kept_if_the_limit_was_added_meanwhile() -> None:
    stage = Stage({"moved": Act(starting=seconds(2)), "other": Act()})
    moved, other, limit = job("moved", Every(seconds(100))), job("other", Manual()), Limit("h", parse_rate("1/10s"))
    stage.apply(moved, other, limits=(limit,))
    stage.advance(1)
    stage.apply(replace(moved, limit="h"), other, limits=(limit,))
    [kept] = stage.store.kept_starts.values()
    assert (kept.job, kept.limit, kept.is_known) == ("moved", "h", False)
    stage.advance(1)
    [kept] = stage.store.kept_starts.values()
    assert (kept.job, kept.is_known) == ("moved", True)


@pytest.mark.parametrize(("rate", "starts"), [("2/10s", [0, 10]), ("3/10s", [0, 2])])
@pytest.mark.parametrize("starting", [0, 15])
def test_a_limit_in_use_counts_the_attempt_of_a_job_that_joins(rate: str, starts: list[float], starting: int) -> None:
    stage = Stage({"joins": Act(starting=seconds(starting))})
    user, joins, limit = job("user", Manual(), limit="h"), job("joins", Manual()), Limit("h", parse_rate(rate))
    stage.apply(user, joins, limits=(limit,))
    stage.request("trigger", "user")
    stage.advance(1)
    stage.request("trigger", "joins")
    stage.advance(1)
    stage.apply(user, replace(joins, limit="h"), limits=(limit,))
    stage.request("trigger", "user")
    stage.advance(20)
    assert stage.starts("user") == starts
    assert stage.starts("joins") == [1 + starting]
