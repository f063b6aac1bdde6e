"""Late texts that are programs of their users, rendered in a process of their own: both sides of it.

`LateTexts` is the supervisor's side (`ports.LateRenderer`), `main` the process, started through `adapters.worker`. A
template may ask for any time and memory; here it costs this process, and its run does not start.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from repeater.adapters.worker import Limits, command
from repeater.errors import RepeaterError
from repeater.model.spec import ProcessSpec

if TYPE_CHECKING:
    import asyncio

_IDLE = 300.0  # seconds after which the process leaves; the next start waits until another one is there
_MEMORY = 256 << 20
_WALL = 10.0  # seconds, with the start of the process


def _limits() -> Limits:
    from repeater.jobfile.late import RENDER_LIMIT

    return Limits(_MEMORY, RENDER_LIMIT, _WALL, grace=0.0)


class LateTexts:
    """`ports.LateRenderer`. The process is started by the first text."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        from repeater.adapters.worker.parent import Worker

        self._worker = Worker(command("repeater.app.rendering"), loop, _limits(), idle=_IDLE)

    def render(
        self, process: ProcessSpec, run: Mapping[str, Any], then: Callable[[ProcessSpec | RepeaterError], None]
    ) -> None:
        from repeater.runtime.launch import cannot_render

        def hear(frame: bytes) -> bool:
            told: ProcessSpec | str = pickle.loads(frame)  # noqa: S301 - from our own child
            then(cannot_render(process, told) if isinstance(told, str) else told)
            return True

        self._worker.ask(
            lambda: pickle.dumps((process, dict(run))),
            hear,
            lambda cause: then(cannot_render(process, cause)),
        )

    def close(self) -> None:
        self._worker.close()


def main() -> None:
    """Answers until nobody asks any more. The limit of CPU time ends the process: a single step of a template may be
    as long as the template likes, and cannot be interrupted.
    """
    from repeater.adapters.worker.child import Asker
    from repeater.jobfile.late import render_all
    from repeater.jobfile.template import TemplateFailed, render_late

    asker = Asker(_limits())
    render_late("{{ run.id | upper }}", {"id": "warm"})
    while True:
        process, run = pickle.loads(asker.question())  # noqa: S301 - from the process that started this one
        try:
            answer: ProcessSpec | str = render_all(process, run)
        except TemplateFailed as failure:
            answer = str(failure)
        except MemoryError:
            answer = _limits().memory_is_over
        asker.rest()
        asker.answer(pickle.dumps(answer))
