"""Success or failure, and the patterns that have a say in it."""

from __future__ import annotations

import re
import sys
import time
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repeater.model.reasons import reason as because
from repeater.model.run import Exit
from repeater.model.spec import Success
from repeater.policy import verdict as verdict_module
from repeater.policy.verdict import PATTERN_MOST, WINDOW, Matcher, compile_pattern, judge
from tests.fakes.text import text_of

NOTHING: frozenset[str] = frozenset()


@pytest.mark.parametrize(
    ("success", "exit", "matched", "verdict"),
    [
        (Success(), Exit(0), "", (True, "success")),
        (Success(), Exit(3), "", (False, "exit 3")),
        (Success(), Exit(signal=9), "", (False, "signal 9")),
        (Success((0, 3)), Exit(3), "", (True, "exit 3, which counts as a success")),
        (Success((3,)), Exit(0), "", (False, "exit 0")),
        (Success((143,)), Exit(signal=15), "", (True, "signal 15, which counts as a success")),
        (Success((15,)), Exit(signal=15), "", (False, "signal 15")),
        (Success((0,)), Exit(signal=0), "", (False, "signal 0")),
        (Success(pattern="x"), Exit(1), "success", (True, "success_pattern")),
        (Success(pattern="x"), Exit(0), "", (True, "success")),
        (Success((), pattern="x"), Exit(0), "", (False, "exit 0")),
        (Success(failure_pattern="x"), Exit(0), "failure", (False, "failure_pattern")),
        (
            Success(pattern="x", failure_pattern="y"),
            Exit(0),
            "failure success",
            (False, "failure_pattern"),
        ),
        (Success(), Exit(0), "stop", (True, "success")),
    ],
)
def test_a_failure_pattern_beats_a_success_pattern_beats_the_exit_code(success, exit, matched, verdict):  # noqa: A002
    result = judge(success, exit, frozenset(matched.split()), None)
    assert (result.success, text_of(result.reason)) == verdict


@pytest.mark.parametrize("exit", [Exit(0), Exit(1), Exit(signal=15)])
def test_a_run_ended_from_outside_failed_despite_its_output(exit):  # noqa: A002
    result = judge(Success(pattern="x"), exit, frozenset({"success"}), because("timeout", after=timedelta(seconds=2)))
    assert (result.success, text_of(result.reason)) == (False, "timed out after 2s")


# --- matching ---------------------------------------------------------------------------------------------------


