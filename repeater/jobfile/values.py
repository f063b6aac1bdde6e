"""Corrections of rejected values such as `retry = 3`, `version = "1"`, `restart = "unless-stopped"`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from repeater.jobfile.document import Path
from repeater.jobfile.foreign import CONDITIONS, OVERLAPS, RESTARTS, attempts, environment, needs
from repeater.jobfile.hints import LONG, length, literal, rate_hint

_TRUE, _FALSE = ("true", "yes", "on", "1", "y"), ("false", "no", "off", "0", "n")
_SIGNALS = {"1": "HUP", "2": "INT", "3": "QUIT", "9": "KILL", "10": "USR1", "12": "USR2", "15": "TERM"}


def value_hint(path: Path, found: Any, schema: Mapping[str, Any]) -> str | None:
    """A sentence with the correct form; None if the meaning of the value is not clear.

    `path` is relative to a job or to the top of the file. `schema` is the schema that rejected the value.
    """
    if not path:
        return None
    key = path[-1]
    if schema.get("type") in ("boolean", ["boolean", "string"]) and not isinstance(found, dict | list):
        right = _truth(str(found).lower())
        return f"write `{key} = {right}`" if right else None
    if key == "condition" and path[0] == "needs":
        return _word("condition", found, CONDITIONS)
    if key == "rate":
        return rate_hint(str(found)) if isinstance(found, str | int) else None
    if len(path) == 2 and path[0] == "jobs":
        return _job(found)
    explain = _VALUES.get(str(key)) if len(path) == 1 else None
    return explain(found) if explain is not None else None


def name_hint(name: Any) -> str | None:
    """A valid replacement for a rejected name."""
    text = re.sub(r"[^A-Za-z0-9._-]+", "-", str(name)[:100]).strip("-._")
    if not text or len(text) > 64:
        return None
    if re.match(r"[-._]", str(name)):
        return f"a name begins with a letter or a digit: `{text}`"
    return f"write `{text}`"


def _truth(text: str) -> str | None:
    return "true" if text in _TRUE else "false" if text in _FALSE else None


def _word(key: str, found: Any, words: Mapping[str, str]) -> str | None:
    right = words.get(re.sub(r"[_\-\s]", "", str(found)).lower())
    return f'write `{key} = "{right}"`' if right else None


def _job(found: Any) -> str | None:
    if not isinstance(found, str):
        return _STEPS if isinstance(found, list) else None
    if re.match(r"[a-z_]+:\S", found):
        return "put a space after the `:` of a key"
    if re.match(r"[a-z_]+\s*=\s", found):
        return "YAML writes `key: value`"
    return f"write `{{ command = {literal(found)} }}`"


def _version(_: Any) -> str:
    return "`version` is that of the job-file language: write `version = 1`, or leave it out"


def _jobs(_: Any) -> str:
    return "the name of a job is that of its table: `[jobs.NAME]` in TOML, a key below `jobs` in YAML"


def _schedule(found: Any) -> str | None:
    if isinstance(found, bool):
        return 'write `schedule = "always"` for a service, `schedule = "manual"` for no schedule'
    if isinstance(found, int | float):
        return f'write `schedule = "every {length(found, "30s")}"`'
    if isinstance(found, list):
        return "a job has one schedule: write one job for each"
    if not found:
        return 'write `schedule = "every 30s"`, or leave it out for one run at start'
    return None


def _retry(found: Any) -> str | None:
    if isinstance(found, dict | list):
        return None
    return f"write `retry = {{ {attempts(found)} }}`; the first attempt counts"


def _stop(found: Any) -> str | None:
    is_count = isinstance(found, int) and not isinstance(found, bool) and found > 0
    return f"write `stop = {{ times = {found} }}`" if is_count else None


def _needs(found: Any) -> str | None:
    return f"write `{needs(found)}`" if isinstance(found, str) else None


def _env(found: Any) -> str | None:
    return f"write `{environment(found)}`" if isinstance(found, str | list) else None


def _output(found: Any) -> str | None:
    if not isinstance(found, str):
        return None
    if found in ("stream", "aggregate", "suppress"):
        return f'write `output = {{ mode = "{found}" }}`'
    if found in ("none", "null", "/dev/null", "devnull", "discard", "silent"):
        return 'write `output = { mode = "suppress" }`'
    return f"write `output = {{ file = {literal(found)} }}`"


def _probe(key: str) -> Callable[[Any], str | None]:
    def explain(found: Any) -> str | None:
        if not isinstance(found, str):
            return None
        kind = "exec"
        if re.match(r"https?://", found):
            kind = "http"
        elif re.fullmatch(r"[A-Za-z0-9.\[\]:-]+:[0-9]{1,5}", found):
            kind = "tcp"
        return f"write `{key} = {{ {kind} = {literal(found)} }}`"

    return explain


def _labels(found: Any) -> str | None:
    first = found[0] if isinstance(found, list) and found else found
    if not isinstance(first, str) or not first:
        return None
    name, equals, value = first.partition("=")
    shown = name if re.fullmatch("[A-Za-z0-9_-]+", name) else literal(name)
    return f"write `labels = {{ {shown} = {literal(value) if equals else 'true'} }}`"


def _success(found: Any) -> str | None:
    codes = found if isinstance(found, list) else [found]
    if codes and all(isinstance(one, int) and not isinstance(one, bool) for one in codes):
        return f"write `success = {{ exit_codes = [{', '.join(map(str, codes[:8]))}] }}`"
    if isinstance(found, str) and literal(found) != LONG:
        return f"write `success = {{ pattern = {literal(found)} }}`"
    return None


def _hooks(found: Any) -> str | None:
    return f"write `hooks = {{ on_failure = {literal(found)} }}`" if isinstance(found, str) else None


def _slowdown(found: Any) -> str | None:
    if isinstance(found, dict | list):
        return None
    return f'write `slowdown = {{ base = "{length(found, "1s")}" }}`'


def _signal(found: Any) -> str | None:
    right = _SIGNALS.get(str(found)) or str(found).upper().removeprefix("SIG")
    return f'write `stop_signal = "{right}"`' if right in _SIGNALS.values() else None


_STEPS = "a job is a table with one `command`; write one job for each step, and connect them with `needs`"
_VALUES: Mapping[str, Callable[[Any], str | None]] = {
    "version": _version,
    "jobs": _jobs,
    "schedule": _schedule,
    "retry": _retry,
    "stop": _stop,
    "needs": _needs,
    "env": _env,
    "output": _output,
    "ready": _probe("ready"),
    "live": _probe("live"),
    "labels": _labels,
    "success": _success,
    "hooks": _hooks,
    "slowdown": _slowdown,
    "stop_signal": _signal,
    "restart": lambda found: _word("restart", found, RESTARTS),
    "overlap": lambda found: _word("overlap", found, OVERLAPS),
}
