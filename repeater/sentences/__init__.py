"""English sentences for the codes of `model.reasons`: made at the edge, for people, and never read back by a program.

One module per kind of sentence. Each has a table `SENTENCES` from codes to a template over the fields, or to a function
where fields may be left out. docs/adr/0021-reasons-are-codes.md says who may import this package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from repeater.model.reasons import Reason
from repeater.model.time import rfc3339
from repeater.sentences import done, explanations, pace, probes, runs, slots, spawn, states, waits, warnings
from repeater.sentences.fields import Fields, Maker


def sentence(reason: Reason, clock: Callable[[datetime], str | None] = rfc3339) -> str:
    """What a person reads. `clock` shows instants; the default is RFC 3339 in UTC."""
    make = MAKERS.get(reason.code)
    if make is None:  # the code of a newer version
        return str(reason.detail.get("text") or reason.code)
    fields = Fields(reason, clock, sentence)
    return make.format_map(fields) if isinstance(make, str) else make(fields)


def as_item(
    reason: Reason | None, name: str = "reason", clock: Callable[[datetime], str | None] = rfc3339
) -> dict[str, Any]:
    """The three keys of JSON documents: the sentence under `name`, `reason_code` and `detail`."""
    if reason is None:
        return {name: None, "reason_code": None, "detail": {}}
    return {name: sentence(reason, clock), "reason_code": reason.code, "detail": reason.as_json()}


MAKERS: Mapping[str, Maker] = {
    code: maker
    for module in (runs, slots, done, waits, states, pace, spawn, probes, warnings, explanations)
    for code, maker in module.SENTENCES.items()
}
"""The sentence of every code. Complete at import: when descriptors run out, nothing more can be imported."""
