"""What the console shows of an event."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from repeater.apps.event_routing import EventRouter
from repeater.apps.options import SupervisorOptions
from repeater.model.events import JobRemoved, RunFinished
from repeater.model.reasons import Reason
from repeater.model.reasons import reason as because
from repeater.model.run import Run, Slot, Verdict
from tests.fakes.clock import FakeClock

THEN = datetime(2026, 11, 30, 3, 0, tzinfo=UTC)
RUN = Run("r1", Slot("a", THEN, THEN), 1, 1)


@pytest.mark.parametrize("colored", [False, True])
def test_a_failed_run_is_red_if_the_console_has_colors(colored: bool) -> None:
    lines: list[str] = []
    router = EventRouter(
        FakeClock(),
        SupervisorOptions((), verbose=True),
        lines.append,
        lambda *_: None,
        to_journal=False,
        colored=colored,
    )
    router(RunFinished(RUN, Verdict(success=False, reason=because("exit", exit=3)), 3))
    router(RunFinished(RUN, Verdict(success=True, reason=Reason("success")), 0))
    router(JobRemoved("a"))
    failed = "rpr: a: failed: exit 3"
    assert lines == [f"\x1b[31m{failed}\x1b[0m" if colored else failed, "rpr: a: succeeded", "rpr: a: removed"]
