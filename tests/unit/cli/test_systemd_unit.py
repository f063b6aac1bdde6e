"""What `rpr systemd-unit` prints is read by systemd as what was meant, whatever names and options hold."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repeater.cli.systemd_unit import _folder, _quoted, _time_span
from repeater.errors import UsageError

TEXT = st.text(st.characters(min_codepoint=1, exclude_categories=["Cs"]), max_size=20)
HARD = st.text(st.sampled_from("a%$\\\"'\n\r\t ;#{}\x01\x7f\x85\u2028é-@:+!|="), max_size=12)


def lines(unit: str) -> list[str]:
    """The lines of a unit as systemd reads them: CR and LF end a line, a backslash before the end continues it."""
    found, held = [], ""
    for line in re.split(r"[\n\r\0]", unit):
        if line.endswith("\\"):
            held += line[:-1] + " "
            continue
        found.append(held + line)
        held = ""
    return found


def words(value: str) -> list[str]:
    """A command line by systemd.service(5) and systemd.syntax(7): quotes, escapes, specifiers, variables."""
    found: list[str] = []
    here = 0
    while here < len(value):
        if value[here] in " \t\n\r":
            here += 1
            continue
        word, quote = bytearray(), ""
        while here < len(value) and (quote or value[here] not in " \t\n\r"):
            char = value[here]
            here += 1
            if char == "\\":
                kind, here = value[here], here + 1
                if kind == "x":
                    word.append(int(value[here : here + 2], 16))
                    here += 2
                else:
                    word += {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"'}[kind].encode()
            elif quote and char == quote:
                quote = ""
            elif not quote and char in "'\"":
                quote = char
            else:
                assert char != ";" or quote, "a command separator"
                word += char.encode("utf-8", "surrogateescape")
        assert not quote, "a quote without end"
        found.append(word.decode("utf-8", "surrogateescape"))
    return found


def expanded(word: str, *, is_program: bool) -> str:
    assert not re.search(r"(?<!%)(%%)*%(?!%)", word), "a specifier"
    word = word.replace("%%", "%")
    if is_program:
        return word
    assert not re.search(r"(?<!\$)(\$\$)*\$(?!\$)", word), "a variable"
    return word.replace("$$", "$")


@given(st.lists(st.one_of(TEXT, HARD), min_size=1, max_size=4))
def test_arguments_of_the_command_are_quoted_without_loss(given: list[str]) -> None:
    line = "ExecStart=" + " ".join((_quoted("/p" + given[0], is_program=True), *map(_quoted, given[1:])))
    assert lines(line) == [line]
    first, *rest = words(line.removeprefix("ExecStart="))
    assert [expanded(first, is_program=True), *(expanded(one, is_program=False) for one in rest)] == [
        "/p" + given[0],
        *given[1:],
    ]


@given(st.one_of(TEXT, HARD))
def test_a_folder_is_one_line_or_is_refused(name: str) -> None:
    path = "/" + name
    try:
        line = "WorkingDirectory=" + _folder(path)
    except UsageError:
        return
    assert lines(line) == [line]
    assert line.removeprefix("WorkingDirectory=").strip().replace("%%", "%") == path


@pytest.mark.parametrize("text", ["5min", "90", "5min 20s", "1.5h", "infinity", "2 min", "0"])
def test_a_length_of_systemd_is_taken(text: str) -> None:
    assert _time_span(text) == text


@pytest.mark.parametrize(
    "text", ["", "5min\nExecStartPre=/bin/evil", "5min\r", "5min\\", "%i", "5 min ", "-1", "x", "1" * 60 + "!", "٣s"]
)
def test_an_invalid_duration_of_systemd_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        _time_span(text)
