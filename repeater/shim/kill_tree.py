"""Signals and kills process trees: of one run, of several at once, or of every run before the shim exits.

A kill repeats the search in /proc until nothing of the tree is found, because a process may fork while it is
searched for. Runs that are killed at the same time share the searches.
"""

from __future__ import annotations

import os
import signal
import time

from repeater.shim import process_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from repeater.shim.run import ManagedRun

_TIMEOUT_S = 5.0
BACKOFF_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05)
"""Time between searches."""


class RunKiller:
    """`on_killed` is called with the run when nothing of its tree is found any more, or after five seconds.

    `is_spawning` says whether a process may exist whose start is not reported yet. `on_all_killed` is called at the
    end of `kill_all`.
    """

    def __init__(
        self,
        runs: Mapping[str, ManagedRun],
        call_later: Callable[[float, Callable[[], None]], None],
        is_spawning: Callable[[], bool],
        on_killed: Callable[[str], None],
        on_all_killed: Callable[[], None],
    ) -> None:
        self._runs = runs
        self._call_later = call_later
        self._is_spawning = is_spawning
        self._on_killed = on_killed
        self._on_all_killed = on_all_killed
        self._deadlines: dict[str, float] = {}  # of the runs that are being killed
        self._signals: dict[int, int] = {}  # to other groups of a session
        self._searches = 0
        self._deadline_of_all = 0.0
        self.kills_all = False

    def signal(self, run: ManagedRun, name: str) -> None:
        """Signal the group of the first process. The rest of its session follows with `send_signals`."""
        number = getattr(signal, f"SIG{name}")
        reaped = run.status is not None
        process_tree.signal_group(run.pid, number, reaped=reaped)
        if session := process_tree.session_of(run.pid, reaped=reaped):
            self._signals[session] = number

    def send_signals(self) -> None:
        """Signal the other groups of sessions, which are rare: one search for all pending signals."""
        if not self._signals:
            return
        numbers, self._signals = self._signals, {}
        for member in process_tree.descendants(os.getpid(), token=False):
            number = numbers.get(member.session)
            if number is not None and member.group != member.session:
                process_tree.send(member, number)
                if number != signal.SIGKILL:
                    process_tree.send(member, signal.SIGCONT)

    def kill(self, run: ManagedRun) -> None:
        self._kill_group(run)
        self._deadlines.setdefault(run.run, time.monotonic() + _TIMEOUT_S)
        self._searches = 0
        self._call_later(0, self._continue)

    def kill_all(self) -> None:
        """Kill every descendant of this process."""
        if not self.kills_all:
            self.kills_all = True
            self._deadline_of_all = time.monotonic() + _TIMEOUT_S
            self._searches = 0
            for run in self._runs.values():
                self._kill_group(run)
            self._continue_all()

    def _kill_group(self, run: ManagedRun) -> None:
        process_tree.signal_group(run.pid, signal.SIGKILL, reaped=run.status is not None)
        if run.fence is not None:
            run.fence.kill()

    def _continue(self) -> None:
        if not self._deadlines or self.kills_all:
            return
        alive = self._kill_found()
        now = time.monotonic()
        for run, deadline in list(self._deadlines.items()):
            if run not in alive or now > deadline:
                del self._deadlines[run]
                self._on_killed(run)
        if self._deadlines:
            self._call_later(self._next_delay(), self._continue)

    def _next_delay(self) -> float:
        delay = BACKOFF_S[min(self._searches, len(BACKOFF_S) - 1)]
        self._searches += 1
        return delay

    def _kill_found(self) -> set[str]:
        """Kill what belongs to the runs by session, token or parent. Returns the runs of which something was found."""
        sessions, owners, alive = {}, {}, set()
        for name in self._deadlines:
            managed = self._runs.get(name)
            if managed is not None:
                owners[managed.pid] = name
                if managed.cgroup_is_populated:
                    alive.add(name)
                sessions[process_tree.session_of(managed.pid, reaped=managed.status is not None)] = name
        sessions.pop(0, None)
        for member in list(process_tree.descendants(os.getpid())):
            run: str | None = member.token if member.token in self._deadlines else sessions.get(member.session)
            if run is None and member.token not in self._runs:
                run = owners.get(member.parent)
            if run is not None:
                owners[member.pid] = run
                alive.add(run)
                process_tree.send(member, signal.SIGKILL)
        return alive

    def _continue_all(self) -> None:
        found = list(process_tree.descendants(os.getpid(), token=False))
        for member in found:
            process_tree.send(member, signal.SIGKILL)
        if (found or self._is_spawning()) and time.monotonic() < self._deadline_of_all:
            self._call_later(self._next_delay(), self._continue_all)
        else:
            self._on_all_killed()
