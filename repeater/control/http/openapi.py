"""The OpenAPI document of the HTTP API, made from the tables of routes and verbs, so that it cannot say something else.

What is written by hand are words, and the shapes of what is answered; tests hold them against what is really answered.
Standard library only: `rpr schema --openapi` prints it where no server can run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from repeater import __version__
from repeater.control.commands.history import OUTCOMES
from repeater.control.commands.supervisor import LEVELS
from repeater.control.http.routes import MOST_TEXTS, NEVER_EMPTY, ROUTES, STREAMING, Route
from repeater.control.protocol import LONGEST_TEXT, Kind
from repeater.model.reasons import FIELDS
from repeater.model.run import SlotState, Trigger

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
    "since": "Return only entries from this time on.",
    "failed": "Only runs that failed.",
    "until": "Return only entries before this time.",
    "tail": "Return only the last N lines of each job, or the last N events.",
    "follow": "Follow new entries, as a stream of server-sent events.",
    "limit": "Maximum number of slots (default 100).",
    "outcomes": "Return only slots with these outcomes.",
    "at": "Time of a slot.",
    "force": "Run the job even if it is paused, done or already running, and ignore its `needs`.",
    "for": "Duration of the pause in seconds.",
    "reason": "Reason, shown to other users.",
    "wait": "Answer when no process of the jobs is left.",
    "files": "Absolute paths on the supervisor's machine.",
    "set": "Values of variables or other keys, as pairs of a key and a text.",
    "set_json": "Values of variables or other keys, as pairs of a key and a JSON value.",
    "only": "Apply only these jobs.",
    "allow_removals": "Also if more than half of the jobs would go.",
    "dry_run": "Report what would change and change nothing.",
    "level": "Shutdown mode: drain, stop or kill.",
}
_CONSTRAINTS: Mapping[str, Mapping[str, Any]] = {  # what the verbs themselves refuse beyond the kind
    "outcomes": {"items": {"type": "string", "enum": list(OUTCOMES)}},
    "level": {"enum": [level for level in LEVELS if level]},
}


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
            "schemas": _SCHEMAS,
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
        answers |= {"text/event-stream": {"schema": {"type": "string"}}}
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
        "seconds": {"type": "number", "exclusiveMinimum": 0, "maximum": 3_155_760_000},
        "time": {"type": "string", "format": "date-time"},
    }
    return {"type": "string", **_CONSTRAINTS[key]} if key == "level" else {**shapes[kind], **_CONSTRAINTS.get(key, {})}


def _parameter(where: str, name: str, words: str, schema: Mapping[str, Any], *, required: bool) -> dict[str, Any]:
    return {"name": name, "in": where, "required": required, "description": words, "schema": dict(schema)}


def _answer(route: Route) -> dict[str, Any]:
    if route.response_shape == "one":
        return {"$ref": "#/components/schemas/Job"}
    shape = _RESULTS[route.verb]
    if route.response_shape == "object":
        return _object(shape)
    return _object(
        {"items": {"type": "array", "items": {"$ref": f"#/components/schemas/{_ITEMS[route.verb]}"}}, **shape}
    )


def _refusal(words: str) -> dict[str, Any]:
    return {
        "description": words,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }


# --- shapes ---------------------------------------------------------------------------------------------------------


def _object(properties: Mapping[str, Any], *, more: bool = False) -> dict[str, Any]:
    return {
        "type": "object",
        "required": list(properties),
        "additionalProperties": more,
        "properties": dict(properties),
    }


_TEXT = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 0}
_WHOLE = {"type": "integer"}
_FLAG = {"type": "boolean"}
_SECONDS = {"type": "number", "minimum": 0}
_TIME = {"type": "string", "format": "date-time"}


def _or_none(schema: Mapping[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        return {"anyOf": [schema, {"type": "null"}]}
    return {**schema, "type": [schema["type"], "null"]}


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
_DETAIL = {"type": "object", "description": "The fields of the reason; docs/reference/reasons.md names them."}
_CODED = {"reason_code": {"type": ["string", "null"], "enum": [*FIELDS, None]}, "detail": _DETAIL}
_ORDERED = {"job": _TEXT, "state": _TEXT, "why": _or_none(_TEXT), **_CODED, "next": _or_none(_TIME)}
_ROW = {
    "job": _TEXT,
    "nominal": _TIME,
    "due": _TIME,
    "started": _or_none(_TIME),
    "ended": _or_none(_TIME),
    "state": {"type": "string", "enum": list(get_args(SlotState))},
    "reason": _or_none(_TEXT),
    **_CODED,
    "run": _or_none(_TEXT),
    "attempts": _COUNT,
    "exit": _or_none(_WHOLE),
}
_CHANGED = {
    "job": _TEXT,
    "class": _TEXT,
    "from": _or_none(_TEXT),
    "changes": {"type": "array", "items": _object({"key": _TEXT, "old": {}, "new": {}})},
    "schedule": {},
}
_SCHEMAS: dict[str, Any] = {
    "Error": _object({"error": _object({"code": _TEXT, "message": _TEXT, "hint": _or_none(_TEXT)})}),
    "Job": _object(
        {
            "job": _TEXT,
            "state": _TEXT,
            "why": _or_none(_TEXT),
            **_CODED,
            "waited": _or_none(_COUNT),
            "next": _or_none(_TIME),
            "last": _or_none({"$ref": "#/components/schemas/Last"}),
            "running": {"type": "array", "items": {"$ref": "#/components/schemas/Running"}},
            "runs": _COUNT,
            "successes": _COUNT,
            "failures": _COUNT,
            "planned": _COUNT,
            "skipped": _COUNT,
            "interval": _or_none(_SECONDS),
            "average_interval": _or_none(_SECONDS),
            "consecutive_successes": _COUNT,
            "consecutive_failures": _COUNT,
            "last_success": _or_none(_TIME),
            "pending": _COUNT,
            "ready": _or_none(_FLAG),
            "paused": _or_none({"$ref": "#/components/schemas/Paused"}),
            "service": _FLAG,
            "labels": {"type": "object", "additionalProperties": _TEXT},
            "description": _TEXT,
            "faults": {"type": "array", "items": {"$ref": "#/components/schemas/Fault"}},
        }
    ),
    "Last": _object(
        {
            "outcome": _TEXT,
            "reason": _or_none(_TEXT),
            **_CODED,
            "ended": _or_none(_TIME),
            "run": _or_none(_TEXT),
            "exit": _or_none(_WHOLE),
            "output": {"type": "array", "items": _TEXT},
        }
    ),
    "Running": _object(
        {
            "run": _TEXT,
            "pid": _or_none(_WHOLE),
            "attempt": _COUNT,
            "nominal": _TIME,
            "started": _or_none(_TIME),
            "seconds": _or_none({"type": "number"}),
            "trigger": {"type": "string", "enum": list(get_args(Trigger))},
        }
    ),
    "Paused": _object({"text": _or_none(_TEXT), "until": _or_none(_TIME)}),
    "Ordered": _object(_ORDERED),
    "PauseBegan": _object({"job": _TEXT, "paused": _FLAG, "until": _or_none(_TIME)}),
    "PauseEnded": _object({"job": _TEXT, "was": _FLAG, "next": _or_none(_TIME)}),
    "Triggered": _object(
        {
            "job": _TEXT,
            "result": {"type": "string", "enum": ["started", "blocked", "queued", "skipped"]},
            "reason": _or_none(_TEXT),
            **_CODED,
            "run": _or_none(_TEXT),
        }
    ),
    "Slot": _object(
        {
            **_ROW,
            "outcome": {"type": "string", "enum": list(OUTCOMES)},
            "trigger": {"type": "string", "enum": list(get_args(Trigger))},
            "generation": _COUNT,
            "command": _or_none(_TEXT),
            "memory": _or_none(_COUNT),
            "cpu": _or_none(_SECONDS),
        }
    ),
    "Fault": _object(
        {
            "owner": _TEXT,
            "job": _or_none(_TEXT),
            "name": _TEXT,
            "error": _TEXT,
            "count": _COUNT,
            "first": _TIME,
            "last": _TIME,
            "reason": _TEXT,
            **_CODED,
        }
    ),
    "Reason": _object({"reason": _TEXT, **_CODED}),
    "Event": _object({"time": _TIME, "event": _TEXT}, more=True),
    "Output": {
        **_object(
            {
                "time": _TIME,
                "job": _TEXT,
                "run": _TEXT,
                "stream": {"type": "string", "enum": ["stdout", "stderr", "rpr"]},
            }
        ),
        "additionalProperties": False,
        "properties": {
            "time": _TIME,
            "job": _TEXT,
            "run": _TEXT,
            "stream": {"type": "string", "enum": ["stdout", "stderr", "rpr"]},
            "text": _TEXT,
            "base64": {"type": "string", "contentEncoding": "base64"},
        },
    },
    "Changed": _object(_CHANGED),
    "Planned": _object(
        {
            **_CHANGED,
            "next": _object({"old": _or_none(_TIME), "new": _or_none(_TIME)}),
            "runs": _COUNT,
            "successes": _COUNT,
            "failures": _COUNT,
            "done": _or_none(_TEXT),
            **_CODED,
            "returns": _FLAG,
            "enabled": _FLAG,
            "like": _or_none(_TEXT),
        }
    ),
    "SharedChange": _object({"name": _TEXT, "old": {}, "new": {}}),
}
_ITEMS = {
    "status": "Job",
    "logs": "Output",
    "history": "Slot",
    "events": "Event",
    "trigger": "Triggered",
    "pause": "PauseBegan",
    "resume": "PauseEnded",
    "start": "Ordered",
    "stop": "Ordered",
    "restart": "Ordered",
    "reset": "Ordered",
    "apply": "Changed",
    "plan": "Planned",
    "reload": "Changed",
}
_FAULTS: dict[str, Any] = {"type": "array", "items": {"$ref": "#/components/schemas/Fault"}}
_REASONS: dict[str, Any] = {"type": "array", "items": {"$ref": "#/components/schemas/Reason"}}
_SHARED = {"type": "array", "items": {"$ref": "#/components/schemas/SharedChange"}}
_CHANGE = {"generation": _COUNT, "changed": _COUNT, "unchanged": _COUNT, "pools": _SHARED, "limits": _SHARED}
_RESULTS: dict[str, dict[str, Any]] = {
    "status": {
        "project": _TEXT,
        "pid": _COUNT,
        "since": _TIME,
        "uptime": _SECONDS,
        "now": _TIME,
        "generation": _COUNT,
        "jobs": _COUNT,
        "state_dir": _TEXT,
        "files": {"type": "array", "items": _TEXT},
        "problems": {"type": "array", "items": _TEXT},
        "problem_reasons": _REASONS,
        "faults": _FAULTS,
        "rejected": _or_none(_TEXT),
        "rejected_reason": _or_none({"$ref": "#/components/schemas/Reason"}),
    },
    "health": {
        "ok": _FLAG,
        "ready": _FLAG,
        "problems": {"type": "array", "items": _TEXT},
        "problem_reasons": _REASONS,
        "faults": _FAULTS,
        "pid": _COUNT,
        "generation": _COUNT,
    },
    "logs": {"pieces": _COUNT, "reason": _or_none(_TEXT), **_CODED},
    "history": {"rows": _COUNT},
    "events": {"events": _COUNT},
    "why": {
        "job": _TEXT,
        "at": _or_none(_TIME),
        "answer": _TEXT,
        **_CODED,
        "facts": {"type": "array", "items": _TEXT},
        "fact_reasons": _REASONS,
        "slots": {"type": "array", "items": {"$ref": "#/components/schemas/Slot"}},
        "output": {"type": "array", "items": _TEXT},
    },
    "trigger": {"skipped": _COUNT},
    "pause": {},
    "resume": {},
    "start": {},
    "stop": {},
    "restart": {},
    "reset": {},
    "apply": _CHANGE,
    "plan": {**_CHANGE, "refused": _or_none(_object({"message": _TEXT, "hint": _or_none(_TEXT)}))},
    "reload": _CHANGE,
    "down": {"pid": _COUNT, "waiting": {"type": "array", "items": _TEXT}},
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
            "200": _json_of("The supervisor is healthy.", _object(_RESULTS["health"])),
            "503": _json_of(
                "It is not; or the server is busy, and the answer is an error with the code `busy`.",
                {"anyOf": [_object(_RESULTS["health"]), {"$ref": "#/components/schemas/Error"}]},
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
