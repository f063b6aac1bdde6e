"""The schema: the quick check never admits what jsonschema refuses; annotations, defaults and pages agree with it."""

import copy
from fractions import Fraction
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repeater import _lazy_dataclasses as dataclasses
from repeater.jobfile import validate
from repeater.jobfile.fast_schema import compile_fast_check
from repeater.jobfile.reference_docs import reference
from repeater.jobfile.schema import schema, schema_text
from repeater.jobfile.validate import check_job
from repeater.model.dump import dump_job, dump_schedule
from repeater.model.spec import (
    Adaptive,
    Backoff,
    CatchUp,
    Cron,
    Every,
    HttpAware,
    JobSpec,
    LoadAware,
    Need,
    OnChange,
    Output,
    Probe,
    ProcessSpec,
    Retry,
    Success,
    Termination,
)  # fmt: skip
from repeater.model.units import format_duration, format_size
from tests.unit.jobfile.loading import job, jobs
from tests.unit.jobfile.test_corpus import VALID, walk
from tests.unit.jobfile.test_parse import VALUES

DEFINITIONS = schema()["definitions"]
JOB = jsonschema.Draft7Validator({"$ref": "#/definitions/job", "definitions": DEFINITIONS})


TABLES = [job.table for path in VALID for job in walk(path).expansion.expand()]
SPOILERS = VALUES | st.sampled_from([True, False, -1, 0, 1, 0.5, 10**9, "", "x", "1s", [], ["x"] * 200, [True], {}])


@settings(max_examples=400)
@given(data=st.data(), table=st.sampled_from(TABLES))
def test_the_quick_check_accepts_no_invalid_job_with_one_changed_value(data, table):
    """Most of the tables stay valid, or are nearly so: this is where the quick check could go wrong."""
    table = copy.deepcopy(table)
    node, keys = table, list(table)
    while True:
        key = data.draw(st.sampled_from(keys))
        below = node[key]
        keys = list(below) if isinstance(below, dict) else list(range(len(below))) if isinstance(below, list) else []
        if not keys or data.draw(st.booleans()):
            break
        node = below
    if data.draw(st.booleans()):
        node[key] = data.draw(SPOILERS)
    elif isinstance(node, dict):
        node[data.draw(st.sampled_from(sorted(DEFINITIONS["keys"]["properties"])))] = node.pop(key)
    else:
        node.extend(node * data.draw(st.integers(1, 99)))
    if validate._sure("#/definitions/job")(table):
        assert list(JOB.iter_errors(table)) == []


@pytest.mark.parametrize("keys", [{}, {"nice": 5}, {"env": {"A": "b"}}, {"labels": {}}], ids=str)
def test_the_quick_check_reaches_the_slow_one(keys):
    """Else the law above would hold because nothing is ever surely valid."""
    assert validate._sure("#/definitions/job")({"command": "x", **keys})


SAMPLES = [
    None, True, False, 0, 1, 2, 3, -1, 1.0, 1.5, 2.5, "", "a", "ab", "b", [], [1], [1, 2], [1, 2, 3], ["a", 1], [True], {},
    {"a": 1}, {"a": True}, {"a": "x"}, {"b": 1}, {"a": 1, "b": 2}, {"a": 1, "b": 2, "c": 3}, {"ab": 1},
]  # fmt: skip
RULES = [
    {"type": "integer"}, {"type": "number"}, {"type": "string"}, {"type": "boolean"}, {"type": "array"},
    {"type": "object"}, {"type": ["string", "integer"]}, {"enum": [1, 2]}, {"enum": [0, "a"]}, {"enum": ["a", "ab"]},
    {"pattern": "^a"}, {"minLength": 1}, {"minLength": 2}, {"minItems": 1}, {"minItems": 2}, {"maxItems": 1},
    {"maxItems": 2}, {"minimum": 1}, {"maximum": 1}, {"minimum": 1, "maximum": 2}, {"required": ["a"]},
    {"required": ["a", "b"]}, {"properties": {"a": {"type": "integer"}}},
    {"properties": {"a": {"type": "integer"}}, "additionalProperties": False},
    {"properties": {"a": {"type": "integer"}}, "additionalProperties": {"enum": [2]}},
    {"additionalProperties": {"type": "integer"}}, {"additionalProperties": False}, {"items": {"type": "integer"}},
    {"propertyNames": {"pattern": "^a"}}, {"not": {"enum": ["a", 2]}}, {"not": {"type": "string"}},
    {"oneOf": [{"required": ["a"]}, {"required": ["b"]}]}, {"oneOf": [{"required": ["a", "b"]}, {"required": ["c"]}]},
    {"oneOf": [{"type": "string"}, {"required": ["b"]}]},
    {"anyOf": [{"type": "string"}, {"required": ["b"]}]}, {"allOf": [{"minimum": 1}, {"maximum": 2}]},
    {"if": {"required": ["a"]}, "then": {"required": ["b"]}},
    {"if": {"type": "object", "required": ["a"]}, "then": {"required": ["b"]}},
    {"if": {"not": {"required": ["a"]}}, "then": {"required": ["b"]}},
    {"if": {"type": "object", "not": {"required": ["a"]}}, "then": {"required": ["b"]}},
    {"if": {"required": ["a"]}, "then": {"required": ["b"]}, "else": {"required": ["c"]}}, {"const": 1},
    {"uniqueItems": True}, {"maxLength": 1}, {"$ref": "#/definitions/one"},
]  # fmt: skip


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_each_keyword_admits_surely_only_what_jsonschema_admits(rule):
    one = {"type": "integer"}
    sure = compile_fast_check(rule, lambda _: compile_fast_check(one, lambda _: pytest.fail("asked for another rule")))
    checker = jsonschema.Draft7Validator({**rule, "definitions": {"one": one}})
    assert [value for value in SAMPLES if sure(value) and not checker.is_valid(value)] == []


