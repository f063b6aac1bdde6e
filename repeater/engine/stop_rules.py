"""When one job is done: its `stop` rule, its deadlines, and the restart rule of a service."""

from __future__ import annotations

from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

from repeater.engine.job_data import JobData
from repeater.engine.job_states import TAKES_SLOTS, State
from repeater.engine.timers import Timer
from repeater.model.reasons import Reason
from repeater.model.reasons import reason as because
from repeater.model.run import Verdict
from repeater.model.spec import Plugin, Stop
from repeater.model.time import MICROSECOND, Instant
from repeater.policy import stop

if TYPE_CHECKING:
    from repeater.engine.plugin_conditions import PluginConditions


class StopRules:
    """Checks the rules of one job and finishes it when one is met.

    `pattern_found`: the `stop` pattern was in the output of a run. `last_exit` is the exit status of the last run.
    """

    __slots__ = ("_deadlines", "_job", "_plugin_conditions", "last_exit", "pattern_found")

    def __init__(self, job: JobData) -> None:
        self._job = job
        self._deadlines: list[Timer] = []
        self._plugin_conditions: PluginConditions | None = None
        self.pattern_found = False
        self.last_exit: int | None = None

    def copy(self, other: StopRules) -> None:
        """Take over what `other` has observed."""
        self.pattern_found, self.last_exit = other.pattern_found, other.last_exit
        self._plugin_conditions = other._plugin_conditions

    def reset(self) -> None:
        """Forget what was observed."""
        self.pattern_found = False
        self.last_exit = None

    def met(self) -> Reason | None:
        """Which stop condition is met; None if none is."""
        job = self._job
        rule, progress = job.spec.stop, job.progress
        return stop.met(
            rule,
            progress,
            pattern_found=self.pattern_found,
            last_success=job.last_success if progress.runs else None,
            last_exit=self.last_exit,
            now=job.context.now.wall,
            elapsed=None if rule.for_ is None else self._elapsed(),
            plugged=self._plugin_stop_met,
        )

    def check(self) -> None:
        """Finish the job if a stop condition is met."""
        if self._job.state in TAKES_SLOTS:
            reason = self.met()
            if reason is not None:
                self._job.finish(reason)

    def check_count(self) -> None:
        """Finish the job if it has started as often as `stop.times` says."""
        job = self._job
        rule = job.spec.stop
        if rule.times is not None and not rule.all and job.progress.runs >= rule.times and job.state is State.ACTIVE:
            job.finish(because("runs_reached", count=rule.times))

    def check_restart(self, outcome: Verdict | None) -> None:
        """Finish a service that ended if its `restart` rule does not start it again."""
        rule, success = self._job.spec.restart, outcome is not None and outcome.success
        if rule == "never" or (rule == "on-failure" and success):
            self._job.finish(because("service_ended", restart=rule))

    def arm(self) -> None:
        """Check again at the deadlines of the rule."""
        for timer in self._deadlines:
            timer.cancel()
        rule, context = self._job.spec.stop, self._job.context
        self._deadlines = []
        if rule.for_ is not None:
            end = self._began.plus(rule.for_)
            self._deadlines.append(context.call_at(end, "mono", lambda _: self.check()))
        if rule.until is not None:
            until = context.now.at_wall(rule.until)
            self._deadlines.append(context.call_at(until, "wall", lambda _: self.check()))

    def _elapsed(self) -> timedelta:
        """The time that `stop.for` limits, by the monotonic clock."""
        return (self._job.context.now.mono - self._began.mono) * MICROSECOND

    @property
    def _began(self) -> Instant:
        """Where `stop.for` counts from."""
        progress = self._job.progress
        return self._job.context.reading(progress.began or progress.anchor)

    def _plugin_stop_met(self, plugin: Plugin) -> Reason | None:
        """Whether a stop condition of a plugin is met, and why."""
        from repeater.engine.plugin_conditions import PluginConditions
        from repeater.policy.plugin_stop import tally

        job = self._job
        if self._plugin_conditions is None:
            self._plugin_conditions = PluginConditions(job.context, self.check)
        last = next(reversed(job.recent.values()), None)
        counters = tally(job.progress, now=job.context.now.wall, elapsed=self._elapsed(), last=last)
        return self._plugin_conditions.reason(job.node.plugins, plugin, counters)


@lru_cache(maxsize=256)
def fingerprint(rule: Stop) -> str:
    """A text that changes with the rule. Jobs with equal rules share one string."""
    return repr(rule)


def is_rule(reason: Reason | None) -> bool:
    """Whether a job is done because of its `stop` rule, and not because its schedule or its service ended."""
    return reason is not None and reason.code not in ("schedule_ended", "service_ended")
