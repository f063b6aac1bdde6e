"""HTTP through the real `rpr`: doors, the token, streams, bounds, and what it must never do to the jobs."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Rpr
from tests.cli.test_apply import Live, wait_for

JOBS = """
project = "shop"

[jobs.tick]
command = "echo tick"
schedule = "every 1h"
labels = { team = "a" }

[jobs.web]
command = "echo up; exec sleep 600"
schedule = "always"

[jobs.cell]
matrix = { url = ["a/b", "eu:1"] }
command = "true"
schedule = "manual"
"""


class Site:
    """A supervisor with HTTP, in the foreground."""

    def __init__(self, rpr: Rpr, *args: str, jobs: str = JOBS) -> None:
        self.rpr = rpr
        rpr.write("jobs.toml", jobs)
        self.live = Live(rpr, "--http", "127.0.0.1:0", *args, "jobs.toml")
        self.port = 0
        self.token = ""

    def is_up(self) -> bool:
        if self.live.process.poll() is not None:
            raise AssertionError(self.live.err)
        found = re.search(r"rpr: http://127\.0\.0\.1:(\d+), token in `([^`]+)`", self.live.err)
        if found is None:
            return False
        self.port, where = int(found[1]), found[2]
        self.token = self.rpr.env[where] if where in self.rpr.env else Path(where).read_text().strip()
        return True

    def open(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Status and body, read as JSON where it is."""
        given = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json", **headers}
        with closing(self.open()) as connection:
            connection.request(method, path, None if method == "GET" else json.dumps(body or {}), given)
            reply = connection.getresponse()
            text = reply.read().decode()
        return reply.status, json.loads(text) if reply.headers["content-type"] == "application/json" else text

    def stream(self, path: str) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        connection = self.open()
        connection.request("GET", path, headers={"Authorization": f"Bearer {self.token}"})
        return connection, connection.getresponse()


@pytest.fixture
def site(rpr: Rpr) -> Iterator[Callable[..., Site]]:
    (rpr.folder / ".run").mkdir(mode=0o700)
    built: list[Site] = []

    def build(*args: str, **more: Any) -> Site:
        built.append(Site(rpr, *args, **more))
        wait_for(built[-1].is_up, lambda: f"words of HTTP in {built[-1].live.err!r}")
        return built[-1]

    yield build
    for one in built:
        one.live.process.send_signal(signal.SIGTERM)
        one.live.process.send_signal(signal.SIGINT)
        try:
            one.live.process.wait(60)
        finally:
            one.live.process.kill()
            one.live.process.wait()


