"""Who is let through when, in virtual time: the row, what is given back, what is kept, and the clients of version 1.0."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from repeater.model.time import Mono
from repeater.ratelimitd.broker import GRANT_WITHIN, Broker
from repeater.ratelimitd.persistence import AttemptDeleted, AttemptRecord, AttemptsPruned, ResourceRecord
from repeater.ratelimitd.protocol import Rate
from repeater.ratelimitd.protocol_v1 import REGISTER_WITHIN
from repeater.sentences import sentence
from tests.unit.ratelimitd.clients import Desk


def breaks(starts: list[float], count: int, window: float) -> bool:
    ordered = sorted(starts)
    return any(later - early < window for early, later in zip(ordered, ordered[count:], strict=False))


# --- version 1.1 -----------------------------------------------------------------------------------------------------


def test_waiting_clients_are_admitted_in_the_order_of_their_requests() -> None:
    desk = Desk()
    first = desk.ask(1, "a", rate="1/1000")
    desk.tell(1, "start_notice", reservation=first)
    assert desk.ask(2, "b") == {
        "type": "reserve_response", "id": "b", "status": "waiting", "wait_ms": 1000.0, "ahead": 0,
    }  # fmt: skip
    assert desk.ask(3, "c")["wait_ms"] == 2000.0
    desk.run_to(999)
    assert not desk.granted(2)
    desk.run_to(1000)
    assert len(desk.granted(2)) == 1
    desk.tell(2, "start_notice", reservation=desk.granted(2)[0])
    desk.run_to(1999)
    assert not desk.granted(3)
    desk.run_to(2000)
    assert len(desk.granted(3)) == 1


def test_the_next_grant_is_counted_from_the_start_not_from_the_grant() -> None:
    desk = Desk()
    first = desk.ask(1, "a", rate="1/1000")
    desk.ask(2, "b")
    desk.run_to(400)
    desk.tell(1, "start_notice", reservation=first, ago_ms=100)
    desk.run_to(1299)
    assert not desk.granted(2)
    desk.run_to(1300)
    assert desk.granted(2)


def test_a_start_is_never_believed_to_be_before_its_grant() -> None:
    desk = Desk(at=5000)
    first = desk.ask(1, "a", rate="1/1000")
    desk.tell(1, "start_notice", reservation=first, ago_ms=3000)
    desk.ask(2, "b")
    desk.run_to(5999)
    assert not desk.granted(2)


def test_a_killed_client_gives_its_reservation_back() -> None:
    desk = Desk()
    desk.ask(1, "a", rate="1/10000")
    desk.ask(2, "b")
    desk.run_to(100)
    desk.leave(1)
    assert desk.granted(2)
    desk.leave(2)
    assert desk.figures()["used"] == desk.figures()["reserved"] == 0


def test_a_client_that_started_and_disconnected_has_used_its_place() -> None:
    desk = Desk()
    desk.tell(1, "start_notice", reservation=desk.ask(1, "a", rate="1/1000"))
    desk.leave(1)
    assert desk.ask(2, "b")["wait_ms"] == 1000.0


def test_a_waiting_client_that_disconnects_is_removed_from_the_queue() -> None:
    desk = Desk()
    desk.tell(1, "start_notice", reservation=desk.ask(1, "a", rate="1/1000"))
    desk.ask(2, "b")
    desk.ask(3, "c")
    desk.leave(2)
    desk.run_to(1000)
    assert desk.granted(3)


def test_the_place_of_a_failed_start_is_free_for_the_next_client() -> None:
    desk = Desk()
    first = desk.ask(1, "a", rate="1/1000")
    desk.ask(2, "b")
    desk.tell(1, "start_notice", reservation=first, started=False)
    assert desk.granted(2)


def test_a_request_is_withdrawn_by_its_id() -> None:
    desk = Desk()
    desk.tell(1, "start_notice", reservation=desk.ask(1, "a", rate="1/1000"))
    desk.ask(2, "b")
    desk.ask(3, "c")
    assert desk.tell(2, "release_request", id="b") == [{"type": "release_response", "status": "ok"}]
    desk.run_to(1000)
    assert not desk.granted(2)
    assert desk.granted(3)


def test_a_repeated_request_gets_its_wait_and_takes_no_second_place() -> None:
    desk = Desk()
    desk.tell(1, "start_notice", reservation=desk.ask(1, "a", rate="1/1000"))
    desk.ask(2, "b")
    desk.run_to(300)
    assert desk.ask(2, "b")["wait_ms"] == 700.0
    assert desk.figures()["waiting"] == 1


def test_later_attempts_of_a_reservation_keep_their_places_until_released() -> None:
    desk = Desk()
    held = desk.ask(1, "a", rate="2/1000", retry_offsets=[0, 100])
    desk.tell(1, "start_notice", reservation=held)
    assert desk.ask(2, "b")["wait_ms"] == 1000.0  # the second place is reserved
    desk.run_to(100)
    assert desk.ask(1, "a2", reservation=held) == held
    desk.tell(1, "start_notice", reservation=held)
    desk.leave(2)
    again = desk.ask(3, "c", resource="other", rate="2/1000", retry_offsets=[0, 500])
    desk.tell(3, "start_notice", reservation=again)
    assert isinstance(desk.ask(4, "d", resource="other"), dict)
    desk.tell(3, "release_request", reservation=again)
    assert len(desk.granted(4)) == 1


def test_a_forced_start_passes_the_limit_and_counts() -> None:
    desk = Desk()
    desk.tell(1, "start_notice", reservation=desk.ask(1, "a", rate="1/1000"))
    desk.run_to(500)
    forced = desk.ask(2, "b", force=True)
    desk.tell(2, "start_notice", reservation=forced)
    desk.ask(3, "c")
    desk.run_to(1499)
    assert not desk.granted(3)
    desk.run_to(1500)
    assert desk.granted(3)


def test_a_client_that_hangs_after_its_grant_blocks_no_other() -> None:
    desk = Desk()
    held = desk.ask(1, "a", rate="1/1000")
    desk.ask(2, "b")
    desk.run_to(GRANT_WITHIN / 1000 + 999)
    assert not desk.granted(2)
    desk.run_to(GRANT_WITHIN / 1000 + 1000)
    assert desk.granted(2)
    desk.tell(1, "start_notice", reservation=held)  # very late, but it happened
    desk.tell(2, "start_notice", reservation=desk.granted(2)[0])
    assert desk.figures()["used"] == 2


def test_a_push_back_delays_all_clients_and_gives_the_reason() -> None:
    desk = Desk()
    desk.tell(1, "push_back_notice", resource_id="api", rate_limit=5, window_ms=1000, delay_ms=700, reason="429")
    answer = desk.ask(2, "b")
    assert (answer["wait_ms"], answer["reason"]) == (700.0, "429")
    desk.run_to(700)
    assert desk.granted(2)


def test_a_rate_that_its_only_client_changes_counts_at_once() -> None:
    desk = Desk()
    for number in range(3):
        desk.tell(1, "start_notice", reservation=desk.ask(1, str(number), rate="3/1000"))
    assert isinstance(desk.ask(1, "x", rate="3/1000"), dict)
    assert isinstance(desk.ask(1, "y", rate="9/1000"), str | dict)
    assert len(desk.granted(1)) == 5


def test_of_different_rates_the_strictest_counts_and_all_are_shown() -> None:
    desk = Desk()
    strict = desk.ask(1, "a", rate="1/1000")
    desk.tell(1, "start_notice", reservation=strict)
    desk.run_to(100)
    heard = desk.tell(2, "reserve_request", id="b", resource_id="api", rate_limit=9, window_ms=1000)
    words = "clients use different rates for `api`, 1/1s and 9/1s: the strictest applies, 1/1s"
    assert [one["type"] for one in heard] == ["warning_notice", "reserve_response"]
    assert [one["warning"] for one in desk.heard[1] if one["type"] == "warning_notice"] == [words]
    assert heard[1]["wait_ms"] == 900.0
    desk.run_to(1000)
    assert len(desk.granted(2)) == 1
    desk.tell(2, "start_notice", reservation=desk.granted(2)[0])
    assert {sentence(reason) for reason in desk.book.warnings} == {words}
    notice = next(one for one in heard if one["type"] == "warning_notice")
    assert (notice["reason_code"], notice["detail"]["rates"]) == ("rates_differ", ["1/1s", "9/1s"])
    desk.leave(1)  # its rate counts until its window is over
    desk.tell(2, "reserve_request", id="c", resource_id="api", rate_limit=9, window_ms=1000)
    desk.run_to(1999)
    assert len(desk.granted(2)) == 1
    desk.run_to(2000)
    assert len(desk.granted(2)) == 2
    desk.tell(2, "reserve_request", id="d", resource_id="api", rate_limit=9, window_ms=1000)
    assert len(desk.granted(2)) == 3
    assert len([one for one in desk.heard[2] if one["type"] == "warning_notice"]) == 1


def test_a_strict_client_does_not_starve_beside_loose_ones() -> None:
    desk = Desk()
    asked = 0
    for at in range(0, 20_000, 10):
        desk.run_to(at)
        for client, rate in ((1, "2/1000"), (2, "50/1000"), (3, "50/1000")):
            for held in desk.granted(client):
                desk.heard[client].clear()
                desk.tell(client, "start_notice", reservation=held)
            if not desk.book._clients.get(client) or not desk.book._clients[client].waiting:
                asked += 1
                desk.ask(client, str(asked), rate=rate)
                if client == 1:
                    strict = asked
    assert desk.figures()["rate_limit"] == 2
    assert strict >= 3 * 10


def test_resources_do_not_know_each_other() -> None:
    desk = Desk()
    desk.ask(1, "a", "one", rate="1/1000")
    assert isinstance(desk.ask(1, "b", "two", rate="1/1000"), str)


@pytest.mark.parametrize(
    ("kind", "fields", "words"),
    [
        ("reserve_request", {"id": "a", "resource_id": "api"}, "has no rate yet"),
        ("reserve_request", {"id": "a", "resource_id": "api", "rate_limit": 0, "window_ms": 1}, "`rate_limit`"),
        ("reserve_request", {"id": "a", "resource_id": "api", "rate_limit": 1, "window_ms": 1.5}, "`window_ms`"),
        ("reserve_request", {"id": "", "resource_id": "api", "rate_limit": 1, "window_ms": 1}, "`id`"),
        ("reserve_request", {"id": "a", "resource_id": "x" * 257, "rate_limit": 1, "window_ms": 1}, "`resource_id`"),
        (
            "reserve_request",
            {"id": "a", "resource_id": "api", "rate_limit": 1, "window_ms": 100, "retry_offsets": [0, 50]},
            "2 of its attempts share one window",
        ),
        (
            "reserve_request",
            {"id": "a", "resource_id": "api", "rate_limit": 1, "window_ms": 1, "retry_offsets": [-1]},
            "`retry_offsets`",
        ),
        (
            "reserve_request",
            {"id": "a", "resource_id": "api", "rate_limit": 1, "window_ms": 1, "reservation": "r-9"},
            "unknown reservation `r-9`",
        ),
        ("start_notice", {"reservation": "r-9"}, "unknown reservation `r-9`"),
        ("start_notice", {}, "`resource_id`"),
        ("start_notice", {"reservation": "r", "ago_ms": -1}, "`ago_ms`"),
        ("release_request", {"reservation": "r-9"}, "unknown reservation `r-9`"),
        ("release_request", {"id": "nope"}, "no queued request `nope`"),
        ("handshake", {"version": "2.0"}, "cannot use version `2.0`"),
        ("order_pizza", {}, "unknown message type"),
        ("register_request", {"requests": [3]}, "`requests`"),
        ("schedule_request", {"resource_id": "api"}, "`request_time`"),
    ],
)
def test_an_impossible_value_is_refused_by_its_name(kind: str, fields: dict[str, Any], words: str) -> None:
    assert words in Desk().refused(1, kind, **fields)


def test_a_reservation_is_of_the_client_that_made_it() -> None:
    desk = Desk()
    held = desk.ask(1, "a", rate="1/1000")
    assert "unknown reservation" in desk.refused(2, "release_request", reservation=held)


def test_one_client_cannot_hold_without_end() -> None:
    desk = Desk()
    for number in range(256):
        desk.ask(1, str(number), rate="1/1000")
    assert "cannot queue more than 256" in desk.refused(1, "reserve_request", id="x", resource_id="api")


# --- both together ---------------------------------------------------------------------------------------------------


def test_no_window_holds_too_many_starts_however_late_clients_start() -> None:
    rng = random.Random(7)
    for _ in range(20):
        count, window = rng.randrange(1, 4), rng.randrange(50, 400)
        desk, starts = Desk(), []
        late: list[tuple[float, int, str]] = []
        told: set[str] = set()
        for asked in range(120):
            desk.run_to(desk.at + rng.choice((0, 1, 7, rng.randrange(0, window))))
            for when, client, held in sorted(late):
                if when <= desk.at:
                    late.remove((when, client, held))
                    if rng.random() < 0.15:
                        desk.tell(client, "start_notice", reservation=held, started=False)
                    else:
                        starts.append(when)
                        desk.tell(client, "start_notice", reservation=held, ago_ms=desk.at - when)
            client = rng.randrange(6)
            desk.ask(client, str(asked), rate=f"{count}/{window}")
            for client in range(6):
                for held in desk.granted(client):
                    if held not in told:
                        told.add(held)
                        late.append((desk.at + rng.randrange(0, window), client, held))
            assert not breaks(starts, count, window), (count, window, sorted(starts))


def test_a_limit_that_many_want_is_used_to_the_last_start() -> None:
    desk, starts = Desk(), []
    for client in range(40):
        desk.ask(client, "a", rate="10/1000")
    for at in range(0, 4000, 10):
        desk.run_to(at)
        for client in range(40):
            for held in desk.granted(client):
                desk.heard[client].clear()
                starts.append(at)
                desk.tell(client, "start_notice", reservation=held)
                desk.ask(client, f"{at}", rate="10/1000")
    assert len(starts) == 40
    assert not breaks(list(map(float, starts)), 10, 1000)


# --- over a restart --------------------------------------------------------------------------------------------------


def again(desk: Desk, after: float) -> Desk:
    """The daemon died; another begins with what the first had kept."""
    known: dict[str, ResourceRecord] = {}
    kept: dict[int, AttemptRecord] = {}
    for change in desk.book.changes:
        match change:
            case ResourceRecord(name):
                known[name] = change
            case AttemptRecord(row):
                kept[row] = change
            case AttemptDeleted(row):
                kept.pop(row, None)
            case AttemptsPruned(name, until):
                kept = {row: one for row, one in kept.items() if one.resource != name or one.at > until}
    book = Broker("s")
    next_life = Desk(book, desk.at + after)
    book.restore(known.values(), kept.values(), next_life.now)
    return next_life


def test_a_restart_keeps_the_starts_and_the_rates() -> None:
    desk = Desk()
    desk.tell(1, "start_notice", reservation=desk.ask(1, "a", rate="1/1000"))
    desk = again(desk, 300)
    assert desk.ask(1, "b")["wait_ms"] == 700.0


def test_a_grant_before_a_restart_counts_until_its_client_reports() -> None:
    desk = Desk()
    started, failed, unknown = (desk.ask(1, name, name, rate="1/1000") for name in "abc")
    desk = again(desk, 300)
    assert [desk.ask(1, "x", name)["wait_ms"] for name in "abc"] == [1000.0] * 3
    desk.tell(1, "start_notice", reservation=started, ago_ms=200)
    desk.tell(1, "start_notice", reservation=failed, started=False)
    assert desk.ask(1, "x", "a")["wait_ms"] == 800.0
    assert len(desk.granted(1)) == 1
    assert "unknown reservation" in desk.refused(1, "start_notice", reservation=failed)
    assert unknown


def test_a_refund_of_a_disconnected_client_does_not_count_after_a_restart() -> None:
    desk = Desk()
    desk.ask(1, "a", rate="1/10000")
    desk.leave(1)
    desk = again(desk, 100)
    assert isinstance(desk.ask(2, "b"), str)


def test_starts_without_a_rate_do_not_hide_others_in_a_restart() -> None:
    desk = Desk()
    register(desk, 1, int(desk.now.wall.timestamp()), resource="only-1.0")
    desk.tell(2, "start_notice", reservation=desk.ask(2, "a", rate="1/1000"))
    desk = again(desk, 300)
    assert desk.ask(2, "b")["wait_ms"] == 700.0
    assert [one["resource_id"] for one in desk.book.stats(desk.now)["resources"]] == ["api"]


def test_a_restart_after_clients_of_1_0_alone_continues_without_a_rate() -> None:
    desk = Desk()
    register(desk, 1, int(desk.now.wall.timestamp()))
    desk = again(desk, 100)
    assert desk.book.stats(desk.now)["resources"] == []
    assert isinstance(desk.ask(2, "b", rate="1/1000"), str)


def test_starts_without_the_daemon_are_reported_later_and_count() -> None:
    desk = Desk()
    desk.run_to(1000)
    desk.tell(1, "start_notice", resource_id="api", rate_limit=1, window_ms=1000, ago_ms=400)
    assert desk.ask(2, "a")["wait_ms"] == 600.0


def test_an_unused_resource_is_forgotten() -> None:
    desk = Desk()
    desk.tell(1, "start_notice", reservation=desk.ask(1, "a", rate="1/1000"))
    desk.run_to(130_000)
    assert desk.book.stats(desk.now)["resources"] == []
    assert any(isinstance(change, AttemptsPruned) and change.gone for change in desk.book.changes)
    assert desk.book.next_due() is None


# --- version 1.0 -----------------------------------------------------------------------------------------------------

HANDSHAKE = '{"client":"patience-cli","type":"handshake","version":"1.0"}'
PROBE = (
    '{"rate_limit":1,"request_time":-62135596800,"resource_id":"test-connection","retry_offsets":[],'
    '"type":"schedule_request","window_ms":1000}'
)
ASK = (
    '{"rate_limit":3,"request_time":1795448037,"resource_id":"api","retry_offsets":[0,1000],'
    '"type":"schedule_request","window_ms":5000}'
)
REGISTER = (
    '{"requests":[{"expires_at":1795451637,"id":"api-1795448037-0","resource_id":"api","scheduled_at":1795448037},'
    '{"expires_at":1795451638,"id":"api-1795448037-1","resource_id":"api","scheduled_at":1795448038}],'
    '"type":"register_request"}'
)


def test_the_transcript_of_version_1_0_is_answered_byte_for_byte() -> None:
    desk = Desk()
    for line in (HANDSHAKE, PROBE, ASK, REGISTER):
        desk.send(1, line)
    assert desk.raw == [
        b'{"type":"handshake_response","status":"ok","message":"handshake successful"}\n',
        (
            b'{"type":"schedule_response","status":"ok","can_schedule":true,"reason":"nothing was reserved",'
            b'"wait_until":"2026-11-23T15:33:57Z"}\n'
        ),
        (
            b'{"type":"schedule_response","status":"ok","can_schedule":true,"reason":"the limit allows it",'
            b'"wait_until":"2026-11-23T15:33:57Z"}\n'
        ),
        b'{"type":"register_response","status":"ok","success":true,"message":"registered 2 requests"}\n',
    ]
    assert desk.figures()["used"] + desk.figures()["reserved"] == 2


def schedule(desk: Desk, client: int, *, count: int = 1, window: int = 2000, offsets: list[int] | None = None) -> Any:
    return desk.tell(
        client, "schedule_request", resource_id="api", rate_limit=count, window_ms=window,
        retry_offsets=offsets or [0], request_time=int(desk.now.wall.timestamp()),
    )[0]  # fmt: skip


def register(desk: Desk, client: int, *times: int, resource: str = "api") -> None:
    requests = [
        {"id": f"{resource}-{at}", "resource_id": resource, "scheduled_at": at, "expires_at": at + 3600} for at in times
    ]
    assert desk.tell(client, "register_request", requests=requests)[0]["success"] is True


def test_a_registration_counts_as_the_reservation_of_its_answer() -> None:
    desk = Desk()
    began = int(desk.now.wall.timestamp())
    assert schedule(desk, 1, count=2)["can_schedule"] is True
    register(desk, 1, began)
    assert schedule(desk, 2, count=2)["can_schedule"] is True
    register(desk, 2, began - 60)
    waits = schedule(desk, 3, count=2)
    assert waits["can_schedule"] is False
    assert waits["wait_until"] == "2026-11-23T15:33:59.050000Z"  # the first may have started 50 ms after its answer
    desk.run_to(2050)
    register(desk, 3, began)  # the time before its sleep
    assert desk.figures()["starts"] == 3


def test_an_answer_holds_its_place_until_it_is_registered_or_too_late() -> None:
    desk = Desk()
    schedule(desk, 1, window=60_000)
    assert schedule(desk, 2, window=60_000)["can_schedule"] is False
    desk.leave(2)
    desk.run_to(REGISTER_WITHIN / 1000 - 1)
    assert desk.figures()["reserved"] + desk.figures()["used"] == 1
    desk.run_to(REGISTER_WITHIN / 1000)
    assert desk.figures()["reserved"] + desk.figures()["used"] == 0


def test_a_client_that_slept_too_long_to_register_has_started_all_the_same() -> None:
    desk = Desk()
    schedule(desk, 1, window=10_000)
    register(desk, 1, 0)
    assert schedule(desk, 2, window=10_000)["wait_until"] == "2026-11-23T15:34:07.050000Z"
    desk.run_to(40_000)
    assert schedule(desk, 3, window=60_000)["can_schedule"] is False


def test_only_pending_attempts_of_a_disconnected_client_are_refunded() -> None:
    desk = Desk()
    schedule(desk, 1, count=2, window=10_000, offsets=[0, 5000])
    register(desk, 1, 0, 5)
    desk.run_to(1000)
    assert desk.figures()["used"] + desk.figures()["reserved"] == 2
    desk.leave(1)
    assert desk.figures()["used"] + desk.figures()["reserved"] == 1


def test_a_1_0_client_queues_behind_those_that_wait_already() -> None:
    desk = Desk()
    desk.tell(1, "start_notice", reservation=desk.ask(1, "a", rate="1/1000"))
    desk.ask(2, "b")
    # the one that waits starts up to 50 ms after its grant, and a promise is an interval of 50 ms: 1050 + 50 + 1050 - 50
    assert schedule(desk, 3, window=1000)["wait_until"] == "2026-11-23T15:33:59.100000Z"
    desk.run_to(1050)
    assert desk.granted(2)


def test_the_metrics_of_runs_are_counted_and_the_last_are_shown() -> None:
    desk = Desk()
    run = {
        "command": "curl -f \u001b[31mx", "command_hash": "abcd1234", "final_status": "failed",
        "total_duration_seconds": 1.5, "total_attempts": 3, "successful_attempts": 0, "failed_attempts": 3,
        "attempts": [{"duration_seconds": 0.5, "exit_code": 22, "success": False}] * 3, "timestamp": 1795448037,
    }  # fmt: skip
    assert desk.send(1, json.dumps(run)) == []
    desk.send(1, json.dumps({**run, "final_status": "succeeded"}))
    stats = desk.book.stats(desk.now)
    assert stats["runs"] == {"succeeded": 1, "failed": 1, "attempts": 6, "failed_attempts": 6, "seconds": 3.0}
    assert stats["last_runs"][0]["runs"] == 2
    assert "\u001b" not in stats["last_runs"][0]["command"]


def test_a_start_that_seems_to_lie_in_the_future_counts_as_now() -> None:
    desk = Desk()
    ahead = Mono(desk.now.mono + 3_600_000_000)
    desk.book.restore(
        [ResourceRecord("api", Rate(1, 1_000_000), None)], [AttemptRecord(1, "api", ahead, "started")], desk.now
    )
    assert 1000 <= desk.ask(1, "a")["wait_ms"] <= 1020


def test_changes_that_were_taken_are_not_returned_again() -> None:
    it = Desk()
    it.ask(1, "first", rate="2/1000")
    assert it.book.changes
    it.book.changes = []
    assert it.book.changes == []
    it.ask(1, "second", rate="2/1000")
    assert [type(change).__name__ for change in it.book.changes] == ["AttemptRecord"]
