"""The supervisor: facts in, actions out, on one loop.

Facts are gathered and handed to the engine one after another, each with one reading of the clocks; its actions are
carried out at once, in order, through the ports. It waits for the next fact or the engine's next instant, never for a
reason of its own, and decides nothing. Everything here runs in the loop's thread and nothing blocks it.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from functools import partial
from typing import assert_never

from repeater._lazy_dataclasses import replace
from repeater.engine.actions import (
    Action,
    Adopt,
    Announce,
    DropStart,
    ExitSupervisor,
    KeepStart,
    KillTree,
    PushBackQuota,
    ReadLoad,
    Record,
    RecordStarted,
    ReleaseQuota,
    RenameJob,
    RequestSharedStart,
    RunHook,
    SaveProgress,
    SendSignal,
    SpendQuota,
    Start,
    StartProbe,
    WatchPaths,
    WithdrawQuota,
)
from repeater.engine.engine import Engine
from repeater.engine.facts import (
    ClockJumped,
    Fact,
    LoadRead,
    PathsChanged,
    ProbeReported,
    RunEnded,
    RunExited,
    RunLost,
    RunStarted,
    SpawnFailed,
    TimePassed,
)
from repeater.errors import RepeaterError
from repeater.model.events import Event, Warned
from repeater.model.reasons import Reason
from repeater.model.reasons import reason as because
from repeater.model.spec import JobSpec, ProcessSpec
from repeater.model.time import Instant, to_epoch_us
from repeater.ports import (
    LaunchRequest,
    SharedRateLimiter,
    TimerHandle,
)
from repeater.supervisor.auxiliary_runs import RETRY, AuxiliaryRuns
from repeater.supervisor.driven_ports import Ports
from repeater.supervisor.faults import Faults, SupervisorFault, describe
from repeater.supervisor.launch import BaseEnvironment, launch_for, names_of, rendered

LONGEST_WAIT = 30_000_000
"""Microseconds after which the two clocks are compared even if nothing is due."""
JUMP = 2_000_000
"""Microseconds by which the clocks may drift apart between two looks before it counts as a jump."""
DRIFT = 500_000
"""Microseconds by which the times that distances are written with may differ from the wall clock, as NTP slews it."""
HOOK_GRACE = 10_000_000
"""Microseconds that hooks get to end when everything else has."""
_TIME_PASSED = TimePassed()
_MAY_QUOTE = (SpawnFailed, ProbeReported)
_OF_RUNS = (RunStarted, RunEnded, RunExited, RunLost, SpawnFailed)


class Supervisor:
    """`left` is called once, with the exit status, when nothing is left to do. `listeners` get every event.

    `log` gets the traceback of each unexpected exception that a port raised.
    """

    def __init__(
        self,
        engine: Engine,
        outside: Ports,
        left: Callable[[int], None],
        listeners: Iterable[Callable[[Event], None]],
        log: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._engine = engine
        self._outside = outside
        self._inherited = BaseEnvironment(outside.environ, outside.users)
        self._left = left
        self._listeners = tuple(listeners)
        self._inbox: deque[Fact] = deque()
        self._steps: Iterator[tuple[list[Action], bool]] | None = None  # of the fact in hand; the inbox waits for it
        self._woken = False
        self._alarm: TimerHandle | None = None
        self._rings_at = 0
        self._last: Instant = outside.clock.now()
        self._offset = to_epoch_us(self._last.wall) - self._last.mono
        self._asleep = outside.clock.suspended_us()
        self._rendering: dict[
            str, list[SendSignal | KillTree]
        ] = {}  # what was asked of runs whose texts are being rendered
        self._leave: int | None = None
        self._over = False
        self.faults = Faults(outside.clock, self._listen, log)
        self._auxiliary = AuxiliaryRuns(outside, self._inherited, self.faults, self._listen, self._exit_if_idle)

    @property
    def engine(self) -> Engine:
        return self._engine

    @property
    def is_working(self) -> bool:
        """Whether what follows from a fact is being done, over many turns of the loop."""
        return self._steps is not None

    def submit(self, fact: Fact) -> None:
        """Take a fact. It is handled in this turn of the loop or the next, in the order of arrival."""
        self._inbox.append(fact)
        self._wake()

    def paths_changed(self, job: str, paths: tuple[str, ...]) -> None:
        """What a `Watcher` calls for the files of a job."""
        self.submit(PathsChanged(job, paths))

    def close(self) -> None:
        """Nothing is handled any more."""
        self._over = True
        self._auxiliary.close()
        if self._alarm is not None:
            self._alarm.cancel()

    def _run_once(self) -> None:
        try:
            if not self._over and (self._steps is None or self._step()):
                now = self._arm(self._process_inbox())
                if now is not None:
                    self._let_time_pass(now)
        finally:
            self._woken = False
            self._wake()

    def _wake(self) -> None:
        """Have another turn if there is work: in this round of the loop, or in another one if a step was done."""
        if self._woken or self._over or not (self._inbox or self._steps):
            return
        self._woken = True
        if self._steps is None:
            self._outside.clock.call_soon(self._run_once)
        else:
            self._outside.clock.call_after(0, self._run_once)

    def _process_inbox(self) -> Instant:
        """Handle all facts that have arrived, with one reading of the clocks."""
        now = self._outside.clock.now()
        while self._inbox and not self._over and self._steps is None:
            fact = self._inbox.popleft()
            if isinstance(fact, _MAY_QUOTE):
                fact = self._without_secrets(fact)
            if isinstance(fact, _OF_RUNS) and fact.kind != "run":
                try:
                    self._auxiliary.handle(fact)
                except Exception as error:  # noqa: BLE001 - one hook or probe
                    self._auxiliary.contain(fact, error)
            else:
                self._handle(fact, now)
        return now

    def _decide(self, fact: Fact, now: Instant) -> bool:
        """Let the engine take a fact. False if more is left to do than fits one turn; the next fact waits then."""
        try:
            self._steps = self._engine.steps(fact, now)
        except Exception as error:
            raise SupervisorFault("the engine failed") from error
        return self._step()

    def _step(self) -> bool:
        """Do a part of what follows from the fact in hand. True if it was the last one."""
        assert self._steps is not None
        try:
            actions, has_more = next(self._steps)
        except Exception as error:
            self._steps = None
            raise SupervisorFault("the engine failed") from error
        if not has_more:
            self._steps = None
        self._carry_out(actions)
        return not has_more

    def _without_secrets(self, fact: SpawnFailed | ProbeReported) -> SpawnFailed | ProbeReported:
        """Why something failed may quote a command, a folder or an address."""
        if isinstance(fact, SpawnFailed) and fact.run in self._engine.admission.runs:
            job = self._engine.admission.runs[fact.run][0]
        else:
            name = fact.job if isinstance(fact, ProbeReported) else self._auxiliary.hook_of(fact.run)[1]
            if name not in self._engine.jobs:
                return fact
            job = self._engine.jobs[name]
        process = job.spec.process
        if not process.secrets or fact.reason is None:
            return fact
        from repeater.supervisor.sinks.masking import without_secrets

        return replace(fact, reason=without_secrets(fact.reason, process, self._inherited))

    def _handle(self, fact: Fact, now: Instant) -> None:
        if now is not self._last:
            offset = to_epoch_us(now.wall) - now.mono
            drift, self._offset = offset - self._offset, offset
            self._last = now
            if abs(drift) > JUMP:
                self._report_clock_jump(drift, now)
            is_jump = abs(drift) > JUMP or abs(offset - self._engine.offset) > DRIFT
            if is_jump and not self._decide(ClockJumped(), now):
                self._inbox.appendleft(fact)
                return
        self._decide(fact, now)

    def _report_clock_jump(self, drift: int, now: Instant) -> None:
        asleep = self._outside.clock.suspended_us()
        slept, self._asleep = asleep - self._asleep, asleep
        if slept > JUMP:
            self._listen(Warned("", Reason("machine_slept", {"length": slept})))
        if abs(drift - slept) > JUMP:
            self._outside.store.clock_set(now.wall - timedelta(microseconds=drift - slept), now.wall)
            self._listen(Warned("", Reason("clock_set", {"by": drift - slept})))

    def _arm(self, last: Instant) -> Instant | None:
        """Wait for the engine's next instant; the reading of the clocks at which it has come, if it has. `last` is the
        reading that it was given last.
        """
        if self._over or self._steps is not None:
            return None
        try:
            wait = self._engine.wait(last)
        except Exception as error:
            raise SupervisorFault("the engine failed") from error
        rings_at = last.mono + (LONGEST_WAIT if wait is None else min(wait, LONGEST_WAIT))
        if self._alarm is not None and self._rings_at <= rings_at:  # too early at worst, and then it is set again
            return None
        now = self._outside.clock.now()
        if rings_at <= now.mono:  # the way over an alarm costs more than some runs do
            return now
        if self._alarm is not None:
            self._alarm.cancel()
        self._rings_at = rings_at
        self._alarm = self._outside.clock.call_after(rings_at - now.mono, self._on_timer)
        return None

    def _on_timer(self) -> None:
        self._alarm = None
        if not self._over and self._steps is None:  # the alarm is set again after the last step
            self._let_time_pass(self._outside.clock.now())
            self._wake()

    def _let_time_pass(self, now: Instant) -> None:
        """Once: then the loop gets its turn."""
        self._handle(_TIME_PASSED, now)
        if self._arm(now) is not None:
            self.submit(_TIME_PASSED)

    def _carry_out(self, actions: Iterable[Action]) -> None:
        """All of them, in order: one that fails costs its owner only."""
        for action in actions:
            try:
                self._carry(action)
            except SupervisorFault:
                raise
            except Exception as error:  # noqa: BLE001
                self._contain(action, error)

    def _carry(self, action: Action) -> None:
        outside = self._outside
        match action:  # what every run brings comes first
            case Announce():
                self._listen(action.event)
            case Start():
                command = partial(self._command, action.spec.process)
                outside.store.claim(action.row, action.progress, partial(self._claimed, action), command)
            case Record():
                outside.store.record(action.row, action.progress)
            case RecordStarted():
                outside.store.started(action.row, action.pid)
            case KeepStart(start):
                outside.store.keep_start(start)
            case DropStart(run):
                outside.store.drop_start(run)
            case Adopt() | SendSignal() | KillTree():
                self._ask_spawner(action)
            case SaveProgress(progress):
                outside.store.save(progress)
            case RenameJob(old, new):
                outside.store.move(old, new)
            case WatchPaths():
                self._watch(action)
            case StartProbe(job, kind, probe, spec):
                outside.prober.run_probe(job, kind, probe, spec)
            case ReadLoad(job):
                self.submit(LoadRead(job, outside.load.read()))
            case RunHook():
                self._auxiliary.run_hook(action)
            case RequestSharedStart() | WithdrawQuota() | SpendQuota() | ReleaseQuota() | PushBackQuota():
                _share(action, outside.quota)
            case ExitSupervisor(code):
                self._leave = code
                self._exit_if_idle()
            case _:
                assert_never(action)

    def _contain(self, action: Action, error: Exception) -> None:
        """An exception of a port. What the engine waits for is answered; a fault of the store ends the supervisor."""
        match action:
            case Start() | Record() | RecordStarted() | KeepStart() | DropStart() | SaveProgress() | RenameJob():
                raise SupervisorFault("the store failed") from error
            case StartProbe(job, kind, _, _):
                self.faults.report("probe", error, job=job, name=kind)
                self.submit(
                    ProbeReported(
                        job,
                        "live" if kind == "live" else "ready",
                        ok=False,
                        reason=because("probe_failed", error=describe(error)),
                    )
                )
            case ReadLoad(job):
                from repeater.schedule.load_aware import LoadReadings

                self.faults.report("job", error, job=job, name="load")
                self.submit(LoadRead(job, LoadReadings()))
            case RunHook():
                self.faults.report("hook", error, job=action.job, name=action.kind)
            case WatchPaths():
                self.faults.report("watch", error, job=action.job)
            case Adopt(run, spec):
                self.faults.report("run", error, job=spec.name, name=run)
                self.submit(RunLost(run, because("launch_failed", error=describe(error))))
            case SendSignal(run, _) | KillTree(run):
                self.faults.report("run", error, job=self.job_of(run), name=run)
                self._outside.clock.call_after(RETRY, partial(self._ask_again, action))
            case RequestSharedStart() | WithdrawQuota() | SpendQuota() | ReleaseQuota() | PushBackQuota():
                self.faults.report("limit", error)
            case _:
                self.faults.report("service", error)

    def job_of(self, run: str) -> str:
        """The name of the job of a live run; empty if there is no such run."""
        found = self._engine.admission.runs.get(run)
        return "" if found is None else found[0].spec.name

    def _ask_spawner(self, action: Adopt | SendSignal | KillTree) -> None:
        if not isinstance(action, Adopt) and action.run in self._rendering:
            self._rendering[action.run].append(action)
            return
        match action:
            case Adopt(run, spec):
                self._outside.outputs.begin(run, spec)
                self._outside.spawner.adopt(run)
            case SendSignal(run, signal):
                self._outside.spawner.signal(run, signal)
            case KillTree(run):
                self._outside.spawner.kill_tree(run)

    def _ask_again(self, action: SendSignal | KillTree) -> None:
        """Repeat what the spawner failed to do for a run that has not ended since."""
        if not self._over and action.run in self._engine.admission.runs:
            self._carry_out([action])

    def _claimed(self, start: Start, error: Exception | None) -> None:
        """The slot is ours, durably: only now may its process exist. The engine gets SpawnFailed for any exception,
        so that the slot does not stay open.
        """
        if self._over:
            return
        try:
            self._start_claimed(start, error)
        except Exception as fault:  # noqa: BLE001 - the fault of this run
            self._fail_start(start, fault)

    def _fail_start(self, start: Start, error: Exception) -> None:
        """An exception before the process of a run existed."""
        self._rendering.pop(start.run.id, None)
        self.faults.report("run", error, job=start.spec.name, name=start.run.id)
        self.submit(SpawnFailed(start.run.id, because("launch_failed", error=describe(error))))

    def _start_claimed(self, start: Start, error: Exception | None) -> None:
        if error is not None:
            full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or getattr(error, "temporary", False)
            taken = getattr(error, "taken", False)
            self.submit(SpawnFailed(start.run.id, because("claim_failed", error=str(error)), full, taken))
            return
        process, renderer = start.spec.process, self._outside.renderer
        if process.late and renderer is not None:
            from repeater.jobfile.run_templates import is_plain

            if not is_plain(process):
                self._rendering[start.run.id] = []
                renderer.render(process, names_of(start.run), partial(self._rendered, start))
                return
        self._launch(start, None)

    def _command(self, process: ProcessSpec) -> str | None:
        from repeater.supervisor.sinks.masking import command_text  # only with a history

        return command_text(process, self._inherited)

    def _rendered(self, start: Start, process: ProcessSpec | RepeaterError) -> None:
        """The late texts of a run are there: now its process may start. What was asked of it meanwhile comes after."""
        asked = self._rendering.pop(start.run.id, None)
        if self._over or asked is None:  # the start has failed before
            return
        if isinstance(process, RepeaterError):
            self.submit(SpawnFailed(start.run.id, because("launch_failed", error=str(process))))
            return
        self._launch(start, process)
        self._carry_out(asked)

    def _launch(self, start: Start, process: ProcessSpec | None) -> None:
        spec, now = start.spec, self._outside.clock.now().wall
        try:
            if spec.process.late:
                process = rendered(spec.process, start.run) if process is None else process
                self._outside.store.set_command(start.row, self._command(process))
            launch = launch_for(
                spec,
                start.run,
                self._inherited,
                now=now,
                last_success=start.progress.last_success,
                plugins=self._outside.plugins,
                process=process,
            )
            self._start(launch, spec)
        except RepeaterError as refusal:
            self.submit(SpawnFailed(start.run.id, because("launch_failed", error=str(refusal))))
        except Exception as error:  # noqa: BLE001 - any error belongs to this run
            self._fail_start(start, error)

    def _start(self, launch: LaunchRequest, spec: JobSpec) -> None:
        self._outside.outputs.begin(launch.run, spec, launch.kind)
        self._outside.spawner.start(launch)

    def _watch(self, action: WatchPaths) -> None:
        """A watch that cannot begin is a fault of its job; the job still runs when it is asked to."""
        try:
            if action.watch is None:
                self._outside.watcher.unwatch(action.job)
            else:
                self._outside.watcher.watch(action.job, action.folder, action.watch.globs, action.watch.ignore)
        except Exception as error:  # noqa: BLE001
            self.faults.report("watch", error, job=action.job)

    def _exit_if_idle(self) -> None:
        if self._leave is None or self._over:
            return
        if self._auxiliary.has_hooks:
            self._outside.clock.call_after(HOOK_GRACE, self._give_up_hooks)
            return
        self.close()
        self._left(self._leave)

    def _give_up_hooks(self) -> None:
        self._auxiliary.give_up_hooks()
        self._exit_if_idle()

    def _listen(self, event: Event) -> None:
        for listener in self._listeners:
            try:
                listener(event)
            except Exception as error:  # noqa: BLE001 - who listens never steers
                self.faults.report("listener", error, name=getattr(listener, "__qualname__", type(listener).__name__))


def _share(
    action: RequestSharedStart | WithdrawQuota | SpendQuota | ReleaseQuota | PushBackQuota,
    quota: SharedRateLimiter,
) -> None:
    """What concerns limits that a daemon holds."""
    match action:
        case RequestSharedStart():
            quota.request(action)
        case WithdrawQuota(id_):
            quota.withdraw(id_)
        case SpendQuota(limit, rate, reservation, started):
            quota.report_start(limit, rate, reservation, started=started)
        case ReleaseQuota(reservation):
            quota.release(reservation)
        case PushBackQuota(limit, rate, delay, reason):
            quota.push_back(limit, rate, delay, reason)