def datas(reply: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    while line := reply.readline():
        if line.startswith(b"data: "):
            yield json.loads(line[6:])


# --- use ------------------------------------------------------------------------------------------------------------


def test_jobs_are_shown_and_controlled_over_http(site: Callable[..., Site]) -> None:
    web = site()
    assert web("GET", "/livez") == (200, "ok\n")
    assert web("GET", "/readyz") == (200, "ok\n")
    status, found = web("GET", "/api/jobs?jobs=team%3Da")
    assert (status, [item["job"] for item in found["items"]]) == (200, ["tick"])
    wait_for(lambda: web("GET", "/api/jobs/tick")[1]["state"] == "scheduled", "the end of its first run")
    status, found = web("POST", "/api/jobs/tick/trigger")
    assert (status, found["items"][0]["result"]) == (200, "started")
    run = found["items"][0]["run"]
    wait_for(lambda: web("GET", f"/api/logs?run={run}")[1].get("items"), "output")
    assert web("GET", "/api/jobs/cell%5Burl=a%2Fb%5D")[1]["job"] == "cell[url=a/b]"
    assert web("GET", "/api/jobs/cell%5Burl=eu%3A1%5D")[0] == 200
    assert len(web("POST", "/api/jobs/cell/trigger")[1]["items"]) == 2
    assert web("GET", "/api/jobs/cell")[0] == 404
    status, found = web("GET", "/api/jobs/tik")
    assert (status, found["error"]["message"]) == (404, "cannot find job `tik`: did you mean `tick`?")
    assert web("GET", "/api/jobs/tick/why")[1]["job"] == "tick"
    assert web("GET", "/api/jobs/tick/history?limit=1")[1]["rows"] == 1


def test_files_are_planned_and_applied_over_http(site: Callable[..., Site]) -> None:
    web = site("--no-watch")
    path = web.rpr.write("jobs.toml", JOBS.replace("every 1h", "every 2h"))
    status, found = web("POST", "/api/plan", {"files": [str(path)]})
    assert (status, found["items"][0]["job"], found["generation"]) == (200, "tick", 2)
    assert web("GET", "/api/health")[1]["generation"] == 1
    assert web("POST", "/api/apply", {"files": [str(path)]})[1]["changed"] == 1
    assert web("POST", "/api/reload")[1] == {
        "items": [], "generation": 2, "changed": 0, "unchanged": 4, "pools": [], "limits": [],
    }  # fmt: skip
    web.rpr.write("jobs.toml", "[jobs.x]\n")
    status, found = web("POST", "/api/reload")
    assert (status, "command" in found["error"]["message"]) == (422, True)
    assert web("GET", "/readyz")[0] == 200, "the last valid files are still active"
    status, found = web("GET", "/healthz")
    assert (status, found["ok"], found["ready"], "rejected" in found["problems"][0]) == (503, False, True, True)
    web.rpr.write("jobs.toml", 'project = "shop"\n[jobs.tick]\ncommand = "true"\n')
    assert web("POST", "/api/reload")[0] == 409
    assert web("POST", "/api/down", {"level": "stop"})[0] == 200
    assert web.live.leaves() == 0


def test_events_are_streamed_live_until_the_supervisor_exits(site: Callable[..., Site]) -> None:
    web = site()
    connection, reply = web.stream("/api/events?jobs=cell")
    assert reply.headers["content-type"] == "text/event-stream"
    assert reply.readline() == b": \n"
    web("POST", "/api/trigger", {"jobs": ["cell[url=a/b]"]})
    seen = []
    for item in datas(reply):
        seen.append(item["event"])
        if item["event"] == "slot_decided":
            break
    assert seen[:2] == ["run_started", "run_finished"]
    other, logs = web.stream("/api/jobs/tick/logs?follow=true&tail=1")
    assert next(datas(logs))["text"] == "tick\n"
    web.live.process.send_signal(signal.SIGTERM)
    web.live.process.send_signal(signal.SIGTERM)
    assert web.live.leaves() == 0
    with suppress(http.client.IncompleteRead, ConnectionError):
        assert reply.read() is not None
    for one in (reply, logs, connection, other):
        one.close()


def test_an_order_that_ends_the_supervisor_is_answered_before_it_exits(site: Callable[..., Site]) -> None:
    there = site(jobs='project = "shop"\n[jobs.one]\ncommand = "true"\nschedule = "every 1h"\n')
    status, answer = there("POST", "/api/jobs/one/stop")
    assert (status, [item["job"] for item in answer["items"]]) == (200, ["one"])
    assert there.live.process.wait(20) == 0


def test_signals_stay_those_of_the_supervisor(site: Callable[..., Site]) -> None:
    web = site()
    web.live.process.send_signal(signal.SIGINT)
    web.live.until_err("waiting for")
    web.live.process.send_signal(signal.SIGINT)
    assert web.live.leaves() == 130


def test_metrics_are_served(site: Callable[..., Site]) -> None:
    web = site()
    web("POST", "/api/jobs/tick/trigger")

    def counted() -> bool:
        text = web("GET", "/metrics")[1]
        return 'repeater_runs_total{job="tick",outcome="success"}' in text and 'live{job="web"} 1.0' in text

    wait_for(counted, "a counted run")
    text = web("GET", "/metrics")[1]
    assert "repeater_config_generation 1.0" in text
    web.rpr.write("jobs.toml", JOBS.replace("[jobs.tick]", "[jobs.tock]"))
    web.live.until_err("generation 2 active")
    text = web("GET", "/metrics")[1]
    assert 'job="tick"' not in text
    assert 'job="tock"' in text


# --- the token, the address -----------------------------------------------------------------------------------------


def test_the_token_is_in_a_file_of_ours_alone_and_in_no_argument(site: Callable[..., Site]) -> None:
    web = site()
    path = web.rpr.folder / ".state/repeater/shop/http-token"
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(web.token) >= 32
    assert web.token not in Path(f"/proc/{web.live.process.pid}/cmdline").read_text()
    assert web.token not in web.live.err
    assert web("GET", "/api/jobs", Authorization="Bearer wrong")[0] == 401
    assert web("GET", "/metrics", Authorization="")[0] == 401


def test_a_token_of_the_environment_is_taken_and_kept_from_jobs(rpr: Rpr, site: Callable[..., Site]) -> None:
    rpr.env["RPR_HTTP_TOKEN"] = "a-token-of-somebody"
    web = site("--ephemeral", jobs='[jobs.a]\ncommand = "env"\nschedule = "every 1h"\n')
    web.live.until_out("RPR_JOB=a")
    assert "RPR_HTTP_TOKEN" not in web.live.out
    assert web("GET", "/api/jobs")[0] == 200


@pytest.mark.parametrize(
    ("args", "env", "message", "code"),
    [
        (("--http", "0.0.0.0:0"), {}, "cannot serve HTTP at `0.0.0.0:0`: other machines could reach it", 2),
        (("--http", "8.8"), {}, "cannot use `--http 8.8`: expected a port, `HOST:PORT` or `[V6]:PORT`", 2),
        (("--http", "::1:80"), {}, "cannot use `--http ::1:80`: expected a port", 2),
        (("--http", "localhost:99999"), {}, "expected a port", 2),
        (("--http", "0", "--ephemeral"), {}, "without a state directory there is no file for the token", 2),
        (("--http", "0"), {"RPR_HTTP_TOKEN": "short"}, "expected 16 to 4096 visible ASCII characters", 2),
        (("--http", "0", "--http-token-file", "nowhere"), {}, "cannot read the token in `nowhere`", 1),
        (("--http", "nobody.invalid:80"), {}, "cannot serve HTTP at `nobody.invalid:80`", 1),
        (("--allow-remote",), {}, "cannot use `--allow-remote`: it requires `--http`", 2),
    ],
)
def test_a_server_that_cannot_start_is_reported_and_no_job_runs(
    rpr: Rpr, args: tuple[str, ...], env: dict[str, str], message: str, code: int
) -> None:
    rpr.write("jobs.toml", '[jobs.a]\ncommand = "touch ran"\n')
    done = rpr("apply", *args, "jobs.toml", env=env)
    assert (done.code, message in done.err) == (code, True), done.err
    assert not (rpr.folder / "ran").exists()


def test_a_supervisor_that_runs_takes_files_over_but_no_other_address(site: Callable[..., Site]) -> None:
    web = site()
    done = web.rpr("apply", "--http", "127.0.0.1:1", "jobs.toml")
    assert (done.code, "cannot use `--http`: the supervisor is already running" in done.err) == (2, True)
    assert web.rpr("apply", "jobs.toml", env={"RPR_HTTP": "127.0.0.1:1"}).code == 0


def test_after_a_crash_the_next_one_has_the_same_address_and_token(rpr: Rpr, site: Callable[..., Site]) -> None:
    web = site()
    web.live.process.kill()
    web.live.process.wait()
    again = Site(rpr, "--http", f"127.0.0.1:{web.port}")
    try:
        wait_for(again.is_up, lambda: again.live.err)
        assert (again.port, again.token) == (web.port, web.token)
        assert again("GET", "/livez") == (200, "ok\n")
    finally:
        again.live.process.send_signal(signal.SIGTERM)
        again.live.process.send_signal(signal.SIGINT)
        again.live.process.wait(60)


def test_a_port_in_use_is_reported_also_by_detach(rpr: Rpr, site: Callable[..., Site]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        rpr.write("other.toml", '[jobs.a]\ncommand = "true"\n')
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for more in ((), ("-d",)):
            done = rpr("apply", *more, "--http", address, "other.toml")
            assert f"cannot serve HTTP at `{address}`: Address already in use" in done.err
            assert done.code == 1


def test_an_address_of_both_versions_answers_to_either(rpr: Rpr) -> None:
    try:
        socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True).close()
    except (OSError, ValueError):
        pytest.skip("this machine has no version 6 of IP")
    (rpr.folder / ".run").mkdir(mode=0o700)
    rpr.write("jobs.toml", JOBS)
    done = rpr("apply", "-d", "--http", "[::]:0", "--allow-remote", "jobs.toml")
    try:
        found = re.search(r"http://\[::\]:(\d+)", done.err)
        assert found is not None, done.err
        for address, host, status in (
            ("127.0.0.2", "127.0.0.2", 200),
            ("::1", "[::1]", 200),
            ("::1", "127.0.0.2", 421),
        ):
            with closing(http.client.HTTPConnection(address, int(found[1]), timeout=20)) as connection:
                connection.request("GET", "/livez", headers={"Host": host})
                assert connection.getresponse().status == status, host
    finally:
        assert rpr("down", "--now", "-q").code == 0


def test_remote_access_needs_two_options_and_answers_to_the_called_address(rpr: Rpr) -> None:
    (rpr.folder / ".run").mkdir(mode=0o700)
    rpr.env["RPR_HTTP_TOKEN"] = "0123456789abcdef"
    rpr.write("jobs.toml", JOBS)
    done = rpr("apply", "-d", "--http", "0.0.0.0:0", "--allow-remote", "--http-host", "jobs.example.com", "jobs.toml")
    try:
        found = re.search(r"http://0\.0\.0\.0:(\d+)", done.err)
        assert found is not None, done.err
        for address, host, status in (
            ("127.0.0.2", "127.0.0.2", 200),
            ("127.0.0.1", "jobs.example.com", 200),
            ("127.0.0.1", "evil.example.com", 421),
            ("127.0.0.1", "127.0.0.2", 421),
        ):
            with closing(http.client.HTTPConnection(address, int(found[1]), timeout=20)) as connection:
                connection.request("GET", "/livez", headers={"Host": host})
                assert connection.getresponse().status == status, host
    finally:
        assert rpr("down", "--now", "-q").code == 0


BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {names}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name.split(".")[0])
sys.meta_path.insert(0, Blocked())
"""


def test_without_the_extra_the_error_shows_how_to_install_it(rpr: Rpr) -> None:
    rpr.write("lib/sitecustomize.py", BLOCKED.format(names=["uvicorn", "starlette", "prometheus_client"]))
    rpr.write("jobs.toml", '[jobs.a]\ncommand = "true"\n')
    rpr("apply", "-q", "--http", "0", "jobs.toml", env={"PYTHONPATH": str(rpr.folder / "lib")}).is_(
        err="rpr: cannot serve HTTP: `starlette` is not installed\nhint: pip install 'repeater-rpr[web]'\n", code=1
    )
    assert rpr("apply", "-q", "jobs.toml", env={"PYTHONPATH": str(rpr.folder / "lib")}).code == 0


def test_without_prometheus_client_all_but_metrics_is_there(rpr: Rpr, site: Callable[..., Site]) -> None:
    rpr.write("lib/sitecustomize.py", BLOCKED.format(names=["prometheus_client"]))
    rpr.env["PYTHONPATH"] = str(rpr.folder / "lib")
    web = site()
    web.live.until_err("prometheus-client is not installed: pip install 'repeater-rpr[web]'")
    assert web("GET", "/metrics")[0] == 501
    assert web("GET", "/api/jobs")[0] == 200


def test_metrics_of_jobs_are_not_mixed_with_ours(rpr: Rpr, site: Callable[..., Site]) -> None:
    folder = rpr.folder / "multi"
    folder.mkdir()
    rpr.env["PROMETHEUS_MULTIPROC_DIR"] = str(folder)  # for a job that is many processes
    web = site()
    assert "repeater_config_generation 1.0" in web("GET", "/metrics")[1]
    assert list(folder.iterdir()) == []


def test_nothing_of_http_is_imported_unless_it_is_asked_for(rpr: Rpr) -> None:
    rpr.write("jobs.toml", '[jobs.a]\ncommand = "true"\n')
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "repeater", "apply", "-q", "--ephemeral", "jobs.toml"],
        cwd=rpr.folder, env=rpr.env, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0
    assert not re.search(r"\| +(starlette|uvicorn|h11|prometheus_client|repeater\.control\.http)\b", done.stderr)


# --- bounds ---------------------------------------------------------------------------------------------------------

FAST = """
project = "shop"
[jobs.beat]
command = "echo x >> beats"
schedule = "every 100ms"
output = { mode = "suppress" }
[jobs.loud]
command = "yes 0123456789012345678901234567890123456789 | head -c 3000000"
schedule = "every 200ms"
overlap = "skip"
output = { mode = "suppress" }
"""


def test_readers_that_read_nothing_delay_no_run_and_others_are_served(site: Callable[..., Site]) -> None:
    web = site("-q", jobs=FAST)
    deaf = []
    try:
        for path in ("/api/logs?follow=true", "/api/events", "/metrics", "/api/history?limit=100000"):
            for _ in range(4):
                connection = socket.create_connection(("127.0.0.1", web.port))
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                connection.sendall(
                    f"GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {web.token}\r\n\r\n".encode()
                )
                deaf.append(connection)

        def beats() -> int:
            return len((web.rpr.folder / "beats").read_text()) if (web.rpr.folder / "beats").exists() else 0

        begun = beats()
        wait_for(lambda: beats() >= begun + 30, "beats")
        rows = web("GET", "/api/jobs/beat/history?limit=30")[1]["items"]
        assert [row["reason"] for row in rows if row["state"] != "succeeded" and row["reason_code"] != "overlap"] in (
            [],
            [None],
        )
        assert web("GET", "/livez") == (200, "ok\n")
    finally:
        for connection in deaf:
            connection.close()


HOSTILE = [
    b"\0" * 1000,
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET /livez HTTP/1.1\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nhost: localhost\r\nhost: evil\r\n\r\n",
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nhost: localhost\r\nx: " + b"a" * 100_000 + b"\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nhost: localhost\r\n" + b"x: y\r\n" * 20_000 + b"\r\n",
    b"POST /api/down HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n",
    b"POST /api/down HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /api/down HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}",
    b"GET /livez HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"CONNECT localhost:80 HTTP/1.1\r\nhost: localhost\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
]


@pytest.mark.parametrize("data", HOSTILE, ids=range(len(HOSTILE)))
def test_an_invalid_request_gets_at_most_one_answer_and_jobs_run_on(data: bytes, shared: Site) -> None:
    with socket.create_connection(("127.0.0.1", shared.port), timeout=30) as connection:
        with suppress(ConnectionError):
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        with suppress(ConnectionError):
            while chunk := connection.recv(65536):
                answer += chunk
    assert answer == b"" or answer.startswith(b"HTTP/1.1 "), answer
    assert not answer.startswith(b"HTTP/1.1 5"), answer
    assert answer.count(b"HTTP/1.1 2") <= 1
    assert shared("GET", "/livez") == (200, "ok\n")
    assert shared("GET", "/api/jobs/web")[1]["state"] == "running"
    assert "Traceback" not in shared.live.err
    assert "internal error" not in shared.live.err


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One supervisor for tests that must not be able to hurt it."""
    rpr = Rpr(tmp_path_factory.mktemp("site"))
    (rpr.folder / ".run").mkdir(mode=0o700)
    web = Site(rpr, "-q")
    try:
        wait_for(web.is_up, lambda: web.live.err)
        wait_for(lambda: web("GET", "/api/jobs/web")[1]["state"] == "running", "a service")
        yield web
    finally:
        web.live.process.send_signal(signal.SIGTERM)
        web.live.process.send_signal(signal.SIGTERM)
        try:
            web.live.process.wait(60)
        finally:
            web.live.process.kill()
            web.live.process.wait()


