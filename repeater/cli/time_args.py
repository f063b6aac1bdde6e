"""Instants on the command line: `--from`, `--since`, `--until`."""

from __future__ import annotations

from datetime import datetime

from repeater.errors import UsageError
from repeater.model.time import parse_instant


def parse_time_option(option: str, text: str) -> datetime:
    """The instant in UTC from RFC 3339, a date, or a date and time. Without an offset the time is in the local zone.

    Raises UsageError that names the option.
    """
    try:
        return parse_instant(text, allow_local=True)
    except (ValueError, OverflowError):
        raise UsageError(
            f"cannot use `{option} {text}`: expected a time like `2026-11-24T03:00:00Z`, or a date"
        ) from None
