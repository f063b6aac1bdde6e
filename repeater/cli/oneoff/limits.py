"""The limit that a one-off command shares with other processes: `--daemon` and the related options.

The limit is a table of a job file, so that `--as-job` can print it. Imported only if `--daemon` is given.
"""

from __future__ import annotations

from typing import Any

from repeater.cli.oneoff.parse import ParsedArgs
from repeater.errors import UsageError
from repeater.model.spec import Limit


def limit_of(given: ParsedArgs) -> tuple[str, dict[str, Any]]:
    """The name of the limit and its table. Raises UsageError for a missing option."""
    name = given.text("--resource-id")
    if name is None:
        raise _incomplete(given, "--resource-id NAME", "it names the shared limit")
    rate = given.text("--rate")
    if rate is None and given.text("--limit") is not None:
        rate = f"{given.text('--limit')}/{given.text('--window')}"
    if rate is None:
        raise _incomplete(given, "--rate N/DURATION", "the maximum number of starts in any window")
    return name, {"rate": rate, "shared": True, **({"fail": "closed"} if given.has("--fail-closed") else {})}


def build_limit(name: str, table: dict[str, Any]) -> Limit:
    """The limit. Raises UsageError."""
    from repeater.model.units import parse_rate

    try:
        rate = parse_rate(table["rate"])
    except ValueError as error:
        raise UsageError(f"cannot use `--rate {table['rate']}`: {error}") from None
    return Limit(name, rate, shared=True, fail=table.get("fail", "open"))


def _incomplete(given: ParsedArgs, option: str, hint: str) -> UsageError:
    return UsageError(f"cannot run `rpr {given.command.name}`: `--daemon` needs `{option}`", hint=hint)
