"""What a due slot waits for."""

from __future__ import annotations

from collections.abc import Mapping

from repeater.model.reasons import ReasonCode
from repeater.sentences.fields import Fields, Maker


def _shared_limit(fields: Fields) -> str:
    cause = fields.part("cause", ": {cause}")
    return "limit `{limit}` ({rate}, shared)".format_map(fields) + fields.part("until", " until {until}") + cause


def _server_refused(fields: Fields) -> str:
    text = "an HTTP {status} answer without a delay; blocked for {delay}".format_map(fields)
    return text + fields.part("until", ", until {until}")


def _server_push_back(fields: Fields) -> str:
    return (
        "`{source}`".format_map(fields)
        + fields.part("status", " of an HTTP {status} answer")
        + " asks for {asked}".format_map(fields)
        + fields.part("bound", ", `{bound}` makes it {delay}")
        + fields.part("until", ", until {until}")
    )


SENTENCES: Mapping[ReasonCode, Maker] = {
    "needs": "{needs}",
    "pool_full": "pool `{pool}` is full",
    "group_full": "max_parallel of `{group}` is full",
    "rate": lambda fields: "its rate {rate}".format_map(fields) + fields.part("until", " until {until}"),
    "limit": lambda fields: "limit `{limit}` ({rate})".format_map(fields) + fields.part("until", " until {until}"),
    "shared_limit": _shared_limit,
    "server_refused": _server_refused,
    "server_push_back": _server_push_back,
    "quota_unreachable": "cannot reach the rate-limit daemon at `{path}`: {error}",
}
