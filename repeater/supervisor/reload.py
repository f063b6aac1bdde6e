"""Reload: a change of files is noticed, the files are read, a plan is made, and a new generation is applied.

A `Watcher` reports changes. Its reports can be wrong, early, late or frequent, so the content decides. After a burst
(`DEBOUNCE`) another process reads all files. An invalid result is read once more, because a half-written file looks
invalid too. If the files have a problem, the active generation stays, and the problem is reported once.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from itertools import islice
from typing import Protocol

from repeater._lazy_dataclasses import dataclass, replace
from repeater.engine.engine import Engine
from repeater.engine.facts import Fact, PlanAccepted
from repeater.engine.preview import Prospect, foresee
from repeater.errors import ApplyRefused, Problem, RepeaterError
from repeater.model.events import Event, ReloadRecovered, ReloadRejected
from repeater.model.plugins import NO_PLUGINS, Plugins
from repeater.model.reasons import Reason
from repeater.model.reasons import reason as because
from repeater.model.run import LimitedStart
from repeater.model.spec import JobFile, JobSpec
from repeater.plan.diff import JobPlan, Plan, SharedChange, changes_between, diff_shared, entries, moves
from repeater.plan.graph import Graph, wiring
from repeater.policy.marks import Hiding
from repeater.ports import Clock, Store, TimerHandle
from repeater.supervisor.recent_starts import needs_starts, recent_limited_starts

DEBOUNCE = 200_000
"""Microseconds without a further hint after which files are read."""
LONGEST_BURST = 2_000_000
"""Microseconds after which files are read although the hints do not end."""


TURN = 50
"""Jobs of a plan that are handled in one turn of the loop: about 10 ms."""
KEPT = 10
"""Jobs that do not change, of which as many are handled in the time of one that does."""


class LoadedFiles(Protocol):
    """What was read: the specs, and the content of every file, hashed by path."""

    @property
    def jobfile(self) -> JobFile: ...

    @property
    def files(self) -> Mapping[str, str]: ...

    @property
    def folder(self) -> str: ...

    @property
    def globs(self) -> tuple[str, ...]:
        """Absolute patterns of included files, of which new ones may appear."""
        ...

    @property
    def warnings(self) -> Sequence[Problem]:
        """What is probably a mistake in the files."""
        ...

    @property
    def document(self) -> str:
        """The specs as text, for the store."""
        ...

    @property
    def extras(self) -> str:
        """Pools, limits and marks of env-file contents as text, for the store."""
        ...


Answer = Callable[[LoadedFiles | RepeaterError], None]
Read = Callable[[Answer], None]


@dataclass(frozen=True, slots=True)
class Applied:
    """The result of a request to read: the plan against the active specs, and the new generation.

    The plan has marks in the place of secrets, because it is shown.
    """

    generation: int
    plan: Plan
    jobfile: JobFile


@dataclass(frozen=True, slots=True)
class _Made:
    """A plan, with marks in the place of secrets in `shown`."""

    plan: Plan
    shown: Plan
    graph: Graph
    changes: bool


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What an apply would do now. `refusal` says why it would be refused, None if it would not be. The plan is to be
    shown: values of secrets are marks in it.
    """

    generation: int
    plan: Plan
    jobfile: JobFile
    prospects: Mapping[str, Prospect]
    refusal: ApplyRefused | None = None


