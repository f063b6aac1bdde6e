"""Which outputs of runs stay on disk. Pure: the caller removes what `Retention` returns.

The last runs of each job stay, and each failed run for some days. All outputs together have a largest size. When it is
reached, the oldest outputs of successful runs go first, then the oldest outputs of failed runs, and the newest output
last. Output that is still being written is never removed.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping
from datetime import datetime

from repeater._lazy_dataclasses import dataclass
from repeater.model.spec import Keep

DEFAULT_TOTAL = 256 << 20
HEAD = 64 << 10
"""Bytes of the beginning of a long output that stay; the rest of its share is for the end."""
BLOCK = 4096
"""The size of a small file on disk."""


@dataclass(slots=True)
class Stored:
    """The complete output of one run. `file` is the name of its file, `size` the bytes that it takes on disk."""

    job: str
    run: str
    file: str
    ended: datetime
    failed: bool
    size: int


class _Job:
    """`recent` are the last runs, `failed` older failures, both oldest first."""

    __slots__ = ("failed", "recent")

    def __init__(self) -> None:
        self.recent: deque[Stored] = deque()
        self.failed: deque[Stored] = deque()


class Retention:
    """Knows what is stored. Outputs are added in the order in which their runs ended."""

    def __init__(self, total: int = DEFAULT_TOTAL) -> None:
        self.total = total
        self.size = 0
        self._live: dict[str, int] = {}
        self._rules: Mapping[str, Keep | None] = {}
        self._jobs: dict[str, _Job] = {}
        self._fine: OrderedDict[str, Stored] = OrderedDict()
        self._failed: OrderedDict[str, Stored] = OrderedDict()

    def limit(self, rules: Mapping[str, Keep | None], now: datetime) -> list[Stored]:
        """Apply the rules of all active jobs; None keeps nothing. Other jobs have the default rule."""
        self._rules = rules
        return self.expired(now)

    def most_runs(self, job: str) -> int:
        """How many runs of a job stay in any case."""
        rule = self._rules.get(job, Keep())
        return 0 if rule is None else rule.runs

    def expired(self, now: datetime) -> list[Stored]:
        """What has to be removed now."""
        return [stored for job in list(self._jobs) for stored in self._trim(job, now)]

    def add(self, stored: Stored, now: datetime) -> list[Stored]:
        """A run has ended and its output is stored. Returns what has to be removed."""
        self._live.pop(stored.run, None)
        self._jobs.setdefault(stored.job, _Job()).recent.append(stored)
        (self._failed if stored.failed else self._fine)[stored.run] = stored
        self.size += stored.size
        return self._trim(stored.job, now) + self._shrink(stored)

    def grow(self, run: str, size: int) -> list[Stored]:
        """The file of a live run has this size. Returns what has to be removed."""
        self._live[run] = size
        return self._shrink()

    def share(self, size: int) -> int:
        """How many bytes one of the live files may have at most: all of them together have half of the total."""
        return min(size, max(BLOCK, self.total // 2 // max(1, len(self._live))))

    def move(self, old: str, new: str) -> None:
        """The outputs of job `old` belong to `new`."""
        job = self._jobs.pop(old, None)
        if job is None:
            return
        there = self._jobs.setdefault(new, _Job())
        for stored in (*job.recent, *job.failed):
            stored.job = new
        there.recent.extendleft(reversed(job.recent))
        there.failed.extendleft(reversed(job.failed))

    def _trim(self, name: str, now: datetime) -> list[Stored]:
        job, rule = self._jobs[name], self._rules.get(name, Keep())
        gone: list[Stored] = []
        while len(job.recent) > self.most_runs(name):
            stored = job.recent.popleft()
            if stored.run not in self._fine and stored.run not in self._failed:
                continue  # it was removed for the total size
            (job.failed if stored.failed and rule is not None else gone).append(stored)
        oldest = now if rule is None else now - rule.failures
        while job.failed and job.failed[0].ended <= oldest:
            gone.append(job.failed.popleft())
        if not job.recent and not job.failed:
            del self._jobs[name]
        return [stored for stored in gone if self._drop(stored)]

    def _shrink(self, newest: Stored | None = None) -> list[Stored]:
        gone: list[Stored] = []
        live = sum(self._live.values())
        while self.size + live > self.total and (self._fine or self._failed):
            stored = next(iter((self._fine or self._failed).values()))
            if stored is newest and self._failed and not stored.failed:
                stored = next(iter(self._failed.values()))
            self._drop(stored)
            gone.append(stored)
        return gone

    def _drop(self, stored: Stored) -> bool:
        """Forget an output; False if that was done before."""
        if (self._failed if stored.failed else self._fine).pop(stored.run, None) is None:
            return False
        self.size -= stored.size
        return True
