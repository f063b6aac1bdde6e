"""`rpr daemon`: serve rate limits to all processes of this machine, or show the state of the running daemon."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from repeater.cli.options import json_option
from repeater.errors import UsageError


@click.command(epilog="Example: rpr daemon --socket /tmp/limits.sock")
@click.option("--socket", metavar="PATH", help="Path of the socket. Default: a system-wide or a per-user path.")
@click.option(
    "--mode",
    default="600",
    metavar="MODE",
    help="Permissions of the socket: 600 this user, 660 its group, 666 all users.",
)
@click.option("--state-dir", metavar="DIR", help="Directory for its database.")
@click.option("--ephemeral", is_flag=True, help="Keep no state across restarts.")
@click.option(
    "--patience",
    is_flag=True,
    help="Listen also on the sockets of the Go tool: /tmp/patience-daemon.sock and /tmp/retryd.sock.",
)
@click.option("--stats", is_flag=True, help="Print statistics of the running daemon and exit.")
@json_option
def daemon(
    socket: str | None, mode: str, state_dir: str | None, ephemeral: bool, patience: bool, stats: bool, as_json: bool
) -> int:
    """Serve rate limits to all processes of this machine.

    `rpr` uses the daemon for limits with `shared = true` and for commands with `--daemon`. The Go tool `patience` uses
    it with `--daemon --daemon-socket PATH`, or at its default path if `--patience` is given here. The daemon runs in
    the foreground. SIGTERM or Ctrl-C stops it. Its state is kept across restarts.
    """
    from repeater.cli.settings import load_settings

    socket = socket or load_settings()["daemon_socket"].text
    if stats or as_json:
        from repeater.apps.ratelimitd import query_stats

        answer = query_stats(socket)
        print(json.dumps(_public(answer)) if as_json else _words(answer))
        return 0
    from repeater.apps.options import RateLimitDaemonOptions
    from repeater.apps.ratelimitd import run_daemon

    options = RateLimitDaemonOptions(socket, _mode(mode), state_dir, ephemeral, patience)
    return run_daemon(options, lambda words: print(f"rpr: daemon: {words}", file=sys.stderr, flush=True))


def _mode(text: str) -> int:
    if text.removeprefix("0") not in ("600", "660", "666"):
        raise UsageError(f"cannot use `--mode {text}`: expected `600`, `660` or `666`")
    return int(text, 8)


def _public(answer: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in answer.items() if key not in ("type", "status")}


def _words(answer: dict[str, Any]) -> str:
    from datetime import timedelta

    from repeater.cli.remote import clock
    from repeater.model.units import format_duration

    who = f"pid {answer['pid']} at `{answer['socket']}` since {clock(answer['since'])}"
    lines = [f"{who}: {answer['clients']} clients, {answer['waiting']} queued"]
    for one in answer["resources"]:
        rate = "rate unknown"
        if one["rate_limit"] is not None:
            rate = f"{one['rate_limit']}/{format_duration(timedelta(milliseconds=one['window_ms']))}"
        wait = one["next_in_ms"]
        following = "now" if wait <= 0 else f"in {format_duration(timedelta(milliseconds=round(wait)))}"
        lines.append(
            f"{one['resource_id']}  {rate}  {one['used']} used, {one['reserved']} reserved, {one['waiting']} waiting, "
            f"next start {following}"
        )
    runs = answer["runs"]
    if runs["succeeded"] or runs["failed"]:
        lines.append(
            f"runs by `patience`: {runs['succeeded']} succeeded, {runs['failed']} failed, {runs['attempts']} attempts"
        )
    lines += [f"warning: {problem}" for problem in answer["problems"]]
    return "\n".join(lines)
