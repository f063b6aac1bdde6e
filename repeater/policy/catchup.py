"""Which missed slots still run, after the supervisor was down, the machine was suspended, or the slots were blocked.

The engine decides whether a slot was missed. This module decides what happens to each missed slot, and why.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, TypeAlias

from repeater.model.reasons import MISSED, START_DEADLINE, Reason
from repeater.model.run import Slot
from repeater.model.spec import CatchUp

Fate: TypeAlias = Literal["run", "skip", "expire"]
_OVER_MAX = Reason("catch_up_max")
_OVER_WINDOW = Reason("catch_up_window")


def decide(catch_up: CatchUp, missed: Sequence[Slot], now: datetime) -> list[tuple[Slot, Fate, Reason]]:
    """Every missed slot with its fate and the reason that its row gives, oldest first.

    `skip` skips all. Else slots whose nominal time lies further back than the window expire (`catch_up_window`), those
    too late for their start deadline, which counts from due, expire (`start_deadline`), and of the rest run: the
    newest (`latest`), the oldest (`earliest`), or all of them (`all`). More than `most` collapse into the newest: the
    oldest run until one place is left, the newest takes it, those between are skipped (`catch_up_max`).
    """
    slots = sorted(missed, key=lambda slot: slot.nominal)
    if catch_up.kind == "skip":
        return [(slot, "skip", MISSED) for slot in slots]
    late = {slot.nominal: reason for slot in slots if (reason := _too_late(catch_up, slot, now))}
    owed = [slot for slot in slots if slot.nominal not in late]
    chosen = {slot.nominal for slot in _chosen(catch_up, owed)}
    unchosen = _OVER_MAX if catch_up.kind == "all" else MISSED
    fates: list[tuple[Slot, Fate, Reason]] = []
    for slot in slots:
        if slot.nominal in late:
            fates.append((slot, "expire", late[slot.nominal]))
        elif slot.nominal in chosen:
            fates.append((slot, "run", MISSED))
        else:
            fates.append((slot, "skip", unchosen))
    return fates


def _too_late(catch_up: CatchUp, slot: Slot, now: datetime) -> Reason | None:
    if now - slot.nominal > catch_up.window:
        return _OVER_WINDOW
    if catch_up.start_deadline is not None and now - slot.due > catch_up.start_deadline:
        return START_DEADLINE
    return None


def _chosen(catch_up: CatchUp, owed: list[Slot]) -> list[Slot]:
    match catch_up.kind:
        case "latest":
            return owed[-1:]
        case "earliest":
            return owed[:1]
    if len(owed) <= catch_up.most:
        return owed
    return owed[: max(0, catch_up.most - 1)] + owed[-1:]
