"""The OpenAPI document of the HTTP API, made from the tables of routes and verbs.

The types beside the verbs give the shapes of replies. Descriptions are written here. Standard library only, because
`rpr schema --openapi` prints the document where no server can run.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType
from typing import Any, TypedDict, get_type_hints

from repeater import __version__
from repeater.control.commands import VERBS
from repeater.control.commands.history import OUTCOMES
from repeater.control.commands.status import HealthResult
from repeater.control.commands.supervisor import LEVELS
from repeater.control.http.json_schema import components, object_schema, schema_of
from repeater.control.http.routes import MOST_TEXTS, NEVER_EMPTY, ROUTES, STREAMING, Route
from repeater.control.protocol import LONGEST_TEXT, Kind

_SUMMARIES = {
    "status": "Show the state of each job.",
    "health": "Check the health of the supervisor.",
    "logs": "Show job output that is in memory.",
    "history": "Show the history of scheduled runs, newest first.",
    "events": "Stream events. With `follow=false`: show recent events.",
    "why": "Explain the current state of a job, or with `at` the result of a slot.",
    "trigger": "Run jobs once, immediately.",
    "pause": "Pause jobs: skip their slots. Current runs continue.",
    "resume": "Resume paused jobs.",
    "start": "Start stopped or disabled jobs.",
    "stop": "Stop jobs: end their current runs and start no new ones.",
    "restart": "Restart jobs: stop the current run and start a new one.",
    "reset": "Reset jobs: clear run counters, consecutive failures and the done state.",
    "apply": "Apply job files of the supervisor's machine.",
    "plan": "Show what `apply` would change.",
    "reload": "Reload the job files.",
    "down": "Shut down the supervisor.",
}
ARGUMENTS = {
    "jobs": "Jobs: a name, a matrix, a cell, a glob, or a label as `key=value`.",
    "job": "The name of a job.",
    "run": "Return only the run with this id.",
    "since": "Return only entries from this time on: a time, or an age such as `2h`.",
    "failed": "Only runs that failed.",
    "until": "Only entries before this time. For `pause`: its end, a time such as `07:00`.",
    "tail": "Return only the last N lines of each job, or the last N events.",
    "follow": "Follow new entries, or the output until the end of the runs, as a stream of server-sent events.",
    "limit": "Maximum number of slots (default 100).",
    "outcomes": "Return only slots with these outcomes.",
    "at": "Time of a slot.",
    "force": "Run the job even if it is paused, done or already running, and ignore its `needs`.",
    "for": "Duration of the pause: a number of seconds, or a text such as `1h30m`.",
    "reason": "Reason, shown to other users.",
    "wait": "Answer when no process is left (`stop`), the new runs started (`restart`), or the runs ended (`trigger`).",
    "files": "Absolute paths on the supervisor's machine.",
    "set": "Values of variables or other keys, as pairs of a key and a text.",
    "set_json": "Values of variables or other keys, as pairs of a key and a JSON value.",
    "only": "Apply only these jobs.",
    "allow_removals": "Also if more than half of the jobs would go.",
    "dry_run": "Report what would change and change nothing.",
    "level": "Shutdown mode: drain, stop or kill.",
}
_DURATION = {"pattern": "^[1-9][0-9]{0,2}(ms|[smhdw])$"}
_TIME_OF_DAY = {"pattern": "^([01][0-9]|2[0-3]):[0-5][0-9]$"}
_CONSTRAINTS: Mapping[str, Mapping[str, Any]] = {  # what the verbs themselves refuse beyond the kind
    "outcomes": {"items": {"type": "string", "enum": list(OUTCOMES)}},
    "level": {"enum": [level for level in LEVELS if level]},
}


_EVENT = {
    "type": "object",
    "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
    "required": ["data"],
}
"""An event of a stream: `data` is a JSON object."""


def openapi() -> dict[str, Any]:
    """The whole document, version 3.1."""
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    paths |= _AROUND
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "repeater",
            "version": __version__,
            "description": "Inspect and control a running supervisor. The verbs are those of `rpr`.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": _schemas(),
            "responses": {name: _refusal(words) for name, words in _REFUSALS.items()},
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    name = route.verb
    operation: dict[str, Any] = {
        "operationId": name + ("_of_job" if route.targets_one_job else ""),
        "summary": _SUMMARIES[name],
        "tags": ["look" if route.method == "GET" else "change"],
    }
    parameters = []
    if route.targets_one_job:
        words = "The name of a job, of a cell, or of a matrix (all its cells)."
        parameters.append(_parameter("path", "name", words, {"type": "string"}, required=True))
    if route.method == "GET":
        for key, kind in route.params.items():
            schema = _schema(key, kind)
            if key == "follow":
                schema = {**schema, "default": route.verb == "events"}
            parameters.append(_parameter("query", key, ARGUMENTS[key], schema, required=False))
    else:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _body(route)}},
        }
    if parameters:
        operation["parameters"] = parameters
    answers = {"application/json": {"schema": _answer(route)}}
    if route.verb in STREAMING:
        answers |= {"text/event-stream": {"schema": _EVENT}}
    operation["responses"] = {
        "200": {"description": "The result.", "content": answers},
        **{code: {"$ref": f"#/components/responses/{code}"} for code in _refusals(route)},
    }
    return operation


def _refusals(route: Route) -> list[str]:
    codes = ["400", "401", "403", "421", "503"]
    if route.targets_one_job or "jobs" in route.params or "run" in route.params or "only" in route.params:
        codes.append("404")
    if route.method == "POST":
        codes += ["408", "409", "413", "415"]
    if route.verb in ("apply", "plan", "reload"):
        codes.append("422")
    return sorted(codes)


def _body(route: Route) -> dict[str, Any]:
    properties = {key: {"description": ARGUMENTS[key], **_schema(key, kind)} for key, kind in route.params.items()}
    body: dict[str, Any] = {"type": "object", "additionalProperties": False, "properties": properties}
    if {"for", "until"} <= properties.keys():
        body["not"] = {"required": ["for", "until"]}
    needed = [key for key in NEVER_EMPTY if key in properties]
    if needed:
        body["required"] = needed
        for key in needed:
            properties[key] = {**properties[key], "minItems": 1}
    return body


def _schema(key: str, kind: Kind) -> dict[str, Any]:
    text = {"type": "string", "maxLength": LONGEST_TEXT, "pattern": "^[^\\u0000]*$"}
    shapes: dict[Kind, dict[str, Any]] = {
        "text": {**text, "minLength": 1},
        "texts": {"type": "array", "items": text, "maxItems": MOST_TEXTS},
        "pairs": {
            "type": "array",
            "maxItems": MOST_TEXTS,
            "items": {"type": "array", "items": text, "minItems": 2, "maxItems": 2},
        },
        "flag": {"type": "boolean"},
        "count": {"type": "integer", "minimum": 0, "maximum": 1_000_000},
        "seconds": {
            "anyOf": [
                {"type": "number", "exclusiveMinimum": 0, "maximum": 3_155_760_000},
                {"type": "string", **_DURATION},
            ]
        },
        "time": {"type": "string", "anyOf": [{"format": "date-time"}, _DURATION, _TIME_OF_DAY]},
    }
    return {"type": "string", **_CONSTRAINTS[key]} if key == "level" else {**shapes[kind], **_CONSTRAINTS.get(key, {})}


def _parameter(where: str, name: str, words: str, schema: Mapping[str, Any], *, required: bool) -> dict[str, Any]:
    return {"name": name, "in": where, "required": required, "description": words, "schema": dict(schema)}


def _answer(route: Route) -> dict[str, Any]:
    item = VERBS[route.verb].item
    if route.response_shape == "one":
        return schema_of(item)
    result = _result(route.verb)
    schema = object_schema(_Nothing if result is NoneType else result)
    if route.response_shape == "list":
        schema["required"] = ["items", *schema["required"]]
        schema["properties"] = {"items": {"type": "array", "items": schema_of(item)}, **schema["properties"]}
    return schema


def _result(verb: str) -> Any:
    """The type of the result of a verb."""
    return get_type_hints(VERBS[verb].run)["return"]


def _schemas() -> dict[str, Any]:
    items = {verb.item for verb in VERBS.values() if verb.item is not None}
    inner = [hint for verb in VERBS for hint in _hints(_result(verb))]
    found = components([*items, *inner, Error])
    found["Event"]["additionalProperties"] = True  # the other keys are those of the kind of event
    return found


def _hints(shape: Any) -> list[Any]:
    return [] if shape is NoneType else list(get_type_hints(shape, include_extras=True).values())


def _refusal(words: str) -> dict[str, Any]:
    return {
        "description": words,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }


class _Nothing(TypedDict):
    """The result of a verb that returns None."""


class ErrorBody(TypedDict):
    code: str
    message: str
    hint: str | None


class Error(TypedDict):
    """The body of a refusal."""

    error: ErrorBody


_REFUSALS = {
    "400": "An argument is not valid.",
    "401": "The token is missing or wrong.",
    "403": "The request comes from a web page of another origin.",
    "404": "The job or run does not exist.",
    "408": "The rest of the request did not arrive in time.",
    "409": "Conflict with the current state; nothing was changed.",
    "413": "The body is larger than 1 MiB.",
    "415": "The content type is not `application/json`.",
    "421": "The `Host` header is not an allowed name of this server.",
    "422": "The job files are not valid; `message` has all problems.",
    "503": "As many requests or streams are being answered as the server allows; `code` is `busy`. Try again later.",
}


def _field_schema(words: str, kind: str = "text/plain") -> dict[str, Any]:
    return {"description": words, "content": {kind: {"schema": {"type": "string"}}}}


def _get(name: str, words: str, responses: Mapping[str, Any], *, is_open: bool = False) -> dict[str, Any]:
    closed = {} if is_open else {code: {"$ref": f"#/components/responses/{code}"} for code in ("401", "503")}
    around = {code: {"$ref": f"#/components/responses/{code}"} for code in ("403", "421")}
    operation: dict[str, Any] = {"operationId": name, "summary": words, "tags": ["around"]}
    if is_open:
        operation["security"] = []
    return {"get": {**operation, "responses": {**closed, **around, **responses}}}


def _json_of(words: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": words, "content": {"application/json": {"schema": schema}}}


_AROUND = {
    "/livez": _get(
        "livez", "Check that the supervisor answers.", {"200": _field_schema("The supervisor answers.")}, is_open=True
    ),
    "/readyz": _get(
        "readyz",
        "Check readiness: one line per problem. Rejected job files do not affect readiness.",
        {"200": _field_schema("The supervisor answers."), "503": _field_schema("The supervisor is not ready.")},
        is_open=True,
    ),
    "/healthz": _get(
        "healthz",
        "Check health, as JSON. Rejected job files give status 503.",
        {
            "200": _json_of("The supervisor is healthy.", object_schema(HealthResult)),
            "503": _json_of(
                "It is not; or the server is busy, and the answer is an error with the code `busy`.",
                {"anyOf": [object_schema(HealthResult), {"$ref": "#/components/schemas/Error"}]},
            ),
        },
    ),
    "/metrics": _get(
        "metrics",
        "Metrics in the text format of Prometheus.",
        {"200": _field_schema("All metrics."), "501": _refusal("prometheus-client is not installed.")},
    ),
    "/api/openapi.json": _get("openapi", "This document.", {"200": _json_of("OpenAPI 3.1.", {"type": "object"})}),
}