def found(
    data: bytes, chunks: int | list[int] = 1 << 20, *, window: int = WINDOW, stream="stdout", **success
) -> frozenset[str]:
    matcher = Matcher(Success(**success), window=window)
    sizes = [chunks] * (len(data) // chunks + 1) if isinstance(chunks, int) else chunks
    start = 0
    for size in [*sizes, len(data)]:
        matcher.feed(stream, data[start : start + size])
        start += size
    return matcher.found()


def test_a_pattern_is_searched_in_each_line():
    text = b"one\ntwo three\r\nfour"
    assert found(text, pattern="^two") == {"success"}
    assert found(text, pattern="three$") == {"success"}
    assert found(text, pattern="four$") == {"success"}
    assert found(text, pattern="one.?two") == NOTHING
    assert found(text, pattern="THREE") == NOTHING
    assert found(text, pattern="THREE", ignore_case=True) == {"success"}
    assert found(text, failure_pattern="o", pattern="u") == {"success", "failure"}
    assert found("größer ÄRGER\n".encode(), pattern="ä.ger", ignore_case=True) == {"success"}
    assert found(b"caf\xe9 ok\n", pattern="caf. ok") == {"success"}
    assert found(b"", pattern="^$") == NOTHING
    assert found(b"\n", pattern="^$") == {"success"}


@given(
    st.lists(st.sampled_from([b"a", b"b", b"ab", b"\n", b"\r\n", "ü".encode()]), max_size=40).map(b"".join),
    st.lists(st.integers(0, 7), max_size=20),
    st.sampled_from(["ab", "^a+b$", "ü", "^$", "b.*a", "a$", "^b", "(ab){3}"]),
)
def test_chunks_decide_nothing(data, chunks, pattern):
    assert found(data, chunks, pattern=pattern) == found(data, pattern=pattern)
    lines = data.removesuffix(b"\n").split(b"\n") if data else []
    wanted = any(re.search(pattern, line.decode().removesuffix("\r")) for line in lines)
    assert found(data, pattern=pattern) == ({"success"} if wanted else NOTHING)


@given(st.integers(0, 300), st.integers(1, 50))
def test_a_match_of_half_a_window_is_found_anywhere_in_a_long_line(before, chunk):
    data = b"." * before + b"<" + b"x" * 14 + b">" + b"." * 200
    assert found(data, chunk, window=32, pattern="<x{14}>") == {"success"}


def test_stderr_counts_only_if_the_job_declares_it():
    assert found(b"oops\n", stream="stderr", pattern="oops") == NOTHING
    assert found(b"oops\n", stream="stderr", pattern="oops", stderr=True) == {"success"}


def test_the_stop_pattern_reads_both_streams_and_never_joins_them():
    matcher = Matcher(Success(), "ab")
    matcher.feed("stdout", b"a")
    matcher.feed("stderr", b"b\n")
    assert matcher.found() == NOTHING
    matcher.feed("stdout", b"b\n")
    assert matcher.found() == {"stop"}


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_stop_pattern_is_found_on_either_stream_and_others_on_stdout(stream):
    matcher = Matcher(Success(pattern="ok", failure_pattern="bad"), "halt")
    matcher.feed(stream, b"halt\n")
    assert matcher.found() == {"stop"}
    matcher.feed("stderr", b"ok bad\n")
    assert matcher.found() == {"stop"}
    matcher.feed("stdout", b"ok bad\n")
    assert matcher.found() == {"stop", "success", "failure"}


def test_a_line_of_many_megabytes_takes_bounded_memory():
    matcher = Matcher(Success(pattern="needle$"))
    for _ in range(200):
        matcher.feed("stdout", b"x" * 100_000)
        assert sum(map(sys.getsizeof, matcher._lines.values())) < 4 * WINDOW
    matcher.feed("stdout", b"needle\n")
    assert matcher.found() == {"success"}
    assert matcher.problem is None


def test_a_pattern_that_takes_too_long_is_given_up_and_named():
    matcher = Matcher(Success(pattern="(a|aa)+$", failure_pattern="b"))
    begin = time.monotonic()
    for _ in range(20):
        matcher.feed("stdout", b"a" * 5000 + b"b\n")
    assert time.monotonic() - begin < 5
    assert matcher.found() == {"failure"}
    assert matcher.problem is not None
    assert matcher.problem.detail["pattern"] == "(a|aa)+$"


def test_without_a_pattern_nothing_is_kept():
    matcher = Matcher(Success())
    assert matcher.idle
    matcher.feed("stdout", b"x" * 1000)
    assert not any(matcher._lines.values())


def test_a_found_pattern_needs_no_more_output():
    matcher = Matcher(Success(pattern="ok"))
    assert not matcher.idle
    matcher.feed("stdout", b"ok\n")
    assert matcher.idle
    matcher.feed("stdout", b"more\n")
    assert matcher.found() == {"success"}


@pytest.mark.parametrize(
    "text",
    [
        "(?:(?:x{1000}){1000})",
        "((a{400}){400}){2}",
        "(?:[]a-z]{999}){999}+",
        "x{999999999}",
        "(" * 9 + "x" + "){99}" * 9,
    ],
)
def test_a_pattern_that_unfolds_to_a_bomb_is_refused_before_it_is_compiled(text: str) -> None:
    with pytest.raises(ValueError, match="repeats too much: its expanded form exceeds 100000 elements"):
        compile_pattern(text)


@pytest.mark.parametrize(
    "text", [r"\d{1,3}(\.\d{1,3}){3}", r"\({1000}x{,1000}", "a{4}{", r"(?:[{]{99}){99}", "(?x) a {3} b"]
)
def test_ordinary_repeats_are_not_a_bomb(text: str) -> None:
    compile_pattern(text)


@pytest.mark.parametrize(
    "text", ["(", "a(b", "[", "*", "(?P<a>", "a{2,1}", "\\", "(?<", "(" * 2000, "x" * (PATTERN_MOST + 1)]
)
def test_an_invalid_regular_expression_is_refused(text):
    with pytest.raises(ValueError, match=r"pattern|regular expression") as caught:
        compile_pattern(text)
    assert len(str(caught.value)) < 300


@given(st.text(max_size=30) | st.text(alphabet="()[]{}*+?|\\^$.ab0-9,:<>=!P", max_size=30))
def test_no_pattern_breaks_the_compiler(text):
    try:
        pattern = compile_pattern(text, True)
    except ValueError as error:
        assert str(error)  # noqa: PT017 - some texts are patterns, some are not
    else:
        pattern.search("some text")


LINES = st.lists(st.text("ab \r\x0bé", max_size=6).map(str.encode) | st.just(b"\xff"), max_size=12).map(b"\n".join)
PATTERN_PARTS = st.sampled_from([
    "a", "b", ".", "^", "$", "a+", "b*?", "\\s", "[^a]", "(?:a|b)", "(a)", "\\b", "\\n", "(?=b)", "(?<=a)", "(?!b)", "(?<!a)", "(?!.*b)", "(?<!\\w)", "(?!a|b)", "(?!\\s)", "a*+", "(?>a+)",
    "\\A", "\\Z", "\\B", "(?s:.)", "(?P<x>a)", "é", "\\w+", "\\W", "{2}",
])  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(data=LINES, parts=st.lists(PATTERN_PARTS, min_size=1, max_size=5), cut=st.integers(0, 60))
def test_a_search_over_many_lines_finds_what_a_search_in_each_line_finds(data, parts, cut):
    try:
        compile_pattern("".join(parts))
    except ValueError:
        return
    success = Success(pattern="".join(parts), stderr=True)
    one, each = Matcher(success), Matcher(success)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verdict_module, "_FEW", 0)
        for chunk in (data[:cut], data[cut:]):
            one.feed("stdout", chunk)
    each._feed_lines("stdout", data)
    assert (one.found(), one.problem) == (each.found(), each.problem)


@pytest.mark.parametrize(
    "pattern", ["ready", "^never$", "[0-9]{9} x", "a.*b.*c", "foo(?!bar)", "(?:un)?ready to serve"]
)
def test_a_chunk_without_a_match_is_searched_once(pattern, monkeypatch):
    searched = []
    monkeypatch.setattr(Matcher, "_search", lambda _, stream, line: searched.append(line))
    matcher = Matcher(Success(pattern=pattern))
    matcher.feed("stdout", b"beginning of a line")
    matcher.feed("stdout", b", its end\n" + b"GET /index.html 200 in 3 ms\n" * 40_000 + b"the next line")
    assert searched == [b"beginning of a line, its end"]
