"""Limits of starts: sliding windows that an attempt needs permits of, and delays that servers ask for.

An attempt needs a permit in the window of its job's `limit` and, with a `rate` schedule, in that of the job's own rate:
all at the same instant, or none. Slots wait under keys of the kinds `limit`, `rate` and `answer`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

from repeater._lazy_dataclasses import replace
from repeater.engine.actions import DropStart, KeepStart
from repeater.engine.active_slot import ActiveSlot
from repeater.engine.context import Context
from repeater.engine.keys import Key
from repeater.engine.shared_limits import SharedLimits
from repeater.engine.timers import Timer
from repeater.model.events import Warned
from repeater.model.reasons import Reason
from repeater.model.reasons import reason as because
from repeater.model.run import LimitedStart, Run
from repeater.model.spec import JobSpec, Limit, RateLimited, Retry
from repeater.model.time import Instant, Mono, to_epoch_us, to_us
from repeater.model.units import Rate

if TYPE_CHECKING:
    from repeater.policy.http_aware import Unreadable
    from repeater.policy.limit import Pattern, SlidingWindow

_PIECE = 400  # jobs that are taken before the caller may do something else


def retry_rule(spec: JobSpec) -> Retry:
    """The retries of a job: a retry pattern says how many there are."""
    if isinstance(spec.schedule, RateLimited) and spec.schedule.retry_pattern:
        return replace(spec.retry, attempts=len(spec.schedule.retry_pattern))
    return spec.retry


class Limits:
    """The windows of all limits. `touch` is called with a key when its waiting slots must be checked again."""

    def __init__(self, context: Context, touch: Callable[[Key], None]) -> None:
        self._context = context
        self._touch = touch
        self._limits: Mapping[str, Limit] = {}
        self._ledgers: dict[Key, SlidingWindow] = {}
        self._push_backs: dict[str, tuple[Mono, Reason]] = {}
        self._unreadable: dict[str, tuple[Unreadable, ...]] = {}
        self._timers: dict[Key, Timer] = {}
        self._keys: dict[str, set[Key]] = {}
        self.sharing = SharedLimits(context, touch)

    # --- generations -------------------------------------------------------------------------------------------

    def accept(
        self,
        limits: Mapping[str, Limit],
        specs: Iterable[JobSpec],
        starts: Iterable[LimitedStart],
        *,
        is_first: bool,
        starting: Collection[str] = (),
    ) -> Iterator[None]:
        """Use these limits, in steps. Limits that stay keep their starts.

        `starts` are those in the store. New and longer windows need them. A limit counts all earlier starts of its
        jobs, also those under another limit, and the starts of former jobs that it limited then. `carry_over` counts
        the `starting` runs.
        """
        self._limits = limits
        self.sharing.accept({Key("limit", name): limit for name, limit in limits.items() if limit.shared})
        before, self._ledgers = self._ledgers, {}
        now = self._context.now.mono
        former, self._keys = self._keys, {}
        edges: dict[Key, int] = {}
        joined = set()
        for number, spec in enumerate(specs, 1):
            if number % _PIECE == 0:
                yield
            keys = self._keys[spec.name] = set()
            for key, rate, _ in self._asked(spec):
                keys.add(key)
                if key not in self._ledgers:
                    window = to_us(rate.window)
                    if key not in before:
                        edges[key] = now
                    else:
                        self._ledgers[key] = before[key]
                        if before[key].window < window:
                            edges[key] = before[key].trim(now)
                    self._ledger(key, rate).change(rate.count, window)
                if key in before and key not in former.get(spec.name, ()):
                    joined.add((spec.name, key))
        self._recall(starts, edges, joined, starting, is_first=is_first)
        yield
        names = self._keys.keys()
        self._push_backs = {name: pushed for name, pushed in self._push_backs.items() if name in names}
        self._unreadable = {name: found for name, found in self._unreadable.items() if name in names}

    def _recall(
        self,
        starts: Iterable[LimitedStart],
        edges: Mapping[Key, int],
        joined: set[tuple[str, Key]],
        starting: Collection[str],
        *,
        is_first: bool,
    ) -> None:
        """Record starts that the ledgers do not know: those up to the edge of a ledger, and all of a job that joined.

        An attempt that an earlier supervisor claimed may have started up to now, so it counts as now. A time that lies
        ahead counts as now too.
        """
        now, boot = self._context.now, self._context.boot
        for start in starts:
            if not start.is_known:
                at = now.mono
                if is_first:
                    known = replace(start, at=now.wall, mono=at, boot=boot, is_known=True)
                    self._context.actions.append(KeepStart(known))
            elif boot and start.boot == boot:
                at = min(start.mono, now.mono)
            else:
                at = min(now.at_wall(start.at).mono, now.mono)
            own = self._keys.get(start.job, set())
            keys = set(own)
            if start.limit is not None:
                keys.add(Key("limit", start.limit))
            for key in keys - own if start.run in starting else keys:
                has_joined = (start.job, key) in joined and start.limit != key.name
                if has_joined or at <= edges.get(key, at - 1):
                    self._ledgers[key].record(at)

    def carry_over(self, slot: ActiveSlot, spec: JobSpec | None) -> None:
        """Give an open slot its permits in the new windows after `accept`.

        An attempt that was granted before the reload and has not started yet cannot be held any more. It counts as
        granted in each ledger of its new spec, so that other attempts wait for it. The daemon of a shared limit counts
        it when it starts. `spec` is None if the job was removed.
        """
        for key in [key for key in slot.tickets if key not in self._ledgers]:
            del slot.tickets[key]
        attempt = slot.attempt
        if spec is None or attempt is None or not attempt.is_starting:
            return
        is_new = False
        for key, rate, _ in self._asked(spec):
            ticket = slot.tickets.get(key)
            if ticket is None or not ticket.flying:
                slot.tickets[key] = self._ledger(key, rate).force(ticket)
                is_new = True
            if self._is_shared(key):
                self.sharing.report_start_of(key, slot)
        if is_new:
            self._keep_start(spec, attempt.run.id, is_known=False)

    def rename(self, slot: ActiveSlot, old: str, new: str) -> None:
        """The job of an open slot has a new name: move its permits to the window of that name."""
        if _own(old) in slot.tickets:
            slot.tickets[_own(new)] = slot.tickets.pop(_own(old))

    def move(self, old: str, new: str) -> None:
        """A job has a new name. Must be called before `accept`."""
        if old in self._keys:
            self._keys[new] = {_own(new) if key == _own(old) else key for key in self._keys.pop(old)}
        if _own(old) in self._ledgers:
            self._ledgers[_own(new)] = self._ledgers.pop(_own(old))
        if old in self._push_backs:
            self._push_backs[new] = self._push_backs.pop(old)

    def usage(self) -> Iterator[tuple[str, int, int]]:
        """For each named limit that was used: its name, the starts in its window, and their maximum."""
        for name in self._limits:
            ledger = self._ledgers.get(Key("limit", name))
            if ledger is not None:
                yield name, ledger.used(self._context.now.mono), ledger.count

    # --- admission ---------------------------------------------------------------------------------------------

    def earliest(self, spec: JobSpec) -> Instant | None:
        """When a `rate` schedule may start its next run, as far as known; None for other schedules."""
        if not isinstance(spec.schedule, RateLimited):
            return None
        now, schedule = self._context.now, spec.schedule
        ledger = self._ledger(_own(spec.name), schedule.rate)
        return now.at_mono(Mono(ledger.earliest(now.mono, _pattern(schedule))))

    def enter(self, spec: JobSpec, slot: ActiveSlot) -> tuple[Key, Reason] | None:
        """None: the next attempt of the slot has its permits. Else the key that it waits for, and why."""
        now = self._context.now
        if slot.slot.forced:
            for key, rate, _ in self._asked(spec):
                slot.tickets[key] = self._ledger(key, rate).force(slot.tickets.get(key))
                if self._is_shared(key):
                    self.sharing.alone(key, slot)
            return None
        asked = self._asked(spec)
        if not asked and spec.name not in self._push_backs:
            return None
        elsewhere = [key for key, _, _ in asked if self.sharing.holds(key)]
        here = [one for one in asked if one[0] not in elsewhere]
        held = self._wait_here(spec, slot, here)
        if held is not None:
            until, key, why = held
            self._check_at(key, until)
            wall = to_epoch_us(now.at_mono(until).wall.replace(microsecond=0))
            return key, Reason(why.code, {**why.detail, "until": wall})
        for key in elsewhere:  # at the end, because a grant must be used at once
            refusal = self.sharing.enter(key, slot, self._all_offsets(spec))
            if refusal is not None:
                return key, refusal
            slot.tickets[key] = self._ledger(key, self._limits[key.name].rate).force(slot.tickets.get(key))
        for key, rate, pattern in here:
            self._admit(slot, key, self._ledger(key, rate), pattern)
        return None

    def _wait_here(
        self, spec: JobSpec, slot: ActiveSlot, asked: Iterable[tuple[Key, Rate, Pattern]]
    ) -> tuple[Mono, Key, Reason] | None:
        """Until when, by which key and why the next attempt must wait in this process; None if it need not."""
        now = self._context.now
        held: tuple[Mono, Key, Reason] | None = None
        if spec.name in self._push_backs:
            until, reason = self._push_backs[spec.name]
            if until > now.mono:
                held = until, Key("answer", spec.name), reason
            else:
                del self._push_backs[spec.name]
        for key, rate, pattern in asked:
            ledger, ticket = self._ledger(key, rate), slot.tickets.get(key)
            at = Mono(ledger.earliest(now.mono, pattern) if ticket is None else ledger.earliest_for(ticket, now.mono))
            if at > now.mono and (held is None or at > held[0]):
                held = at, key, _full(key, rate)
        return held

    def _admit(self, slot: ActiveSlot, key: Key, ledger: SlidingWindow, pattern: Pattern) -> None:
        """Take the permit of the next attempt in a window that allows it."""
        now = self._context.now
        if self._is_shared(key):
            self.sharing.alone(key, slot)
        if key in slot.tickets:
            ledger.readmit(slot.tickets[key], now.mono)
        else:
            ticket = ledger.reserve(now.mono, pattern)
            ledger.readmit(ticket, now.mono)
            slot.tickets[key] = ticket

    # --- reports about attempts --------------------------------------------------------------------------------

    def claimed(self, spec: JobSpec, run: Run) -> None:
        """An attempt is about to be claimed. Its start is stored first, so that no claim is stored without it."""
        self._keep_start(spec, run.id, is_known=False)

    def started(self, spec: JobSpec, slot: ActiveSlot) -> None:
        """The process of the attempt exists."""
        now = self._context.now.mono
        for key, ticket in slot.tickets.items():
            if key in self._ledgers:
                self._ledgers[key].started(ticket, now)
        for key, rate, _ in self._asked(spec):
            if key not in slot.tickets:  # the limit came after the claim
                self._ledger(key, rate).record(now)
        assert slot.attempt is not None
        self._keep_start(spec, slot.attempt.run.id, is_known=True)
        if slot.grants:
            self.sharing.started(slot)

    def failed(self, slot: ActiveSlot) -> None:
        """The attempt did not start."""
        for key, ticket in slot.tickets.items():
            if key in self._ledgers:
                self._ledgers[key].failed(ticket)
                self._touch(key)
        if slot.tickets and slot.attempt is not None:
            self._context.actions.append(DropStart(slot.attempt.run.id))
        if slot.grants:
            self.sharing.failed(slot)

    def release(self, slot: ActiveSlot) -> None:
        """The slot has ended: give back what it reserved."""
        for key, ticket in slot.tickets.items():
            if key in self._ledgers and (ticket.planned or ticket.flying):
                self._ledgers[key].release(ticket)
                self._touch(key)
        slot.tickets.clear()
        if slot.grants:
            self.sharing.release(slot)

    def push_back(self, spec: JobSpec, delay: timedelta, reason: Reason) -> Instant:
        """A server asks to wait: this job, and all jobs with its limit. Returns the end of the wait."""
        until = self._context.now.plus(delay)
        self._hold(spec, until.mono, reason)
        if spec.limit is not None and spec.limit in self._limits and self._limits[spec.limit].shared:
            self.sharing.push_back(self._limits[spec.limit], delay, reason)
        self._context.emit_event(Warned(spec.name, because("pushed_back", cause=reason)))
        return until

    def restore_push_back(self, spec: JobSpec, until: Mono, reason: Reason) -> None:
        """Continue a push-back of an earlier supervisor, for at most the `max_delay` of the job."""
        now = self._context.now
        if spec.http_aware is not None and until > now.mono:
            self._hold(spec, min(until, now.plus(spec.http_aware.max_delay).mono), reason)

    def note_unreadable(self, job: str, found: tuple[Unreadable, ...]) -> None:
        """Hints of an answer could not be read. The same hints are reported once."""
        if self._unreadable.get(job, ()) != found:
            for one in found:
                self._context.emit_event(Warned(job, because("hint_unreadable", source=one.source, text=one.value)))
        if found:
            self._unreadable[job] = found

    def _hold(self, spec: JobSpec, until: Mono, reason: Reason) -> None:
        if spec.name not in self._push_backs or self._push_backs[spec.name][0] < until:
            self._push_backs[spec.name] = until, reason
        if spec.limit is not None and spec.limit in self._limits:
            self._ledger(Key("limit", spec.limit), self._limits[spec.limit].rate).push_back(until)

    # --- helpers -----------------------------------------------------------------------------------------------

    def _keep_start(self, spec: JobSpec, run: str, *, is_known: bool) -> None:
        asked = self._asked(spec)
        if asked:
            now, window = self._context.now, max(to_us(rate.window) for _, rate, _ in asked)
            limit = spec.limit if spec.limit in self._limits else None
            start = LimitedStart(run, spec.name, limit, now.wall, now.mono, self._context.boot, window, is_known)
            self._context.actions.append(KeepStart(start))

    def _asked(self, spec: JobSpec) -> list[tuple[Key, Rate, Pattern]]:
        asked: list[tuple[Key, Rate, Pattern]] = []
        if spec.limit is not None and spec.limit in self._limits:
            asked.append((Key("limit", spec.limit), self._limits[spec.limit].rate, (0,)))
        if isinstance(spec.schedule, RateLimited):
            asked.append((_own(spec.name), spec.schedule.rate, _pattern(spec.schedule)))
        return asked

    def _is_shared(self, key: Key) -> bool:
        limit = self._limits.get(key.name) if key.kind == "limit" else None
        return limit is not None and limit.shared

    def _all_offsets(self, spec: JobSpec) -> Pattern:
        """The offsets of all attempts under a shared limit, if the limit could ever allow them."""
        from repeater.policy.limit import check_pattern

        if spec.limit is None or not isinstance(spec.schedule, RateLimited):
            return (0,)
        rate, pattern = self._limits[spec.limit].rate, _pattern(spec.schedule)
        try:
            check_pattern(pattern, rate.count, to_us(rate.window))
        except ValueError:
            return (0,)
        return pattern

    def _ledger(self, key: Key, rate: Rate) -> SlidingWindow:
        ledger = self._ledgers.get(key)
        if ledger is None:
            from repeater.policy.limit import SlidingWindow

            ledger = self._ledgers[key] = SlidingWindow(rate.count, to_us(rate.window))
        return ledger

    def _check_at(self, key: Key, until: Mono) -> None:
        """Check the slots of a key again at `until`, or at an earlier time that was set before."""
        known = self._timers.get(key)
        if known is not None and not known.cancelled and self._context.now.mono < known.at.mono <= until:
            return
        if known is not None:
            known.cancel()
        at = self._context.now.at_mono(until)
        self._timers[key] = self._context.call_at(at, "mono", lambda _: self._on_timer(key))

    def _on_timer(self, key: Key) -> None:
        del self._timers[key]
        self._touch(key)


def _own(job: str) -> Key:
    return Key("rate", job)


def _full(key: Key, rate: Rate) -> Reason:
    if key.kind == "rate":
        return because("rate", rate=str(rate))
    return because("limit", limit=key.name, rate=str(rate))


def _pattern(schedule: RateLimited) -> Pattern:
    return tuple(map(to_us, schedule.retry_pattern)) or (0,)
