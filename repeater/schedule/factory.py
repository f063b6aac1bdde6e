"""The one place that lists the kinds of schedules."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from repeater.model.spec import (
    Adaptive,
    Always,
    At,
    Cron,
    Every,
    Growing,
    JobSpec,
    LoadAware,
    Manual,
    Once,
    OnceEver,
    OnChange,
    Plugin,
    RateLimited,
)
from repeater.schedule.backoff import GrowingSchedule
from repeater.schedule.base import Schedule
from repeater.schedule.interval import EverySchedule
from repeater.schedule.simple import AlwaysSchedule, AtSchedule, ManualSchedule, OnceSchedule

if TYPE_CHECKING:
    from repeater.model.plugins import Plugins


def schedule_for(job: JobSpec, plugins: Plugins | None = None) -> Schedule:
    """The schedule of a job. Cheap: what is costly about cron and plugins happens at the first `next`."""
    spec = job.schedule
    match spec:
        case Once() | OnceEver():
            return OnceSchedule()
        case Manual() | OnChange():
            return ManualSchedule()
        case Always():
            return AlwaysSchedule()
        case At():
            return AtSchedule(spec.at)
        case Every():
            return EverySchedule(spec)
        case Growing():
            return GrowingSchedule(spec, job.name)
        case Adaptive() | LoadAware():
            from repeater.schedule.adaptive_schedule import AdaptiveSchedule

            return AdaptiveSchedule(spec.base)
        case RateLimited():
            from repeater.schedule.rate import RateSchedule

            return RateSchedule(spec)
        case Cron():
            from repeater.schedule.cron import CronSchedule

            return CronSchedule(spec, job.name)
        case Plugin():
            from repeater.model.plugins import NO_PLUGINS
            from repeater.schedule.plugin import PluginSchedule

            return PluginSchedule(spec, job.name, plugins or NO_PLUGINS)
        case _:
            assert_never(spec)
