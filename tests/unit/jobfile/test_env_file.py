r"""Env files by the grammar of docker compose, without interpolation.

The cases are facts of the tables of compose-go/dotenv and python-dotenv, in texts of our own.
"""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repeater.jobfile.env_file import parse_env
from tests.unit.jobfile.loading import job, problems


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=1", "1"), ("A=", ""), ("export A=1", "1"), ("export\tA=1", "1"), ("  A = 1  ", "1"), ("A: 1", "1"), ("A:1", "1"),
        ("A='two words'", "two words"), ('A="two words"', "two words"), ("A=''", ""), ('A=""', ""), ('A = "x" ', "x"),
        ('A="tab\\there \\"q\\" \\\\ \\$x"', 'tab\there "q" \\ $x'), ("A='\\n'", "\\n"), ("A='it\\'s'", "it's"),
        ('A="^\\d+$"', "^\\d+$"), ('A="C:\\Users\\x"', "C:\\Users\\x"), ('A="\\z\\q"', "\\z\\q"), ('A="\\x41"', "\\x41"),
        ('A="\\a\\b\\f\\n\\r\\t\\v"', "\a\b\f\n\r\t\v"), ('A="\\0101"', "A"), ('A="\\\\d"', "\\d"), ('A="\\\\\\d"', "\\\\d"),
        ("A=^\\d+$", "^\\d+$"), ("A=a\\nb", "a\\nb"), ("A=x # comment", "x"), ("A=x\t# comment", "x"), ("A=x#y", "x#y"),
        ("A='x' # comment", "x"), ("A='x'# comment", "x"), ('A="x" # it\'s', "x"), ('A="a # b"', "a # b"), ("A='a # b'", "a # b"),
        ("A=a b  c", "a b  c"), ("A=$HOME", "$HOME"), ('A="$HOME"', "$HOME"), ("A=${B:-c}", "${B:-c}"), ("A=a=b", "a=b"),
        ("A=größe", "größe"), ("A=it's", "it's"), ('A=a"b"', 'a"b"'), ("A= # comment", ""), ("A=#f00", "#f00"), ("A=a:b", "a:b"),
        ("A='a\nb'", "a\nb"), ('A="a\nb=c\n# d"', "a\nb=c\n# d"), ('A="a\r\nb"', "a\nb"), ("A=[x]", "[x]"), ('A={"k": 1}', '{"k": 1}'),
    ],
)  # fmt: skip
def test_a_line_gives(line, value):
    assert parse_env(line.encode()) == (("A", value),)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_may_end_in_every_usual_way(end):
    text = end.join(["# c", "", "A=1", "  # d", "B='x'", 'C="y" # e', "export D=2", "E.F-g=3", ""])
    assert parse_env(b"\xef\xbb\xbf" + text.encode()) == (
        ("A", "1"),
        ("B", "x"),
        ("C", "y"),
        ("D", "2"),
        ("E.F-g", "3"),
    )


def test_a_later_line_wins():
    assert dict(parse_env(b"A=1\nA=2\n")) == {"A": "2"}


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("A", "is not `NAME=value`"), ("=1", "is not `NAME=value`"), ("1A=2", "is not `NAME=value`"), ("A B=1", "is not `NAME=value`"),
        ("export A", "is not `NAME=value`"), ("A='x", "has a quoted value without a closing quote"), ('A="x\n\n', "has a quoted value"),
        ("A='x' y", "found text after the closing quote"), ('A="x"y', "found text after the closing quote"), ("A=\0", "contains a zero"),
        ('A="\\0"', "contains a zero"), ("A=\udcff", "is not UTF-8"),
    ],
)  # fmt: skip
def test_a_wrong_line_is_named_by_its_number(line, cause):
    with pytest.raises(ValueError, match=f"line 4 {cause}|line 4 .*{cause}"):
        parse_env(b"B='1\n2'\n\n" + line.encode("utf-8", "surrogateescape"))


@given(st.binary(max_size=80))
def test_any_bytes_give_variables_or_a_value_error(content):
    with contextlib.suppress(ValueError):
        assert isinstance(parse_env(content), tuple)


@given(st.text(alphabet="ab\\'\"$# \n", max_size=12))
def test_a_quoted_value_survives(value):
    quoted = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    assert parse_env(f"A={quoted} # c\nB=1".encode()) == (("A", value), ("B", "1"))


