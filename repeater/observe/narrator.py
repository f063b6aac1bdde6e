"""What `rpr apply` says about the jobs, one line a fact: the words only, no decision about where they go.

Quiet by default: what the commands print is what people want to see, so successes and ordinary starts are not told
unless asked for. Called as a listener of events; gives each line to `say`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from repeater.model.events import (
    Draining,
    Event,
    FaultContained,
    GenerationBegan,
    JobChanged,
    JobDone,
    JobPaused,
    JobReady,
    JobRemoved,
    JobResumed,
    Paced,
    ReloadRejected,
    RunAdopted,
    RunBegan,
    RunFinished,
    SlotDecided,
    SlotHeld,
    SlotsMissed,
    StopBegan,
    Warned,
)
from repeater.model.run import RunRecord
from repeater.model.units import format_duration

Say = Callable[[str, str], None]
"""Takes the name of a job, empty for the supervisor itself, and a line without newline."""


_CHANGED = {
    "in_place": "changed, at once",
    "next_run": "changed, from its next run on",
    "retime": "changed, with a new next start",
    "restart": "changed, restarting",
    "move": "renamed",
}


class Narrator:
    """`verbose` tells every start and end; `quiet` only what went wrong."""

    def __init__(self, say: Say, *, verbose: bool = False, quiet: bool = False) -> None:
        self._say = say
        self._verbose = verbose
        self._quiet = quiet
        self._overlapping: set[str] = set()

    def __call__(self, event: Event) -> None:
        match event:
            case RunFinished(run, verdict, _, retry_at):
                self._overlapping.discard(run.slot.job)
                if retry_at is not None:
                    self._say(
                        run.slot.job, f"attempt {run.attempt} failed: {verdict.reason}; again at {_time(retry_at)}"
                    )
                elif not verdict.success:
                    self._say(run.slot.job, f"failed: {verdict.reason}")
                elif self._verbose:
                    self._say(run.slot.job, "succeeded")
            case SlotDecided(row):
                self._decided(row)
            case SlotsMissed(job, count, first, last, at_least):
                show = _day_and_time if last - first >= timedelta(days=1) else _time
                between = show(first) if first == last else f"{show(first)} to {show(last)}"
                number = f"at least {count}" if at_least else str(count)
                self._say(job, f"missed {number} start{'s' * (count > 1)} ({between})")
            case Warned(job, message):
                self._say(job, f"warning: {message}")
            case FaultContained(owner, job, name, error, count):
                again = f" ({count} times)" if count > 1 else ""
                self._say(job, f"internal error in {owner}" + (f" `{name}`" if name else "") + f"{again}: {error}")
            case ReloadRejected(generation, reason):
                self._say("", f"change rejected, generation {generation} stays in force:\n{reason}")
            case _ if not self._quiet:
                self._tell(event)
            case _:
                pass

    def _tell(self, event: Event) -> None:
        match event:
            case GenerationBegan(generation, added, changed, removed, kept) if generation and (
                changed or removed or kept
            ):
                parts = ((added, "added"), (changed, "changed"), (removed, "removed"), (kept, "unchanged"))
                what = ", ".join(f"{count} {word}" for count, word in parts if count)
                self._say("", f"generation {generation} in force: {what}")
            case Draining(level, jobs) if jobs:
                how = {"drain": "waiting for", "stop": "stopping", "kill": "killing"}[level]
                more = "; Ctrl-C again stops now" if level == "drain" else ""
                self._say("", f"{how} {_list(jobs)}{more}")
            case JobChanged(job, reload):
                self._say(job, _CHANGED.get(reload, "changed"))
            case JobRemoved(job):
                self._say(job, "removed")
            case JobDone(job, reason):
                self._say(job, f"done: {reason}")
            case JobPaused(job, reason, until):
                end = f" until {_time(until)}" if until else ""
                self._say(job, f"paused{end}" + ("" if reason == "paused" else f": {reason}"))
            case JobResumed(job, reason):
                self._say(job, "resumed" if reason == "asked" else f"resumed: {reason}")
            case JobReady(job, ready, reason):
                self._say(job, "ready" if ready else f"not ready: {reason}")
            case StopBegan(job, _, signal, reason) if self._verbose or reason not in ("stopped", "removed"):
                self._say(job, f"sending {signal}: {reason}")
            case SlotHeld(job, _, _, reason) if self._verbose:
                self._say(job, f"waits: {reason}")
            case Paced(job, _, words) if self._verbose:
                self._say(job, words)
            case RunAdopted(run, pid):
                self._say(run.slot.job, f"goes on, pid {pid}")
            case RunBegan(run, pid, late) if self._verbose:
                self._say(run.slot.job, f"started, pid {pid}" + (f", {late:.1f} s late" if late > 1 else ""))
            case _:
                pass

    def _decided(self, row: RunRecord) -> None:
        if row.state == "skipped" and row.reason == "missed" and not self._verbose:
            return  # told once for all of them
        if row.state == "skipped" and row.reason == "overlap":
            if row.job not in self._overlapping:  # told once for each run that goes on too long
                self._overlapping.add(row.job)
                self._say(row.job, "skipped: the run before is still going on")
        elif row.state in ("skipped", "expired", "interrupted"):
            self._say(row.job, f"{row.state}: {row.reason}")
        elif row.state == "replaced" and self._verbose:
            took = row.ended - row.started if row.ended and row.started else None
            self._say(row.job, f"{row.reason}" + (f" after {format_duration(took)}" if took else ""))


def priority(event: Event) -> int:
    """How urgent an event is, as syslog(3) counts: 3 an error, 4 a warning, 6 information."""
    match event:
        case ReloadRejected() | FaultContained():
            return 3
        case RunFinished(verdict=verdict) if not verdict.success:
            return 4
        case Warned() | SlotDecided():
            return 4
        case _:
            return 6


def _time(instant: object) -> str:
    return f"{instant.astimezone():%H:%M:%S}" if hasattr(instant, "astimezone") else str(instant)


def _day_and_time(instant: datetime) -> str:
    return f"{instant.astimezone():%Y-%m-%d %H:%M:%S}"


def _list(names: tuple[str, ...]) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
