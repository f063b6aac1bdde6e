"""Answers in output that streams by, and the forms of hints."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repeater.model.spec import HttpAware
from repeater.policy.http_answer import KEPT, AnswerReader, joined
from repeater.policy.http_aware import read_hints
from tests.unit.policy.answers import read_answer

NOW = datetime(2027, 1, 1, 12, 0, 0, tzinfo=UTC)
EPOCH = int(NOW.timestamp())
RULE = HttpAware(max_delay=timedelta(days=2))
DATE = "Date: Fri, 01 Jan 2027 12:00:00 GMT"
REFUSED = "HTTP/1.1 429 Too Many Requests"


def seconds(*streams: bytes | str) -> float | None:
    """The delay that is given for the output of one stream, or of standard error and output; -1 if none is named."""
    data = [stream if isinstance(stream, bytes) else stream.encode() for stream in streams]
    answer = read_answer(data[0]) if len(data) == 1 else joined(read_answer(data[0]), read_answer(data[1]))
    found = read_hints(RULE, answer, NOW).push_back
    return None if found is None else -1 if found.given is None else found.given.total_seconds()


def block(*lines: str, body: str = "", end: str = "\r\n") -> str:
    return end.join([*lines, "", body])


# --- where an answer begins and ends ------------------------------------------------------------------------------


def test_a_long_body_does_not_hide_the_headers() -> None:
    for size in (77_000, 3_000_000):
        assert seconds(block(REFUSED, "Retry-After: 9", body="x" * size)) == 9
        assert seconds(block(REFUSED, "Retry-After: 9", body="line\n" * (size // 5))) == 9


@pytest.mark.parametrize(
    "body",
    [
        "Retry-After: 3600\r\n",
        "Retry-After: 3600\n",
        "HTTP/1.1 429 Too Many Requests\nRetry-After: 3600\n",
        "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 3600\r\n\r\n",
        "an example:\r\n\r\nHTTP/1.1 429 Too Many Requests\r\nContent-Type: text/html\r\nRetry-After: 3600\r\n\r\n",
        "     HTTP/1.1 429 Too Many Requests\n     Retry-After: 3600\n",
        "  HTTP/1.1 429 Too Many Requests\n  Retry-After: 3600\n",
        "< HTTP/1.1 429 Too Many Requests\n< Retry-After: 3600\n",
        "x-ratelimit-remaining: 0\nx-ratelimit-reset: 60\n",
    ],
)
def test_text_of_a_body_is_not_taken_for_headers(body: str) -> None:
    assert seconds(block("HTTP/1.1 200 OK", DATE, body=body)) is None
    assert seconds(block("HTTP/1.1 200 OK", DATE, "Content-Length: 5000", body=body)) is None
    assert seconds(block("< HTTP/1.1 200 OK", "< " + DATE, "<"), body) is None  # curl -v: the body on the other stream


def test_a_body_within_its_content_length_begins_no_answer() -> None:
    inner = block(REFUSED, DATE, "Retry-After: 3600")
    assert seconds(block("HTTP/1.1 200 OK", "Content-Length: 500", body=f"seen:\r\n{inner}")) is None
    assert seconds(block("HTTP/1.1 200 OK", "Content-Length: 5", body="12345") + inner) == 3600


@pytest.mark.parametrize("first", ["100 Continue", "302 Found", "401 Unauthorized", "429 x", "503 x"])
def test_the_last_of_several_answers_counts(first: str) -> None:
    before = block(f"HTTP/1.1 {first}", "Retry-After: 99", body="<p>text</p>\r\n" if first[0] != "1" else "")
    assert seconds(before + block(REFUSED, "Retry-After: 3")) == 3
    assert seconds(before + block("HTTP/1.1 200 OK", body="fine")) is None


def test_answers_of_several_requests_are_distinguished() -> None:
    fine = block("HTTP/1.1 200 OK", DATE, body='{"ok": true}')  # no line end at the end of the body
    refused = block(REFUSED, DATE, "Retry-After: 3", body="{}")
    assert seconds(fine + refused) == 3
    assert seconds(refused + fine) is None
    assert seconds(block("HTTP/1.1 200 OK", DATE, "Content-Length: 90000") + refused) == 3  # `curl -I` has no body
    assert seconds(block("< HTTP/1.1 200 OK", "<", "< " + REFUSED, "< Retry-After: 3", "<")) == 3


def test_colours_and_line_ends_of_a_terminal_are_understood() -> None:
    assert (
        seconds(
            "\x1b[34mHTTP\x1b[39;49;00m/\x1b[34m1.1\x1b[0m \x1b[33m429\x1b[0m x\r\n\x1b[36mRetry-After\x1b[0m: 7\r\n"
        )
        == 7
    )
    assert seconds(f"{REFUSED}\r\r\n\x1b[1mretry-after\x1b[0m: 7\r\r\n\r\r\nbody\r\n") == 7
    assert seconds('\x1b[1m{\x1b[0m"\x1b[32mretry_after\x1b[0m": \x1b[33m7\x1b[0m}') == 7


def test_progress_meters_do_not_hide_an_answer() -> None:
    meter = "  0     0    0     0    0     0      0      0 --:--:-- --:--:-- --:--:--     0"
    assert seconds(f"\r{meter}* Connected\n\r{meter}< {REFUSED}\r\n< Retry-After: 7\r\n< \r\n") == 7


def test_headers_on_one_stream_and_the_body_on_the_other_are_one_answer() -> None:
    assert seconds(f"< {REFUSED}\r\n<\r\n", '{"retry_after": 7}') == 7
    assert seconds("< HTTP/1.1 200 OK\r\n<\r\n", '{"retry_after": 7}') is None
    assert seconds(f"< {REFUSED}\r\n< Retry-After: 5\r\n<\r\n", "Retry-After: 9\n") == 5
    assert seconds("", "Retry-After: 9\n") == seconds("Retry-After: 9\n", "") == 9


def test_headers_that_a_script_prints_count_with_the_last_of_each() -> None:
    assert seconds("page 1\nRetry-After: 5\npage 2\nRetry-After: 3\nend\n") == 3
    assert seconds("Retry-After: 5\nRetry-After: 3\nend\n") == 5


OUTPUTS = st.lists(
    st.sampled_from([
        block("HTTP/1.1 302 Found", "Location: /"), block(REFUSED, DATE, "Retry-After: 3", body="{}"), DATE + "\r\n",
        block("HTTP/2 200 ", DATE, "content-length: 12", body='{"ok": true}'), "Retry-After: 7\n", "text\n", "\r\n", "\x1b[1m",
        f"< {REFUSED}\r\n< retry-after: 4\r\n<\r\n", "  HTTP/1.1 503 x\n  Retry-After: 8\n", "x" * 9000, '{"retry_after": 6}',
    ]),
    max_size=12,
).map("".join)  # fmt: skip


@given(OUTPUTS, st.lists(st.integers(1, 400), min_size=1, max_size=8))
def test_the_cuts_of_the_stream_change_nothing(output: str, sizes: list[int]) -> None:
    data, reader, place = output.encode(), AnswerReader(), 0
    while place < len(data):
        for size in sizes:
            reader.feed(data[place : place + size])
            place += size
    whole, cut = read_answer(data), reader.answer()
    assert (whole.status, whole.headers) == (cut.status, cut.headers)
    assert whole.body[-1000:] == cut.body[-1000:]


def test_reading_costs_little_time_and_memory() -> None:
    reader, chunk = AnswerReader(), b"0123456789abcdef" * 4000 + b"\n"
    reader.feed(block("HTTP/1.1 200 OK", DATE).encode())
    began = time.process_time()
    for _ in range(500):
        reader.feed(chunk)
    assert time.process_time() - began < 3  # 32 MB
    assert len(reader.answer().body) <= KEPT


# --- forms of hints -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "wanted"),
    [
        (["Retry-After: 120, 120"], 120),
        (["Retry-After: 120 seconds"], 120),
        (["Retry-After: PT30S"], 30),
        (["Retry-After: PT1M30.5S"], 90.5),
        (["Retry-After: 00:00:30"], 30),
        (["Retry-After: Fri, 01 Jan 2027 13:02:00 CET"], 120),
        (["Retry-After: Friday, 01-Jan-27 12:02:00 GMT"], 120),
        (["Retry-After: Fri Jan  1 12:02:00 2027"], 120),
        (["Retry-After: Fri, 01 Jan 2027 12:01:00 GMT, Fri, 01 Jan 2027 12:02:00 GMT"], 120),
        (["Retry-After: 5", "Retry-After: 60"], 60),
        (["Retry-After: 60", "Retry-After: 5"], 60),
        (["Retry-After: soon", "Retry-After: 5"], 5),
        (["Retry-After: 34.074824224s"], 34.074824),
        (["Retry-After: 1m30.123456789s"], 90.123457),
        (["Retry-After: 0", "X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 60"], 60),
        (["retry-after-ms: 1500"], 1.5),
        (["retry-after-ms: 1500", "retry-after: 2"], 1.5),
        (["retry-after-ms: 0", "retry-after: 2"], 2),
        (["X-RateLimit-Retry-After: 12"], 12),
        (["RateLimit-Remaining: 0;w=60", "RateLimit-Reset: 42;w=60"], 42),
        (["RateLimit: limit=100;w=60, remaining=0, reset=5"], 5),
        (["RateLimit: limit=100, remaining=0, reset=5, limit=1000, remaining=0, reset=50"], 50),
        (['RateLimit: "a";r=0;t=5', 'RateLimit: "b";r=0;t=9', 'RateLimit: "c";r=3;t=99'], 9),
        (['RateLimit: "a, b";r=0;t=5'], 5),
        (["RateLimit: default;r=0;t=5"], 5),
        (["X-RateLimit-Remaining: 0, 5", "X-RateLimit-Reset: 60, 60"], 60),
        (["X-RateLimit-Remaining: 0, 5", "X-RateLimit-Reset: 10, 3600"], 10),
        (["X-RateLimit-Remaining: 3, 0", "X-RateLimit-Reset: 10, 3600"], 3600),
        (["X-RateLimit-Remaining: 0", f"X-RateLimit-Reset: {EPOCH + 9}"], 9),
        (["X-RateLimit-Remaining: 0", f"X-RateLimit-Reset: {(EPOCH + 9) * 10**3}"], 9),
        (["X-RateLimit-Remaining: 0", f"X-RateLimit-Reset: {(EPOCH + 9) * 10**6}"], 9),
        (["X-RateLimit-Remaining: 0", f"X-RateLimit-Reset: {(EPOCH + 9) * 10**9}"], 9),
        (["X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 2027-01-01T13:00:09+01:00"], 9),
        (["X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 2027-01-01 12:00:09 UTC"], 9),
        (["X-RateLimit-Remaining: 0", "X-RateLimit-Reset-After: 1.25"], 1.25),
        (["X-RateLimit-Reset-After: 1.25"], 1.25),  # a 429 says that the limit is used up
        (["X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 60", "X-RateLimit-Reset-After: 1.25"], 1.25),
        (["anthropic-ratelimit-requests-remaining: 0", "anthropic-ratelimit-requests-reset: 2027-01-01T12:00:09Z"], 9),
        (["anthropic-ratelimit-tokens-remaining: 5", "anthropic-ratelimit-tokens-reset: 2027-01-01T12:00:09Z"], -1),
        (["X-RateLimit-UserRemaining: 0", "X-RateLimit-UserReset: 9"], 9),
    ],
)
def test_hints_are_read_in_the_forms_that_servers_use(headers: list[str], wanted: float) -> None:
    assert seconds(block(REFUSED, *headers)) == pytest.approx(wanted, abs=1e-6)


def test_reset_instants_are_compared_with_the_date_of_the_answer() -> None:
    skewed = "Date: Fri, 01 Jan 2027 13:00:00 GMT"
    for reset in (EPOCH + 3609, (EPOCH + 3609) * 1000, "2027-01-01T13:00:09Z", "Fri, 01 Jan 2027 13:00:09 GMT"):
        limit = ("X-RateLimit-Remaining: 0", f"X-RateLimit-Reset: {reset}")
        assert seconds(block(REFUSED, skewed, *limit)) == 9
        assert seconds(block(REFUSED, *limit)) == 3609
    assert seconds(block(REFUSED, skewed, body=f'{{"retry_after": {EPOCH + 3609}}}')) == 9
