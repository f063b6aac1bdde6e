"""`rpr logs`: what jobs printed, and what they print from now on."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from repeater.cli.options import json_option
from repeater.cli.reaching import instant_option, jobs_argument, print_json, reaching, shown
from repeater.errors import Unreachable

if TYPE_CHECKING:
    from repeater.app import Whereabouts

_LONGEST = 1 << 20


@click.command(epilog="Example: rpr logs web -f --tail 20")
@jobs_argument
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@click.option("--run", metavar="ID", default="", help="Only this run; `rpr history` shows the ids.")
@click.option("--since", metavar="TIME", help="Only from this time on: `10m` (ago), or a time.")
@click.option("-n", "--tail", type=click.IntRange(0, 1_000_000), metavar="N", help="Only the last N lines of each job.")
@click.option("-t", "--timestamps", is_flag=True, help="Put the time before each line.")
@click.option("--raw", is_flag=True, help="The bytes as they were written, also to a terminal; no names.")
@json_option
@reaching
def logs(
    jobs: tuple[str, ...],
    follow: bool,
    run: str,
    since: str | None,
    tail: int | None,
    timestamps: bool,
    raw: bool,
    as_json: bool,
    where: Whereabouts,
) -> None:
    """Show what jobs printed.

    The supervisor keeps the end of the output of each run (`output.capture`, 64 KiB unless set) in memory, for as many
    runs as fit into 8 MiB. What has to last longer goes to the job's `output.file`. Lines carry the name of their job
    unless exactly one was named.
    """
    from repeater.app import reach

    args: dict[str, Any] = {"jobs": list(jobs), "run": run, "since": instant_option(since, "--since"), "follow": follow}
    if tail is not None:
        args["tail"] = tail
    screen = _Screen(names=len(jobs) != 1 or any(mark in jobs[0] for mark in "*?="), times=timestamps, raw=raw)
    with reach(where) as client:
        try:
            for item in client.ask("logs", patience=None if follow else 30.0, **args):
                if as_json:
                    print_json(item)
                else:
                    screen.show(item)
        except Unreachable:
            if not follow:
                raise
            print("rpr: the supervisor has ended", file=sys.stderr)
        finally:
            if not as_json:
                screen.close()


class _Screen:
    """Puts pieces together to lines, so that the lines of two runs are never mixed."""

    def __init__(self, *, names: bool, times: bool, raw: bool) -> None:
        self._names = names
        self._times = times
        self._raw = raw
        self._is_terminal = sys.stdout.isatty()
        self._held: dict[tuple[str, str], tuple[str, str, bytes]] = {}

    def show(self, item: Mapping[str, Any]) -> None:
        from repeater.control.client import bytes_of

        if "lost" in item:
            sys.stdout.flush()
            print(f"rpr: {item['lost']} bytes are missing here: they came faster than they were read", file=sys.stderr)
            return
        data = bytes_of(item)
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
        from repeater.observe.terminal import visible

        head = (f"{time} " if self._times else "") + (f"{shown(job)} | " if self._names else "")
        return head.encode() + (visible(line) if self._is_terminal else line) + b"\n"

    def close(self) -> None:
        """What has no end of line yet."""
        for job, time, held in self._held.values():
            self._write(self._line(job, time, held))
        sys.stdout.buffer.flush()

    @staticmethod
    def _write(data: bytes) -> None:
        sys.stdout.buffer.write(data)
