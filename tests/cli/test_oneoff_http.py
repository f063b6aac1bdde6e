"""`--metrics` and `--health` of one-off commands, through the real `rpr`."""

from __future__ import annotations

import http.client
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, suppress

import pytest

from tests.cli.conftest import Rpr
from tests.cli.test_apply import wait_for
from tests.cli.test_http import BLOCKED


def spare_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def get(port: int, path: str, host: str = "localhost") -> tuple[int, str]:
    """Status and body; 0 while nobody listens."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        try:
            connection.request("GET", path, headers={"Host": host})
            reply = connection.getresponse()
            return reply.status, reply.read().decode()
        except ConnectionError:
            return 0, ""


@pytest.fixture
def begin(rpr: Rpr) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    begun: list[subprocess.Popen[str]] = []

    def start(*args: str) -> subprocess.Popen[str]:
        begun.append(rpr.start(*args))
        return begun[-1]

    yield start
    for process in begun:
        process.terminate()
        process.communicate(timeout=20)


def test_metrics_and_health_are_served_while_the_command_runs(begin: Callable[..., subprocess.Popen[str]]) -> None:
    metrics, health = spare_port(), spare_port()
    process = begin(
        "interval", "-q", "-e", "20ms", "--metrics-port", str(metrics), "--health-port", str(health), "--", "false"
    )

    def counted() -> int:
        found = re.search(r'repeater_runs_total\{job="false",outcome="failed"\} (\d+)', get(metrics, "/metrics")[1])
        return int(found[1]) if found else 0

    wait_for(lambda: counted() >= 3, "three runs")
    assert 'repeater_job_consecutive_failures{job="false"}' in get(metrics, "/metrics")[1]
    for path in ("/livez", "/readyz", "/healthz"):
        assert get(health, path) == (200, "ok\n")
    assert get(health, "/metrics")[0] == get(metrics, "/livez")[0] == get(metrics, "/")[0] == 404
    assert get(metrics, "/metrics", "evil.example")[0] == 421
    process.terminate()
    assert process.wait(20) == 143
    assert get(metrics, "/metrics")[0] == 0


def test_one_port_can_serve_both(begin: Callable[..., subprocess.Popen[str]]) -> None:
    port = str(spare_port())
    begin("interval", "-q", "-e", "1h", "--metrics-port", port, "--health-port", port, "--", "true")
    wait_for(lambda: get(int(port), "/livez")[0] == 200, "health")
    assert get(int(port), "/metrics")[0] == 200


def test_readers_that_read_nothing_delay_no_run(begin: Callable[..., subprocess.Popen[str]]) -> None:
    port = spare_port()
    begin("interval", "-q", "-e", "20ms", "--metrics-port", str(port), "--", "true")
    wait_for(lambda: get(port, "/metrics")[0] == 200, "metrics")
    deaf = [socket.create_connection(("127.0.0.1", port)) for _ in range(40)]
    try:
        for connection in deaf[:8]:
            connection.sendall(b"GET /metrics HT")

        def runs() -> int:
            with suppress(ConnectionError):
                for connection in deaf:
                    connection.close()
            found = re.search(r'outcome="success"\} (\d+)', get(port, "/metrics")[1])
            return int(found[1]) if found else 0

        begun = runs()
        wait_for(lambda: runs() >= begun + 10, "runs")
    finally:
        for connection in deaf:
            connection.close()


def test_a_requested_port_in_use_is_an_error_before_anything_runs(rpr: Rpr) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for what in ("metrics", "health"):
            done = rpr("c", "-t", "1", f"--{what}-port", port, "--", "echo", "x")
            done.is_(
                err=f"rpr: cannot serve {what} at port {port}: Address already in use\n"
                f"hint: choose another port with `--{what}-port`\n",
                code=1,
            )
        set_always = {"RPR_HEALTH_ENABLED": "true", "RPR_HEALTH_CHECK_PORT": port}
        done = rpr("c", "-t", "1", "--", "echo", "x", env=set_always)
        done.is_(out="x\n", err=f"rpr: warning: cannot serve health at port {port}: Address already in use\n")


@pytest.mark.parametrize("port", ["0", "70000", "http", "-1", ""])
def test_a_port_that_is_none_is_refused(rpr: Rpr, port: str) -> None:
    done = rpr("c", "-t", "1", f"--metrics-port={port}", "--", "echo", "x")
    assert (done.out, done.code) == ("", 2)
    assert f"cannot use `--metrics-port {port}`".rstrip(" `") in done.err.replace("=", " ")


def test_without_prometheus_client_metrics_name_it_and_health_works(rpr: Rpr) -> None:
    rpr.write("lib/sitecustomize.py", BLOCKED.format(names=["prometheus_client"]))
    env = {"PYTHONPATH": str(rpr.folder / "lib")}
    rpr("c", "-t", "1", "--metrics", "--", "echo", "x", env=env).is_(
        err="rpr: cannot serve metrics: `prometheus_client` is not installed\nhint: pip install 'repeater-rpr[web]'\n",
        code=1,
    )
    port = str(spare_port())
    rpr("c", "-t", "1", "--health-port", port, "--", "echo", "x", env=env).is_(out="x\n")
    rpr("c", "-t", "1", "--", "echo", "x", env={**env, "RPR_METRICS_ENABLED": "true"}).is_(
        out="x\n", err="rpr: warning: cannot serve metrics: `prometheus_client` is not installed\n"
    )
