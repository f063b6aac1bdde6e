"""Times on the command line: `--from`, `--since`, `--until`."""

from __future__ import annotations

from datetime import UTC, datetime

from repeater.errors import UsageError
from repeater.model.moment import parse_future, parse_past


def parse_time_option(option: str, text: str, *, ahead: bool = False) -> datetime:
    """The instant in UTC of a text that `model.moment` reads. `ahead`: a relative time means the future.

    Raises UsageError that names the option.
    """
    parse = parse_future if ahead else parse_past
    try:
        return parse(text, datetime.now(UTC))
    except ValueError as error:
        raise UsageError(f"cannot use `{option} {text}`: {error}") from None
