"""What follows from the facts about an attempt: a retry, or the end of its slot.

A start that failed, or a run that was lost, for a temporary reason of the machine does not count as an attempt.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from repeater._lazy_dataclasses import replace
from repeater.engine.actions import Record, RecordStarted
from repeater.engine.active_slot import ActiveSlot
from repeater.engine.attempt import Event
from repeater.engine.job_data import JobData
from repeater.engine.job_states import State
from repeater.engine.limits import retry_rule
from repeater.engine.slot_end import SlotEnd
from repeater.engine.slot_start import SlotStart
from repeater.engine.stop_rules import StopRules
from repeater.model.events import RunBegan, RunFinished, SpawnRejected, Warned
from repeater.model.reasons import Reason
from repeater.model.reasons import reason as because
from repeater.model.run import Exit, SlotState, Usage, Verdict
from repeater.model.spec import Backoff, RateLimited
from repeater.model.time import Instant
from repeater.policy import retry, verdict
from repeater.schedule.backoff import backoff_delay

if TYPE_CHECKING:
    from repeater.engine.facts import RunEnded
    from repeater.policy.http_aware import PushBack, Unreadable

_DECIDED_BEFORE = Reason("decided_before")
_SHORTAGE = Backoff(base=timedelta(seconds=1), max=timedelta(seconds=30))
_RETRIES = (State.ACTIVE, State.FINISHING)


class Outcome:
    """Handles the facts about the runs of one job."""

    __slots__ = ("_job", "_slot_end", "_slot_start", "_stop_rules")

    def __init__(self, job: JobData, slot_start: SlotStart, slot_end: SlotEnd, stop_rules: StopRules) -> None:
        self._job = job
        self._slot_start = slot_start
        self._slot_end = slot_end
        self._stop_rules = stop_rules

    def run_started(self, active: ActiveSlot, pid: int, at: Instant) -> None:
        """The process of an attempt exists since `at`."""
        job, attempt = self._job, active.attempt
        assert attempt is not None
        active.pid = pid
        if active.started is None:
            active.started = active.slot.wall_at(at.mono)
            job.starts.count(at.mono)
        late = active.slot.late_by(at.mono).total_seconds()
        job.admission.limits.started(job.spec, active)
        record = active.record("running", None, None, job.context.generation)
        job.context.actions.append(RecordStarted(record, pid))
        job.context.emit_event(RunBegan(attempt.run, pid, late))
        attempt.begin(at)
        job.admission.changed(job, None)

    def run_exited(self, active: ActiveSlot, exit: Exit) -> None:  # noqa: A002
        """The first process of an attempt has exited. Others may still run, and output may still come."""
        assert active.attempt is not None
        active.attempt.on(Event.EXITED, exit)

    def pushed_back(self, active: ActiveSlot, found: PushBack | None, unreadable: tuple[Unreadable, ...]) -> None:
        """The output of a run that is about to end says when a server accepts the next request."""
        from repeater.policy.http_aware import holding, reason_of

        job = self._job
        limits = job.admission.limits
        limits.note_unreadable(job.spec.name, unreadable)
        rule = job.spec.http_aware
        if found is None or rule is None:
            return
        given = found.given
        if given is None:
            active.refused = True
            job.progress = replace(job.progress, refusals=job.progress.refusals + 1)
            given = holding(rule, job.progress.refusals)
        reason = reason_of(found, given)
        until = job.context.shown(limits.push_back(job.spec, given, reason).mono)
        if job.progress.pushed_until is None or job.progress.pushed_until < until:
            job.progress = replace(job.progress, pushed_until=until, pushed=reason)
        job.save()

    def run_ended(self, active: ActiveSlot, fact: RunEnded) -> None:
        """Nothing of the run is left: judge it."""
        job, attempt, exit = self._job, active.attempt, fact.exit  # noqa: A001
        assert attempt is not None
        if job.progress.refusals and not active.refused:
            job.progress = replace(job.progress, refusals=0)
        active.refused = False
        active.usage = fact.usage
        attempt.on(Event.ENDED, exit)
        if fact.timed_out:
            attempt.note_timeout()
        now = job.context.now
        if fact.mono is not None:
            active.ended = now.at_mono(fact.mono)
        elif fact.at is not None:
            active.ended = now.at_wall(fact.at)
        found = fact.matched
        if "stop" in found:
            self._stop_rules.pattern_found = True
        outcome = verdict.judge(job.spec.success, attempt.exit or exit, found, attempt.ended_by)
        if job.spec.executor is not None:
            outcome = verdict.of_executor(job.spec.executor.name, outcome, attempt.exit or exit)
        self._after_attempt(active, "succeeded" if outcome.success else "failed", outcome, attempt.exit or exit)

    def run_lost(self, active: ActiveSlot, reason: Reason) -> None:
        """The end of the run is unknown. The slot is tried again only if the job asks for at least one run."""
        job, attempt = self._job, active.attempt
        assert attempt is not None
        if attempt.started is None:  # it may have started
            job.admission.limits.started(job.spec, active)
        attempt.on(Event.LOST)
        again = job.spec.delivery == "at-least-once" and job.state in _RETRIES
        if again and active.forced_outcome is None:
            job.context.emit_event(Warned(job.spec.name, because("run_lost", cause=reason)))
            self._retry_uncounted(active)
            return
        self._slot_end.close(active, "interrupted", reason)

    def slot_taken(self, active: ActiveSlot) -> None:
        """The slot was decided before the clock was set back: keep its former record and start nothing."""
        job = self._job
        assert active.attempt is not None
        active.attempt.on(Event.SPAWN_FAILED)
        job.admission.limits.failed(active)
        job.progress = replace(job.progress, runs=max(0, job.progress.runs - (active.attempts == 1)))
        self._slot_end.close(active, "skipped", _DECIDED_BEFORE, is_known=True)

    def spawn_failed(self, active: ActiveSlot, reason: Reason, exit_code: int, *, temporary: bool) -> None:
        """No process could be started."""
        job, attempt = self._job, active.attempt
        assert attempt is not None
        attempt.on(Event.SPAWN_FAILED)
        job.admission.limits.failed(active)
        again = temporary and active.forced_outcome is None and job.state in _RETRIES
        job.context.emit_event(SpawnRejected(job.spec.name, reason, exit_code, temporary=again))
        if again:
            self._retry_uncounted(active)
        else:
            self._after_attempt(active, "spawn_failed", Verdict(False, reason), None, exit_code)

    def _after_attempt(
        self,
        active: ActiveSlot,
        state: SlotState,
        outcome: Verdict,
        exit: Exit | None,  # noqa: A002
        failed_start: int | None = None,
    ) -> None:
        """Schedule another attempt, or end the slot."""
        job, attempt = self._job, active.attempt
        spec, context = job.spec, job.context
        assert attempt is not None
        code = None if exit is None else (exit.code if exit.signal is None else -exit.signal)
        tries = active.attempts - active.uncounted_attempts
        again = (
            not outcome.success
            and active.forced_outcome is None
            and job.state in _RETRIES
            and retry.should_retry(retry_rule(spec), tries, exit, failed_start=failed_start)
        )
        if not again:
            self._stop_rules.last_exit = failed_start if exit is None else retry.status(exit)
            if active.forced_outcome is None:
                context.emit_event(RunFinished(attempt.run, outcome, code))
            self._slot_end.close(active, state, outcome.reason, code, outcome)
            return
        delay = backoff_delay(spec.retry.backoff, tries, context.draw.random(), active.delay)
        if isinstance(spec.schedule, RateLimited) and spec.schedule.retry_pattern and active.started is not None:
            planned = active.started + spec.schedule.retry_pattern[tries]
            delay = max(timedelta(0), planned - active.slot.wall_at(context.now.mono))
        active.delay = delay
        context.emit_event(RunFinished(attempt.run, outcome, code, context.now.wall + delay))
        ended, active.ended = active.slot.wall_at((active.ended or context.now).mono), None
        record = active.record("retrying", outcome.reason, code, context.generation, ended=ended)
        context.actions.append(Record(record, job.progress))
        self._retry_in(active, delay)

    def _retry_uncounted(self, active: ActiveSlot) -> None:
        """Retry because the machine failed, not the command."""
        active.uncounted_attempts += 1
        self._retry_in(active, backoff_delay(_SHORTAGE, active.uncounted_attempts, 0.0))

    def _retry_in(self, active: ActiveSlot, delay: timedelta) -> None:
        self._job.admission.release(active)
        active.attempt = None
        active.usage = Usage()
        active.retry = self._job.context.call_in(delay, lambda _: self._retry(active))

    def _retry(self, active: ActiveSlot) -> None:
        active.retry = None
        self._slot_start.try_start(active)