@pytest.mark.parametrize(
    ("rule", "yes", "no"),
    [
        ({"maxItems": 2}, [1, 2], [1, 2, 3]), ({"minItems": 2}, [1, 2], [1]), ({"enum": [1, 2]}, 1, True),
        ({"enum": [0, 2]}, 0, False), ({"minimum": 1}, 1, 0), ({"maximum": 1}, 1, 2), ({"minLength": 2}, "ab", "a"),
        ({"pattern": "b$"}, "ab", "ba"), ({"required": ["a"]}, {"a": 1}, {"b": 1}), ({"type": "integer"}, 1, True),
        ({"type": "boolean"}, True, 1), ({"not": {"enum": ["a"]}}, "b", "a"), ({"items": {"minimum": 1}}, [1], [1, 0]),
        ({"propertyNames": {"minLength": 2}}, {"ab": 1}, {"ab": 1, "c": 1}),
        ({"oneOf": [{"required": ["a"]}, {"required": ["b"]}]}, {"a": 1}, {"a": 1, "b": 1}),
        ({"anyOf": [{"minimum": 5}, {"maximum": 1}]}, 5, 3), ({"allOf": [{"minimum": 1}, {"maximum": 2}]}, 2, 3),
        ({"additionalProperties": {"minimum": 1}}, {"a": 1}, {"a": 1, "b": 0}),
        ({"properties": {"a": {"minimum": 1}}}, {"a": 1, "b": 0}, {"a": 0}),
        ({"if": {"required": ["a"]}, "then": {"required": ["b"]}}, {"a": 1, "b": 1}, {"a": 1}),
        ({"if": {"not": {"required": ["a"]}}, "then": {"required": ["b"]}}, {"a": 1}, {"c": 1}),
    ],
    ids=str,
)  # fmt: skip
def test_each_keyword_accepts_values_up_to_its_bound_only(rule, yes, no):
    sure = compile_fast_check(rule, lambda _: pytest.fail("there is no reference"))
    assert (sure(yes), sure(no)) == (True, False)
    assert [jsonschema.Draft7Validator(rule).is_valid(value) for value in (yes, no)] == [True, False]


@pytest.mark.parametrize("path", VALID, ids=lambda path: path.name)
def test_the_quick_check_admits_every_valid_job(path):
    """Else jsonschema would be asked, which is slow where it matters: on files without problems."""
    expansion = walk(path).expansion
    assert all(validate._sure("#/definitions/job")(job.table) for job in expansion.expand())


def _keys(node, path=""):
    """Every key that the schema describes, with its node, references resolved."""
    for name, one in node.get("properties", {}).items():
        if "description" in one or "$ref" in one:
            yield f"{path}{name}", _annotated(one)
        yield from _keys(one, f"{path}{name}.")
    for inner in ("additionalProperties", "items"):
        if isinstance(node.get(inner), dict):
            yield from _keys(node[inner], f"{path}*.")


def _annotated(node):
    if "$ref" not in node:
        return node
    return {**_annotated(DEFINITIONS[node["$ref"].rpartition("/")[2]]), **node}


ALL = [*_keys(schema())] + [
    found for name, one in DEFINITIONS.items() if name != "job" for found in _keys(one, f"{name}: ")
]


