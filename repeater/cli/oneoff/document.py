"""Converts options to the table of a job with the keys of a job file, so that both have the same meaning.

Values are only converted to the types of a job file (`5` is a number, `a,b` a list); the loader checks them. `sources`
stores which option set which key, for messages.
"""

from __future__ import annotations

import re
from typing import Any

from repeater._lazy_dataclasses import dataclass, replace
from repeater.cli.oneoff.options import Key, Option
from repeater.cli.oneoff.parse import ParsedArgs
from repeater.errors import UsageError
from repeater.settings import Settings, Value

BACK_TO_BACK = {"every": "0s", "after_end": True}
_TIME_OF_DAY = r"(?:[01]?[0-9]|2[0-3]):[0-5][0-9]"
_ENDING = r"(?<=.)\.(sh|py|pl|rb|js|bash|zsh)$"
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_NO_NAME = r"[^A-Za-z0-9._-]+"


@dataclass(frozen=True, slots=True)
class JobTable:
    """A job as in a job file. `sources` maps paths of keys to the arguments that set them; `limits` are the tables of
    the limits that the job uses.
    """

    name: str
    job: dict[str, Any]
    sources: dict[Key, str]
    limits: dict[str, dict[str, Any]]


def table_of(given: ParsedArgs, settings: Settings) -> JobTable:
    """The job of the options. `settings`, by the names of `repeater.settings`, apply where no option is given.

    Raises UsageError for mutually exclusive options.
    """
    job: dict[str, Any] = {"command": " ".join(given.argv) if given.has("--shell") else list(given.argv)}
    sources: dict[Key, str] = {("command",): "command"}
    for key, value in given.command.fixed:
        _set(job, key, value)
    if given.globs:
        _set(job, ("schedule", "watch"), list(given.globs))
        sources["schedule", "watch"] = "GLOB"
    for option, text in given.words:
        if option.key:
            _fill(job, sources, option, text)
    _complete(job, sources, given, settings)
    return JobTable(_name(given), job, sources, _limits(given))


def _limits(given: ParsedArgs) -> dict[str, dict[str, Any]]:
    if given.has("--daemon"):
        from repeater.cli.oneoff.limits import limit_of

        return dict([limit_of(given)])
    only = ["--resource-id", "--daemon-socket", "--fail-closed"]
    only += [] if given.command.name == "rate-limit" else ["--rate"]
    for option in only:
        if given.has(option):
            raise UsageError(f"cannot use `{option}` without `--daemon`")
    return {}


def _complete(job: dict[str, Any], sources: dict[Key, str], given: ParsedArgs, settings: Settings) -> None:
    """Set keys that depend on several options or on the settings."""
    schedule = job.setdefault("schedule", {})
    if given.command.name in ("count", "duration") and "every" not in schedule:
        schedule |= BACK_TO_BACK
    if given.command.name == "interval":
        _apply_setting(job, sources, ("schedule", "every"), settings["default_interval"])
        percent = settings["jitter_percent"]
        if float(percent.text or 0) > 0:
            _apply_setting(job, sources, ("schedule", "jitter"), replace(percent, text=f"{percent.text}%"))
    if "jitter" in schedule and not given.command.strategy:
        schedule["jitter_mode"] = (
            "random"  # the default jitter is the same for every start of a job, so it would only be a delay
        )
    if "file" in job.get("output", {}):
        job["output"].setdefault("mode", "suppress")
        job["output"].setdefault("max_size", "1048576GiB")  # a file that the user named is never rotated
    if "max_instances" in job:
        job["overlap"] = "allow"
        if not given.has("--interleave"):
            job.setdefault("output", {}).setdefault("mode", "aggregate")
    if given.text("--limit") is not None or given.text("--window") is not None:
        _rate(schedule, sources, given)
    if given.command.name == "rate-limit" and "rate" not in schedule:
        raise UsageError("cannot run `rpr rate-limit`: missing `--rate N/DURATION`, or `--limit` and `--window`")
    if given.has("--even"):
        _space_evenly(schedule, sources, given)
    if given.command.strategy:
        from repeater.policy.retry import HOPELESS

        stop = job.setdefault("stop", {})
        stop["on_success"] = True
        retried, given_up = stop.get("except_exit", []), stop.get("on_exit", [])
        if both := [code for code in given_up if code in retried]:
            raise UsageError(f"cannot use exit code {both[0]} with `--retry-on` and with `--give-up-on`")
        hopeless = [code for code in HOPELESS if code not in retried and code not in given_up]
        stop["on_exit"] = [*given_up, *hopeless]
        _apply_setting(job, sources, ("stop", "times"), settings["max_retries"], whole=True)
    _apply_setting(job, sources, ("timeout",), settings["timeout"])
    if job.get("timeout") in ("0s", "0"):
        del job["timeout"]  # none, even if the settings have one
    if settings["kill_timeout"].origin != "default":
        _apply_setting(job, sources, ("stop_timeout",), settings["kill_timeout"])


