"""Answers as real services give them when they want to be left alone, from a local server, fetched by curl."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.cli.conftest import Rpr

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")

Answer = tuple[int, dict[str, str], Any]
JSON = {"content-type": "application/json; charset=utf-8"}

# each asks for a second or a little more; a reset is told in whole seconds since 1970
ANSWERS: dict[str, Callable[[], Answer]] = {
    "github": lambda: (
        403,
        JSON | {"server": "github.com", "x-ratelimit-limit": "60", "x-ratelimit-remaining": "0",
                "x-ratelimit-reset": str(int(time.time()) + 2), "x-ratelimit-used": "60", "x-ratelimit-resource": "core"},
        {"message": "API rate limit exceeded for 192.0.2.7.", "documentation_url": "https://docs.github.com/rest"},
    ),
    "github-secondary": lambda: (
        403,
        JSON | {"retry-after": "1", "x-ratelimit-limit": "5000", "x-ratelimit-remaining": "4890"},
        {"message": "You have exceeded a secondary rate limit."},
    ),
    "slack": lambda: (429, JSON | {"Retry-After": "1"}, {"ok": False, "error": "ratelimited"}),
    "discord": lambda: (
        429,
        JSON | {"Retry-After": "2", "X-RateLimit-Limit": "5", "X-RateLimit-Remaining": "0",
                "X-RateLimit-Reset-After": "1.05", "X-RateLimit-Bucket": "abcd1234", "X-RateLimit-Scope": "user"},
        {"message": "You are being rate limited.", "retry_after": 1.05, "global": False},
    ),
    "stripe": lambda: (
        429,
        JSON | {"retry-after": "1", "stripe-rate-limited-reason": "global-rate", "request-id": "req_1"},
        {"error": {"type": "invalid_request_error", "code": "rate_limit", "message": "Request rate limit exceeded."}},
    ),
    "aws": lambda: (
        429,
        JSON | {"x-amzn-RequestId": "8b0b", "x-amzn-ErrorType": "TooManyRequestsException"},
        {"Reason": "ReservedFunctionConcurrentInvocationLimitExceeded", "message": "Rate Exceeded.",
         "retryAfterSeconds": "1"},
    ),
}  # fmt: skip


class Service(BaseHTTPRequestHandler):
    """The first request of each path is pushed back, as its first part says; all others are well."""

    times: dict[str, list[float]]

    def do_GET(self) -> None:
        came = self.times.setdefault(self.path, [])
        came.append(time.monotonic())
        status, headers, body = ANSWERS[self.path.split("/")[1]]() if len(came) == 1 else (200, JSON, {"ok": True})
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def service() -> Iterator[tuple[str, dict[str, list[float]]]]:
    times: dict[str, list[float]] = {}
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), type("Own", (Service,), {"times": times}))
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}", times
    httpd.shutdown()
    thread.join()
    httpd.server_close()


@pytest.mark.slow
def test_answers_of_real_services_delay_the_next_start(rpr: Rpr, service: tuple[str, dict[str, list[float]]]) -> None:
    url, times = service
    asked = [(f"/{name}/{how}", how) for name in ANSWERS for how in ("-si", "-sv")]
    asked += [("/discord/-s", "-s"), ("/aws/-s", "-s")]  # those that say it in the body, too
    running = {
        path: rpr.start("i", "-e", "10ms", "-t", "2", "--http-aware", "-v", "--", "curl", how, url + path)
        for path, how in asked
    }
    for path, process in running.items():
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, path
        assert '{"ok": true}' in out, path
        assert "pushed back: " in err, path
        first, second = times[path]
        assert second - first >= 0.9, path


def test_an_answer_that_is_well_holds_nothing(rpr: Rpr, service: tuple[str, dict[str, list[float]]]) -> None:
    url, times = service
    times["/slack/again"] = [0.0]
    done = rpr("c", "-t", "3", "--http-aware", "-v", "--", "curl", "-si", f"{url}/slack/again")
    assert done.code == 0
    assert "pushed back" not in done.err
    assert len(times["/slack/again"]) == 4


def test_no_wait_is_longer_than_the_job_allows(rpr: Rpr, service: tuple[str, dict[str, list[float]]]) -> None:
    url, times = service
    words = ["--http-aware", "--http-max-delay", "100ms", "-v", "--", "curl", "-si", f"{url}/slack/short"]
    assert "`max_delay` makes it 100ms" in rpr("i", "-e", "10ms", "-t", "2", *words).err
    first, second = times["/slack/short"]
    assert second - first >= 0.09
