"""Clients of 1.0 and 1.1 share a limit, in virtual time: no window holds too many effects, however late starts are.

Late within what is documented: a start comes up to `LATE` after its instant or grant, an effect up to `SETTLING` later.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from datetime import datetime
from itertools import count

import pytest

from repeater.ratelimitd.broker import Broker
from repeater.ratelimitd.resources import LATE
from tests.unit.ratelimitd.clients import BEGAN, Desk

SETTLING = 20.0


class Shared:
    """`effects` are the milliseconds at which runs show."""

    def __init__(self, seed: int, limit: int, window: int, offsets: list[int]) -> None:
        self.rng = random.Random(seed)
        self.desk = Desk(Broker("r", int(SETTLING * 1000)))
        self.limit, self.window, self.offsets = limit, window, offsets
        self.late = min(LATE / 1000, window / 20)
        self.effects: list[float] = []
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._seen: dict[int, int] = {}
        self._modern: set[int] = set()

    def at(self, when: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (when, next(self._numbers), act))

    def run(self, until: float) -> None:
        while self._agenda and self._agenda[0][0] <= until:
            when, _, act = heapq.heappop(self._agenda)
            while (due := self.desk.book.next_due()) is not None and (due - 10**12) / 1000 < when:
                self.desk.run_to((due - 10**12) / 1000)
                if self._look():
                    break
            if self._agenda and self._agenda[0][0] < when:
                self.at(when, act)
                continue
            self.desk.run_to(when)
            self._look()
            act()
            self._look()

    def lateness(self) -> float:
        return self.rng.choice([0.0, self.late, self.rng.uniform(0, self.late)])

    # --- version 1.0: asks, sleeps, registers, starts, and never tells ---

    def old(self, client: int) -> None:
        (answer,) = self.desk.tell(
            client, "schedule_request", resource_id="api", rate_limit=self.limit, window_ms=self.window,
            retry_offsets=self.offsets, request_time=int(self.desk.now.wall.timestamp()),
        )  # fmt: skip
        instant = max(self.desk.at, (datetime.fromisoformat(answer["wait_until"]) - BEGAN).total_seconds() * 1000)
        late = self.lateness()
        self.at(instant + self.rng.uniform(0, late), lambda: self._register(client, instant, late))

    def _register(self, client: int, instant: float, late: float) -> None:
        self.desk.tell(client, "register_request", requests=[{"id": "x", "resource_id": "api", "scheduled_at": 1}])
        self.effects.append(max(self.desk.at, instant + late))
        pause = self.rng.choice([1.0, self.rng.uniform(1, self.window)])
        self.at(self.desk.at + late + pause, lambda: self._again(client))

    def _again(self, client: int) -> None:
        """Each run of the Go tool is a connection of its own."""
        self.desk.leave(client)
        self.old(client)

    # --- version 1.1: asks, is granted, starts, tells ---

    def new(self, client: int) -> None:
        self._modern.add(client)
        self.desk.tell(
            client, "reserve_request", id=f"{self.desk.at}", resource_id="api", rate_limit=self.limit,
            window_ms=self.window,
        )  # fmt: skip

    def _look(self) -> bool:
        found = False
        for client in self._modern:
            granted = self.desk.granted(client)
            for held in granted[self._seen.get(client, 0) :]:
                found = True
                start = self.desk.at + self.lateness()
                self.at(start, lambda client=client, held=held: self._started(client, held))  # type: ignore[misc]
            self._seen[client] = len(granted)
        return found

    def _started(self, client: int, held: str) -> None:
        self.effects.append(self.desk.at + self.rng.uniform(0, min(SETTLING, self.window / 50)))
        self.desk.tell(client, "start_notice", reservation=held)
        self.at(self.desk.at + self.rng.choice([0.0, self.rng.uniform(0, self.window)]), lambda: self.new(client))

    def most(self) -> int:
        ordered = sorted(self.effects)
        return max(sum(1 for one in ordered if begin <= one < begin + self.window) for begin in ordered)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(("limit", "window"), [(10, 2000), (1, 400), (3, 1000)])
def test_no_window_holds_more_than_the_limit_with_clients_of_both_versions(seed: int, limit: int, window: int) -> None:
    shared = Shared(seed, limit, window, [0] if seed % 3 else [0, window * 2])
    for client in range(1, 11):
        shared.at(shared.rng.uniform(0, 50), lambda client=client: shared.old(client))  # type: ignore[misc]
    for client in range(11, 22):  # ten one-off commands, and the job file
        shared.at(shared.rng.uniform(0, 50), lambda client=client: shared.new(client))  # type: ignore[misc]
    shared.run(10 * window)
    assert shared.most() <= limit
    assert len(shared.effects) >= (6 if seed % 3 else 3) * limit  # and it is used
