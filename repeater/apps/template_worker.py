"""Late texts that are programs of their users, rendered in a process of their own: both sides of it.

`RunTemplateWorker` is the supervisor's side (`ports.RunTemplateRenderer`), `main` the process, started through
`worker`. A template may ask for any time and memory; here it costs this process, and its run does not start.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from repeater.errors import RepeaterError
from repeater.model.spec import ProcessSpec
from repeater.worker.protocol import Limits, command

if TYPE_CHECKING:
    import asyncio

_IDLE = 300.0  # seconds after which the process leaves; the next start waits until another one is there
_MEMORY = 256 << 20
_WALL = 10.0  # seconds, with the start of the process


def _limits() -> Limits:
    from repeater.jobfile.run_templates import RENDER_LIMIT

    return Limits(_MEMORY, RENDER_LIMIT, _WALL, grace=0.0)


class RunTemplateWorker:
    """`ports.RunTemplateRenderer`. The process is started by the first text."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        from repeater.worker.client import Worker

        self._worker = Worker(command("repeater.apps.template_worker"), loop, _limits(), idle=_IDLE)

    def render(
        self, process: ProcessSpec, run: Mapping[str, Any], then: Callable[[ProcessSpec | RepeaterError], None]
    ) -> None:
        from repeater.supervisor.launch import cannot_render

        def hear(frame: bytes) -> bool:
            told: ProcessSpec | str = pickle.loads(frame)  # noqa: S301 - from our own child
            then(cannot_render(process, told) if isinstance(told, str) else told)
            return True

        self._worker.submit(
            lambda: pickle.dumps((process, dict(run))),
            hear,
            lambda cause: then(cannot_render(process, cause)),
        )

    def close(self) -> None:
        self._worker.close()


def main() -> None:
    """Answer requests until the pipe is closed. The limit of CPU time ends the process, because a single step of a
    template can take any time and cannot be interrupted.
    """
    from repeater.jobfile.run_templates import render_all
    from repeater.jobfile.template import TemplateFailed, render_at_start
    from repeater.worker.server import WorkerChannel

    asker = WorkerChannel(_limits())
    render_at_start("{{ run.id | upper }}", {"id": "warm"})
    while True:
        process, run = pickle.loads(asker.receive())  # noqa: S301 - from the process that started this one
        try:
            answer: ProcessSpec | str = render_all(process, run)
        except TemplateFailed as failure:
            answer = str(failure)
        except MemoryError:
            answer = _limits().memory_exceeded_message
        asker.lift_limits()
        asker.send(pickle.dumps(answer))
