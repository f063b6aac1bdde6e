"""`rpr simulate`: the production engine on a virtual clock."""

from __future__ import annotations

import sys
from collections import Counter
from datetime import UTC, datetime, timedelta

import click

from repeater.cli.options import files_argument, json_option, project_option, set_option, state_dir_option
from repeater.errors import UsageError
from repeater.model.events import SlotBlocked
from repeater.model.reasons import Reason
from repeater.model.run import SlotRecord
from repeater.model.time import Instant, Mono
from repeater.model.units import duration_text, format_duration, parse_duration
from repeater.output.terminal import json_line
from repeater.plan.select import select
from repeater.sentences import sentence

_MOST_SLOTS = 60
"""If there are more slots, a summary is shown unless `--all` is given."""


@click.command(epilog="Example: rpr simulate jobs.toml --for 24h --duration backup=40m")
@files_argument
@set_option
@project_option
@state_dir_option
@click.option("--for", "length", required=True, metavar="DURATION", help="Length of the simulated time, such as `24h`.")
@click.option("--from", "start", metavar="TIME", help="Time to begin at, in RFC 3339. Default: now.")
@click.option(
    "--duration", "durations", multiple=True, metavar="JOB=DURATION",
    help="Assumed run duration of a job. Default: its median in the history, else 0s.",
)  # fmt: skip
@click.option(
    "--job", "globs", multiple=True, metavar="JOB",
    help="Show only these jobs: a name, a glob, or a label as `key=value`. Repeatable. All jobs are simulated.",
)  # fmt: skip
@click.option("--all", "every_slot", is_flag=True, help="Show every slot, also if there are more than 60.")
@click.option("--seed", type=int, default=0, help="Seed of random choices, for repeatable results.")
@json_option
def simulate(
    files: tuple[str, ...],
    set_vars: tuple[tuple[str, str], ...],
    project: str | None,
    state_dir: str | None,
    length: str,
    start: str | None,
    durations: tuple[str, ...],
    globs: tuple[str, ...],
    every_slot: bool,
    seed: int,
    as_json: bool,
) -> int:
    """Run the jobs on a virtual clock.

    Shows each slot with its state and reason: runs, skipped slots, and why they would be skipped. If there are more
    than 60 slots, shows a summary of each job, unless `--all` or `--json` is given. All runs succeed and
    services run until the end. Nothing is started or stored.
    """
    from repeater.apps.job_files import load_job_files
    from repeater.apps.plugins import plugin_catalog
    from repeater.apps.state import known_durations
    from repeater.cli.time_args import parse_time_option
    from repeater.engine.simulate import simulate as run

    span = _duration("--for", length)
    begin = parse_time_option("--from", start, ahead=True) if start else datetime.now(UTC).replace(microsecond=0)
    loaded = load_job_files(files, set_vars=dict(set_vars), project=project)
    jobfile = loaded.jobfile
    lengths = known_durations(jobfile.project, state_dir)
    for pattern, text in map(_last_equals, durations):
        length_of = _duration("--duration", text)
        lengths.update({job.name: length_of for job in select(jobfile.jobs, (pattern,))})
    shown = {job.name for job in select(jobfile.jobs, globs)}
    warnings: dict[str, None] = {}
    held: dict[tuple[str, datetime], SlotBlocked] = {}
    with plugin_catalog(loaded) as plugins:
        rows = run(
            jobfile,
            Instant(begin, Mono(0)),
            span,
            durations=lengths,
            seed=seed,
            plugins=plugins,
            warn=lambda job, reason: warnings.setdefault(f"{job}: {sentence(reason)}"),
            hold=lambda one: held.setdefault((one.job, one.nominal), one) if one.job in shown else None,
        )
        rows = (row for row in rows if row.job in shown)
        if as_json:
            for row in rows:
                print(json_line(row.as_json(sentence)))
                held.pop((row.job, row.nominal), None)
            for one in held.values():  # not started at the end of the simulation
                print(json_line(_still_held(one).as_json(sentence) | {"state": "blocked"}))
        else:
            _print_rows(list(rows), held, span, every_slot=every_slot)
    for warning in warnings:
        print(f"rpr: warning: {warning}", file=sys.stderr)
    return 0


def _last_equals(text: str) -> tuple[str, str]:
    job, equals, length = text.rpartition("=")  # names of cells hold `=` too
    if not equals:
        raise UsageError(f"cannot use `--duration {text}`: expected `JOB=DURATION`")
    return job, length


def _duration(option: str, text: str) -> timedelta:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(f"cannot use `{option} {text}`: {error}") from None


def _still_held(one: SlotBlocked) -> SlotRecord:
    """A slot that has not started at the end of the simulation."""
    return SlotRecord(one.job, one.nominal, one.due, None, None, "claimed", one.reason, None, 0, None, "schedule", 1)


def _print_rows(
    rows: list[SlotRecord], held: dict[tuple[str, datetime], SlotBlocked], span: timedelta, *, every_slot: bool
) -> None:
    """A line for each slot, or for each job if there are too many slots, and the counts of all."""
    begun = {(row.job, row.nominal) for row in rows}
    waiting = {key: _still_held(one) for key, one in held.items() if key not in begun}
    shown = sorted([*rows, *waiting.values()], key=lambda row: row.nominal)
    width = max((len(row.job) for row in shown), default=0)
    kinds = Counter[str]()
    by_job: dict[str, Counter[str]] = {}
    is_short = every_slot or len(shown) <= _MOST_SLOTS
    for row in shown:
        key = (row.job, row.nominal)
        kind = "blocked" if key in waiting else _kind(row)
        kinds[kind] += 1
        by_job.setdefault(row.job, Counter())[kind] += 1
        if is_short:
            words = _kind(row) if key in waiting else _outcome(row, held.get(key))
            print(f"{row.nominal.astimezone():%Y-%m-%d %H:%M:%S}  {row.job:<{width}}  {words}")
    if not is_short:
        for job, counts in by_job.items():
            print(f"{job:<{width}}  {_counts(counts)}")
    summary = _counts(kinds)
    print(
        f"{len(shown)} slot{'' if len(shown) == 1 else 's'} in {format_duration(span)}"
        + (f": {summary}" if summary else "")
    )
    if not is_short:
        print("hint: `--all` shows every slot, `--job` selects jobs", file=sys.stderr)


def _counts(kinds: Counter[str]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())


def _outcome(row: SlotRecord, held: SlotBlocked | None) -> str:
    """`held`: what blocked the slot when it was due, if anything did."""
    words = _kind(row)
    if row.started is not None and row.ended is not None:
        words += f" in {duration_text(row.ended - row.started)}"
        late = row.started - row.due
        if late > timedelta(0):
            words += f", {duration_text(late)} late"
            if held is not None:
                words += f": {sentence(_without_until(held.reason))}"
    return words


def _kind(row: SlotRecord) -> str:
    if row.state == "succeeded" or row.reason is None:
        return "ran" if row.state == "succeeded" else row.state
    if row.state == "claimed":  # blocked at the end of the simulation
        return sentence(row.reason)
    return f"{row.state} ({sentence(row.reason)})"


def _without_until(reason: Reason) -> Reason:
    """The reason of a block after it has ended, with its length."""
    return Reason(reason.code, {name: value for name, value in reason.detail.items() if name != "until"})
