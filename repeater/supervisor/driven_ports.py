"""The ports that the supervisor drives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from repeater._lazy_dataclasses import dataclass
from repeater.model.run import RunKind
from repeater.model.spec import JobSpec
from repeater.ports import (
    Clock,
    LoadProbe,
    Prober,
    RunTemplateRenderer,
    SharedRateLimiter,
    Spawner,
    Store,
    Users,
    Watcher,
)

if TYPE_CHECKING:
    from repeater.model.plugins import Plugins


class SinkFactory(Protocol):
    """The destination of the output of runs. It is called before a run writes and after its slot is decided."""

    def begin(self, run: str, spec: JobSpec, kind: RunKind = "run") -> None: ...


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports that a supervisor drives, and what its children inherit."""

    clock: Clock
    spawner: Spawner
    store: Store
    watcher: Watcher
    outputs: SinkFactory
    prober: Prober
    load: LoadProbe
    quota: SharedRateLimiter
    environ: Mapping[str, str]
    plugins: Plugins | None = None
    renderer: RunTemplateRenderer | None = None
    users: Users = lambda _: {}
