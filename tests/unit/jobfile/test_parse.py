"""Bytes to documents: what is read, where it stands, and that nothing but a JobFileError ever comes out."""

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from repeater.errors import JobFileError
from repeater.jobfile.document import InputLimits
from repeater.jobfile.parse import read_document
from repeater.jobfile.write import to_yaml
from tests.unit.jobfile.loading import road

TOML = '''\
# comment
title = "x"

[jobs.a]
command = ["x",
  "y"]  # two
env = { A = "1", "b c".d = 2 }
text = """
[not.a.header]
"""
[[list]]
k = 1
[[list]]
k = 2
[list.sub]
z = 'lit'
'''
YAML = "title: x\njobs:\n  a:\n    command: [x,\n      y]\n    env: {A: '1'}\n"
JSON = '{"title": "x",\n "jobs": {"a": {\n   "command": ["x",\n "y"]}}}'


def read(text, name="f.toml", caps=None):
    return read_document(name, text if isinstance(text, bytes) else text.encode(), caps or InputLimits())


@pytest.mark.parametrize(
    ("path", "place"),
    [
        (("title",), (2, 1)), (("jobs", "a"), (4, 1)), (("jobs", "a", "command"), (5, 1)), (("jobs", "a", "command", 0), (5, 12)),
        (("jobs", "a", "command", 1), (6, 3)), (("jobs", "a", "env", "A"), (7, 9)), (("jobs", "a", "env", "b c", "d"), (7, 18)),
        (("jobs", "a", "text"), (8, 1)), (("list", 0, "k"), (12, 1)), (("list", 1, "k"), (14, 1)), (("list", 1, "sub", "z"), (16, 1)),
        (("jobs", "a", "nothing", "here"), (4, 1)), (("nowhere",), (1, 1)),
    ],
)  # fmt: skip
def test_toml_keys_have_places(path, place):
    assert read(TOML).position(path) == place


@pytest.mark.parametrize(
    ("path", "place"),
    [
        (("title",), (1, 1)),
        (("jobs", "a"), (3, 3)),
        (("jobs", "a", "command", 1), (5, 7)),
        (("jobs", "a", "env", "A"), (6, 11)),
    ],
)
def test_yaml_keys_have_places(path, place):
    assert read(YAML, "f.yaml").position(path) == place


@pytest.mark.parametrize(
    ("path", "place"), [(("title",), (1, 2)), (("jobs", "a"), (2, 11)), (("jobs", "a", "command", 1), (4, 2))]
)
def test_json_keys_have_places(path, place):
    assert read(JSON, "f.json").position(path) == place
    assert read(JSON.replace("\n ", "\n\t"), "f.json").position(path) == place


TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=4), TREES, min_size=1, max_size=3), st.booleans(), st.sampled_from([None, 1]))
@settings(max_examples=200, deadline=None)
def test_every_key_and_item_of_json_has_its_place(tree, is_ascii, indent):
    text = json.dumps(tree, ensure_ascii=is_ascii, indent=indent, separators=(" ,\t", "\n: "))
    document = read(text, "f.json")
    lines = text.split("\n")

    def check(path, value):
        for key, below in value.items() if isinstance(value, dict) else enumerate(value):
            line, column = document.position((*path, key))
            start = json.dumps(key, ensure_ascii=is_ascii) if isinstance(value, dict) else None
            found = lines[line - 1][column - 1 :]
            if start is None:
                start = json.dumps(below, ensure_ascii=is_ascii)[:1]
            assert found.startswith(start), ((*path, key), found)
            if isinstance(below, dict | list):
                check((*path, key), below)

    check((), tree)


def test_columns_count_characters_not_bytes():
    assert read('a = { "größe 😀" = 1, b = 2 }').position(("a", "b")) == (1, 22)
    assert read('a: {"größe 😀": 1, b: 2}', "f.yaml").position(("a", "b")) == (1, 19)


def test_crlf_and_a_byte_order_mark_move_no_place():
    assert read(b"\xef\xbb\xbf" + TOML.replace("\n", "\r\n").encode()).position(("jobs", "a", "command", 1)) == (6, 3)


@pytest.mark.parametrize(
    ("text", "value"),
    [("on", "on"), ("no", "no"), ("yes", "yes"), ("22:00:00", "22:00:00"), ("2026-01-01", "2026-01-01"), ("1_000", "1_000"),
     ("0o17", 15), ("0x1F", 31), ("017", 17), ("1e3", 1000.0), ("+12", 12), (".5", 0.5), ("~", None), ("null", None), ("", None),
     ("true", True), ("True", True), ("tRue", "tRue"), ("'true'", "true"), ("!!str 12", "12"), ("!!float 1", 1.0), ("=", "="), ("0b1", "0b1")],
)  # fmt: skip
def test_yaml_is_read_as_yaml_1_2_core(text, value):
    found = read(f"k: {text}\n", "f.yaml").data["k"]
    assert found == value
    assert isinstance(found, type(value))


