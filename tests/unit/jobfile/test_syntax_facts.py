"""Facts of TOML 1.1, YAML 1.2 core and JSON, each as a small text and what it is read as, or where it is refused.

The kinds of facts are those that toml-test, yaml-test-suite and JSONTestSuite ask for; the texts are our own.
"""

import math

import pytest

from repeater.errors import JobFileError
from repeater.jobfile.document import InputLimits
from repeater.jobfile.parse import read_document

TOML = [
    ("k = 'a\\b'", "a\\b"),
    ('k = "\\t\\u00e9\\U0001F600"', "\té😀"),
    ('k = "\\e\\x41"', "\x1bA"),  # TOML 1.1
    ('k = """\na\\\n   b"""', "ab"),
    ("k = '''\na\nb'''", "a\nb"),
    ('k = """ "" """', ' "" '),
    ('k = """"x""""', '"x"'),
    ("k = 0xDEAD_beef", 0xDEADBEEF),
    ("k = 0b101", 5),
    ("k = -0", 0),
    ("k = 1_000.5e-2", 10.005),
    ("k = true # c", True),
    ("k = [\n1, # c\n2,\n]", [1, 2]),
    ("k = {a = 1, b = {c = 2}}", {"a": 1, "b": {"c": 2}}),
    ("k = {\n  a = 1, # c\n  b = 2,\n}", {"a": 1, "b": 2}),  # TOML 1.1
    ("k.a = 1\nk.'b.c' = 2", {"a": 1, "b.c": 2}),
    ("[k]\na = 1\n[k.b]\nc = 2", {"a": 1, "b": {"c": 2}}),
    ("[k.a]\n[k]\nb = 1", {"a": {}, "b": 1}),
    ("[[k]]\na = 1\n[[k]]\na = 2", [{"a": 1}, {"a": 2}]),
    ("k = 1979-05-27T07:32Z", "1979-05-27T07:32:00Z"),  # TOML 1.1: no seconds
    ("k = 07:32", "07:32:00"),
    ("k = []", []),
    ("\ufeffk = 1", 1),
    ("k = 1\r\n", 1),
]
YAML = [
    ("k: a b  # c", "a b"),
    ("k: a#b", "a#b"),
    ("k: 'it''s'", "it's"),
    ('k: "a\\x41\\u00e9\\n"', "aAé\n"),
    ('k: "a\n  b"', "a b"),
    ("k: |\n  a\n  b\n", "a\nb\n"),
    ("k: |-\n  a\n\n", "a"),
    ("k: |+\n  a\n\n", "a\n\n"),
    ("k: >\n  a\n  b\n\n  c\n", "a b\nc\n"),
    ("k: |2\n    a\n", "  a\n"),
    ("k: [a, {b: c}, 'd,e']", ["a", {"b": "c"}, "d,e"]),
    ("k:\n- a\n- - b\n", ["a", ["b"]]),
    ("k: {a: , b: ~}", {"a": None, "b": None}),
    ("? k\n: v", "v"),
    ("k: &a [1]\nx: *a", [1]),
    ("k: !!str 12", "12"),
    ("k: ! 12", "12"),
    ('k: ! "12"', "12"),
    ("k: !!int '12'", 12),
    ("&x k: v\ny: *x", "v"),
    ("a: &x k\n*x : 1", 1),
    ("k: 0o14", 12),
    ("k: 0xC", 12),
    ("k: 014", 14),
    ("k: 1e3", 1000.0),
    ("k: .5", 0.5),
    ("k: 1_000", "1_000"),
    ("k: yes", "yes"),
    ("k: 12:30:45", "12:30:45"),
    ("k: 2001-12-14", "2001-12-14"),
    ("k: 0b1", "0b1"),
    ("k: TRUE", True),
    ("k: Null", None),
    ("%YAML 1.2\n---\nk: 1\n...\n", 1),
    ("k: 'a: b'", "a: b"),
    ("k: http://x:80/?a=b#c", "http://x:80/?a=b#c"),
]
JSON = [
    ('{"k": "\\ud83d\\ude00"}', "😀"),
    ('{"k": "\\u0000"}', "\0"),
    ('{"k": "\\/\\b\\f"}', "/\b\f"),
    ('{"k"\n:\t1 }', 1),
    ('{"k": -0}', 0),
    ('{"k": 1E+2}', 100.0),
    ('{"k": 1.10}', 1.1),
    ('{"k": [[], {}]}', [[], {}]),
    ('{"k": "\u2028"}', "\u2028"),
    ('{"k": "\x7f"}', "\x7f"),
    ('{"": 1, "k": 2}', 2),
    (' {"k": null} \n', None),
]
REFUSED = [
    ("f.toml", "k = 01", "1:5"),
    ("f.toml", "k = 1.", "1:5"),
    ("f.toml", "k = 1__0", "1:5"),
    ("f.toml", "k = +0x1", "1:5"),
    ("f.toml", "k = 'a\nb'", "1:7"),
    ("f.toml", 'k = "\\q"', "1:6"),
    ("f.toml", 'k = "\\ud800"', "1:12"),
    ("f.toml", "k = 1\nk = 2", "2:1"),
    ("f.toml", "[k]\n[k]", "2:1"),
    ("f.toml", "k = {a = 1}\nk.b = 2", "2:8"),
    ("f.toml", "k = [1 2]", "1:8"),
    ("f.toml", "k = \x0b1", "1:5"),
    ("f.toml", "# \x00\n", "1:3"),
    ("f.toml", "k = 2021-02-30", "1:5"),
    ("f.toml", "= 1", "1:1"),
    ("f.toml", "k = \n", "1:5"),
    ("f.toml", "a = 1 b = 2", "1:7"),
    ("f.toml", "k = nan", "1:1"),
    ("f.toml", "k = [1, -inf]", "1:9"),
    ("f.toml", "k = 0x" + "f" * 300, "1:1"),
    ("f.toml", "# c\nk = " + "9" * 5000, "2:5"),
    ("f.toml", "\f\f", "1:1"),
    ("f.yaml", "k: [a", "1:4"),
    ("f.yaml", "k: 'a", "1:4"),
    ("f.yaml", "k: a: b", "1:4"),
    ("f.yaml", "k: a\nk: b", "2:1"),
    ("f.yaml", "k: *a", "1:4"),
    ("f.yaml", "k: &a [*a]", "1:8"),
    ("f.yaml", "k: !x 1", "1:4"),
    ("f.yaml", "[a]: 1", "1:1"),
    ("f.yaml", "\tk: 1", "1:1"),
    ("f.yaml", "k: @a", "1:4"),
    ("f.yaml", "k: %a", "1:4"),
    ("f.yaml", "k: 1\n---\nk: 2", "2:1"),
    ("f.yaml", 'k: "\\q"', "1:5"),
    ("f.yaml", "k: \x01", "1:4"),
    ("f.yaml", "é: 1\nk: \x7f", "2:4"),
    ("f.yaml", "<<: {a: 1}", "1:1"),
    ("f.yaml", "k: .inf", "1:1"),
    ("f.yaml", "k: [.nan]", "1:5"),
    ("f.yaml", "\f\f", "1:1"),
    ("f.json", '{"k": 1,}', "1:8"),
    ("f.json", "{'k': 1}", "1:2"),
    ("f.json", '{"k": 01}', "1:7"),
    ("f.json", '{"k": .5}', "1:7"),
    ("f.json", '{"k": +1}', "1:7"),
    ("f.json", '{"k": "\t"}', "1:8"),
    ("f.json", '{"k": "\\x41"}', "1:8"),
    ("f.json", '{"k": 1} x', "1:10"),
    ("f.json", '{"k": 1 // c\n}', "1:9"),
    ("f.json", '{"k": True}', "1:7"),
    ("f.json", '{"k":\n NaN}', "2:2"),
    ("f.json", '{"k":\n [-Infinity]}', "2:3"),
    ("f.json", '{"k":\n 1e400}', "1:2"),
    ("f.json", '{"k": "\\ud800"}', "1:7"),
    ("f.json", '{"k": "\\udc00\\ud800"}', "1:7"),
    ("f.json", '{"a\\udfff": 1}', "1:2"),
    ("f.json", '{"\\ud83d\\ude00": 1,\n"k": {"a": 1, "a": 2}}', "2:15"),
    ("f.json", '{"k": ' + "9" * 5000 + "}", "1:7"),
    ("f.json", '{"k":\n "\0"}', "2:3"),
    ("f.json", "\f\f", "1:1"),
    ("f.json", "[1]", "1:1"),
]


