"""Every JSON value in every field of both protocol versions: an error, or an answer that can be kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from repeater.ratelimitd.protocol import read_message
from repeater.sentences import sentence
from repeater.store.rate_limits import RateLimitStore
from repeater.wire.json_lines import BadMessage
from tests.unit.ratelimitd.clients import Desk

VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2**31, 2**53, 2**63, 2**64, -(2**63) - 1, 10**30, 1.5, -0.0, 1e308, 5e-324, "", "x", "0",
    "x" * 256, "x" * 257, "\0", "\ud800", "a\udfff", "\ud83d\ude00", "\x1b[31m", "ﬀ", [], [None], [0], [-1], [1.5],
    [2**63], ["\ud800"], [[[]]], list(range(65)), {}, {"a": {}}, [{}], [{"resource_id": "\ud800", "scheduled_at": 1}],
    [{"resource_id": "api", "scheduled_at": 2**53, "expires_at": 2**53}],
    [{"resource_id": "new", "scheduled_at": 1_795_448_030, "expires_at": 2**53}],
    [{"resource_id": "api", "scheduled_at": 1}, {"resource_id": ""}],
]  # fmt: skip

MESSAGES: dict[str, dict[str, Any]] = {
    "handshake": {"type": "handshake", "version": "1.1", "client": "c", "client_id": "c-1"},
    "schedule": {
        "type": "schedule_request", "resource_id": "api", "rate_limit": 3, "window_ms": 5000, "retry_offsets": [0, 1000],
        "request_time": 1_795_448_037,
    },
    "register": {
        "type": "register_request",
        "requests": [{"id": "a", "resource_id": "api", "scheduled_at": 1_795_448_037, "expires_at": 1_795_451_637}],
    },
    "reserve": {
        "type": "reserve_request", "id": "1", "resource_id": "api", "rate_limit": 3, "window_ms": 5000,
        "retry_offsets": [0, 1000], "force": False,
    },
    "next attempt": {"type": "reserve_request", "id": "2", "resource_id": "api", "reservation": "r-1"},
    "start": {"type": "start_notice", "reservation": "r-1", "ago_ms": 1, "started": True},
    "start alone": {"type": "start_notice", "resource_id": "api", "rate_limit": 3, "window_ms": 5000, "ago_ms": 1},
    "release": {"type": "release_request", "reservation": "r-1"},
    "withdraw": {"type": "release_request", "id": "w"},
    "push back": {
        "type": "push_back_notice", "resource_id": "api", "rate_limit": 3, "window_ms": 5000, "delay_ms": 10, "reason": "429",
    },
    "stats": {"type": "stats_request"},
    "metrics": {
        "command": "c", "command_hash": "h", "final_status": "failed", "total_duration_seconds": 1.5, "total_attempts": 3,
        "failed_attempts": 3,
    },
}  # fmt: skip


def variants() -> list[tuple[str, dict[str, Any]]]:
    found = []
    for name, message in MESSAGES.items():
        for field in [*message, "id", "resource_id", "reservation"]:
            found += [(f"{name}.{field}", {**message, field: value}) for value in VALUES]
            found.append((f"{name}.{field}", {key: value for key, value in message.items() if key != field}))
    return found


def snapshot(desk: Desk) -> Any:
    """All that a message could change."""
    book = desk.book
    ledgers = [
        (one.name, one.rate, one.known, one.reason, list(one.queue), one.ledger._attempts[:], one.ledger._flying,
         one.ledger.not_before, one.ledger.count, one.ledger.window, one.grants, one.starts)
        for one in book._ledgers
    ]  # fmt: skip
    clients = [(number, sorted(who.waiting), sorted(who.reservations)) for number, who in book._clients.items()]
    held = [(one.resource.name, list(one.attempts), one.registered) for one in book._first._held]
    return ledgers, clients, held, list(book.changes), list(book.outbox), list(book._unconfirmed), book._runs.figures()


def desk() -> Desk:
    """One reservation that flies, one request that waits, one promise to a 1.0 client."""
    found = Desk(at=50)
    found.tell(1, "reserve_request", id="0", resource_id="api", rate_limit=3, window_ms=5000, retry_offsets=[0, 1000])
    found.tell(1, "reserve_request", id="w", resource_id="w", rate_limit=1, window_ms=5000)
    found.tell(1, "reserve_request", id="w2", resource_id="w", rate_limit=1, window_ms=5000)
    found.send(2, json.dumps(MESSAGES["schedule"]))
    return found


def test_a_refused_message_changes_nothing_and_a_taken_one_can_be_kept(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    kept = RateLimitStore(folder)
    refused = taken = 0
    for where, message in variants():
        it = desk()
        kept.apply(it.book.changes)
        it.book.changes = []
        before = snapshot(it)
        try:
            it.book.handle(1, read_message(json.dumps(message).encode()), it.now)
        except BadMessage as error:
            refused += 1
            if snapshot(it) != before:
                pytest.fail(f"{where}: {message} was refused ({error.message}) and changed something")
        else:
            taken += 1
            kept.apply(it.book.changes)
            for _, line in it.book.outbox:
                assert json.loads(line)["type"] != "error"
            it.run_to(1e6)
            kept.apply(it.book.changes)
    kept.close()
    again = RateLimitStore(folder)
    again.load()
    again.close()
    assert refused > 500
    assert taken > 200


def test_a_schedule_request_is_always_answered_with_a_schedule_response() -> None:
    for offsets in ([0, 600_000, 1_800_000], [0, 1, 2], list(range(100)), [-5, 0], [10**17]):
        it = Desk()
        answer = it.tell(
            1, "schedule_request", resource_id="api", rate_limit=1, window_ms=3_600_000, retry_offsets=offsets,
            request_time=1_795_448_037,
        )  # fmt: skip
        assert answer[0]["type"] == "schedule_response"
        assert answer[0]["can_schedule"] is True
        assert it.figures()["used"] + it.figures()["reserved"] == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"window_ms": 0},
        {"rate_limit": 10**9},
        {"window_ms": 10**15},
        {"resource_id": "cmd-" + "x" * 1000},
        {"retry_offsets": None},
    ],
)
def test_values_of_a_1_0_client_out_of_bounds_are_counted_with_the_nearest(fields: dict[str, Any]) -> None:
    (answer,) = Desk().send(1, json.dumps({**MESSAGES["schedule"], **fields}))
    assert answer["type"] == "schedule_response"


def test_attempts_that_never_fit_are_dropped_and_logged() -> None:
    it = Desk()
    it.tell(
        1, "schedule_request", resource_id="api", rate_limit=2, window_ms=5000, retry_offsets=[0, 10, 20, 6000],
        request_time=1_795_448_037,
    )  # fmt: skip
    assert it.figures()["reserved"] + it.figures()["used"] == 3
    (warning,) = it.book.warnings
    assert sentence(warning) == (
        "a 1.0 client requested 4 attempts of `api`; 1 of them exceed its limit of 2 and are not counted"
    )


def test_a_full_daemon_answers_a_1_0_client_and_logs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("repeater.ratelimitd.resources.MOST_RESOURCES", 0)
    it = Desk()
    (answer,) = it.send(1, json.dumps(MESSAGES["schedule"]))
    assert (answer["type"], answer["can_schedule"]) == ("schedule_response", False)
    assert "is not counted: cannot store more than 0 resources" in sentence(it.book.warnings[0])
