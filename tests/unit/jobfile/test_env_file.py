"""The lines of env files."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repeater.jobfile.env_file import parse_env


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=1", "1"), ("A=", ""), ("export A=1", "1"), ("  A = 1  ", "1"), ("A='two words'", "two words"), ('A="two words"', "two words"),
        ('A="tab\\there \\"q\\" \\\\ \\$x"', 'tab\there "q" \\ $x'), ("A='\\n'", "\\n"), ("A=x # comment", "x"), ("A=x#y", "x#y"),
        ("A='x' # comment", "x"), ("A=a b  c", "a b  c"), ("A=$HOME", "$HOME"), ("A=a=b", "a=b"), ("A=größe", "größe"), ("A=it's", "it's"),
        ("A= # comment", ""), ("A=#f00", "#f00"),
    ],
)  # fmt: skip
def test_a_line_gives(line, value):
    assert parse_env(line.encode()) == (("A", value),)


def test_comments_blank_lines_crlf_and_a_byte_order_mark_are_fine():
    assert parse_env(b"\xef\xbb\xbf# c\r\n\r\nA=1\r\n  # d\r\nB=2\r\n") == (("A", "1"), ("B", "2"))


def test_a_later_line_wins():
    assert dict(parse_env(b"A=1\nA=2\n")) == {"A": "2"}


@pytest.mark.parametrize("line", ["A", "=1", "1A=2", "A B=1", "A='x", 'A="x', "A='x' y", "A=\0"])
def test_a_line_that_is_none_is_named(line):
    with pytest.raises(ValueError, match="line 2 is not `NAME=value`"):
        parse_env(b"B=1\n" + line.encode())


@given(st.binary(max_size=80))
def test_any_bytes_give_variables_or_a_value_error(content):
    with contextlib.suppress(ValueError):
        assert isinstance(parse_env(content), tuple)
