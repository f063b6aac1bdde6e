"""The messages: whatever comes, a message, nothing yet, or one named refusal."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repeater.control.commands import VERBS, unknown
from repeater.control.protocol import (
    LONGEST_TEXT,
    RENAMED,
    Request,
    check_args,
    decode_request,
    encode_error,
    encode_request,
    error_from,
)
from repeater.errors import ApplyRefused, RepeaterError, Unreachable, UsageError
from repeater.wire.json_lines import BadMessage, LineBuffer, decode, encode

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
OBJECTS = st.dictionaries(st.text(), JSON, max_size=5)


@given(OBJECTS)
def test_a_message_is_one_line_of_ascii_and_is_decoded_without_loss(message: dict[str, Any]) -> None:
    line = encode(message)
    assert line.count(b"\n") == 1
    assert line.isascii()
    assert decode(line[:-1]) == json.loads(json.dumps(message))


@given(st.lists(OBJECTS, max_size=5), st.lists(st.integers(1, 40), min_size=1, max_size=200))
def test_lines_are_split_without_loss_however_they_are_cut(messages: list[dict[str, Any]], cuts: list[int]) -> None:
    stream = b"".join(map(encode, messages))
    lines, found, at = LineBuffer(), [], 0
    for number in range(len(stream)):
        size = cuts[number % len(cuts)]
        lines.feed(stream[at : at + size])
        at += size
        while (line := lines.take()) is not None:
            found.append(decode(line))
    assert found == [json.loads(json.dumps(message)) for message in messages]
    assert lines.waiting == 0


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_one_refusal(line: bytes) -> None:
    try:
        found: Any = decode_request(line)
    except BadMessage as refusal:
        found = refusal
    assert isinstance(found, Request) or found.message.startswith("cannot ")


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        (b"", "cannot read the message: Expecting value"),
        (b"[1]", "not a JSON object"),
        (b'{"v": NaN}', "`NaN` is not a number"),
        (b'{"v": 2, "x": Infinity}', "`Infinity` is not a number"),
        (b'{"v": 1, "v": 1}', "duplicate key `v`"),
        (b'{"v": 2, "args": {"a": 1, "a": 2}, "verb": "x"}', "duplicate key `a`"),
        (b"\xff\xfe", "it is not valid UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 50_000, "nested too deeply"),
        (b'{"v": ' + b"9" * 5000 + b"}", "cannot read the message: Exceeds the limit"),
        (b"{}", "cannot use version `None`"),
        (b'{"v": 1, "verb": "status"}', "cannot use version `1` of the protocol: the supervisor speaks version 2"),
        (b'{"v": true, "verb": "status"}', "cannot use version `True`"),
        (b'{"v": 2}', "the key `verb` is missing"),
        (b'{"v": 2, "verb": 3}', "the key `verb` is missing"),
        (b'{"v": 2, "verb": "status", "args": []}', "`args` is not an object"),
        (b'{"v": 2, "verb": "status", "arg": {}}', "unknown key `arg`"),
    ],
    ids=lambda value: value[:30] if isinstance(value, bytes) else "",
)
def test_an_invalid_request_is_refused_with_its_cause(line: bytes, cause: str) -> None:
    with pytest.raises(BadMessage, match="cannot") as caught:
        decode_request(line)
    assert cause in caught.value.message


def test_a_line_that_is_too_long_is_refused_before_its_end_arrives() -> None:
    lines = LineBuffer(10)
    lines.feed(b"x" * 10)
    assert lines.take() is None
    lines.feed(b"x")
    with pytest.raises(BadMessage, match="more than 10 bytes"):
        lines.take()


def test_a_line_of_just_the_most_is_taken() -> None:
    lines = LineBuffer(10)
    lines.feed(b"x" * 10 + b"\nrest")
    assert lines.take() == b"x" * 10
    assert lines.waiting == 4


@pytest.mark.parametrize("verb", VERBS)
@given(args=st.dictionaries(st.sampled_from(["jobs", "follow", "tail", "at", "x"]) | st.text(), JSON, max_size=3))
def test_any_arguments_are_checked_or_refused_for_every_verb(verb: str, args: dict[str, Any]) -> None:
    params = VERBS[verb].params
    try:
        checked = check_args(verb, params, args)
    except BadMessage:
        return
    assert set(checked) == set(params)
    assert set(args) <= set(params)


WRONG: dict[str, list[Any]] = {
    "text": [3, ["x"], "x" * (LONGEST_TEXT + 1), "a\0b", True, {}],
    "texts": ["x", [3], [None], ["a\0"], {"a": 1}, 7],
    "pairs": [["x"], [["a"]], [["a", 1]], "ab", {"a": "b"}],
    "flag": [0, 1, "true", []],
    "count": [-1, 1.5, True, "3", 10**9],
    "seconds": [0, -1, "1s", True, 10**18, []],
    "time": ["now", 3, "2026-11-24", "2026-11-24T03:00:00", "9999-99-99T00:00:00Z"],
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_wrong_value_is_refused_for_every_argument_of_every_verb(verb: str) -> None:
    for name, kind in VERBS[verb].params.items():
        for value in WRONG[kind]:
            with pytest.raises(BadMessage) as caught:
                check_args(verb, VERBS[verb].params, {name: value})
            assert f"for `{name}`, expected" in caught.value.message


def test_an_unknown_argument_or_verb_names_the_nearest() -> None:
    with pytest.raises(BadMessage) as caught:
        check_args("pause", VERBS["pause"].params, {"resaon": "x"})
    assert caught.value.hint == "did you mean `reason`?"
    assert unknown("stauts").hint == "did you mean `status`?"
    assert len(unknown("x" * 10_000).message) < 200


@pytest.mark.parametrize(("former", "name"), RENAMED.items())
def test_a_former_argument_is_refused_with_its_new_name(former: tuple[str, str], name: str) -> None:
    verb, argument = former
    assert name in VERBS[verb].params
    with pytest.raises(BadMessage) as caught:
        check_args(verb, VERBS[verb].params, {argument: 1})
    assert caught.value.hint == f"the argument is now called `{name}`"


def test_an_error_about_the_version_has_the_remedy() -> None:
    error = error_from({"code": "version", "message": "cannot use version `2` of the protocol: this is version 1"})
    assert error.hint is not None
    assert "restart the supervisor" in error.hint


def test_a_request_omits_empty_values() -> None:
    line = encode_request("logs", {"jobs": [], "run": "", "follow": True, "since": None})
    assert decode_request(line[:-1]) == Request("logs", {"follow": True})
    assert decode_request(encode_request("logs", {"tail": 0, "follow": False})[:-1]) == Request("logs", {"tail": 0})


@pytest.mark.parametrize(
    "error", [UsageError("cannot a", hint="b"), ApplyRefused("cannot c"), RepeaterError("cannot d")]
)
def test_an_error_crosses_with_its_class_text_and_hint(error: RepeaterError) -> None:
    other = error_from(decode(encode_error(error)[:-1])["error"])
    assert (type(other), other.message, other.hint, other.exit_code) == (
        type(error), error.message, error.hint, error.exit_code,
    )  # fmt: skip


@given(JSON)
def test_any_error_of_the_other_end_can_be_shown(told: Any) -> None:
    assert error_from(told).message
    assert not isinstance(error_from(told), Unreachable) or told["exit"] == 6
