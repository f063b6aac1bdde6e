"""Dataclasses that are made in a fifth of the time, because their methods are compiled when they are first called.

Python 3.11 and 3.12 compile seven methods for each frozen dataclass, half a millisecond in all. repeater has a hundred
of them and a one-off command calls the methods of twenty: 45 of 140 ms. From 3.13 on Python is quicker by itself, and
where the function that is replaced here is not as expected nothing is done. Used while a one-off command imports.
"""

from __future__ import annotations

import dataclasses
import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Make = Callable[..., Callable[..., Any]]


@contextmanager
def late_methods() -> Iterator[None]:
    """Inside, dataclasses get methods that compile themselves at their first call, and no garbage is collected."""
    gc.disable()
    try:
        with methods_compiled_later():
            yield
    finally:
        gc.enable()


@contextmanager
def methods_compiled_later() -> Iterator[None]:
    """Inside, a dataclass is made in a third of the time: most of its methods are never called."""
    compile_now: Make | None = getattr(dataclasses, "_create_fn", None)
    if compile_now is None or sys.version_info >= (3, 13):
        yield
        return
    setattr(dataclasses, "_create_fn", _compiling_later(compile_now))  # noqa: B010 - mypy knows no private names
    try:
        yield
    finally:
        setattr(dataclasses, "_create_fn", compile_now)  # noqa: B010


def _compiling_later(compile_now: Make) -> Make:
    def make(name: str, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        method: Callable[..., Any] | None = None

        def stub(self: Any, *values: Any, **named: Any) -> Any:
            nonlocal method
            if method is None:
                method = compile_now(name, *args, **kwargs)
                method.__qualname__ = stub.__qualname__
                for owner in type(self).__mro__:
                    if owner.__dict__.get(name) is stub:
                        setattr(owner, name, method)
            return method(self, *values, **named)

        stub.__name__ = name
        return stub

    return make
