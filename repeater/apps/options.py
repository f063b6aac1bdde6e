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
    """How to run job files. `state_dir` None: the project's own; `ephemeral`: nothing is kept at all.

    `on_death` is what becomes of the jobs when the supervisor dies without a word: killed, or kept for the next one.
    `cgroups` says which jobs get a cgroup of their own, where that can be.
    `only` are globs over job names; nothing else is brought into force. `project` wins over the key `project` of the
    files. `log` is a file that takes the place of the console; `log_format` is that of the words of rpr itself. `http`
    None: nothing is served. `output_size` is how many bytes of output are kept on disk. `daemon` is the socket of the
    rate-limit daemon, None for the usual place.
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
    """How to run a daemon. `socket` None: the first usual place that can be used. `mode` is that of the socket; with
    more than 0600 everybody is let in whom the file lets in. `ephemeral`: nothing is kept over a restart. `patience`:
    listen also where the Go tool of that name looks by default.
    """

    socket: str | None = None
    mode: int = 0o600
    state_dir: str | None = None
    ephemeral: bool = False
    patience: bool = False