def test_a_body_that_is_too_long_is_refused_and_the_answer_can_be_read(shared: Site) -> None:
    with closing(shared.open()) as connection:
        headers = {"Authorization": f"Bearer {shared.token}", "Content-Type": "application/json"}
        connection.request("POST", "/api/trigger", b" " * (3 << 20), headers)
        assert connection.getresponse().status == 413


# --- the document ---------------------------------------------------------------------------------------------------


CONFIG = """
[checks]
negative_data_rejection.expected-statuses = [400, 401, 403, 404, 405, 409, 413, 415, 422]
positive_data_acceptance.expected-statuses = [200, 401, 404, 409, 422]
[[operations]]
include-path-regex = "(events|logs)$"
parameters = { "query.follow" = "false" }
[[operations]]
include-path-regex = "name"
parameters = { "path.name" = "tick" }
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ("--phases", "fuzzing", "--max-examples", "4"),
        ("--phases", "coverage", "--include-path-regex", "name|health|livez|readyz|openapi|metrics"),
    ],
    ids=["random", "boundaries"],
)
def test_schemathesis_confirms_the_api_document(site: Callable[..., Site], options: tuple[str, ...]) -> None:
    web = site("-q", "--no-watch")
    web.rpr.write("schemathesis.toml", CONFIG)
    done = subprocess.run(
        [
            Path(sys.executable).with_name("st"), "run", f"http://127.0.0.1:{web.port}/api/openapi.json",
            "-H", f"Authorization: Bearer {web.token}", "--exclude-path", "/api/down", "--seed", "1", "--no-color",
            "--request-timeout", "30", *options,
        ],
        cwd=web.rpr.folder, env={**os.environ, **web.rpr.env}, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:]
    assert re.search(r"(\d+) generated, (\d+) passed", done.stdout), done.stdout[-2000:]
    assert web("GET", "/livez")[0] == 200
    assert "internal error" not in web.live.err


def test_the_document_is_printed_where_no_server_runs(rpr: Rpr, shared: Site) -> None:
    told = rpr("schema", "--openapi")
    assert told.code == 0
    assert json.loads(told.out) == shared("GET", "/api/openapi.json")[1]
