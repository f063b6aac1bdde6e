"""The options of each application: how to supervise job files, to serve HTTP, and to run the rate-limit daemon."""

from __future__ import annotations

from typing import Literal

from repeater._lazy_dataclasses import dataclass
from repeater.policy.keep import DEFAULT_TOTAL


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """How to serve. `address` is `PORT`, `HOST:PORT` or `[V6]:PORT`; `hosts` are more names to go by."""

    address: str
    allow_remote: bool = False
    hosts: tuple[str, ...] = ()
    token_file: str | None = None


@dataclass(frozen=True, slots=True)
class SupervisorOptions:
    """How to run job files. `state_dir` None: the default directory of the project; `ephemeral`: no state is stored.

    `on_death` is what happens to the jobs when the supervisor is killed: killed, or kept for the next supervisor.
    `cgroups` says which jobs get a cgroup of their own, where that can be.
    `only` selects the jobs that are applied. `project` takes precedence over the key `project` of the files. `log` is a
    file that replaces the console; `log_format` is the format of messages of rpr. `http` None: HTTP is not served.
    `output_size` limits the bytes of output on disk. `daemon` is the socket of the rate-limit daemon, None for the
    default.
    """

    files: tuple[str, ...]
    set_vars: tuple[tuple[str, str], ...] = ()
    only: tuple[str, ...] = ()
    watch: bool = True
    keep_alive: bool = False
    allow_removals: bool = False
    state_dir: str | None = None
    ephemeral: bool = False
    verbose: bool = False
    quiet: bool = False
    color: str = "auto"
    log: str | None = None
    log_format: Literal["text", "json"] = "text"
    on_death: Literal["kill", "keep"] = "kill"
    cgroups: Literal["off", "services", "all"] = "services"
    project: str | None = None
    http: HttpOptions | None = None
    daemon: str | None = None
    output_size: int = DEFAULT_TOTAL


@dataclass(frozen=True, slots=True)
class RateLimitDaemonOptions:
    """How to run the rate-limit daemon. `socket` None: the first default path that can be used. `mode` is that of the
    socket; with more than 0600, each user who may open the socket is accepted. `ephemeral`: no state is kept over a
    restart. `patience`: listen also at the default path of the Go tool of that name.
    """

    socket: str | None = None
    mode: int = 0o600
    state_dir: str | None = None
    ephemeral: bool = False
    patience: bool = False
