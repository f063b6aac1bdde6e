"""Who owns the processes of a supervisor: a keeper where one can be had, else the supervisor itself."""

from __future__ import annotations

from collections.abc import Callable

from repeater.ports import Loop, Sink, Spawner, Tell


def make_spawner(tell: Tell, sink: Sink, loop: Loop, warn: Callable[[str], None]) -> Spawner:
    """The spawner of `rpr apply`; `warn` is told, once, what is weaker without a keeper."""
    from repeater.adapters.keeper import CannotKeep, KeeperSpawner

    try:
        return KeeperSpawner(tell, sink, loop, warn=warn)
    except CannotKeep as why:
        from repeater.adapters.spawn import ProcessSpawner

        warn(f"there is no keeper, so jobs lose their output if this supervisor dies: {why}")
        return ProcessSpawner(tell, sink, loop)
