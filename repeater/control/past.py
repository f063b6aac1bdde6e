"""Why a slot was what it was, from the records alone: rows, the lives of supervisors, generations, the schedule.

Pure but for the `rows` it is given, which read the history. Used by the verb `why`, and by the command itself where no
supervisor runs. The schedule it asks is the one of now: what a job was in an earlier generation is not kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Any

from repeater.control.desk import Rows
from repeater.control.history import as_item
from repeater.dataclass import dataclass, field
from repeater.errors import UsageError
from repeater.model.run import RunRecord
from repeater.model.spec import At, Cron, Every, JobSpec
from repeater.model.time import MICROSECOND, Instant, Mono, rfc3339
from repeater.model.units import format_duration
from repeater.plan.select import select
from repeater.schedule.base import Track
from repeater.schedule.factory import schedule_for
from repeater.sentences import sentence

DAY = timedelta(days=1)
_NEAR = timedelta(days=2)


@dataclass(slots=True)
class Answer:
    """One sentence, what supports it, and the rows that it is about."""

    answer: str
    facts: list[str] = field(default_factory=list)
    rows: list[RunRecord] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {"answer": self.answer, "facts": self.facts, "slots": [as_item(row) for row in self.rows]}


def of_the_dead(
    job: str, at: str, specs: Iterable[JobSpec], rows: Rows, past: Mapping[str, Any], now: datetime
) -> dict[str, Any]:
    """The answer where no supervisor runs, in the form of the verb `why`. Raises UsageError."""
    known = {spec.name: spec for spec in specs}
    if job not in known and job not in past["jobs"]:
        chosen = select(list(known.values()), [job])
        if len(chosen) != 1:
            raise UsageError(f"cannot explain: `{job}` means {len(chosen)} jobs", hint="name one of them")
        job = chosen[0].name
    spec = known.get(job)
    if at:
        moment = parse_moment(at, zone_of(spec), now)
        answer = explain(spec, job, moment, rows, past, now)
        return {"job": job, "at": rfc3339(moment.begin), **answer.as_json()}
    moment = Moment("now", now, timedelta(seconds=1), zone_of(spec))
    answer = Answer(f"`{job}` does nothing: no supervisor is running", list(_downtime(now, past, rows, moment)))
    answer.rows = rows([job], 5)
    return {"job": job, "at": None, **answer.as_json()}


# --- which time is meant --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Moment:
    """A stretch of time that a person named: `[begin, begin + span)`. `zone` is what its words were read in.

    `gap` says how a local time that did not exist was read, `again` is the second of two that a local time names.
    """

    text: str
    begin: datetime
    span: timedelta
    zone: tzinfo | None
    gap: str | None = None
    again: datetime | None = None


def zone_of(spec: JobSpec | None) -> tzinfo | None:
    """The zone in which a person thinks of a job: its own, or None for the machine's."""
    if spec is not None and isinstance(spec.schedule, Cron):
        from repeater.schedule.zone import zone_of as named

        return named(spec.schedule.timezone)
    return None


def parse_moment(text: str, zone: tzinfo | None, now: datetime) -> Moment:
    """RFC 3339, a local date and time, a date, or a time of day (the last one that has passed).

    It lasts for what it names: a second, a minute or a day. Raises UsageError.
    """
    said = text.strip()
    try:
        if len(said) <= 8 and ":" in said:
            clock = time.fromisoformat(said)
            today = now.astimezone(zone).date()
            local = datetime.combine(today, clock)
            if local.replace(tzinfo=zone).astimezone(UTC) > now if zone else local.astimezone(UTC) > now:
                local -= DAY
            return _local(said, local, timedelta(minutes=1) if said.count(":") == 1 else timedelta(seconds=1), zone)
        if len(said) == 10:
            return _local(said, datetime.combine(date.fromisoformat(said), time()), DAY, zone)
        moment = datetime.fromisoformat(said)
    except (ValueError, OverflowError):
        raise UsageError(
            f"cannot use time `{said[:60]}`: expected one like `03:00`, `2026-11-24`, or `2026-11-24T03:00:00Z`"
        ) from None
    names_second = said[11:19].count(":") == 2 or moment.second != 0 or moment.microsecond != 0
    span = timedelta(seconds=1) if names_second else timedelta(minutes=1)
    if moment.tzinfo is None:
        return _local(said, moment, span, zone)
    return Moment(said, moment.astimezone(UTC), span, zone)