def test_toml_dates_become_text():
    data = read("a = 2027-01-01T00:00:00Z\nb = 2027-01-01\nc = [07:32:00]\n").data
    assert data == {"a": "2027-01-01T00:00:00Z", "b": "2027-01-01", "c": ["07:32:00"]}


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("f.yaml", "[" * 60, "f.yaml:1:51: not YAML: more than 50 levels of nesting"),
        ("f.json", "[" * 200_000, "f.json:1:51: not JSON: more than 50 levels of nesting"),
        ("f.toml", "a = " + "[" * 200_000, "f.toml:1:55: not TOML: more than 50 levels of nesting"),
        ("f.toml", "a." * 60 + "a = 1", "f.toml:1:1: a.a.a.a: more than 50 levels of nesting"),
        ("f.json", '{"a":' * 60 + "1" + "}" * 60, "f.json:1:247: a.a.a.a: more than 50 levels of nesting"),
        ("f.yaml", "a: " + "9" * 5000, "f.yaml:1:4: not YAML: a number of more than 300 digits"),
        ("f.toml", b"a = 1\n" * 2, "f.toml:2:1: not TOML: the key `a` stands here twice"),
    ],
)
def test_deep_and_huge_values_are_refused_in_one_line(name, text, told):
    with pytest.raises(JobFileError) as caught:
        read(text, name)
    assert str(caught.value) == told


def test_a_flood_of_brackets_is_too_deep_wherever_the_parser_notices():
    with pytest.raises(JobFileError, match=r"^f\.yaml:1:\d+: not YAML: more than 50 levels of nesting$"):
        read("[" * 200_000, "f.yaml")


def test_written_yaml_is_read_as_the_same_however_deep_or_far_from_ascii():
    data = {"a": [{"b c": ["\U00010000", None, True, 1.5, {}], "no": {"x": [[], "\x1b", "on"]}}], "e": {}}
    assert read(to_yaml(data), "f.yaml").data == data


def test_standard_input_is_known_by_its_looks():
    assert read('{"a": 1}', "standard input").data == {"a": 1}
    assert read("# c\na = 1\n", "standard input").data == {"a": 1}
    assert read("[jobs.a]\n", "standard input").data == {"jobs": {"a": {}}}
    assert read("# c\na: 1\n", "standard input").data == {"a": 1}


SYNTAX = st.text(
    st.sampled_from("[]{}=,.:'\"#-&*!|>%@`\\\n\t \r0123456789abcjobsnd_+~?<\x00\x07\ufeffé\u2028"), max_size=60
)
PIECES = st.lists(
    st.sampled_from(
        ["[jobs.a]\n", "jobs:\n", "  a:\n", "command", " = ", ": ", '"x"', "{{ vars.x }}", "{{", "}}", "[", "]", "{", "}", "\n", "    ",
         "schedule", '"every 5s"', "needs", '["a"]', "matrix", "extends", "with", "vars", "defaults", "templates", "retry", "1", "true", "- ", "&a ", "*a"]
    ), max_size=25,
).map("".join)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(st.binary(max_size=60), SYNTAX.map(str.encode), PIECES.map(str.encode)),
    st.sampled_from(["toml", "yaml", "json"]),
)
@example(b"\xff\xfe", "toml")
@example(b"a = 1" + b"0" * 5000, "toml")
@example(b'{"a": ' + b"1" * 5000 + b"}", "json")
def test_any_bytes_give_specs_or_a_job_file_error(content, form):
    try:
        read_document(f"f.{form}", content, InputLimits())
        road(content.decode("utf-8", "replace"), name=f"f.{form}")
    except JobFileError as error:
        told = error.problems
        assert told and "\n" not in "".join(map(str, told))  # noqa: PT018 - either outcome is right


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 300), st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(
        ["", "x", "5s", "every 5s", "* * * * *", "{{ vars.x }}", "{{ run.id }}", "a", "always", "b", "http://x", "h:1", "10%", "never", "1MB"]
    )),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(
        ["every", "cron", "at", "watch", "backoff", "base", "attempts", "jitter", "a", "b", "http", "exec", "condition", "within", "timeout",
         "r", "include", "exclude", "max_parallel", "stagger", "file", "max_size", "url", "default", "required", "command", "nofile", "gap", "dst"]
    ), inner, max_size=4)),
    max_leaves=6,
)  # fmt: skip
KEYS = st.sampled_from(
    [
        "command",
        "schedule",
        "stop",
        "retry",
        "slowdown",
        "success",
        "overlap",
        "queue_max",
        "catch_up",
        "needs",
        "watch",
        "ready",
        "live",
        "matrix",
        "output",
        "hooks",
        "extends",
        "with",
        "params",
        "env",
        "env_file",
        "cwd",
        "stdin",
        "umask",
        "nice",
        "rlimits",
        "secrets",
        "timeout",
        "restart",
        "labels",
        "moved_from",
        "pool",
        "shell",
        "enabled",
        "description",
        "user",
    ]
)


@settings(max_examples=200, deadline=None)
@given(
    st.fixed_dictionaries(
        {"jobs": st.dictionaries(st.sampled_from(["a", "b", "a[r=x]", "x y"]), st.one_of(st.dictionaries(KEYS, VALUES, max_size=5), VALUES), max_size=3)},
        optional={"vars": VALUES, "defaults": st.dictionaries(KEYS, VALUES, max_size=2), "pools": VALUES, "include": VALUES, "project": VALUES,
                  "templates": st.dictionaries(st.sampled_from(["a", "b"]), st.dictionaries(KEYS, VALUES, max_size=3), max_size=2)},
    )
)  # fmt: skip
def test_any_data_gives_specs_or_a_job_file_error(data):
    import json

    try:
        road(json.dumps(data), name="f.json")
    except JobFileError as error:
        assert error.problems  # noqa: PT017 - either outcome is right