def test_every_key_has_a_title_a_description_and_an_example():
    assert len(ALL) > 120
    for key, node in ALL:
        for annotation in ("title", "description", "examples"):
            assert node.get(annotation), f"{key} has no {annotation}"
        assert node["description"].endswith((".", ")")), key


def test_every_default_and_example_is_admitted_by_its_own_key():
    for key, node in ALL:
        checker = jsonschema.Draft7Validator({**node, "definitions": DEFINITIONS})
        for value in [*node["examples"], *([node["default"]] if "default" in node else [])]:
            assert list(checker.iter_errors(value)) == [], f"{key}: {value}"


def test_the_defaults_of_the_schema_are_those_of_the_specs():
    plain, probe, need, retry = JobSpec("a", ProcessSpec("x")), Probe(), Need("a", "started"), Retry()

    def told(value):
        if dataclasses.is_dataclass(value):
            return dump_schedule(value)
        if isinstance(value, Fraction):
            return f"{float(value * 100):g}%"
        if hasattr(value, "total_seconds"):
            return format_duration(value)
        return list(value) if isinstance(value, tuple) else value

    expected = {
        **{name: getattr(plain, name) for name in ("description", "enabled", "schedule", "delivery", "restart")},
        **{name: getattr(ProcessSpec("x"), name) for name in ("shell", "env_mode", "stdin", "nice")},
        **{name: getattr(Termination(), name) for name in ("stop_signal", "stop_timeout", "drain_timeout")},
        "timeout": "never", "overlap": plain.overlap.kind, "catch_up": CatchUp().kind, "catch_up_window": CatchUp().window,
        "catch_up_max": CatchUp().most, "executor": "local",
    }  # fmt: skip
    keys = {key: _annotated(node) for key, node in DEFINITIONS["keys"]["properties"].items()}
    assert {key: node["default"] for key, node in keys.items() if "default" in node} == {
        k: told(v) for k, v in expected.items()
    }

    def same(name, value, skip=(), **other):
        nodes = {key: _annotated(node) for key, node in DEFINITIONS[name]["properties"].items()}
        found = {key: node["default"] for key, node in nodes.items() if "default" in node and key not in skip}
        assert found == {key: told(other.get(key, getattr(value, key, None))) for key in found}

    same("probe", probe)
    same("need", need, **{"while": need.hold})
    same("schedule_watch", OnChange(()))
    from datetime import timedelta

    same("schedule_every", Every(timedelta(1)), jitter_mode="stable")
    same("schedule_cron", Cron(""), jitter_mode="stable")
    same("schedule_backoff", Backoff())
    same("adaptive", Adaptive())
    same("load", LoadAware())
    same("http_aware", HttpAware())
    nested = DEFINITIONS["keys"]["properties"]
    sized = {"max_size": format_size(Output().max_size), "capture": format_size(Output().capture)}
    for name, value in (
        ("success", Success()),
        ("output", Output()),
        ("retry", retry.backoff),
        ("slowdown", Backoff()),
    ):
        for key, node in nested[name]["properties"].items():
            one = _annotated(node)
            if "default" in one:
                wanted = {"backoff": Backoff().kind, "attempts": retry.attempts, **sized}.get(
                    key, getattr(value, key, None)
                )
                assert one["default"] == told(wanted), f"{name}.{key}"


def test_a_job_that_gives_every_default_is_the_plain_job():
    keys = {key: _annotated(node) for key, node in DEFINITIONS["keys"]["properties"].items()}
    import json

    given = {key: node["default"] for key, node in keys.items() if "default" in node and key != "restart"}
    table = {"command": "true", **given}
    assert list(check_job(table)) == []
    spec = jobs(json.dumps({"jobs": {"a": table}}), name="f.json")["a"]
    assert spec == job("")
    assert dump_job(spec) == {"command": "true", "cwd": "/p"}


def test_the_reference_page_matches_the_schema():
    page = Path(__file__).parents[3] / "docs/reference/job-file.md"
    assert page.read_text() == reference(), "run `rpr schema --format markdown > docs/reference/job-file.md`"


def test_the_schema_is_found_in_a_checkout():
    assert '"definitions"' in schema_text()


@pytest.mark.parametrize("key", ["ready", "live", "schedule"])
def test_a_key_that_is_null_is_one_error(key):
    table = {"command": "true", "schedule": "always", key: None}
    (fault,) = [fault for fault in check_job(table) if fault.path == (key,)]
    assert fault.message.startswith("found nothing, expected a ")
