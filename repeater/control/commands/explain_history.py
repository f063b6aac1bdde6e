"""Explain a past slot from records: slots, supervisors, generations, and the schedule.

Only `rows` does I/O: it reads the history. The schedule is the current one, because definitions of earlier generations
are not stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta, tzinfo
from itertools import pairwise
from typing import TypedDict

from repeater._lazy_dataclasses import dataclass, field
from repeater.control.commands.history import SlotItem, as_item
from repeater.control.commands.last_output import FAILURES
from repeater.control.commands.status import last_run_records
from repeater.control.context import FindRecords
from repeater.errors import UsageError
from repeater.model.history_meta import HistoryMeta
from repeater.model.json_types import Time
from repeater.model.moment import DAY, TimeRange, parse_moment
from repeater.model.reasons import Reason
from repeater.model.reasons import reason as because
from repeater.model.run import Progress, SlotRecord
from repeater.model.spec import At, Cron, Every, JobSpec
from repeater.model.time import MICROSECOND, Instant, Mono, rfc3339
from repeater.plan.select import select
from repeater.schedule.base import Track
from repeater.schedule.factory import schedule_for
from repeater.sentences import Coded, ReasonItem, coded, reason_item, sentence

LINES = 10
"""Lines of a failed run that `why` shows."""
_NEAR = timedelta(days=2)
_STEP = timedelta(seconds=2)  # a clock that is set back by less was corrected slowly


class _Answer(TypedDict):
    answer: str


class _Facts(TypedDict):
    facts: list[str]
    fact_reasons: list[ReasonItem]
    slots: list[SlotItem]
    zone: str | None


class ExplanationJson(_Answer, Coded, _Facts):
    """An answer, the facts that support it, and the slots that it is about.

    `zone` is the time zone of the schedule, null for the zone of the machine.
    """


class _Subject(TypedDict):
    job: str
    at: Time | None


class _LastLines(TypedDict):
    output: list[str]


class WhyResult(_Subject, ExplanationJson, _LastLines):
    """The result of `why`. `output` has the last lines of a failed run."""


@dataclass(slots=True)
class HistoryExplanation:
    """What `why` says: one answer, the facts that support it, and the rows that it is about. Sentences use `zone`."""

    answer: Reason
    zone: tzinfo | None
    facts: list[Reason] = field(default_factory=list)
    rows: list[SlotRecord] = field(default_factory=list)

    def as_json(self) -> ExplanationJson:
        """`answer` and `facts` are sentences; `reason_code`, `detail` and `fact_reasons` are for programs."""
        facts = [reason_item(fact, self._clock) for fact in self.facts]
        return {
            "answer": sentence(self.answer, self._clock),
            **coded(self.answer),
            "facts": [fact["reason"] for fact in facts],
            "fact_reasons": facts,
            "slots": [as_item(row) for row in self.rows],
            "zone": getattr(self.zone, "key", None),
        }

    def _clock(self, wall: datetime) -> str:
        local = wall.astimezone(self.zone)
        return f"{local:%Y-%m-%d %H:%M:%S}{local:%z}"


def failed_row(rows: Iterable[SlotRecord]) -> SlotRecord | None:
    """The first of the rows that came to a run, if that run failed."""
    row = next((row for row in rows if row.attempts and row.ended is not None), None)
    return row if row is not None and row.outcome in FAILURES else None


NOTHING_RUNS: Mapping[str, tuple[int, datetime, int]] = {}


def explain_offline(
    job: str,
    at: str,
    specs: Iterable[JobSpec],
    rows: FindRecords,
    meta: HistoryMeta,
    now: datetime,
    last_output: Callable[[str, str | None, int], list[str]] = lambda _job, _run, _most: [],
    running: Mapping[str, tuple[int, datetime, int]] = NOTHING_RUNS,
) -> WhyResult:
    """The answer where no supervisor runs, in the form of the verb `why`. Raises UsageError.

    `last_output` gives the last lines of a run of a job. `running` has the runs that continue, by job: pid, start, and
    the pid of the shim that looks after them.
    """
    known = {spec.name: spec for spec in specs}
    if job not in known and job not in meta.progress:
        chosen = select(list(known.values()), [job])
        if len(chosen) != 1:
            raise UsageError(f"cannot explain: `{job}` matches {len(chosen)} jobs", hint="name one of them")
        job = chosen[0].name
    spec = known.get(job)
    if at:
        moment = parse_moment(at, zone_of(spec), now)
        answer, told = explain(spec, job, moment, rows, meta, now), rfc3339(moment.begin)
    else:
        downtime = list(_downtime(now, meta, rows, None))
        answer, told = HistoryExplanation(because("no_supervisor", job=job), zone_of(spec), downtime), None
        if job in running:
            pid, since, shim = running[job]
            answer.answer = because("runs_unattended", job=job, pid=pid, since=since)
            answer.facts.append(because("shim_keeps_runs", pid=shim))
        answer.facts += _last_known(meta.progress.get(job), now, last_run_records(rows, [job]).get(job))
        answer.rows = rows([job], 5)
    failed = failed_row(answer.rows)
    lines = [] if failed is None else last_output(job, failed.run, LINES)
    return {"job": job, "at": told, **answer.as_json(), "output": lines}


def _last_known(progress: Progress | None, now: datetime, last: SlotRecord | None) -> Iterator[Reason]:
    """How the last run ended, and what kept the job from running when the supervisor ended."""
    if progress is None or not progress.runs:
        yield Reason("never_ran")
    elif last is not None and last.ended is not None:
        yield because("last_run_ended", ago=now - last.ended, outcome=last.outcome, cause=last.reason)
    if progress is not None and progress.streak < -1:
        yield because("failed_in_row", count=-progress.streak)
    if progress is not None and progress.done is not None:
        yield progress.done
    if progress is not None and progress.paused is not None:
        yield because("paused_until", text=progress.paused.detail.get("text"), until=progress.paused_until)


def zone_of(spec: JobSpec | None) -> tzinfo | None:
    """The zone in which a person thinks of a job: its own, or None for the machine's."""
    if spec is not None and isinstance(spec.schedule, Cron):
        from repeater.schedule.zone import zone_of as named

        return named(spec.schedule.timezone)
    return None


