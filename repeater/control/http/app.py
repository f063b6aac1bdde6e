"""The HTTP API: the verbs of the socket as JSON under `/api`, and health and metrics beside it. The home of starlette.

An answer that lists things is written while they come, so that ten thousand jobs neither fill memory nor keep the loop
from starting others. What may be asked is in `control.http.routes`, who may ask in `control.http.auth`, what the verbs
do in `control.commands`. Built by `app`; nothing here decides anything about a job.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, unquote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route as Path

from repeater.control.commands import VERBS
from repeater.control.commands.status import health
from repeater.control.context import ControlContext
from repeater.control.http.auth import PLACE, App, AuthMiddleware, Receive, Scope, Sender, error_response
from repeater.control.http.openapi import openapi
from repeater.control.http.routes import MOST_TEXTS, NEVER_EMPTY, ROUTES, Route
from repeater.control.protocol import LONGEST_TEXT, Kind, Params, check_args
from repeater.errors import ApplyRefused, JobFileError, NotFound, RepeaterError, UsageError
from repeater.model.moment import parse_future, parse_past
from repeater.model.reasons import Reason
from repeater.model.reasons import reason as because
from repeater.model.time import rfc3339
from repeater.model.units import parse_duration
from repeater.wire.installed import extra_hint
from repeater.wire.json_lines import LONGEST, BadMessage, clip, decode

BODY_WITHIN = 10.0
"""Seconds for the body of a request to come."""
SIGN_EVERY = 15.0
"""Seconds after which a stream on which nothing happens shows that it is alive, and finds out whether its reader is."""
_BATCH = 64 * 1024

Scrape = Callable[[], Awaitable[bytes]]
NO_METRICS = "this rpr cannot serve metrics: prometheus-client is not installed"


def build(
    desk: ControlContext,
    *,
    token: str,
    hosts: Iterable[str],
    scrape: Scrape | None,
    warn: Callable[[Reason], None],
    fault: Callable[[Exception], None] | None = None,
) -> App:
    """The application, guarded. `scrape` gives the metrics; None: there are none. `fault` gets each unexpected
    exception of a request; without it `warn` gets a reason.
    """

    def warn_of_fault(error: Exception) -> None:
        warn(because("request_failed", error=f"{type(error).__name__}: {error}"))

    report = fault or warn_of_fault

    async def internal(_: Request, error: Exception) -> Response:
        report(error)
        return _error(500, "internal", f"internal error: {type(error).__name__}: {error}")

    endpoints = [Path(route.path, _Endpoint(route, desk, report), methods=[route.method]) for route in ROUTES]
    around = {
        "/livez": _livez,
        "/readyz": _readyz(desk),
        "/healthz": _healthz(desk),
        "/metrics": _metrics(scrape, warn),
        "/api/openapi.json": _described,
    }
    endpoints += [Path(path, endpoint, methods=["GET"]) for path, endpoint in around.items()]
    app = Starlette(routes=endpoints, exception_handlers={HTTPException: _http_error, Exception: internal})
    app.router.redirect_slashes = False
    return AuthMiddleware(app, token=token, hosts=hosts)


# --- around the verbs -----------------------------------------------------------------------------------------------


async def _livez(_: Request) -> Response:
    return PlainTextResponse("ok\n")


def _readyz(desk: ControlContext) -> Callable[[Request], Awaitable[Response]]:
    async def readyz(_: Request) -> Response:
        found = await health(desk, {}, _not_found)
        return PlainTextResponse("\n".join(found["problems"] or ["ok"]) + "\n", 200 if found["ready"] else 503)

    return readyz


def _healthz(desk: ControlContext) -> Callable[[Request], Awaitable[Response]]:
    async def healthz(_: Request) -> Response:
        found = await health(desk, {}, _not_found)
        return JSONResponse(dict(found), 200 if found["ok"] else 503)

    return healthz


def _metrics(scrape: Scrape | None, warn: Callable[[Reason], None]) -> Callable[[Request], Awaitable[Response]]:
    async def metrics(_: Request) -> Response:
        if scrape is None:
            return _error(501, "no_metrics", NO_METRICS, extra_hint("web"))
        try:
            return Response(await scrape(), media_type="text/plain; version=0.0.4; charset=utf-8")
        except Exception as error:  # noqa: BLE001 - a fault in a metric must not end the jobs
            warn(because("metrics_failed", error=f"{type(error).__name__}: {error}"))
            return _error(500, "internal", f"internal error: {type(error).__name__}: {error}")

    return metrics


async def _described(_: Request) -> Response:
    return JSONResponse(openapi())


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    words = {404: "cannot find this path", 405: "cannot use this method here"}
    response = _error(error.status_code, "http", words.get(error.status_code, error.detail))
    response.headers.update(error.headers or {})
    return response


def _error(status: int, code: str, message: str, hint: str | None = None) -> Response:
    return JSONResponse({"error": {"code": code, "message": message, "hint": hint}}, status)


async def _not_found(*_: Mapping[str, Any]) -> None:
    pass


# --- the verbs ------------------------------------------------------------------------------------------------------


class _Endpoint:
    """An ASGI application that answers one route."""

    def __init__(self, route: Route, desk: ControlContext, fault: Callable[[Exception], None]) -> None:
        self._route = route
        self._desk = desk
        self._fault = fault

    async def __call__(self, scope: Scope, receive: Receive, send: Sender) -> None:
        request = Request(scope, receive)
        try:
            args = await self._args(request)
        except TimeoutError:
            await error_response(send, 408, "slow", "cannot wait longer for the rest of the request")
            return
        except ClientDisconnect:
            return
        except RepeaterError as error:
            await error_response(send, *_encode_event(error))
            return
        has_end = not args.get("follow")
        if not has_end:
            try:
                scope[PLACE].become_stream()
            except BadMessage as busy:
                await error_response(send, 503, busy.code, busy.message, busy.hint)
                return
        page: _PagedResponse | _EventStream = (
            _PagedResponse(send, self._route.response_shape) if has_end else _EventStream(send)
        )
        work = asyncio.ensure_future(self._carry_out(args, page, send))
        gone = asyncio.ensure_future(_on_disconnect(receive))
        if has_end:
            self._desk.at_hand.add(work)
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._desk.at_hand.discard(work)
            work.cancel()
            gone.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)
        if not work.cancelled() and (fault := work.exception()) is not None:
            raise fault

    async def _carry_out(self, args: Mapping[str, Any], page: _PagedResponse | _EventStream, send: Sender) -> None:
        verb = VERBS[self._route.verb]
        try:
            async with page.alive():
                result = await verb.carry_out(self._desk, args, page.take)
            await page.end(result or {})
        except RepeaterError as error:
            refusal = _encode_event(error)
        except Exception as error:  # noqa: BLE001 - a fault in a verb must not end the jobs
            self._fault(error)
            refusal = 500, "internal", f"internal error: {type(error).__name__}: {error}", None
        else:
            return
        if page.begun:
            raise _CutShort  # the half that is out cannot be taken back: the connection ends without its end
        await error_response(send, *refusal)

    async def _args(self, request: Request) -> dict[str, Any]:
        route = self._route
        if route.method == "GET":
            given = query_args(route.verb, route.params, request.url.query)
        else:
            if request.url.query:
                raise BadMessage("args", f"cannot carry out `{route.verb}`: arguments belong in the JSON body")
            body = await asyncio.wait_for(_body(request), BODY_WITHIN)
            given = decode(body) if body.strip() else {}
        self._check_bounds(given)
        given = absolute_args(given, route, self._desk.now())
        checked = check_args(route.verb, route.params, given)
        if route.verb == "events" and "follow" not in given:
            checked["follow"] = True  # over HTTP this is a stream by default
        if route.verb == "events" and checked["follow"] and checked["tail"] is None:
            checked["tail"] = 0
        if route.targets_one_job:
            name = unquote(request.path_params["name"])
            self._check_name(name)
            checked |= {"job": name} if "job" in VERBS[route.verb].params else {"jobs": (name,)}
        if checked.get("at") is not None:
            checked["at"] = rfc3339(checked["at"])
        return {**checked, **route.fixed}

    def _check_bounds(self, given: Mapping[str, Any]) -> None:
        """Stricter than the socket: nothing stands for what was not given, and lists are short."""
        for name, value in given.items():
            words = None
            if value is None or value == "":
                words = "is empty"
            elif isinstance(value, list) and len(value) > MOST_TEXTS:
                words = f"has more than {MOST_TEXTS} entries"
            elif isinstance(value, list) and not value and name in NEVER_EMPTY:
                words = "is empty"
            if words is not None:
                raise BadMessage("args", f"cannot carry out `{self._route.verb}`: `{clip(name)}` {words}")

    def _check_name(self, name: str) -> None:
        """A path names one job, or a matrix with its cells. The argument `jobs` selects more jobs."""
        jobs = self._desk.engine.jobs
        if name in jobs:
            return
        is_pattern = "*" in name or "?" in name or "=" in name.partition("[")[0]
        if is_pattern or not name or len(name) > LONGEST_TEXT or "\0" in name:
            raise NotFound(f"cannot find job `{clip(name)}`", hint="patterns belong in `jobs`")
        if self._route.response_shape == "one" and len(cells := self._desk.jobs((name,))) > 1:
            raise NotFound(f"cannot find job `{clip(name)}`: it is a matrix of {len(cells)} cells")


class _CutShort(Exception):
    """Raised through the server, which drops the connection."""


async def _on_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LONGEST:
            raise BadMessage("too_long", f"cannot accept the request: it has more than {LONGEST} bytes")
    return bytes(body)


class _PagedResponse:
    """A JSON object, written as its items come. Nothing is sent before there is something to send."""

    def __init__(self, send: Sender, gives: str) -> None:
        self._send = send
        self._gives = gives
        self._first: Mapping[str, Any] | None = None
        self.begun = False

    def alive(self) -> _KeepAliveComment:
        return _KeepAliveComment()

    async def take(self, *items: Mapping[str, Any]) -> None:
        if self._gives != "list":
            self._first = items[0] if items else self._first
            return
        text = ""
        for item in items:
            text += ("," if self.begun or text else "") + _json(item)
            if len(text) > _BATCH:
                await self._write(text)
                text = ""
        if text:
            await self._write(text)

    async def end(self, result: Mapping[str, Any]) -> None:
        if self._gives == "list":
            rest = _json(result)[1:]
            await self._write(("]," if len(rest) > 1 else "]") + rest, more=False)
            return
        body = _json(self._first if self._gives == "one" and self._first is not None else result)
        await _start(self._send, "application/json")
        self.begun = True
        await self._send({"type": "http.response.body", "body": body.encode()})

    async def _write(self, text: str, *, more: bool = True) -> None:
        if not self.begun:
            self.begun = True
            await _start(self._send, "application/json")
            text = '{"items":[' + text
        await self._send({"type": "http.response.body", "body": text.encode(), "more_body": more})
        await asyncio.sleep(0)  # a long listing must not delay a job


class _EventStream:
    """Server-sent events, as the HTML standard defines them; `event` is the name of what happened, or `message`."""

    def __init__(self, send: Sender) -> None:
        self._send = send
        self._lock = asyncio.Lock()
        self.begun = False

    def alive(self) -> _KeepAlive:
        return _KeepAlive(self._write)

    async def take(self, *items: Mapping[str, Any]) -> None:
        text = ""
        for item in items:
            name = item.get("event")
            text += (f"event: {name}\n" if name else "") + f"data: {_json(item)}\n\n"
            if len(text) > _BATCH:
                await self._write(text)
                text = ""
        if text:
            await self._write(text)

    async def end(self, result: Mapping[str, Any]) -> None:  # noqa: ARG002
        await self._send({"type": "http.response.body", "body": b""})

    async def _write(self, text: str) -> None:
        async with self._lock:
            if not self.begun:
                self.begun = True
                await _start(self._send, "text/event-stream")
            await self._send({"type": "http.response.body", "body": text.encode(), "more_body": True})
        await asyncio.sleep(0)


class _KeepAliveComment:
    """Around the verb of a page: nothing."""

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *_: object) -> None:
        pass


class _KeepAlive:
    """Around the verb of a stream: a comment at once, so the client knows that it arrived, and then regularly."""

    def __init__(self, write: Callable[[str], Awaitable[None]]) -> None:
        self._write = write
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._show())

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _show(self) -> None:
        while True:
            await self._write(": \n\n")
            await asyncio.sleep(SIGN_EVERY)


async def _start(send: Sender, kind: str) -> None:
    headers = [(b"content-type", kind.encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})


def _encode_event(error: RepeaterError) -> tuple[int, str, str, str | None]:
    """Status, code, message and hint of what a verb or its arguments were refused with."""
    match error:
        case BadMessage(code="too_long"):
            status = 413
        case NotFound():
            status = 404
        case JobFileError():
            status = 422
        case UsageError():
            status = 400
        case ApplyRefused():
            status = 409
        case BadMessage():
            status = 400
        case _:
            status = 409
    code = error.code if isinstance(error, BadMessage) else "not_found" if status == 404 else "refused"
    return status, code, error.message[: LONGEST // 16], error.hint


# --- arguments of a query -------------------------------------------------------------------------------------------


def query_args(verb: str, params: Params, query: str) -> dict[str, Any]:
    """The arguments in a query string, as JSON would have them; `check_args` judges them. Raises BadMessage."""
    given: dict[str, Any] = {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=20_000)
    except ValueError:
        raise BadMessage("args", f"cannot carry out `{verb}`: its query cannot be read") from None
    for name, text in pairs:
        kind = params.get(name)
        if kind == "texts":
            given.setdefault(name, []).append(text)
        elif name in given:
            raise BadMessage("args", f"cannot carry out `{verb}`: duplicate key `{clip(name)}`")
        else:
            given[name] = text if kind is None else _value(kind, text)
    return given


_LONGEST_TIME = 60  # characters


def absolute_args(given: Mapping[str, Any], route: Route, now: datetime) -> dict[str, Any]:
    """The arguments with relative times and durations as the socket takes them. `check_args` refuses the others."""
    parse = parse_future if route.verb == "pause" else parse_past
    result = dict(given)
    for name, value in given.items():
        kind = route.params.get(name)
        if not isinstance(value, str) or len(value) > _LONGEST_TIME:
            continue
        with suppress(ValueError):
            if kind == "time":
                result[name] = rfc3339(parse(value, now))
            elif kind == "seconds":
                result[name] = parse_duration(value).total_seconds()
    return result


def _value(kind: Kind, text: str) -> Any:
    if kind == "flag":
        return {"true": True, "false": False}.get(text, text)
    if kind == "count":
        return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else text
    if kind == "seconds":
        return float(text) if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,9})?", text) else text
    return text


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
