"""Marks in the place of secret values, for definitions that are stored or shown.

A mark is the same for the same value, so definitions with marks can be compared: another value gives another mark. It
is `*** hmac-sha256:` and 16 hexadecimal digits, made with the salt of one state folder, so values cannot be tried
without that folder. A value that a template put into a command or another text is replaced there, also as base64,
quoted for a URL, or line by line. Values shorter than `mask.SHORTEST` are replaced in `env` only.

Version 0.1.0 replaced values of `env` only, and its marks had no salt. `UNSALTED` makes the same marks, to compare with
a definition that 0.1.0 stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from repeater._lazy_dataclasses import fields, is_dataclass, replace
from repeater.model.spec import JobSpec, OnChange, Plugin, Probe, ProcessSpec
from repeater.policy.redact import secret_forms

ALGORITHM = "hmac-sha256"
_OF_PROCESS = ("command", "shell", "cwd", "env_file", "stdin")
_OF_JOB = (
    "description", "labels", "stop", "success", "http_aware", "watch", "watch_ignore", "ready", "live", "output",
    "hooks", "executor",
)  # fmt: skip
_KEPT = {"name", "mode", "tcp"}
"""Fields of parts that hold no free text: names, words of a closed set, and an address that must stay one."""

Value = TypeVar("Value")


class Hiding(Protocol):
    """Gives a spec with marks in place of its secrets."""

    def hide(self, spec: JobSpec) -> JobSpec: ...

    def env_mark(self, spec: JobSpec) -> str | None:
        """A mark of all values that come from env files; None if marks of this kind were never stored."""
        ...


class Marks:
    """Marks of one state folder. `salt` is any text; `environ` is what jobs inherit, where a secret may be too."""

    def __init__(self, salt: str, environ: Mapping[str, str]) -> None:
        self._salt = salt.encode()
        self._environ = environ

    def hide(self, spec: JobSpec) -> JobSpec:
        process = spec.process
        if not process.secrets:
            return spec
        hide = self._hider(process)
        names = frozenset(process.secrets)
        env = tuple((name, self._mark(text) if name in names else hide(text)) for name, text in process.env)
        texts: dict[str, Any] = {name: _with_marks(getattr(process, name), hide) for name in _OF_PROCESS}
        parts: dict[str, Any] = {name: _with_marks(getattr(spec, name), hide) for name in _OF_JOB}
        if isinstance(spec.schedule, OnChange | Plugin):
            parts["schedule"] = _with_marks(spec.schedule, hide)
        return replace(spec, process=replace(process, env=env, **texts), **parts)

    def env_mark(self, spec: JobSpec) -> str | None:
        import json

        return self._mark(json.dumps(sorted(spec.process.env_from_files)))

    def _mark(self, value: str) -> str:
        import hmac
        from hashlib import sha256

        digest = hmac.new(self._salt, value.encode("utf-8", "surrogateescape"), sha256).hexdigest()
        return f"*** {ALGORITHM}:{digest[:16]}"

    def _hider(self, process: ProcessSpec) -> Callable[[str], str]:
        marks: dict[str, str] = {}
        known = {**self._environ, **dict(process.env_from_files), **dict(process.env)}
        for name in process.secrets:
            if value := known.get(name):
                mark = self._mark(value)
                marks |= {form.decode("utf-8", "surrogateescape"): mark for form in secret_forms([value])}
        forms = sorted(marks, key=len, reverse=True)

        def hide(text: str) -> str:
            for form in forms:
                if form in text:
                    text = text.replace(form, marks[form])
            return text

        return hide


def _with_marks(value: Value, hide: Callable[[str], str]) -> Value:
    """The same value with `hide` applied to each text in it."""
    given: Any = value
    if isinstance(given, str):
        given = hide(given)
    elif isinstance(given, tuple | list):
        given = type(given)(_with_marks(one, hide) for one in given)
    elif isinstance(given, dict):
        given = {key: _with_marks(one, hide) for key, one in given.items()}
    elif isinstance(given, Plugin):
        given = Plugin.of(given.name, _with_marks(given.table(), hide))
    elif is_dataclass(given) and not isinstance(given, type):
        found = {one.name: getattr(given, one.name) for one in fields(given) if one.name not in _KEPT}
        changed = {name: _with_marks(one, hide) for name, one in found.items()}
        if isinstance(given, Probe) and given.http is not None:
            changed["http"] = _url_with_marks(given.http, hide)
        given = replace(given, **changed) if changed != found else given
    result: Value = given
    return result


def _url_with_marks(url: str, hide: Callable[[str], str]) -> str:
    """A URL with marks in its path and query. Its host and port stay: a stored definition has to be valid."""
    scheme, middle, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    user, at, host = authority.rpartition("@")
    return f"{scheme}{middle}{hide(user)}{at}{host}{slash}{hide(path)}"


class _Unsalted:
    def env_mark(self, spec: JobSpec) -> str | None:  # noqa: ARG002
        return None

    def hide(self, spec: JobSpec) -> JobSpec:
        process = spec.process
        if not process.secrets:
            return spec
        from hashlib import sha256

        env = tuple(
            (name, f"*** {sha256(value.encode()).hexdigest()[:8]}" if name in process.secrets else value)
            for name, value in process.env
        )
        return replace(spec, process=replace(process, env=env))


UNSALTED: Hiding = _Unsalted()
"""Makes the marks of 0.1.0."""