def read(name: str, text: str):
    return read_document(name, text.encode(), InputLimits())


@pytest.mark.parametrize(("text", "value"), TOML)
def test_toml_1_1_is_read(text, value):
    assert read("f.toml", text).data["k"] == value


@pytest.mark.parametrize(("text", "value"), YAML)
def test_yaml_1_2_core_is_read(text, value):
    assert read("f.yaml", text).data["k"] == value


@pytest.mark.parametrize(("text", "value"), JSON)
def test_json_is_read(text, value):
    assert read("f.json", text).data["k"] == value


@pytest.mark.parametrize(("name", "text", "place"), REFUSED, ids=lambda one: str(one)[:30])
def test_a_forbidden_construct_is_refused_with_its_place(name, text, place):
    with pytest.raises(JobFileError) as caught:
        read(name, text)
    (problem,) = caught.value.problems
    assert problem.place() == f"{name}:{place}", str(problem)


@pytest.mark.parametrize(
    ("name", "text"),
    [("f.toml", "k = {}"), ("f.yaml", "k: {}"), ("f.json", '{{"k": {}}}')],
)
@pytest.mark.parametrize("number", ["1", "1.5", "1.10", "1e3", "1.0E+2", "-0", "100000000000000000000.0"])
def test_a_number_keeps_its_value_and_its_text(name, text, number):
    found = read(name, text.format(number)).data["k"]
    assert isinstance(found, int | float)
    assert math.isclose(found, float(number))
    assert str(found) == number


@pytest.mark.parametrize(
    ("name", "text", "written"),
    [
        ("f.toml", "k = {}", ["0o17", "0x1F", "1_000", "+1", "0b1", "1_0.5"]),
        ("f.yaml", "k: {}", ["0o17", "0x1F", "0777", "+1", ".5", "1."]),
    ],
)
def test_a_number_in_a_form_of_its_language_keeps_its_text(name, text, written):
    assert [str(read(name, text.format(one)).data["k"]) for one in written] == written
