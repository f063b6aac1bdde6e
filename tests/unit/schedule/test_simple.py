"""Once, at an instant, never by themselves, services; and what the factory makes of each kind of spec."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import get_args

import pytest

from repeater.model.spec import (
    Adaptive,
    Always,
    At,
    Backoff,
    Cron,
    Every,
    Growing,
    JobSpec,
    LoadAware,
    Manual,
    Once,
    OnceEver,
    OnChange,
    Plugin,
    ProcessSpec,
    RateLimited,
    ScheduleSpec,
)
from repeater.model.time import MICROSECOND, Instant, Mono
from repeater.model.units import Rate
from repeater.schedule.base import Track
from repeater.schedule.factory import schedule_for

ANCHOR = Instant(datetime(2026, 1, 1, tzinfo=UTC), Mono(1_000))
HOUR = timedelta(hours=1)
SPECS = [
    (Once(), "mono", False, True),
    (OnceEver(), "mono", False, True),
    (Manual(), "mono", False, False),
    (Always(), "mono", True, False),
    (Every(HOUR), "mono", False, False),
    (Every(HOUR, after_end=True), "mono", True, False),
    (Cron("0 0 * * *"), "wall", False, False),
    (At(datetime(2027, 1, 1, tzinfo=UTC)), "wall", False, True),
    (OnChange(("src/**",)), "mono", False, False),
    (Growing(Backoff()), "mono", True, False),
    (Adaptive(), "mono", True, False),
    (LoadAware(), "mono", True, False),
    (RateLimited(Rate(5, HOUR)), "mono", True, False),
    (Plugin("sun"), "wall", False, True),
]


def schedule(spec: ScheduleSpec):
    return schedule_for(JobSpec("job", ProcessSpec("true"), spec))


@pytest.mark.parametrize(("spec", "rides", "waits", "ends"), SPECS)
def test_each_kind_has_its_clock_and_knows_whether_it_waits_for_an_end(spec, rides, waits, ends):
    made = schedule(spec)
    assert (made.clock, made.waits_for_end, made.ends) == (rides, waits, ends)
    assert made.delay("job", ANCHOR, 0.9) == timedelta(0)


def test_the_factory_knows_every_kind():
    assert {type(spec) for spec, *_ in SPECS} == set(get_args(ScheduleSpec))


def test_once_is_the_anchor_and_then_nothing():
    assert schedule(Once()).next(Track(ANCHOR)) == ANCHOR
    assert schedule(Once()).next(Track(ANCHOR, ANCHOR)) is None


@pytest.mark.parametrize("spec", [Manual(), OnChange(("src/**",))])
def test_a_schedule_that_waits_for_a_request_has_no_slot(spec):
    assert schedule(spec).next(Track(ANCHOR)) is None
    assert schedule(spec).next(Track(ANCHOR, ANCHOR, ANCHOR, 5)) is None


def test_an_instant_occurs_once_whatever_its_offset():
    at = schedule(At(datetime(2026, 1, 1, 3, tzinfo=timezone(HOUR))))
    slot = at.next(Track(ANCHOR))
    assert slot == ANCHOR.plus(2 * HOUR)
    assert at.next(Track(ANCHOR, slot)) is None
    assert at.next(Track(ANCHOR, ANCHOR)) == slot


def test_an_instant_that_was_over_is_not_made_up_for():
    assert schedule(At(ANCHOR.wall - MICROSECOND)).next(Track(ANCHOR)) is None
    assert schedule(At(ANCHOR.wall)).next(Track(ANCHOR)) == ANCHOR


def test_a_service_follows_its_own_end():
    service = schedule(Always())
    assert service.next(Track(ANCHOR)) == ANCHOR
    assert service.next(Track(ANCHOR, ANCHOR, ANCHOR.plus(HOUR))) == ANCHOR.plus(HOUR)
    assert service.next(Track(ANCHOR, ANCHOR, None)) == ANCHOR.plus(MICROSECOND)
    assert service.next(Track(ANCHOR, ANCHOR, ANCHOR)) == ANCHOR.plus(MICROSECOND)
