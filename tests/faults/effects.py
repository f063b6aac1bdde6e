"""The effects file: what jobs really did, written by themselves, against the slots that were due.

A job appends one line at its start and one at its end, each with a single `O_APPEND` write, so nothing that happens to
the supervisor can add, drop or mend a line. Slots are computed here from the schedule alone. A history is believed only
as far as it agrees with both: `reconcile`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from repeater._lazy_dataclasses import dataclass

FILE = ".effects"
_LINE = 'echo "$RPR_JOB $RPR_NOMINAL_TIME $RPR_RUN_ID $RPR_ATTEMPT {what}" >> "{path}"'
RAN = frozenset({"succeeded", "failed", "interrupted", "replaced"})
"""States of a slot whose command may have begun."""


@dataclass(frozen=True, slots=True)
class Effect:
    """One line: that the run of a slot began (`start`), ended (`end`), or whatever else it had to say."""

    job: str
    nominal: datetime
    run: str
    attempt: int
    what: str


def mark(what: str, path: str | Path = FILE) -> str:
    """A shell command that appends one line; `path` counts from the job's working folder."""
    return _LINE.format(what=what, path=path)


def effectful(script: str, path: str | Path = FILE) -> str:
    """`script` with a line before and a line after it."""
    return f"{mark('start', path)}; {script}; code=$?; {mark('end', path)}; exit $code"


class Effects:
    """What the effects file of a folder holds now."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def all(self, job: str | None = None, what: str | None = None) -> list[Effect]:
        """In the order in which they happened; a line that is just being written is not there yet."""
        try:
            whole = self.path.read_text().rpartition("\n")[0]
        except FileNotFoundError:
            return []
        found = []
        for line in filter(None, whole.split("\n")):
            name, nominal, run, attempt, said = line.split(" ", 4)
            found.append(Effect(name, instant(nominal), run, int(attempt), said))
        return [effect for effect in found if job in (None, effect.job) and what in (None, effect.what)]

    def starts(self, job: str | None = None) -> list[Effect]:
        return self.all(job, "start")

    def ends(self, job: str | None = None) -> list[Effect]:
        return self.all(job, "end")

    def twice(self) -> list[tuple[str, datetime]]:
        """Slots that began more than once."""
        counted = Counter((effect.job, effect.nominal) for effect in self.starts())
        return [slot for slot, count in counted.items() if count > 1]

    def most_at_once(self, job: str) -> int:
        """How many runs of a job were going on at the same time, as far as starts and ends tell."""
        now, most = set[str](), 0
        for effect in self.all(job):
            if effect.what == "start":
                now.add(effect.run)
            elif effect.what == "end":
                now.discard(effect.run)
            most = max(most, len(now))
        return most


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def grid(first: datetime, last: datetime, step: timedelta) -> list[datetime]:
    """`first`, `first + step` and so on, up to `last`."""
    return [first + number * step for number in range((last - first) // step + 1)]


def reconcile(
    effects: Effects, job: str, rows: Iterable[Mapping[str, Any]], due: Iterable[datetime], *, deciding: int = 0
) -> None:
    """Every slot that was due is decided exactly once, and effects and rows tell the same about it.

    A slot began at most once. If it began there is a row that says so; if not, there is a row with the reason. No row
    and no effect is of a slot that was not due. `deciding` is how many of the last slots may have no row yet.
    """
    due = sorted(due)
    began = Counter(effect.nominal for effect in effects.starts(job))
    found = Counter(instant(row["nominal"]) for row in rows if row["job"] == job)
    by_slot = {instant(row["nominal"]): row for row in rows if row["job"] == job}
    assert [slot for slot, count in began.items() if count > 1] == [], "slots that began twice"
    assert [slot for slot, count in found.items() if count > 1] == [], "slots with two rows"
    assert sorted(set(began) - set(due)) == [], "runs that were not due"
    assert sorted(set(found) - set(due)) == [], "rows of slots that were not due"
    without = [slot for slot in due if slot not in found]
    assert without == due[len(due) - len(without) :], "slots without a row before others that have one"
    assert len(without) <= deciding, without
    for slot, row in by_slot.items():
        if began[slot]:
            was_stopped = row["state"] == "cancelled" and row["attempts"] > 0
            assert row["state"] in RAN | {"running", "claimed"} or was_stopped, row
        else:
            assert row["state"] not in ("succeeded", "failed"), row
            assert row["reason_code"] or row["state"] in {"claimed", "running"}, row
