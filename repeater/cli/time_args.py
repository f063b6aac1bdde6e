"""Instants on the command line: `--from`, `--since`, `--until`."""

from __future__ import annotations

from datetime import UTC, datetime

from repeater.errors import UsageError


def parse_moment(option: str, text: str) -> datetime:
    """The instant, in UTC: RFC 3339, or a date, or a date and time; without an offset it is the machine's local time.

    Raises UsageError that names the option.
    """
    try:
        moment = datetime.fromisoformat(text.strip())
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageError(
            f"cannot use `{option} {text}`: expected a time like `2026-11-24T03:00:00Z`, or a date"
        ) from None
