"""`rpr next`: the next starts of each job, from the files alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta, tzinfo

import click

from repeater.cli.options import files_argument, json_option, project_option, set_option
from repeater.errors import PluginFailed
from repeater.model.plugins import Plugins
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
from repeater.model.time import Instant, Mono, offset_text, rfc3339
from repeater.model.units import format_duration
from repeater.output.terminal import json_line
from repeater.plan.select import select
from repeater.schedule.factory import schedule_for
from repeater.schedule.forecast import ForecastStart, first_start, starts

MILLISECOND = timedelta(milliseconds=1)


@click.command(epilog="Example: rpr next jobs.toml -n 3 --from 2026-03-29")
@files_argument
@set_option
@project_option
@click.option(
    "-n",
    "--count",
    type=click.IntRange(1, 100_000),
    default=5,
    show_default=True,
    help="Number of starts to show for each job.",
)
@click.option("--from", "begin", metavar="TIME", help="Time to begin at, in RFC 3339 or as a date. Default: now.")
@click.option(
    "--job",
    "globs",
    multiple=True,
    metavar="JOB",
    help="Show only these jobs: a name, a glob, or a label as `key=value`. Repeatable.",
)
@json_option
def next_(
    files: tuple[str, ...],
    set_vars: tuple[tuple[str, str], ...],
    project: str | None,
    count: int,
    begin: str | None,
    globs: tuple[str, ...],
    as_json: bool,
) -> int:
    """Show the next starts of each job.

    Shows a start at once and the starts after now, or after `--from`, in UTC and in the time zone of the job (default:
    the local zone). The result is what would happen if the jobs were applied at that time. Nothing is started or
    stored. Exit code 1: a schedule plugin failed.
    """
    from repeater.apps.job_files import load_job_files
    from repeater.apps.plugins import plugin_catalog
    from repeater.cli.time_args import parse_time_option

    after = Instant(parse_time_option("--from", begin, ahead=True) if begin else datetime.now(UTC), Mono(0))
    loaded = load_job_files(files, set_vars=dict(set_vars), project=project)
    jobs = select(loaded.jobfile.jobs, globs)
    with plugin_catalog(loaded) as plugins:
        forecast = Forecast(after, count, plugins)
        if as_json:
            for job in jobs:
                for start in forecast.of(job):
                    print(json_line(as_json_row(job, start)))
        else:
            for line in table(jobs, forecast):
                print(line)
    for name, cause in forecast.unknown.items():
        print(f"rpr: warning: {name}: {cause}", file=sys.stderr)
    return 1 if forecast.unknown else 0


class Forecast:
    """The starts of jobs after an instant. `unknown` maps jobs to the reason why their starts are not known."""

    def __init__(self, after: Instant, count: int, plugins: Plugins | None = None) -> None:
        self.after = after
        self.unknown: dict[str, str] = {}
        self._count = count
        self._plugins = plugins

    def of(self, job: JobSpec) -> Iterator[ForecastStart]:
        """The start at once, if there is one, and the starts after it."""
        after, count = self.after, self._count
        try:
            schedule = schedule_for(job, self._plugins)
            if schedule.clock == "mono" and first_start(job, schedule, after) == after.wall:
                yield ForecastStart(job.name, after.wall, after.wall)
                count = 0 if schedule.waits_for_end else count - 1
            if count:
                yield from starts(job, schedule, after, count)
        except PluginFailed as failure:
            self.unknown[job.name] = failure.message


def as_json_row(job: JobSpec, start: ForecastStart) -> dict[str, str | None]:
    """One line of `--json`. `local` is the due time with the offset of the job's zone."""
    local = start.due.astimezone(_zone(job))
    return {
        "job": start.job,
        "nominal": rfc3339(start.nominal),
        "due": rfc3339(start.due),
        "local": local.isoformat(),
    }


def table(jobs: Sequence[JobSpec], forecast: Forecast) -> Iterator[str]:
    """The lines of the listing: one per start, or a text if the start does not depend on time only."""
    width = max((len(job.name) for job in jobs), default=3)
    for job in jobs:
        name = job.name
        for start in forecast.of(job):
            local = start.due.astimezone(_zone(job))
            late = start.due - start.nominal
            yield (
                f"{name:<{width}}  {_clock(start.due)}Z  {_clock(local)} {_zone_words(job, local)}"
                + (f"  (jitter {format_duration(late - late % MILLISECOND)})" if late else "")
                + ("  (at once)" if start.due == forecast.after.wall else "")
            )
            name = ""
        words = describe_trigger(job, seen=not name, after=forecast.after.wall)
        if job.name in forecast.unknown:
            words = "unknown"
        if words:
            yield f"{name:<{width}}  {words}"


def describe_trigger(job: JobSpec, *, seen: bool, after: datetime) -> str:
    """The trigger of a job that does not start by time only; empty if there is none."""
    spec = job.schedule
    applied = "" if seen else "when it is applied, "
    match spec:
        case _ if not job.enabled:
            return "disabled"
        case Once() | OnceEver():
            return f"once{' ever' if isinstance(spec, OnceEver) else ''}, when it is applied"
        case Manual():
            return "only on request"
        case Always():
            return "a service, kept running"
        case OnChange():
            return "when files change: " + ", ".join(spec.globs)
        case Growing():
            return f"{applied}then after growing delays ({spec.backoff.kind})"
        case RateLimited() | Adaptive() | LoadAware():
            return f"{applied}then {_adaptive_note(spec)}"
        case Every():
            rest = f"{format_duration(spec.every)} after the end of each run" if spec.every else "back to back"
            return f"then {rest}" if spec.after_end else ""
        case At():
            return "" if seen else f"never: {rfc3339(spec.at)} is not after {rfc3339(after.replace(microsecond=0))}"
        case Cron() | Plugin():
            return "" if seen else "no further starts"


def _adaptive_note(spec: RateLimited | Adaptive | LoadAware) -> str:
    if isinstance(spec, RateLimited):
        return f"as often as {spec.rate} allows"
    between = f"{format_duration(spec.min)} to {format_duration(spec.max)} after the end of each run"
    return f"{between}, adapting to {'the latency of its runs' if isinstance(spec, Adaptive) else 'the machine load'}"


def _zone(job: JobSpec) -> tzinfo | None:
    if isinstance(job.schedule, Cron):
        from repeater.schedule.zone import zone_of

        return zone_of(job.schedule.timezone)
    return None


def _zone_words(job: JobSpec, local: datetime) -> str:
    offset = offset_text(local)
    return f"{offset} {job.schedule.timezone}" if isinstance(job.schedule, Cron) else offset


def _clock(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}"
