"""The messages and the counts of a one-off command.

By default rpr prints nothing, because standard output and error belong to the command. It reports only start errors,
timeouts and warnings, which the command cannot print itself. A listener of events.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from repeater.model.events import Event, RunFinished, SlotDecided, SpawnRejected, Warned
from repeater.model.reasons import Reason
from repeater.model.run import RunKind, SlotRecord
from repeater.model.units import format_approx
from repeater.policy.exit_status import Tally
from repeater.ports import Stream

if TYPE_CHECKING:
    from repeater.engine.job import Job


class RunSummary:
    """Counts runs. `log` gets a line for each start error and timeout."""

    def __init__(self, log: Callable[[str], None], warn: Callable[[str], None] | None = None) -> None:
        self.tally = Tally()
        self._log = log
        self._warn = warn or (lambda message: log(f"warning: {message}"))
        self._first: datetime | None = None
        self._last: datetime | None = None
        self._lengths: list[timedelta] = [timedelta.max, timedelta(0), timedelta(0)]  # shortest, sum, longest
        self._refusal = 126  # the exit code of a shell that could not start the command either

    def __call__(self, event: Event) -> None:
        match event:
            case RunFinished():
                verdict, code = event.verdict, event.exit
                timed_out = verdict.reason.code == "timeout"
                refusal = 0 if code is not None or verdict.success else self._refusal
                self.tally.count(success=verdict.success, exit_code=code, refusal=refusal, timed_out=timed_out)
                if refusal or timed_out:
                    self._log(sentence_of(verdict.reason))
            case SlotDecided():
                self._measure(event.row)
            case SpawnRejected(_, reason, exit_code, temporary):
                self._refusal = exit_code
                if temporary:
                    self._warn(f"{sentence_of(reason)}; retrying")
            case Warned(_, reason):
                self._warn(sentence_of(reason))
            case _:
                pass

    def _measure(self, row: SlotRecord) -> None:
        if row.started is None or row.ended is None:
            return
        self._first = self._first or row.started
        self._last = row.ended
        length = row.ended - row.started
        shortest, total, longest = self._lengths
        self._lengths = [min(shortest, length), total + length, max(longest, length)]

    def counts(self, job: Job | None) -> str:
        """The text that `--stats-only` and `--verbose` print at the end, one line per figure."""
        tally = self.tally
        runs = tally.successes + tally.failures
        shortest, total, longest = self._lengths
        lines = [f"runs: {runs}", f"succeeded: {tally.successes}", f"failed: {tally.failures}"]
        if self._first is not None and self._last is not None:
            lines.append(f"took: {format_approx((self._last - self._first).total_seconds())}")
            if runs:
                low, mean, high = (format_approx(one.total_seconds()) for one in (shortest, total / runs, longest))
                lines.append(f"a run: {low} to {high}, {mean} on average")
        lines += [] if job is None else [f"{name}: {value}" for name, value in pace_of(job)]
        return "\n".join(lines) + "\n"


def pace_of(job: Job) -> Iterator[tuple[str, str]]:
    """The numbers of due and skipped slots, and the current and the average interval if there are any."""
    yield "planned", str(job.planned)
    yield "skipped", str(job.progress.skipped)
    for name, length in (("interval", job.interval), ("average interval", job.starts.average)):
        if length:
            yield name, format_approx(length.total_seconds())


def sentence_of(reason: Reason) -> str:
    """The sentence of a reason. Imported late, because most commands need none. Without descriptors it is minimal."""
    try:
        from repeater.sentences import sentence
    except (ImportError, OSError):
        import errno

        number = getattr(errno, str(reason.detail.get("errno")), None)
        cause = os.strerror(number) if isinstance(number, int) else reason.code
        return f"cannot start `{reason.detail.get('program', '')}`: {cause}"
    return sentence(reason)


class NullSink:
    """Replaces `output.router.OutputRouter` when the runs write to rpr's own descriptors."""

    def begin(self, run: str, spec: object, kind: RunKind = "run") -> None:
        pass

    def write(self, run: str, stream: Stream, data: bytes) -> bool:  # noqa: ARG002
        return True

    def finish(self, run: str) -> frozenset[str]:  # noqa: ARG002
        return frozenset()


def line_printer(fd: int, text: str) -> None:
    """Write a message of rpr. Errors are ignored."""
    remaining = text.encode("utf-8", "backslashreplace")
    with contextlib.suppress(OSError):
        while remaining:
            remaining = remaining[os.write(fd, remaining) :]


def stamped(text: str) -> str:
    """A line for a log file."""
    return f"{datetime.now(UTC).isoformat(timespec='milliseconds').replace('+00:00', 'Z')} {text}\n"
