"""One job without a file: the options of a one-off command, and its run.

A one-off command must start fast, so this package imports only what its job needs. `app` assembles the parts; `history`
and `metrics` are imported if an option asks for them.
"""

from __future__ import annotations

import gc
from contextlib import ExitStack, closing

from repeater._lazy_dataclasses import dataclass
from repeater.model.spec import JobSpec, Limit
from repeater.policy.exit_status import Goal


@dataclass(frozen=True, slots=True)
class HttpPorts:
    """Ports of this machine for metrics and health; None: not served.

    `must` names those that the command line asks for. If they cannot be served, that is an error, else a warning.
    """

    metrics: int | None = None
    health: int | None = None
    must: frozenset[str] = frozenset()


_NOTHING = HttpPorts()


@dataclass(frozen=True, slots=True)
class OneOff:
    """How to run one job. `passes_code`: without a success, the status of the last run is that of `rpr`.

    `kill_at_end`: a run that is live when the job is done is ended. `stdin`: the runs read rpr's standard input.
    `shows_pace`: report changes of an interval, or the next start that a rate allows. `history`: the runs are kept, as
    those of a project of their own. `shows` is what is served over HTTP to this machine. `limits` are those that the
    job names; `daemon` is the socket to ask for shared ones, None for the usual place. `log_json`: messages
    of `rpr` itself are JSON objects, one a line.
    """

    spec: JobSpec
    goal: Goal = "no failure"
    passes_code: bool = False
    kill_at_end: bool = False
    stdin: bool = False
    verbose: bool = False
    stats_only: bool = False
    shows_pace: bool = False
    log_file: str | None = None
    history: bool = False
    shows: HttpPorts = _NOTHING
    limits: tuple[Limit, ...] = ()
    daemon: str | None = None
    log_json: bool = False


def run_once(oneoff: OneOff) -> int:
    """Run the job until it is done or a signal ends it; the exit status of `rpr`."""
    from repeater.apps.oneoff.app import OneOffApp
    from repeater.apps.process_lifecycle import Lifecycle
    from repeater.system.loops.minimal import MinimalLoop

    gc.freeze()  # what was imported stays
    gc.enable()
    with closing(MinimalLoop()) as loop, Lifecycle(loop.stop) as lifecycle, ExitStack() as stack:
        app = OneOffApp(oneoff, loop, lifecycle, stack)
        app.begin()
        loop.run()
    app.report()
    return lifecycle.status