def _local(text: str, local: datetime, span: timedelta, zone: tzinfo | None) -> Moment:
    def aware(fold: int) -> datetime:
        naive = local.replace(fold=fold)
        return (naive.replace(tzinfo=zone) if zone is not None else naive.astimezone()).astimezone(UTC)

    try:
        first, second = aware(0), aware(1)
    except OverflowError:
        raise UsageError(f"cannot use time `{text}`: no clock shows it") from None
    shown = first.astimezone(zone).replace(tzinfo=None)
    if shown != local:
        # PEP 495: in a gap fold 0 reads with the offset from before it, so the instant lies after it
        gap = f"no clock showed {local:%H:%M} there on {local:%Y-%m-%d}: it went forward, past it"
        return Moment(text, first, span, zone, gap=gap)
    return Moment(text, first, span, zone, again=second if second != first else None)


# --- what happened then ---------------------------------------------------------------------------------------------


def explain(
    spec: JobSpec | None, job: str, moment: Moment, rows: Rows, past: Mapping[str, Any], now: datetime
) -> Answer:
    """What became of the slot of a job at a moment. `past` has `lives` and `generations`, as the store keeps them."""
    until = (moment.again or moment.begin) + moment.span
    found = rows([job], 50, since=moment.begin, until=until)
    if not found:
        found = _moved(spec, job, moment, rows)
    named = list(_named(spec, moment.begin, until))
    if found:
        row = found[0]
        more = f" (the last of {len(found)} slots then)" if len(found) > 1 else ""
        answer = Answer(f"`{job}` at {_clock(row.nominal, moment)}: {_verdict(row)}{more}", rows=found[:5])
        answer.facts += _of_row(row, spec, rows, moment)
    elif named and named[0] > now:
        answer = Answer(f"`{job}` at {_clock(named[0], moment)}: that is still to come")
    elif named:
        answer = Answer(f"`{job}` at {_clock(named[0], moment)}: its schedule names this time, but no slot is recorded")
    else:
        answer = Answer(f"`{job}` at {_clock(moment.begin, moment)}: its schedule names no slot then")
        answer.facts += _neighbours(spec, moment, until)
    if moment.gap:
        answer.facts.append(moment.gap)
    if moment.again:
        answer.facts.append(f"clocks showed that time twice: {rfc3339(moment.begin)} and {rfc3339(moment.again)}")
    if isinstance(spec.schedule if spec else None, Cron) and (moment.gap or moment.again):
        assert spec is not None
        assert isinstance(spec.schedule, Cron)
        answer.facts.append(f"its rule for such nights is gap = `{spec.schedule.gap}`, fold = `{spec.schedule.fold}`")
    ref = found[0].due if found else moment.begin
    if ref <= now:
        answer.facts += _downtime(ref, past, rows, moment)
        answer.facts += _generation(ref, past, moment)
    return answer


def _moved(spec: JobSpec | None, job: str, moment: Moment, rows: Rows) -> list[RunRecord]:
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


def _verdict(row: RunRecord) -> str:
    reason = "" if row.reason is None else sentence(row.reason)
    match row.outcome:
        case "success":
            return "it ran and succeeded"
        case "failed":
            return f"it ran and failed: {reason}"
        case "running":
            return "it is running" if row.state == "running" else f"it is {row.state}"
        case "interrupted":
            return f"it was interrupted: {reason}"
        case "expired":
            return f"it expired: {reason}"
        case outcome:
            return f"{outcome}: {reason}"


