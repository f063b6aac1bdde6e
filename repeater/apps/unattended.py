"""Live runs without a supervisor: those that a shim owns, with their jobs from the history."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from repeater._lazy_dataclasses import dataclass
from repeater.apps.recovery import SHIM_FOLDER
from repeater.errors import RepeaterError

if TYPE_CHECKING:
    from repeater.apps.doctor import CheckResult
    from repeater.apps.locate import Records, SupervisorSelector
    from repeater.model.run import SlotRecord
    from repeater.processes.unattended_shim import UnattendedRuns


@dataclass(frozen=True, slots=True)
class LiveRun:
    """A run without a supervisor. `row` is its slot in the history; None for a hook or a probe."""

    run: str
    pid: int
    since: datetime
    row: SlotRecord | None

    @property
    def job(self) -> str | None:
        return None if self.row is None else self.row.job


@dataclass(frozen=True, slots=True)
class Unattended:
    """The runs that go on, and the pid of the shim that looks after them; None if there is no shim."""

    shim: int | None = None
    runs: tuple[LiveRun, ...] = ()


def unattended_runs(found: Records) -> Unattended:
    """The live runs of a project without a supervisor. Raises Unreachable if the shim does not answer."""
    from repeater.processes.unattended_shim import UnattendedRuns
    from repeater.store.state_dir import owner_of

    if owner_of(found.state) is not None:  # a supervisor that begins or ends
        return Unattended()
    try:
        with UnattendedRuns(found.state / SHIM_FOLDER) as shim:
            return Unattended(shim.pid, _with_rows(shim, found))
    except FileNotFoundError:
        return Unattended()


def end_unattended_runs(found: Records, *, kill: bool) -> tuple[LiveRun, ...]:
    """End the live runs of a project without a supervisor, and return them. No supervisor can start meanwhile.

    Raises LockHeld, Unreachable, or RepeaterError if processes are left.
    """
    from repeater.processes.unattended_shim import UnattendedRuns
    from repeater.store.state_dir import Lock

    if not found.state.is_dir():
        return ()
    lock = Lock(found.state)
    try:
        with UnattendedRuns(found.state / SHIM_FOLDER) as shim:
            runs = _with_rows(shim, found)
            endings = {spec.name: spec.ending for spec in found.specs}
            stops = {
                one.run: (endings[one.job].stop_signal, endings[one.job].stop_timeout.total_seconds())
                for one in runs
                if one.job in endings
            }
            if not shim.end(stops, kill=kill):
                raise RepeaterError("cannot end the runs: some processes are still alive", hint="try `rpr down --kill`")
            return runs
    except FileNotFoundError:
        return ()
    finally:
        lock.release()


def _with_rows(shim: UnattendedRuns, found: Records) -> tuple[LiveRun, ...]:
    open_rows = {row.run: row for row in found.rows(None, 100_000, outcomes=("running",))}
    return tuple(
        LiveRun(one.run, one.pid, datetime.fromtimestamp(one.began, UTC), open_rows.get(one.run)) for one in shim.runs
    )


def unattended_checks(where: SupervisorSelector) -> Iterator[CheckResult]:
    """What `rpr doctor` says about the runs that go on without a supervisor."""
    from repeater.apps.doctor import CheckResult
    from repeater.apps.locate import records

    try:
        with records(where) as known:
            left = None if known is None else unattended_runs(known)
    except RepeaterError as error:
        yield CheckResult("runs", "bad", error.message)
        return
    if left is not None and left.runs:
        names = ", ".join(f"`{one.job or one.run}` (pid {one.pid})" for one in left.runs[:5])
        more = f" and {len(left.runs) - 5} more" if len(left.runs) > 5 else ""
        verb = "runs" if len(left.runs) == 1 else "run"
        words = f"{names}{more} {verb} without a supervisor, kept by the shim (pid {left.shim})"
        yield CheckResult("runs", "note", f"{words}: the next `rpr apply` takes over, `rpr down` stops")