def _apply_setting(
    job: dict[str, Any], sources: dict[Key, str], key: Key, setting: Value, *, whole: bool = False
) -> None:
    """A setting applies if its option was not given."""
    if setting.text is not None and key not in sources:
        _set(job, key, int(setting.text) if whole else setting.text)
        sources[key] = setting.origin


def _rate(schedule: dict[str, Any], sources: dict[Key, str], given: ParsedArgs) -> None:
    limit, window = given.text("--limit"), given.text("--window")
    if "rate" not in schedule and limit is not None and window is None and "/" in limit:
        schedule["rate"] = limit
        sources["schedule", "rate"] = "--limit"
        return
    if "rate" in schedule or limit is None or window is None:
        raise UsageError("cannot run `rpr rate-limit`: expected either `--rate`, or `--limit` and `--window`")
    schedule["rate"] = f"{limit}/{window}"
    sources["schedule", "rate"] = "--limit"


def _space_evenly(schedule: dict[str, Any], sources: dict[Key, str], given: ParsedArgs) -> None:
    """Replace the rate by an interval: the window divided by the number of starts."""
    from datetime import timedelta

    from repeater.model.units import format_duration, parse_rate

    for option in ("--retry-pattern", "--show-next"):
        if given.has(option):
            raise UsageError(f"cannot use `--even` with `{option}`")
    text, option = schedule.pop("rate"), sources.pop(("schedule", "rate"))
    try:
        rate = parse_rate(text)
    except ValueError as error:
        raise UsageError(f"cannot use `{option} {text}`: {error}") from None
    microsecond = timedelta(microseconds=1)
    schedule["every"] = format_duration(-(-rate.window // (microsecond * rate.count)) * microsecond)
    sources["schedule", "every"] = option


def _fill(job: dict[str, Any], sources: dict[Key, str], option: Option, text: str | None) -> None:
    value = option.value if text is None else _value(option, text)
    before, already = sources.get(option.key), _get(job, option.key)
    if option.kind in ("list", "pair") and already:
        value = already + value if option.kind == "list" else {**already, **value}
    elif option.key == ("http_aware",) and isinstance(already, dict):
        return  # a table has more keys
    elif already is True and option.key[0] == "http_aware":
        pass
    elif before is not None and already != value:
        if before == option.name:
            raise UsageError(f"cannot use `{option.name}` twice, with `{already}` and `{value}`")
        raise UsageError(f"cannot use `{option.name}` together with `{before}`")
    _set(job, option.key, value)
    sources[option.key] = option.name


def _value(option: Option, text: str) -> Any:
    match option.kind:
        case "whole":
            return _whole(text)
        case "number":
            return _number(text)
        case "share":  # the Go original accepts `70` and `0.7`
            number = _number(text)
            if isinstance(number, str):
                return text
            if number < 0:
                return text  # the loader rejects the text as typed
            return f"{number * 100 if number <= 1 else number:g}%"
        case "list" | "codes":
            return [text] if option.kind == "list" else [_whole(word.strip()) for word in text.split(",")]
        case "words":
            return ["0s" if word == "0" else word for word in map(str.strip, text.split(","))]
        case "pair":
            name, equals, value = text.partition("=")
            if not equals or not name:
                raise UsageError(f"cannot use `{option.name} {text}`: expected `{option.metavar}`")
            return {name: value}
        case "moment":
            return _moment(option, text)
        case _:
            return text


def _whole(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdigit() else text


def _moment(option: Option, text: str) -> str | None:
    """A time of day means its next occurrence in the local zone."""
    from repeater.cli.time_args import parse_time_option
    from repeater.model.time import rfc3339

    return rfc3339(parse_time_option(option.name, text, ahead=True))


def _number(text: str) -> int | float | str:
    try:
        number = float(text)
    except ValueError:
        return text
    return int(text) if text.isdigit() else number if abs(number) < float("inf") else text


def _get(job: dict[str, Any], key: Key) -> Any:
    tree: Any = job
    for part in key:
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree


def _set(job: dict[str, Any], key: Key, value: Any) -> None:
    tree = job
    for part in key[:-1]:
        inner = tree.get(part)
        if not isinstance(inner, dict):
            inner = tree[part] = {}
        tree = inner
    tree[key[-1]] = dict(value) if isinstance(value, dict) else value


def _name(given: ParsedArgs) -> str:
    """A valid job name: the given one, or one derived from the program that the job runs."""
    asked = given.text("--name")
    if asked is not None:
        if not re.fullmatch(_NAME, asked):
            form = "up to 64 letters, digits, `.`, `_`, `-`, the first a letter or a digit"
            raise UsageError(f"cannot use `--name {asked}`: expected {form}")
        return asked
    program = given.argv[0].rpartition("/")[2].partition(" ")[0]
    name = re.sub(_NO_NAME, "-", re.sub(_ENDING, "", program))[:64].strip("-._")
    return name if name and name[0].isalnum() else "command"
