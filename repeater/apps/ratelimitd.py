"""The rate-limit daemon, put together from its parts, and the asking of one that runs. It decides nothing itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repeater.apps.options import RateLimitDaemonOptions

if TYPE_CHECKING:
    from repeater.ratelimitd.persistence import LimitStore
    from repeater.ratelimitd.socket_path import ListeningSocket


SETTLING = 20_000
"""Microseconds from a start to its first effect that are counted with it; a fiftieth of the window at most."""


def run_daemon(options: RateLimitDaemonOptions, say: Callable[[str], None]) -> int:
    """Serve until a signal asks to leave; the exit status of `rpr daemon`. `say` gets words for a person."""
    import asyncio

    from repeater.ratelimitd.socket_path import PATIENCE_SOCKETS, ListeningSocket, listen_path

    _prepare_dir()
    path = Path(options.socket).absolute() if options.socket else listen_path(os.environ)
    with ExitStack() as closing:
        gates: list[ListeningSocket] = []
        for one in (path, *(PATIENCE_SOCKETS if options.patience else ())):
            if one not in [gate.path for gate in gates]:
                gates.append(ListeningSocket(one, options.mode))
                closing.callback(gates[-1].close)
        keeping = _keeping(options, path, closing)
        return asyncio.run(_serve(options, gates, keeping, say))


def query_stats(socket: str | None) -> dict[str, Any]:
    """The statistics of the daemon that runs. Raises Unreachable."""
    from repeater.ratelimitd.client import ask_stats
    from repeater.ratelimitd.socket_path import connect_path

    return ask_stats(Path(socket) if socket else connect_path(os.environ))


def _keeping(options: RateLimitDaemonOptions, path: Path, closing: ExitStack) -> LimitStore:
    """The ledgers of a daemon belong to its socket, so each socket has a folder of its own."""
    if options.ephemeral:
        from repeater.ratelimitd.persistence import NullLimitStore

        return NullLimitStore()
    from repeater.store.rate_limits import RateLimitStore
    from repeater.store.state_dir import Lock, rate_limit_folder

    folder = Path(options.state_dir).absolute() if options.state_dir else rate_limit_folder(path, os.environ)
    lock = Lock(folder)
    closing.callback(lock.release)
    file = RateLimitStore(folder)
    closing.callback(file.close)
    return file


def _prepare_dir() -> None:
    """Each client takes a descriptor, and the usual limit is as low as the number of clients."""
    import contextlib
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4096 if hard == resource.RLIM_INFINITY else min(hard, 4096)
    if soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _serve(
    options: RateLimitDaemonOptions, gates: Sequence[ListeningSocket], keeping: LimitStore, say: Callable[[str], None]
) -> int:
    import asyncio

    from repeater.apps.process_lifecycle import ServiceLifecycle
    from repeater.model.time import rfc3339
    from repeater.ratelimitd.broker import Broker
    from repeater.ratelimitd.server import Server
    from repeater.sentences import sentence
    from repeater.system.clock import LoopClock

    loop = asyncio.get_running_loop()
    clock = LoopClock(loop)
    with ServiceLifecycle(loop, os.environ) as lifecycle, ExitStack() as closing:
        lifecycle.handle_signals(loop, lambda _: lifecycle.finish(0))
        book, now = Broker(os.urandom(6).hex(), SETTLING), clock.now()
        known, kept = keeping.load()
        book.restore(known, kept, now)
        users = frozenset({os.geteuid(), 0}) if options.mode & 0o077 == 0 else None
        about = {"pid": os.getpid(), "since": rfc3339(now.wall), "socket": str(gates[0].path)}
        server = Server(
            book, keeping, clock.now, lambda reason: say(f"warning: {sentence(reason)}"), users=users, about=about
        )
        closing.callback(server.close)
        server.listen(*(gate.socket for gate in gates))
        places = ", ".join(f"`{gate.path}`" for gate in gates)
        words = f"listening at {places}, {len(known)} resource{'' if len(known) == 1 else 's'} loaded"
        say(words)
        lifecycle.ready(words)
        await lifecycle.ended()
        lifecycle.notify.stopping("leaving")
    return lifecycle.status
