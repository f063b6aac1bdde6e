"""The table of the HTTP API, made from the table of verbs: a verb that is added there has its routes here.

    GET  /api/jobs                 status            GET  /api/jobs/NAME            status of one job
    GET  /api/VERB                 what reads        GET  /api/jobs/NAME/VERB       the same about one job
    POST /api/VERB                 what changes      POST /api/jobs/NAME/VERB       the same about one job

Arguments are those of the verb: in the query for GET, in a JSON object for POST. Pure data; `control.http.app` answers
the routes, `control.http.openapi` describes them, and a test wants every verb and every argument to be in both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from repeater._lazy_dataclasses import dataclass, field
from repeater.control.commands import VERBS
from repeater.control.protocol import Kind, Params

READ_ONLY = frozenset({"status", "health", "logs", "history", "events", "why"})
"""Verbs that change nothing: GET. All others are POST, which is the safe guess for one that is new."""
STREAMING = frozenset({"logs", "events", "trigger"})
"""Verbs that send new entries with `follow`, as a stream of server-sent events."""
WITHOUT_ITEMS = frozenset({"health", "why", "down"})
"""Verbs whose answer is one object and no list."""


MOST_TEXTS = 100
"""Of one argument that is a list; over the socket it may be longer."""
NEVER_EMPTY = ("jobs", "files")
"""Arguments of what changes something that have to name at least one."""
_KINDS: Mapping[str, Kind] = {"at": "time"}  # a program has an instant, not a time of day in a time zone


@dataclass(frozen=True, slots=True)
class Route:
    """One route. `fixed` are arguments that the route itself stands for. `path` may hold `{name}`, one job."""

    method: Literal["GET", "POST"]
    path: str
    verb: str
    fixed: Mapping[str, Any] = field(default_factory=dict)

    @property
    def params(self) -> Params:
        """The arguments that may be given."""
        bound = {"job", "jobs"} if self.targets_one_job else set()
        known = VERBS[self.verb].params
        return {name: _KINDS.get(name, kind) for name, kind in known.items() if name not in {*self.fixed, *bound}}

    @property
    def targets_one_job(self) -> bool:
        return "{name}" in self.path

    @property
    def response_shape(self) -> Literal["one", "object", "list"]:
        """`one`: the only item; `object`: what it came to; `list`: that, and the items as `items`."""
        if self.verb in WITHOUT_ITEMS:
            return "object"
        return "one" if self.targets_one_job and self.verb == "status" else "list"


def _routes() -> Iterator[Route]:
    for verb, known in VERBS.items():
        method: Literal["GET", "POST"] = "GET" if verb in READ_ONLY else "POST"
        if "job" not in known.params:  # `why` is about one job and nothing else
            yield Route(method, "/api/jobs" if verb == "status" else f"/api/{verb}", verb)
        if "job" in known.params or "jobs" in known.params:
            yield Route(method, "/api/jobs/{name}" + ("" if verb == "status" else f"/{verb}"), verb)


ROUTES: tuple[Route, ...] = tuple(_routes())
OPEN = ("/livez", "/readyz")
"""Routes that need no token."""
AROUND = (*OPEN, "/healthz", "/metrics", "/api/openapi.json")
"""The routes that are not verbs; all of them GET."""
