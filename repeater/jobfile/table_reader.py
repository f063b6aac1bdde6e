"""Reads typed values from a job's table and collects their problems.

The schema was checked before, so a wrong type is rare (a text from a template), but it must not cause a crash. After a
problem the default is used, so that the remaining keys are still checked; the spec is then discarded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from repeater.jobfile.document import Path, Report, describe, has_template
from repeater.model.spec import LEAST_DISTANCE, Pairs
from repeater.model.time import from_rfc3339
from repeater.model.units import format_duration, parse_duration, parse_size

if TYPE_CHECKING:
    from repeater.model.plugins import PluginCatalog

_duration = lru_cache(maxsize=1024)(parse_duration)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class TableReader:
    """One job's table. `report` receives each problem. `catalog` has the installed plugins; None: do not check."""

    def __init__(self, report: Report, catalog: PluginCatalog | None = None) -> None:
        self._report = report
        self.catalog = catalog

    def problem(self, path: Path, message: str, hint: str | None = None) -> None:
        self._report(path, message, hint)

    def warning(self, path: Path, message: str, hint: str | None = None) -> None:
        """Report a valid value that is probably a mistake."""
        self._report(path, message, hint, "warning")

    def duration(
        self, table: Mapping[str, Any], key: str, at: Path, default: timedelta, *, zero: bool = False
    ) -> timedelta:
        text = table.get(key)
        if text is None:
            return default
        try:
            return _duration(str(text), zero=zero)
        except ValueError as error:
            self.bad_duration((*at, key), str(error), str(text))
            return default

    def bad_duration(self, path: Path, message: str, text: str) -> None:
        """Report a text that is not a duration, with the correct syntax if its meaning is clear."""
        from repeater.jobfile.hints import duration_hint

        self.problem(path, message, duration_hint(text))

    def distance(
        self, table: Mapping[str, Any], key: str, at: Path, default: timedelta, *, zero: bool = False
    ) -> timedelta:
        """The distance between two slots: at least `LEAST_DISTANCE`, or zero if `zero` is true."""
        length = self.duration(table, key, at, default, zero=zero)
        if length < LEAST_DISTANCE and not (zero and not length):
            least = f"at least `{format_duration(LEAST_DISTANCE)}`, the shortest interval between two starts"
            self.problem((*at, key), f"found `{format_duration(length)}`, expected {least}")
            return default
        return length

    def duration_or_never(
        self, table: Mapping[str, Any], key: str, at: Path, default: timedelta | None
    ) -> timedelta | None:
        if table.get(key) == "never":
            return None
        return self.duration(table, key, at, timedelta(1)) if key in table else default

    def instant(self, table: Mapping[str, Any], key: str, at: Path) -> datetime:
        text = str(table.get(key))
        try:
            instant = from_rfc3339(text)
        except ValueError:
            instant = None
        if instant is None:
            found = f"found {describe(text)}, expected an instant with an offset like `2027-01-01T00:00:00Z`"
            self.problem((*at, key), found)
        return instant or _EPOCH

    def size(self, table: Mapping[str, Any], key: str, at: Path, default: int) -> int:
        if key not in table:
            return default
        try:
            return parse_size(str(table[key]))
        except ValueError as error:
            self.problem((*at, key), str(error))
            return default

    def number(self, table: Mapping[str, Any], key: str, at: Path, default: float) -> float:
        value = table.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.problem((*at, key), f"found {describe(value)}, expected a number")
            return default
        return value

    def integer(self, table: Mapping[str, Any], key: str, at: Path, default: int) -> int:
        return int(self.number(table, key, at, default))

    def optional_integer(self, table: Mapping[str, Any], key: str, at: Path) -> int | None:
        """An integer; None if it is absent."""
        return int(self.number(table, key, at, 1)) if key in table else None

    def octal(self, table: Mapping[str, Any], key: str, at: Path) -> int:
        """Octal digits as text, or a number written as `0o27`. The base of any other number would be ambiguous."""
        value = table[key]
        if has_template(value):
            return 0  # a failed template, already reported
        text = str(value)
        if isinstance(value, str) or (text.startswith("0o") and 0 <= value <= 0o777):
            return int(text, 8)
        digits = text.lstrip("0").rjust(3, "0")
        hint = f'write `"{digits}"`' if re.fullmatch("[0-7]{3}", digits) else None
        self.problem(
            (*at, key), f'found the number {describe(value)}, expected octal digits as text like `"027"`', hint
        )
        return 0

    def boolean(self, table: Mapping[str, Any], key: str, at: Path, default: bool) -> bool:
        value = table.get(key, default)
        if not isinstance(value, bool):
            self.problem((*at, key), f"found {describe(value)}, expected `true` or `false`")
            return default
        return value

    def strings(self, table: Mapping[str, Any], key: str, at: Path) -> tuple[str, ...]:
        """One text or a list of texts, as a tuple; () if it is absent."""
        if key not in table:
            return ()
        value = table[key]
        if isinstance(value, str):
            return (value,)
        if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
            self.problem((*at, key), f"found {describe(value)}, expected a list of texts")
            return ()
        return tuple(value)

    def globs(self, table: Mapping[str, Any], key: str, at: Path, *, ignore: bool = False) -> tuple[str, ...]:
        """One valid glob or a list of them; `ignore`: in the format of gitignore(5)."""
        from repeater.policy.paths import check_glob, check_ignore, find_doubt

        globs = self.strings(table, key, at)
        is_list = not isinstance(table.get(key), str)
        for number, glob in enumerate(globs):
            place = (*at, key, number) if is_list else (*at, key)
            try:
                (check_ignore if ignore else check_glob)(glob)
            except ValueError as error:
                self.problem(place, str(error))
                continue
            name = None if ignore else find_doubt(glob)
            if name is not None:
                found = f"found `{name}`, which matches one character and not a directory of this name"
                self.warning(place, found, f"write `{name.replace('[', '[[]')}` for the name")
        return globs

    def numbers(self, table: Mapping[str, Any], key: str, at: Path) -> tuple[int, ...]:
        """A list of integers, sorted, without duplicates."""
        value = table[key]
        if not isinstance(value, list) or not all(isinstance(one, int) and not isinstance(one, bool) for one in value):
            self.problem((*at, key), f"found {describe(value)}, expected a list of whole numbers")
            return (0,)
        return tuple(sorted(set(map(int, value))))

    def command(self, table: Mapping[str, Any], key: str, at: Path) -> str | tuple[str, ...] | None:
        """A text for the shell, or the arguments; None if it is absent."""
        value = table.get(key)
        if isinstance(value, list):
            value = tuple([one if isinstance(one, str) else str(one) for one in value])
        if value and "\0" in (value if isinstance(value, str) else "".join(value)):
            self.problem((*at, key), "found a zero character, not allowed in commands")
        return value

    def pairs(self, table: Mapping[str, Any], key: str, at: Path) -> Pairs:
        """A table of texts, numbers and booleans as sorted pairs of texts."""
        value = table.get(key)
        if value is None:
            return ()
        if not isinstance(value, dict):
            self.problem((*at, key), f"found {describe(value)}, expected a table of names and values")
            return ()
        pairs = [(name, one if type(one) is str else _scalar(one)) for name, one in value.items()]
        for name, text in pairs:
            if "\0" in text:
                self.problem((*at, key, name), "found a zero character, not allowed in variables")
        return tuple(sorted(pairs))

    def pattern(self, table: Mapping[str, Any], key: str, at: Path) -> str | None:
        """A valid regular expression; None if it is absent."""
        text = table.get(key)
        if text is None:
            return None
        from repeater.policy.verdict import compile_pattern

        try:
            compile_pattern(str(text))
        except ValueError as error:
            self.problem((*at, key), str(error))
        return str(text)


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
