"""What happens to a slot that is due while the job has an open slot."""

from __future__ import annotations

from typing import Literal, TypeAlias

from repeater.model.spec import Overlap

Decision: TypeAlias = Literal["start", "skip", "queue_full", "keep_newest", "keep_first", "enqueue", "replace"]
QUEUE_MOST = 1000
"""The length of a queue without `queue_max`."""


def decide(overlap: Overlap, live: int, pending: int) -> Decision:
    """What to do with a new slot.

    `live` counts the open slots of the job, one that waits for its next attempt included; `pending` the slots that
    wait for them. `keep_newest` replaces what is pending by the new slot, `keep_first` drops the new one. `allow`
    without `max_instances` starts any number.
    """
    if live == 0:
        return "start"
    match overlap.kind:
        case "skip":
            return "skip"
        case "latest":
            return "keep_newest" if pending else "enqueue"
        case "first":
            return "keep_first" if pending else "enqueue"
        case "queue":
            most = QUEUE_MOST if overlap.queue_max is None else overlap.queue_max
            return "enqueue" if pending < most else "queue_full"
        case "replace":
            return "replace"
        case "allow":
            most_live = overlap.max_instances
            return "start" if most_live is None or live < most_live else "skip"
