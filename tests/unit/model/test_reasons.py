"""Codes and fields of reasons."""

from __future__ import annotations

import ast
import inspect
import json
from datetime import UTC, datetime, timedelta

import repeater.model.reasons as reasons
from repeater.model.reasons import FIELDS, Reason, fields_of, reason, reason_of

KINDS = {
    "name", "text", "path", "errno", "count", "number", "flag", "instant", "duration", "names", "needs",
    "reason", "reasons",
}  # fmt: skip


def test_the_type_and_the_table_name_the_same_codes() -> None:
    tree = ast.parse(inspect.getsource(reasons))
    literal = next(
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "ReasonCode"
    )
    named = [one.value for one in ast.walk(literal) if isinstance(one, ast.Constant)]
    assert named == list(FIELDS)


def test_every_field_has_a_known_kind() -> None:
    kinds = {kind.rstrip("?") for code in FIELDS for kind in fields_of(code).values()}
    assert kinds <= KINDS


def test_a_reason_survives_a_round_trip_through_json() -> None:
    found = reason(
        "held_for", cause=reason("shared_limit", limit="db", rate="1/s", until=datetime(2026, 1, 1, tzinfo=UTC)),
        seconds=3,
    )  # fmt: skip
    assert reason_of(json.loads(json.dumps(found.kept()))) == found


def test_json_has_instants_as_rfc_3339_and_durations_as_seconds() -> None:
    cause = reason("rate", rate="1/s", until=datetime(2026, 1, 1, tzinfo=UTC))
    assert reason("run_lost", cause=cause).as_json() == {
        "cause": {"reason_code": "rate", "detail": {"rate": "1/s", "until": "2026-01-01T00:00:00Z"}}
    }
    assert reason("timeout", after=timedelta(seconds=2)).as_json() == {"after": 2.0}


def test_fields_without_a_value_are_omitted() -> None:
    assert reason("paused", text="") == Reason("paused")
    assert reason("exit", exit=0) == Reason("exit", {"exit": 0})


def test_a_text_of_version_0_1_becomes_a_legacy_reason() -> None:
    assert reason_of("10 runs") == Reason("legacy", {"text": "10 runs"})
    assert reason_of(None) is None