def has_jitter(spec: JobSpec) -> bool:
    """Whether jitter can be why a slot is due after its nominal time. Otherwise a slowdown after failures is."""
    return getattr(spec.schedule, "jitter", None) is not None


# --- what happened then ---------------------------------------------------------------------------------------------


def explain(
    spec: JobSpec | None,
    job: str,
    moment: TimeRange,
    rows: FindRecords,
    meta: HistoryMeta,
    now: datetime,
    pids: Mapping[str, int] | None = None,
    *,
    is_alive: bool = False,
) -> HistoryExplanation:
    """Explain the slot of a job at a time.

    `pids` are the processes of live runs, which records lack. `is_alive`: the last supervisor of `meta` is the one that
    answers.
    """
    until = (moment.again or moment.begin) + moment.span
    found = rows([job], 50, since=moment.begin, until=until)
    if not found:
        found = _find_by_start_time(spec, job, moment, rows)
    named = list(_scheduled_times(spec, moment.begin, until))
    answer = HistoryExplanation(because("no_slot_then", job=job, at=moment.begin), moment.zone, rows=found[:5])
    if found:
        row = found[0]
        answer.answer = because("slot_decided", job=job, nominal=row.nominal, verdict=_verdict(row), slots=len(found))
        answer.facts += _facts_about(row, spec, rows, pids or {})
    elif named and named[0] > now:
        answer.answer = because("slot_to_come", job=job, nominal=named[0])
    elif named:
        answer.answer = because("slot_not_recorded", job=job, nominal=named[0])
    else:
        answer.facts += _nearest_slots(spec, moment, until)
    if moment.gap:
        answer.facts.append(because("local_time_skipped", date=f"{moment.gap:%Y-%m-%d}", time=f"{moment.gap:%H:%M}"))
    if moment.again:
        answer.facts.append(because("local_time_twice", first=moment.begin, second=moment.again))
    if spec is not None and isinstance(spec.schedule, Cron) and (moment.gap or moment.again):
        answer.facts.append(because("clock_change_rule", gap=spec.schedule.gap, fold=spec.schedule.fold))
    ref = found[0].due if found else moment.begin
    if ref <= now:
        answer.facts += _downtime(ref, meta, rows, now if is_alive else None)
        answer.facts += _generation(ref, meta)
    return answer


def _find_by_start_time(spec: JobSpec | None, job: str, moment: TimeRange, rows: FindRecords) -> list[SlotRecord]:
    """Slots that a gap of the clocks put elsewhere, and runs that were under way then."""
    if moment.gap:
        near = rows([job], 5, since=moment.begin - timedelta(hours=3), until=moment.begin + timedelta(hours=3))
        return [row for row in near if abs(row.nominal - moment.begin) <= timedelta(hours=1)][-1:]
    if spec is None:
        return []
    before = rows([job], 5, until=moment.begin)
    return [row for row in before if row.started and row.started <= moment.begin < (row.ended or moment.begin + DAY)][
        :1
    ]


def _verdict(row: SlotRecord) -> Reason:
    return because("row_verdict", outcome=row.outcome, state=row.state, cause=row.reason)


