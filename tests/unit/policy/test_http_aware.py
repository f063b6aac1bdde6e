"""Push-back in answers as real servers give them, and in output that is nothing of the kind."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from repeater.model.spec import HttpAware
from repeater.policy.http_answer import KEPT
from repeater.policy.http_aware import PushBack, Reading, Unreadable, holding, read_hints
from tests.unit.policy.answers import read_answer

NOW = datetime(2027, 1, 1, 12, 0, 0, tzinfo=UTC)
EPOCH = int(NOW.timestamp())
ALL = HttpAware(max_delay=timedelta(days=1))
SECOND = timedelta(seconds=1)


def reading(output: str | bytes, rule: HttpAware = ALL) -> Reading:
    return read_hints(rule, read_answer(output if isinstance(output, bytes) else output.encode()), NOW)


def seconds(output: str | bytes, rule: HttpAware = ALL) -> float | None:
    """The delay that is given; -1 for one that depends on the repetitions."""
    found = reading(output, rule).push_back
    return None if found is None else -1 if found.given is None else found.given / SECOND


def answer(status: str, *headers: str, body: object = "") -> str:
    """As `curl -i` prints it."""
    text = body if isinstance(body, str) else json.dumps(body)
    return "\r\n".join([f"HTTP/{status}", "date: Fri, 01 Jan 2027 12:00:00 GMT", *headers, "", text])


GITHUB_PRIMARY = answer(
    "2 403", "server: github.com", "content-type: application/json; charset=utf-8", "x-ratelimit-limit: 60",
    "x-ratelimit-remaining: 0", f"x-ratelimit-reset: {EPOCH + 1800}", "x-ratelimit-used: 60",
    "x-ratelimit-resource: core",
    body={"message": "API rate limit exceeded for 192.0.2.7.", "documentation_url": "https://docs.github.com/"},
)  # fmt: skip
GITHUB_SECONDARY = answer(
    "2 403", "retry-after: 60", "x-ratelimit-limit: 5000", "x-ratelimit-remaining: 4890",
    f"x-ratelimit-reset: {EPOCH + 3000}", body={"message": "You have exceeded a secondary rate limit."},
)  # fmt: skip
GITHUB_GRAPHQL = answer(
    "2 200", body={"data": {"rateLimit": {"limit": 5000, "remaining": 0, "resetAt": "2027-01-01T12:10:00Z"}}}
)
SLACK = answer(
    "1.1 429 Too Many Requests", "Content-Type: application/json", "Retry-After: 30",
    body={"ok": False, "error": "ratelimited"},
)  # fmt: skip
DISCORD = answer(
    "1.1 429 Too Many Requests", "Retry-After: 65", "X-RateLimit-Limit: 10", "X-RateLimit-Remaining: 0",
    f"X-RateLimit-Reset: {EPOCH + 64}.57", "X-RateLimit-Reset-After: 64.57", "X-RateLimit-Bucket: abcd1234",
    "X-RateLimit-Scope: user", body={"message": "You are being rate limited.", "retry_after": 64.57, "global": False},
)  # fmt: skip
DISCORD_EMPTY_BUCKET = answer(
    "1.1 200 OK", "X-RateLimit-Limit: 5", "X-RateLimit-Remaining: 0", "X-RateLimit-Reset-After: 1.25", body=[{"id": 1}]
)
STRIPE = answer(
    "2 429", "content-type: application/json", "retry-after: 2", "stripe-rate-limited-reason: global-rate",
    body={"error": {"type": "invalid_request_error", "code": "rate_limit", "message": "Request rate limit exceeded."}},
)  # fmt: skip
AWS_LAMBDA = answer(
    "1.1 429 Too Many Requests", "x-amzn-ErrorType: TooManyRequestsException", "Retry-After: 1",
    body={"Reason": "ReservedFunctionConcurrentInvocationLimitExceeded", "retryAfterSeconds": "1"},
)  # fmt: skip
AWS_JSON = answer("1.1 400 Bad Request", body={"__type": "ThrottlingException", "retryAfterSeconds": 7})
GOOGLE = answer("2 429", body={"error": {"code": 429, "details": [
    {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": []},
    {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "37.5s"}]}})  # fmt: skip
OPENAI = answer(
    "2 429", "x-ratelimit-limit-requests: 60", "x-ratelimit-remaining-requests: 0",
    "x-ratelimit-remaining-tokens: 149984", "x-ratelimit-reset-requests: 6m0s", "x-ratelimit-reset-tokens: 6ms",
)  # fmt: skip
TELEGRAM = json.dumps({"ok": False, "error_code": 429, "parameters": {"retry_after": 17}})
TWITTER = answer("2 429", "x-rate-limit-limit: 900", "x-rate-limit-remaining: 0", f"x-rate-limit-reset: {EPOCH + 120}")
REDDIT = answer("2 429", "x-ratelimit-remaining: 0.0", "x-ratelimit-reset: 253", "x-ratelimit-used: 100")
AZURE = answer("2 429", "retry-after-ms: 1500", "x-ms-retry-after-ms: 1500", "retry-after: 2")
IETF_03 = answer("2 429", "RateLimit-Limit: 100", "RateLimit-Remaining: 0", "RateLimit-Reset: 50")
IETF_07 = answer("2 200", "RateLimit: limit=100, remaining=0, reset=50", "RateLimit-Policy: 100;w=60")
IETF_10 = answer("2 200", 'RateLimit: "burst";r=0;t=5, "daily";r=0;t=900, "ip";r=3;t=3600')
DATED = answer("1.1 503 Service Unavailable", "Retry-After: Fri, 01 Jan 2027 12:02:00 GMT")
SKEWED = "HTTP/1.1 503 x\r\nDate: Fri, 01 Jan 2027 13:00:00 GMT\r\nRetry-After: Fri, 01 Jan 2027 13:00:09 GMT\r\n\r\n"
REDIRECTED = answer("1.1 302 Found", "Retry-After: 99", "Location: /b") + "\r\n" + answer("1.1 429 x", "Retry-After: 3")
RETRIED = answer("1.1 429 x", "Retry-After: 3") + "\r\n" + answer("1.1 200 OK", body="fine")
VERBOSE = "> GET / HTTP/1.1\n> Retry-After: 4\n< HTTP/1.1 429 Too Many Requests\n< Retry-After: 8\n<\n"
WGET = "  HTTP/1.1 429 Too Many Requests\n  Retry-After: 8\n"
SCRIPT = "fetching page 3\nretry-after: 12\nbye\n"
LOGGED = '2027-01-01 [worker] got 429 {"detail": {"rate_limit": {"reset_in": 21}}}\n'
PRETTY = json.dumps({"rate_limit": {"limit": 5, "reset_in": 42}}, indent=2)
LINES = "".join(json.dumps({"page": {"number": number}}) + "\n" for number in range(500)) + '{"retryAfter": 9}\n'


@pytest.mark.parametrize(
    ("output", "wanted"),
    [
        (GITHUB_PRIMARY, 1800), (GITHUB_SECONDARY, 60), (GITHUB_GRAPHQL, None), (SLACK, 30), (DISCORD, 65),
        (DISCORD_EMPTY_BUCKET, 1.25), (STRIPE, 2), (AWS_LAMBDA, 1), (AWS_JSON, None), (GOOGLE, 37.5), (OPENAI, 360),
        (TELEGRAM, 17), (TWITTER, 120), (REDDIT, 253), (AZURE, 1.5), (IETF_03, 50), (IETF_07, 50), (IETF_10, 900),
        (DATED, 120), (SKEWED, 9), (REDIRECTED, 3), (RETRIED, None), (VERBOSE, 8), (WGET, 8), (SCRIPT, 12), (LOGGED, 21),
        (PRETTY, 42), (LINES, 9),
    ],
    ids=[
        "github", "github-secondary", "github-graphql", "slack", "discord", "discord-bucket", "stripe", "lambda",
        "aws-400", "google", "openai", "telegram", "twitter", "reddit", "azure", "ietf-03", "ietf-07", "ietf-10", "date",
        "skewed-clock", "redirect", "retried-by-curl", "curl-v", "wget-S", "script", "log-line", "pretty", "json-lines",
    ],
)  # fmt: skip
def test_real_answers_are_understood(output: str, wanted: float | None) -> None:
    assert seconds(output) == (None if wanted is None else pytest.approx(wanted))


@pytest.mark.parametrize(
    "output",
    [
        b"", b"ok\n", answer("2 200", "x-ratelimit-remaining: 59", f"x-ratelimit-reset: {EPOCH + 60}").encode(),
        answer("2 502", "Retry-After: 0").encode(), answer("2 500", "Retry-After: -5").encode(),
        answer("2 504", "Retry-After: Fri, 01 Jan 2027 11:00:00 GMT").encode(),
        answer("2 403", "x-ratelimit-remaining: 0", f"x-ratelimit-reset: {EPOCH - 60}").encode(),
        answer("2 403", f"x-ratelimit-reset: {EPOCH + 60}").encode(),  # nothing says that nothing remains
        b'{"retry_after": null}', b'{"retry_after": true}', b'{"retry_after": {}}', b'{"retry_after": [5]}',
        b'{"retry_after": -1}', b'{"note": "retry_after: 5"}', b'{"retry_after": 5', b'{"remaining": 4, "reset": 30}',
    ],
)  # fmt: skip
def test_an_answer_without_a_delay_pushes_nothing_back(output: bytes) -> None:
    assert reading(output) == Reading()


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    "headers",
    [
        [], ["Retry-After: 0"], ["Retry-After: Fri, 01 Jan 2027 11:00:00 GMT"], ["x-ratelimit-remaining: 7"],
        ["x-ratelimit-remaining: 0"], ["x-ratelimit-remaining: 0", f"x-ratelimit-reset: {EPOCH - 60}"],
    ],
)  # fmt: skip
def test_a_refusal_without_a_delay_holds_by_the_repetitions(status: int, headers: list[str]) -> None:
    assert reading(answer(f"1.1 {status} x", *headers)) == Reading(PushBack("", status, None, None))


def test_a_refusal_holds_from_min_delay_to_max_delay_and_doubles() -> None:
    rule = HttpAware(max_delay=10 * SECOND)
    assert [holding(rule, k) / SECOND for k in (1, 2, 3, 4, 5, 6, 1000, 10**9)] == [1, 2, 4, 8, 10, 10, 10, 10]
    rule = HttpAware(max_delay=10 * SECOND, min_delay=3 * SECOND)
    assert [holding(rule, k) / SECOND for k in (1, 2, 3)] == [3, 6, 10]
    assert holding(HttpAware(max_delay=SECOND / 10), 1) == SECOND / 10


@pytest.mark.parametrize(
    ("output", "source", "value"),
    [
        (answer("2 502", "Retry-After: soon"), "Retry-After", "soon"),
        (answer("2 502", "Retry-After: nan"), "Retry-After", "nan"),
        (answer("2 502", "Retry-After: Fri, 01 Jan 2027 13:02:00 XYZT"), "Retry-After",
         "Fri, 01 Jan 2027 13:02:00 XYZT"),
        (answer("2 200", "x-ratelimit-remaining: 0", "x-ratelimit-reset: later\x07on"), "X-RateLimit-Reset",
         "later?on"),
        (answer("2 200", 'RateLimit: "a";r=0;t=?'), "RateLimit", "?"),
        ('{"retry_after": "never"}', "retry_after", "never"),
        ('{"remaining": 0, "reset": "' + "x" * 100 + '"}', "reset", "x" * 60),
    ],
)  # fmt: skip
def test_a_hint_that_cannot_be_read_is_reported(output: str, source: str, value: str) -> None:
    assert reading(output) == Reading(None, (Unreadable(source, value),))


def test_a_refusal_whose_hint_cannot_be_read_holds_by_the_repetitions() -> None:
    assert reading(answer("2 429", "Retry-After: soon")) == Reading(
        PushBack("", 429, None, None), (Unreadable("Retry-After", "soon"),)
    )


def test_the_delay_is_kept_within_the_bounds_of_the_job() -> None:
    rule = HttpAware(max_delay=20 * SECOND, min_delay=5 * SECOND)
    assert reading(SLACK, rule).push_back == PushBack("Retry-After", 429, 30 * SECOND, 20 * SECOND)
    assert reading(STRIPE, rule).push_back == PushBack("Retry-After", 429, 2 * SECOND, 5 * SECOND)
    assert reading("retry-after: 12", rule).push_back == PushBack("Retry-After", None, 12 * SECOND, 12 * SECOND)
    assert seconds("Retry-After: 99999999999999999999", HttpAware()) == 3600


def test_headers_and_json_are_read_only_if_they_shall_be() -> None:
    assert seconds(DISCORD, HttpAware(headers=False)) == 64.57
    assert seconds(DISCORD, HttpAware(json=False)) == 65
    assert seconds(DISCORD, HttpAware(headers=False, json=False)) == -1  # the status alone
    assert seconds(TELEGRAM, HttpAware(json=False)) is None


def test_an_answer_that_blames_the_request_needs_the_consent_of_the_job() -> None:
    blamed = answer("1.1 401 Unauthorized", "Retry-After: 30")
    assert seconds(blamed) is None
    assert seconds(blamed, HttpAware(trust_client=True)) == 30
    assert seconds(AWS_JSON, HttpAware(trust_client=True)) == 7


@pytest.mark.parametrize(
    ("field", "body"),
    [
        ("cooldown", {"cooldown": 33}),
        ("Cooldown", {"error": {"COOLDOWN": "33s"}}),
        ("quota.wait", {"data": [{"quota": {"wait": 33}}], "wait": 5}),
        ("wait_ms", {"wait_ms": 33000}),
        ("waitMillis", {"waitMillis": 33000}),
        ("cooldown:ms", {"cooldown": 33000}),
        ("quota.wait:us", {"quota": {"wait": 33_000_000}}),
        ("wait_minutes", {"wait_minutes": 0.55}),
        ("wait:m", {"wait": 0.55}),
        ("urn:wait:s", {"urn:wait": 33}),
        ("free_at", {"free_at": EPOCH + 33}),
        ("free_at", {"free_at": (EPOCH + 33) * 10**9}),
    ],
)
def test_a_field_of_ones_own_is_found_by_name_or_by_the_end_of_its_path(field: str, body: object) -> None:
    rule = HttpAware(fields=(field,))
    assert seconds(json.dumps(body), rule) == 33
    assert seconds(json.dumps(body), HttpAware()) is None


def test_a_field_of_ones_own_counts_before_the_usual_ones() -> None:
    assert seconds('{"retry_after": 5, "deep": {"mine": 8}}', HttpAware(fields=("mine",))) == 8


def test_headers_without_a_status_count_at_the_end_of_the_output_only() -> None:
    assert seconds(b"Retry-After: 5\n" + b"x\n" * KEPT) is None
    assert seconds(b"x\n" * KEPT + b"Retry-After: 5\n") == 5


def test_json_counts_in_an_answer_that_refused_or_has_no_status() -> None:
    body = {"retry_after": 9}
    assert [seconds(answer(f"1.1 {status} x", body=body)) for status in (200, 202, 304)] == [None] * 3
    assert [seconds(answer(f"1.1 {status} x", body=body)) for status in (403, 429, 500, 503)] == [9] * 4
    assert seconds(json.dumps(body)) == 9
    everywhere = HttpAware(json_on_success=True)
    assert seconds(answer("2 200", body=body), everywhere) == 9
    assert seconds(GITHUB_GRAPHQL, everywhere) == 600


@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "Infinity", "1e400"])
def test_a_delay_that_is_not_a_finite_number_is_reported_and_not_obeyed(value: str) -> None:
    assert reading(answer("2 502", f"Retry-After: {value}")) == Reading(None, (Unreadable("Retry-After", value),))
    assert seconds(answer("2 429", f"Retry-After: {value}")) == -1


@pytest.mark.parametrize("value", ["Infinity", "-Infinity", "NaN", "1e400"])
def test_a_field_that_is_not_a_finite_number_is_reported_and_not_obeyed(value: str) -> None:
    found = reading(f'{{"retry_after": {value}}}')
    assert found.push_back is None
    assert [one.source for one in found.unreadable] == ["retry_after"]


@pytest.mark.parametrize("value", ["-1", "-0.5", "-1e50", "-" + "9" * 400, '"-1"'])
def test_a_negative_delay_is_ignored(value: str) -> None:
    assert reading(f'{{"retry_after": {value}}}') == Reading()
    assert reading(answer("2 502", f"Retry-After: {value}")).push_back is None


@pytest.mark.parametrize("value", ["1e50", "9" * 400])
def test_a_delay_of_ages_is_the_longest(value: str) -> None:
    assert seconds(f'{{"retry_after": {value}}}', HttpAware()) == 3600


@pytest.mark.parametrize(
    ("reset", "wanted"),
    [([30], None), ({"seconds": 30}, None), (True, None), (None, None), (30, 30), ("30", 30)],
)
def test_the_reset_of_a_used_up_table_is_a_number_or_a_text(reset: object, wanted: float | None) -> None:
    assert seconds(json.dumps({"remaining": 0, "reset_in": reset})) == wanted
    assert reading(json.dumps({"remaining": 0, "reset_in": reset})).unreadable == ()
    assert seconds(json.dumps({"remaining": 0, "reset_in": reset, "reset": 40})) == (wanted or 40)


SMALL = '{"a": 1}'


@pytest.mark.parametrize(
    "output",
    [
        '{"retry_after": 7}\n' + f"{SMALL}\n" * 5,
        f"{SMALL}\n" * 5 + '{"retry_after": 7}\n',
        f"got {SMALL * 5}\n" + '{"retry_after": 7}\n' + f"got {SMALL * 5}\n",
        "got 429 " + '{"retry_after": 7} ' + f"{SMALL} " * 5,
        "got 429 " + '{"retry_after": 7, "limits": [' + ", ".join([SMALL] * 5) + "]}",
        "got 429 " + '{"limits": [' + ", ".join([SMALL] * 5) + '], "retry_after": 7}',
    ],
    ids=["lines-after", "lines-before", "between", "same-line", "within", "within-before"],
)
def test_a_field_is_found_beside_five_small_objects(output: str) -> None:
    assert seconds(output) == 7


HOSTILE = [
    b"[" * KEPT,
    b'{"a":' * (KEPT // 5),
    b'{"' * (KEPT // 2),
    b"[\n" * (KEPT // 2),
    b" " * KEPT,
    b"<" * KEPT,
    b"HTTP/1.1 429\n" * (KEPT // 13),
    b"Retry-After: " + b"9" * KEPT,
    b'{"retry_after": ' + b"9" * 60_000 + b"}",
    b'{"retry_after": 1e999}',
    b"RateLimit: " + b"r=0;t=" * 10_000,
    b"RateLimit: " + b"a" * KEPT,
    b'{"x": [' + b"{}," * 20_000 + b"{}]}",
    json.dumps({f"k{number}": {"remaining": 0} for number in range(3000)}).encode()[:KEPT],
    b"\xff" * KEPT,
    b"Date: 99999999999999\nRetry-After: 9999-99-99T99:99:99\n",
    b"Retry-After: Mon, 00 Jan 99999999 00:00:00 GMT\n",
    b"Retry-After: 0001-01-01T00:00:00+23:59\n",
]


@pytest.mark.parametrize("output", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_output_is_read_in_bounded_time(output: bytes) -> None:
    began = time.process_time()
    reading(output)
    assert time.process_time() - began < 1


PIECES = st.sampled_from(
    [
        "HTTP/1.1 429 x\r\n", "HTTP/2 503\n", "Retry-After: ", "X-RateLimit-Reset: ", "x-ratelimit-remaining: 0\n",
        'RateLimit: "a";r=0;t=', '{"retry_after": ', '{"a": [', "}", "]", '"', "\n", "5", "-1", "1e308", "nan", "1h", ",",
        "Fri, 01 Jan 2027 12:02:00 GMT", "2027-01-01T12:00:00", '{"remaining": 0, "reset": ', "\x00", "é", "\u2028",
    ]
)  # fmt: skip


@given(st.binary(max_size=2000) | st.lists(PIECES, max_size=40).map(lambda parts: "".join(parts).encode()))
@example(b'{"retry_after": "1e400"}')
@example(b"Retry-After: 1e300\n")
def test_no_output_makes_it_raise_or_exceed_its_bounds(output: bytes) -> None:
    rule = HttpAware(max_delay=60 * SECOND, min_delay=SECOND)
    found = reading(output, rule).push_back
    assert found is None or found.given is None or SECOND <= found.given <= 60 * SECOND
    assert found is None or found.source.isprintable()
