"""Metrics and health of a one-off command over HTTP, for this machine only. Imported when they are asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from repeater.apps.oneoff.local_http import LocalHttpServer
from repeater.errors import RepeaterError
from repeater.ports import Loop

if TYPE_CHECKING:
    from repeater.apps.oneoff import HttpPorts
    from repeater.apps.oneoff.local_http import Page
    from repeater.engine.engine import Engine
    from repeater.model.events import Event


class MetricsEndpoint:
    """Serves from its construction until `closing` is closed, from one server if both have the same port.

    `warn` reports what cannot be served, unless it must be. `is_leaving` returns whether a stop was requested.
    """

    def __init__(
        self,
        shows: HttpPorts,
        loop: Loop,
        closing: ExitStack,
        *,
        warn: Callable[[str], None],
        is_leaving: Callable[[], bool],
    ) -> None:
        self._shows = shows
        self._loop = loop
        self._closing = closing
        self._warn = warn
        self._is_leaving = is_leaving

    def begin(self, engine: Engine, listeners: list[Callable[[Event], None]]) -> None:
        """Raises RepeaterError for what must be served and cannot be. Metrics listen to events."""
        shows = self._shows
        pages: dict[int, dict[str, Page]] = {}
        try:
            if shows.metrics is not None:
                pages.setdefault(shows.metrics, {})["/metrics"] = _metrics(engine, listeners)
        except RepeaterError as error:
            self._cannot_show("metrics", error)
        if shows.health is not None:
            health = pages.setdefault(shows.health, {})
            health |= dict.fromkeys(("/livez", "/readyz", "/healthz", "/health"), self._health)
        for port, served in pages.items():
            what = "metrics" if "/metrics" in served else "health"
            try:
                self._closing.callback(LocalHttpServer(self._loop, port, served, what).close)
            except RepeaterError as error:
                self._cannot_show(what, error)

    def _cannot_show(self, what: str, error: RepeaterError) -> None:
        if what in self._shows.must:
            raise error
        self._warn(error.message)

    def _health(self) -> tuple[int, str, bytes]:
        ready = not self._is_leaving()
        return 200 if ready else 503, "text/plain; charset=utf-8", b"ok\n" if ready else b"rpr is leaving\n"


def _metrics(engine: Engine, listeners: list[Callable[[Event], None]]) -> Page:
    try:
        from repeater.output.metrics import Metrics
    except ModuleNotFoundError as missing:
        from repeater.wire.installed import extra_hint

        cause = f"cannot serve metrics: `{missing.name}` is not installed"
        raise RepeaterError(cause, hint=extra_hint("web")) from None
    metrics, one_at_a_time = Metrics(), threading.Lock()
    metrics.attach(engine.admission.usage)
    listeners.append(metrics)

    def page() -> tuple[int, str, bytes]:
        with one_at_a_time:
            for _ in metrics.sample(dict(engine.jobs)):
                pass
            return 200, "text/plain; version=0.0.4; charset=utf-8", metrics.expose()

    return page