def _of_row(row: RunRecord, spec: JobSpec | None, rows: Rows, moment: Moment) -> Iterator[str]:
    if row.started is not None:
        late = row.started - row.due
        took = f", took {format_duration(_rounded(row.ended - row.started))}" if row.ended else ""
        words = f"run `{row.run}` started {_clock(row.started, moment)}"
        yield (
            words
            + (f", {format_duration(_rounded(late))} after it was due" if late > timedelta(seconds=1) else "")
            + took
        )
    if row.due != row.nominal:
        yield f"it was due {_clock(row.due, moment)}, {format_duration(_rounded(row.due - row.nominal))} later (jitter)"
    if row.trigger != "schedule":
        yield f"it came from `{row.trigger}`, not from the schedule"
    code = None if row.reason is None else row.reason.code
    if code in ("overlap", "superseded", "queue_full"):
        yield from _holder(row, rows, moment)
    if code == "slowdown":
        last = next((one for one in rows([row.job], 20, until=row.nominal) if one.attempts), None)
        if last is not None:
            yield f"the run before it ended {_clock(last.ended or last.due, moment)}: {_verdict(last)}"
    if code == "upstream_failed":
        yield from _upstream(row, spec, rows, moment)


def _holder(row: RunRecord, rows: Rows, moment: Moment) -> Iterator[str]:
    for one in rows([row.job], 200, until=row.nominal):
        if one.started and one.started <= row.due and (one.ended is None or one.ended >= row.due):
            end = f"until {_clock(one.ended, moment)}" if one.ended else "and is still"
            yield f"run `{one.run}` was going on from {_clock(one.started, moment)} {end}"
            return


def _upstream(row: RunRecord, spec: JobSpec | None, rows: Rows, moment: Moment) -> Iterator[str]:
    for need in spec.needs if spec else ():
        last = next(iter(rows([need.job], 1, until=row.due + MICROSECOND)), None)
        if last is not None:
            yield f"`{need.job}` at {_clock(last.nominal, moment)}: {_verdict(last)}"


def _named(spec: JobSpec | None, begin: datetime, until: datetime) -> Iterator[datetime]:
    """The nominal times that the schedule of now names in a stretch, as far as time alone decides them."""
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


def _neighbours(spec: JobSpec | None, moment: Moment, until: datetime) -> Iterator[str]:
    if spec is None:
        yield "the job is not in force (any more)"
        return
    if isinstance(spec.schedule, Every):
        every = format_duration(spec.schedule.every)
        when = f"{every} after the end of each run" if spec.schedule.after_end else f"every {every}"
        yield f"it comes {when}; slots that came are in `rpr history {spec.name}`"
    if isinstance(spec.schedule, Cron):
        yield f"its schedule is `{spec.schedule.expression}` in `{spec.schedule.timezone}`"
        before = list(_named(spec, moment.begin - _NEAR, moment.begin))[-1:]
        after = list(_named(spec, until, until + 30 * DAY))[:1]
        if before and len(list(_named(spec, moment.begin - _NEAR, moment.begin))) < 10:
            yield f"the slot before is {_clock(before[0], moment)}"
        if after:
            yield f"the next one is {_clock(after[0], moment)}"


def _downtime(at: datetime, past: Mapping[str, Any], rows: Rows, moment: Moment) -> Iterator[str]:
    lives = past.get("lives", ())
    before = [life for life in lives if life[0] <= at]
    after = [life for life in lives if life[0] > at]
    if not lives:
        return
    if not before:
        yield f"no supervisor is known from before {_clock(lives[0][0], moment)}"
        return
    began, ended, _ = before[-1]
    back = f"to {_clock(after[0][0], moment)}" if after else "on"
    if ended is not None and ended < at:
        yield f"the supervisor was down from {_clock(ended, moment)} {back}"
    elif ended is None and after:
        last = next(iter(rows(None, 1, until=after[0][0])), None)
        seen = max((one for one in (last.ended, last.started, last.due) if one), default=began) if last else began
        if seen < at:
            yield f"the supervisor ended without a word some time after {_clock(seen, moment)}, and was down {back}"


def _generation(at: datetime, past: Mapping[str, Any], moment: Moment) -> Iterator[str]:
    generations = past.get("generations", ())
    then = [entry for entry in generations if entry[1] <= at]
    if not then:
        return
    number, since = then[-1]
    newest = generations[-1][0]
    more = f"; now it is {newest}, whose schedule is the one explained here" if newest != number else ""
    yield f"generation {number} was in force, since {_clock(since, moment)}{more}"


def _clock(wall: datetime, moment: Moment) -> str:
    local = wall.astimezone(moment.zone)
    return f"{local:%Y-%m-%d %H:%M:%S}{local:%z}"


def _rounded(length: timedelta) -> timedelta:
    return max(timedelta(0), length - length % timedelta(milliseconds=1))
