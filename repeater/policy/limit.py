"""Start-rate limits: at most `count` starts in any half-open window of length `window`, exactly.

A request at t with the retry pattern P asks for the attempts t + p. It may be admitted if and only if no window then
holds more than `count` attempts, those of the request itself included. A window that is too full holds count + 1
attempts less than `window` apart, some of them old; it stays too full until the last new one of them is `window` after
the first old one. So the earliest instant is found by leaps from one such instant to the next, never by steps.

What counts are starts as they happen. A start comes later than its grant, and lateness pushes starts together; so a
granted attempt counts as happening *now* until its start is reported. So the limit holds for the reported instants, no
matter how late each start is.

Instants are whole numbers of any clock that does not go back (microseconds everywhere in repeater); the ledger reads no
clock. It drops what can no longer matter, at most twice `count` and the reserved attempts stay. One request costs
O(k log n) for k offsets and n attempts, plus a step for each attempt of a window that is all but full, and that only
where attempts are reserved ahead.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from typing import TypeAlias

from repeater._lazy_dataclasses import dataclass, field

Pattern: TypeAlias = tuple[int, ...]
"""Offsets of a request's attempts from its instant, none negative, ascending."""

ONE: Pattern = (0,)


@dataclass(slots=True, eq=False)
class Permit:
    """What one request holds: the attempts that are still `planned`, and how many are granted but not reported
    (`flying`).

    Changed by the ledger only.
    """

    planned: list[int] = field(default_factory=list)
    flying: int = 0


