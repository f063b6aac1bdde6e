"""Debug mode: report callbacks of the event loop that take long, by name. `RPR_SLOW_CALLBACK=20ms` turns it on.

While a callback runs, nothing else of the supervisor does. With the mode off nothing is measured and nothing costs.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Mapping
from typing import Any

VARIABLE = "RPR_SLOW_CALLBACK"
Report = Callable[[str, float], None]
"""Gets the name of a callback and the seconds that it took."""


def limit_of(environ: Mapping[str, str]) -> float | None:
    """Seconds above which a callback is reported; None if the mode is off. Raises ValueError."""
    from repeater.model.units import parse_duration

    text = environ.get(VARIABLE)
    return parse_duration(text).total_seconds() if text else None


def watch_callbacks(limit: float, report: Report) -> Callable[[], None]:
    """Measure every callback of asyncio in this process. The function that is returned ends it."""
    original = asyncio.Handle._run  # the one place through which every callback goes

    def run(handle: Any) -> None:
        call = getattr(handle, "_callback", None)
        began = time.perf_counter()
        original(handle)
        took = time.perf_counter() - began
        if took > limit:
            report(name_of(call), took)

    asyncio.Handle._run = run  # type: ignore[method-assign, assignment]

    def end() -> None:
        asyncio.Handle._run = original  # type: ignore[method-assign]

    return end


def name_of(call: object) -> str:
    """The function behind a callback: of a partial its function, of a task its coroutine."""
    while isinstance(call, functools.partial):
        call = call.func
    owner = getattr(call, "__self__", None)
    if isinstance(owner, asyncio.Task):
        call = owner.get_coro()
    module = getattr(call, "__module__", None) or type(owner).__module__
    name = getattr(call, "__qualname__", None) or type(call).__qualname__
    return f"{module}.{name}" if module and module != "builtins" else name


def measured(limit: float, report: Report) -> Callable[[Callable[..., object], tuple[Any, ...]], None]:
    """Makes a call, and reports it if it took long: for a loop that makes several calls in one callback."""

    def call(callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        began = time.perf_counter()
        callback(*args)
        took = time.perf_counter() - began
        if took > limit:
            report(name_of(callback), took)

    return call
