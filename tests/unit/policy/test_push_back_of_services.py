"""What the public services of a table answer when a client is too fast, and the delay that follows.

The facts are the names of the headers and fields and the form of their values, as the services document them.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from repeater.model.spec import HttpAware
from repeater.policy.http_aware import read_hints
from tests.unit.policy.answers import read_answer

NOW = datetime(2027, 1, 1, 12, 0, 0, tzinfo=UTC)
EPOCH = int(NOW.timestamp())
RULE = HttpAware(max_delay=timedelta(days=2))
NO_DELAY_NAMED = -1

SERVICES: dict[str, tuple[int, dict[str, Any], Any, float | None]] = {
    "airtable": (429, {}, {"errors": [{"error": "RATE_LIMIT_REACHED"}]}, NO_DELAY_NAMED),
    "anthropic": (
        429,
        {
            "anthropic-ratelimit-requests-limit": 50,
            "anthropic-ratelimit-requests-remaining": 49,
            "anthropic-ratelimit-requests-reset": "2027-01-01T12:00:01Z",
            "anthropic-ratelimit-input-tokens-limit": 50000,
            "anthropic-ratelimit-input-tokens-remaining": 0,
            "anthropic-ratelimit-input-tokens-reset": "2027-01-01T12:00:47Z",
        },
        {"type": "error", "error": {"type": "rate_limit_error"}},
        47,
    ),
    "asana": (429, {"Retry-After": 30}, {"errors": [{"message": "Rate limit exceeded"}]}, 30),
    "aws lambda": (429, {"Retry-After": 1}, {"retryAfterSeconds": "1"}, 1),
    "azure openai": (429, {"retry-after": 2, "retry-after-ms": 1434, "x-ratelimit-remaining-requests": 12}, "", 1.434),
    "binance": (418, {"Retry-After": 86400, "x-mbx-used-weight-1m": 6001}, {"code": -1003}, 86400),
    "cloudflare": (
        429,
        {"Ratelimit": '"default";r=0;t=264', "Ratelimit-Policy": '"default";q=1200;w=300', "retry-after": 264},
        {"success": False, "errors": [{"code": 971}]},
        264,
    ),
    "discord": (
        429,
        {"Retry-After": 65, "X-RateLimit-Remaining": 0, "X-RateLimit-Reset": EPOCH + 64.57,
         "X-RateLimit-Reset-After": 64.57},
        {"retry_after": 64.57, "global": False},
        65,
    ),
    "docker hub": (
        429,
        {"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "0;w=21600", "docker-ratelimit-source": "192.0.2.7"},
        {"errors": [{"code": "TOOMANYREQUESTS"}]},
        NO_DELAY_NAMED,
    ),
    "dropbox": (429, {"Retry-After": 300}, {"error": {"reason": {".tag": "too_many_requests"}, "retry_after": 300}}, 300),
    "gemini": (
        429,
        {},
        {"error": {"code": 429, "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo",
                                             "retryDelay": "34.074824224s"}]}},
        34.074824,
    ),
    "github": (
        403,
        {"x-ratelimit-limit": 60, "x-ratelimit-remaining": 0, "x-ratelimit-reset": EPOCH + 1800,
         "x-ratelimit-used": 60},
        {"message": "API rate limit exceeded"},
        1800,
    ),
    "gitlab": (
        429,
        {"RateLimit-Limit": 60, "RateLimit-Name": "throttle_web", "RateLimit-Observed": 67, "RateLimit-Remaining": 0,
         "RateLimit-Reset": EPOCH + 30, "RateLimit-ResetTime": "Fri, 01 Jan 2027 12:00:30 GMT", "Retry-After": 30},
        "Retry later",
        30,
    ),
    "groq": (
        429,
        {"retry-after": 2, "x-ratelimit-remaining-requests": 14370, "x-ratelimit-remaining-tokens": 0,
         "x-ratelimit-reset-requests": "2m59.56s", "x-ratelimit-reset-tokens": "7.66s"},
        "",
        2,
    ),
    "help scout": (429, {"X-RateLimit-Limit-Minute": 400, "X-RateLimit-Remaining-Minute": 0,
                         "X-RateLimit-Retry-After": 12}, "", 12),
    "jira": (
        429,
        {"X-RateLimit-Limit": 350, "X-RateLimit-Remaining": 0, "X-RateLimit-Reset": "2027-01-01T12:05Z"},
        "",
        300,
    ),
    "lemlist": (
        429,
        {"X-RateLimit-Remaining": 0,
         "X-RateLimit-Reset": "Fri Jan 01 2027 13:00:02 GMT+0100 (Central European Standard Time)"},
        "",
        2,
    ),
    "linear": (
        400,
        {"X-RateLimit-Requests-Remaining": 0, "X-RateLimit-Requests-Reset": (EPOCH + 90) * 1000},
        {"errors": [{"extensions": {"code": "RATELIMITED"}}]},
        None,  # an answer that blames the request
    ),
    "monday": (429, {}, {"error_code": "ComplexityException", "error_data": {"retry_in_seconds": 20}}, 20),
    "notion": (429, {"Retry-After": 1}, {"object": "error", "status": 429, "code": "rate_limited"}, 1),
    "okta": (429, {"X-Rate-Limit-Limit": 600, "X-Rate-Limit-Remaining": 0, "X-Rate-Limit-Reset": EPOCH + 21}, "", 21),
    "openai": (
        429,
        {"x-ratelimit-remaining-requests": 0, "x-ratelimit-remaining-tokens": 149984,
         "x-ratelimit-reset-requests": "6m0s", "x-ratelimit-reset-tokens": "6ms"},
        "",
        360,
    ),
    "pagerduty": (429, {"ratelimit-limit": 960, "ratelimit-remaining": 0, "ratelimit-reset": 17}, "", 17),
    "prisjakt": (429, {"X-Rate-Limit-Remaining": 0, "X-Rate-Limit-Reset": "600000ms"}, "", 600),
    "reddit": (429, {"x-ratelimit-remaining": 0.0, "x-ratelimit-reset": 253, "x-ratelimit-used": 100}, "", 253),
    "sentry": (429, {"X-Sentry-Rate-Limit-Limit": 40, "X-Sentry-Rate-Limit-Remaining": 0,
                     "X-Sentry-Rate-Limit-Reset": EPOCH + 1}, "", 1),
    "shopify": (429, {"Retry-After": "2.0", "X-Shopify-Shop-Api-Call-Limit": "40/40"}, {"errors": "Exceeded"}, 2),
    "slack": (429, {"Retry-After": 30}, {"ok": False, "error": "ratelimited"}, 30),
    "spotify": (429, {"retry-after": 86000}, {"error": {"status": 429}}, 86000),
    "stripe": (429, {"stripe-rate-limited-reason": "global-rate", "retry-after": 2}, {"error": {}}, 2),
    "telegram": (429, {}, {"ok": False, "error_code": 429, "parameters": {"retry_after": 17}}, 17),
    "twitch": (429, {"Ratelimit-Limit": 800, "Ratelimit-Remaining": 0, "Ratelimit-Reset": EPOCH + 8}, "", 8),
    "wikipedia": (503, {"Retry-After": 5, "x-database-lag": 7}, {"error": {"code": "maxlag"}}, 5),
    "x": (429, {"x-rate-limit-limit": 900, "x-rate-limit-remaining": 0, "x-rate-limit-reset": EPOCH + 120}, "", 120),
    "zendesk": (429, {"X-Rate-Limit": 700, "ratelimit-remaining": 0, "ratelimit-reset": 41, "Retry-After": 41}, "", 41),
}  # fmt: skip


def printed(how: str, status: int, headers: dict[str, Any], body: Any) -> bytes:
    """As the client prints it."""
    text = body if isinstance(body, str) else json.dumps(body)
    head = [
        f"HTTP/2 {status} ",
        "date: Fri, 01 Jan 2027 12:00:00 GMT",
        *(f"{name}: {headers[name]}" for name in headers),
    ]
    match how:
        case "curl -i":
            return "\r\n".join([*head, "", text]).encode()
        case "curl -v":
            return "".join(f"< {line}\r\n" for line in [*head, ""]).encode() + text.encode()
        case "curl -i in a terminal":
            bold = [head[0], *("\x1b[1m{}\x1b[0m:{}".format(*line.split(":", 1)) for line in head[1:])]
            return "\r\r\n".join([*bold, "", text.replace("\n", "\r\n")]).encode()
        case "wget -S":
            return "".join(f"  {line}\n" for line in head).encode() + text.encode()
        case _:
            return "\n".join([*head, "", text, "", ""]).encode()


@pytest.mark.parametrize("how", ["curl -i", "curl -v", "curl -i in a terminal", "wget -S", "http"])
@pytest.mark.parametrize("service", SERVICES)
def test_the_answers_of_services_are_understood(service: str, how: str) -> None:
    status, headers, body, wanted = SERVICES[service]
    reading = read_hints(RULE, read_answer(printed(how, status, headers, body)), NOW)
    assert reading.unreadable == ()
    found = reading.push_back
    if wanted is None:
        assert found is None
    elif wanted == NO_DELAY_NAMED:
        assert found is not None
        assert (found.asked, found.given, found.status) == (None, None, status)
    else:
        assert found is not None
        assert found.given is not None
        assert found.given.total_seconds() == pytest.approx(wanted)


def test_at_least_twenty_services_are_tried() -> None:
    assert len(SERVICES) >= 20
