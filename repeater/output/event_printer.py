"""The messages of `rpr apply` about the jobs, one line per event.

By default successes and ordinary starts are not printed, because users want to see the output of the jobs. A listener
of events that passes each line to `log`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

from repeater.model.events import (
    Draining,
    Event,
    FaultContained,
    GenerationApplied,
    IntervalChanged,
    JobChanged,
    JobDone,
    JobPaused,
    JobReady,
    JobRemoved,
    JobResumed,
    ReloadRecovered,
    ReloadRejected,
    RunAdopted,
    RunBegan,
    RunFinished,
    RunStopping,
    SlotBlocked,
    SlotDecided,
    SlotsMissed,
    SpawnRejected,
    Warned,
)
from repeater.model.reasons import MISSED, OVERLAP, REMOVED, REQUESTED, STOPPED
from repeater.model.run import SlotRecord
from repeater.model.units import duration_text
from repeater.sentences import sentence

Log = Callable[[str, str, Event], None]
"""Gets the name of a job (empty for the supervisor itself), a line without newline, and the event of the line."""


_CHANGED = {
    "in_place": "changed, effective now",
    "next_run": "changed, effective from its next run",
    "retime": "changed, rescheduled",
    "restart": "changed, restarting",
    "move": "renamed",
}


class EventPrinter:
    """`verbose` prints every start and exit, `quiet` prints problems only."""

    def __init__(self, log: Log, *, verbose: bool = False, quiet: bool = False) -> None:
        self._log = log
        self._verbose = verbose
        self._quiet = quiet
        self._overlapping: set[str] = set()

    def __call__(self, event: Event) -> None:
        for job, line in self._lines(event):
            self._log(job, line, event)

    def _lines(self, event: Event) -> Iterator[tuple[str, str]]:
        match event:
            case RunFinished(run, verdict, _, retry_at):
                self._overlapping.discard(run.slot.job)
                if retry_at is not None:
                    text = f"attempt {run.attempt} failed: {sentence(verdict.reason, _time)}"
                    yield run.slot.job, f"{text}; retrying at {_time(retry_at)}"
                elif not verdict.success:
                    yield run.slot.job, f"failed: {sentence(verdict.reason, _time)}"
                elif self._verbose:
                    yield run.slot.job, "succeeded"
            case SlotDecided(row):
                yield from self._decided(row)
            case SlotsMissed(job, count, first, last, at_least):
                show = _day_and_time if last - first >= timedelta(days=1) else _time
                between = show(first) if first == last else f"{show(first)} to {show(last)}"
                number = f"at least {count}" if at_least else str(count)
                yield job, f"missed {number} start{'s' * (count > 1)} ({between})"
            case Warned(job, reason):
                yield job, f"warning: {sentence(reason, _day_unless_today)}"
            case SpawnRejected(job, reason, _, temporary):
                if temporary:  # otherwise the end of the run is reported too
                    yield job, f"warning: {sentence(reason, _time)}; retrying"
            case FaultContained(owner, job, name, error, count):
                again = f" ({count} times)" if count > 1 else ""
                yield job, f"internal error in {owner}" + (f" `{name}`" if name else "") + f"{again}: {error}"
            case ReloadRejected(generation, reason):
                yield "", f"job files rejected; generation {generation} remains active:\n{sentence(reason, _time)}"
            case ReloadRecovered(generation):
                yield "", f"the job files are valid again, generation {generation} is active"
            case _ if not self._quiet:
                yield from self._minor(event)
            case _:
                pass

    def _minor(self, event: Event) -> Iterator[tuple[str, str]]:
        match event:
            case GenerationApplied(generation, added, changed, removed, kept) if generation and (
                changed or removed or kept
            ):
                parts = ((added, "added"), (changed, "changed"), (removed, "removed"), (kept, "unchanged"))
                what = ", ".join(f"{count} {word}" for count, word in parts if count)
                yield "", f"generation {generation} active: {what}"
            case Draining(level, jobs) if jobs:
                how = {"drain": "waiting for", "stop": "stopping", "kill": "killing"}[level]
                more = "; Ctrl-C again stops now" if level == "drain" else ""
                yield "", f"{how} {_list(jobs)}{more}"
            case JobChanged(job, reload):
                yield job, _CHANGED.get(reload, "changed")
            case JobRemoved(job):
                yield job, "removed"
            case JobDone(job, reason):
                yield job, f"done: {sentence(reason, _time)}"
            case JobPaused(job, reason, until):
                end = f" until {_time(until)}" if until else ""
                text = reason.detail.get("text")
                yield job, f"paused{end}" + (f": {text}" if text else "")
            case JobResumed(job, reason):
                yield job, "resumed" if reason == REQUESTED else f"resumed: {sentence(reason, _time)}"
            case JobReady(job, ready, reason):
                why = "" if reason is None else f": {sentence(reason, _time)}"
                yield job, "ready" if ready else f"not ready{why}"
            case RunStopping(job, _, signal, reason) if self._verbose or reason not in (STOPPED, REMOVED):
                yield job, f"sending {signal}: {sentence(reason, _time)}"
            case SlotBlocked(job, _, _, reason) if self._verbose:
                yield job, f"blocked: {sentence(reason, _time)}"
            case IntervalChanged(job, _, reason) if self._verbose:
                yield job, sentence(reason, _time)
            case RunAdopted(run, pid):
                yield run.slot.job, f"adopted, pid {pid}"
            case RunBegan(run, pid, late) if self._verbose:
                yield run.slot.job, f"started, pid {pid}" + (f", {late:.1f} s late" if late > 1 else "")
            case _:
                pass

    def _decided(self, row: SlotRecord) -> Iterator[tuple[str, str]]:
        if row.state == "skipped" and row.reason == MISSED and not self._verbose:
            return  # reported once for all of them
        why = "" if row.reason is None else sentence(row.reason, _time)
        if row.state == "skipped" and row.reason == OVERLAP:
            if row.job not in self._overlapping:  # reported once for each overlapping run
                self._overlapping.add(row.job)
                yield row.job, "skipped: previous run is still running"
        elif row.state in ("skipped", "expired", "interrupted"):
            yield row.job, f"{row.state}: {why}"
        elif row.state == "replaced" and self._verbose:
            took = row.ended - row.started if row.ended and row.started else None
            yield row.job, why + (f" after {duration_text(took)}" if took else "")


def priority(event: Event) -> int:
    """The syslog(3) level of an event: 3 error, 4 warning, 6 information."""
    match event:
        case ReloadRejected() | FaultContained():
            return 3
        case RunFinished(verdict=verdict) if not verdict.success:
            return 4
        case Warned() | SlotDecided() | SpawnRejected():
            return 4
        case _:
            return 6


def _time(instant: datetime) -> str:
    return f"{instant.astimezone():%H:%M:%S}"


def _day_and_time(instant: datetime) -> str:
    return f"{instant.astimezone():%Y-%m-%d %H:%M:%S}"


def _day_unless_today(instant: datetime) -> str:
    """The time, with the date if it is not today: a wrong clock can be years off."""
    local = instant.astimezone()
    return _time(instant) if local.date() == datetime.now().astimezone().date() else _day_and_time(instant)


def _list(names: tuple[str, ...]) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
