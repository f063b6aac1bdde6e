"""The HTTP API alone, called as ASGI: who may pass every route, and what every route answers."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from repeater.control.commands import VERBS
from repeater.control.http import app as module
from repeater.control.http.app import absolute_args, build, query_args
from repeater.control.http.auth import HEADERS, AuthMiddleware
from repeater.control.http.openapi import ARGUMENTS, openapi
from repeater.control.http.routes import AROUND, OPEN, ROUTES, Route
from repeater.control.request_limits import MOST
from repeater.model.events import Warned
from repeater.model.reasons import Reason
from repeater.model.reasons import reason as because
from repeater.wire.json_lines import LONGEST, BadMessage
from tests.fakes.text import text_of
from tests.unit.control.test_server import Bench, live

TOKEN = "0123456789abcdef"
PLACES = [(route.method, route.path) for route in ROUTES] + [("GET", path) for path in AROUND]
CLOSED = [(method, path) for method, path in PLACES if path not in OPEN]
ARGS: Mapping[str, Any] = {"jobs": ["tick"], "files": ["x.toml"], "level": "stop"}
"""What POST needs at least."""


class Reply:
    """What an application sent, all of it."""

    def __init__(self, sent: list[Any]) -> None:
        self.status: int = sent[0]["status"]
        self.headers = {key.decode().lower(): value.decode() for key, value in sent[0]["headers"]}
        self.body = b"".join(message.get("body", b"") for message in sent[1:])
        self.is_whole = not sent[-1].get("more_body", False)

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json()["error"]["code"])


class Web:
    """An application over the context of a bench. By default its requests are valid."""

    def __init__(self, bench: Bench, **more: Any) -> None:
        self.bench = bench
        self.warned: list[str] = []

        async def scrape() -> bytes:
            return b"x 1\n"

        self.app = build(
            bench.desk,
            token=TOKEN,
            hosts=["localhost"],
            scrape=more.get("scrape", scrape),
            warn=lambda reason: self.warned.append(str(text_of(reason))),
        )

    async def __call__(
        self, method: str, path: str, body: Any = None, *, leaves: bool = False, **headers: str | None
    ) -> Reply:
        sent: list[Any] = []
        await self.run(method, path, body, sent.append, leaves=leaves, **headers)
        return Reply(sent)

    async def run(
        self, method: str, path: str, body: Any, take: Any, *, leaves: bool = False, **headers: str | None
    ) -> None:
        given = {"host": "localhost:8080", "authorization": f"Bearer {TOKEN}", **headers}
        if method == "POST":
            given = {"content_type": "application/json", **given}
        data = body if isinstance(body, bytes) else json.dumps(body or {}).encode() if method == "POST" else b""
        raw, _, query = path.partition("?")
        waiting = [{"type": "http.request", "body": data, "more_body": False}]

        async def receive() -> Any:
            if waiting:
                return waiting.pop()
            if not leaves:
                await asyncio.Event().wait()
            await asyncio.sleep(0.02)
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            take(message)

        scope = {
            "type": "http",
            "method": method,
            "path": raw,
            "raw_path": raw.encode(),
            "root_path": "",
            "scheme": "http",
            "query_string": query.encode(),
            "server": ("10.0.0.7", 8080),
            "client": ("10.0.0.9", 5000),
            "headers": [(key.replace("_", "-").encode(), value.encode()) for key, value in given.items() if value],
        }
        await asyncio.wait_for(self.app(scope, receive, send), 20)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
        await asyncio.sleep(0.001)


def at(path: str) -> str:
    return path.replace("{name}", "tick") + ("?follow=false" if path.endswith("events") else "")


def wanted(method: str, path: str) -> dict[str, Any]:
    """A body with the least that this route needs."""
    if method == "GET":
        return {}
    route = next(route for route in ROUTES if (route.method, route.path) == (method, path))
    return {name: value for name, value in ARGS.items() if name in route.params}


# --- the doors ------------------------------------------------------------------------------------------------------


def test_every_route_of_the_application_is_in_the_tables(tmp_path: Path) -> None:
    @live
    async def check(bench: Bench) -> None:
        app = Web(bench).app
        assert isinstance(app, AuthMiddleware)
        found = {(method, route.path) for route in app._app.routes for method in route.methods - {"HEAD"}}
        assert found == set(PLACES)

    check(tmp_path)


@pytest.mark.parametrize(("method", "path"), PLACES)
def test_every_route_is_closed_to_callers_without_the_right(method: str, path: str, tmp_path: Path) -> None:
    @live
    async def check(bench: Bench) -> None:
        web = Web(bench)
        for host in (
            "evil.example",
            "localhost.evil.example:80",
            "127.0.0.1.evil.example",
            "10.0.0.8",
            "",
            "[::1",
            None,
        ):
            assert (await web(method, at(path), host=host)).status == 421, host
        for origin in ("http://evil.example", "null", "http://localhost:8081", "https://localhost", "localhost:8080"):
            refused = await web(method, at(path), origin=origin)
            assert (refused.status, refused.code) == (403, "origin"), origin
        if path not in OPEN:
            for token in (
                None,
                "Bearer",
                "Bearer x",
                f"Bearer {TOKEN}x",
                f"Bearer {TOKEN[:-1]}",
                f"Basic {TOKEN}",
                TOKEN,
            ):
                refused = await web(method, at(path), authorization=token)
                assert (refused.status, refused.headers["www-authenticate"]) == (401, "Bearer"), token
        if method == "POST":
            for kind in (None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "text/json"):
                assert (await web(method, at(path), wanted(method, path), content_type=kind)).status == 415, kind
        assert bench.left == []
        assert all(job.paused is None and not job.open for job in bench.stage.engine.jobs.values())

    check(tmp_path)


@pytest.mark.parametrize(("method", "path"), PLACES)
def test_every_route_admits_authorized_clients_without_cors_or_cookies(method: str, path: str, tmp_path: Path) -> None:
    @live
    async def check(bench: Bench) -> None:
        web = Web(bench)
        for more in ({}, {"host": "10.0.0.7:8080"}, {"origin": "http://localhost:8080"}, {"host": "LOCALHOST"}):
            reply = await web(method, at(path), wanted(method, path), **more)
            refusals = {409, 422} if path in ("/api/apply", "/api/plan", "/api/reload") else set()
            assert reply.status in {200, *refusals}, reply.body
            assert reply.is_whole
            for key, value in HEADERS:
                assert reply.headers[key.decode()] == value.decode()
            assert not [name for name in reply.headers if name.startswith("access-control") or name == "set-cookie"]
            assert "date" in reply.headers
        assert web.warned == []

    check(tmp_path)


@pytest.mark.parametrize("path", OPEN)
def test_probes_need_no_token(path: str, tmp_path: Path) -> None:
    @live
    async def check(bench: Bench) -> None:
        assert (await Web(bench)("GET", path, authorization=None)).body == b"ok\n"

    check(tmp_path)


def test_an_unknown_route_is_guarded_too(tmp_path: Path) -> None:
    @live
    async def check(bench: Bench) -> None:
        web = Web(bench)
        for path in ("/", "/api", "/api/nothing", "/livez/", "/docs", "/readyz%2f", "/../livez", "//livez"):
            assert (await web("GET", path, authorization=None)).status == 401
            assert (await web("GET", path, host="evil.example")).status == 421
            assert (await web("GET", path)).code == "http"
        for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"):
            reply = await web(method, "/api/jobs")
            assert (reply.status, set(reply.headers["allow"].split(", "))) == (405, {"GET", "HEAD"})
        assert (await web("GET", "/api/down")).status == 405
        assert bench.left == []

    check(tmp_path)


def test_a_header_given_twice_counts_as_none(tmp_path: Path) -> None:
    @live
    async def check(bench: Bench) -> None:
        web = Web(bench)
        for name, right, status in (
            (b"host", b"localhost", 421),
            (b"authorization", f"Bearer {TOKEN}".encode(), 401),
            (b"origin", b"http://localhost", 403),
        ):
            headers = {b"host": b"localhost", b"authorization": f"Bearer {TOKEN}".encode()}
            headers.pop(name, None)
            scope = {
                "type": "http", "method": "GET", "path": "/api/jobs", "raw_path": b"/api/jobs", "query_string": b"",
                "headers": [*headers.items(), (name, right), (name, right)], "server": None,
            }  # fmt: skip
            sent: list[Any] = []

            async def send(message: Any, sent: list[Any] = sent) -> None:
                sent.append(message)

            await web.app(scope, lambda: asyncio.sleep(0), send)
            assert sent[0]["status"] == status

    check(tmp_path)


def test_a_guard_without_a_token_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="needs a token"):
        AuthMiddleware(lambda *_: asyncio.sleep(0), token="", hosts=())


# --- what is asked --------------------------------------------------------------------------------------------------


@given(st.text(max_size=200))
def test_any_query_is_arguments_or_one_refusal(query: str) -> None:
    for route in ROUTES:
        with contextlib.suppress(BadMessage):
            assert set(query_args(route.verb, route.params, query)) <= {name for name, _ in parse_qsl(query, True)}


WRONG = {
    "texts": [3, [1], ["x"] * 101, "x"],
    "text": [3, ["x"], ""],
    "pairs": [["x"], [["a"]]],
    "flag": ["true", 1],
    "count": [-1, "3", 1.5],
    "seconds": [0, "1 s", -1],
    "time": ["soon", 3],
}


@pytest.mark.parametrize("route", [route for route in ROUTES if route.method == "POST"], ids=lambda route: route.path)
def test_a_wrong_argument_is_refused_on_every_route_and_nothing_happens(route: Route, tmp_path: Path) -> None:
    @live
    async def check(bench: Bench) -> None:
        web = Web(bench)
        right = wanted("POST", route.path)
        bodies: list[Any] = [
            {**right, "nonsense": 1},
            [1],
            b"{",
            b'{"a": NaN}',
            b'{"x": 1, "x": 1}',
            b"\xff",
            b"[" * 9999,
        ]
        for name, kind in route.params.items():
            bodies += [{**right, name: value} for value in (*WRONG[kind], None)]
        for body in bodies:
            reply = await web("POST", at(route.path), body)
            assert reply.status == 400, (body, reply.body)
        assert (await web("POST", at(route.path) + "?jobs=tick", right)).status == 400
        assert (await web("POST", at(route.path), b" " * (LONGEST + 1))).status == 413
        assert bench.left == []
        assert all(not job.open for job in bench.stage.engine.jobs.values())

    check(tmp_path)


@pytest.mark.parametrize("route", [route for route in ROUTES if route.method == "GET"], ids=lambda route: route.path)
def test_a_wrong_query_is_refused_on_every_route(route: Route, tmp_path: Path) -> None:
    @live
    async def check(bench: Bench) -> None:
        web = Web(bench)
        wrong = {"text": "", "texts": "", "flag": "1", "count": "x", "seconds": "1 s", "time": "soon"}
        queries = [
            "nonsense=1",
            "%FF=1",
            *(f"{name}={wrong[kind]}" for name, kind in route.params.items() if kind != "texts"),
        ]
        queries += [f"{name}=1&{name}=1" for name, kind in route.params.items() if kind != "texts"]
        for query in queries:
            assert (await web("GET", route.path.replace("{name}", "tick") + "?" + query)).status == 400, query

    check(tmp_path)


@pytest.mark.parametrize(
    "name", ["nope", "*", "t%3Fck", "a=b", "%00", "tick%2F", "..", "%2e%2e", "x" * 5000, "%FF", "tick%20"]
)
def test_a_path_names_one_job_and_nothing_like_it(name: str, tmp_path: Path) -> None:
    @live
    async def check(bench: Bench) -> None:
        web = Web(bench)
        for route in ROUTES:
            if route.targets_one_job:
                path = route.path.replace("{name}", name) + ("?follow=false" if route.verb == "events" else "")
                reply = await web(route.method, path, wanted(route.method, route.path))
                assert reply.status == 404, reply.body
                assert reply.code == "not_found"

    check(tmp_path)


# --- what is answered -----------------------------------------------------------------------------------------------


def test_jobs_are_listed_whole_and_one_by_one(tmp_path: Path) -> None:
    @live
    async def check(bench: Bench) -> None:
        web = Web(bench)
        found = (await web("GET", "/api/jobs")).json()
        assert [item["job"] for item in found["items"]] == ["tick", "tock"]
        assert (found["project"], found["jobs"]) == ("shop", 2)
        assert (await web("GET", "/api/jobs/tock")).json() == found["items"][1]
        assert len((await web("GET", "/api/jobs?jobs=tick&jobs=t*ck")).json()["items"]) == 2

    check(tmp_path)


def test_an_order_is_carried_out(tmp_path: Path) -> None:
    @live
    async def check(bench: Bench) -> None:
        web = Web(bench)
        reply = await web("POST", "/api/jobs/tick/pause", {"reason": "audit", "for": 60})
        assert reply.json()["items"][0]["paused"] is True
        assert (await web("GET", "/api/jobs/tick")).json()["state"] == "paused"
        assert (await web("POST", "/api/resume", {"jobs": ["*"]})).json()["items"][0]["was"] is True
        assert (await web("POST", "/api/down", {"level": "stop"})).json() == {"pid": 7, "waiting": []}
        assert bench.left == ["stop"]

    check(tmp_path)


def test_rejected_files_are_a_problem_but_the_supervisor_stays_ready(tmp_path: Path) -> None:
    @live
    async def check(bench: Bench) -> None:
        web = Web(bench)
        bench.desk.rejected = lambda: because("files_rejected", error="jobs.toml:1:1: bad")
        reply = await web("GET", "/readyz", authorization=None)
        assert (reply.status, b"jobs.toml:1:1: bad" in reply.body) == (200, True)
        reply = await web("GET", "/healthz")
        assert (reply.status, reply.json()["ok"], reply.json()["ready"]) == (503, False, True)
        bench.desk.troubles = lambda: [Reason("history_failing")]
        assert (await web("GET", "/readyz", authorization=None)).status == 503

    check(tmp_path)


def test_readyz_gives_the_reason_as_text(tmp_path: Path) -> None:
    @live
    async def check(bench: Bench) -> None:
        web = Web(bench)
        bench.desk.troubles = lambda: [Reason("history_failing"), Reason("supervisor_stopping")]
        reply = await web("GET", "/readyz", authorization=None)
        assert (reply.status, reply.body) == (
            503,
            (
                b"the history cannot be written, so jobs that must be recorded first do not start\n"
                b"the supervisor is shutting down\n"
            ),
        )
        assert (await web("GET", "/livez", authorization=None)).status == 200
        reply = await web("GET", "/healthz")
        assert (reply.status, reply.json()["ok"]) == (503, False)

    check(tmp_path)


def test_without_prometheus_client_metrics_name_the_missing_package(tmp_path: Path) -> None:
    @live
    async def check(bench: Bench) -> None:
        reply = await Web(bench, scrape=None)("GET", "/metrics")
        assert reply.status == 501
        assert "pip install 'repeater-rpr[web]'" in reply.json()["error"]["hint"]

    check(tmp_path)


def test_a_fault_inside_is_one_answer_and_one_warning(tmp_path: Path) -> None:
    @live
    async def check(bench: Bench) -> None:
        web = Web(bench)
        bench.desk.troubles = lambda: 1 // 0  # type: ignore[return-value]
        assert (await web("GET", "/api/health")).status == 500
        assert web.warned == ["internal error in request: ZeroDivisionError: integer division or modulo by zero"]

    check(tmp_path)


def test_a_stream_begins_at_once_shows_events_and_ends_with_its_reader(tmp_path: Path) -> None:
    @live
    async def check(bench: Bench) -> None:
        web = Web(bench)
        sent: list[Any] = []
        task = asyncio.ensure_future(web.run("GET", "/api/events", None, sent.append))
        await until(lambda: len(sent) >= 2)
        assert dict(sent[0]["headers"])[b"content-type"] == b"text/event-stream"
        assert sent[1]["body"] == b": \n\n"
        bench.journal(Warned("tick", because("text", text="hello")))
        await until(lambda: len(sent) >= 3)
        event, data, *_ = sent[2]["body"].decode().split("\n")
        assert event == "event: warned"
        assert json.loads(data.removeprefix("data: "))["reason"] == "hello"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await web("GET", "/api/events", leaves=True)
        assert bench.journal._listeners == []

    check(tmp_path)


def test_a_silent_stream_sends_keep_alives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @live
    async def check(bench: Bench) -> None:
        monkeypatch.setattr(module, "SIGN_EVERY", 0.005)
        sent: list[Any] = []
        task = asyncio.ensure_future(Web(bench).run("GET", "/api/logs?follow=true", None, sent.append))
        await until(lambda: len(sent) >= 6)
        assert {message["body"] for message in sent[1:]} == {b": \n\n"}
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    check(tmp_path)


def test_a_verb_that_waits_ends_with_its_reader(tmp_path: Path) -> None:
    @live
    async def check(bench: Bench) -> None:
        web = Web(bench)
        await web("POST", "/api/jobs/tick/trigger")
        bench.stage.clock.settle()
        sent: list[Any] = []
        await web.run("POST", "/api/jobs/tick/stop", {"wait": True}, sent.append, leaves=True)
        assert bench.journal._listeners == []

    check(tmp_path)


# --- the description ------------------------------------------------------------------------------------------------


def test_every_verb_and_every_argument_is_in_the_document() -> None:
    document = openapi()
    assert {route.verb for route in ROUTES} == set(VERBS)
    assert set(document["paths"]) == {path for _, path in PLACES}
    for verb, known in VERBS.items():
        assert set(known.params) <= set(ARGUMENTS), verb
    for route in ROUTES:
        operation = document["paths"][route.path][route.method.lower()]
        if route.method == "GET":
            named = {one["name"] for one in operation.get("parameters", []) if one["in"] == "query"}
        else:
            named = set(operation["requestBody"]["content"]["application/json"]["schema"]["properties"])
        assert named == set(route.params)
    ids = [operation["operationId"] for item in document["paths"].values() for operation in item.values()]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("path", [at(route.path) for route in ROUTES] + ["/healthz", "/metrics"])
def test_the_document_has_the_answer_of_a_busy_server(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MOST, "request", 0)
    template, method = next(((route.path, route.method) for route in ROUTES if at(route.path) == path), (path, "GET"))

    @live
    async def check(bench: Bench) -> None:
        reply = await Web(bench)(method, path, wanted(method, template) if method == "POST" else None)
        assert (reply.status, reply.code) == (503, "busy")
        document = openapi()
        answer = document["paths"][template][method.lower()]["responses"]["503"]
        if "$ref" in answer:
            answer = document["components"]["responses"][answer["$ref"].rpartition("/")[2]]
        schema = {**answer["content"]["application/json"]["schema"], "components": document["components"]}
        jsonschema.Draft202012Validator(schema).validate(reply.json())

    check(tmp_path)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_answers_match_the_api_document(route: Route, tmp_path: Path) -> None:
    @live
    async def check(bench: Bench) -> None:
        web = Web(bench)
        bench.journal(Warned("tick", because("text", text="hello")))
        reply = await web(route.method, at(route.path), wanted(route.method, route.path))
        document = openapi()
        answers = document["paths"][route.path][route.method.lower()]["responses"]
        answer = answers[str(reply.status)]
        if "$ref" in answer:
            answer = document["components"]["responses"][answer["$ref"].rpartition("/")[2]]
        schema = {**answer["content"]["application/json"]["schema"], "components": document["components"]}
        jsonschema.Draft202012Validator(schema).validate(reply.json())

    check(tmp_path)


@pytest.mark.parametrize(
    ("path", "args", "expected"),
    [
        ("/api/history", {"since": "2h"}, {"since": "2026-11-24T08:30:00Z"}),
        ("/api/pause", {"until": "2h"}, {"until": "2026-11-24T12:30:00Z"}),
        ("/api/pause", {"for": "1h30m"}, {"for": 5400.0}),
        ("/api/pause", {"for": 90, "reason": "2h"}, {"for": 90, "reason": "2h"}),
    ],
)
def test_relative_times_and_durations_mean_the_same_as_in_commands(
    path: str, args: dict[str, Any], expected: dict[str, Any]
) -> None:
    route = next(route for route in ROUTES if route.path == path)
    assert absolute_args(args, route, datetime(2026, 11, 24, 10, 30, tzinfo=UTC)) == expected
