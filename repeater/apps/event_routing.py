"""The way of events and messages of a supervisor: console, event log, metrics, plugins, systemd, stored output."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from repeater.control.commands.events import as_item
from repeater.model.events import Draining, Event, FaultContained, GenerationApplied, RunFinished, SlotDecided, Warned
from repeater.model.reasons import Reason
from repeater.model.time import rfc3339
from repeater.output.event_log import Entry, EventLog
from repeater.output.event_printer import EventPrinter, priority
from repeater.output.terminal import RED, json_line, visible_lines
from repeater.output.terminal import colored as in_color

if TYPE_CHECKING:
    from repeater.apps.options import SupervisorOptions
    from repeater.output.run_store import RunStore
    from repeater.ports import Clock
    from repeater.system.sd_notify import SystemdNotifier

Listener = Callable[[Event], None]
_INFO, _WARNING = 6, 4
_LEVELS = {3: "error", 4: "warning"}


class EventRouter:
    """Passes each event to all listeners, in the order in which they were added.

    `log` keeps the recent events. `write` writes a line to the console. `to_journal` adds the priority prefix of
    journald. `colored` shows failures in red. `fault` gets an exception of a listener and the name of the listener.
    """

    def __init__(
        self,
        clock: Clock,
        options: SupervisorOptions,
        write: Callable[[str], None],
        fault: Callable[[str, Exception], None],
        *,
        to_journal: bool,
        colored: bool = False,
    ) -> None:
        self.log = EventLog(clock)
        self._clock = clock
        self._is_json = options.log_format == "json"
        self._write = write
        self._fault = fault
        self._to_journal = to_journal
        self._is_colored = colored
        printer = EventPrinter(self.say, verbose=options.verbose, quiet=options.quiet)
        self._listeners: list[tuple[str, Listener]] = [("console", printer), ("event log", self.log)]

    def add(self, name: str, listener: Listener) -> None:
        """Pass each later event to `listener` too."""
        self._listeners.append((name, listener))

    def __call__(self, event: Event) -> None:
        """Pass an event on. An exception of one listener does not keep the event from the others."""
        for name, listener in self._listeners:
            try:
                listener(event)
            except Exception as error:  # noqa: BLE001
                self._fault(name, error)

    def warn(self, reason: Reason, job: str = "") -> None:
        """Report a warning about a job, or about the supervisor itself."""
        self(Warned(job, reason))

    def say(self, job: str, line: str, event: Event | None = None) -> None:
        """Write a message of rpr to the console. `event` is the event that the message describes."""
        urgency = _INFO if event is None else priority(event)
        if self._is_json:
            text = self._as_json(job, line, urgency, event)
        else:
            text = visible_lines(f"rpr: {job}: {line}" if job else f"rpr: {line}")
            if self._is_colored and urgency <= _WARNING and isinstance(event, RunFinished | FaultContained):
                text = in_color(text, RED)
        if self._to_journal:
            text = "\n".join(f"<{urgency}>{part}" for part in text.split("\n"))
        self._write(text)

    def _as_json(self, job: str, line: str, urgency: int, event: Event | None) -> str:
        """One object: time, level, message, and the fields of the event."""
        now = self._clock.now().wall
        fields = {} if event is None else as_item(Entry(now, event))
        item = {"time": rfc3339(now), "level": _LEVELS.get(urgency, "info"), "message": line}
        if job:
            item["job"] = job
        # The `level` of a shutdown event is the shutdown mode. It must not replace the level of the message.
        return json_line(item | {key: fields[key] for key in fields if key not in item})


def status_notifier(notify: SystemdNotifier, status: Callable[[], str]) -> Listener:
    """Reports the generation and the shutdown to systemd."""

    def listen(event: Event) -> None:
        match event:
            case GenerationApplied():
                notify.status(status())
            case Draining():
                notify.stopping("leaving")

    return listen


def output_retention(runs: RunStore) -> Listener:
    """Decides how long the output of a run stays on disk: it depends on the result of the run."""

    def listen(event: Event) -> None:
        match event:
            case RunFinished(run, verdict):
                runs.decide(run.id, failed=not verdict.success)
            case SlotDecided(row):
                if row.run is not None:
                    runs.decide(row.run, failed=row.outcome in ("failed", "interrupted"))

    return listen
