"""Unexpected exceptions, each with its owner: what failed, how often, and since when.

An exception that no code expects belongs to one probe, connection, watch, hook, plugin, run or job. The owner is
stopped or tried again. This module keeps the record for `status`, `why` and `health`, announces each fault to the
listeners, and writes the traceback to the log. A fault of the engine or the store is not kept here: it ends the
supervisor.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from repeater._lazy_dataclasses import dataclass
from repeater.model.events import Event, FaultContained, FaultOwner
from repeater.ports import Clock

MOST = 200
"""Faults that are kept: one for each owner and kind of exception."""
QUIET = timedelta(minutes=1)
"""How long the same fault is only counted after it was announced."""
FRESH = timedelta(minutes=10)
"""How long a fault counts as recent."""


class SupervisorFault(Exception):
    """A fault of the engine or the store, its cause. Nothing that they say can be relied on, so the supervisor ends."""


@dataclass(slots=True)
class FaultRecord:
    """A kind of fault of one owner. `name` is the callback or object; `job` is empty if it belongs to no job."""

    owner: FaultOwner
    job: str
    name: str
    error: str
    count: int
    first: datetime
    last: datetime
    announced: datetime


class Faults:
    """`log` gets a traceback, which has many lines; `listen` the event. Used in the loop's thread."""

    def __init__(self, clock: Clock, listen: Callable[[Event], None], log: Callable[[str], None]) -> None:
        self._clock = clock
        self._listen = listen
        self._log = log
        self._records: dict[tuple[str, str, str, str], FaultRecord] = {}
        self._is_reporting = False

    def report(self, owner: FaultOwner, error: BaseException, *, job: str = "", name: str = "") -> None:
        """Keep a fault, and announce it unless the same one was announced within `QUIET`. Never raises an Exception."""
        if self._is_reporting:
            return  # a listener failed while it handled a fault
        self._is_reporting = True
        try:
            self._report(owner, error, job, name)
        except Exception:  # noqa: BLE001, S110 - the log itself failed, and there is no other place to write to
            pass
        finally:
            self._is_reporting = False

    def recent(self, job: str | None = None) -> list[FaultRecord]:
        """The faults of the last ten minutes, newest first; of one job only, if it is given."""
        since = self._clock.now().wall - FRESH
        found = [one for one in self._records.values() if one.last >= since and job in (None, one.job)]
        return sorted(found, key=lambda one: one.last, reverse=True)

    def _report(self, owner: FaultOwner, error: BaseException, job: str, name: str) -> None:
        now = self._clock.now().wall
        text = describe(error)
        key = owner, job, name, type(error).__name__
        record = self._records.pop(key, None)
        if record is None:
            record = FaultRecord(owner, job, name, text, 0, now, now, now - 2 * QUIET)
            while len(self._records) >= MOST:
                del self._records[next(iter(self._records))]
        self._records[key] = record
        record.count += 1
        record.last, record.error = now, text
        if now - record.announced < QUIET:
            return
        record.announced = now
        import traceback

        self._log("".join(traceback.format_exception(error)).rstrip("\n"))
        self._listen(FaultContained(owner, job, name, text, record.count))


def describe(error: BaseException) -> str:
    """The kind of an exception and its text, on one line."""
    from repeater.errors import one_line

    text = one_line(str(error))[:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


_OWNERS: tuple[tuple[str, FaultOwner], ...] = (
    ("repeater.system.net_probe", "probe"), ("repeater.supervisor.probes", "probe"),
    ("repeater.system.file_watcher", "watch"),
    ("repeater.system.ratelimit_client", "limit"),
    ("repeater.system.signals", "signal"),
    ("repeater.worker", "reload"), ("repeater.apps.reload_client", "reload"), ("repeater.supervisor.reload", "reload"),
    ("repeater.processes", "run"),
    ("repeater.control", "connection"), ("repeater.wire", "connection"), ("repeater.apps.http_service", "connection"),
    ("repeater.plugins", "plugin"),
    ("repeater.output", "output"),
)  # fmt: skip
_STORE = "repeater.store"


def owner_of(error: BaseException) -> tuple[FaultOwner | None, str]:
    """Whose code raised an exception that reached the event loop, by the innermost module of repeater in its traceback,
    and the name of the function. None: the store's, which ends the supervisor.
    """
    module = name = ""
    trace = error.__traceback__
    while trace is not None:
        found = trace.tb_frame.f_globals.get("__name__", "")
        if found.startswith("repeater."):
            module, name = found, trace.tb_frame.f_code.co_qualname
        trace = trace.tb_next
    if module.startswith(_STORE):
        return None, name
    return next((owner for prefix, owner in _OWNERS if module.startswith(prefix)), "service"), name
