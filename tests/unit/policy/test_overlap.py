"""What becomes of a slot that is due while the job is busy."""

from __future__ import annotations

import pytest

from repeater.model.spec import Overlap
from repeater.policy.overlap import QUEUE_MOST, decide

KINDS = ("skip", "latest", "first", "queue", "replace", "allow")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pending", [0, 1, 5])
def test_an_idle_job_always_starts(kind, pending):
    assert decide(Overlap(kind, queue_max=1, max_instances=1), 0, pending) == "start"


@pytest.mark.parametrize(
    ("overlap", "live", "pending", "decision"),
    [
        (Overlap("skip"), 1, 0, "skip"),
        (Overlap("latest"), 1, 0, "enqueue"),
        (Overlap("latest"), 1, 1, "keep_newest"),
        (Overlap("first"), 1, 0, "enqueue"),
        (Overlap("first"), 1, 1, "keep_first"),
        (Overlap("queue", queue_max=2), 1, 0, "enqueue"),
        (Overlap("queue", queue_max=2), 1, 1, "enqueue"),
        (Overlap("queue", queue_max=2), 1, 2, "queue_full"),
        (Overlap("queue", queue_max=0), 1, 0, "queue_full"),
        (Overlap("queue"), 1, QUEUE_MOST - 1, "enqueue"),
        (Overlap("queue"), 1, QUEUE_MOST, "queue_full"),
        (Overlap("replace"), 1, 0, "replace"),
        (Overlap("replace"), 1, 1, "replace"),
        (Overlap("allow"), 500, 0, "start"),
        (Overlap("allow", max_instances=2), 1, 0, "start"),
        (Overlap("allow", max_instances=2), 2, 0, "skip"),
        (Overlap("allow", max_instances=2), 3, 0, "skip"),
    ],
)
def test_a_busy_job_decides_by_its_overlap(overlap, live, pending, decision):
    assert decide(overlap, live, pending) == decision
