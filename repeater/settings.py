"""The settings of rpr itself. Precedence: flag, `RPR_*` variable, configuration file, default.

Names and sections are those of the Go original, so that its file can be used. Pure: the caller passes the text of the
file and the environment. `rpr config` shows each value with its origin; the one-off commands use the values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from repeater._lazy_dataclasses import dataclass
from repeater.errors import UsageError


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting. `section` and `name` are its key in the file. `variables` are its environment variables; the first
    that is set counts. `default` None: not set. `read` raises ValueError for a text that is not valid.
    """

    section: str
    name: str
    variables: tuple[str, ...]
    default: str | None
    words: str
    read: Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Value:
    """The value of a setting and its origin: `default`, a variable, or a file."""

    text: str | None
    origin: str


Settings = Mapping[str, Value]
"""All settings by name."""


def _duration(text: str) -> object:
    from repeater.model.units import parse_duration

    return parse_duration(text, zero=True)


def _integer(text: str) -> object:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"found `{text}`, expected a whole number")
    return int(text)


def _size(text: str) -> object:
    from repeater.model.units import parse_size

    return parse_size(text)


def _percent(text: str) -> object:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 100:
        raise ValueError(f"found `{text}`, expected a number from 0 to 100")
    return number


def _boolean(text: str) -> object:
    if text.lower() not in ("true", "false", "1", "0"):
        raise ValueError(f"found `{text}`, expected `true` or `false`")
    return text.lower() in ("true", "1")


def _port(text: str) -> object:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise ValueError(f"found `{text}`, expected a port from 1 to 65535")
    return int(text)


def _level(text: str) -> object:
    if text.lower() not in ("debug", "info", "warn", "error"):
        raise ValueError(f"found `{text}`, expected `debug`, `info`, `warn` or `error`")
    return text


SETTINGS = (
    Setting("defaults", "timeout", ("RPR_TIMEOUT",), None, "default of `--timeout`", _duration),
    Setting("defaults", "kill_timeout", ("RPR_KILL_TIMEOUT",), "10s", "time between TERM and KILL", _duration),
    Setting("defaults", "max_retries", ("RPR_MAX_RETRIES",), "3", "`--attempts` of the retry commands", _integer),
    Setting(
        "defaults",
        "log_level",
        ("RPR_LOG_LEVEL",),
        "info",
        "`debug` means `--verbose`; for apply, `warn` and `error` mean `--quiet`",
        _level,
    ),
    Setting("scheduling", "default_interval", ("RPR_DEFAULT_INTERVAL",), None, "`--every` of `interval`", _duration),
    Setting("scheduling", "jitter_percent", ("RPR_JITTER_PERCENT",), "0", "`--jitter` of `interval`", _percent),
    Setting("observability", "metrics_enabled", ("RPR_METRICS_ENABLED",), "false", "`--metrics`", _boolean),
    Setting("observability", "metrics_port", ("RPR_METRICS_PORT",), "9090", "`--metrics-port`", _port),
    Setting("observability", "health_enabled", ("RPR_HEALTH_ENABLED",), "false", "`--health`", _boolean),
    Setting("observability", "health_check_port", ("RPR_HEALTH_CHECK_PORT",), "8080", "`--health-port`", _port),
    Setting("state", "output_size", ("RPR_OUTPUT_SIZE",), "256MiB", "how much output `apply` keeps on disk", _size),
    Setting(
        "daemon",
        "socket",
        ("RPR_DAEMON_SOCKET", "PATIENCE_DAEMON_SOCKET"),
        None,
        "path of the rate-limit daemon's socket",
        str,
    ),
)
_FOREIGN = ("plugins",)  # sections of the Go original that are ignored


def config_path(environ: Mapping[str, str]) -> str:
    """The default path of the configuration file."""
    home = environ.get("XDG_CONFIG_HOME") or environ.get("HOME", "") + "/.config"
    return f"{home}/repeater/config.toml"


def resolve(environ: Mapping[str, str], text: str = "", name: str = "") -> Settings:
    """All settings. `text` is the content of the configuration file, `name` its name in messages.

    Raises UsageError that lists all problems.
    """
    tables = _tables(text, name) if text else {}
    problems = [f"cannot use `{name}`: {cause}" for cause in _unknown(tables)]
    found = {}
    for setting in SETTINGS:
        value, wrong = _value(setting, environ, tables, name)
        found[setting.name if setting.section != "daemon" else "daemon_socket"] = value
        if wrong is not None:
            problems.append(wrong)
    if problems:
        raise UsageError("\nrpr: ".join(problems))
    return found


def _value(
    setting: Setting, environ: Mapping[str, str], tables: Mapping[str, Any], name: str
) -> tuple[Value, str | None]:
    variable = next((one for one in setting.variables if environ.get(one)), None)
    given = tables.get(setting.section, {}).get(setting.name)
    if variable is not None:
        text, origin, shown = environ[variable], variable, f"{variable}={environ[variable]}"
    elif given is not None:
        text = ("true" if given else "false") if isinstance(given, bool) else str(given)
        origin, shown = name, f"{setting.section}.{setting.name}` in `{name}"
    else:
        return Value(setting.default, "default"), None
    try:
        setting.read(text)
    except ValueError as error:
        return Value(text, origin), f"cannot use `{shown}`: {error}"
    return Value(text, origin), None


def _tables(text: str, name: str) -> dict[str, Any]:
    import tomllib

    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"cannot read `{name}`: {error}") from None
    return tables


def _unknown(tables: Mapping[str, Any]) -> Iterator[str]:
    known: dict[str, set[str]] = {}
    for setting in SETTINGS:
        known.setdefault(setting.section, set()).add(setting.name)
    for section, table in tables.items():
        if section in _FOREIGN:
            continue
        if section not in known or not isinstance(table, dict):
            yield f"unknown section `{section}`{_closest(section, known)}"
            continue
        for key in table:
            if key not in known[section]:
                yield f"unknown key `{section}.{key}`{_closest(key, known[section])}"


def _closest(word: str, known: Any) -> str:
    import difflib

    near = difflib.get_close_matches(word, known, 1, 0.5)
    return f", did you mean `{near[0]}`?" if near else f", known: {', '.join(f'`{one}`' for one in sorted(known))}"