class Reload:
    """`read` reads the files in another process and calls back in the loop. `accepted` gets the files to watch."""

    def __init__(  # noqa: PLR0913 - each is another port or option
        self,
        engine: Engine,
        clock: Clock,
        tell: Callable[[Fact], None],
        *,
        read: Read,
        store: Store,
        accepted: Callable[[LoadedFiles, int], None],
        listen: Callable[[Event], None],
        allow_removals: bool = False,
        plugins: Plugins = NO_PLUGINS,
        marks: Hiding,
    ) -> None:
        self._marks = marks
        self._engine = engine
        self._plugins = plugins
        self._clock = clock
        self._tell = tell
        self._read = read
        self._store = store
        self._accepted = accepted
        self._listen = listen
        self._allow_removals = allow_removals
        self._alarm: TimerHandle | None = None
        self._burst_began: int | None = None
        self._reading = False
        self._again = False
        self._planning = False
        self._doubted: str | None = None
        self._rejected: Reason | None = None
        self._in_force: Mapping[str, str] = {}
        self._accepted_last = 0

    @property
    def generation(self) -> int:
        """The number of the active generation."""
        return self._engine.generation

    @property
    def rejected(self) -> Reason | None:
        """Why the current files were rejected; None if they are active."""
        return self._rejected

    def in_force(self, files: Mapping[str, str]) -> None:
        """Set the contents of the active files."""
        self._in_force = files

    def file_changed(self) -> None:
        """A file may have changed."""
        now = self._clock.now().mono
        if self._burst_began is None:
            self._burst_began = now
        if self._alarm is not None:
            self._alarm.cancel()
        wait = max(0, min(DEBOUNCE, self._burst_began + LONGEST_BURST - now))
        self._alarm = self._clock.call_after(wait, self.read_now)

    def read_now(self) -> None:
        """Read without waiting; SIGHUP and `rpr reload` ask for this."""
        self._burst_began = None
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._reading:
            self._again = True
            return
        self._reading = True
        self._read(self._on_loaded)

    def ask(
        self,
        then: Callable[[Applied | RepeaterError], None],
        *,
        read: Read | None = None,
        allow_removals: bool = False,
        dry_run: bool = False,
    ) -> None:
        """Read now for a client, and call `then` with the result. A refusal is reported to the client only.

        `read` replaces the current way to read the files, if its result is accepted. With `dry_run` nothing changes.
        """

        def answered(answer: LoadedFiles | RepeaterError) -> None:
            if self._waits(lambda: answered(answer)):
                return
            if isinstance(answer, RepeaterError):
                if read is None:
                    self._rejected = because("files_rejected", error=str(answer))
                then(answer)
                return
            self._make(answer, lambda made: planned(answer, made), allow_removals=allow_removals)

        def planned(answer: LoadedFiles, made: _Made | ApplyRefused) -> None:
            if isinstance(made, ApplyRefused):
                then(made)
                return
            generation = self._engine.generation + made.changes
            if not dry_run:
                self._read = read or self._read
                self._again = self._reading  # what is being read now may be older
                if made.changes:
                    self._accept(answer, made)
                else:
                    self._recovered(generation)
            then(Applied(generation, made.shown, answer.jobfile))

        (read or self._read)(answered)

    def foresee(
        self,
        then: Callable[[Foreseen | RepeaterError], None],
        *,
        read: Read | None = None,
        allow_removals: bool = False,
    ) -> None:
        """Read now, and answer what an apply of that would do. Nothing changes. `read` as in `ask`."""

        def answered(answer: LoadedFiles | RepeaterError) -> None:
            if self._waits(lambda: answered(answer)):
                return
            if isinstance(answer, RepeaterError):
                then(answer)
                return
            self._foresee(answer, allow_removals=allow_removals, then=then)

        (read or self._read)(answered)

    def _foresee(
        self, answer: LoadedFiles, *, allow_removals: bool, then: Callable[[Foreseen | RepeaterError], None]
    ) -> None:
        """Handle some jobs in each turn of the loop. Start over if another generation is applied meanwhile."""
        generation = self._engine.generation
        steps = self._foreseeing(answer, generation, allow_removals=allow_removals)

        def begin_again() -> None:
            self._foresee(answer, allow_removals=allow_removals, then=then)

        def turn() -> None:
            if self._is_behind():
                self._clock.call_after(10_000, begin_again)
                return
            if self._engine.generation != generation:
                begin_again()
                return
            try:
                next(steps)
            except StopIteration as end:
                then(end.value)
            else:
                self._clock.call_after(0, turn)  # in another round of the loop, which `call_soon` is not

        turn()

    def _foreseeing(
        self, answer: LoadedFiles, generation: int, *, allow_removals: bool
    ) -> Generator[None, None, Foreseen]:
        engine, jobfile = self._engine, answer.jobfile
        graph = yield from self._wiring(jobfile)
        found: list[JobPlan] = []
        prospects: dict[str, Prospect] = {}
        rest = entries(self._specs(), jobfile.jobs, engine.removed)
        while piece := list(islice(rest, TURN)):
            prospects.update(foresee(engine, piece, graph, self._clock.now()))
            found.extend(self._hidden(entry, graph) for entry in piece)
            if len(piece) == TURN:
                yield
        plan, refusal = Plan(tuple(found), self._shared(jobfile)), None
        try:
            self._guard(jobfile, allow_removals=allow_removals)
        except ApplyRefused as error:
            refusal = error
        changes = plan.changes_anything or answer.files != self._in_force
        return Foreseen(generation + changes, plan, jobfile, prospects, refusal)

    def _on_loaded(self, answer: LoadedFiles | RepeaterError) -> None:
        if self._waits(lambda: self._on_loaded(answer)):
            return
        if self._is_outdated():
            return
        if isinstance(answer, RepeaterError):
            self._reading = False
            self._retry_once(str(answer))
            return
        self._doubted = None
        if answer.files == self._in_force:
            self._reading = False
            self._recovered(self._engine.generation)
            return
        self._make(answer, lambda made: self._have_planned(answer, made))

    def _have_planned(self, answer: LoadedFiles, made: _Made | ApplyRefused) -> None:
        if self._is_outdated():
            return
        self._reading = False
        if isinstance(made, ApplyRefused):
            self._reject(f"{made.message} ({made.hint})")
            return
        self._accept(answer, made)

    def _is_outdated(self) -> bool:
        """Whether a newer reading was asked for meanwhile; it begins then."""
        if not self._again:
            return False
        self._reading = self._again = False
        self.file_changed()
        return True

    def _make(
        self, answer: LoadedFiles, then: Callable[[_Made | ApplyRefused], None], *, allow_removals: bool = False
    ) -> None:
        """Make the plan in turns of the loop, one plan at a time, and call `then`."""
        self._planning = True
        steps = self._making(answer, allow_removals=allow_removals)

        def turn() -> None:
            if self._is_behind():  # the wall clock was set: the engine is as good as before in a moment
                self._clock.call_after(10_000, turn)
                return
            try:
                next(steps)
            except StopIteration as end:
                self._planning = False
                then(end.value)
            except BaseException:
                self._planning = self._reading = False
                raise
            else:
                self._clock.call_after(0, turn)  # in another round of the loop, which `call_soon` is not

        turn()

    def _making(self, answer: LoadedFiles, *, allow_removals: bool) -> Generator[None, None, _Made | ApplyRefused]:
        """No other generation is accepted before it ends, as one plan is made at a time."""
        jobfile, engine = answer.jobfile, self._engine
        graph = yield from self._wiring(jobfile)
        yield
        try:
            self._guard(jobfile, allow_removals=allow_removals)
        except ApplyRefused as refusal:
            return refusal
        yield
        found: list[JobPlan] = []
        shown: list[JobPlan] = []
        spent = 0
        changes = False
        for entry in entries(self._specs(), jobfile.jobs, engine.removed):
            found.append(entry)
            shown.append(self._hidden(entry, graph))
            changes = changes or entry.reload != "keep"
            spent += 1 if entry.reload == "keep" else KEPT
            if spent >= TURN * KEPT:
                spent = 0
                yield
        shared = self._shared(jobfile)
        changes = changes or bool(shared) or answer.files != self._in_force
        return _Made(Plan(tuple(found), shared), Plan(tuple(shown), shared), graph, changes)

    def _accept(self, answer: LoadedFiles, made: _Made) -> None:
        self._doubted = None
        self._in_force = answer.files
        self._accepted_last = generation = self._engine.generation + 1
        self._recovered(generation)
        self._accepted(answer, generation)
        starts = self._starts(answer.jobfile, made.plan)
        self._tell(PlanAccepted(generation, made.plan, made.graph, starts=starts))

    def _starts(self, jobfile: JobFile, plan: Plan) -> tuple[LimitedStart, ...]:
        """The starts that limits which the engine does not have yet may count."""
        graph = self._engine.graph
        before = () if graph is None else graph.limits.values()
        specs = [job.spec for job in self._engine.jobs.values()]
        if not needs_starts(specs, before, jobfile.jobs, jobfile.limits):
            return ()
        former = {entry.job: entry.moved_from for entry in plan.jobs if entry.moved_from}
        now, boot = self._clock.now(), self._clock.boot()
        return recent_limited_starts(jobfile.jobs, jobfile.limits, self._store, now, boot, former)

    def _recovered(self, generation: int) -> None:
        """The files are valid; report it if they were not."""
        if self._rejected is not None:
            self._rejected = None
            self._listen(ReloadRecovered(generation))

    def _wiring(self, jobfile: JobFile) -> Generator[None, None, Graph]:
        return wiring(jobfile, self._plugins, {name: job.node for name, job in self._engine.jobs.items()})

    def _is_behind(self) -> bool:
        """Whether the engine has not taken yet, or not as a whole, what was accepted last."""
        return self._engine.generation < self._accepted_last or self._engine.is_changing

    def _waits(self, call: Callable[[], None]) -> bool:
        """Whether another plan is being made, or was accepted and not taken yet: the next one is made after it."""
        if not self._planning and not self._is_behind():
            return False
        self._clock.call_after(10_000, call)
        return True

    def _specs(self) -> dict[str, JobSpec]:
        return {name: job.spec for name, job in self._engine.jobs.items()}

    def _shared(self, jobfile: JobFile) -> tuple[SharedChange, ...]:
        graph = self._engine.graph
        pools, limits = (graph.pools.values(), graph.limits.values()) if graph is not None else ((), ())
        return diff_shared(pools, jobfile.pools, limits, jobfile.limits)

    def _hidden(self, entry: JobPlan, graph: Graph) -> JobPlan:
        if not entry.changes:
            return entry
        old, new = self._engine.jobs[entry.moved_from or entry.job].spec, graph.nodes[entry.job].spec
        if not (old.process.secrets or new.process.secrets):
            return entry
        hide = self._marks.hide
        return replace(entry, changes=changes_between(hide(old), hide(new)))

    def _guard(self, jobfile: JobFile, *, allow_removals: bool) -> None:
        if not (allow_removals or self._allow_removals):
            guard_removals(self._engine.jobs, jobfile.jobs)
        guard_renames(self._engine, jobfile.jobs)

    def _retry_once(self, error: str) -> None:
        """The file may be half-written: accept the problem the second time."""
        if error == self._doubted:
            self._reject(error)
        else:
            self._doubted = error
            self.file_changed()

    def _reject(self, error: str) -> None:
        reason = because("files_rejected", error=error)
        if reason != self._rejected:
            self._rejected = reason
            self._listen(ReloadRejected(self._engine.generation, reason))


def guard_removals(before: Iterable[str], jobs: Iterable[JobSpec]) -> None:
    """Raises ApplyRefused if several jobs, and more than half of the names in `before`, are not among `jobs` any more.

    A job that was renamed (`moved_from`) is still there.
    """
    known, wanted = set(before), {job.name: job for job in jobs}
    removed = known - wanted.keys() - set(moves(known, wanted).values())
    if len(removed) > 1 and 2 * len(removed) > len(known):
        raise ApplyRefused(
            f"cannot apply: {len(removed)} of {len(known)} jobs would be removed",
            hint="if that is meant, use `rpr apply --allow-removals`",
        )


def guard_renames(engine: Engine, jobs: Iterable[JobSpec]) -> None:
    """Raises ApplyRefused if an active job would get the name of a removed job that still has a live run.

    The records of both jobs would have the same names, so each job would overwrite the counters of the other.
    """
    for name, former in moves(engine.jobs, {job.name: job for job in jobs}).items():
        if engine.find_gone(name) is not None:
            raise ApplyRefused(
                f"cannot apply: `{former}` cannot be renamed to `{name}`, as a run of the removed job `{name}` is live",
                hint="apply again when that run has ended, or use another name",
            )
