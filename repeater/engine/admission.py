"""Whether an open slot may start: needs, `max_parallel` of a matrix, pools, limits.

A slot that may not start yet waits under keys (`engine.keys`). A change behind a key marks the key, and only the slots
that wait under it are checked again, first come, first served. A retry with a reserved permit is checked first, and
waits for its own instant only. A need that can no longer be met rejects the slot at once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Literal, TypeAlias

from repeater.engine.active_slot import ActiveSlot
from repeater.engine.context import Context
from repeater.engine.job import Job
from repeater.engine.job_states import State
from repeater.engine.keys import Key
from repeater.engine.limits import Limits
from repeater.model.events import Warned
from repeater.model.reasons import Reason
from repeater.model.reasons import reason as because
from repeater.model.run import Run, SlotRecord
from repeater.model.spec import Need, Pool
from repeater.model.time import Instant, Mono, to_us

_RAN = ("succeeded", "failed", "spawn_failed")
_IN_A_ROW = ("limit", "rate", "answer")
"""Keys with one queue: if the first slot may not start, the others may not either."""
Answer: TypeAlias = tuple[Literal["hold", "skipped"], Reason]


class AdmissionControl:
    """Implements `engine.job_data.Admission`. `runs` maps the id of every live run to its job and slot."""

    def __init__(self, context: Context, jobs: Mapping[str, Job]) -> None:
        self._context = context
        self._jobs = jobs
        self._taken: dict[Key, int] = {}
        self._waiting: dict[Key, OrderedDict[ActiveSlot, Job]] = {}
        self._touched: dict[Key, None] = {}
        self._met: set[tuple[str, str]] = set()
        self.pools: Mapping[str, Pool] = {}
        self.limits = Limits(context, self.mark_changed)
        self.runs: dict[str, tuple[Job, ActiveSlot]] = {}
        self.news: list[tuple[Job, SlotRecord | None]] = []

    # --- what a job asks ---------------------------------------------------------------------------------------

    def try_admit(self, job: Job, slot: ActiveSlot) -> Answer | None:
        if slot.waits_on:
            self._forget(slot)
        if job.node.needs and not slot.slot.forced and slot.attempts == 0:
            answer = self._needs(job, slot)
            if answer is not None:
                return answer
        places: tuple[Key, ...] = ()
        if job.spec.max_parallel is not None or job.spec.pool is not None:
            found = self._pool_permits(job, slot)
            if isinstance(found, Reason):
                return "hold", found
            places = found
        full = self.limits.enter(job.spec, slot)
        if full is not None:
            self._wait(job, slot, full[:1])
            return "hold", full[1]
        for key in places:
            self._taken[key] = self._taken.get(key, 0) + 1
        slot.pool = places
        return None

    def force_admit(self, job: Job, slot: ActiveSlot) -> None:
        """Take the permits of a run that is already live, whether they are free or not."""
        spec = job.spec
        places = [Key("group", spec.group)] if spec.max_parallel is not None else []
        if spec.pool is not None and spec.pool in self.pools:
            places.append(Key("pool", spec.pool))
        for key in places:
            self._taken[key] = self._taken.get(key, 0) + 1
        slot.pool = tuple(places)

    def release(self, slot: ActiveSlot) -> None:
        if slot.waits_on:
            self._forget(slot)
        if slot.attempt is not None:
            self.runs.pop(slot.attempt.run.id, None)
        for key in slot.pool:
            self._taken[key] -= 1
            self._touched[key] = None
        slot.pool = ()

    def earliest(self, job: Job) -> Instant | None:
        return self.limits.earliest(job.spec)

    def register_run(self, run: Run, job: Job, slot: ActiveSlot) -> None:
        self.runs[run.id] = (job, slot)

    def changed(self, job: Job, row: SlotRecord | None) -> None:
        if self._waiting:
            self._touched[Key("job", job.spec.name)] = None
        self.news.append((job, row))

    def usage(self) -> Iterator[tuple[str, str, int, int]]:
        """For each limit and pool: its kind, its name, how much of it is used, and its size."""
        for name, used, most in self.limits.usage():
            yield "limit", name, used, most
        for name, pool in self.pools.items():
            yield "pool", name, self._taken.get(Key("pool", name), 0), pool.slots

    # --- what the engine does after each fact --------------------------------------------------------------------

    def recheck_waiting(self) -> None:
        """Check the slots that wait for something that has changed, until nothing more follows."""
        sharing = self.limits.sharing
        while self._touched or (sharing.asked and sharing.tidy(self._waiting)):
            if not self._touched:
                continue
            key = next(iter(self._touched))
            del self._touched[key]
            is_row, reserved = key.kind in _IN_A_ROW, []
            for slot, job in list(self._waiting.get(key, {}).items()):
                if slot in job.open and slot.wait_reason is not None:
                    has_place = is_row and slot.has_place(key)
                    job.try_start(slot)
                    if is_row and key in slot.waits_on:
                        if has_place:  # it waits for its own instant, so the others need not wait for it
                            reserved.append(slot)
                            continue
                        self._waiting[key].move_to_end(slot, last=False)
                        break
            for slot in reversed(reserved):
                self._waiting[key].move_to_end(slot, last=False)

    def mark_changed(self, key: Key) -> None:
        """Something has changed behind a key."""
        self._touched[key] = None

    def touch_all(self) -> None:
        """Check every waiting slot again, because a new generation may have changed everything."""
        self._touched.update(dict.fromkeys(self._waiting))

    # --- places --------------------------------------------------------------------------------------------------

    def _pool_permits(self, job: Job, slot: ActiveSlot) -> tuple[Key, ...] | Reason:
        """The permits that the slot needs, or a reason if one is taken. The slot waits for that one."""
        spec = job.spec
        wanted = []
        if spec.max_parallel is not None:
            wanted.append((Key("group", spec.group), spec.max_parallel))
        if spec.pool is not None and spec.pool in self.pools:
            wanted.append((Key("pool", spec.pool), self.pools[spec.pool].slots))
        for key, most in wanted:
            if self._taken.get(key, 0) >= most:
                self._wait(job, slot, (key,))
                if key.kind == "pool":
                    return because("pool_full", pool=key.name)
                return because("group_full", group=key.name)
        return tuple(key for key, _ in wanted)

    def _wait(self, job: Job, slot: ActiveSlot, keys: tuple[Key, ...]) -> None:
        slot.waits_on = keys
        for key in keys:
            self._waiting.setdefault(key, OrderedDict())[slot] = job
            if slot.has_place(key):
                self._waiting[key].move_to_end(slot, last=False)

    def _forget(self, slot: ActiveSlot) -> None:
        for key in slot.waits_on:
            waiting = self._waiting[key]
            waiting.pop(slot, None)
            if not waiting:
                del self._waiting[key]
        slot.waits_on = ()

    # --- needs ---------------------------------------------------------------------------------------------------

    def _needs(self, job: Job, slot: ActiveSlot) -> Answer | None:
        keys: list[Key] = []
        unmet: list[list[str]] = []
        for need, targets in job.node.needs:
            for target in targets:
                met = self._met_before(job, need, target) or self._is_met(need, target, slot)
                if met is True:
                    self._met.add((job.spec.name, f"{target}/{need.condition}"))
                    continue
                overdue = need.timeout is not None and self._waited(slot) >= need.timeout
                if met is None and not overdue:
                    keys.append(Key("job", target))
                    unmet.append([target, need.condition])
                    if need.timeout is not None:
                        self._recheck(job, slot, need.timeout - self._waited(slot))
                    continue
                if need.required:
                    waited = need.timeout if met is None else None
                    return "skipped", because("upstream_failed", job=target, condition=need.condition, after=waited)
                self._context.emit_event(Warned(job.spec.name, because("need_not_met", job=target)))
        if not keys:
            return None
        self._wait(job, slot, tuple(dict.fromkeys(keys)))
        return "hold", because("needs", needs=unmet)

    def _waited(self, slot: ActiveSlot) -> timedelta:
        return timedelta(microseconds=self._context.now.mono - slot.since.mono)

    def _recheck(self, job: Job, slot: ActiveSlot, length: timedelta) -> None:
        def look(_: object) -> None:
            if slot in job.open and slot.wait_reason is not None:
                job.try_start(slot)

        if not slot.timers or all(timer.cancelled or timer.at.mono <= self._context.now.mono for timer in slot.timers):
            slot.timers.append(self._context.call_in(length, look))

    def _met_before(self, job: Job, need: Need, target: str) -> bool:
        """`started` and `healthy` block the first start only, unless the need has `while`."""
        once = need.condition in ("started", "healthy") and need.within == "ever" and not need.hold
        return once and (job.spec.name, f"{target}/{need.condition}") in self._met

    def _is_met(self, need: Need, target: str, slot: ActiveSlot) -> bool | None:
        """True: met. None: not yet met. False: can never be met for this slot."""
        upstream = self._jobs.get(target)
        if upstream is None:
            return False
        over = upstream.state in (State.DONE, State.INACTIVE, State.REMOVED, State.DRAINING)
        if need.condition == "healthy":
            return True if upstream.ready else (False if over else None)
        if need.within == "same_slot":
            return self._met_in_slot(need, upstream, slot)
        now = self._context.now.mono
        since = None if need.within == "ever" else Mono(now - to_us(need.within))
        if need.condition == "started":
            last = upstream.progress.last_start
            when = None if last is None else self._context.reading(last).mono
            live = any(held.attempt is not None and held.attempt.started for held in upstream.open)
            begun = live or (
                not upstream.spec.is_service and when is not None and when >= (since or upstream.next_slot.anchor.mono)
            )
            return True if begun else (False if over else None)
        end = upstream.next_slot.last_end
        known = end is not None and upstream.last_success is not None and (since is None or end.mono >= since)
        if known and _fits(need, success=bool(upstream.last_success)):
            return True
        settled = over and not upstream.open
        never_came = upstream.state is State.IDLE and upstream.next is None and upstream.recent and not upstream.pending
        return False if settled or never_came else None

    def _met_in_slot(self, need: Need, upstream: Job, slot: ActiveSlot) -> bool | None:
        nominal = slot.slot.nominal
        row = upstream.recent.get(nominal)
        if row is None:
            held = next((held for held in upstream.open if held.slot.nominal == nominal), None)
            if held is not None and need.condition == "started" and held.started is not None:
                return True
            cursor = upstream.next_slot.cursor
            passed = cursor is not None and cursor.wall >= nominal and not upstream.has_decided(nominal)
            over = upstream.state in (State.DONE, State.INACTIVE, State.REMOVED)
            return False if (over or passed) and held is None else None
        if row.state not in _RAN:
            return False
        if need.condition == "started":
            return row.started is not None
        return _fits(need, success=row.state == "succeeded")


def _fits(need: Need, *, success: bool) -> bool:
    return need.condition == "completed" or success == (need.condition == "succeeded")


def fires(need: Need, row: SlotRecord) -> bool:
    """Whether a decided slot of the needed job starts a slot of the dependent.

    A slot without a run starts nothing; with `same_slot` the dependent gets a skipped record. A success starts nothing
    if the dependent needs a failure. After a failure, a dependent that needs a success gets a skipped record.
    """
    if row.state not in _RAN:
        return need.within == "same_slot"
    return need.condition != "failed" or row.state != "succeeded"
