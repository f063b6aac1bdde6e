"""The fields of one reason as text, for sentence templates and functions."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, TypeAlias

from repeater.model.reasons import Reason, kind_of, reason_of
from repeater.model.time import from_epoch_us
from repeater.model.units import format_duration

Sentence: TypeAlias = Callable[[Reason, Callable[[datetime], "str | None"]], str]


class Fields(Mapping[str, str]):
    """Maps each field to its text, which is empty if the field is absent. `raw` returns its value."""

    def __init__(self, reason: Reason, clock: Callable[[datetime], str | None], sentence: Sentence) -> None:
        self._reason = reason
        self._clock = clock
        self._sentence = sentence

    def __getitem__(self, name: str) -> str:
        value = self._reason.detail.get(name)
        return "" if value is None else self._shown(value, kind_of(self._reason.code, name))

    def __contains__(self, name: object) -> bool:
        return name in self._reason.detail

    def __iter__(self) -> Any:
        return iter(self._reason.detail)

    def __len__(self) -> int:
        return len(self._reason.detail)

    def raw(self, name: str) -> Any:
        """The stored value of a field, None if the field is absent."""
        return self._reason.detail.get(name)

    def part(self, name: str, template: str) -> str:
        """The rendered template if the field is present, else an empty text."""
        return template.format_map(self) if name in self else ""

    def _shown(self, value: Any, kind: str) -> str:
        match kind:
            case "instant":
                return str(self._clock(from_epoch_us(value)))
            case "duration":
                return format_duration(timedelta(microseconds=value))
            case "errno":
                number = getattr(errno, str(value), None)
                return os.strerror(number) if isinstance(number, int) else str(value)
            case "names":
                return ", ".join(f"`{one}`" for one in value)
            case "needs":
                return "; ".join(f"needs `{job}` {to_be(condition)}" for job, condition in value)
            case "reason":
                return self._nested(value)
            case "reasons":
                return ", ".join(map(self._nested, value))
            case _:
                return str(value)

    def _nested(self, kept: Any) -> str:
        found = reason_of(kept)
        return "" if found is None else self._sentence(found, self._clock)


Maker: TypeAlias = str | Callable[[Fields], str]


_PAST = ("started", "completed", "succeeded", "failed")


def to_be(condition: str) -> str:
    """`to be healthy`, `to have started`."""
    return f"to {'have' if condition in _PAST else 'be'} {condition}"


def is_not(condition: str) -> str:
    """`is not healthy`, `has not started`."""
    return f"{'has' if condition in _PAST else 'is'} not {condition}"


def counted(count: int, one: str, many: str = "") -> str:
    """`1 run`, `2 runs`."""
    return f"{count} {one}" if count == 1 else f"{count} {many or one + 's'}"
