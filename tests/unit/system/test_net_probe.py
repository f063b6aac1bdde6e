"""A probe that passed the check of the job file can be asked: its answer is a fact, never an exception."""

import asyncio
import json
import os
import socket

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from repeater.engine.facts import ProbeReported
from repeater.errors import JobFileError
from repeater.policy.verdict import Matcher, Success
from repeater.shim.spawn import spawn
from repeater.supervisor.launch import BaseEnvironment, probe_launch
from repeater.system import net_probe as adapter
from repeater.system.net_probe import NetProber
from tests.unit.jobfile.loading import jobs

ODD = st.text(st.sampled_from("a1:/[]%@?#. \0\n\t-_٨ü€\ud800\udc80\\$'\"{"), max_size=12)
HOSTS = st.one_of(
    ODD,
    st.sampled_from(
        ["localhost", "[::1]", "::1", "127.0.0.1", "", "a.example", "ü.example", "x" * 70, "[fe80::1%eth0]"]
    ),
)
PORTS = st.one_of(ODD, st.integers(-1, 100_000).map(str), st.just(""), st.just("٨٠"))
ADDRESSES = st.builds("{}:{}".format, HOSTS, PORTS) | ODD
URLS = st.builds("{}://{}:{}/{}".format, st.sampled_from(["http", "https", "HTTP", "ftp", ""]), HOSTS, PORTS, ODD) | ODD
WORDS = ODD | st.text(max_size=20)
PROBES = st.fixed_dictionaries({}, optional={
    "every": st.sampled_from(["1us", "1s", "36525d", "0s", "1x", "99999999w"]),
    "timeout": st.sampled_from(["1us", "50ms", "36525d", "0s", ""]),
    "failures": st.integers(-1, 10**30) | st.just(1.5),
}).flatmap(lambda common: st.one_of(
    st.builds(lambda text: {**common, "http": text}, URLS),
    st.builds(lambda text: {**common, "tcp": text}, ADDRESSES),
    st.builds(lambda text: {**common, "exec": text}, WORDS | st.lists(WORDS | st.integers(-5, 10**30) | st.floats(), max_size=3)),
    st.builds(lambda text: {**common, "log": text}, WORDS | st.sampled_from(["(", "[a-", "(?P<a", "a{1000}{1000}", "(a+)+$"])),
))  # fmt: skip


class Wire:
    """Stands for a connection; takes what the socket module would take, and no name is resolved."""

    def __init__(self) -> None:
        self.sent = b""

    async def open(self, host, port, ssl=None, **_):
        host.encode("idna")
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        assert 1 <= port <= 65535
        return self, self

    def write(self, data):
        self.sent += data

    async def drain(self):
        assert self.sent.count(b"\r\n\r\n") == 1
        assert self.sent.count(b"\r\n") == 6
        assert self.sent.isascii()

    async def readline(self):
        return b"HTTP/1.1 200 OK\r\n"

    def close(self):
        pass

    async def wait_closed(self):
        pass


def ask(probe, spec):
    told, wrong = [], []

    async def one():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: wrong.append(context))
        prober = NetProber(told.append, loop)
        prober.run_probe("a", "ready", probe, spec)
        for _ in range(200):
            await asyncio.sleep(0.001)
            if told or wrong:
                break
        prober.close()

    asyncio.run(one())
    return told, wrong


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table=PROBES)
def test_an_accepted_probe_runs_without_an_exception(table, monkeypatch):
    file = {"jobs": {"a": {"command": "true", "schedule": "always", "ready": table}}}
    try:
        spec = jobs(json.dumps(file), name="jobs.json")["a"]
    except JobFileError:
        return
    probe = spec.ready
    if probe.log is not None:
        matcher = Matcher(Success(pattern=probe.log, stderr=True), None)
        matcher.feed("stdout", b"aaaaaaaaaaaaaaaaaaaaaaaaaa!\n\xff")
        matcher.found()
    elif probe.exec is not None:
        launch = probe_launch(spec, "probe:1", probe.exec, BaseEnvironment({"PATH": "/nowhere"}))
        process = spawn(("/bin/true", *launch.argv), cwd="/", env=launch.env, outputs=(2, 2))
        process.wait()
        os.close(process.pidfd)
    else:
        wire = Wire()
        monkeypatch.setattr(adapter.asyncio, "open_connection", wire.open)
        told, wrong = ask(probe, spec)
        assert wrong == []
        assert [type(fact) for fact in told] == [ProbeReported]


@pytest.mark.parametrize(
    "table", [{"tcp": "127.0.0.1:80000"}, {"tcp": "127.0.0.1:٨٠"}, {"http": "http://localhost:80000/"}]
)
def test_a_port_that_cannot_be_is_refused_when_the_file_is_read(table):
    file = {"jobs": {"a": {"command": "true", "schedule": "always", "ready": table}}}
    with pytest.raises(JobFileError, match="port is not a number from 1 to 65535"):
        jobs(json.dumps(file), name="jobs.json")