def _facts_about(row: SlotRecord, spec: JobSpec | None, rows: FindRecords, pids: Mapping[str, int]) -> Iterator[Reason]:
    if row.started is not None:
        late = row.started - row.due
        yield because(
            "run_started",
            run=row.run,
            pid=pids.get(row.run or ""),
            started=row.started,
            late=_rounded(late) if late > timedelta(seconds=1) else None,
            took=_rounded(row.ended - row.started) if row.ended else None,
        )
    if row.due != row.nominal and (spec is None or has_jitter(spec)):
        yield because("slot_jittered", due=row.due, by=_rounded(row.due - row.nominal))
    if row.trigger != "schedule":
        yield because("trigger_was", trigger=row.trigger)
    code = None if row.reason is None else row.reason.code
    if code in ("overlap", "superseded", "queue_full"):
        yield from _blocking_run(row, rows, pids)
    if code == "slowdown":
        last = next((one for one in rows([row.job], 20, until=row.nominal) if one.attempts), None)
        if last is not None:
            yield because("run_before", ended=last.ended or last.due, verdict=_verdict(last))
    if code == "upstream_failed":
        yield from _upstream(row, spec, rows)


def _blocking_run(row: SlotRecord, rows: FindRecords, pids: Mapping[str, int]) -> Iterator[Reason]:
    for one in rows([row.job], 200, until=row.nominal):
        if one.started and one.started <= row.due and (one.ended is None or one.ended >= row.due):
            pid = pids.get(one.run or "")
            yield because("run_went_on", run=one.run, pid=pid, started=one.started, ended=one.ended)
            return


def _upstream(row: SlotRecord, spec: JobSpec | None, rows: FindRecords) -> Iterator[Reason]:
    for need in spec.needs if spec else ():
        last = next(iter(rows([need.job], 1, until=row.due + MICROSECOND)), None)
        if last is not None:
            yield because("upstream_slot", job=need.job, nominal=last.nominal, verdict=_verdict(last))


def _scheduled_times(spec: JobSpec | None, begin: datetime, until: datetime) -> Iterator[datetime]:
    """The nominal times of the current schedule in a range, as far as time alone decides them."""
    if spec is None or not isinstance(spec.schedule, Cron | At):
        return
    schedule = schedule_for(spec)
    cursor = Instant(begin - MICROSECOND, Mono(0))
    for _ in range(10):
        following = schedule.next(Track(anchor=cursor, cursor=cursor))
        if following is None or following.wall >= until:
            return
        yield following.wall
        cursor = following


def _nearest_slots(spec: JobSpec | None, moment: TimeRange, until: datetime) -> Iterator[Reason]:
    if spec is None:
        yield Reason("not_active")
        return
    if isinstance(spec.schedule, Every):
        yield because("interval_is", job=spec.name, every=spec.schedule.every, after_end=spec.schedule.after_end)
    if isinstance(spec.schedule, Cron):
        yield because("cron_is", expression=spec.schedule.expression, timezone=spec.schedule.timezone)
        before = list(_scheduled_times(spec, moment.begin - _NEAR, moment.begin))[-1:]
        after = list(_scheduled_times(spec, until, until + 30 * DAY))[:1]
        if before and len(list(_scheduled_times(spec, moment.begin - _NEAR, moment.begin))) < 10:
            yield because("slot_before", nominal=before[0])
        if after:
            yield because("slot_after", nominal=after[0])


def _downtime(at: datetime, meta: HistoryMeta, rows: FindRecords, now: datetime | None) -> Iterator[Reason]:
    """Whether a supervisor ran at a wall time. `now` if the last one still runs.

    Lives are in the order in which they were recorded, each with the wall times of its ends. A clock that was set back
    makes a later life begin earlier, or a life end before it began.
    """
    lives = [(run.began, run.ended) for run in meta.supervisor_runs]
    if not lives:
        return
    if now is not None:
        lives[-1] = (lives[-1][0], now)
    readings = [reading for life in lives for reading in life if reading is not None]
    for earlier, later in pairwise(readings):
        if earlier - later > _STEP and later <= at <= earlier:
            yield because("clock_was_set_back", since=earlier, until=later)
            break
    if any(ended is not None and min(began, ended) <= at <= max(began, ended) for began, ended in lives):
        return
    before = [life for life in lives if life[0] < at]
    until = min((min(began, ended or began) for began, ended in lives if began > at), default=None)
    if not before:
        yield because("lives_unknown_before", at=until)
        return
    began, ended = max(before, key=lambda life: max(life[0], life[1] or life[0]))
    if ended is not None:
        yield because("supervisor_down", since=max(began, ended), until=until)
    elif until is not None:
        last = next(iter(rows(None, 1, until=until)), None)
        seen = max((one for one in (last.ended, last.started, last.due) if one), default=began) if last else began
        if seen < at:
            yield because("supervisor_end_unknown", seen=seen, until=until)


def _generation(at: datetime, meta: HistoryMeta) -> Iterator[Reason]:
    before = [generation for generation in meta.generations if generation.began <= at]
    if before:
        then, newest = before[-1], meta.generations[-1].number
        yield because(
            "generation_was",
            generation=then.number,
            since=then.began,
            newest=newest if newest != then.number else None,
        )


def _rounded(length: timedelta) -> timedelta:
    return max(timedelta(0), length - length % timedelta(milliseconds=1))
