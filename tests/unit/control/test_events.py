"""`events` over the socket: every event, whatever its fields hold, is one item of JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from fractions import Fraction
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from repeater._lazy_dataclasses import fields, is_dataclass
from repeater.control.commands.events import as_item
from repeater.model import events
from repeater.model.events import Event, IntervalChanged
from repeater.model.reasons import Reason
from repeater.model.reasons import reason as because
from repeater.model.run import Run, SlotRecord, Verdict
from repeater.output.event_log import Entry
from repeater.output.terminal import json_line
from repeater.sentences import sentence
from repeater.wire.json_lines import decode, encode

KINDS = get_args(Event)
AT = datetime(2026, 3, 1, 4, 5, 6, tzinfo=UTC)
UNCHANGED = Reason("unchanged")
REASONS = st.builds(because, st.just("launch_failed"), error=st.text()) | st.just(UNCHANGED)
INSTANTS = st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=-5))]))


def values(kind: type) -> st.SearchStrategy:
    return st.from_type(kind)


st.register_type_strategy(datetime, INSTANTS)
st.register_type_strategy(Reason, REASONS)
st.register_type_strategy(float, st.floats(allow_nan=False, allow_infinity=False))  # all are seconds


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_every_event_with_every_field_is_json(kind: type, data: st.DataObject) -> None:
    event = data.draw(st.builds(kind, **{field.name: values(_types(kind)[field.name]) for field in fields(kind)}))
    item = as_item(Entry(AT, event))
    assert decode(encode({"item": item}).rstrip(b"\n")) == {"item": item}
    assert json.loads(json_line(item))["event"] == item["event"]
    shown = set(item)
    for field in fields(kind):
        value = getattr(event, field.name)
        match value:
            case Run():
                assert {"job", "run", "attempt", "nominal"} <= shown
            case SlotRecord():
                assert set(value.as_json(sentence)) <= shown
            case Verdict():
                assert {"success", "reason", "reason_code", "detail"} <= shown
            case _:
                assert field.name in shown


def _types(kind: type) -> dict[str, object]:
    from typing import get_type_hints

    return get_type_hints(kind)


def test_the_union_holds_every_event_of_the_module() -> None:
    classes = {one for one in vars(events).values() if isinstance(one, type) and is_dataclass(one)}
    assert {one for one in classes if one.__module__ == events.__name__} == set(KINDS)


def test_a_length_of_time_is_written_as_a_duration() -> None:
    item = as_item(Entry(AT, IntervalChanged("a", timedelta(seconds=90), UNCHANGED)))
    assert item["pace"] == "1m30s"


@pytest.mark.parametrize("value", [Fraction(1, 3), object(), {1}])
def test_a_value_that_json_lacks_is_text(value: object) -> None:
    item = as_item(Entry(AT, IntervalChanged("a", value, UNCHANGED)))  # type: ignore[arg-type]
    assert item["pace"] == str(value)
