"""Takes the exit status of each child, and finds out when the process group of a run is empty.

The shim is a subreaper, so orphans below it become its children. It reaps them too. A group that outlives its leader
is polled: its other members may be children of processes of the run, whose exit the shim does not see.
"""

from __future__ import annotations

import os
import time

from repeater.shim import process_tree
from repeater.shim.spawn import usage_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from repeater.shim.run import ManagedRun

GROUP_POLL_S = 0.25


class Reaper:
    """`is_spawning` says whether a process may exist whose start is not reported yet. `on_exited` is called when the
    first process of a run has exited, `on_group_empty` when a group that outlived it has become empty.
    """

    def __init__(
        self,
        is_spawning: Callable[[], bool],
        on_exited: Callable[[ManagedRun], None],
        on_group_empty: Callable[[ManagedRun], None],
        call_later: Callable[[float, Callable[[], None]], None],
    ) -> None:
        self._is_spawning = is_spawning
        self._on_exited = on_exited
        self._on_group_empty = on_group_empty
        self._call_later = call_later
        self._by_pid: dict[int, ManagedRun] = {}
        self._lingering: dict[str, ManagedRun] = {}  # the leader has exited, the group is not empty
        self._early: dict[int, tuple[int, tuple[int, int]]] = {}  # exits of processes whose start is not reported yet
        self._is_poll_pending = False

    def add(self, run: ManagedRun) -> None:
        """Wait for the first process of this run. It may have exited already."""
        early = self._early.pop(run.pid, None)
        if early is None:
            self._by_pid[run.pid] = run
        else:
            self._set_exit(run, *early)

    def remove(self, run: ManagedRun) -> None:
        """Do not wait for the group of this run any more."""
        self._lingering.pop(run.run, None)

    def forget_early_exits(self) -> None:
        """All starts are reported, so these exits were those of orphans."""
        self._early.clear()

    def reap(self) -> None:
        """Reap every child that has exited."""
        has_orphans = False
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                break
            if found is None:
                break
            try:
                _, status, used = os.wait4(found.si_pid, 0)
            except ChildProcessError:  # its exec failed, and the C library reaped it in a thread of the pool
                continue
            run = self._by_pid.pop(found.si_pid, None)
            if run is not None:
                self._set_exit(run, status, usage_of(used))
            else:
                has_orphans = True
                if self._is_spawning():
                    self._early[found.si_pid] = status, usage_of(used)
        if has_orphans and self._lingering:
            self._poll_groups(sees_zombies=True)

    def _set_exit(self, run: ManagedRun, status: int, usage: tuple[int, int]) -> None:
        memory, cpu = (None, None) if run.fence is None else run.fence.usage()
        run.memory, run.cpu = usage[0] if memory is None else memory, usage[1] if cpu is None else cpu
        run.status, run.ended, run.ended_mono = status, time.time(), time.monotonic_ns() // 1000
        run.empty = not process_tree.group_is_alive(run.pid, reaped=True) and not run.cgroup_is_populated
        self._on_exited(run)
        if not run.settled and not run.empty:
            self._lingering[run.run] = run
            self._poll_soon()

    def _poll_soon(self) -> None:
        if not self._is_poll_pending:
            self._is_poll_pending = True
            self._call_later(GROUP_POLL_S, self._poll)

    def _poll(self) -> None:
        self._is_poll_pending = False
        self._poll_groups(sees_zombies=False)
        if self._lingering:
            self._poll_soon()

    def _poll_groups(self, *, sees_zombies: bool) -> None:
        """Find the groups that have become empty. With `sees_zombies` a group of zombies counts as alive, which needs
        no search in /proc.
        """
        in_cgroup = {run.run for run in self._lingering.values() if run.cgroup_is_populated}
        alive = [
            run
            for run in self._lingering.values()
            if run.run in in_cgroup or process_tree.group_is_alive(run.pid, reaped=True)
        ]
        if alive and not sees_zombies:
            groups = {member.group for member in process_tree.descendants(os.getpid(), token=False)}
            alive = [run for run in alive if run.run in in_cgroup or run.pid in groups]
        for name in self._lingering.keys() - {run.run for run in alive}:
            run = self._lingering.pop(name)
            run.empty = True
            self._on_group_empty(run)
