"""Events as sentences."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest

from repeater.cli.event_text import event_text
from repeater.cli.remote import reason_text
from repeater.control.commands.events import as_item, event_name
from repeater.model import events as kinds
from repeater.model.reasons import Reason
from repeater.model.reasons import reason as because
from repeater.model.run import Run, Slot, SlotRecord, Verdict
from repeater.output.event_log import Entry

THEN = datetime(2026, 11, 30, 3, 0, tzinfo=UTC)
RUN = Run("r1", Slot("a", THEN, THEN), 1, 1)
CASES: list[tuple[kinds.Event, str]] = [
    (kinds.GenerationApplied(2, added=1, kept=3), "generation 2 active: 1 added, 3 unchanged"),
    (kinds.ReloadRecovered(2), "job files are valid again, generation 2 is active"),
    (kinds.Draining("stop", ("a", "b")), "shutting down, stopping a, b"),
    (kinds.JobAdded("a", THEN), "added, next start 2026-11-30T03:00:00Z"),
    (kinds.JobAdded("a", None), "added"),
    (kinds.JobChanged("a", "retime"), "changed, rescheduled"),
    (kinds.JobRemoved("a"), "removed"),
    (kinds.JobReady("a", ready=True), "ready"),
    (kinds.JobReady("a", ready=False), "not ready"),
    (kinds.RunBegan(RUN, 7, 0.1), "started, pid 7, run r1"),
    (kinds.RunBegan(RUN, 7, 2.5), "started, pid 7, 2.5s late, run r1"),
    (kinds.RunAdopted(RUN, 7), "adopted, pid 7, run r1"),
    (kinds.RunFinished(RUN, Verdict(True, Reason("success")), 0), "succeeded, run r1"),
    (kinds.RunFinished(RUN, Verdict(False, because("exit", exit=3)), 3), "failed: exit 3, run r1"),
    (
        kinds.RunFinished(RUN, Verdict(False, because("exit", exit=3)), 3, THEN),
        "attempt 1 failed: exit 3; retrying at 2026-11-30T03:00:00Z, run r1",
    ),
    (kinds.SlotsMissed("a", 1, THEN, THEN), "missed 1 start (2026-11-30T03:00:00Z)"),
    (
        kinds.SlotsMissed("a", 2, THEN, THEN + timedelta(hours=1), at_least=True),
        "missed at least 2 starts (2026-11-30T03:00:00Z to 2026-11-30T04:00:00Z)",
    ),
    (
        kinds.SlotDecided(SlotRecord("a", THEN, THEN, None, None, "skipped", Reason("missed"), None, 0), 3),
        "3 slots 2026-11-30T03:00:00Z skipped",
    ),
    (kinds.FaultContained("hook", "a", "h", "ValueError", 2), "internal error in hook `h` (2 times): ValueError"),
]


def item(event: kinds.Event) -> dict[str, Any]:
    return as_item(Entry(THEN, event))


@pytest.mark.parametrize(("event", "text"), CASES, ids=lambda value: value if isinstance(value, str) else "")
def test_an_event_has_this_sentence(event: kinds.Event, text: str) -> None:
    shown = event_text(item(event), str, reason_text)
    assert shown.startswith(text) if "skipped" in text else shown == text


def test_each_kind_of_event_has_a_sentence() -> None:
    from repeater.cli.event_text import _TEXTS

    assert set(_TEXTS) == {event_name(kind) for kind in get_args(kinds.Event)}


def test_an_event_of_a_newer_version_shows_its_fields() -> None:
    newer = {"time": "t", "event": "job_cloned", "job": "a", "copies": 2}
    assert event_text(newer, str, reason_text) == "job_cloned copies=2"
