"""Access control of HTTP: one middleware in front of every route, known or not.

    421  `Host` is not on the list: the DNS name of another site can point to this machine
    403  `Origin` is another one: the request comes from a page of another site
    401  no token, or not this one; all but `OPEN` needs it, also on this machine, which other users share
    415  what changes something is JSON, which no form of a foreign page can send
    503  all places of requests are taken (`control.request_limits`); `OPEN` needs none

Pure ASGI and standard library, so that it can neither buffer nor be left out. It sets the headers of every answer too.
Built by `control.http.app`.
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from email.utils import formatdate
from typing import Any, TypeAlias

from repeater.control.http.routes import OPEN, ROUTES
from repeater.control.request_limits import Load
from repeater.wire.json_lines import BadMessage

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Sender: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Sender], Awaitable[None]]

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
HEADERS = (
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
"""On every answer. There is no CORS header and no cookie anywhere."""


_CHANGES = re.compile(
    b"|".join(
        re.escape(route.path).replace(r"\{name\}", "[^/]+").encode() for route in ROUTES if route.method == "POST"
    )
)
"""Where POST is answered; anywhere else the router refuses it."""


ADMITTED = "admitted"
"""In `state` of a scope, if its server wants to know: called with True when a request is let in that needs a token, and
with False when it was answered."""
PLACE = "place"
"""In a scope that was let in: its `control.request_limits.Place`."""


class AuthMiddleware:
    """`hosts` are the names by which this server may be called; the address that the client connected to is another."""

    def __init__(self, app: App, *, token: str, hosts: Iterable[str]) -> None:
        if not token:
            raise ValueError("a guard needs a token")
        self._app = app
        self._token = token.encode()
        self._hosts = frozenset(map(str.lower, hosts))
        self._load = Load()

    async def __call__(self, scope: Scope, receive: Receive, send: Sender) -> None:
        if scope["type"] != "http":
            return

        async def answer(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                date = (b"date", formatdate(usegmt=True).encode())
                message["headers"] = [*message.get("headers", ()), date, *HEADERS]
            await send(message)

        refusal = self._refusal(scope)
        if refusal is not None:
            await error_response(answer, *refusal)
            return
        # Routes are matched against the path as it came: a job's name may hold an encoded slash.
        scope = {**scope, "path": scope["raw_path"].decode("ascii", "replace")}
        if _is_open(scope):
            await self._app(scope, receive, answer)
            return
        try:
            place = self._load.admit("request")
        except BadMessage as busy:
            await error_response(answer, 503, busy.code, busy.message, busy.hint)
            return
        told = scope.get("state", {}).get(ADMITTED, lambda _: None)
        told(True)
        try:
            await self._app({**scope, PLACE: place}, receive, answer)
        finally:
            place.leave()
            told(False)

    def _refusal(self, scope: Scope) -> tuple[int, str, str, str | None] | None:
        """Status, code, message and hint; None: may pass."""
        host = _only(scope, b"host")
        if host is None or not self._token_is_valid(host, scope):
            shown = (host or "")[:100].encode("ascii", "backslashreplace").decode()
            hint = "`rpr apply --http-host NAME` allows another host name"
            return 421, "host", f"cannot answer for host `{shown}`", hint
        origin = _only(scope, b"origin") if _has(scope, b"origin") else ""
        if origin is None or (origin and origin.lower() not in (f"http://{host}".lower(), f"https://{host}".lower())):
            return 403, "origin", "cannot answer a web page of another origin", None
        if _is_open(scope):
            return None
        if not self._host_is_allowed(_only(scope, b"authorization")):
            return (
                401,
                "token",
                "cannot answer: the token is missing or wrong",
                "send it as `Authorization: Bearer TOKEN`",
            )
        kind = (_only(scope, b"content-type") or "").partition(";")[0].strip().lower()
        if scope["method"] == "POST" and kind != "application/json" and _CHANGES.fullmatch(scope["raw_path"]):
            return (
                415,
                "content_type",
                "cannot use the request: unsupported content type, expected `application/json`",
                ("send `Content-Type: application/json`, and `{}` if there are no arguments"),
            )
        return None

    def _token_is_valid(self, host: str, scope: Scope) -> bool:
        name = _name_of(host)
        server = scope.get("server")
        called = str(server[0]).lower().removeprefix("::ffff:") if server else ""  # version 4 at a socket of version 6
        return bool(name) and name in (*self._hosts, called)

    def _host_is_allowed(self, given: str | None) -> bool:
        kind, _, token = (given or "").partition(" ")
        return kind.lower() == "bearer" and hmac.compare_digest(token.strip().encode("utf-8", "replace"), self._token)


async def error_response(send: Sender, status: int, code: str, message: str, hint: str | None = None) -> None:
    """An answer with an error in the form that all errors have."""
    body = json.dumps({"error": {"code": code, "message": message, "hint": hint}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if status == 408:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _is_open(scope: Scope) -> bool:
    return scope["raw_path"] in _OPEN


_OPEN = frozenset(map(str.encode, OPEN))


def _has(scope: Scope, name: bytes) -> bool:
    return any(key == name for key, _ in scope["headers"])


def _only(scope: Scope, name: bytes) -> str | None:
    """The value of a header that is there once; None if it is not, or twice."""
    values = [value for key, value in scope["headers"] if key == name]
    return values[0].decode("latin-1").strip() if len(values) == 1 else None


def _name_of(host: str) -> str:
    """`localhost:8080` -> `localhost`, `[::1]:8080` -> `::1`."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.rpartition(":")[0].lower() if ":" in host else host.lower().removesuffix(".")
