"""A process that may not start another thread: a clear error, and everything else goes on."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from repeater.control.commands import VERBS
from repeater.control.context import Busy
from repeater.errors import StateUnavailable
from repeater.model.history_meta import HistoryMeta
from repeater.model.spec import JobSpec, ProcessSpec
from repeater.store.store import SqliteStore


def refuse(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


async def nothing(*_: Any) -> None:
    pass


@pytest.mark.parametrize(
    ("verb", "args"),
    [
        ("history", {"jobs": (), "outcomes": (), "limit": None, "since": None, "until": None}),
        ("history", {"jobs": ("a",), "outcomes": (), "limit": None, "since": None, "until": None}),
        ("why", {"job": "a", "at": "03:00"}),
    ],
)
def test_a_question_to_the_history_without_a_thread_is_a_clear_error(
    monkeypatch: pytest.MonkeyPatch, verb: str, args: dict[str, Any]
) -> None:

    job = SimpleNamespace(spec=JobSpec("a", ProcessSpec("true")))
    desk = SimpleNamespace(
        engine=SimpleNamespace(jobs={"a": job}),
        jobs=lambda _: [job],
        meta=HistoryMeta,
        rows=lambda *_, **__: [],
        now=lambda: datetime.now(UTC),
    )
    loop = asyncio.new_event_loop()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with (
        contextlib.closing(loop),
        pytest.raises(Busy, match="cannot answer: the supervisor has reached its limit of processes") as caught,
    ):
        loop.run_until_complete(VERBS[verb].run(desk, args, nothing))  # type: ignore[arg-type]
    assert caught.value.hint
    assert "ulimit -u" in caught.value.hint


def test_a_store_without_a_thread_is_refused_and_frees_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(StateUnavailable, match="no thread can be started for it"):
            SqliteStore(tmp_path / "state", lambda call: call())
    SqliteStore(tmp_path / "state", lambda call: call()).close()
