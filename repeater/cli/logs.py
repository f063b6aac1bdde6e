"""`rpr logs`: show stored and new output of jobs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from time import sleep
from typing import TYPE_CHECKING, Any, NoReturn

import click

from repeater.cli.options import json_option
from repeater.cli.remote import instant_option, jobs_argument, print_json, printable, reason_text, supervisor_options
from repeater.errors import Unreachable, UsageError
from repeater.model.time import MICROSECOND, from_rfc3339, rfc3339

if TYPE_CHECKING:
    from repeater.apps.locate import SupervisorSelector
    from repeater.control.client import Client

_LONGEST = 1 << 20
_LOOK = 0.5  # seconds between checks for a running supervisor


@click.command(epilog="Example: rpr logs web -f --tail 20")
@jobs_argument
@click.option("-f", "--follow", is_flag=True, help="Follow new output until Ctrl-C.")
@click.option("--run", metavar="ID", default="", help="Show only the run with this id. `rpr history` shows ids.")
@click.option("--failed", is_flag=True, help="Show only runs that failed.")
@click.option(
    "--since", metavar="TIME", help="Show only output from this time on: a time, `yesterday`, or an age such as `10m`."
)
@click.option(
    "-n", "--tail", type=click.IntRange(0, 1_000_000), metavar="N", help="Show only the last N lines of each job."
)
@click.option("-t", "--timestamps", is_flag=True, help="Prefix each line with its time.")
@click.option("--raw", is_flag=True, help="Print raw bytes without job names, even to a terminal.")
@json_option
@supervisor_options
def logs(
    jobs: tuple[str, ...],
    follow: bool,
    run: str,
    failed: bool,
    since: str | None,
    tail: int | None,
    timestamps: bool,
    raw: bool,
    as_json: bool,
    where: SupervisorSelector,
) -> None:
    """Show what jobs printed.

    The output of the last 20 runs of each job is kept on disk, and that of each failed run for 7 days, unless the key
    `output.keep` of the job changes that. Works without a supervisor too. With `-f`, a supervisor that has ended is
    waited for. Lines carry the name of their job unless exactly one was named.
    """
    if failed and follow:
        raise UsageError("cannot follow failed runs: they are over", hint="leave out `--failed` or `--follow`")
    args: dict[str, Any] = {"jobs": list(jobs), "run": run, "since": instant_option(since, "--since")}
    args |= {"tail": tail} if tail is not None else {}
    args |= {"failed": True} if failed else {}
    screen = OutputPrinter(names=len(jobs) != 1 or any(mark in jobs[0] for mark in "*?="), times=timestamps, raw=raw)
    show = print_json if as_json else screen.show
    try:
        if follow:
            _follow(where, args, show)
        result = _show(where, args, show)
    finally:
        if not as_json:
            screen.close()
    if result.get("reason"):
        print(f"rpr: {reason_text(result)}", file=sys.stderr)


def _show(
    where: SupervisorSelector, args: Mapping[str, Any], show: Callable[[Mapping[str, Any]], None]
) -> Mapping[str, Any]:
    """Print the stored output. Returns the amount, or the reason why there is none."""
    from repeater.apps.locate import connect

    try:
        client = connect(where)
    except Unreachable as error:
        return _from_disk(where, args, show, error)
    with client:
        answer = client.ask("logs", **args)
        for item in answer:
            show(item)
        return answer.result()


def _follow(where: SupervisorSelector, args: Mapping[str, Any], show: Callable[[Mapping[str, Any]], None]) -> NoReturn:
    """Print stored and new output, also across restarts of the supervisor, until Ctrl-C."""
    from repeater.apps.locate import SupervisorSelector, connect

    where = SupervisorSelector(where.found_project(), where.socket, where.state_dir)
    last = datetime.now(UTC)

    def seen(item: Mapping[str, Any]) -> None:
        nonlocal last
        if "time" in item:
            last = from_rfc3339(item["time"]) or last
        show(item)

    client: Client | None
    try:
        client = connect(where)
    except Unreachable as error:
        _from_disk(where, args, seen, error)
        client = None
    while True:
        if client is not None:
            with client, suppress(Unreachable):
                for item in client.ask("logs", patience=None, follow=True, **args):
                    seen(item)
            print("rpr: the supervisor has exited; waiting for the next one", file=sys.stderr)
        else:
            print("rpr: no supervisor is running; waiting for one", file=sys.stderr)
        client = _next_supervisor(where)
        print("rpr: a supervisor is running again", file=sys.stderr)
        args = {"jobs": args["jobs"], "run": args["run"], "since": rfc3339(last + MICROSECOND)}


def _next_supervisor(where: SupervisorSelector) -> Client:
    from repeater.apps.locate import connect

    while True:
        sleep(_LOOK)
        with suppress(Unreachable):
            return connect(where)


def _from_disk(
    where: SupervisorSelector, args: Mapping[str, Any], show: Callable[[Mapping[str, Any]], None], error: Unreachable
) -> Mapping[str, Any]:
    from repeater.apps.locate import records
    from repeater.control.commands.history import names_of
    from repeater.control.commands.logs import as_item, chosen, unknown_run, why_nothing
    from repeater.output.run_reader import RunReader
    from repeater.sentences import as_item as coded

    with records(where) as found:
        if found is None:
            raise error
        known = [*(spec.name for spec in found.specs), *found.meta.progress]
        names = names_of(found.specs, found.meta.progress, args["jobs"])
        reader = RunReader(found.state, known)
        since = from_rfc3339(args["since"])
        outputs = reader.outputs(names, run=args["run"], since=since, failed=args.get("failed", False))
        count = 0
        for piece in chosen(args.get("tail"), reader, outputs, [], since=since):
            show(as_item(piece))
            count += 1
        if count or since or args.get("failed"):
            return {"pieces": count}
        specs = [spec for spec in found.specs if names is None or spec.name in names]
        nothing = why_nothing(args["run"], specs, found.rows)
    if args["run"]:
        raise unknown_run(args["run"], nothing)
    return {"pieces": 0, **coded(nothing)}


class OutputPrinter:
    """Joins chunks to lines, so that the lines of two runs are never mixed."""

    def __init__(self, *, names: bool, times: bool, raw: bool) -> None:
        self._names = names
        self._times = times
        self._raw = raw
        self._is_terminal = sys.stdout.isatty()
        self._held: dict[tuple[str, str], tuple[str, str, bytes]] = {}

    def show(self, item: Mapping[str, Any]) -> None:
        from repeater.control.client import decode_bytes

        if "lost" in item:
            sys.stdout.flush()
            print(
                f"rpr: {item['lost']} bytes were dropped here: output arrived faster than it was read", file=sys.stderr
            )
            return
        data = decode_bytes(item)
        if self._raw:
            self._write(data)
        else:
            self._write(b"".join(self._lines(item, data)))
        sys.stdout.buffer.flush()

    def _lines(self, item: Mapping[str, Any], data: bytes) -> Iterator[bytes]:
        key = (item["run"], item["stream"])
        job, time, held = self._held.pop(key, (item["job"], item["time"], b""))
        *whole, rest = (held + data).split(b"\n")
        for number, line in enumerate(whole):
            yield self._line(job, time if number == 0 else item["time"], line)
        if len(rest) > _LONGEST:
            yield self._line(job, item["time"] if whole else time, rest)
        elif rest:
            self._held[key] = (job, item["time"] if whole else time, rest)

    def _line(self, job: str, time: str, line: bytes) -> bytes:
        from repeater.output.terminal import visible

        head = (f"{time} " if self._times else "") + (f"{printable(job)} | " if self._names else "")
        return head.encode() + (visible(line) if self._is_terminal else line) + b"\n"

    def close(self) -> None:
        """The text without an end of line."""
        for job, time, held in self._held.values():
            self._write(self._line(job, time, held))
        self._held.clear()
        sys.stdout.buffer.flush()

    @staticmethod
    def _write(data: bytes) -> None:
        sys.stdout.buffer.write(data)
