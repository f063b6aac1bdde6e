"""English sentences for the codes of `model.reasons`. They are for people; no program parses them.

One module per kind of sentence. Each has a table `SENTENCES` from codes to a template over the fields, or to a function
if fields are optional. docs/adr/0021-reasons-are-codes.md explains which packages may import this one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TypedDict

from repeater.model.json_types import Code, Detail
from repeater.model.reasons import Reason
from repeater.model.time import rfc3339
from repeater.sentences import done, explanations, pace, probes, runs, slots, spawn, states, waits, warnings
from repeater.sentences.fields import Fields, Maker


def sentence(reason: Reason, clock: Callable[[datetime], str | None] = rfc3339) -> str:
    """The sentence of a reason. `clock` formats instants; the default is RFC 3339 in UTC."""
    make = MAKERS.get(reason.code)
    if make is None:  # a code of a newer version
        return str(reason.detail.get("text") or reason.code)
    fields = Fields(reason, clock, sentence)
    return make.format_map(fields) if isinstance(make, str) else make(fields)


class Coded(TypedDict):
    """A reason for programs."""

    reason_code: Code | None
    detail: Detail


class MaybeReason(TypedDict):
    """A reason that can be missing, as a sentence and for programs."""

    reason: str | None
    reason_code: Code | None
    detail: Detail


class ReasonItem(TypedDict):
    """A reason, as a sentence and for programs."""

    reason: str
    reason_code: Code | None
    detail: Detail


def coded(reason: Reason | None) -> Coded:
    """The code and the fields of a reason."""
    if reason is None:
        return {"reason_code": None, "detail": {}}
    return {"reason_code": reason.code, "detail": reason.as_json()}


def text_of(reason: Reason | None) -> str | None:
    """The sentence of a reason that can be missing."""
    return None if reason is None else sentence(reason)


def as_item(reason: Reason | None) -> MaybeReason:
    """The three keys of a reason in JSON documents."""
    return {"reason": text_of(reason), **coded(reason)}


def reason_item(reason: Reason, clock: Callable[[datetime], str | None] = rfc3339) -> ReasonItem:
    """The same of a reason that is not missing."""
    return {"reason": sentence(reason, clock), **coded(reason)}


MAKERS: Mapping[str, Maker] = {
    code: maker
    for module in (runs, slots, done, waits, states, pace, spawn, probes, warnings, explanations)
    for code, maker in module.SENTENCES.items()
}
"""The sentences of all codes. Complete at import, because a process without free descriptors cannot import modules."""
