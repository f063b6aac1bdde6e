"""Limits, push-back and adapting intervals through the real `rpr`, with a real server."""

from __future__ import annotations

import json
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tests.cli.conftest import Rpr
from tests.cli.test_apply import Live, live, wait_for

__all__ = ["live"]


class Pushing(BaseHTTPRequestHandler):
    """Says 429 to the first request and 200 to all others."""

    times: list[float]

    def do_GET(self) -> None:
        self.times.append(time.monotonic())
        body = b'{"message": "slow down", "retry_after": 1}' if len(self.times) == 1 else b"{}"
        self.send_response(429 if len(self.times) == 1 else 200)
        if self.path == "/headers" and len(self.times) == 1:
            self.send_header("Retry-After", "1")
            body = b"slow down"
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[str, list[float]]]:
    times: list[float] = []
    httpd = HTTPServer(("127.0.0.1", 0), type("Own", (Pushing,), {"times": times}))
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}", times
    httpd.shutdown()
    thread.join()
    httpd.server_close()


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize(("path", "how"), [("headers", "-si"), ("headers", "-sv"), ("json", "-s")])
def test_a_retry_after_of_a_server_delays_the_next_start(
    rpr: Rpr, server: tuple[str, list[float]], path: str, how: str
) -> None:
    url, times = server
    rpr.write(
        "jobs.toml",
        f"""
        [jobs.poll]
        command = ["curl", "{how}", "{url}/{path}"]
        schedule = "every 200ms"
        http_aware = true
        stop = {{ times = 2 }}
        """,
    )
    result = rpr("apply", "--ephemeral", "jobs.toml")
    assert result.code == 0, result.err
    assert len(times) == 2
    assert times[1] - times[0] >= 0.9
    assert "pushed back: `" in result.err


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_a_one_off_command_obeys_push_back_too(rpr: Rpr, server: tuple[str, list[float]]) -> None:
    url, times = server
    result = rpr("interval", "-e", "200ms", "-t", "2", "--http-aware", "--", "curl", "-si", f"{url}/headers")
    assert result.code == 0
    assert times[1] - times[0] >= 0.9


def test_a_limit_holds_the_starts_of_all_its_jobs(rpr: Rpr) -> None:
    rpr.write(
        "jobs.toml",
        """
        [limits.api]
        rate = "2/700ms"
        [defaults]
        limit = "api"
        schedule = "every 100ms"
        overlap = "latest"
        stop = { times = 3 }
        [jobs]
        a = { command = "date +%s.%N >> starts" }
        b = { command = "date +%s.%N >> starts" }
        """,
    )
    result = rpr("apply", "--ephemeral", "jobs.toml")
    assert result.code == 0, result.err
    assert "limit `api` allows 2 starts in 700ms, its jobs ask for 14" in result.err
    starts = sorted(map(float, (rpr.folder / "starts").read_text().split()))
    assert len(starts) == 6
    # what `date` shows lags behind the start by what a shell takes to begin
    assert all(late - early >= 0.6 for early, late in zip(starts, starts[2:], strict=False))


def test_validate_names_the_jobs_that_a_limit_cannot_hold(rpr: Rpr) -> None:
    rpr.write(
        "jobs.toml", '[limits.api]\nrate = "1/1m"\n[jobs.a]\ncommand = "true"\nschedule = "every 30s"\nlimit = "api"\n'
    )
    words = "limit `api` allows 1 starts in 1m, its jobs ask for 2: `a` 2"
    told = f"warning: limits.api.rate: {words}"
    rpr("validate", "jobs.toml").is_(out="jobs.toml: 1 job, ok\n", err=f"jobs.toml:2:1: {told}\n")
    (warning,) = json.loads(rpr("validate", "--format", "json", "jobs.toml").out)["warnings"]
    assert (warning["line"], warning["key"], warning["message"]) == (2, "limits.api.rate", words)
    assert rpr("validate", "--format", "github", "jobs.toml").out == (
        f"::warning file=jobs.toml,line=2,col=1::limits.api.rate: {words}\n"
    )


def test_next_shows_in_text_what_time_alone_does_not_decide(rpr: Rpr) -> None:
    rpr.write(
        "jobs.toml",
        """
        [jobs]
        a = { command = "x", schedule = { rate = "5/1h" } }
        b = { command = "x", schedule = { adaptive = { base = "10s" } } }
        c = { command = "x", schedule = { load = { base = "10s" } } }
        """,
    )
    at_once = "  2026-11-24 12:00:00Z  2026-11-24 12:00:00 +00:00  (at once)\n"
    rpr("next", "jobs.toml", "--from", "2026-11-24T12:00:00Z").is_(
        out=f"a{at_once}   then as often as 5/1h allows\n"
        f"b{at_once}   then 100ms to 1m after the end of each run, adapting to the latency of its runs\n"
        f"c{at_once}   then 10s to 1m after the end of each run, adapting to the machine load\n"
    )


def test_every_change_of_an_adapting_interval_is_logged_on_request(rpr: Rpr) -> None:
    result = rpr("adaptive", "-b", "20ms", "--max-interval", "80ms", "-t", "3", "--show-metrics", "--", "false")
    lines = result.err.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["rpr"] * len(lines)
    assert lines[0].startswith("rpr: every 40ms: the run failed: slower (success ")
    assert any("the circuit is open" in line for line in lines)
    assert re.fullmatch(r"rpr: planned 3, skipped 0, interval 80ms, average interval \S+s", lines[-1])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_a_push_back_holds_over_a_restart_of_the_supervisor(
    rpr: Rpr, live: Callable[..., Live], number: signal.Signals
) -> None:
    rpr.write(
        "jobs.toml",
        """
        [jobs.poll]
        command = "echo start >> effects; printf 'HTTP/1.1 503 x\\\\r\\\\nRetry-After: 3000\\\\r\\\\n\\\\r\\\\n'"
        schedule = "every 50ms"
        http_aware = true
        [jobs.tick]
        command = "echo tick"
        schedule = "every 50ms"
        """,
    )
    first = live("jobs.toml", "-v")
    first.until_err("pushed back: ")
    wait_for(lambda: "success" in rpr("history", "poll", "--json").out, "the run is recorded")
    first.process.send_signal(number)
    first.leaves()
    second = live("jobs.toml", "-v")
    wait_for(lambda: "asks for 50m" in rpr("why", "poll").out, "the job is held")
    second.until_out("tick", second.out.count("tick") + 5)
    assert (rpr.folder / "effects").read_text() == "start\n"


def test_a_hint_that_cannot_be_read_is_an_event(rpr: Rpr) -> None:
    rpr.write(
        "jobs.toml",
        """
        [jobs.poll]
        command = "printf 'HTTP/1.1 500 x\\\\r\\\\nRetry-After: soon\\\\r\\\\n\\\\r\\\\n'"
        http_aware = true
        """,
    )
    done = rpr("apply", "--ephemeral", "jobs.toml")
    assert "cannot read the delay in `Retry-After`: `soon`" in done.err