@pytest.mark.parametrize(
    "files", ['{ path = "x.env", required = false }', '["a.env", { path = "x.env", required = false }]']
)
def test_a_file_that_is_not_required_may_be_missing(files):
    text = f"[jobs.a]\ncommand = 'true'\nenv_file = {files}\n"
    loaded = job(f"env_file = {files}", more={"a.env": "A=1"})
    assert dict(loaded.process.env_from_files) == ({"A": "1"} if "a.env" in files else {})
    found = job(f"env_file = {files}", more={"a.env": "A=1", "x.env": "X=2"})
    assert dict(found.process.env_from_files)["X"] == "2"
    (told,) = problems(text.replace("false", "true"), more={"a.env": "A=1"})
    place = "22: jobs.a.env_file[1]" if "[" in files else "1: jobs.a.env_file"
    assert told == f"jobs.toml:3:{place}: cannot read `/p/x.env`: the file does not exist"


def test_a_broken_file_that_is_not_required_is_an_error():
    text = '[jobs.a]\ncommand = "true"\nenv_file = { path = "x.env", required = false }\n'
    (told,) = problems(text, more={"x.env": "what"})
    assert told.endswith("cannot read `/p/x.env`: line 1 is not `NAME=value`")


COMPOSE_GO = [
    ("OPTION_D='\\n'", "OPTION_D", "\\n"), ('OPTION_H="\\n"', "OPTION_H", "\n"), ("OPTION_I = \"echo 'asd'\"", "OPTION_I", "echo 'asd'"),
    ("FOO =bar", "FOO", "bar"), ("FOO= bar", "FOO", "bar"), ('FOO="escaped\\"bar"', "FOO", 'escaped"bar'), ('FOO="\'d\'"', "FOO", "'d'"),
    ("OPTION_A: 1", "OPTION_A", "1"), ("OPTION_A: Foo=bar", "OPTION_A", "Foo=bar"), ("OPTION_A=1:B", "OPTION_A", "1:B"),
    ("export OPTION_A=2", "OPTION_A", "2"), ("export exportFoo=2", "exportFoo", "2"), ("exportFOO=2", "exportFOO", "2"),
    ("export_FOO =2", "export_FOO", "2"), ("export.FOO= 2", "export.FOO", "2"), ("export\tOPTION_A=2", "OPTION_A", "2"),
    ("\texport OPTION_A=2", "OPTION_A", "2"), ("FOO.BAR=foobar", "FOO.BAR", "foobar"), ("FOO=foobar=", "FOO", "foobar="),
    ("FOO=bar # this is foo", "FOO", "bar"), ('FOO="bar#baz#bang" # comment', "FOO", "bar#baz#bang"), ("FOO='ba#r'", "FOO", "ba#r"),
    ('FOO="foo\\$BAR"', "FOO", "foo$BAR"), ('FOO="foo\\${BAR}"', "FOO", "foo${BAR}"), ("BAR='quote $FOO'", "BAR", "quote $FOO"),
]  # fmt: skip
PYTHON_DOTENV = [
    (" a = b ", "a", "b"), ("a=b#c", "a", "b#c"), ("a=b #c", "a", "b"), ("a= #c", "a", ""), ("a=#b", "a", "#b"), ("a=b\t#c", "a", "b"),
    ("a=b\tc", "a", "b\tc"), ("a=b  c", "a", "b  c"), ("a=b\u00a0 c", "a", "b\u00a0 c"), ("a='b c '", "a", "b c "), ('a="b c "', "a", "b c "),
    ("export export_a=1", "export_a", "1"), ('a="b\nc"', "a", "b\nc"), ("a='b\nc'", "a", "b\nc"), ('a="b\\nc"', "a", "b\nc"),
    ("a='b\\nc'", "a", "b\\nc"), ('a="b\\"c"', "a", 'b"c'), ("a='b\\'c'", "a", "b'c"), ("a=à", "a", "à"), ("\ufeffa=b", "a", "b"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "name", "value"), [*COMPOSE_GO, *PYTHON_DOTENV])
def test_facts_of_other_test_tables_hold(line, name, value):
    assert parse_env(line.encode()) == ((name, value),)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("a[1]=c", None),  # compose-go: a name
        ("'a'=b", None),  # python-dotenv: a quoted name
        ("[=b", None),  # python-dotenv: a name
        ("no_value", None),  # both: taken from the environment, or without a value
        ("lol$wut", None),  # as in both: an error
        ('FOO="bar\\n\\ b\\az"', "bar\n\\ b\az"),  # compose-go drops some unknown backslashes in older versions
        ("BAR=$FOO", "$FOO"),  # both expand it
        ('a="\nb=c', None),  # python-dotenv goes on behind the error
    ],
)  # fmt: skip
def test_differences_from_other_test_tables_are_these(line, found):
    if found is None:
        with pytest.raises(ValueError, match="line 1 "):
            parse_env(line.encode())
    else:
        assert parse_env(line.encode())[0][1] == found
