"""Whoever can connect to a listening socket cannot end the supervisor, starve its jobs, or keep good clients out."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest

from tests.cli.conftest import RPR
from tests.faults.door_load import HEAD, JOBS, TOKEN, Site, held, is_answered, reset
from tests.faults.ground import Ground, wait_for

WITHIN = 20.0
"""Seconds for an answer on a machine that does ten other things; that it takes less than one is a figure of the fuzz."""


def limited(descriptors: int) -> list[str]:
    return ["sh", "-c", f'ulimit -n {descriptors}; exec "$@"', "sh"]


def is_alive(site: Site) -> bool:
    return site.get("/livez", timeout=5) == (200, "ok\n")


def test_without_a_free_descriptor_http_answers_and_jobs_run_on(ground: Ground) -> None:
    """40 services under `ulimit -n 64` take more descriptors than there are."""
    services = "".join(f"[jobs.s{number}]\ncommand = 'exec sleep 600'\nschedule = 'always'\n" for number in range(40))
    site = Site(ground, JOBS + services, prefix=limited(64))
    wait_for(lambda: site.run.holds().descriptors >= 60 or len(ground.jobs_living()) >= 40, lambda: site.run.err)
    with held(site.connect, 30):
        is_answered(lambda: is_alive(site), WITHIN)
        is_answered(lambda: ground("status").code == 0, 60)
    is_answered(lambda: is_alive(site), WITHIN)
    assert site.run.is_there, site.run.err
    assert "internal error" not in site.run.err


def test_a_flood_of_connections_spares_the_descriptors_of_the_jobs(ground: Ground) -> None:
    site = Site(ground, prefix=limited(256))
    before = site.run.holds().descriptors
    with contextlib.ExitStack() as closing:
        for _ in range(1500):
            sock = closing.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(site.address)
        is_answered(lambda: is_alive(site), WITHIN)
        assert site.run.holds().descriptors <= 256 - 16
        site.goes_on()
    wait_for(lambda: site.run.holds().descriptors <= before + 4, "no descriptor is kept")


def test_a_client_that_resets_beside_many_that_are_open_ends_nothing(ground: Ground) -> None:
    site = Site(ground)
    with held(site.connect, 64):
        for _ in range(200):
            sock = site.connect()
            reset(sock)
        for _ in range(50):
            sock = site.connect()
            sock.send(b"POST /x HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nZZZ\r\n")
            reset(sock)
        site.goes_on()
        assert is_alive(site)


@pytest.mark.parametrize("begin", [b"", b"GET / HT", HEAD], ids=["silent", "half a head", "answered"])
def test_slow_or_idle_connections_keep_no_good_client_out(ground: Ground, begin: bytes) -> None:
    site = Site(ground)
    with held(site.connect, 400, begin):
        assert is_alive(site)
        assert site.get("/readyz")[0] == 200
        assert site.get("/api/jobs")[0] == 200
        site.goes_on()


def test_slow_bytes_block_no_other_client(ground: Ground) -> None:
    site = Site(ground)
    over = threading.Event()
    with held(site.connect, 400) as socks:

        def drip() -> None:
            for byte in b"GET / HTTP/1.1\r\nhost: localhost\r\nx: " + b"y" * 1000:
                for sock in socks:
                    with contextlib.suppress(OSError):
                        sock.send(bytes([byte]))
                if over.wait(0.02):
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            for _ in range(5):
                is_answered(lambda: is_alive(site), WITHIN)
                is_answered(lambda: site.get("/api/jobs")[0] == 200, WITHIN)
        finally:
            over.set()
            thread.join()


def test_unread_answers_block_no_other_client(ground: Ground) -> None:
    """Refusals need no token, so anybody can ask for many of them and read none."""
    site = Site(ground)
    ask = b"GET /api/jobs HTTP/1.1\r\nhost: localhost\r\n\r\n" * 20_000

    def deaf() -> socket.socket:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(site.address)
        sock.setblocking(False)
        return sock

    with held(deaf, 80, ask):
        is_answered(lambda: is_alive(site), WITHIN)
        is_answered(lambda: site.get("/api/jobs")[0] == 200, WITHIN)
        site.goes_on()


def test_event_streams_have_their_own_limit_beside_other_requests(ground: Ground) -> None:
    site = Site(ground)
    ask = f"GET /api/events HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\n\r\n".encode()
    with held(site.connect, 64, ask) as socks:
        for sock in socks:
            assert sock.recv(4096).startswith(b"HTTP/1.1 200")
        status, text = site.get("/api/events")
        assert (status, "cannot answer more than 64 streams at once" in text) == (503, True)
        assert is_alive(site)
        assert site.get("/api/jobs")[0] == 200
        with held(site.connect, 400):  # and none of them is ended for others
            assert is_alive(site)
            for sock in socks:
                sock.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    assert sock.recv(1 << 16) != b""
        socks.pop().close()

    def streams() -> bool:
        with held(site.connect, 1, ask) as (sock,):
            return sock.recv(4096).startswith(b"HTTP/1.1 200")

    is_answered(streams, WITHIN)


@pytest.fixture
def control(ground: Ground) -> Iterator[Ground]:
    run = ground.apply(JOBS)
    run.until_ready()
    yield ground
    assert run.is_there, run.err
    assert "internal error" not in run.err


def to(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(20)
    sock.connect(path)
    return sock


@pytest.mark.parametrize("begin", [b"", b'{"v":2,"ve'], ids=["silent", "half a line"])
def test_slow_or_idle_control_connections_block_no_other_client(control: Ground, begin: bytes) -> None:
    with held(lambda: to(str(control.socket)), 200, begin):
        assert control("status").code == 0
        time.sleep(0.1)
        assert control("health").code == 0
    for _ in range(100):
        reset(to(str(control.socket)))


def test_without_a_free_descriptor_the_rate_limit_daemon_answers(ground: Ground) -> None:
    """The daemon raises a low limit as far as it may, so its hard limit has to be low."""
    path = ground.folder / "limits.sock"
    process = subprocess.Popen(
        [*limited(40), RPR, "daemon", "--socket", str(path), "--ephemeral"],
        cwd=ground.folder, env=ground.rpr.env, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        wait_for(lambda: path.exists() or process.poll() is not None, "a socket")
        with held(lambda: to(str(path)), 100):
            is_answered(lambda: ground("daemon", "--stats", "--socket", str(path)).code == 0, 60)
        for _ in range(50):
            reset(to(str(path)))
        is_answered(lambda: ground("daemon", "--stats", "--socket", str(path)).code == 0, 60)
        assert process.poll() is None
    finally:
        process.terminate()
        told = process.communicate(timeout=60)[1].decode()
    assert "internal error" not in told
    assert "Traceback" not in told
