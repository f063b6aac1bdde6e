"""Requests to apply or to plan job files while a supervisor runs. Another process reads the files."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from repeater._lazy_dataclasses import replace
from repeater.apps.identity import check_origin, first_file
from repeater.control.context import ApplyRequest
from repeater.errors import ApplyRefused, RepeaterError
from repeater.model.events import Event, ReloadRejected
from repeater.model.reasons import reason as because

if TYPE_CHECKING:
    from repeater.apps.options import SupervisorOptions
    from repeater.apps.process_lifecycle import ServiceLifecycle
    from repeater.apps.reload_client import ReloadWorkerClient
    from repeater.apps.reload_worker import LoadedJobs
    from repeater.plugins.pool import PluginPool
    from repeater.store.origin import Origin
    from repeater.supervisor.reload import Answer, Applied, Foreseen, Read, Reload

Result = TypeVar("Result")


class ApplyRequests:
    """`options` are those of the active job files; an applied request replaces them. `reload` is set before a request.

    `folder` is the state directory, None without one. `status` is the line for systemd.
    """

    reload: Reload

    def __init__(
        self,
        options: SupervisorOptions,
        origin: Origin,
        folder: Path | None,
        worker: ReloadWorkerClient,
        plugins: PluginPool,
        lifecycle: ServiceLifecycle,
        listen: Callable[[Event], None],
        status: Callable[[], str],
    ) -> None:
        self.options = options
        self._origin = origin
        self._folder = folder
        self._worker = worker
        self._plugins = plugins
        self._lifecycle = lifecycle
        self._listen = listen
        self._status = status
        self._is_reloading = self._must_repeat = False

    def reader(self, *, request: ApplyRequest | None = None, project: str | None = None) -> Read:
        """Reads job files in the other process, and starts the plugins that they name.

        `request` None: the active job files. `project`: files of another project are refused.
        """
        options = self.options if request is None else _with_files(self.options, request)

        def read(answer: Answer) -> None:
            def on_loaded(loaded: LoadedJobs | RepeaterError) -> None:
                if isinstance(loaded, RepeaterError) or self._plugins.update_catalog(loaded.plugins):
                    answer(loaded)
                    return
                starting = asyncio.get_running_loop().run_in_executor(None, self._plugins.prepare, loaded.plugins)
                starting.add_done_callback(lambda _: answer(loaded))

            self._worker.read(options.files, options.set_vars, options.only, on_loaded, project=project)

        return read

    async def apply(
        self, request: ApplyRequest | None, *, allow_removals: bool = False, dry_run: bool = False
    ) -> Applied:
        """Apply the files of a request (None: the active files). Raises RepeaterError; then nothing changed."""
        self._check()
        options, read = self.options, None
        if request is not None:
            check_origin(self._origin, first_file(request.files[0]), self._folder, is_running=True)
            options = _with_files(options, request)
            read = self.reader(request=request, project=self._origin.project)
        answered: asyncio.Future[Applied] = asyncio.get_running_loop().create_future()

        def then(answer: Applied | RepeaterError) -> None:
            if not (dry_run or isinstance(answer, RepeaterError)):
                self.options = options
            _settle(answered, answer)

        self.reload.ask(then, read=read, allow_removals=allow_removals, dry_run=dry_run)
        return await answered

    async def foresee(self, request: ApplyRequest | None, *, allow_removals: bool = False) -> Foreseen:
        """Return what an apply would do. Raises RepeaterError."""
        self._check()
        read = None if request is None else self.reader(request=request, project=None)
        answered: asyncio.Future[Foreseen] = asyncio.get_running_loop().create_future()
        self.reload.foresee(lambda answer: _settle(answered, answer), read=read, allow_removals=allow_removals)
        return await answered

    def on_hangup(self) -> None:
        """Reload because of HUP. A service manager waits until `ready`, also after a failed reload."""
        if self._is_reloading:
            self._must_repeat = True
            return
        self._is_reloading = True
        self._lifecycle.notify.reloading()
        self.reload.ask(self._on_reloaded)

    def _on_reloaded(self, answer: Applied | RepeaterError) -> None:
        self._is_reloading = False
        if isinstance(answer, RepeaterError):
            self._listen(ReloadRejected(self.reload.generation, because("files_rejected", error=str(answer))))
        if self._must_repeat:
            self._must_repeat = False
            self.on_hangup()
        else:
            asyncio.get_running_loop().call_soon(lambda: self._lifecycle.ready(self._status()))

    def _check(self) -> None:
        if self._lifecycle.is_ending:
            raise ApplyRefused("cannot apply: the supervisor is shutting down")


def _with_files(options: SupervisorOptions, request: ApplyRequest) -> SupervisorOptions:
    return replace(options, files=request.files, set_vars=request.set_vars, only=request.only)


def _settle(answered: asyncio.Future[Result], answer: Result | RepeaterError) -> None:
    """Give an answer to the client that waits for it, unless it has gone."""
    if answered.done():
        return
    if isinstance(answer, RepeaterError):
        answered.set_exception(answer)
    else:
        answered.set_result(answer)