class SlidingWindow:
    """The attempts of one limit. `not_before` delays every grant, even if the window has room."""

    __slots__ = ("_attempts", "_flying", "count", "not_before", "window")

    def __init__(self, count: int, window: int) -> None:
        if count < 1 or window < 1:
            raise ValueError(
                f"cannot limit to {count} starts in {window}: expected at least 1 start and a window above zero"
            )
        self.count = count
        self.window = window
        self.not_before: int | None = None
        self._attempts: list[int] = []
        self._flying = 0

    def __len__(self) -> int:
        """How many attempts are stored."""
        return len(self._attempts) + self._flying

    # --- queries -------------------------------------------------------------------------------------------------

    def earliest(self, now: int, pattern: Pattern = ONE, late: int = 0) -> int:
        """The first instant, `now` or later, at which a request may be admitted, as far as is known now.

        It may turn out later while attempts are flying; `late` is by how much they are expected to come later than
        now. Raises ValueError for a pattern that never fits.
        """
        pieces = _pieces(pattern, self.count, self.window)
        self._drop(now)
        at = now if self.not_before is None else max(now, self.not_before)
        attempts, flying = self._attempts, self._flying
        place = bisect_right(attempts, now + late) if flying else 0
        attempts[place:place] = [now + late] * flying  # the worst place for them
        while (leap := self._skip_ahead(at, pieces)) is not None:
            at = leap
        del attempts[place : place + flying]
        return at

    def used(self, now: int) -> int:
        """How many attempts the window that ends now holds, this instant included."""
        past = bisect_right(self._attempts, now) - bisect_right(self._attempts, now - self.window)
        return past + self._flying

    # --- permits -------------------------------------------------------------------------------------------------

    def admit(self, now: int, pattern: Pattern = ONE) -> Permit | int:
        """Check and reserve in one: a ticket whose first attempt is granted, or the instant at which to ask again."""
        at = self.earliest(now, pattern)
        if at > now:
            return at
        ticket = self._plan(at, pattern[1:])
        self._mark_in_flight(ticket)
        return ticket

    def reserve(self, now: int, pattern: Pattern = ONE, late: int = 0) -> Permit:
        """Take the earliest place there is; nothing is granted yet. `planned[0]` says when to ask with `readmit`.

        `late` is the time from a grant to the instant at which its start counts; the plan includes it.
        """
        return self._plan(self.earliest(now, pattern, late) + late, pattern)

    def force(self, ticket: Permit | None = None) -> Permit:
        """Grant the next attempt even if the limit is reached, with a new ticket if none is given. It counts for
        others.
        """
        ticket = ticket or Permit()
        self._mark_in_flight(ticket)
        return ticket

    def earliest_for(self, ticket: Permit, now: int, late: int = 0) -> int:
        """The first instant, `now` or later, at which the next attempt of the ticket may be granted. Takes nothing.

        With `late` the attempt, and those that fly, are taken to come that much later.
        """
        planned = ticket.planned[0] if ticket.planned else None
        if planned is not None:
            self._remove(planned)
        at = self.earliest(now, (late,) if late else ONE, late)
        if planned is not None:
            insort(self._attempts, planned)
        return at

    def readmit(self, ticket: Permit, now: int) -> int | None:
        """None: the next attempt of the ticket is granted. Else the instant at which to ask again, kept for it.

        It is asked for whenever the attempt is wanted, before or after its planned instant; an attempt beyond the
        pattern is taken in like a new request.
        """
        if ticket.planned:
            self._remove(ticket.planned.pop(0))
        at = self.earliest(now)
        if at <= now:
            self._mark_in_flight(ticket)
            return None
        insort(ticket.planned, at)
        insort(self._attempts, at)
        return at

    # --- reports -------------------------------------------------------------------------------------------------

    def started(self, ticket: Permit, at: int) -> None:
        """The granted attempt of the ticket happened."""
        if ticket.flying:
            ticket.flying -= 1
            self._flying -= 1
        self.record(at)

    def failed(self, ticket: Permit) -> None:
        """The granted attempt of the ticket did not happen: no process came to exist."""
        if ticket.flying:
            ticket.flying -= 1
            self._flying -= 1

    def release(self, ticket: Permit) -> None:
        """Give back the planned attempts of the ticket. A second call does nothing."""
        for attempt in ticket.planned:
            self._remove(attempt)
        ticket.planned.clear()
        self._flying -= ticket.flying
        ticket.flying = 0

    def record(self, at: int) -> None:
        """A start happened without a request: before a restart of the supervisor, or it was forced."""
        insort(self._attempts, at)

    def trim(self, now: int) -> int:
        """Forget all attempts that do not count any more, and give the last instant that does not."""
        edge = now - self.window
        del self._attempts[: bisect_right(self._attempts, edge)]
        return edge

    def forget(self, at: int) -> None:
        """Remove a start that was recorded at this instant."""
        self._remove(at)

    def push_back(self, until: int) -> None:
        """Grant nothing before `until`, if no later instant was set before."""
        self.not_before = until if self.not_before is None else max(self.not_before, until)

    def change(self, count: int, window: int) -> None:
        """The limit was edited. Attempts so far count for the new limit."""
        self.count, self.window = count, window

    def recent(self, now: int) -> tuple[int, ...]:
        """The instants that still count, ascending, reserved ones included: what a store keeps."""
        self._drop(now)
        return tuple(self._attempts[bisect_right(self._attempts, now - self.window) :])

    # --- helpers -------------------------------------------------------------------------------------------------

    def _skip_ahead(self, at: int, pieces: Iterable[tuple[int, int, int, int]]) -> int | None:
        """Where to look next because `at` is too early; None if it is not."""
        leap = None
        for low, high, needed, last in pieces:
            first = self._window_overflow(at + low, at + high, needed)
            if first is not None and (leap is None or first + self.window - last > leap):
                leap = first + self.window - last
        return leap

    def _window_overflow(self, low: int, high: int, needed: int) -> int | None:
        """The first of the latest `needed` attempts that share a window which starts in (low, high]; None if none do.

        From the newest backwards. Where `needed` attempts do not share a window, the next that may are found by
        bisection, not by going on by one.
        """
        attempts, window = self._attempts, self.window
        last = bisect_left(attempts, high + window) - 1
        while (first := last - needed + 1) >= 0 and (begin := attempts[first]) > low:
            if attempts[last] - begin < window:
                return begin
            last = bisect_left(attempts, begin + window, first, last) - 1
        return None

    def _plan(self, at: int, offsets: Pattern) -> Permit:
        ticket = Permit([at + offset for offset in offsets])
        for attempt in ticket.planned:
            insort(self._attempts, attempt)
        return ticket

    def _mark_in_flight(self, ticket: Permit) -> None:
        ticket.flying += 1
        self._flying += 1

    def _remove(self, attempt: int) -> None:
        place = bisect_left(self._attempts, attempt)
        if place < len(self._attempts) and self._attempts[place] == attempt:  # it may be old enough to be dropped
            del self._attempts[place]

    def _drop(self, now: int) -> None:
        """Drop attempts that no future window can contain. It does not work at every call, so that it costs little."""
        attempts = self._attempts
        if len(attempts) > 2 * min(self.count, 1000) and attempts[len(attempts) // 2] <= now - self.window:
            del attempts[: bisect_right(attempts, now - self.window)]


def check_pattern(pattern: Pattern, count: int, window: int) -> None:
    """Raises ValueError, with the cause, for a retry pattern of which no request can ever be admitted."""
    _pieces(pattern, count, window)


def share_used(rates: Iterable[Fraction], count: int, window: int) -> Fraction:
    """How much of a limit jobs use together that start at these mean rates, in starts for each unit of the clock.

    Up to 1 the limit can hold them; beyond it their backlog grows without end. Exact.
    """
    return sum(rates, Fraction(0)) * window / count


@lru_cache(maxsize=256)
def _pieces(pattern: Pattern, count: int, window: int) -> tuple[tuple[int, int, int, int], ...]:
    """The windows that hold the same attempts of a request at 0, piece by piece of where they start.

    Each is (low, high, needed, last): a window that starts in (low, high] holds some attempts of the request, the last
    of them at `last`, and is too full if it holds `needed` others.
    """
    if not pattern or pattern[0] < 0 or any(one > two for one, two in pairwise(pattern)):
        raise ValueError(f"cannot use the retry pattern {list(pattern)}: expected ascending offsets, none negative")
    edges = sorted({edge for offset in pattern for edge in (offset - window, offset)})
    pieces = []
    for low, high in pairwise(edges):
        first, end = bisect_right(pattern, low), bisect_right(pattern, low + window)
        held = end - first
        if held > count:
            raise ValueError(f"{held} of its attempts share one window, and the limit allows {count}")
        if held:
            pieces.append((low, high, count + 1 - held, pattern[end - 1]))
    return tuple(pieces)
