"""Slots and runs of one job that an earlier supervisor left open."""

from __future__ import annotations

from datetime import datetime

from repeater._lazy_dataclasses import replace
from repeater.engine.actions import Adopt, RecordStarted
from repeater.engine.active_slot import ActiveSlot
from repeater.engine.attempt import Attempt
from repeater.engine.facts import SurvivingRun
from repeater.engine.job_data import SCHEDULE_ENDED, JobData
from repeater.engine.job_states import TAKES_SLOTS, Event, State
from repeater.engine.slot_start import SlotStart
from repeater.model.events import RunAdopted
from repeater.model.run import Run, Slot, SlotRecord
from repeater.model.spec import Always, Once
from repeater.model.time import Mono, to_epoch_us, to_us


def resume_slot(job: JobData, slot_start: SlotStart, record: SlotRecord, former_offset: int | None) -> bool:
    """Try a slot again that an earlier supervisor left open; False if it must not be tried again.

    A slot that waited for its next attempt is always tried again. A slot with a run of unknown end is tried again only
    if the job asks for at least one run.
    """
    spec, now = job.spec, job.context.now
    retries = record.state == "retrying" and record.attempts < spec.retry.attempts
    again = retries or (spec.delivery == "at-least-once" and record.state != "retrying")
    due_mono = _mono_of(job, record.due, former_offset)
    slot = Slot(spec.name, record.nominal, record.due, record.trigger, due_mono=due_mono)
    too_old = slot.wall_at(now.mono) - record.nominal > spec.catch_up.window
    at_start = isinstance(spec.schedule, Once | Always)  # they have a new slot at every start of the supervisor
    is_last = job.state is State.DONE and job.progress.done == SCHEDULE_ENDED  # of a schedule with one slot
    if not again or too_old or at_start or not (is_last or job.state in TAKES_SLOTS):
        return False
    if is_last:
        job.state, job.progress = State.IDLE, replace(job.progress, done=None)
    active = ActiveSlot(slot, now)
    active.attempts = record.attempts
    active.uncounted_attempts = 0 if retries else record.attempts
    job.open.append(active)
    job.transition(Event.OPENED)
    slot_start.try_start(active)
    return True


def adopt(job: JobData, record: SlotRecord, surviving: SurvivingRun) -> None:
    """Take over a run that an earlier supervisor started and that is still live."""
    spec, context = job.spec, job.context
    assert record.run is not None
    began = context.now.at_wall(surviving.began) if surviving.mono is None else context.now.at_mono(surviving.mono)
    started = record.started or surviving.began
    due_mono = Mono(began.mono - to_us(started - record.due))
    active = ActiveSlot(Slot(spec.name, record.nominal, record.due, record.trigger, due_mono=due_mono), context.now)
    active.attempts, active.pid, active.started = record.attempts, surviving.pid, started
    run = Run(record.run, active.slot, record.attempts, record.generation)
    active.attempt = Attempt(context, run, spec.ending)
    active.attempt.resume(began)
    job.admission.force_admit(job, active)
    job.admission.register_run(run, job, active)
    job.open.append(active)
    job.transition(Event.OPENED)
    if isinstance(spec.schedule, Once):  # the adopted run is the one run of this start too
        job.next_slot.cursor = context.steady
        job.progress = replace(job.progress, cursor=context.steady.wall)
    context.actions.append(RecordStarted(active.record("running", None, None, context.generation), surviving.pid))
    context.emit_event(RunAdopted(run, surviving.pid))
    context.actions.append(Adopt(run.id, spec))


def note_interrupted(job: JobData) -> None:
    """A run of an earlier supervisor is over and its end is unknown: count the interval from now."""
    now = job.context.steady
    job.next_slot.last_end = now
    job.progress = replace(job.progress, last_end=now.wall)
    if job.schedule.waits_for_end:
        job.arm()


def _mono_of(job: JobData, wall: datetime, former_offset: int | None) -> Mono:
    """The monotonic reading of a time that an earlier supervisor wrote, with its offset if the boot is the same."""
    if former_offset is None:
        return job.context.now.at_wall(wall).mono
    return Mono(to_epoch_us(wall) - former_offset)
